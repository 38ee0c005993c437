"""`python -m bench.claims.hold`: run the plan of `bench.claims.plan` on the cards that there are.

A job that fails begins once more where there is time, and goes on where it was; jobs that need one that failed are left
out. Everything can be called again: what is finished isn't done again, trainings go on from their checkpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .plan import PLANS, TINY_SECONDS, Job

ROOT = Path(__file__).parents[2]
ROOMS = [str(ROOT / "runtime"), str(ROOT / "exporter"), str(ROOT)]
# Of judging, exporting and saving after a job's own seconds: at most 37 of vision's and of BERT-tiny's healings, 28 of
# teachers, on four cards where everything ran side by side.
AFTER = {"heal": 70.0, "controls": 40.0}
AFTER_OTHERS = 35.0
MEMORY = 1.8  # of a card, that all of its lanes may take together: most take little, and not all at once
ENOUGH = 0.4  # share of its seconds below which a job isn't begun any more
ATTEMPTS = 2
FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run all lanes and print a line for each job that begins or ends; 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.hold", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, results and logs")
    parser.add_argument("--plan", choices=PLANS, default="all", help="which of bench.claims.plan (default: all)")
    parser.add_argument("--cards", type=int, default=cards(), help="that there are (default: as nvidia-smi lists them)")
    parser.add_argument("--card", type=int, action="append", help="run the lanes of this card alone")
    parser.add_argument("--only", nargs="+", metavar="JOB", help="run these jobs alone; what they need is there")
    parser.add_argument("--share", type=float, default=1.0, help="of the plan's seconds (default: 1)")
    parser.add_argument("--end", type=float, default=math.inf, help="seconds after which all has to be over")
    parser.add_argument("--at-once", type=int, help="jobs at most (default: one of each lane)")
    parser.add_argument("--jobs", type=int, help="threads of a job (default: cores over lanes)")
    parser.add_argument("--steps", type=int, help="of each training, in place of seconds")
    parser.add_argument("--tiny", action="store_true", help="minimal structures: shows that everything works")
    options = parser.parse_args(arguments)
    jobs = [job for job in PLANS[options.plan] if not options.card or job.card in options.card]
    jobs = [job for job in jobs if not options.only or job.name in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    return FAILED if Hold(options, jobs).run() else 0


def cards() -> int:
    """Return the number of NVIDIA cards; 0 without any, where everything runs on the CPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return 0
    return listed.count("UUID: GPU-")


