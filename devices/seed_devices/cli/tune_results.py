"""Print what came of fine-tunes on devices, for people, and what `--json` holds of one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from seed_devices.cli import show
from seed_devices.cli.fleet_request import Answer
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_runtime.cli.terminal import table
from seed_runtime.units import mib, size_text


def facts(name: str, answer: dict[str, Any], data: Path, sent: int, fetched: Path | None) -> Answer:
    """Return the fields of `--json` for a device that answered.

    Args:
        name: of the model.
        answer: of the device.
        data: the samples.
        sent: bytes of them that were sent.
        fetched: where what was learned is written; None where that wasn't asked for.
    """
    left_out = ("ok", "path", "peak_rss")
    return {
        "name": name,
        **{key: value for key, value in answer.items() if key not in left_out},
        "peak_rss_mib": None if answer["peak_rss"] is None else mib(answer["peak_rss"]),
        "data": str(data),
        "sent": sent,
        "fetched": None if fetched is None or answer["digest"] is None else str(fetched),
    }


def progress_text(phase: str, done: int, total: int, detail: dict[str, Any]) -> str:
    """Return how far a fine-tune is; "" for other phases, and where nothing is known of it yet."""
    if phase != "tune" or not detail:
        return ""
    parts = [f"{detail['tier']}: {done} of {total}"]
    parts += [f"{what} {detail[what]:.3g}" for what in ("loss", "score") if detail[what] is not None]
    left = show.duration_text(detail["seconds_left"]) if math.isfinite(detail["seconds_left"]) else "some time"
    return ", ".join([*parts, size_text(detail["memory"]), f"{left} left"])


def print_results(outcomes: list[Outcome[Answer]]) -> None:
    """Print what came of a fine-tune: its tiers for one device, a table of scores for several."""
    if len(outcomes) == 1:
        if (value := outcomes[0].value) is not None:
            print("\n".join(_lines(outcomes[0].target, value)))
        return
    heads = ["host", "name", "result", "digest", "held out", "before", "after", "bytes", "time", ""]
    show.print_rows(heads, [_row(outcome) for outcome in outcomes], right=[4, 5, 6, 7, 8])
    for outcome in outcomes:
        for note in (outcome.value["notes"] or []) if outcome.value else ():
            print(f"{outcome.target}: note: {note}")


def result_text(outcome: Outcome[Answer]) -> str:
    """Return what came of a fine-tune on one device, in one line without its name."""
    value = outcome.value
    if value is None:
        return f"failed: {show.reason(outcome)}"
    scores = f"{value['metric']} {_number(value['before'])} before, {_number(value['after'])} after"
    if value["digest"] is None:
        return f"{value['name']} is as before ({scores}, {outcome.seconds:.1f} s)"
    return f"{value['name']} {value['digest'][: show.SHORT]} runs ({scores}, {outcome.seconds:.1f} s)"


def totals_text(outcomes: list[Outcome[Answer]]) -> str:
    """Return on how many devices something got better, and what all were sent."""
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    tuned, sent = sum(value["digest"] is not None for value in values), sum(value["sent"] for value in values)
    return f"in all: {size_text(sent)} sent, better on {tuned} of {len(outcomes)} devices"


def _row(outcome: Outcome[Answer]) -> list[str]:
    value, host, seconds = outcome.value, outcome.target.device, f"{outcome.seconds:.1f} s"
    if value is None:
        return [host, outcome.target.name or "", "failed", "", "", "", "", "", seconds, show.reason(outcome)]
    digest, size = value["digest"] or "", value["bytes"]
    return [
        host,
        value["name"],
        "tuned" if digest else "as before",
        digest[: show.SHORT],
        str(value["held_out"]),
        _number(value["before"]),
        _number(value["after"]),
        "" if size is None else f"{size:,}",
        seconds,
        "interrupted" if value["stopped"] else "",
    ]


def _lines(target: Target, value: Answer) -> list[str]:
    rows = [["tier", str(value["metric"]), "kept", "steps", "at once", "seconds"]]
    rows += [
        [
            each["tier"],
            _number(each["score"]),
            "yes" if each["kept"] else "no",
            str(each["steps"] or "-"),
            str(each["micro_batch"]),
            f"{each['seconds']:.1f}",
        ]
        for each in value["tiers"] or []
    ]
    lines = [*(value["notes"] or []), *table(rows, right=(1, 3, 4, 5))]
    what = f"{value['metric']} on {value['held_out']:,} samples that were held out"
    lines.append(f"{what}: {_number(value['before'])} before, {_number(value['after'])} after")
    if value["digest"] is not None:
        size = f"{value['bytes']:,} bytes, " if value["bytes"] is not None else ""
        back = f"; go back with: seed-deploy rollback {target.of(value['name'])}" if value["previous"] else ""
        lines.append(f"{target.device}: {value['name']} {value['digest'][: show.SHORT]} runs, {size}tuned there{back}")
        if value["fetched"] is not None:
            lines.append(f"{value['fetched']}: what was learned, for --apply")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
