"""Metrics that users write: `module:function` of `--metric`, imported from the current folder or Python's path."""

from __future__ import annotations

import importlib
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from seed_runtime.backends import Array
from seed_runtime.errors import InputError

Calls = Sequence[Mapping[str, Array]]
"""Arrays by name, one mapping a call of the model."""

_CONTRACT: Final = (
    "it gets (inputs, original outputs, candidate outputs), each a list of one dict of arrays a call, and returns a "
    "number, smaller is better"
)


def load_function(word: str) -> Callable[[Calls, Calls, Calls], float]:
    """Import a function `module:function`, and return it such that whatever it throws is an InputError.

    Raises:
        InputError: the module can't be imported, or has no such function.
    """
    module_name, _, name = word.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (Exception, SystemExit) as error:  # the user's module may throw anything
        raise InputError(f"--metric {word}: {_place(error)}; it is imported from {here} or PYTHONPATH") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise InputError(f"--metric {word}: {name} is no function; {_CONTRACT}")

    def measure(feeds: Calls, original: Calls, candidate: Calls) -> float:
        try:
            value = float(function(list(feeds), list(original), list(candidate)))
        except (Exception, SystemExit) as error:  # whatever the user's function throws
            raise InputError(f"--metric {word} failed: {_place(error)}; {_CONTRACT}") from error
        if math.isnan(value):
            raise InputError(f"--metric {word} returned NaN; {_CONTRACT}")
        return value

    return measure


def _place(error: BaseException) -> str:
    """Say what was thrown, and the last line of the user's own code that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    if isinstance(error, SyntaxError):
        return text
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, `{own[-1].line}`: {text}" if own else text


def _is_users(frame: Any) -> bool:
    """Return whether a frame is neither of this package nor of an installed one, nor of Python itself."""
    path = Path(frame.filename)
    return path != Path(__file__) and path.exists() and not {"site-packages", "importlib"} & set(path.parts)
