"""Say what more could gain: facts that this export measured, and what would use them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from seed_exporter.codecs.grid import GridPlan
from seed_exporter.quantize.effort import EFFORTS
from seed_exporter.report.text import size
from seed_exporter.results import Result

_HALF: Final = 0.5
"""Share of the damage whose weights are counted."""
_NAMED: Final = 3
"""Most weights that are named."""


def texts(result: Result) -> list[str]:
    """Return what there is to say, each a few sentences, the most useful first."""
    return [*_inputs(result), *_time(result), *_effort(result), *_damage(result), *_fixed(result)]


def _inputs(result: Result) -> Iterator[str]:
    total = sum(result.weight_bytes.values())
    # Integers of others were trained, or are on a trellis for which nothing was measured.
    rounded = [
        name
        for name, plan in result.plans.items()
        if isinstance(plan, GridPlan)
        and plan.matrix is not None
        and (name in result.calibrated or (EFFORTS[result.effort].distills and plan.matrix.delay is None))
    ]
    share = _share(sum(result.weight_bytes.get(name, 0.0) for name in rounded), total)
    if result.inputs != "real":
        yield (
            "No real inputs were given: damage was measured on generated ones, which real ones may not resemble, and "
            "rounding knows nothing of what the layers see. Give some dozens of inputs: --calib inputs.npz."
        )
    elif rounded:
        yield (
            f"{len(rounded)} of {len(result.plans)} weights, with {share} of the weights' bytes, were rounded by what "
            f"the calibration inputs show of their layers, the others each for itself."
        )
    else:
        yield "No weight was rounded by the calibration inputs; from --effort 3 on, those with enough inputs are."


def _time(result: Result) -> Iterator[str]:
    if result.timed_out:
        yield "The time limit ended the search before it was done: a longer one may find a smaller seed."


def _effort(result: Result) -> Iterator[str]:
    chosen = EFFORTS[result.effort]
    if better := next(
        (level for level, effort in sorted(EFFORTS.items()) if level > result.effort and effort != chosen), 0
    ):
        trained = "; the highest trains steps and integers on the calibration inputs, which needs the extra torch"
        text = trained if EFFORTS[max(EFFORTS)].distills and not chosen.distills else ""
        yield f"The effort was {result.effort}; --effort {better} is the next that does more{text}."


def _damage(result: Result) -> Iterator[str]:
    damages = {name: each for name, each in result.weight_damages.items() if math.isfinite(each) and each > 0}
    total = sum(damages.values())
    if not total or len(damages) < 2:
        return
    names: list[str] = []
    for name in sorted(damages, key=lambda each: -damages[each]):
        names.append(name)
        if sum(damages[each] for each in names) >= _HALF * total:
            break
    taken = sum(result.weight_bytes.get(name, 0.0) for name in names)
    named = ", ".join(names[:_NAMED]) + (", ..." if names[_NAMED:] else "")
    yield (
        f"{len(names)} of {len(damages)} probed weights do half of the damage that weights do alone, with "
        f"{_share(taken, result.bytes)} of the seed's bytes: {named}. Calibration and training gain most there."
    )


def _fixed(result: Result) -> Iterator[str]:
    kept = sum(taken for name, taken in result.weight_bytes.items() if not result.plans[name].adjustable)
    front = result.bytes - sum(stream.size for stream in result.seed.streams)
    yield (
        f"Graph and header take {size(front)} ({_share(front, result.bytes)}), vectors and integers "
        f"{size(kept)} ({_share(kept, result.bytes)}): neither calibration nor training makes these smaller."
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
