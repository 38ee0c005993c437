"""Report of an export as a page of HTML."""

from __future__ import annotations

import html
import math
from pathlib import Path

from seed_exporter.codecs import codec_of
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.report.text import UNLIKE, noise_text, ratio_text, size
from seed_exporter.results import Result
from seed_runtime.system.files import atomic_write

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: light-dark(#1a1d21, #e8e6e1); --soft: light-dark(#6b7280, #9aa0a8);
  --line: light-dark(#e3e5e8, #33373d); --bar: #2f8f6b; --was: light-dark(#c9ced6, #4a5058); }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #15171a);
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.05rem; margin: 2.25rem 0 .5rem; }}
p.sub, td.soft, caption {{ color: var(--soft); }}
.row {{ display: grid; grid-template-columns: 7rem 1fr 9rem; gap: .75rem; align-items: center; margin: .3rem 0; }}
.row i {{ display: block; height: 1.1rem; border-radius: 3px; background: var(--bar); min-width: 2px; }}
.row i.was {{ background: var(--was); }} .row b {{ font-weight: 500; text-align: right; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 500; color: var(--soft); }} td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
.scroll {{ overflow-x: auto; }}
</style>
<h1>{title}</h1><p class="sub">{subtitle}</p>
<h2>Size</h2>{sizes}
<h2>Outputs, against the original</h2><div class="scroll">{outputs}</div>
<h2>Where the bytes went</h2>{parts}
<h2>Weights</h2><div class="scroll">{weights}</div>
<h2>Time</h2>{times}
</html>
"""


def write(path: Path, result: Result) -> None:
    """Write one page that needs nothing but itself."""
    model = result.seed.header.model
    page = _PAGE.format(
        title=html.escape(f"{model.model_id}, version {model.version}"),
        subtitle=html.escape(f"{result.parameters:,} parameters, {ratio_text(result)}"),
        sizes=_bars([("original", model.source_bytes, "was"), ("seed", result.bytes, "")]),
        outputs=_outputs(result),
        parts=_bars(
            [
                *((f"{stream.codec.name} ({len(stream.names)})", stream.size, "") for stream in result.seed.streams),
                ("graph", len(result.seed.part), ""),
                ("header", result.bytes - result.seed.header.body_size, ""),
            ]
        ),
        weights=_weights(result),
        times=_bars([(phase, seconds, "") for phase, seconds in result.seconds.items()], "s"),
    )
    with atomic_write(path) as file:
        file.write(page.encode())


def _bars(rows: list[tuple[str, float, str]], unit: str = "B") -> str:
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


def _weights(result: Result) -> str:
    rows = []
    for name, weight in result.graph.weights.items():
        plan = result.plans[name]
        shape = "x".join(map(str, weight.shape))
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{shape}</td><td>{weight.dtype.name}</td>"
            f"<td>{codec_of(plan).name}</td><td class=soft>{html.escape(plan.describe())}</td>"
            f"<td class=n>{size(weight.size)}</td></tr>"
        )
    head = "<tr><th>weight<th>shape<th>type<th>codec<th>precision<th class=n>in the source</tr>"
    return f"<table>{head}{''.join(rows)}</table>"
