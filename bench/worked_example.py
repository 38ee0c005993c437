"""`python -m bench.worked_example`: data, scores and control of docs/worked-example.md.

The model is PP-OCR's classifier of a text line's direction, and its data are lines of package descriptions in Debian's
fonts: those that calibrate and tune are in eight families, and those that judge in eight others, with other texts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import seed_runtime
from bench.public import MODELS, FetchError, cache_folder, onnx_run, ppcls, textlines

CALIBRATING, CHOOSING, TUNING, JUDGING = 64, 136, 400, 800
"""Lines without labels for the export, with labels for its ratio and for the fine-tune, and of other fonts."""
FULL_WIDTH = 320  # [pixel]
BATCH = 16
DATA_ERROR = 3  # exit code: data or a module are missing


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (FetchError, ModuleNotFoundError, OSError) as error:
        print(f"error: {error}; python -m bench.worked_example --help says what is needed", file=sys.stderr)
        return DATA_ERROR
    return 0


def write_data(folder: Path, tuning: int = TUNING, judging: int = JUDGING) -> None:
    """Write model.onnx, calib.npz, choose.npz, data.npz and held-out.npz.

    Args:
        folder: where they go.
        tuning: lines of data.npz.
        judging: lines of held-out.npz.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache = cache_folder()
    (folder / "model.onnx").write_bytes(MODELS["ppcls"].prepare(cache).read_bytes())
    x, labels = _lines(cache, CALIBRATING + CHOOSING + tuning, "calib")
    calibrate, choose, tune = np.split(np.arange(len(x)), [CALIBRATING, CALIBRATING + CHOOSING])
    np.savez(folder / "calib.npz", x=x[calibrate])
    np.savez(folder / "choose.npz", x=x[choose], labels=labels[choose])
    np.savez(folder / "data.npz", x=x[tune], labels=labels[tune])
    x, labels = _lines(cache, judging, "test")
    np.savez(folder / "held-out.npz", x=x, labels=labels)


def score(seeds: list[Path], data: Path) -> float:
    """Return the share of lines whose direction is right.

    Args:
        seeds: a seed, and those on top of it; or the original, an ONNX file.
        data: as `write_data` writes it.
    """
    with np.load(data) as arrays:
        x, labels = arrays["x"], arrays["labels"]
    batches = [x[at : at + BATCH] for at in range(0, len(x), BATCH)]
    if seeds[0].suffix == ".onnx":
        original = onnx_run(seeds[0])
        parts = [original({"x": batch})[0] for batch in batches]
    else:
        seed = seed_runtime.open(seeds[0])
        for path in seeds[1:]:
            seed = seed.apply(path)
        with seed.session() as session:
            parts = [next(iter(session.run({"x": batch}).values())) for batch in batches]
    return float(np.mean(np.concatenate(parts).argmax(axis=1) == labels))


def write_random(source: Path, target: Path) -> None:
    """Write the model with its weights shuffled within each tensor: same sizes, nothing learned."""
    import onnx
    from onnx import numpy_helper

    model, rng = onnx.load(source), np.random.default_rng(0)
    tensors = [each.attribute[0].t for each in model.graph.node if each.op_type == "Constant"]
    for tensor in [*model.graph.initializer, *tensors]:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and values.dtype == np.float32:
            shuffled = rng.permutation(values.reshape(-1)).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, target)


def _lines(cache: Path, count: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw lines as the task `ppcls` does, but turn each font as often as not: there, a font gives the label away."""
    turned = np.arange(count) // len(textlines.FONTS[split]) % 2
    drawn = textlines.lines(cache, count, split, FULL_WIDTH)
    images = [image[::-1, ::-1] if turn else image for turn, (image, _) in zip(turned, drawn, strict=True)]
    return np.stack([textlines.padded(image, ppcls.WIDTH) for image in images]), turned


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.worked_example",
        description="Data, scores and control of docs/worked-example.md.",
        epilog="The first call needs the network, apt-get and dpkg-deb: python -m bench.public --help.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="write the model, and four files of lines, into a folder")
    data.add_argument("folder", type=Path)
    data.add_argument("--tuning", type=int, default=TUNING, help="lines of data.npz")
    data.add_argument("--judging", type=int, default=JUDGING, help="lines of held-out.npz")
    data.set_defaults(command=lambda options: write_data(options.folder, options.tuning, options.judging))
    judge = commands.add_parser("score", help="score a seed with those on top of it, or an ONNX file, on such lines")
    judge.add_argument("data", type=Path)
    judge.add_argument("seeds", type=Path, nargs="+", metavar="SEED")
    judge.set_defaults(command=lambda options: print(f"{100 * score(options.seeds, options.data):.1f} %"))
    control = commands.add_parser("random", help="write a model whose weights are shuffled")
    control.add_argument("source", type=Path)
    control.add_argument("target", type=Path)
    control.set_defaults(command=lambda options: write_random(options.source, options.target))
    return parser


if __name__ == "__main__":
    sys.exit(main())
