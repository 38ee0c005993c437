"""Compare seeds with the rules of WaterSIC and EntQuant at equal bytes, on MiniLM-L6 at 2, 3 and 4 bits a weight.

All get the same graph, the same calibration inputs, the same coder and the same coding of vectors; their scales are
counted at 16 bits each. Beside them stands what seeds do at these bytes, interpolated between seeds of some sizes:
calibrated ones beside WaterSIC, ones without data beside EntQuant. Damage is 1 - the cosine on the test inputs.

WaterSIC: columns have steps c / L_jj, L the Cholesky factor of the inputs' moments, each is rounded with feedback and
scaled by least squares, at last rows and columns are rescaled by turns; every layer gets the same rate, dead inputs are
left out. Left out here is what it adds for deep models: moments of the quantized layers' inputs, weights for attention,
and finetuning. It keeps tables whole; here they are layers of uncorrelated inputs.
Source: "WaterSIC: information-theoretically (near) optimal linear layer quantization" (arXiv 2603.04956); its code,
github.com/egorlifar/watersic, gives the damping, the share of rows in the search of c, and the tolerance.

EntQuant: float8 (E4M3) values with a scale for each output, which minimize the error, as a share of the weights, plus
lambda times the values' mean magnitude, both in the first norm. Its L-BFGS runs over scales that don't depend on each
other, so that the least of each is found on a fine grid here. It keeps tables whole as well.
Source: "Float8@2bits: Entropy coding enables data-free model compression" (arXiv 2601.22787); its code,
github.com/merantix-momentum/entquant, gives lambda for some 2, 3 and 4 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import measure
from bench.equal_damage import Point
from bench.measure import Figures, Goal
from bench.size import CALIBRATED, DATA_FREE, OWN, Own, Subject, code_of
from seed_exporter.build import draft
from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.calibrate import COVARIANCES
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.comparison.own import OwnSeeds
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Weight
from seed_exporter.peers import Deliverable
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.sections.model import FEATURE_LEVEL

MODEL = "minilm6"
RATES = (4.0, 3.0, 2.0)
"""Bits a weight."""
DAMPINGS = (1e-4, 0.1)
"""Shares of the mean diagonal that WaterSIC's moments are damped by: its own, and one for few calibration inputs."""
LAMBDAS = {4.0: 3.9, 3.0: 14.5, 2.0: 58.0}
"""EntQuant's weights of the magnitudes, by bits a weight."""
SCALE_BYTES = 2
_DEAD = 1e-3
"""Share of the median variance below which an input is dead."""
_ROWS = 0.1
"""Share of rows on which WaterSIC's c is searched."""
_TOLERANCE, _ROUNDS = 3e-4, 50
"""Change of the error at which rescaling ends, and most of its rounds."""
_BLOCK = 64

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rounded:
    """One matrix by a rule: integers for the coder, values, and the number of scales beside them."""

    integers: I32
    values: npt.NDArray[np.floating]
    scales: int


Rule = Callable[[npt.NDArray[np.float32], F64 | None], Rounded]
"""Rounds `(outputs, inputs)` by the moments of the inputs, where these were measured."""


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    rates = RATES[:1] if quick else RATES
    code = code_of("exporter", "runtime") + Path(__file__).read_bytes()
    with Subject(MODEL, quick) as subject:

        def add(title: str, rate: float, rule: Rule, own: Own) -> None:
            def make(folder: Path) -> Deliverable:
                return _by_rule(subject.seeds_of(own), rule, folder)

            point = subject.point(title, f"{rate:g} bits", code, make, f"{OWN}: {title}, {rate:g} bits")
            made = [Point(each["size"], each["damage"]) for each in subject.own_curve(own)["points"]]
            made += [subject.own_point(own, each * subject.graph.parameters / 8) for each in rates]
            rows.append({"rate": rate, "rule": title, **_figures(point), "own": own.title, **beside(point, made)})

        for rate in rates:
            for damping in DAMPINGS:
                rule = partial(watersic, rate=rate, damping=damping)
                add(f"WaterSIC, damping {damping:g}", rate, rule, CALIBRATED)
        for rate in rates:
            rule = partial(entquant, weight_of_magnitude=LAMBDAS[rate])
            add("EntQuant", rate, rule, DATA_FREE)
        parameters = subject.graph.parameters
    return {"parameters": parameters, "rows": rows, "goals": [goal.as_json() for goal in _goals(rows)]}


def _goals(rows: list[Figures]) -> list[Goal]:
    return [
        Goal(
            f"{row['rule']} at {row['rate']:g} bits: damage at its bytes, of the rule's",
            measure.rounded(row["own_damage"] / row["damage"]), 1, "x",
        )
        for row in rows
        if row["own_damage"] is not None
    ]  # fmt: skip


