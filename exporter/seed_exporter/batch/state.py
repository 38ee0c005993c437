"""What earlier batches made, in a file beside the file of jobs: a job that would repeat its seed is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seed_exporter.batch.fingerprint import digest
from seed_exporter.batch.jobs_file import Job
from seed_exporter.batch.outcome import Outcome
from seed_runtime.system.files import atomic_write


class State:
    """The results of jobs by their outputs. Each change is on the disk, whole, when `record` returns."""

    def __init__(self, jobs_file: Path, jobs: Iterable[Job]) -> None:
        """Read what is known of these jobs beside `jobs_file`; a state that is missing or damaged knows nothing."""
        self.path = jobs_file.with_name(f"{jobs_file.name}.state")
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            found = None
        known = found if isinstance(found, dict) else {}
        names = {str(job.output) for job in jobs}
        self._made: dict[str, Any] = {name: made for name, made in known.items() if name in names}

    def repeated(self, job: Job, fingerprint: str) -> Outcome | None:
        """Return the outcome that doing a job again would have; None where it must be done."""
        made = self._made.get(str(job.output), {})
        try:
            if made["fingerprint"] != fingerprint or made["sha256"] != digest(job.output):
                return None
            outcome = Outcome(int(made["code"]), 0.0, dict(made["result"]), str(made["error"]), repeated=True)
        except (KeyError, TypeError, ValueError):
            return None
        return outcome if all(path.exists() for path in job.written) else None

    def record(self, job: Job, fingerprint: str, outcome: Outcome) -> None:
        """Remember the outcome of a job that is done, and forget what is known of one that isn't."""
        self._made.pop(str(job.output), None)
        if outcome.is_done:
            self._made[str(job.output)] = {
                "fingerprint": fingerprint,
                "sha256": digest(job.output),
                "code": outcome.code,
                "result": outcome.result,
                "error": outcome.error,
            }
        with atomic_write(self.path) as file:
            file.write(json.dumps(self._made, indent=1).encode())
