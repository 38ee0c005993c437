"""What others measured of weights that come out of seeds: a record of sources, read and not repeated."""

from __future__ import annotations

from bench.measure import Figures

TITLE = 'What others measured of "seeds"'


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    found = records["others"]
    lines = [
        f"Sources were {found['read']}.",
        "",
        "| idea | what was found | source |",
        "|---|---|---|",
    ]
    lines += [f"| {row['topic']} | {row['what']} | [source]({row['link']}) |" for row in found["rows"]]
    return [
        *lines,
        "",
        (
            "With one exception these agree with the measurements above: a random number generator gives noise for "
            "nothing, and noise is what a trained weight is not."
        ),
        (
            "Random weights are worth something where the rest is trained around them, as in that exception; then the "
            "trained part is what is stored, and it is not small."
        ),
    ]


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw nothing: the sources measured different things."""
    return {}
