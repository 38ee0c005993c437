"""Write results as files: JSON beside the benchmarks, and in docs/ the same JSON, charts, and tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

from bench.measure import Figures

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"


def keep(name: str, result: Figures) -> Path:
    """Write one benchmark's result in place of its last one."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def publish(name: str, module: ModuleType, result: Figures) -> None:
    """Write a result to docs/: its JSON, its charts, and its part of benchmarks.md, or of the module's own PAGE."""
    folder = DOCS / "benchmarks"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    charts = module.charts(result["figures"]) if hasattr(module, "charts") else {}
    for chart, svg in charts.items():
        (folder / f"{chart}.svg").write_text(svg)
    images = [f"![{chart}](benchmarks/{chart}.svg)" for chart in charts]
    note = [result["figures"]["note"]] if result["figures"].get("note") else []
    blocks = [
        module.table(result["figures"]),
        *([image] for image in images),
        note,
        goal_table(result),
        [provenance(name, result)],
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    place = getattr(module, "PAGE", PAGE)
    page = place.read_text()
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    page, count = re.subn(
        f"{re.escape(start)}.*?{re.escape(end)}", lambda match: f"{start}\n{text}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise RuntimeError(f"{place.name} has {count} places for {name}; it needs {start} and {end} once")
    place.write_text(page)


def goal_table(result: Figures) -> list[str]:
    if not result["figures"]["goals"]:
        return []
    lines = ["| goal | | measured | |", "|---|--:|--:|---|"]
    for goal in result["figures"]["goals"]:
        unit = f" {goal['unit']}" if goal["unit"] else ""
        lines.append(
            f"| {goal['text']} | {goal['goal']}{unit} | {goal['value']:g}{unit} "
            f"| {'met' if goal['met'] else '**not met**'} |"
        )
    return lines


def goal_lines(result: Figures) -> list[str]:
    """Format the goals of a result for a terminal."""
    return [
        f"  {'met    ' if goal['met'] else 'NOT MET'}  {goal['text']}: {goal['value']:g} {goal['unit']} "
        f"(goal {goal['goal']})"
        for goal in result["figures"]["goals"]
    ]


def provenance(name: str, result: Figures) -> str:
    machine = result["machine"]
    versions = ", ".join(
        f"{package} {version}" for package, version in machine.items()
        if package not in ("processor", "cores", "system")
    )  # fmt: skip
    return (
        f"`python -m bench {name}` took {result['seconds']:.0f} s on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}; load before it {result['load_before']}, after it {result['load_after']}; {versions}."
    )
