"""Refuse options that contradict each other, before any work is done."""

from __future__ import annotations

from seed_exporter.evaluate.damage import metric_of
from seed_exporter.quantize.effort import EFFORTS
from seed_exporter.quantize.methods import METHODS
from seed_exporter.results import Options
from seed_exporter.targets import AUTO, FP32, TARGETS, WORDS
from seed_runtime.errors import UsageError


def check_options(options: Options) -> None:
    """Return if an export can do what the options say together.

    Raises:
        UsageError: it can't; the line says which to leave out.
        InputError: the module of the user's metric can't be imported.
    """
    if options.method not in METHODS:
        raise UsageError(f"no method is called {options.method!r}; use one of {', '.join(METHODS)}")
    method = METHODS[options.method]
    goals = {"--target": options.target, "--size": options.size, "--quality": options.quality}
    given = [name for name, value in goals.items() if value is not None]
    if given == ["--target", "--size"]:
        raise UsageError("--target and --size say the same thing twice; give one of them")
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} contradict each other: a seed is as small as a quality allows, or as good as a "
            f"size allows; give one of them"
        )
    if not method.has_sizes and given:
        raise UsageError(f"--method {options.method} has the size it has; leave out {given[0]}")
    if not method.has_quality and options.quality is not None:
        raise UsageError(f"--method {options.method} knows sizes only; give --target or --size in place of --quality")
    if options.quality is not None and not 0 < options.quality <= 1:
        raise UsageError(f"a quality is above 0 and at most 1, as in --quality 0.99; {options.quality:g} is none")
    if options.base and options.heal is not None:
        raise UsageError("--heal trains all weights anew, and little of a base would be left; leave out one of them")
    check_target(options)
    if options.heal is not None:
        _check_healing(options)
    if options.resume is not None and options.heal is None:
        raise UsageError("--resume goes on with a training; add --heal data.npz")
    if options.teacher is not None and options.heal is None:
        raise UsageError("a teacher is learned from on inputs; give heal=data.npz as well")
    if options.draw is not None and options.heal is None:
        raise UsageError("what is drawn to heal on needs other inputs that judge it; give heal=data.npz as well")
    if options.heal_settings is not None and options.heal is None:
        raise UsageError("settings of healing are of use with data to heal on; give heal=data.npz as well")
    if options.effort not in EFFORTS:
        raise UsageError(f"--effort is {min(EFFORTS)} to {max(EFFORTS)}; {options.effort} is none")
    if options.time_limit is not None and not options.time_limit > 0:
        raise UsageError("--time-limit is a time such as 10m or 90s, more than 0")
    if options.metric is not None:
        metric_of(options.metric)


def check_target(options: Options) -> None:
    """Return if an export can do what the options say together with their dtype.

    Raises:
        UsageError: it can't; the line says why, and after a semicolon which to leave out.
    """
    if options.dtype not in TARGETS:
        raise UsageError(f"no dtype is called {options.dtype!r}; use one of {', '.join((*WORDS, AUTO))}")
    if options.dtype == FP32.name:
        return
    dtype = f"--dtype {options.dtype}"
    if not METHODS[options.method].heals:
        words = ", ".join(word for word, method in METHODS.items() if method.heals)
        raise UsageError(f"{dtype} stores what --method {words} rounds; leave out --method {options.method} or --dtype")
    if options.finetune_graph:
        raise UsageError(f"--finetune-graph trains floats, and {dtype} has none to train; leave out one of them")
    if options.base:
        raise UsageError(f"--base codes what floats differ by; leave out --base or {dtype}")
    if options.heal is not None and "factors" in TARGETS[options.dtype].restricted:
        raise UsageError(f"--heal trains steps that {dtype} has no place for; leave out one of them")


def _check_healing(options: Options) -> None:
    if not METHODS[options.method].heals:
        heals = ", ".join(word for word, method in METHODS.items() if method.heals)
        raise UsageError(f"--heal trains what --method {heals} codes; leave out --method {options.method} or --heal")
    if options.quality is not None:
        raise UsageError(
            "--heal reaches a size, with as little damage as it can; give --target or --size for --quality"
        )
    if options.target is None and options.size is None:
        raise UsageError("--heal reaches a size; give it one, such as --target 20x or --size 160KB")
