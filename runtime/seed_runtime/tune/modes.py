"""Settings that are possible, and the tiers of a mode that a model and its samples allow."""

from __future__ import annotations

from typing import Final

from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError, UnsupportedError, UsageError
from seed_runtime.seed import Seed
from seed_runtime.skeletons.training import TrainingInfo
from seed_runtime.tune.optimizers import OPTIMIZERS
from seed_runtime.tune.records import AUTO, BN, HEAD, SAMPLES_LEAST, SMALL, TIERS, Settings
from seed_runtime.tune.samples import Samples
from seed_runtime.tune.targets import DIRECTION, Task, count_classes

_RATE_END: Final = 1e3
"""Rates are below."""


def check_settings(settings: Settings) -> None:
    """Raise UsageError for settings that contradict each other."""
    if settings.mode not in (AUTO, *TIERS):
        raise UsageError(f"no mode is called {settings.mode!r}; use one of {', '.join((AUTO, *TIERS))}")
    if settings.optimizer not in OPTIMIZERS:
        raise UsageError(f"no optimizer is called {settings.optimizer!r}; use one of {', '.join(OPTIMIZERS)}")
    for name, value in (("--steps", settings.steps), ("batch", settings.batch)):
        if value < 1:
            raise UsageError(f"{name} is a number from 1 on; {value} is below")
    if settings.rng_seed < 0:
        raise UsageError(f"--rng-seed is a number from 0 on; {settings.rng_seed} is below")
    if settings.rate is not None and not 0 < settings.rate < _RATE_END:
        raise UsageError(
            f"--lr is a number above 0 and below {_RATE_END:g}, such as 0.001; {settings.rate:g} is outside"
        )


def choose_tiers(settings: Settings, info: TrainingInfo, samples: Samples, task: Task) -> list[str]:
    """Return the tiers of the mode that model and samples allow, in order; in AUTO others are left out.

    Raises:
        InputError: the samples allow none.
        UnsupportedError: the model allows none.
    """
    problems = {tier: _problem(tier, info, samples, task) for tier in TIERS}
    if settings.mode != AUTO:
        if (problem := problems[settings.mode]) is not None:
            raise problem
        return [settings.mode]
    tiers = [tier for tier in TIERS if problems[tier] is None]
    if not tiers:
        raise next(each for each in (problems[SMALL], problems[BN]) if each is not None)
    for tier in TIERS:
        if isinstance(problem := problems[tier], InputError):
            settings.notice(f"{tier} is left out: {problem}")
    return tiers


def _problem(tier: str, info: TrainingInfo, samples: Samples, task: Task) -> InputError | UnsupportedError | None:
    """Return why a tier can't be trained, None where it can."""
    if tier == BN and not info.norms:
        return UnsupportedError("this model has no batch norms; train another tier: --mode small")
    if tier == HEAD and not info.has_features:
        return UnsupportedError("this model ends with no linear layer; train another tier: --mode small")
    if tier == HEAD and task.loss == DIRECTION:
        return UnsupportedError("the head is fitted to classes or values, not to cosines; use --mode small")
    if tier != BN and samples.labels is None:
        return InputError(f"training {tier} takes {LABELS!r} beside the inputs; without them there is --mode bn")
    if samples.count < SAMPLES_LEAST[tier]:
        return InputError(
            f"training {tier} takes {SAMPLES_LEAST[tier]} samples, and there are {samples.count}; collect more"
        )
    return None


def class_count(seed: Seed) -> int:
    """Return how many classes the output has that a training graph compares; 2 where each element is a decision."""
    return count_classes(seed.training_info())
