"""Report of an export as a page of HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seed_exporter.codecs import codec_of
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.quantize.effort import EFFORTS
from seed_exporter.report import frontier, gains, healing, shell
from seed_exporter.report.comparison import Comparison
from seed_exporter.report.frontier import Point
from seed_exporter.report.text import UNLIKE, error_rates_text, noise_text, ratio_text, size
from seed_exporter.results import Result
from seed_runtime.system.files import atomic_write

_OWN: Final = "seeds of this export"


def write(path: Path, result: Result, beside: Comparison | None = None) -> None:
    """Write one page that needs nothing but itself.

    Args:
        path: the page.
        result: of the export.
        beside: what peers make of the model; None where none were asked.
    """
    model = result.seed.header.model
    coded: list[tuple[str, float, str]] = [
        (f"{stream.codec.name} ({len(stream.names)})", stream.size, "") for stream in result.seed.streams
    ]
    graphs = zip(("graph", "training graph"), result.seed.parts, strict=False)
    coded += [(name, len(part), "") for name, part in graphs]
    coded.append(("header", result.bytes - result.seed.header.body_size, ""))
    sections = [
        ("Size", _bars([("original", model.source_bytes, "was"), ("seed", result.bytes, "")])),
        ("How it was judged", _judged(result)),
        ("Frontier", _frontier(result, beside)),
        ("Healing", shell.inline(healing.curve(result.healing))),
        (
            "Channels, before and after what is dead was cut",
            f'<div class="scroll">{_shrunk(result)}</div>' if result.shrinkage else "",
        ),
        ("Outputs, against the original", f'<div class="scroll">{_outputs(result)}</div>'),
        ("Where the bytes went", _bars(coded)),
        ("Weights, those with the most bytes first", f'<div class="scroll">{_weights(result)}</div>'),
        ("What more could gain", "".join(f"<p>{html.escape(text)}</p>" for text in gains.texts(result))),
        ("Time", _bars([(phase, seconds, "") for phase, seconds in result.seconds.items()], "s")),
    ]
    page = shell.page(
        f"{model.model_id}, version {model.version}",
        f"{result.parameters:,} parameters, {ratio_text(result)}",
        sections,
    )
    with atomic_write(path) as file:
        file.write(page.encode())


def _bars(rows: Sequence[tuple[str, float, str]], unit: str = "B") -> str:
    largest = max((value for _, value, _ in rows), default=1) or 1
    return "".join(
        f'<div class="row"><span>{html.escape(name)}</span>'
        f'<span><i class="{css}" style="width:{100 * value / largest:.2f}%"></i></span>'
        f"<b>{size(value) if unit == 'B' else f'{value:.2f} s'}</b></div>"
        for name, value, css in rows
    )


def _outputs(result: Result) -> str:
    rows = "".join(f"<tr><td>{html.escape(name)}</td>{_error(error)}</tr>" for name, error in result.outputs.items())
    return (
        "<table><tr><th>output<th class=n>error, RMS<th class=n>largest<th class=n>cosine<th class=n>same largest"
        f" score</tr>{rows}</table><p class=sub>On {result.inputs} inputs.</p>"
    )


def _error(error: OutputError) -> str:
    if error.noisy:
        return f"<td class=soft colspan=4>{html.escape(noise_text(error))}</td>"
    if math.isinf(error.relative):
        return f"<td class=soft colspan=4>{html.escape(UNLIKE)}</td>"
    if error.is_text:
        return f"<td class=n colspan=4>{100 * (error.agreement or 0):.1f} % of the texts are the original's</td>"
    agreement = "" if error.agreement is None else f"{100 * error.agreement:.1f} %"
    return (
        f"<td class=n>{100 * error.relative:.3f} %</td><td class=n>{error.largest:.3g}</td>"
        f"<td class=n>{error.cosine:.6f}</td><td class=n>{agreement}</td>"
    )


def _judged(result: Result) -> str:
    facts = [("inputs", result.inputs_note), ("metric", result.metric)]
    if math.isfinite(result.damage):
        facts.append(("damage", f"{result.damage:.4g}"))
    if result.error_rates:
        facts.append(("wrong by the labels", error_rates_text(result.error_rates)))
    if result.line:
        facts.append(("asked for", result.line))
    facts.append(("effort", f"{result.effort} of {max(EFFORTS)}"))
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in facts)
    return f"<table>{rows}</table>"


def _frontier(result: Result, beside: Comparison | None) -> str:
    """Draw the seeds that were tried, the one that was written and peers; "" where no damage was measured."""
    if not math.isfinite(result.damage):
        return ""
    peers = beside.points() if beside is not None else []
    tried = [Point(_OWN, point.bytes, point.damage) for point in result.points]
    chosen = Point(_OWN, result.bytes, result.damage)
    drawing = shell.inline(frontier.frontier([*(tried or [chosen]), *peers], chosen, _damage_name(result)))
    without = [] if beside is None else [f"{title}: {reason}" for title, reason in beside.without()]
    said = [f"On {result.inputs} inputs.", *without]
    if not peers:
        said.append("With --peers, software of others stands beside it.")
    return f"{drawing}<p class=sub>{'<br>'.join(html.escape(text) for text in said)}</p>\n"


def _damage_name(result: Result) -> str:
    return "damage" if result.metric == "auto" else f"damage by {result.metric}"


def _weights(result: Result) -> str:
    """List all weights with their bytes, bits and the damage that each does alone, with a bar for both."""
    sizes, damages = result.weight_bytes, result.weight_damages
    most, worst = max(sizes.values(), default=1) or 1, max(damages.values(), default=1) or 1
    rows = []
    for name, weight in sorted(result.graph.weights.items(), key=lambda item: -sizes.get(item[0], item[1].size)):
        plan, taken = result.plans[name], sizes.get(name)
        cells = [
            f"<td>{html.escape(name)}<td>{'x'.join(map(str, weight.shape))}<td>{weight.dtype.name}",
            f"<td>{codec_of(plan).name}<td class='soft plan'>{html.escape(plan.describe())}",
            f"<td class=n>{size(weight.size)}",
        ]
        if sizes:
            cells.append("<td><td><td>" if taken is None else _taken(taken, weight.count, taken / most))
        if damages:
            cells.append(_damage(damages.get(name), worst))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "<th>weight<th>shape<th>type<th>codec<th>precision<th class=n>in the source"
    head += "<th class=n>in the seed<th class=n>bits each<th>" if sizes else ""
    head += "<th class=n>damage alone<th>" if damages else ""
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _shrunk(result: Result) -> str:
    """List what is left of each layer."""
    if result.shrinkage is None:
        return ""
    most = max((layer.channels[0] for layer in result.shrinkage.layers), default=1) or 1
    rows = "".join(
        f"<tr><td>{html.escape(layer.name)}<td class=n>{layer.channels[0]:,}<td class=n>{layer.channels[1]:,}"
        f'<td class=bar><i style="width:{100 * layer.channels[1] / most:.2f}%"></i>'
        f"<td class=n>{layer.weights[0]:,}<td class=n>{layer.weights[1]:,}</tr>"
        for layer in result.shrinkage.layers
    )
    head = "<th>layer<th class=n>channels<th class=n>left<th><th class=n>weights<th class=n>left"
    return f"<table><tr>{head}</tr>{rows}</table><p class=sub>{html.escape(result.shrinkage.text())}</p>"


def _taken(taken: float, count: int, share: float) -> str:
    bits = f"{8 * taken / count:.2f}" if count else ""
    return f'<td class=n>{size(taken)}<td class=n>{bits}<td class=bar><i style="width:{100 * share:.2f}%"></i>'


def _damage(damage: float | None, worst: float) -> str:
    if damage is None or not math.isfinite(damage):
        return "<td><td>"
    share = min(1.0, max(0.0, damage / worst))
    return f'<td class=n>{damage:.3g}<td class=bar><i class=damage style="width:{100 * share:.2f}%"></i>'
