"""The page: its first paragraph, and the sections of all topics that there are records of."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from bench.measure import Figures

from . import healed, others, published, ratio, records, residual, seen_often, sizes, times, training, transfer
from .records import FOLDER

TOPICS: dict[str, Any] = {
    "published": published, "ratio": ratio, "healed": healed, "sizes": sizes, "training": training,
    "residual": residual, "seen_often": seen_often, "times": times, "transfer": transfer, "others": others,
}  # fmt: skip
"""In the order of the page."""
MEASURED = tuple(name for name, topic in TOPICS.items() if hasattr(topic, "run"))
DERIVED = {"healed": "trials", "training": "trials", "sizes": "trials"}
"""Topics that are drawn from another topic's record, whether they have one of their own or not."""
INTRODUCTION = """\
Every figure comes from a program under `bench/matters/`, or from a record whose source is named beside it.
`python -m bench.matters --run TOPIC --data DIR` measures a topic.
`python -m bench.matters --render` draws this page from the records in `docs/what-matters/`.
Bytes are those of whole seeds, graph included, unless a table says otherwise.
Ratios refer to each distinct weight at fp32, and qualities are held out.
Everything here is one run with one random state.
"""


def text(found: dict[str, Figures]) -> str:
    """Return the page."""
    blocks = ["# What matters", summary(found), INTRODUCTION.rstrip()]
    for name, topic in TOPICS.items():
        blocks.append(f"## {topic.TITLE}")
        if not _is_there(name, found):
            blocks.append(f"Not measured yet; `python -m bench.matters --run {name}` measures it.")
            continue
        blocks.append("\n".join(topic.section(found)))
        body = blocks[-1]
        links = [f"![{chart}](what-matters/{chart}.svg)" for chart in topic.charts(found)]
        blocks += [link for link in links if link not in body]
        if name in found and "measured" in found[name]:
            blocks.append(records.provenance(name, found[name]))
    return "\n\n".join(blocks) + "\n"


