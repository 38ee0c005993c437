"""Seconds to make and to assemble a seed, of the published method and of quantized integers, on one core.

Shapes are those of the published table, weights are drawn (bench/synthetic.py). The published method gets as many
components as fit the published size. Times are processor seconds, kernel work included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import seed_runtime
from bench import chart, measure, seeds, synthetic
from bench.measure import Figures
from seed_exporter.build.streams import Plans, encode
from seed_exporter.calibrate import SPECTRA, collect
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.methods.published import plans_of

from .parts import units_of

TITLE = "Time to extract and to assemble, and why no CUDA"
KIB = 1024
SHAPES: dict[str, tuple[Callable[[], Graph], int, float, float | None]] = {
    "BERT-tiny": (lambda: synthetic.gpt2(2, 128, 30522), 161 * KIB, 1.0, 9.3),
    "MobileNetV2": (synthetic.mobilenet_v2, 90 * KIB, 2.0, None),
    "ResNet-50": (synthetic.resnet50, 58_163, 1.7, None),
    "DistilBERT": (lambda: synthetic.gpt2(6, 768, 30522), 3_565_158, 15.0, 154.0),
    "GPT-2 small": (synthetic.gpt2, 3_386_900, 50.0, 247.0),
}
"""Shapes, published bytes, published seconds to extract (those "< 1" and "< 2" as 1 and 2) and to assemble."""
COARSENESS = 0.45


def run(quick: bool, data: Path) -> Figures:
    """Measure all shapes."""
    measure.one_core()
    rows = []
    with measure.scratch(memory=True) as folder:
        for title, (make, size, extracted, assembled) in list(SHAPES.items())[: 2 if quick else None]:
            measure.say(f"times: {title}")
            graph = make()
            row: Figures = {
                "title": title, "parameters": graph.parameters, "published_bytes": size,
                "published_s": [extracted, assembled],
            }  # fmt: skip
            row["components"] = _measured(graph, folder, lambda graph=graph, size=size: _components(graph, size))
            row["integers"] = _measured(graph, folder, lambda graph=graph: seeds.plans_at(graph, COARSENESS))
            rows.append(row)
    return {"rows": rows}


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    lines = [
        (
            "Networks of the published shapes with drawn weights, on one core, in processor seconds; the machine of "
            "the published times isn't known."
        ),
        (
            "The published method has as many components as fit the published size, of each matrix at least its mean "
            "row, and these are larger than that for ResNet-50."
        ),
        (
            "It takes longer to repeat than published on small networks, as spectra are computed whole, whichever part "
            "of them is kept."
        ),
        "Quantized integers have some 3 bits a weight: their seeds are 8 to 100 times larger, and take no longer.",
        "",
        (
            "| shapes | parameters | seed [KB]: published | repeated | integers | extract [s]: published | repeated "
            "| integers | assemble [s]: published | repeated | integers |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in records["times"]["rows"]:
        extracted, assembled = row["published_s"]
        own, integers = row["components"], row["integers"]
        sizes = [row["published_bytes"], own["bytes"], integers["bytes"]]
        cells = [
            row["title"], f"{row['parameters'] / 1e6:.1f} M", *(f"{size / 1000:,.0f}" for size in sizes),
            f"{extracted:g}", f"{own['extract_s']:.2f}", f"{integers['extract_s']:.2f}",
            f"{assembled:g}" if assembled else "-", f"{own['assemble_s']:.2f}", f"{integers['assemble_s']:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    last = records["times"]["rows"][-1]
    speed = last["parameters"] / last["integers"]["assemble_s"] / 1e6
    lines += [
        "",
        (
            f"{last['title']}'s weights are decoded, hashed and written in {last['integers']['assemble_s']:.1f} s by "
            f"one core in NumPy, {speed:.0f} million a second; in the published table that takes "
            f"{last['published_s'][1]:.0f} s."
        ),
        (
            "There is nothing left that a GPU would have to speed up: integers are decoded by table look-ups in order, "
            "and made into weights by one multiplication each."
        ),
        (
            "CUDA would add a dependency of gigabytes to a runtime of NumPy and ONNX Runtime, small devices have "
            "none, and sums in another order would give other bits than the digest says."
        ),
    ]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw seconds over parameters."""
    rows = sorted(records["times"]["rows"], key=lambda row: row["parameters"])
    across = chart.Axis("parameters [million]", logarithmic=True, show="{:g}".format)
    up = chart.Axis("seconds", logarithmic=True, show="{:g}".format)

    def curve(value: Callable[[Figures], float | None]) -> list[tuple[float, float]]:
        return [(row["parameters"] / 1e6, found) for row in rows if (found := value(row))]

    def drawn(title: str, index: int, key: str) -> str:
        series = {
            "published": curve(lambda row: row["published_s"][index]),
            "the published method, repeated": curve(lambda row: row["components"][key]),
            "quantized integers": curve(lambda row: row["integers"][key]),
        }
        return chart.lines(title, series, across, up)

    return {
        "times-extract": drawn("Making a seed", 0, "extract_s"),
        "times-assemble": drawn("Assembling a seed", 1, "assemble_s"),
    }


def _components(graph: Graph, size: int) -> Plans:
    """Plan as many components as fit: numbers are hardly compressible, so one try is enough."""
    return plans_of(graph, units_of(graph), size, VECTOR_BITS[1], collect(graph, {SPECTRA})[SPECTRA])


def _measured(graph: Graph, folder: Path, plan: Callable[[], Plans]) -> Figures:
    path, made = folder / "times.seed", {}

    def extract() -> None:
        plans = plan()
        made["seed"] = seeds.write(graph, encode(graph, plans, jobs=1), plans, path)

    spent = measure.spent(extract)
    assembled = measure.spent(lambda: seed_runtime.open(path).assemble(folder / "out"))
    return {
        "bytes": path.stat().st_size,
        "extract_s": measure.rounded(spent.cpu),
        "assemble_s": measure.rounded(assembled.cpu),
    }
