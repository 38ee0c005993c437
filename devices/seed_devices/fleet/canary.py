"""Choose the canaries of a rollout, and decide by what they reported whether it goes on.

All of it is a function of what was seen. A fault that was seen stops the rollout; what wasn't seen never does, and is
listed as missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from seed_devices.fleet.target import Target
from seed_runtime.errors import UsageError

WINDOW: Final = 10
"""Inferences whose times are compared at once with those of the version before."""
WINDOWS: Final = 3
"""Windows in a row that must be slower: a load that passes is in fewer."""
REQUESTS_MIN: Final = WINDOW * WINDOWS
"""Inferences that the version before must have answered, to be compared with."""
SLOWER: Final = 1.5
"""Ratio of mean times from which on a window can be slower. Its median must be in a later bucket as well."""
SLOWER_S: Final = 0.002
"""Seconds by which its mean must be longer besides: scheduling alone delays by so much."""
SILENT_MAX: Final = 2
"""Observations in a row in which a server isn't ready that make it unhealthy."""
_DEAD: Final = ("failed", "inactive")
"""States of a unit that doesn't run and isn't about to."""


@dataclass(frozen=True)
class Latency:
    """Histogram of the times of inferences."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets but the last [s]."""
    counts: tuple[int, ...]
    """Number of inferences up to each bound, and of all."""
    seconds: float
    """Sum of their times."""

    @property
    def total(self) -> int:
        """Return the number of inferences."""
        return self.counts[-1]

    @property
    def mean(self) -> float:
        """Return the mean time [s]; there must be an inference."""
        return self.seconds / self.total

    @property
    def median_bucket(self) -> int:
        """Return the bucket in which the median is."""
        return next(number for number, count in enumerate(self.counts) if 2 * count >= self.total)

    def since(self, earlier: Latency) -> Latency | None:
        """Return the inferences that were added since; None if the server counts anew."""
        counts = tuple(now - before for now, before in zip(self.counts, earlier.counts, strict=False))
        if self.bounds != earlier.bounds or list(counts) != sorted(counts) or counts[0] < 0:
            return None
        return Latency(self.bounds, counts, self.seconds - earlier.seconds)

    def is_slower(self, before: Latency) -> bool:
        """Return whether these are clearly slower: the mean, and the median, which a single long one doesn't move."""
        # What a device sends may be NaN, which is larger than nothing.
        is_longer = self.mean >= max(SLOWER * before.mean, before.mean + SLOWER_S)
        return is_longer and self.median_bucket > before.median_bucket


@dataclass(frozen=True)
class Golden:
    """What came of the golden sample: right, wrong, or None where nothing was compared; and why."""

    right: bool | None
    text: str = ""


@dataclass(frozen=True)
class Observation:
    """What was seen of a model on a device at one time."""

    problem: str = ""
    """Why the device couldn't be asked; nothing else is known then."""
    digest: str | None = None
    """The version that runs."""
    golden: Golden | None = None
    """The golden sample; None if it wasn't run this time."""
    service: Mapping[str, Any] | None = None
    """The service as `status` has it; None if there is none."""
    ready: bool | None = None
    """Whether the server says that it is ready; None if that isn't known."""
    not_ready: str = ""
    """Why it isn't, or why that isn't known."""
    latency: Latency | None = None
    """Times of the server's inferences since its start."""


@dataclass(frozen=True)
class Verdict:
    """What the watch of one canary found: any fault stops the rollout, whatever is missing doesn't."""

    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def choose(asked: str, targets: Sequence[Target]) -> list[Target]:
    """Return the canaries among the devices, in the order of these.

    Args:
        asked: a number for the first devices, or names of devices with commas between them.
        targets: all devices.

    Raises:
        UsageError: there are no such devices, or none would be left.
    """
    if asked.strip().isdecimal():
        count = int(asked)
        if not 0 < count < len(targets):
            raise UsageError(
                f"--canary {asked}: of {len(targets)} devices at least 1 and at most {len(targets) - 1} can be "
                "canaries; the others wait for them"
                if len(targets) > 1
                else "--canary needs devices that wait for the canaries, and only one was named; leave it out"
            )
        return list(targets[:count])
    chosen: set[Target] = set()
    for name in (part.strip() for part in asked.split(",")):
        found = [target for target in targets if name in (str(target), target.device)]
        if not found:
            raise UsageError(
                f"--canary {asked}: {name!r} is none of the devices; write a number, or names as the command line or "
                "the inventory has them, with commas between them"
            )
        chosen.update(found)
    if len(chosen) == len(targets):
        raise UsageError(f"--canary {asked} names all devices; name fewer, so that the others wait for them")
    return [target for target in targets if target in chosen]