def drawings(found: dict[str, Figures]) -> dict[str, str]:
    """Return all charts by name."""
    drawn: dict[str, str] = {}
    for name, topic in TOPICS.items():
        if _is_there(name, found):
            drawn |= topic.charts(found)
    return drawn


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the page beside the folder of its records, and the charts into it; return their paths."""
    found = records.load(folder)
    page = folder.with_suffix(".md")
    page.write_text(text(found))
    written = [page]
    for name, svg in drawings(found).items():
        written.append(folder / f"{name}.svg")
        written[-1].write_text(svg)
    return written


def summary(found: dict[str, Figures]) -> str:
    """Return the first paragraph: what matters most, in order, with figures."""
    trials = found["trials"]
    resnet = next(row for row in trials["healed"] if row["model"] == "ResNet-50")
    said = [
        (
            "What matters most, in order: "
            "**whether the weights are trained while their bits are counted** "
            f"(healed in the trials, on 47 classes, ResNet-50 keeps {resnet['kept'][0]:g} % of its accuracy at "
            f"{resnet['ratio']:,}x, "
            f"where the published method is right in {100 * trials['controls'][0]['quality']:.1f} % at as many bytes"
            f"{_of_resnet(found)}"
            f"{_of_training(found)});"
        ),
        (
            "**how much too large the network is for its task** (ResNet-50 and MobileNetV2 learn the same glyphs, and "
            "end at 44 and 53 KB, which is 1,967x and 161x; small students that were distilled come within half a "
            f"percent of both at 66 and 74 KB, and are far cheaper to run{_of_runs(found)});"
        ),
    ]
    if "ratio" in found:
        said.append(_of_ratio(found["ratio"]))
    if "published" in found:
        said.append(_of_published(found["published"], trials))
    said.append(
        "**coding the integers under contexts** (41 % fewer bytes than one table for each matrix where megabytes are "
        "coded, nothing at tens of kilobytes)."
    )
    return "\n".join([*said, _without_effect(found)])


def _of_resnet(found: dict[str, Figures]) -> str:
    """Say what the last run on 1,000 classes kept, and what a fine-tune gave the published method there."""
    if "runs" not in found:
        return ""
    runs = found["runs"]
    row = next(row for row in runs["rows"] if row["model"] == "ResNet-50")
    own = [control for control in runs["controls"] if control["model"] == row["model"]]
    tuned, drawn = (control["quality"] for control in own if "300 steps" in control["title"])
    return (
        f"; on 1,000 classes {100 * row['kept'][0]:.1f} % were kept at {row['ratio']:,.0f}x, and 300 steps of "
        f"fine-tuning brought the published method to {100 * tuned:.1f} %, random weights to {100 * drawn:.1f} %"
    )


def _of_runs(found: dict[str, Figures]) -> str:
    """Say where students beat healed networks, as the table of runs has it."""
    if "runs" not in found:
        return ""
    pairs = [pair for pair in itertools.pairwise(found["runs"]["rows"]) if pair[1]["model"].startswith("- its student")]
    return "; on 1,000 classes or texts, healed under the same limit of bytes, its student is " + ", ".join(
        f"{'ahead of' if student['quality'] > seed['quality'] else 'behind'} {seed['model']}'s seed "
        f"({100 * student['quality']:.1f} to {100 * seed['quality']:.1f} %)"
        for seed, student in pairs
    )


def _of_training(found: Figures) -> str:
    """Compare the small classifier healed with rounded."""
    if "training" not in found:
        return ""
    run, rounded = found["training"]["runs"][0], found["training"]["rounded"]
    return (
        f"; a small classifier in {run['bytes'] / 1000:.0f} KB is right in {100 * run['quality']:.1f} % healed for "
        f"{training.STEPS} steps, in {100 * rounded['quality']:.1f} % rounded"
    )


def _of_ratio(found: Figures) -> str:
    """Compare methods on one model at one ratio."""
    model = next(model for model in found["models"] if model["model"] == "magika")
    said = {ratio.CALIBRATED: "calibrated", ratio.SEED: "without data", ratio.PUBLISHED: "by the published method"}
    rows = {row["method"]: row for row in model["rows"] if row["setting"] == "16x"}
    shown = [f"{rows[method]['agreement']:.3f} {words}" for method, words in said.items()]
    return (
        "**quantizing and entropy-coding the weights in place of keeping components** (agreement with the "
        f"original at 16x on {ratio.TITLES[model['model']]}, nothing trained: {', '.join(shown)});"
    )


def _of_published(found: Figures, trials: Figures) -> str:
    """Say what a start is worth where there is a fine-tune."""
    random, noise = found["controls"][1], found["ablation"][1]
    storage = next(row for row in found["storage"] if row["components"] == published.KEPT)
    integers = storage["integers"]
    of_resnet = [row["quality"] for row in trials["controls"][1:3]]
    return (
        "**what of the weights a fine-tune starts from, where there is one** (the published method's seed of "
        f"{noise['bytes'] / 1000:.0f} KB is right in {_percent(noise['before'])} as it is; after {found['tune_steps']} "
        f"steps with labels in {_percent(noise['after'])}, integers of {integers['bytes'] / 1000:.0f} KB in "
        f"{_percent(integers['after'])}, random weights in {_percent(random['after'])}; ResNet-50 in the trials: "
        f"{100 * of_resnet[0]:.1f} from the published seed, {100 * of_resnet[1]:.1f} % from random weights);"
    )


def _without_effect(found: Figures) -> str:
    """List what was thought to matter and doesn't."""
    said = []
    if "published" in found:
        components, noise = found["published"]["ablation"]
        said.append(
            f"the noise of the published method ({_percent(components['after'])} after the fine-tune without it, "
            f"{_percent(noise['after'])} with it) and its sparsity"
        )
    if "times" in found:
        row = found["times"]["rows"][-1]
        said.append(
            f"a GPU for assembly ({row['title']}'s weights take {row['integers']['assemble_s']:.1f} s on one core, "
            f"{row['published_s'][1]:.0f} s as published)"
        )
    if "transfer" in found:
        last = {row["title"]: list(row["accuracy"].values())[-1] for row in found["transfer"]["rows"]}
        said.append(
            f"a meta-learned start ({100 * last[transfer.META]:.1f} % on another script, an ordinary seed "
            f"{100 * last[transfer.SEED]:.1f} %)"
        )
    said.append("whether the network is a CNN or a transformer")
    return f"What doesn't: {', '.join(said[:-1])}{', and ' if said[:-1] else ''}{said[-1]}."


def _percent(found: Figures) -> str:
    return f"{100 * found['accuracy']:.1f} %"


def _is_there(name: str, found: dict[str, Figures]) -> bool:
    return name in found or DERIVED.get(name) in found
