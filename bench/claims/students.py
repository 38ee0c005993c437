"""Controls: small networks that a seed has to beat at equal bytes, and what trains them with a price on their bits.

A student learns the same teacher's answers in the same time; `bench.claims.heal` then takes it to the seed's bytes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import torch
from torch import Tensor, nn

from . import models
from .models.resnet50 import convolution

# Chosen near the bytes of the seed beside them at 8 bits a weight; healing then takes them to equal bytes.
SETTINGS: dict[str, dict[str, Any]] = {
    "small-vision": {"channels": (24, 48, 96, 96, 128, 128, 192, 192)},
    "small-text": {"words": 30522, "width": 64, "layers": 1, "heads": 2, "inner": 128, "segments": 0},
    "looped-language": {"words": 50257, "positions": 1024, "width": 256, "heads": 4, "rounds": 6},
}
TINY: dict[str, dict[str, Any]] = {
    "small-vision": {"channels": (4, 8)},
    "small-text": {"width": 8, "layers": 1, "heads": 1, "inner": 16, "segments": 0},
    "looped-language": {"positions": 32, "width": 16, "heads": 2, "rounds": 2},
}
KINDS = {"small-vision": "glyphs", "small-text": "sections", "looped-language": "english"}


class SmallVision(nn.Module):
    """Depthwise-separable convolutions, every second one halving: images `(n, 3, 64, 64)` to logits."""

    def __init__(self, classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, channels[0], 3, 2), nn.ReLU()]
        for index, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            depth = nn.Conv2d(inputs, inputs, 3, 1 + index % 2, 1, groups=inputs, bias=False)
            layers += [depth, nn.BatchNorm2d(inputs), nn.ReLU(), convolution(inputs, outputs, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(image).mean((2, 3)))
        return logits


class LoopedLanguage(nn.Module):
    """One block run several times, embeddings tied: token ids to logits of the next token.

    Source: Dehghani et al. 2019 (universal transformers), without its halting.
    """

    def __init__(self, words: int, positions: int, width: int, heads: int, rounds: int) -> None:
        super().__init__()
        self.core = models.gpt2.GPT2(words, positions, width, 1, heads)
        self.rounds = nn.Parameter(torch.zeros(rounds, width))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.core.words(input_ids) + self.core.positions.weight[: input_ids.shape[1]]
        for index in range(len(self.rounds)):
            x = self.core.blocks[0](x + self.rounds[index])
        return torch.matmul(self.core.norm(x), self.core.words.weight.T)


def build(name: str, settings: dict[str, Any]) -> nn.Module:
    """Return a student with random weights."""
    makers: dict[str, Any] = {
        "small-vision": SmallVision, "small-text": models.encoders.Classifier, "looped-language": LoopedLanguage,
    }  # fmt: skip
    module: nn.Module = makers[name](**settings)
    return module


def main(arguments: list[str] | None = None) -> int:
    """Train a student by its teacher's answers."""
    from .teachers import options_of, run_of, say

    parser = argparse.ArgumentParser(prog="python -m bench.claims.students", description=__doc__)
    parser.add_argument("name", choices=SETTINGS)
    options = options_of(parser, arguments)
    settings = (TINY if options.tiny else SETTINGS)[options.name]
    return say(run_of(options), settings, KINDS[options.name])


if __name__ == "__main__":
    sys.exit(main())
