"""Take one real model the whole way: Magika, which finds a file's type from its bytes, as a seed.

The demo exports the ONNX file of the PyPI wheel that `make demo` downloaded, runs the seed as a device would, under a
memory limit, on real files, and prints the outputs of the original and of the seed side by side. At its end it draws a
line of text, and asks a ready seed of the zoo, PP-OCR's direction classifier, whether the line is upside down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODEL = "magika/models/standard_v3_3/"
"""The model's folder within the wheel."""
BLOCK = 4096
"""Bytes at both ends of a file from which white space is stripped [B]."""
HALF = 1024
"""Bytes that the model reads at each end of what is left [B]."""
PADDING = 256
"""The model's input where a file has no more bytes."""
LIMIT = "96MB"
"""Memory limit of the process that runs the seed."""
FILES = ("README.md", "pyproject.toml", "Makefile", "demo/demo.py", ".ci/run", "LICENSE")
"""Files whose types are asked for."""
RECIPE = "ppocr-direction"
"""The recipe of the zoo at the end."""
LINE = "Which way is up?"
"""Text of the pictures."""
WIDTH = 46
"""Width of the longest bar [characters]."""


def main() -> None:
    """Export, check, time and run the model, and print what happens."""
    cache = Path(os.environ.get("SEED_DEMO_CACHE", ROOT / ".cache/demo"))
    wheel = next(iter(sorted(cache.glob("magika-*.whl"))), None)
    if wheel is None:
        sys.exit("the model is missing; download it with: make demo")
    with zipfile.ZipFile(wheel) as archive:
        model = cache / "magika.onnx"
        model.write_bytes(archive.read(MODEL + "model.onnx"))
        labels = json.loads(archive.read(MODEL + "config.min.json"))["target_labels_space"]

    files = [*(ROOT / name for name in FILES), wheel]
    inputs = cache / "files.npz"
    # One axis more than the model's input has: its first axis counts calls.
    np.savez(inputs, bytes=np.stack([features(path.read_bytes())[None] for path in files]))

    print(
        f"1. Export {model.name}, {megabytes(model.stat().st_size)}, to a seed: "
        "seed-export magika.onnx --calib files.npz -o magika.seed"
    )
    seed = cache / "magika.seed"
    began = time.perf_counter()
    exported = call("seed_exporter.cli", str(model), "-o", str(seed), "--calib", str(inputs), "--json")
    took = time.perf_counter() - began
    print(bar("magika.onnx", model.stat().st_size, model.stat().st_size))
    print(bar("magika.seed", exported["bytes"], model.stat().st_size))
    print(
        f"   {exported['ratio']:.1f}x smaller than the weights, {exported['bits_per_weight']:.2f} bits each; "
        f"{took:.1f} s with all checks\n"
    )

    print(f"2. Check it as a device would: seed-run magika.seed --verify --max-memory {LIMIT}")
    verdict = call("seed_runtime.cli", str(seed), "--verify", "--max-memory", LIMIT, "--json")
    print(f"   digests and golden sample: {'ok' if verdict['ok'] else 'FAILED'}, sha256 {verdict['digest'][:16]}...\n")

    print(f"3. Assemble and time it: seed-run magika.seed --bench --max-memory {LIMIT}")
    timing = call("seed_runtime.cli", str(seed), "--bench", "--max-memory", LIMIT, "--json")
    latency = timing["latency_ms"]
    print(
        f"   assembled in {timing['assemble_s']:.2f} s; one file takes {latency['p50']:.1f} ms "
        f"(99 % within {latency['p99']:.1f} ms); the whole process peaked at {timing['peak_rss_mib']:.0f} MiB\n"
    )

    print(f"4. Run both on real files: seed-run magika.seed --input files.npz --max-memory {LIMIT}")
    results = cache / "results.npz"
    call("seed_runtime.cli", str(seed), "--input", str(inputs), "--output", str(results), "--max-memory", LIMIT)
    with np.load(results) as arrays:
        ours = next(iter(arrays.values())).reshape(len(files), -1)
    theirs = original(model, inputs)
    print(f"   {'file':32}{'original':>22}{'seed':>22}")
    for path, before, after in zip(files, theirs, ours, strict=True):
        print(f"   {path.name[:31]:32}{best_label(before, labels):>22}{best_label(after, labels):>22}")
    same = int((theirs.argmax(1) == ours.argmax(1)).sum())
    print(f"   the same type for {same} of {len(files)} files; largest difference {np.abs(theirs - ours).max():.4f}")
    if same != len(files):
        sys.exit("the seed gives other types than the original")
    ask_about_pictures(cache)


