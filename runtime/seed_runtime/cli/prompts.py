"""Options for models that generate text: --prompt, and how its tokens are chosen."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.errors import UsageError

_OPTIONS: Final[dict[str, tuple[str, type, float, float]]] = {
    "max_tokens": ("--max-tokens", int, 1, 1 << 30),
    "temperature": ("--temperature", float, 0, 10),
    "top_k": ("--top-k", int, 0, 1 << 30),
    "top_p": ("--top-p", float, 0, 1),
    "repetition_penalty": ("--repetition-penalty", float, 0.1, 10),
}
"""Flag, type, and least and largest value of each option."""
_HELP: Final = {
    "max_tokens": "most tokens of the answer",
    "temperature": "0 takes the best token each time, larger ones leave more to chance",
    "top_k": "choose among the N best tokens; 0 for all",
    "top_p": "choose among the best tokens whose probabilities sum up to P",
    "repetition_penalty": "above 1, tokens that were there already become less likely",
}


@dataclass(frozen=True)
class Prompted:
    """What a model is to write, and how; None of what is left to the seed."""

    prompt: str
    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    rng_seed: int | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("generating text (defaults: the seed's; --rng-seed makes it repeatable)")
    group.add_argument("--prompt", metavar="TEXT", help="what a model that generates text is asked")
    for name, (flag, kind, _, _) in _OPTIONS.items():
        metavar = "N" if kind is int else "P" if name == "top_p" else "X"
        group.add_argument(flag, metavar=metavar, type=kind, help=_HELP[name])


def prompted(options: argparse.Namespace, action: str) -> Prompted | None:
    """Return what the model is to write; None where nothing is.

    Raises:
        UsageError: the options contradict each other.
    """
    given: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS}
    if options.prompt is None:
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"{_OPTIONS[name][0]} is an option of --prompt; give both, or leave it out")
        return None
    if action != "run":
        raise UsageError(f"--{action.replace('_', '-')} takes no --prompt; leave one of them out")
    for flag, value in (("--input", options.input), ("--output", options.output), ("--text", options.text or None)):
        if value is not None:
            raise UsageError(f"a model that is given a --prompt takes no {flag}; leave one of them out")
    if options.files:
        raise UsageError(f"a model that is given a --prompt takes no {options.files[0]}; leave one of them out")
    for name, value in given.items():
        flag, _, least, most = _OPTIONS[name]
        if value is not None and not least <= value <= most:
            raise UsageError(f"{flag} {value:g} can't be used; give {least:g} to {most:g}")
    if options.rng_seed is not None and options.rng_seed < 0:
        raise UsageError(f"--rng-seed {options.rng_seed} is negative; give 0 or more")
    return Prompted(prompt=options.prompt, rng_seed=options.rng_seed, **given)
