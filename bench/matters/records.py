"""Records of topics: one JSON file each beside the page, with the machine and the time that they took."""

from __future__ import annotations

import json
from pathlib import Path

from bench import measure
from bench.measure import Figures

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "what-matters"


def load(folder: Path = FOLDER) -> dict[str, Figures]:
    """Return the figures of all topics that there are records of."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def keep(topic: str, figures: Figures, seconds: float, folder: Path = FOLDER) -> Path:
    """Write a topic's record in place of its last one."""
    about = {"measured": {"machine": measure.machine(), "seconds": round(seconds), "load": measure.load()}}
    path = folder / f"{topic}.json"
    path.write_text(json.dumps(about | figures, indent=1) + "\n")
    return path


def provenance(topic: str, record: Figures) -> str:
    """Say what measured a record, for the end of a section."""
    measured = record["measured"]
    machine = measured["machine"]
    return (
        f"`python -m bench.matters --run {topic}` took {measured['seconds']:,} s on {machine['processor']}, "
        f"{machine['cores']} cores, which others used as well (load {measured['load']})."
    )