def table(figures: Figures) -> list[str]:
    lines = [
        "| rule, bits a weight | bytes | bits a weight in all | 1 - cosine | beside it | its 1 - cosine there |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for row in figures["rows"]:
        bits = 8 * row["size"] / figures["parameters"]
        own = "not measured" if row["own_damage"] is None else f"**{row['own_damage']:.4g}**"
        lines.append(
            f"| {row['rule']}, {row['rate']:g} | {row['size']:,} | {bits:.2f} | {row['damage']:.4g} "
            f"| {row['own']} | {own} |"
        )
    return lines


def _figures(point: Point) -> Figures:
    return {"size": point.size, "damage": measure.rounded(point.damage)}


def beside(point: Point, seeds: Sequence[Point]) -> Figures:
    """Compute the damage of a seed of a point's bytes: linear in its logarithm between the next smaller and larger.

    Where none is larger, it is that of the largest, which is smaller than the point; None where none is smaller.
    """
    smaller = max((seed for seed in seeds if seed.size <= point.size), key=lambda seed: seed.size, default=None)
    larger = min((seed for seed in seeds if seed.size > point.size), key=lambda seed: seed.size, default=None)
    if smaller is None:
        return {"own_damage": None}
    damage = smaller.damage
    if larger is not None:
        share = (point.size - smaller.size) / (larger.size - smaller.size)
        damage = float(smaller.damage ** (1 - share) * larger.damage**share)
    return {"own_damage": measure.rounded(damage)}


def _by_rule(seeds: OwnSeeds, rule: Rule, folder: Path) -> Deliverable:
    """Round all matrices of a calibrated model by a rule, and write what a device would have."""
    calibrated = seeds.calibrated
    graph, statistics = calibrated.graph, calibrated.statistics
    covariances = statistics[COVARIANCES] if calibrated.source.reference.kind == "real" else {}
    plans: dict[str, Plan] = allocate.uniform(graph, {}, 1.0, VECTOR_BITS[1])
    values: dict[str, np.ndarray] = {}
    scales = 0
    for weight in _matrices(graph.weights.values(), matrix_min(graph)):
        covariance = covariances.get(weight.name)
        made = rule(_maps_of(weight), None if covariance is None else covariance.total()[0].astype(np.float64))
        integers = np.ascontiguousarray(_stored(weight, made.integers).reshape(coded_view(weight)))
        plans[weight.name] = GridPlan.of_narrow(QuantizedMatrix(integers, 1.0))
        values[weight.name] = _stored(weight, made.values).astype(weight.dtype.storage)
        scales += made.scales
    values |= {name: restored(weight, plans[name]) for name, weight in graph.weights.items() if name not in values}
    model = write_model_files(graph, folder, values)
    streams = StreamEncoder(graph, keep=False).estimate(plans)
    size = draft.estimate_size(
        graph, streams, ModelInfo(MODEL, 1, FEATURE_LEVEL, graph.parameters, graph.distinct_bytes), calibrated.skeletons
    )
    return Deliverable(size + SCALE_BYTES * scales, model)


def _matrices(weights: Iterable[Weight], least: int) -> Iterator[Weight]:
    return (weight for weight in weights if kind_of(weight, least) is Kind.MATRIX)


def _maps_of(weight: Weight) -> npt.NDArray[np.float32]:
    """Return `(outputs, inputs)`; of a table, its rows."""
    view = linear_view(weight)
    return as_float32(weight) if view is None else view.maps_of(as_float32(weight))[0]


def _stored(weight: Weight, maps: np.ndarray) -> np.ndarray:
    view = linear_view(weight)
    return maps.reshape(-1) if view is None else view.stored_of(maps[None])


def watersic(weights: npt.NDArray[np.float32], moments: F64 | None, *, rate: float, damping: float) -> Rounded:
    """Round a layer at a rate, as the order-0 entropy of all of its integers with its scales [bit a weight]."""
    outputs, inputs = weights.shape
    moments = np.eye(inputs) if moments is None else moments
    variances = np.diagonal(moments)
    live = variances > _DEAD * np.median(variances)
    exact, kept = weights[:, live].astype(np.float64), moments[np.ix_(live, live)]
    factor = np.linalg.cholesky(kept + damping * np.diagonal(kept).mean() * np.eye(live.sum()))
    wanted = rate - 8 * SCALE_BYTES * (1 / outputs + 1 / inputs)
    sample = exact[:: max(1, round(1 / _ROWS))]
    target = wanted
    for _ in range(3):
        # The rate of the sample changes by a bit where the target does.
        target += wanted - _entropy(_rounded_with_feedback(sample, factor, _first(exact, factor, target)))
    integers = _rounded_with_feedback(exact, factor, _first(exact, factor, target))
    steps = _first(exact, factor, target) / np.diagonal(factor)
    whole, values = np.zeros(weights.shape, np.int32), np.zeros(weights.shape)
    whole[:, live], values[:, live] = integers, _rescaled(integers * steps, exact, kept)
    return Rounded(whole, values, outputs + inputs)


def _first(weights: F64, factor: F64, rate: float) -> float:
    """Compute c, the step of all columns in the factor's coordinates, at which the rate is about this."""
    spread = 12 * np.square(weights).mean(axis=0) * np.square(np.diagonal(factor))
    return float(np.exp(np.log(np.maximum(spread, 1e-30)).mean() / 2 - rate * np.log(2)))


def _rounded_with_feedback(weights: F64, factor: F64, first: float) -> I32:
    """Round columns from the last one on; each is scaled by least squares before its error is handed on."""
    left, roots = weights @ factor, np.diagonal(factor)
    integers = np.zeros(weights.shape, np.int32)
    for stop in range(weights.shape[1], 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        taken = np.zeros((len(weights), stop - start))
        for column in range(stop - 1, start - 1, -1):
            target = left[:, column]
            chosen = np.rint(target / first)
            norm = chosen @ chosen
            if norm:
                taken[:, column - start] = chosen @ target / norm / roots[column] * chosen
            left[:, start:stop] -= np.outer(taken[:, column - start], factor[column, start:stop])
            integers[:, column] = chosen
        left[:, :start] -= taken @ factor[start:stop, :start]
    return integers


def _rescaled(rounded: F64, weights: F64, moments: F64) -> F64:
    """Scale columns and rows by turns so that the error under the moments is least."""
    rows, gains, target = np.ones(len(weights)), np.ones(weights.shape[1]), weights @ moments
    energy, before = float((target * weights).sum()), np.inf
    for _ in range(_ROUNDS):
        scaled = rounded * rows[:, None]
        products = moments * (scaled.T @ scaled)
        products += 1e-8 * np.abs(np.diagonal(products)).mean() * np.eye(len(products))
        gains = np.clip(np.linalg.solve(products, (scaled * target).sum(axis=0)), -0.1, 1.5)
        scaled = rounded * gains
        ahead, norms = (scaled * target).sum(axis=1), ((scaled @ moments) * scaled).sum(axis=1)
        rows = ahead / (norms + 1e-8 * np.abs(norms).mean())
        error = energy - float((2 * rows * ahead - np.square(rows) * norms).sum())
        if abs(before - error) < _TOLERANCE * abs(before):
            break
        before = error
    return rows[:, None] * rounded * gains


def _entropy(integers: I32) -> float:
    counts = np.unique(integers, return_counts=True)[1] / integers.size
    return float(-(counts * np.log2(counts)).sum())


def entquant(weights: npt.NDArray[np.float32], _: F64 | None, *, weight_of_magnitude: float) -> Rounded:
    """Round to float8 with the scale of each row that minimizes the error and the magnitudes."""
    mean = float(np.abs(weights).mean())

    def cost_of(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        values = _float8(weights / scales[:, None])
        magnitudes = np.abs(values).sum(axis=1)
        values *= scales[:, None]
        values -= weights
        cost: npt.NDArray[np.float32] = np.abs(values).sum(axis=1) / mean + weight_of_magnitude / 128 * magnitudes
        return cost

    # In units of the least magnitude above 0; float8 has 448 * 512 of them.
    largest = np.maximum(np.abs(weights).max(axis=1), np.finfo(np.float32).tiny)
    exponents = np.zeros(len(weights), np.float32)
    for offsets in (np.arange(-8, 1, 0.25), np.arange(-0.2, 0.21, 0.05)):
        tried = [exponents + np.float32(offset) for offset in offsets]
        costs = [cost_of(largest * np.exp2(each)) for each in tried]
        exponents = np.take_along_axis(np.stack(tried), np.argmin(costs, axis=0)[None], axis=0)[0]
    scales = largest * np.exp2(exponents)
    values = _float8(weights / scales[:, None])
    return Rounded(_code_of(values), values * scales[:, None], len(weights))


def _float8(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round to E4M3 in units of its least magnitude: integers up to 16, from there on 8 values an octave."""
    exponents = np.frexp(values)[1]
    steps = np.ldexp(np.float32(1), np.maximum(exponents - 4, 0)).astype(np.float32)
    return np.clip(np.rint(values / steps) * steps, -448 * 512, 448 * 512)


def _code_of(values: npt.NDArray[np.float32]) -> I32:
    """Return the places of values of E4M3 among all, in order, 0 for 0: what a coder of integers gets."""
    octaves = np.maximum(np.frexp(values)[1] - 4, 0)
    return np.rint(np.ldexp(np.abs(values), -octaves) + 8 * octaves).astype(np.int32) * np.sign(values).astype(np.int32)