@dataclass
class Hold:
    """One run of a plan.

    Attributes:
        options: of the command line.
        jobs: that are run.
        failed: names of jobs that failed or were left out.
    """

    options: argparse.Namespace
    jobs: list[Job]
    failed: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """Run all lanes side by side; return the names of the jobs that failed or were left out."""
        self._began = time.monotonic()
        self._ended = {job.name: threading.Event() for job in self.jobs}
        self._said = threading.Lock()
        lanes: dict[str, list[Job]] = {}
        for job in self.jobs:
            lanes.setdefault(job.lane, []).append(job)
        self._threads = self.options.jobs or max(1, (os.cpu_count() or 1) // max(1, len(lanes)))
        self._cards = max(1, self.options.cards)
        self._sharing = Counter(lane[0].card % self._cards for lane in lanes.values())
        self._places = threading.Semaphore(self.options.at_once or max(1, len(lanes)))
        running = [threading.Thread(target=self._lane, args=(lane,)) for lane in lanes.values()]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        self._say("end", failed=self.failed)
        return self.failed

    def _lane(self, jobs: list[Job]) -> None:
        try:
            self._run_lane(jobs)
        except Exception as error:  # others wait for these jobs
            self._leave_out([job for job in jobs if not self._ended[job.name].is_set()], f"{error}")

    def _run_lane(self, jobs: list[Job]) -> None:
        for job in jobs:
            missing = self._missing(job)
            if missing:
                self._leave_out([job], f"needs {missing}")
                continue
            with self._places:
                self._run_job(job)

    def _run_job(self, job: Job) -> None:
        fault: str | None = None
        for _ in range(ATTEMPTS):
            seconds = job.seconds * self.options.share
            left = self.options.end - self._spent() - max(job.after, AFTER.get(job.program, AFTER_OTHERS))
            if left < ENOUGH * seconds:
                self._leave_out([job], fault or f"{left:.0f} s are left")
                return
            fault = self._fault(job, min(seconds, left))
            if fault is None:
                self._ended[job.name].set()
                return
            self._say("failed", job=job.name, why=fault)
        self._leave_out([job], str(fault))

    def _missing(self, job: Job) -> str | None:
        """Wait for what a job needs; return the first that failed."""
        for name in job.needs:
            if name in self._ended:
                left = self.options.end - self._spent()
                if not self._ended[name].wait(None if math.isinf(left) else max(0.0, left)):
                    return name
            if name in self.failed:
                return name
        return None

    def _fault(self, job: Job, seconds: float) -> str | None:
        """Run a job to its end; return what went wrong."""
        log = self.options.out / f"{job.name}.log"
        self._say("begins", job=job.name, given=round(seconds))
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": str(job.card % self._cards),
            # One that finds no GPU fails: on the CPU it would take all cores, and reach nothing.
            "CLAIMS_ON_GPU": str(int(self.options.cards > 0)),
            "OMP_NUM_THREADS": str(self._threads),
            # Healing tries how large a batch may be: it must not take the memory of the jobs beside it.
            "CLAIMS_MEMORY_SHARE": f"{min(0.95, MEMORY / self._sharing[job.card % self._cards]):.3f}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [*ROOMS, os.environ.get("PYTHONPATH")])),
        }
        began = time.monotonic()
        left = None if math.isinf(self.options.end) else max(1.0, self.options.end - self._spent())
        with log.open("a") as file:
            try:
                code: int | str = subprocess.run(
                    self.command(job, seconds), stdout=file, stderr=file, cwd=ROOT, env=environment, timeout=left
                ).returncode
            except subprocess.TimeoutExpired:
                code = "none: it was ended"
        lines = log.read_text(errors="replace").strip().splitlines()
        took, last = round(time.monotonic() - began), lines[-1][:600] if lines else ""
        if code:
            return f"exit code {code} after {took} s: {last}"
        self._say("ended", job=job.name, took=took, last=last)
        return None

    def command(self, job: Job, seconds: float) -> list[str]:
        """Return a job's command line."""
        program, *rest = job.command.format(out=self.options.out.absolute()).split()
        command = [sys.executable, "-m", f"bench.claims.{program}", *rest, "--data", str(self.options.data.absolute())]
        if program == "tokens":
            return command
        if "--out" not in rest:
            command += ["--out", str(self.options.out.absolute() / job.name)]
        if program in ("heal", "controls"):
            command += ["--jobs", str(self._threads)]
        if program == "heal":
            command += ["--time-limit", f"{TINY_SECONDS if self.options.tiny else seconds:.1f}"]
        elif self.options.steps:
            command += ["--steps", str(self.options.steps)]
        elif program != "controls":
            command += ["--time-limit", f"{seconds:.1f}"]
        return [*command, "--tiny"] if self.options.tiny else command

    def _leave_out(self, jobs: list[Job], why: str) -> None:
        for job in jobs:
            self.failed.append(job.name)
            self._ended[job.name].set()
        for job in jobs:
            self._say("left out", job=job.name, why=why)

    def _spent(self) -> float:
        return time.monotonic() - self._began

    def _say(self, event: str, **fields: object) -> None:
        line = json.dumps({"at": round(self._spent()), "event": event, **fields})
        # A disk that is full ends what writes to it, and not the jobs beside that.
        with self._said, contextlib.suppress(OSError):
            print(line, flush=True)
            with (self.options.out / "hold.jsonl").open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
