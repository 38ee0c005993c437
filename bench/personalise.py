"""Measure what 100 labelled samples of a font family that nobody saw gain there, and what they cost on other fonts.

A classifier of 20 letters is trained on the training fonts of bench/claims and becomes a seed. Domains are families of
the held-out side: of each package the first one with four faces that have all letters, the first packages by name.
Five pictures of each letter, of two faces, tune the seed by `auto` and by each tier at their defaults; it is judged on
pictures of the other faces, and on all held-out pictures of other families. Draws decide the faces and what is held
out of the samples. Nothing is chosen by what judges. Beside it is the same from random weights.

It needs torch, and the pictures that `python -m bench.claims.data glyphs --out build/claims` draws.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

import seed_exporter
import seed_runtime
from bench import measure
from bench.measure import Figures
from seed_exporter.results import Options
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.seed import Seed
from seed_runtime.tune import Settings, tune
from seed_runtime.tuned_seed import write_tuned

DATA = Path("build/claims")
LETTERS, SAMPLES, FACES, FAMILIES, DRAWS = 20, 5, 4, 3, 3
"""Classes; samples of each; faces that a family has at least; families; draws of each."""
LAST_POINT = 0x180
"""Letters are below: those that most families have."""
MODES = ("auto", "bn", "head", "small", "full")
STARTS = {
    "trained, `--size 32KB`": Options(size=32_000, effort=1, finetune_graph=True),
    "random weights, every bit": Options(method="lossless", finetune_graph=True),
}
JUDGED = 9
"""Pictures of each letter of a face, each moved by up to two pixels, that a domain is judged on."""
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Domain:
    """A family: pictures `(faces, letters, 24, 24)` in [0, 1]."""

    package: str
    family: str
    pictures: np.ndarray


def run(quick: bool = False) -> Figures:
    """Tune on each family and draw.

    Raises:
        FileNotFoundError: the pictures aren't there (`python -m bench.claims.data glyphs --out build/claims`).
    """
    import torch

    from bench.matters import glyphs

    torch.set_num_threads(1)
    chosen = _letters()
    task = glyphs.load_classes(DATA, chosen)
    measure.say(f"a classifier of {len(chosen)} letters, {glyphs.SHORT_STEPS} steps")
    networks = {"trained": glyphs.train(glyphs.network(LETTERS), task, glyphs.SHORT_STEPS, glyphs.TEACHER_RATE)}
    networks["random"] = glyphs.network(LETTERS)
    domains = list(islice(_domains(chosen), 1 if quick else FAMILIES))
    families = _held_families(chosen)
    rows: list[Figures] = []
    with measure.scratch() as folder:
        cache = ModelCache(folder / "cache", CACHE_BYTES)
        for start, options in STARTS.items():
            kind = "random" if start.startswith("random") else "trained"
            path = glyphs.write_onnx(networks[kind], folder / f"{kind}.onnx")
            seed_exporter.export(path, output=folder / f"{kind}.seed", options=options)
            seed = seed_runtime.open(folder / f"{kind}.seed")
            for domain in domains:
                others = families != domain.family
                old = (task.held[0].numpy()[others], task.held[1].numpy()[others])
                for draw in range(1 if quick else DRAWS):
                    samples, judged = _drawn(domain, draw)
                    before = [_accuracy(seed, *part, cache) for part in (judged, old)]
                    original = [_accuracy_of(networks["trained"], *part) for part in (judged, old)]
                    for mode in MODES:
                        measure.note(f"personalise: {start}, {domain.family}, draw {draw}, {mode}")
                        found = _tuned(seed, samples, mode, draw, folder / "tuned.seed", cache)
                        tuned, size, kept = found
                        after = [_accuracy(tuned, *part, cache) for part in (judged, old)]
                        rows.append(
                            {"start": start, "family": domain.family, "draw": draw, "mode": mode, "kept": kept,
                             "delta": size, "before": before, "after": after, "original": original}
                        )  # fmt: skip
                        measure.say(str(rows[-1]))
    return {"rows": rows, "samples": LETTERS * SAMPLES, "goals": []}


def _letters() -> np.ndarray:
    """Return the classes of 20 letters, evenly spread over those below `LAST_POINT`."""
    from bench.claims.data import glyphs

    points = glyphs.classes()
    found = [at for at, point in enumerate(points) if point < LAST_POINT and unicodedata.category(chr(point))[0] == "L"]
    return np.array(found)[np.linspace(0, len(found) - 1, LETTERS).round().astype(int)]


def _held_families(chosen: np.ndarray) -> np.ndarray:
    """Return the family of each held-out picture of the classes."""
    from bench.claims.data.files import read_arrays

    arrays = read_arrays(DATA / "glyphs-held.npz.xz")
    names = np.array([line.split("\t")[1] for line in str(arrays["fonts"]).split("\n")])
    return names[arrays["font"][np.isin(arrays["y"], chosen)]]


def _domains(chosen: np.ndarray) -> Iterator[Domain]:
    """Yield a family of each package that has one, in the order of packages."""
    from bench.claims.data import archives, fonts, glyphs
    from bench.matters.glyphs import shrunk
    from bench.public import cache_folder

    points = [glyphs.classes()[at] for at in chosen]
    held = defaultdict(set)
    for side, package, family, _ in glyphs.fonts():
        if side == "held":
            held[package].add(family)
    found = archives.archives(cache_folder(), "fonts")
    for package in sorted(held):
        faces = defaultdict(list)
        for face in fonts.faces(package, found[package]):
            if face.family in held[package] and face.points >= set(points):
                faces[face.family].append(face)
        for family in sorted(faces):
            if len(faces[family]) >= FACES:
                pictures = [fonts.images(face, points) for face in faces[family][:FACES]]
                yield Domain(package, family, shrunk(np.stack(pictures)))
                break


def _drawn(domain: Domain, draw: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return samples of two faces, and what judges of the others: pictures and their classes."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(len(domain.pictures))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    return _moved(domain.pictures[halves[0]], SAMPLES, rng, False), _moved(
        domain.pictures[halves[1]], JUDGED, rng, True
    )


def _moved(
    pictures: np.ndarray, count: int, rng: np.random.Generator, of_each_face: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return so many pictures of each letter, or of each letter of each face, moved by up to two pixels."""
    faces, letters = pictures.shape[:2]
    found, labels = [], []
    for letter in range(letters):
        for face in np.repeat(np.arange(faces), count) if of_each_face else rng.integers(0, faces, count):
            found.append(np.roll(pictures[face, letter], rng.integers(-2, 3, 2), (0, 1)))
            labels.append(letter)
    return np.stack(found)[:, None], np.array(labels)


