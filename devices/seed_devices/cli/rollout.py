"""Push to canaries first, watch them, and then go on with the other devices or roll the canaries back.

What is decided by is in `seed_devices.fleet.canary`. All that happens by itself is to stop and to go back.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from seed_devices.cli import show
from seed_devices.cli.progress import LiveProgress
from seed_devices.errors import RolloutError
from seed_devices.fleet.canary import Observation, Verdict, judge
from seed_devices.fleet.parallel import Access, Outcome, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.push.job import PushResult
from seed_devices.push.observe import observe
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection

WATCH_S: Final = 300
"""Seconds for which canaries are watched unless the user says otherwise."""
_ROUNDS: Final = 10
"""Into how many pauses a watch is divided, if they are neither shorter nor longer than these."""
_PAUSE_MIN_S, _PAUSE_MAX_S = 1.0, 60.0

PushAll = Callable[[list[Target]], list[Outcome[PushResult]]]
"""Pushes to devices and returns the outcomes in their order."""


@dataclass(frozen=True)
class Plan:
    """A rollout as it was asked for."""

    canaries: list[Target]
    waiting: list[Target]
    """The devices that wait for them."""
    watch_s: float

    def text(self) -> str:
        """Return who the canaries would be, for a dry run."""
        names = ", ".join(map(str, self.canaries))
        what = "canary" if len(self.canaries) == 1 else f"{len(self.canaries)} canaries"
        others = "other" if len(self.waiting) == 1 else "others"
        return f"{what}: {names}, watched for {show.duration_text(self.watch_s)} before {len(self.waiting)} {others}"

    def as_json(self) -> dict[str, Any]:
        """Return it as a dry run has it in `--json`; its keys are those of Rollout.as_json."""
        hosts = [{"host": target.device, "name": target.name} for target in self.canaries]
        waiting = [target.device for target in self.waiting]
        return {"decision": None, "watch_s": self.watch_s, "hosts": hosts, "not_pushed": waiting}


@dataclass
class Canary:
    """One canary: what was seen of it, and what became of it."""

    target: Target
    name: str
    """The model's name there."""
    before: Observation
    seen: list[Observation] = field(default_factory=list)
    digest: str = ""
    """The version that was pushed to it; of one version there are several seeds, and each device takes its own."""
    back: str | None = None
    """The version to go back to; None where there is none."""
    verdict: Verdict = field(default_factory=Verdict)
    is_back: bool = False
    end: str = ""
    """What became of it, for people; empty if the rollout went on."""

    @property
    def model(self) -> str:
        """Return the model on the device, as a user can write it."""
        return self.target.of(self.name)

    def as_json(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        last = next((each.digest for each in reversed(self.seen) if not each.problem), None)
        return {
            "host": self.target.device, "name": self.name, "before": self.before.digest or self.back,
            "runs": self.back if self.is_back else last, "rolled_back": self.is_back,
            "faults": list(self.verdict.faults), "missing": list(self.verdict.missing), "end": self.end or None,
        }  # fmt: skip


class Rollout:
    """A rollout under way. `run` does it, then `error` and the other methods say what came of it.

    Args:
        plan: the devices.
        default_name: the model's name on devices where none was asked for.
        access: how the devices are reached.
        parallel: how many are worked on at a time.
        max_memory: memory for golden samples, in bytes.
        quiet: print nothing of it.
        again: words of the same command without canaries.
    """

    def __init__(
        self, plan: Plan, default_name: str, *, access: Access, parallel: int, max_memory: int | None,
        quiet: bool, again: Sequence[str],
    ) -> None:  # fmt: skip
        self._plan, self._again = plan, again
        self._access, self._parallel, self._max_memory, self._quiet = access, parallel, max_memory, quiet
        self._canaries = [Canary(target, target.name or default_name, Observation()) for target in plan.canaries]
        self._until = 0.0
        self._decision: str | None = None
        self._failed: list[Outcome[PushResult]] = []

    def run(self, push_all: PushAll) -> list[Outcome[PushResult]]:
        """Do it; returns the outcomes of the devices that were pushed to, the canaries' first."""
        for canary, seen in zip(self._canaries, self._observe({}), strict=True):
            canary.before = seen
        outcomes = push_all(self._plan.canaries)
        for canary, outcome in zip(self._canaries, outcomes, strict=True):
            if (value := outcome.value) is None:
                continue
            canary.digest = value.digest
            if value.state != "unchanged":
                canary.back = canary.before.digest or value.previous
                canary.end = f"runs {_short(canary.digest)}{self._way_back([canary])}"
        if any(outcome.error is not None for outcome in outcomes):
            self._decision, self._failed = "push failed", outcomes
            return outcomes
        for canary in self._canaries:
            canary.end = ""
        try:
            self._watch()
            if self._faulty:
                self._decision = "rolled back"
                self._roll_back()
                return outcomes
        except BaseException:
            self._print_interrupted()
            raise
        self._decision = "went on"
        self._say(f"no fault of the canaries was found; going on with {len(self._plan.waiting)} devices")
        return outcomes + push_all(self._plan.waiting)

    def error(self) -> RolloutError | None:
        """Return why the rollout stopped; None if it went on."""
        failed = [outcome for outcome in self._failed if outcome.error is not None]
        if failed:
            reason = f"the push to the canary {failed[0].target} failed: {show.reason(failed[0])}"
            more = f" (and to {len(failed) - 1} more)" if len(failed) > 1 else ""
            advice = "the same command again does only what is missing"
            return RolloutError(reason + more, len(self._plan.waiting), advice)
        if not self._faulty:
            return None
        first = self._faulty[0]
        reasons = sum(len(canary.verdict.faults) for canary in self._faulty)
        more = f" (and {reasons - 1} more)" if reasons > 1 else ""
        return RolloutError(
            f"{first.target}: {first.verdict.faults[0]}{more}",
            len(self._plan.waiting),
            f"see: seed-deploy logs {shlex.quote(first.model)}",
        )

    def lines(self) -> list[str]:
        """Return what became of each canary, for people; nothing if the rollout went on."""
        lines = []
        for canary in self._canaries:
            lines += [f"{canary.target}: {text}" for text in (*canary.verdict.faults, canary.end) if text]
        return lines if self._decision != "went on" else []

    def as_json(self) -> dict[str, Any]:
        """Return the decision and its reasons."""
        waits = [] if self._decision == "went on" else [target.device for target in self._plan.waiting]
        hosts = [canary.as_json() for canary in self._canaries]
        return {"decision": self._decision, "watch_s": self._plan.watch_s, "hosts": hosts, "not_pushed": waits}

    @property
    def _faulty(self) -> list[Canary]:
        return [canary for canary in self._canaries if canary.verdict.faults]

    def _watch(self) -> None:
        """Look at the canaries again and again, until the time is over or a fault was found."""
        watch_s = self._plan.watch_s
        self._until = time.monotonic() + watch_s
        pause_s = min(_PAUSE_MAX_S, max(_PAUSE_MIN_S, watch_s / _ROUNDS))
        self._say(f"watching {_canaries(len(self._canaries))} for {show.duration_text(watch_s)}")
        live = LiveProgress(len(self._canaries), quiet=self._quiet, summary=self._summary)
        try:
            while True:
                is_last = time.monotonic() >= self._until
                golden = {canary.target: is_last or not _has_golden(canary.seen) for canary in self._canaries}
                for canary, seen in zip(self._canaries, self._observe(golden), strict=True):
                    canary.seen.append(seen)
                    canary.verdict = judge(canary.digest, canary.before, canary.seen)
                if self._faulty or is_last:
                    break
                self._pause(min(pause_s, self._until - time.monotonic()), live)
        finally:
            live.clear()
        for canary in self._canaries:
            for text in canary.verdict.missing:
                self._say(f"{canary.target}: {text}")

    def _observe(self, golden: dict[Target, bool]) -> list[Observation]:
        """Look at all canaries once, and run the golden samples of those that `golden` says."""
        names = {canary.target: canary.name for canary in self._canaries}

        def work(target: Target, connection: Connection) -> Observation:
            wanted = golden.get(target, False)
            return observe(connection, names[target], golden=wanted, max_memory=self._max_memory)

        outcomes = run_on_each(self._plan.canaries, work, access=self._access, parallel=self._parallel)
        return [outcome.value or Observation(problem=show.reason(outcome)) for outcome in outcomes]

    def _pause(self, seconds: float, live: LiveProgress) -> None:
        """Wait, and show the time that is left and what was seen last."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not processes.is_stopping():
            for canary in self._canaries:
                if (put := live.progress_of(canary.target)) is not None:
                    put(_state_text(canary.seen[-1]), 0, 0)
            processes.pause(min(left, 1.0))

    def _summary(self) -> str:
        left = max(0.0, self._until - time.monotonic())
        return f"watching the canaries, {show.duration_text(left)} left; {len(self._plan.waiting)} devices wait"

    def _roll_back(self) -> None:
        """Let each canary run the version again that it had."""
        canaries = {canary.target: canary for canary in self._canaries}
        for canary in self._canaries:
            if canary.back in (None, canary.digest):
                had = "it had this version before" if canary.before.digest == canary.digest else "it had no version"
                canary.end = f"not rolled back: {had}{self._way_back([canary])}"

        def work(target: Target, connection: Connection) -> str:
            canary = canaries[target]
            with AgentClient(connection) as agent:
                models = agent.call("status", name=canary.name).get("models") or [{}]
                if models[0].get("current") not in (canary.digest, canary.back):
                    return "not rolled back: another version runs there meanwhile"
                agent.call("rollback", name=canary.name, to=canary.back)
            canary.is_back = True
            return f"rolled back to {_short(canary.back)}"

        chosen = [canary.target for canary in self._canaries if not canary.end]
        for outcome in run_on_each(chosen, work, access=self._access, parallel=self._parallel):
            canary = canaries[outcome.target]
            failed = f"could not be rolled back: {show.reason(outcome)}" if outcome.error is not None else ""
            canary.end = f"{failed}{self._way_back([canary])}" if failed else outcome.value or ""

    def _way_back(self, canaries: Sequence[Canary]) -> str:
        """Return the command that rolls canaries back, as the end of a sentence; that removes it without a version."""
        models = [canary.model for canary in canaries if canary.back is not None or canary.before.digest is not None]
        if models:
            return f"; go back: {shlex.join(['seed-deploy', 'rollback', *models])}"
        words = ["seed-deploy", "remove", *(canary.model for canary in canaries), "--all"]
        return f"; remove it: {shlex.join(words)}"

    def _print_interrupted(self) -> None:
        """Say what each canary runs, and how to go on or back, after the user or a signal ended the watch."""
        lines = [f"{len(self._plan.waiting)} devices were not pushed to; the canaries:"]
        for canary in self._canaries:
            text = f"runs {_short(canary.digest)}" + (f", before it {_short(canary.back)}" if canary.back else "")
            text += f", {_state_text(canary.seen[-1])}" if canary.seen else ""
            text = f"rolled back to {_short(canary.back)}" if canary.is_back else canary.end or text
            lines.append(f"  {canary.target}: {text}")
        lines.append(f"  go on without them: {shlex.join(self._again)}")
        if any(canary.back for canary in self._canaries):
            lines.append(f"  {self._way_back([canary for canary in self._canaries if canary.back])[2:]}")
        print("", *lines, sep="\n", file=sys.stderr)

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)


def _state_text(seen: Observation) -> str:
    """Return what was seen, in a few words."""
    if seen.problem:
        return f"not reached: {seen.problem}"
    parts = []
    if seen.golden is not None:
        parts.append({True: "golden sample right", False: "golden sample wrong", None: "no golden sample compared"}[
            seen.golden.right
        ])  # fmt: skip
    service = (seen.service or {}).get("active")
    parts.append("no service" if seen.service is None else f"service {service or 'unknown'}")
    if seen.service is not None and seen.ready is not None:
        parts.append("ready" if seen.ready else "not ready")
    return ", ".join(parts)


def _has_golden(seen: Sequence[Observation]) -> bool:
    return any(each.golden is not None for each in seen)


def _canaries(count: int) -> str:
    return "1 canary" if count == 1 else f"{count} canaries"


def _short(digest: str | None) -> str:
    return (digest or "")[: show.SHORT]