def ask_about_pictures(cache: Path) -> None:
    """Make a ready seed by a recipe, and print its answers on two pictures beside those of the original."""
    from seed_exporter.zoo.prepare import prepare
    from seed_exporter.zoo.registry import find

    # What is downloaded and unpacked stays in the demo's folder.
    os.environ["XDG_CACHE_HOME"] = str(cache)
    seed, source = cache / "direction.seed", cache / "direction"
    source.mkdir(exist_ok=True)
    pictures = draw(cache)
    names = " ".join(path.name for path in pictures)
    print(f"\n5. Ask a ready seed about pictures: seed-export zoo:{RECIPE} -o direction.seed")
    print(f"                                    seed-run direction.seed {names}")
    exported = call("seed_exporter.cli", f"zoo:{RECIPE}", "-o", str(seed), "--effort", "1", "--json")
    print(f"   {exported['bytes'] / 1e3:.0f} KB, {exported['ratio']:.1f}x smaller than the weights")
    ours = call("seed_runtime.cli", str(seed), *map(str, pictures), "--json")["answers"]
    theirs = original_answers(prepare(find(RECIPE), source, lambda line: None).model, seed, pictures)
    print(f"   {'picture':32}{'original':>22}{'seed':>22}")
    for path, before, after in zip(pictures, theirs, ours, strict=True):
        print(f"   {path.name:32}{first_label(before):>22}{first_label(after):>22}")


def draw(cache: Path) -> list[Path]:
    """Write a picture of a line of text, and the same turned by 180 degrees; return their paths."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(30)
    picture = Image.new("RGB", (round(font.getlength(LINE)) + 20, 48), "white")
    ImageDraw.Draw(picture).text((10, 4), LINE, fill="black", font=font)
    paths = [cache / "line.png", cache / "turned.png"]
    for path, degrees in zip(paths, (0, 180), strict=True):
        picture.rotate(degrees).save(path)
    return paths


def original_answers(model: Path, seed: Path, pictures: list[Path]) -> list[Any]:
    """Ask the original model about pictures, with the seed's steps before and behind it."""
    import seed_runtime
    from seed_runtime import backends, processing

    backends.get().load()  # without its telemetry
    import onnxruntime

    session, steps = onnxruntime.InferenceSession(model), seed_runtime.open(seed).processing()
    assert steps is not None
    names = [output.name for output in session.get_outputs()]
    found = []
    for path in pictures:
        sample = processing.prepare(steps, (processing.Item(processing.PICTURE, path.name, path),))
        answer = processing.answer(steps, sample, lambda feeds: dict(zip(names, session.run(None, feeds), strict=True)))
        found.append(answer.as_json())
    return found


def first_label(answer: Any) -> str:
    """Write the first label of an answer, and its score in percent."""
    label = answer["outputs"][0]["labels"][0]
    return f"{label['label']} {100 * label['score']:.1f} %"


def features(data: bytes) -> np.ndarray:
    """Return the model's input for a file with this content, `(2048,)` int32."""
    start, end = data[:BLOCK].lstrip()[:HALF], data[-BLOCK:].rstrip()[-HALF:]
    row = np.full(2 * HALF, PADDING, np.int32)
    row[: len(start)] = np.frombuffer(start, np.uint8)
    row[2 * HALF - len(end) :] = np.frombuffer(end, np.uint8)
    return row


def original(model: Path, inputs: Path) -> np.ndarray:
    """Run the original model on a file of inputs, and return its scores, `(files, types)`."""
    from seed_runtime import backends

    backends.get().load()  # without its telemetry
    import onnxruntime

    with np.load(inputs) as arrays:
        session = onnxruntime.InferenceSession(model)
        return np.concatenate([session.run(None, {"bytes": call})[0] for call in arrays["bytes"]])


def call(module: str, *arguments: str) -> Any:
    """Run a module as a command in a process of its own; return the JSON that it printed with --json, else None."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout) if "--json" in arguments else None


def bar(name: str, size: int, largest: int) -> str:
    """Draw a size as one line of a bar chart; the largest size has the full width."""
    return f"   {name:14}{'█' * max(1, round(WIDTH * size / largest)):{WIDTH}} {megabytes(size):>8}"


def megabytes(size: int) -> str:
    """Write a size in bytes in MB."""
    return f"{size / 1e6:.2f} MB"


def best_label(scores: np.ndarray, labels: list[str]) -> str:
    """Write the label with the best score, and the score in percent."""
    best = int(scores.argmax())
    return f"{labels[best]} {100 * scores[best]:.1f} %"


if __name__ == "__main__":
    main()