def _tuned(
    seed: Seed, samples: tuple[np.ndarray, np.ndarray], mode: str, draw: int, path: Path, cache: ModelCache
) -> tuple[Seed, int, str]:
    """Return the tuned seed, the bytes of its delta and the tiers that were kept; the seed itself where none was."""
    arrays = dict(zip(("image", "labels"), samples, strict=True))
    found = tune(seed, arrays, Settings(mode=mode, rng_seed=draw, threads=1), cache=cache)
    if not found.tensors:
        return seed, 0, ""
    size = write_tuned(seed, found, path, cache)
    return seed.apply(path), size, ", ".join(each.tier for each in found.tiers if each.kept)


def _accuracy(seed: Seed, images: np.ndarray, labels: np.ndarray, cache: ModelCache) -> float:
    with contextlib.closing(seed.session(threads=1, cache=cache)) as session:
        parts = [session.run({"image": images[at : at + 500]})["logits"] for at in range(0, len(images), 500)]
    return float(np.mean(np.concatenate(parts).argmax(1) == labels))


def _accuracy_of(network: object, images: np.ndarray, labels: np.ndarray) -> float:
    import torch

    with torch.no_grad():
        answers = network(torch.from_numpy(images))  # type: ignore[operator]
    return float(np.mean(answers.numpy().argmax(1) == labels))


def table(figures: Figures) -> list[str]:
    """Return a line for each start, family and mode, with the three draws side by side."""
    lines = [
        "| start | family | mode | this family before | after | other families before | after | kept | delta [B] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[Figures]] = {}
    for row in figures["rows"]:
        groups.setdefault((row["start"], row["family"], row["mode"]), []).append(row)
    for (start, family, mode), rows in groups.items():
        cells = [
            ", ".join(f"{100 * row[when][at]:.1f}" for row in rows) for at in (0, 1) for when in ("before", "after")
        ]
        kept = "; ".join(row["kept"] or "none" for row in rows)
        sizes = ", ".join(f"{row['delta']:,}" for row in rows)
        lines.append(f"| {start} | {family} | `{mode}` | {' | '.join(cells)} | {kept} | {sizes} |")
    return [*lines, "", "Means over families and draws, in points of accuracy:", "", *_means(figures["rows"])]


def _means(rows: list[Figures]) -> list[str]:
    lines = [
        "| start | mode | this family before | change | other families before | change | network before quantization |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for start in STARTS:
        for mode in MODES:
            own = [row for row in rows if (row["start"], row["mode"]) == (start, mode)]
            before, after, original = (
                np.mean([row[of] for row in own], axis=0) for of in ("before", "after", "original")
            )
            gain, others = after - before
            lines.append(
                f"| {start} | `{mode}` | {100 * before[0]:.1f} % | {100 * gain:+.1f} | {100 * before[1]:.1f} % "
                f"| {100 * others:+.1f} | {100 * original[0]:.1f} %, {100 * original[1]:.1f} % |"
            )
    return lines
