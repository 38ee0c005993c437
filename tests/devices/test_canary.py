"""What of a canary stops a rollout, what is only missing, and which devices are canaries."""

from __future__ import annotations

from typing import Any

import pytest

from seed_devices.fleet.canary import REQUESTS_MIN, WINDOW, WINDOWS, Golden, Latency, Observation, choose, judge
from seed_devices.fleet.target import parse
from seed_runtime.errors import UsageError

OLD, NEW = "a" * 64, "b" * 64
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
FLEET = [parse(name) for name in ("pi@a", "pi@b:bell", "ssh://pi@c:2201", "d")]


def times(*milliseconds: float) -> Latency:
    """Return the histogram of inferences that took so long."""
    seconds = [each / 1e3 for each in milliseconds]
    counts = [sum(each <= bound for each in seconds) for bound in BOUNDS]
    return Latency(BOUNDS, (*counts, len(seconds)), sum(seconds))


def served(latency: Latency | None = None, digest: str = NEW, **changed: Any) -> Observation:
    """Return a device in good health whose service has these times."""
    service = {"active": "active", "pid": 7, "restarts": 0, **changed.pop("service", {})}
    fields: dict[str, Any] = {"golden": Golden(True), "service": service, "ready": True, "latency": latency}
    return Observation(digest=digest, **{**fields, **changed})


BEFORE = served(times(*[6.0] * REQUESTS_MIN), digest=OLD)


def windows(*each: float) -> list[Observation]:
    """Return what is seen while WINDOW inferences after the other take so many milliseconds."""
    done: list[float] = []
    seen = [served(times())]
    for milliseconds in each:
        done += [milliseconds] * WINDOW
        seen.append(served(times(*done)))
    return seen


