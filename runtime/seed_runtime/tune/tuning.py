"""Train a seed's model on a few samples: tier by tier, each kept only if the held-out part got better."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from seed_runtime.assembly.cache import ModelCache
from seed_runtime.backends import Array
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import GoalNotMetError, InputError, MemoryBudgetError, UnsupportedError, UsageError
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.seed import Seed
from seed_runtime.skeletons.training import FEATURES
from seed_runtime.tune import descent, judge, norms
from seed_runtime.tune.course import Best, Course
from seed_runtime.tune.head import Ridge
from seed_runtime.tune.joined import JoinedModel
from seed_runtime.tune.judge import Judge
from seed_runtime.tune.micro_batches import Budget
from seed_runtime.tune.optimizers import OPTIMIZERS
from seed_runtime.tune.records import (
    AUTO,
    BN,
    FULL,
    HEAD,
    SAMPLES_LEAST,
    SMALL,
    TIERS,
    Score,
    Settings,
    TierResult,
    Tuned,
)
from seed_runtime.tune.rounding import settled
from seed_runtime.tune.samples import Samples, check_samples, split
from seed_runtime.tune.targets import Task

_RATE_END: Final = 1e3
"""Rates are below."""
SMALL_SHARE: Final = 0.5
"""Share of the steps that `small` may take where `full` follows."""


def tune(
    seed: Seed,
    arrays: Mapping[str, Array],
    settings: Settings | None = None,
    *,
    cache: ModelCache | None = None,
    keep: Callable[[Tuned], None] = lambda tuned: None,
) -> Tuned:
    """Train a seed's model; the seed and its assembled copy stay as they are.

    Of each class 15 % of the samples are held out, and say what the result is worth; as many others choose it. What is
    scored is rounded as a delta will hold it. The same seed, samples and settings give the same result on the same
    machine, unless a time limit ends the run.

    Args:
        seed: with a training graph, from a file.
        arrays: inputs by the model's names, samples first, and `labels`: numbers of classes, or floats of the output's
            shape. Without labels only statistics of batch norms are estimated.
        settings: None for the defaults.
        cache: where the model is assembled; None for the user's.
        keep: called with the result so far after each tier that was kept.

    Raises:
        UsageError: the settings contradict each other.
        InputError: the samples can't be used, or are too few.
        UnsupportedError: the seed has no training graph, or the model nothing of what the mode trains.
        MemoryBudgetError: one sample takes more memory than is allowed; no step was taken.
        GoalNotMetError: the time limit was over before anything was scored.
    """
    settings = settings or Settings()
    _check(settings)
    samples = check_samples(arrays, seed.inputs())
    seed.training_graph()
    with (
        seed.assembled(max_memory=settings.max_memory, cache=cache, notice=settings.notice) as folder,
        seed.assembled_weights(cache) as weights,
    ):
        model = JoinedModel(seed, folder, weights, samples, settings.threads, lambda: None)
        return _Tuning(model, samples, settings, keep).run()


def _check(settings: Settings) -> None:
    if settings.mode not in (AUTO, *TIERS):
        raise UsageError(f"no mode is called {settings.mode!r}; use one of {', '.join((AUTO, *TIERS))}")
    if settings.optimizer not in OPTIMIZERS:
        raise UsageError(f"no optimizer is called {settings.optimizer!r}; use one of {', '.join(OPTIMIZERS)}")
    if settings.steps < 1 or settings.batch < 1:
        raise UsageError("steps and batches are numbers from 1 on")
    if settings.rng_seed < 0:
        raise UsageError(f"--rng-seed is a number from 0 on; {settings.rng_seed} is below")
    if settings.rate is not None and not 0 < settings.rate < _RATE_END:
        raise UsageError(
            f"--lr is a number above 0 and below {_RATE_END:g}, such as 0.001; {settings.rate:g} is outside"
        )


_Scoring = Callable[[Mapping[str, Array]], Score]
"""Computes the score with some values of tensors in place of the learned ones."""


@dataclass
class _State:
    """What the run has so far."""

    before: Score | None = None
    after: Score | None = None
    chosen: Score | None = None
    """Score of what was learned so far on the samples that choose."""
    quantization_steps: dict[str, float] = field(default_factory=dict)
    mode: str = ""
    steps: int = 0
    tiers: list[TierResult] = field(default_factory=list)


class _Tuning:
    def __init__(self, model: JoinedModel, samples: Samples, settings: Settings, keep: Callable[[Tuned], None]) -> None:
        self._model, self._samples, self._settings, self._keep = model, samples, settings, keep
        self._task = Task(model.info, samples.labels, settings.loss)
        classes = samples.labels if self._task.is_indexed and samples.labels is not None else None
        if classes is not None and classes.ndim > 1:
            classes = None  # a sample has many
        self._tiers = self._chosen_tiers()
        rng = np.random.default_rng(settings.rng_seed)
        self._split = split(samples, classes, rng)
        if classes is not None and (missing := self._task.classes - len(np.unique(classes))) > 0:
            settings.notice(
                f"{LABELS} have no sample of {missing} of the model's {self._task.classes} classes: it may forget them"
            )
        self._budget, self._course = Budget(settings.max_memory, cgroup_limit()), Course(settings)
        self._state = _State()

    def run(self) -> Tuned:
        """Climb the tiers; Ctrl-C ends it with the best so far."""
        state, interruption = self._state, None
        try:
            self._climb_all()
        except Exception:
            raise
        except BaseException as error:
            if state.before is None:
                raise
            interruption = error
        return self._result(interruption)

    def _result(self, interruption: BaseException | None = None) -> Tuned:
        state = self._state
        assert state.before is not None
        assert state.after is not None
        holes = self._model.hole_of
        metric = self._task.metric if self._samples.labels is not None else "fit of batch norms"
        return Tuned(
            tensors={holes[name]: value for name, value in self._model.values.items()},
            quantization_steps={holes[name]: step for name, step in state.quantization_steps.items()},
            mode=state.mode,
            metric=metric,
            before=state.before,
            after=state.after,
            held_out=len(self._split.held),
            tiers=tuple(state.tiers),
            steps=state.steps,
            peak=self._budget.peak,
            interruption=interruption,
        )

    def _climb_all(self) -> None:
        too_large: MemoryBudgetError | None = None
        for tier in self._tiers:
            if self._course.is_over:
                self._settings.notice(f"the time is up before {tier}")
                break
            if tier in (SMALL, FULL) and self._state.steps >= self._settings.steps:
                self._settings.notice(f"no step is left for {tier}; give more --steps")
                break
            try:
                kept = self._climb(tier)
            except MemoryBudgetError as error:
                too_large = error
                self._settings.notice(f"{tier} is left out: {error}")
                continue
            if not kept and tier == SMALL:
                break
        if too_large is not None and not self._state.tiers:
            raise too_large
        if self._state.before is None:
            raise GoalNotMetError("nothing was scored: the time was up, or no tier fits; give more time")

    def _chosen_tiers(self) -> list[str]:
        """Return the tiers of the mode that model and samples allow, in order; in AUTO others are left out."""
        problems = {tier: self._problem(tier) for tier in TIERS}
        if self._settings.mode != AUTO:
            if (problem := problems[self._settings.mode]) is not None:
                raise problem
            return [self._settings.mode]
        tiers = [tier for tier in TIERS if problems[tier] is None]
        if not tiers:
            raise next(each for each in (problems[SMALL], problems[BN]) if each is not None)
        for tier in TIERS:
            if isinstance(problem := problems[tier], InputError):
                self._settings.notice(f"{tier} is left out: {problem}")
        return tiers

    def _problem(self, tier: str) -> InputError | UnsupportedError | None:
        """Return why a tier can't be trained, None where it can."""
        info, count = self._model.info, self._samples.count
        if tier == BN and not info.norms:
            return UnsupportedError("this model has no batch norms; train another tier: --mode small")
        if tier == HEAD and not info.has_features:
            return UnsupportedError("this model ends with no linear layer; train another tier: --mode small")
        if tier == HEAD and self._task.loss == "cosine":
            return UnsupportedError("the head is fitted to classes or values, not to cosines; use --mode small")
        if tier != BN and self._samples.labels is None:
            return InputError(f"training {tier} takes {LABELS!r} beside the inputs; without them there is --mode bn")
        if count < SAMPLES_LEAST[tier]:
            return InputError(
                f"training {tier} takes {SAMPLES_LEAST[tier]} samples, and there are {count}; collect more"
            )
        return None

    def _climb(self, tier: str) -> bool:
        """Train one tier; return whether its values were kept."""
        self._course.begin(tier)
        if tier == BN:
            best, steps, micro = self._estimate_norms()
        elif tier == HEAD:
            fitted = self._fit_head()
            if fitted is None:
                return False
            best, steps, micro = fitted
        else:
            best, steps, micro = self._descend(tier)
        state = self._state
        kept = bool(best.values)
        state.tiers.append(TierResult(tier, best.score, kept, steps, micro, self._course.seconds))
        if kept:
            self._keep(self._result())
        return kept

    @contextlib.contextmanager
    def _keeping(self, tier: str, choose: _Scoring, confirm: _Scoring) -> Iterator[Best]:
        """Give the best so far to a tier, and take from it what got better, also where it is interrupted.

        Args:
            tier: its name.
            choose: scores values on the samples that choose.
            confirm: scores them on what was held out.
        """
        state = self._state
        if state.before is None:
            state.before, state.chosen = confirm({}), choose({})
            state.after = state.before
        assert state.after is not None
        assert state.chosen is not None
        self._course.best = state.chosen
        best = Best(state.chosen)
        try:
            yield best
        finally:
            score, kept = state.after, dict[str, Array]()
            if best.values:
                chosen, (values, steps) = settled(self._model.untrained, best.values, best.score, choose)
                if chosen > state.chosen:
                    score = confirm(values)
                if score.value > state.after.value:
                    kept = values
                    self._model.values.update(values)
                    state.quantization_steps.update(steps)
                    state.after, state.chosen, state.mode = score, chosen, tier
            best.settle(score, kept)

    def _estimate_norms(self) -> tuple[Best, int, int]:
        model, names = self._model, [one.name for pair in self._model.info.norms for one in pair]
        labelled = self._samples.labels is not None
        with model.opened(norms.statistic_outputs(model), names) as run:
            statistics = norms.Statistics(model, run, self._task, self._split.train, self._budget)
            found = statistics.estimate(self._split.train, self._course)
            if not labelled:
                choose, confirm = (partial(statistics.fit, rows) for rows in (self._split.choose, self._split.held))
                with self._keeping(BN, choose, confirm) as best:
                    best.offer(choose(found), found)
                return best, 0, statistics.size
        with model.opened(judge.OUTPUTS, names) as scoring:
            judging = Judge(scoring, model, self._task, self._split, self._budget)
            with self._keeping(BN, judging.score, judging.confirm) as best:
                best.offer(judging.score(found), found)
        return best, 0, statistics.size

    def _fit_head(self) -> tuple[Best, int, int] | None:
        model = self._model
        names = [each.name for each in model.tensors_of(HEAD)]
        with model.opened([FEATURES]) as run:
            ridge = Ridge(model, run, self._task, self._split.train, self._budget)
        head = ridge.find()
        if head is None:
            problem = "the last layer isn't linear in the features that the training graph names; use --mode small"
            if self._settings.mode == HEAD:
                raise UnsupportedError(problem)
            self._settings.notice(f"head is left out: {problem}")
            return None
        with model.opened(judge.OUTPUTS, names) as scoring:
            judging = Judge(scoring, model, self._task, self._split, self._budget, ridge.later)
            with self._keeping(HEAD, judging.score, judging.confirm) as best:
                for values in ridge.fit(head, self._course):
                    best.offer(judging.score(values), values)
                    del values  # the next ones needn't stand beside it
        return best, 0, ridge.size

    def _descend(self, tier: str) -> tuple[Best, int, int]:
        model, settings, state = self._model, self._settings, self._state
        names = [each.name for each in model.tensors_of(tier)]
        steps = settings.steps - state.steps
        if settings.mode == AUTO and tier == SMALL and FULL in self._tiers:
            steps = max(1, int(SMALL_SHARE * steps))
        with contextlib.ExitStack() as stack:
            run = stack.enter_context(model.opened(descent.gradient_outputs(model, tier), names))
            if self._budget.room is None:
                scoring = stack.enter_context(model.opened(judge.OUTPUTS, names))
                judging = Judge(scoring, model, self._task, self._split, self._budget)
            else:
                # A second session would hold the weights once more; gradients that nobody needs take time alone.
                judging = Judge(run, model, self._task, self._split, None)
            values = {name: model.stored(name) for name in names}
            # Where all weights are fed, none is read from the file as well.
            begun = values if tier == FULL else {}

            def fed(score: _Scoring) -> _Scoring:
                return lambda given: score(given or begun)

            best = stack.enter_context(self._keeping(tier, fed(judging.score), fed(judging.confirm)))
            taken, micro = descent.descend(
                tier,
                values,
                model,
                run,
                judging,
                self._task,
                self._split.train,
                settings,
                steps,
                best,
                self._course,
                self._budget,
            )
            state.steps += taken
        return best, taken, micro
