"""Ratio against quality of healed models: the kept seeds of the claims, and the trials before them.

`run` checks the seeds that are kept in bench/claims/seeds; where none are, there is nothing to measure.
"""

from __future__ import annotations

from pathlib import Path

from bench import chart
from bench.measure import Figures, rounded

TITLE = "Healed models"


def run(quick: bool, data: Path) -> Figures:
    """Check all kept seeds with the runtime alone.

    Raises:
        FileNotFoundError: none are kept.
    """
    from bench.claims import kept
    from bench.claims.goals import GOALS

    rows = []
    for goal in GOALS:
        row = kept.check(goal)
        if row is None:
            continue
        beside = row.kept_beside
        rows.append({
            "model": goal.title, "measure": goal.measure, "parameters": beside["parameters"], "bytes": row.bytes,
            "ratio": rounded(row.ratio), "quality": rounded(row.quality), "reference": rounded(row.reference),
            "kept": [rounded(share) for share in (row.kept.middle, row.kept.low, row.kept.high)],
            "assembly_s": rounded(row.assembly_s), "seconds": beside["healing"]["seconds"],
            "steps": beside["healing"]["steps"], "controls": beside["controls"],
        })  # fmt: skip
    if not rows:
        raise FileNotFoundError("no seed is kept in bench/claims/seeds")
    return {"rows": rows}


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    lines = []
    if "healed" in records:
        lines += [
            "The kept seeds of the claims (`make claims` checks them again):",
            "",
            "| model | whole seed [B] | ratio | quality | reference | kept [95 %] | healing |",
            "|---|--:|--:|--:|--:|---|--:|",
        ]
        for row in records["healed"]["rows"]:
            lines.append(
                f"| {row['model']} | {row['bytes']:,} | {row['ratio']:,.0f}x | {row['quality']} | {row['reference']} "
                f"| {_interval(row['kept'])} | {row['seconds']:.0f} s, {row['steps']:,} steps |"
            )
            for control in row["controls"]:
                size = f"{control['bytes']:,}" if control.get("bytes") else ""
                lines.append(f"| - {control['label']} | {size} | | | | {_interval(control['kept'])} | |")
    else:
        lines.append("The product's own healing at the published ratios is not measured yet: no seed of it is kept.")
    if "runs" in records:
        lines += _runs(records["runs"])
    trials = records["trials"]
    lines += [
        "",
        trials["source"],
        "",
        (
            "| model | coded weights [B] | ratio, 4 KB for the graph | quality | better of original and trained on "
            "| kept [95 %] | healing |"
        ),
        "|---|--:|--:|--:|--:|---|--:|",
    ]
    for row in trials["healed"]:
        lines.append(
            f"| {row['model']} | {row['bytes']:,} | {row['ratio']:,}x | {row['quality']:.4f} | {row['reference']:.4f} "
            f"| {_interval(row['kept'], ' %')} | {row['seconds']} s, {row['steps']:,} steps |"
        )
    lines += ["", "| control | quality |", "|---|--:|"]
    lines += [f"| {row['model']}: {row['title']} | {row['quality']:.4f} |" for row in trials["controls"]]
    points = ", ".join(f"{ratio:g}x at {growth:.2f}" for ratio, growth in trials["perplexity"]["points"])
    return [
        *lines,
        "",
        (
            "BERT-tiny's original was below TF-IDF with a linear classifier (.8328), and DistilBERT's still got better "
            "when its time was over: their rows show that healing works, not what such networks can do."
        ),
        (
            "The glyphs were easy: students that were designed small, and neither healed nor entropy-coded, came "
            "within half a percent of the original at 66 and 74 KB."
        ),
        (
            f"GPT-2 small, perplexity over the original's: {points}; all but the last are passed on the way, before "
            "learning rates fell, so they are upper bounds."
        ),
    ]


def _runs(runs: Figures) -> list[str]:
    """Write the table of runs whose seeds aren't kept, and of their controls."""
    lines = [
        "",
        runs["source"],
        "",
        "| model | whole seed [B] | ratio | quality | better of original and trained on | kept [95 %] | healing |",
        "|---|--:|--:|--:|--:|---|--:|",
    ]
    lines += [
        f"| {row['model']} | {row['bytes']:,} | {row['ratio']:,.0f}x | {row['quality']} | {row['reference']} "
        f"| {_interval(row['kept'])} | {row['seconds']} s |"
        for row in runs["rows"]
    ]
    lines += ["", "| control | whole seed [B] | quality |", "|---|--:|--:|"]
    for row in runs["controls"]:
        size = f"{row['bytes']:,}" if row["bytes"] else ""
        lines.append(f"| {row['model']}: {row['title']} | {size} | {row['quality']:.4f} |")
    lines += [
        "",
        (
            "Seeds of glyphs on fonts that were trained on and on held-out ones, 2,000 pictures each "
            "(`python -m bench.claims.sides`), beside the damage by which their state was chosen:"
        ),
        "",
        "| seed | 1 - cosine | training fonts | held out | Cyrillic, training fonts | held out |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {row['model']} | {row['damage']} | {row['training']:.4f} | {row['held']:.4f} "
            f"| {row['cyrillic'][0]:.4f} | {row['cyrillic'][1]:.4f} |"
            for row in runs["sides"]
        ),
        "",
        (
            "MobileNetV2 itself is right in .972 of 500 pictures in training fonts and in .919 held out: its seed "
            "loses as much on the one as on the other, and so do the others. Look-alikes are lost: of 820 held-out "
            "pictures that MobileNetV2 has right and its seed wrong 319 are taken for the same letter in the other "
            "case, 720 of ResNet-50's 2,104. (Characters are drawn in one size here: such letters differ by little.) "
            "The cosine of logits sees none of that: MobileNetV2's have a mean of -19 and a deviation of .75, so that "
            "it tells how large the mean is, and of two seeds of a student it prefers the worse one. The KL of the "
            "decisions counts as well now where healing chooses its state, and all kinds of characters are among the "
            "pictures that judge; Hangul, kana and kanji weren't."
        ),
    ]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw accuracy over bytes on the way to the size."""
    across = chart.Axis("bytes of coded weights [KB]", logarithmic=True, show="{:g}".format)
    up = chart.Axis("held-out accuracy [%]", show="{:.1f}".format)
    series = {
        name: [(size, 100 * accuracy) for size, accuracy in points]
        for name, points in records["trials"]["curves"].items()
    }
    return {"healed": chart.lines("On the way to the size, and at its end", series, across, up)}


def _interval(kept: list[float | None], unit: str = "") -> str:
    middle, low, high = kept
    return f"{middle:g}{unit}" if low is None else f"{middle:g}{unit} [{low:g}, {high:g}]"
