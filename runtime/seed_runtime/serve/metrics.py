"""What the server counts: requests, errors, times. As Prometheus' text format, and as the protocol's statistics.

All of it is written and read by the thread of the connections alone.

Source: prometheus.io/docs/instrumenting/exposition_formats, prometheus.io/docs/practices/naming;
github.com/triton-inference-server/server, docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from seed_runtime.memory.process import baseline
from seed_runtime.serve.protocol import ServedModel
from seed_runtime.version import __version__

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of `prometheus_text`."""
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram's buckets, in seconds."""
CALLS: Final = ("ask", "generate", "health", "infer", "metadata", "metrics", "other", "statistics")
"""What requests are counted by."""
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass
class Total:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count it once more."""
        self.count += 1
        self.seconds += seconds

    def statistic(self) -> dict[str, int]:
        """Return it as the protocol's $duration_stat."""
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


@dataclass(frozen=True)
class Times:
    """Times of one inference, in seconds."""

    queue: float
    """From the last byte of the request until the model is free."""
    read: float
    """To make arrays of the request."""
    run: float
    """To run the model."""
    write: float
    """To write the answer; of one that is sent in portions, the first."""

    @property
    def total(self) -> float:
        """From the last byte of the request to the first byte of the answer."""
        return self.queue + self.read + self.run + self.write


@dataclass
class Metrics:
    """Counts since the server was started."""

    started: float = field(default_factory=time.time)
    """When that was [s since 1970]."""
    requests: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CALLS, 0)))
    """Requests that were answered, by call."""
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Those of them whose status is not 200, by call and status."""
    totals: dict[str, Total] = field(
        default_factory=lambda: {key: Total() for key in ("success", "fail", "queue", "read", "run", "write")}
    )
    """Times of inferences."""
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Number of successful inferences by their time: up to each of BOUNDS_S, and longer."""
    last_inference: float = 0.0
    """When the last inference was asked for [s since 1970]."""

    def count(self, call: str, status: HTTPStatus) -> None:
        """Count an answered request."""
        self.requests[call] += 1
        if status != HTTPStatus.OK:
            self.errors[call, status.value] += 1

    def add_success(self, times: Times) -> None:
        """Count an inference that is answered."""
        self.last_inference = time.time()
        self.totals["success"].add(times.total)
        for key in ("queue", "read", "run", "write"):
            self.totals[key].add(getattr(times, key))
        self.buckets[bisect_left(BOUNDS_S, times.total)] += 1

    def add_failure(self, seconds: float) -> None:
        """Count an inference that failed, and the time from its last byte until then."""
        self.last_inference = time.time()
        self.totals["fail"].add(seconds)

    def statistics(self, model: ServedModel) -> dict[str, Any]:
        """Return the answer to a request for statistics."""
        names = {"success": "success", "fail": "fail", "queue": "queue"} | {
            "compute_input": "read",
            "compute_infer": "run",
            "compute_output": "write",
        }
        done = self.totals["success"].count
        return {
            "model_stats": [
                {
                    "name": model.name,
                    "version": model.version,
                    "last_inference": round(self.last_inference * 1e3),
                    "inference_count": done,
                    "execution_count": done,
                    "inference_stats": {
                        **{key: self.totals[name].statistic() for key, name in names.items()},
                        "cache_hit": Total().statistic(),
                        "cache_miss": Total().statistic(),
                    },
                    # A model may have any axes; none is known to be a batch.
                    "batch_stats": [],
                }
            ]
        }

    def prometheus_text(self, model: ServedModel, open_connections: int, memory_limit: int | None) -> str:
        """Return all metrics in Prometheus' text format.

        Args:
            model: the model that is served.
            open_connections: number of connections.
            memory_limit: --max-memory [B]; None for no limit.
        """
        memory = baseline()
        info = {"model": model.name, "version": model.version, "digest": model.digest, "runtime": __version__}
        success = self.totals["success"]
        lines = [
            *_metric("seed_model_info", "gauge", "The model that is served.", [(info, 1)]),
            *_metric(
                "seed_requests_total",
                "counter",
                "Requests that were answered.",
                [({"call": call}, count) for call, count in sorted(self.requests.items())],
            ),
            *_metric(
                "seed_request_errors_total",
                "counter",
                "Requests that were answered with another status than 200.",
                [({"call": call, "code": str(code)}, count) for (call, code), count in sorted(self.errors.items())],
            ),
            *_metric(
                "seed_inference_duration_seconds",
                "histogram",
                "Time of successful inferences, from a request's last byte to its answer's first.",
                [],
            ),
        ]
        below = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.buckets, strict=True):
            below += count
            lines.append(f'seed_inference_duration_seconds_bucket{{le="{bound}"}} {below}')
        lines += [
            f"seed_inference_duration_seconds_sum {success.seconds!r}",
            f"seed_inference_duration_seconds_count {success.count}",
        ]
        values: list[tuple[str, str, str, float]] = [
            ("seed_inference_queue_seconds_total", "counter", "Time that inferences waited for the model.",
             self.totals["queue"].seconds),
            ("seed_inference_run_seconds_total", "counter", "Time that the model ran.", self.totals["run"].seconds),
            ("seed_connections", "gauge", "Open connections.", open_connections),
            ("seed_memory_peak_bytes", "gauge", "Largest resident memory of the process so far.", memory.peak),
            ("process_resident_memory_bytes", "gauge", "Resident memory of the process.", memory.resident),
            ("process_cpu_seconds_total", "counter", "Processor time of the process.", time.process_time()),
            ("process_start_time_seconds", "gauge", "When the server was started, since 1970.", self.started),
        ]  # fmt: skip
        if memory_limit is not None:
            values.append(("seed_memory_limit_bytes", "gauge", "Memory that --max-memory allows.", memory_limit))
        for name, kind, help_text, value in values:
            lines += _metric(name, kind, help_text, [({}, value)])
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, help_text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        text = ",".join(f'{key}="{label.translate(_ESCAPES)}"' for key, label in labels.items())
        lines.append(f"{name}{{{text}}} {value!r}" if text else f"{name} {value!r}")
    return lines