def test_a_canary_in_good_health_has_no_fault_and_nothing_is_missing() -> None:
    verdict = judge(NEW, BEFORE, windows(6, 6, 6))
    assert (verdict.faults, verdict.missing) == ((), ())


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ([served(golden=Golden(False, "y differs"))], "its golden sample fails: y differs"),
        ([served(), served(golden=Golden(False, "y differs"))], "its golden sample fails: y differs"),
        ([served(service={"active": "failed"})], "its service is failed"),
        ([served(service={"active": "inactive"})], "its service is inactive"),
        ([served(ready=False, not_ready="it answers 500")] * 2, "its service is not ready: it answers 500"),
        ([served(), served(service={"restarts": 1})], "its service restarted"),
        ([served(), served(service={"restarts": 3})], "its service restarted 3 times"),
        ([served(), served(service={"pid": 8})], "its service restarted"),
        ([served(), served(service={"pid": 0, "active": "activating"}), served(service={"pid": 8})],
         "its service restarted"),
    ],
)  # fmt: skip
def test_a_fault_that_was_seen_stops(seen: list[Observation], fault: str) -> None:
    assert judge(NEW, BEFORE, seen).faults == (fault,)


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        ([], "no golden sample was compared: it was not run"),
        ([Observation(problem="gone")] * 2, "it could not be asked 2 of 2 times: gone"),
        ([served(), Observation(problem="gone")], "it could not be asked 1 of 2 times: gone"),
        ([Observation(digest=NEW, golden=Golden(True))], "it has no service"),
        ([served(golden=Golden(None, "it has none"))], "no golden sample was compared: it has none"),
        ([served(golden=None)], "no golden sample was compared: it was not run"),
        ([served(service={"error": "no manager"}, ready=None)], "the state of its service is not known at all times"),
        ([served(ready=None, not_ready="old agent")], "the state of its service is not known at all times: old agent"),
        ([served(digest=OLD)], "another version runs there meanwhile"),
        ([served(digest=OLD, golden=Golden(False), service={"active": "failed"})], "another version runs there"),
        ([served(ready=False), served(), served(ready=False)], "its service answered too few inferences"),
        ([served()] * 9, "its service answered too few inferences"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_and_never_stops(seen: list[Observation], missing: str) -> None:
    verdict = judge(NEW, BEFORE, seen)
    assert verdict.faults == ()
    assert any(missing in text for text in verdict.missing), verdict.missing


@pytest.mark.parametrize(
    "before",
    [
        None,
        Observation(problem="no runtime"),
        served(None, digest=OLD),
        served(times(*[6.0] * 29), digest=OLD),
        served(),
    ],
)
def test_without_times_of_the_version_before_nothing_is_compared(before: Observation | None) -> None:
    verdict = judge(NEW, before, windows(900, 900, 900))
    assert verdict.faults == ()
    assert any("there are no times to compare with" in text for text in verdict.missing)


# Slower: the mean at least 1.5 times, and the median in a later bucket, in three windows of ten in a row


def test_a_service_that_became_clearly_slower_stops() -> None:
    (fault,) = judge(NEW, BEFORE, windows(20, 20, 20)).faults
    assert fault == "its inferences became slower: 20 ms on average over 30, and 6 ms with the version before"


def test_a_service_that_becomes_slower_late_in_the_watch_stops() -> None:
    assert judge(NEW, BEFORE, windows(*[6] * 20, 20, 20, 20)).faults


@pytest.mark.parametrize(
    "each",
    [
        [20, 20, 6],  # a load that passed
        [20, 20, 6, 20, 20],
        [9.9, 9.9, 9.9],  # within a bucket
        [5.0, 5.0, 5.0],
    ],
)
def test_noise_does_not_stop(each: list[float]) -> None:
    assert judge(NEW, BEFORE, windows(*each)).faults == ()


def test_a_small_change_across_the_bound_of_a_bucket_does_not_stop() -> None:
    before = served(times(*[9.9] * REQUESTS_MIN), digest=OLD)
    assert judge(NEW, before, windows(10.1, 10.1, 10.1)).faults == ()


def test_a_delay_as_of_scheduling_does_not_stop() -> None:
    before = served(times(*[0.5] * REQUESTS_MIN), digest=OLD)
    assert judge(NEW, before, windows(2.4, 2.4, 2.4)).faults == ()
    assert judge(NEW, before, windows(2.6, 2.6, 2.6)).faults != ()


def test_one_inference_that_hangs_in_each_window_does_not_stop() -> None:
    done: list[float] = []
    seen = [served(times())]
    for _ in range(2 * WINDOWS):
        done += [6.0] * (WINDOW - 1) + [30_000.0]
        seen.append(served(times(*done)))
    assert judge(NEW, BEFORE, seen).faults == ()


def test_a_server_that_counts_anew_or_otherwise_is_compared_from_there_on() -> None:
    again = windows(6, 6) + windows(6, 6, 6)
    assert judge(NEW, BEFORE, again).faults == ()
    other = Latency((0.5,), (0, 0), 0.0)
    assert judge(NEW, BEFORE, [served(other), *windows(20, 20, 20)]).faults


def test_numbers_that_are_none_stop_nothing() -> None:
    nan = [served(Latency(BOUNDS, (0,) * 6 + (WINDOW * number,), float("nan"))) for number in range(5)]
    assert judge(NEW, BEFORE, nan).faults == ()


# Which devices


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("1", [0]), ("3", [0, 1, 2]), ("d", [3]), ("d,pi@a", [0, 3]), ("pi@b:bell, d", [1, 3]), ("pi@b", [1]),
        ("ssh://pi@c:2201", [2]),
    ],
)  # fmt: skip
def test_canaries_are_the_first_devices_or_those_that_are_named(asked: str, chosen: list[int]) -> None:
    assert choose(asked, FLEET) == [FLEET[number] for number in chosen]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("0", "at least 1 and at most 3"), ("4", "at least 1 and at most 3"), ("e", "'e' is none of the devices"),
        ("d,", "'' is none of the devices"), ("-1", "'-1' is none of the devices"),
        ("pi@a,pi@b,ssh://pi@c:2201,d", "names all devices"),
    ],
)  # fmt: skip
def test_canaries_that_cant_be_are_refused(asked: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        choose(asked, FLEET)


def test_a_single_device_has_none_that_waits() -> None:
    with pytest.raises(UsageError, match="only one was named"):
        choose("1", FLEET[:1])