def judge(digest: str, before: Observation | None, seen: Sequence[Observation]) -> Verdict:
    """Judge one canary by all that was seen of it.

    Args:
        digest: the version that was pushed to it.
        before: what was seen before the push; None or one with a `problem` if nothing was.
        seen: what was seen since, the oldest first.
    """
    answered = [each for each in seen if not each.problem]
    missing = []
    if len(answered) < len(seen):
        last = next(each.problem for each in reversed(seen) if each.problem)
        missing.append(f"it could not be asked {len(seen) - len(answered)} of {len(seen)} times: {last}")
    own = list(_of_version(digest, answered))
    if len(own) < len(answered):
        missing.append("another version runs there meanwhile, which is not watched")
    found = [_judge_golden(own), _judge_service(own), _judge_latency(digest, before, own)]
    faults = [text for verdict in found for text in verdict.faults]
    missing += [text for verdict in found for text in verdict.missing]
    return Verdict(tuple(faults), tuple(missing))


def _of_version(digest: str, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Yield what was seen of the version, up to when another one ran."""
    for each in seen:
        if each.digest != digest:
            return
        yield each


def _judge_golden(seen: Sequence[Observation]) -> Verdict:
    ran = [each.golden for each in seen if each.golden is not None]
    wrong = next((golden for golden in ran if golden.right is False), None)
    if wrong is not None:
        return Verdict(faults=(f"its golden sample fails: {wrong.text}",))
    if any(golden.right for golden in ran):
        return Verdict()
    return Verdict(missing=(f"no golden sample was compared: {ran[-1].text if ran else 'it was not run'}",))


def _judge_service(seen: Sequence[Observation]) -> Verdict:
    if not seen or not any(each.service for each in seen):
        return Verdict(missing=("it has no service",) if seen else ())
    faults, missing = [], []
    silent = restarts = 0
    last_count, last_pid = None, 0
    for each in seen:
        service = each.service or {}
        if service.get("error"):
            continue
        if service.get("active") in _DEAD:
            faults.append(f"its service is {service['active']}")
            break
        silent = silent + 1 if each.ready is False else 0
        if silent == SILENT_MAX:
            faults.append(f"its service is not ready: {each.not_ready}")
            break
        count, pid = service.get("restarts") or 0, service.get("pid") or 0
        # Where the manager doesn't count restarts, another process tells of one.
        if last_count is not None:
            restarts += max(count - last_count, int(0 != pid != last_pid != 0))
        last_count, last_pid = count, pid or last_pid
    if restarts:
        faults.append("its service restarted" + (f" {restarts} times" if restarts > 1 else ""))
    errors = [each.service["error"] for each in seen if each.service and each.service.get("error")]
    unknown = [each.not_ready for each in seen if each.service and each.ready is None and each.not_ready]
    if errors or unknown:
        missing.append(f"the state of its service is not known at all times: {(errors or unknown)[-1]}")
    return Verdict(tuple(faults), tuple(missing))


def _judge_latency(digest: str, before: Observation | None, seen: Sequence[Observation]) -> Verdict:
    if not any(each.service for each in seen):
        return Verdict()
    base = before.latency if before is not None else None
    if before is not None and before.digest == digest:
        return Verdict(missing=("there are no times to compare with: this version ran there before the push",))
    if base is None or base.total < REQUESTS_MIN:
        count = 0 if base is None else base.total
        text = f"its service answered {count} inferences before the push, and {REQUESTS_MIN} are needed"
        return Verdict(missing=(f"there are no times to compare with: {text}",))
    windows = list(_windows([each.latency for each in seen if each.latency is not None]))
    streak: list[Latency] = []
    for window in windows:
        streak = [*streak, window] if window.bounds == base.bounds and window.is_slower(base) else []
        if len(streak) == WINDOWS:
            total, seconds = sum(one.total for one in streak), sum(one.seconds for one in streak)
            text = f"{_ms(seconds / total)} on average over {total}, and {_ms(base.mean)} with the version before"
            return Verdict(faults=(f"its inferences became slower: {text}",))
    if len(windows) < WINDOWS:
        text = f"{REQUESTS_MIN} or more are needed to compare their times; watch it for longer"
        return Verdict(missing=(f"its service answered too few inferences, {text}",))
    return Verdict()


def _windows(found: Sequence[Latency]) -> Iterator[Latency]:
    """Yield the inferences between observations, at least WINDOW at a time."""
    start = found[0] if found else None
    for each in found[1:]:
        window = each.since(start) if start is not None else None
        if window is None:
            start = each
        elif window.total >= WINDOW:
            start = each
            yield window


def _ms(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "an unknown time"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
