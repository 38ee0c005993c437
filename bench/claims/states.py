"""The state of a healing in pieces that fit into a transfer each, so that the next machine goes on with it.

Arrays are rounded to half precision on the way: weights in steps of their start lose a thousandth of what they are.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from seed_exporter.heal.checkpoint import FACTS, FILE

from . import pieces

LIST = f"{pieces.STATE}.json"
SETTINGS = "settings.json"
HALVED_LEAST = 4096  # elements of an array that is rounded
ADVICE = "copy all parts of it, or heal from the start in another folder"


def split(state: Path) -> None:
    """Write the pieces of a state and their list beside it."""
    with np.load(state / FILE, allow_pickle=False) as stored:
        arrays = {name: _halved(stored[name]) for name in stored.files}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    listed = pieces.write(state, pieces.STATE, buffer.getvalue())
    listed_all = {"pieces": listed, "set": settings(state, [])}
    (state / LIST).write_text(json.dumps(listed_all, indent=0))
    pieces.clean(state, pieces.STATE, listed)


def join(state: Path) -> None:
    """Make a state of its pieces, where it isn't whole already and there are some.

    Raises:
        PieceError: one is missing or damaged.
    """
    if (state / FILE).is_file() or not (state / LIST).is_file():
        return
    listed = json.loads((state / LIST).read_text())
    (state / FILE).write_bytes(pieces.read(state, listed["pieces"], ADVICE))


def settings(state: Path, given: list[str]) -> list[str]:
    """Return the settings that a run began with; one that begins gets those that are given."""
    path = state / SETTINGS
    if not path.is_file():
        state.mkdir(parents=True, exist_ok=True)
        listed = json.loads((state / LIST).read_text())["set"] if (state / LIST).is_file() else given
        path.write_text(json.dumps(listed))
    return list(json.loads(path.read_text()))


def share_of(state: Path) -> float:
    """Return the share of its run that a state has done; 0 where there is none."""
    if not (state / FILE).is_file():
        return 0.0
    with np.load(state / FILE, allow_pickle=False) as stored:
        return float(json.loads(stored[FACTS].tobytes())["share"])


def rewind(state: Path, share: float) -> None:
    """Let a state be one at an earlier share of its run: learning rates are high again, the size stays reached.

    The price of a bit is what it was then: in the end, where less jitters, a tenth of it holds the size.
    """
    with np.load(state / FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    facts = json.loads(arrays[FACTS].tobytes()) | {"share": share, "next_cut": share}
    facts["prices"] = [each for each in facts.get("prices", []) if each[0] <= share]
    first, price, *limits, _ = facts["controller"]
    # The last one is how the price drifts while learning rates fall.
    facts["controller"] = [first, facts["prices"][-1][1] if facts["prices"] else price, *limits, 0.0]
    arrays[FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    (state / FILE).write_bytes(buffer.getvalue())


def _halved(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float32 or array.size < HALVED_LEAST or np.abs(array).max() > np.finfo(np.float16).max:
        return array
    return array.astype(np.float16)
