"""Kill and cut pushes at random moments of every phase; after each, the device must give a right answer.

    python -m tests.soak.kills [--kills 100] [--machine-kills 30] [--cuts 30] [--seed 1] [--log FILE]

A kill ends the client, the device's processes, or the power of the whole emulated machine; the device's link is cut
in a phase, or after a random number of bytes. Every hit is counted under the phase that was printed last. The random
seed decides which ones are tried; when exactly they happen depends on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.devices.support.sshd import Sshd
from tests.interop.support.machine import Machine
from tests.interop.support.machine_image import image
from tests.interop.support.machines import copied
from tests.soak.seeds import Version, versions
from tests.soak.targets import Board, Loopback, Target, ask, start_push

PHASES = ("connect", "probe", "check", "runtime", "transfer", "begin", "receive", "install", "verify", "assemble",
         "golden", "place", "switch", "prune")  # fmt: skip
"""Phases of a push by the host's names, and within them by the device's."""
PUSH_LIMIT = 900
"""Seconds that a push may be silent."""
COUNT = 6
"""Number of versions that are pushed in turn."""
TRIES = 8
"""How often a push is tried that was over before it was hit, or that an emulator seemed to lose."""
EACH = 5
"""Kills that every phase must get in a run of the full counts."""
HANDSHAKE = 6000
"""Bytes that ssh sends before a push begins, about."""
UNREACHABLE = 20
"""Exit code of a push that can't reach the device."""
_ENDS = ("done", "failed")


@dataclass
class Tally:
    """Counts of what was hit, and of what the device answered after it."""

    log: TextIO | None = None
    hits: dict[str, Counter[str]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, actor: str, phase: str, outcome: str, seconds: float) -> None:
        self.hits.setdefault(actor, Counter())[phase] += 1
        self.answers[outcome] += 1
        self._write(f"{sum(map(Counter.total, self.hits.values())):4}  {actor:8} {phase:9} {outcome}, {seconds:.1f} s")

    def fault(self, actor: str, phase: str, error: str) -> None:
        self.hits.setdefault(actor, Counter())[phase] += 1
        self.wrong.append(f"{actor} at {phase}: {error}")
        self._write(f"FAULT {self.wrong[-1]}")

    def kills(self) -> Counter[str]:
        """Return how often each phase was hit by a kill."""
        return sum((hits for actor, hits in self.hits.items() if actor != "link"), Counter())

    def rarest(self) -> int:
        """Return the kills of the phase that had the fewest."""
        return min(self.kills()[phase] for phase in PHASES)

    def table(self) -> str:
        actors = [actor for actor in ("client", "device", "machine", "link") if actor in self.hits]
        lines = [f"{'phase':10}" + "".join(f"{actor:>9}" for actor in actors)]
        lines += [f"{phase:10}" + "".join(f"{self.hits[actor][phase]:9}" for actor in actors) for phase in PHASES]
        lines.append(f"{'all':10}" + "".join(f"{self.hits[actor].total():9}" for actor in actors))
        lines += [f"kills of the phase that was hit least: {self.rarest()}"]
        lines += [f"{outcome}: {count}" for outcome, count in sorted(self.answers.items())]
        return "\n".join([*lines, f"no answer or a wrong one: {len(self.wrong)}"])

    def _write(self, line: str) -> None:
        print(line, flush=True)
        if self.log is not None:
            print(line, file=self.log, flush=True)


