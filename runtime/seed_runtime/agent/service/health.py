"""Ask the server of a service whether it is ready, and how long its inferences have taken."""

from __future__ import annotations

import contextlib
import http.client
import re
from typing import Any, Final

from seed_runtime.agent.service.readiness import READY_PATH, get
from seed_runtime.agent.service.settings import Service

_HISTOGRAM: Final = "seed_inference_duration_seconds"
_BUCKET: Final = re.compile(rf'^{_HISTOGRAM}_bucket{{le="([0-9.]+|\+Inf)"}} ([0-9]{{1,18}})$', re.MULTILINE)
_SUM: Final = re.compile(rf"^{_HISTOGRAM}_sum ([0-9.e+-]{{1,40}})$", re.MULTILINE)


def read_health(service: Service) -> dict[str, Any]:
    """Return the answer to `health` for a service, which may have ended.

    Returns:
        `ready`; `problem`, the reason where it isn't; and `latency`, None where the server doesn't say: the histogram
        of its inferences since it was started.
    """
    try:
        code, _ = get(service, READY_PATH)
    except (OSError, http.client.HTTPException) as error:
        return {"ready": False, "problem": f"it does not answer: {str(error) or type(error).__name__}", "latency": None}
    if code != 200:
        return {"ready": False, "problem": f"it answers {code}", "latency": None}
    latency = None
    with contextlib.suppress(OSError, http.client.HTTPException):
        code, body = get(service, "/metrics")
        latency = parse_latency(body.decode(errors="replace")) if code == 200 else None
    return {"ready": True, "problem": None, "latency": latency}


def parse_latency(metrics: str) -> dict[str, Any] | None:
    """Return the histogram of inferences of a server's metrics; None if there is none.

    Returns:
        `bounds`, the upper bounds of its buckets but the last [s]; `counts`, the inferences up to each bound, and all;
        and `seconds`, the sum of their times.
    """
    buckets, total = _BUCKET.findall(metrics), _SUM.search(metrics)
    if not buckets or buckets[-1][0] != "+Inf" or total is None:
        return None
    try:
        bounds, seconds = [float(bound) for bound, _ in buckets[:-1]], float(total[1])
    except ValueError:
        return None
    return {"bounds": bounds, "counts": [int(count) for _, count in buckets], "seconds": seconds}
