"""Draw a training: size and damage over its run, on a page of its own while it goes on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from seed_exporter.heal.looks import Look, Training
from seed_exporter.report import shell, svg
from seed_exporter.report.text import size as size_text
from seed_runtime.errors import SeedError
from seed_runtime.system.files import atomic_write

_LEFT: Final = 76
_RIGHT: Final = svg.WIDTH - 40
_HEIGHT: Final = 130
"""Height of each of the two drawings [user units]."""
_GAP: Final = 46
"""Room between them, for the caption of the upper one [user units]."""

_REFRESH: Final = 10
"""Time after which a browser loads the page of a training again [s]."""


class LivePage:
    """The page of `--report` while a model is healed; the report takes its place when that is done.

    Args:
        path: a file, or what isn't there yet; anything else, such as a pipe, is left to the report.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._training: Training | None = None
        self._is_file = path.is_file() or not path.exists()

    def show(self, training: Training) -> None:
        """Replace the page by one of what is known now. A page that can't be written ends no training."""
        self._training = training
        minutes, seconds = divmod(round(training.seconds_left), 60)
        left = f"{minutes:,} min {seconds:02} s left"
        self._write(training, f"healing {training.where}: {100 * training.share:.0f} % done, about {left}", _REFRESH)

    def stop(self, reason: str) -> None:
        """Say on the page that there is no more to come, where one was written."""
        if self._training is not None:
            self._write(self._training, f"healing ended without a seed: {reason}", 0)

    def _write(self, training: Training, subtitle: str, refresh: int) -> None:
        if not self._is_file:
            return
        sections = [("Healing", shell.inline(curve(training.looks))), ("So far", _facts(training))]
        page = shell.page(training.model_id, subtitle, sections, refresh)
        with contextlib.suppress(OSError, SeedError), atomic_write(self._path) as file:
            file.write(page.encode())


def _facts(training: Training) -> str:
    done = round(training.share * training.steps)
    rows = [
        ("asked for", f"{size_text(training.goal)} at most"),
        ("steps", f"{done:,} of about {training.steps:,}, {training.step_seconds:.2g} s each"),
    ]
    if training.looks:
        last = training.looks[-1]
        rows.append(("now", f"{size_text(last.size)}, damage {last.damage:.3g}"))
    if (best := training.best) is not None:
        kept = "" if best.size <= training.goal else ", not as small as asked for"
        rows.append(("best so far, which Ctrl-C writes", f"{size_text(best.size)}, damage {best.damage:.3g}{kept}"))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>"


def curve(looks: Sequence[Look]) -> str:
    """Draw the sizes and the damages that looks found, one above the other, on logarithmic axes, as one SVG.

    Returns:
        The SVG; "" where there is nothing to draw.
    """
    shown = [look for look in looks if math.isfinite(look.damage) and look.damage > 0]
    if len(shown) < 2:
        return ""
    sizes = [(look.share, float(look.size), size_text(look.size)) for look in shown]
    damages = [(look.share, look.damage, f"{look.damage:.3g}") for look in shown]
    lower = svg.TOP - 30 + _HEIGHT + _GAP
    parts = [
        *_series(sizes, svg.TOP - 30, svg.colour(0), "bytes of the whole seed, over the run"),
        *_series(damages, lower, svg.colour(4), "damage on inputs that weren't trained on, over the run"),
    ]
    return svg.document("Healing", parts, lower + _HEIGHT + _GAP)


def _series(points: Sequence[tuple[float, float, str]], top: float, colour: str, caption: str) -> list[str]:
    """Draw one line: points of a share of the run, a value, and the value as text."""
    logs = [math.log10(value) for _, value, _ in points]
    low, high = min(logs), max(logs)
    span = (high - low) or 1.0
    placed = [
        (_LEFT + (_RIGHT - _LEFT) * share, top + _HEIGHT * (high - log) / span)
        for (share, _, _), log in zip(points, logs, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    out = [f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{top + _HEIGHT}" y2="{top + _HEIGHT}"/>']
    for log, y in ((high, top), (low, top + _HEIGHT)):
        text = points[logs.index(log)][2]
        out.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for (share, _, text), (x, y) in zip(points, placed, strict=True):
        title = f"{100 * share:.0f} % of the run: {text}"
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(title)}</title></circle>')
    middle = (_LEFT + _RIGHT) / 2
    out.append(f'<text x="{middle:.0f}" y="{top + _HEIGHT + 20}" text-anchor="middle">{escape(caption)}</text>')
    return out
