"""Measure the memory of a fine-tune under its limits, and that of MNN and torch with the same job in the same run.

A job is a tier of a network of 96 x 96 pixels on 64 pictures of Tux Paint's stamps, four steps of 32 pictures.
`seed-run --fine-tune` runs in an environment of only NumPy, ONNX Runtime and the runtime; each peer in a process that
imports nothing else; all on one thread. VmHWM is read when a process ends. A limit that can't be kept must be refused
with exit code 14.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import chart, finetune_peers, measure
from bench.measure import Figures, Goal
from bench.memory import BUDGET_EXIT, Outcome, launch, lean_environment
from seed_exporter.pipeline import export
from seed_exporter.results import Options

SIDE, COUNT, BATCH, STEPS, THREADS = 96, 64, 32, 4, 1
CLASSES = 1000
LIMITS: Final = {"head": 128, "small": 160, "full": 224}
"""Limit of each tier [MB]."""
IMPOSSIBLE = 64
"""A limit in which no tier fits [MB]."""
OF_MNN, OF_TORCH = 0.6, 0.3
"""Shares of the peers' peaks that a fine-tune may take."""
MB = 1e6
NO_GAIN = 15
"""Exit code of a fine-tune after which nothing got better."""


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    goals: list[Goal] = []
    with measure.scratch() as folder:
        python = lean_environment(folder / "lean")
        data = _pictures(folder / "data.npz")
        for title, files in _networks(folder, quick).items():
            for mode, limit in LIMITS.items():
                measure.note(f"finetune_memory: {title}: {mode}")
                row = {"title": title, "mode": mode, "limit": limit}
                row |= _tuned(python, files["seed"], data, mode, limit, folder)
                for peer in ("mnn", "torch"):
                    row[peer] = _peer(peer, files, data, mode, BATCH, folder)
                    row[f"{peer}_few"] = _peer(peer, files, data, mode, row["micro"], folder)
                measure.say(f"{title}, {mode}: {row}")
                rows.append(row)
                goals += _goals(row)
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _goals(row: Figures) -> list[Goal]:
    name, peak = f"{row['title']}, {row['mode']}", row["peak"]
    return [
        Goal(f"{name}: highest resident size", peak, row["limit"], "MB"),
        Goal(f"{name}: of MNN's", peak / row["mnn"], OF_MNN, ""),
        Goal(f"{name}: of torch's", peak / row["torch"], OF_TORCH, ""),
        Goal(
            f"{name}: exit code in {IMPOSSIBLE} MB is {BUDGET_EXIT}",
            float(row["refused"] == BUDGET_EXIT),
            1,
            "",
            least=True,
        ),
    ]


def _networks(folder: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Write each network as a seed, for torch and for MNN."""
    import torch

    from bench.claims.models.mobilenetv2 import MobileNetV2
    from bench.public import cache_folder, efflite0
    from bench.public.fetch import pypi

    torch.manual_seed(0)
    networks = {"EfficientNet-lite0": efflite0.network(cache_folder())}
    if not quick:
        networks["MobileNetV2"] = MobileNetV2(CLASSES, 1.0)
    found: dict[str, dict[str, Any]] = {}
    for number, (title, network) in enumerate(networks.items()):
        paths = {kind: folder / f"{number}.{kind}" for kind in ("onnx", "seed", "torch", "mnn")}
        torch.save(network, paths["torch"])
        efflite0.write_onnx(network, paths["onnx"], SIDE)
        export(paths["onnx"], output=paths["seed"], options=Options(method="lossless", finetune_graph=True))
        _convert(paths["onnx"], paths["mnn"])
        places = [str(Path(__file__).parents[1]), str(pypi(cache_folder(), *efflite0.CODE))]
        found[title] = {**paths, "import_from": places}
    return found


def _convert(onnx: Path, mnn: Path) -> None:
    """Convert a model for training. MNN's own command would install a client that reports to its makers."""
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(mnn), "--forTraining"]
    code = f"import _tools; _tools.mnnconvert({words!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _pictures(path: Path) -> Path:
    from PIL import Image

    from bench.public import cache_folder, photos
    from bench.public.efflite0 import normalised

    photos.fetch_all(cache_folder())
    # All views of the first stamps: of each class some must be held out.
    views = sorted(photos.stamp_views(cache_folder()), key=lambda view: view.labels[0])[:COUNT]
    small = [np.asarray(Image.fromarray(view.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for view in views]
    np.savez(
        path, image=np.stack([normalised(image) for image in small]), labels=np.array([v.labels[0] for v in views])
    )
    return path


def _tuned(python: Path, seed: Path, data: Path, mode: str, limit: int, folder: Path) -> Figures:
    """Fine-tune under the limit, and under one that is too small."""

    def tune(*arguments: str) -> Outcome:
        words = ["--fine-tune", data, "--mode", mode, "--steps", STEPS, "--threads", THREADS, "--json"]
        outcome = launch(python, [seed, *words, "-o", folder / "tuned.seed", *arguments], folder)
        (folder / "tuned.seed").unlink(missing_ok=True)
        return outcome

    kept, refused = (tune("--max-memory", f"{size}MB") for size in (limit, IMPOSSIBLE))
    if kept.exit_code not in (0, NO_GAIN):
        raise RuntimeError(f"seed-run ended with {kept.exit_code}: {kept.complaint.strip()}")
    (tier,) = json.loads(kept.output)["tiers"]
    return {
        "peak": kept.peak / MB,
        "micro": tier["micro_batch"],
        "refused": refused.exit_code,
    }


def _peer(peer: str, files: dict[str, Any], data: Path, mode: str, micro: int, folder: Path) -> float:
    """Return a peer's peak [MB]."""
    job = folder / "job.json"
    job.write_text(json.dumps(
        {"data": str(data), "torch": str(files["torch"]), "mnn": str(files["mnn"]), "mode": mode, "batch": BATCH,
         "micro": micro, "steps": STEPS, "threads": THREADS, "classes": CLASSES, "import_from": files["import_from"]}
    ))  # fmt: skip
    done = subprocess.run([sys.executable, finetune_peers.__file__, peer, str(job)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{peer} failed: {done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    if not np.isfinite(figures["losses"]).all():
        raise RuntimeError(f"{peer} did not train: losses are {figures['losses']}")
    return float(figures["peak"]) / MB


def table(figures: Figures) -> list[str]:
    head = (
        "| network | mode | limit | peak | samples at once "
        f"| MNN, {BATCH} at once | torch, {BATCH} at once | MNN, as few at once as the seed | torch, as few |"
    )
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for row in figures["rows"]:
        peers = [row[name] for name in ("mnn", "torch", "mnn_few", "torch_few")]
        shown = " | ".join(f"{peak:.0f} MB ({row['peak'] / peak:.2f})" for peak in peers)
        lines.append(
            f"| {row['title']} | `{row['mode']}` | {row['limit']} MB | **{row['peak']:.1f} MB** | {row['micro']} "
            f"| {shown} |"
        )
    return lines


def charts(figures: Figures) -> dict[str, str]:
    groups = {
        f"{row['title']}, {row['mode']}": {
            "seed under its limit": row["peak"], "MNN": row["mnn"], "torch": row["torch"]
        }
        for row in figures["rows"]
    }  # fmt: skip
    return {"finetune_memory": chart.bars("Memory of a fine-tune, batches of 32, MB", groups, "MB")}