class Soak:
    """Pushes versions to one device, each of them hit once, and asks the device after each."""

    def __init__(
        self, target: Target, versions: Sequence[Version], rng: random.Random, tally: Tally, old: Sequence[Version] = ()
    ) -> None:
        self.target, self.versions, self.rng, self.tally = target, list(versions), rng, tally
        self.known = [*versions, *old]
        self.seconds: dict[str, float] = {"runtime": 10.0}
        """Seconds that each phase took when nothing hit it."""
        for version in self.versions[:3]:
            self.running = self.push(version)

    def hit(self, actor: str, phase: str) -> bool:
        """Hit the push of another version while it is at `phase`; False if it was over before."""
        return self._hit_push(actor, phase, self._next())

    def hit_installation(self, actor: str, old: Version) -> bool:
        """Hit the push of a seed that needs a newer runtime than the device has, while that is installed."""
        assert isinstance(self.target, Loopback)
        self.target.old_runtime()
        self.running = self.push(old)
        return self._hit_push(actor, "runtime", self._next())

    def _hit_push(self, actor: str, phase: str, version: Version) -> bool:
        process = start_push(self.target, version)
        lines = _lines(process)
        at = self._wait_for(lines, phase)
        if at is None:
            return self._missed(process)
        until = time.monotonic() + self.rng.choice((0, self.rng.random())) * self.seconds.get(phase, 0.1)
        while (left := until - time.monotonic()) > 0:
            try:
                at = lines.get(timeout=left)
            except queue.Empty:
                break
            if at.startswith(_ENDS):
                return self._missed(process)
        self._break_push(actor, process)
        return self._check_answer(actor, at, version, process)

    def cut_after(self, count: int) -> bool:
        """Cut the link once `count` bytes have gone to the device."""
        assert isinstance(self.target, Loopback)
        version = self._next()
        self.target.link.reset()
        self.target.link.cut_after = count
        process = start_push(self.target, version)
        lines, at = _lines(process), "connect"
        while not (line := lines.get(timeout=PUSH_LIMIT)).startswith(_ENDS):
            at = line
        if line.startswith("done"):
            self.target.link.reset()  # or it would cut the question that follows
            return self._missed(process)
        return self._check_answer("link", at, version, process)

    def push(self, version: Version) -> Version:
        """Push a version without a hit. Returns the version that the device answers with then."""
        for _ in range(TRIES):
            line = self._pushed(version)
            if line.startswith("done"):
                break
            # A busy emulator may look like a dead link; then the same command goes on.
            if not line.startswith(f"failed {UNREACHABLE} "):
                break
        if not line.startswith("done"):
            raise AssertionError(f"a push that nothing hit {line}")
        self._note(version)
        return ask(self.target, self.known)

    def _pushed(self, version: Version) -> str:
        process = start_push(self.target, version)
        lines, at, began = _lines(process), "connect", time.monotonic()
        while True:
            line = lines.get(timeout=PUSH_LIMIT)
            now = time.monotonic()
            self.seconds[at] = max(self.seconds.get(at, 0), now - began)
            if line.startswith(_ENDS):
                self._end(process)
                return line
            at, began = line, now

    def _next(self) -> Version:
        """Return a version that the device hasn't run for long, so that it is sent again."""
        ready = [each for each in self.versions if each.digest != self.running.digest]
        return self.rng.choice(ready[: len(ready) // 2])

    def _note(self, version: Version) -> None:
        if version in self.versions:
            self.versions.remove(version)
            self.versions.append(version)

    def _missed(self, process: subprocess.Popen[str]) -> bool:
        self._end(process)
        self.running = ask(self.target, self.known)
        self._note(self.running)
        return False

    def _break_push(self, actor: str, process: subprocess.Popen[str]) -> None:
        if actor == "client":
            os.kill(process.pid, signal.SIGKILL)
        elif actor == "link":
            assert isinstance(self.target, Loopback)
            self.target.link.cut()
        else:
            self.target.kill(self.rng)

    def _check_answer(self, actor: str, phase: str, pushed: Version, process: subprocess.Popen[str]) -> bool:
        self._end(process)
        before = self.running
        began = time.monotonic()
        try:
            self.target.revive()
            found = ask(self.target, self.known)
            if found.digest not in (before.digest, pushed.digest):
                raise AssertionError(f"it answers with {found.path.stem}, neither what ran before nor what was pushed")
        except (AssertionError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            self.tally.fault(actor, phase, str(error))
            self.running = self.push(pushed)
            return True
        self.running = found
        self._note(found)
        outcome = "answered with what ran before" if found.digest == before.digest else "answered with what was pushed"
        self.tally.add(actor, phase, outcome, time.monotonic() - began)
        return True

    def _wait_for(self, lines: queue.Queue[str], phase: str) -> str | None:
        while True:
            line = lines.get(timeout=PUSH_LIMIT)
            if line == phase:
                return line
            if line.startswith(_ENDS):
                return None

    def _end(self, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(process: subprocess.Popen[str]) -> queue.Queue[str]:
    """Return the queue into which a thread puts the process's lines, and at its end one that says so."""
    found: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        with stdout:
            for line in stdout:
                found.put(line.rstrip("\n"))
        found.put("failed: it ended")

    threading.Thread(target=read, daemon=True).start()
    return found


def loopback(kills: int, cuts: int, rng_seed: int, tally: Tally, folder: Path) -> None:
    """Kill the client and the device's processes, and cut the link, of a device on this machine."""
    rng = random.Random(rng_seed)
    folder.mkdir()
    sshd = Sshd(folder)
    try:
        target = Loopback(sshd, "soak")
        (old,) = versions(folder / "old", 1, hidden=128, feature_level=0)
        soak = Soak(target, versions(folder, COUNT), rng, tally, [old])

        def kill(actor: str) -> bool:
            phase = _choose_phase(tally.kills(), rng)
            return soak.hit_installation(actor, old) if phase == "runtime" else soak.hit(actor, phase)

        for index in range(kills):
            _until_hit(lambda actor=("client", "device")[index % 2]: kill(actor))
        size = soak.versions[0].size
        for index in range(cuts):
            if index % 2:
                _until_hit(lambda: soak.cut_after(rng.randrange(size + HANDSHAKE)))
            else:
                _until_hit(
                    lambda: soak.hit(
                        "link", _choose_phase(tally.hits.get("link", Counter()), rng, without=("runtime",))
                    )
                )
    finally:
        sshd.stop()


def board(kills: int, rng_seed: int, tally: Tally, folder: Path, installed: Path | None = None) -> None:
    """Cut the power of the emulated machine, a fresh one, or one that has the runtime: a state folder."""
    rng = random.Random(rng_seed + 1)
    state = folder / "machine"
    if installed is not None:
        copied(installed, state)
    with Machine(image(), state) as machine:
        machine.boot()
        soak = Soak(Board(machine, rng_seed), versions(folder, COUNT), rng, tally)
        for _ in range(kills):
            _until_hit(lambda: soak.hit("machine", _choose_phase(tally.kills(), rng, without=("runtime",))))


def _choose_phase(hits: Counter[str], rng: random.Random, without: Sequence[str] = ()) -> str:
    """Draw a phase, the more likely the less it was hit. Not always the least: short ones are often over too early."""
    phases = [phase for phase in PHASES if phase not in without]
    return rng.choices(phases, [1 / (1 + hits[phase]) ** 2 for phase in phases])[0]


def _until_hit(hit: Callable[[], bool]) -> None:
    """Repeat until a push is hit, as it may be over before. AssertionError if none is: the count would be wrong."""
    if not any(hit() for _ in range(TRIES)):
        raise AssertionError(f"{TRIES} pushes were over before anything hit them")


def run(
    kills: int, machine_kills: int, cuts: int, rng_seed: int, log: TextIO | None = None, installed: Path | None = None
) -> Tally:
    """Run the whole soak: `kills` in all, of which `machine_kills` cut the machine's power, and `cuts` of the link."""
    tally = Tally(log)
    with tempfile.TemporaryDirectory(prefix="seed-soak") as scratch:
        if machine_kills:
            board(machine_kills, rng_seed, tally, Path(scratch, "board"), installed)
        if kills > machine_kills or cuts:
            loopback(kills - machine_kills, cuts, rng_seed, tally, Path(scratch, "loopback"))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kills")
    parser.add_argument("--kills", type=int, default=100, help="of the client, the device's processes and the machine")
    parser.add_argument("--machine-kills", type=int, default=30, help="how many of them cut the machine's power")
    parser.add_argument("--cuts", type=int, default=30, help="of the link")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="where the lines and the table go as well")
    parser.add_argument("--installed", type=Path, help="a machine's state with the runtime, to begin with a copy of it")
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(options.log.open("w")) if options.log else None
        tally = run(options.kills, options.machine_kills, options.cuts, options.seed, log, options.installed)
        closing = f"{tally.table()}\nseed {options.seed}, {(time.monotonic() - began) / 60:.0f} min"
        for file in filter(None, (sys.stdout, log)):
            print(f"\n{closing}", file=file, flush=True)
    short = tally.rarest() < EACH <= options.kills / len(PHASES)
    return 1 if tally.wrong or short else 0


if __name__ == "__main__":
    sys.exit(main())
