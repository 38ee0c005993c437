"""Train a seed's model on a few samples: tier by tier, each kept only if the held-out part got better."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from seed_runtime.assembly.cache import ModelCache
from seed_runtime.backends import Array
from seed_runtime.data.calls import LABELS
from seed_runtime.data.rows import RowSource
from seed_runtime.errors import GoalNotMetError, MemoryBudgetError, SeedError, UnsupportedError
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.seed import Seed
from seed_runtime.skeletons.training import FEATURES
from seed_runtime.tune import evaluator, norms
from seed_runtime.tune.acceptance import Acceptance, Scoring
from seed_runtime.tune.best_values import BestValues
from seed_runtime.tune.checkpoint import Checkpoint, CheckpointFile, run_key
from seed_runtime.tune.delta_limit import DeltaLimit
from seed_runtime.tune.descent import Descent, TierSession, gradient_outputs
from seed_runtime.tune.evaluator import Evaluator
from seed_runtime.tune.head import Ridge
from seed_runtime.tune.joined import JoinedModel
from seed_runtime.tune.last_layer import LayerRun
from seed_runtime.tune.micro_batches import Budget
from seed_runtime.tune.modes import check_settings, choose_tiers
from seed_runtime.tune.progress import RunProgress, TimeUpError
from seed_runtime.tune.records import (
    AUTO,
    BN,
    FULL,
    HEAD,
    SMALL,
    Score,
    Settings,
    TierResult,
    TuneResult,
)
from seed_runtime.tune.samples import Samples, check_samples, split
from seed_runtime.tune.state import State
from seed_runtime.tune.targets import Task

SMALL_SHARE: Final = 0.5
"""Share of the steps that `small` may take where `full` follows."""


def tune(
    seed: Seed,
    arrays: Mapping[str, Array | RowSource],
    settings: Settings | None = None,
    *,
    cache: ModelCache | None = None,
    on_kept: Callable[[TuneResult], None] = lambda result: None,
    checkpoint: Path | None = None,
) -> TuneResult:
    """Train a seed's model; the seed and its assembled copy stay as they are.

    Of each class 15 % of the samples are held out, and say what the result is worth; as many others choose it. What is
    scored is rounded as a delta will hold it. The same seed, samples and settings give the same result on the same
    machine, unless a time limit ends the run.

    Args:
        seed: with a training graph, from a file.
        arrays: inputs by the model's names, samples first, and `labels`: numbers of classes, or floats of the output's
            shape. Without labels only statistics of batch norms are estimated. Of inputs in files
            (`seed_runtime.data.sample_files.open_samples`) a micro-batch is held.
        settings: None for the defaults.
        cache: where the model is assembled; None for the user's.
        on_kept: called with the result so far after each tier that was kept. An OSError or SeedError there is a
            notice, and it is called again at the end, where its errors are raised; the checkpoint stays then.
        checkpoint: file from which the same call goes on after its process was killed, at most a share of a minute
            or a few steps back; removed where the run comes to its end by itself. No other process may use it. None
            to write none.

    Raises:
        UsageError: the settings contradict each other.
        CheckpointError: the checkpoint is of another run, or can't be read.
        InputError: the samples can't be used, or are too few.
        UnsupportedError: the seed has no training graph, or the model nothing of what the mode trains.
        MemoryBudgetError: one sample takes more memory than is allowed; no step was taken.
        GoalNotMetError: the time limit was over before anything was scored.
    """
    settings = settings or Settings()
    check_settings(settings)
    progress = RunProgress(settings)
    samples = check_samples(arrays, seed.inputs())
    seed.training_graph()
    with (
        seed.assembled(max_memory=settings.max_memory, cache=cache, notice=settings.notice) as folder,
        seed.assembled_weights(cache) as weights,
    ):
        budget = Budget(settings.max_memory, cgroup_limit())
        model = JoinedModel(seed, folder, weights, samples, settings.threads, budget.room is None, progress.watch)
        limit = DeltaLimit(seed, weights, settings)
        return _Tuning(seed, model, samples, settings, budget, progress, checkpoint, on_kept, limit).run()


class _Tuning:
    def __init__(
        self,
        seed: Seed,
        model: JoinedModel,
        samples: Samples,
        settings: Settings,
        budget: Budget,
        progress: RunProgress,
        checkpoint: Path | None,
        on_kept: Callable[[TuneResult], None],
        limit: DeltaLimit,
    ) -> None:
        self._seed = seed
        self._model, self._samples, self._settings, self._on_kept = model, samples, settings, on_kept
        self._progress = progress
        self._task = Task(model.info, samples.labels, settings.loss)
        classes = samples.labels if self._task.is_indexed and samples.labels is not None else None
        if classes is not None and classes.ndim > 1:
            classes = None  # a sample has many
        self._tiers = choose_tiers(settings, model.info, samples, self._task)
        rng = np.random.default_rng(settings.rng_seed)
        self._split = split(samples, classes, rng)
        key = run_key(seed.digest, samples, self._split, settings, model.backend_version)
        self._file = CheckpointFile(checkpoint, key, settings.notice)
        if classes is not None and (missing := self._task.classes - len(np.unique(classes))) > 0:
            settings.notice(
                f"{LABELS} have no sample of {missing} of the model's {self._task.classes} classes: it may forget them"
            )
        self._budget, self._state = budget, State()
        self._metric = self._task.metric if samples.labels is not None else "fit of batch norms"
        self._acceptance = Acceptance(model, limit, self._metric, settings.notice)
        self._golden: tuple[Score | None, bytes | None] = (None, None)
        """Section GOLDEN, and the score of the values that it is of."""
        self._is_taken = False
        """Whether `on_kept` has what was learned so far."""

    def run(self) -> TuneResult:
        """Climb the tiers; Ctrl-C ends it with the best so far."""
        interruption: BaseException | None = None
        with self._file.opened() as checkpoint:
            if checkpoint is not None:
                self._restore(checkpoint)
            try:
                self._climb_all(checkpoint)
            except Exception:
                raise
            except BaseException as error:
                if self._state.before is None:
                    raise
                interruption = error
        result = self._result(interruption)
        if interruption is None:
            if result.tensors and not self._is_taken:
                self._save(now=True)
                self._on_kept(result)
            self._file.remove()
        return result

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint, up to its last whole tier."""
        self._state = state = State.from_record(checkpoint.record["state"])
        holes = self._model.hole_of
        for name in state.quantization_steps:
            value = np.empty(self._model.dims_of(holes[name]), np.float32)
            checkpoint.read_into(f"learned.{holes[name]}", value)
            self._model.values[name] = value
        tier = checkpoint.record["tier"]
        where = f"after {state.done[-1]}" if tier is None else f"after step {tier['step']} of {tier['tier']}"
        self._settings.notice(f"going on {where}, where this run was interrupted")

    def _save(self, descent: Descent | None = None, *, now: bool = False) -> None:
        """Write a checkpoint `now` or if it is time for one, within a tier or after one."""
        if not now and not self._file.is_due:
            return
        holes = self._model.hole_of
        arrays = {f"learned.{holes[name]}": value for name, value in self._model.values.items()}
        tier = None
        if descent is not None:
            tier, more = descent.checkpoint()
            arrays |= more
        self._file.write({"state": self._state.record(), "tier": tier}, arrays)

    def _result(self, interruption: BaseException | None = None) -> TuneResult:
        state = self._state
        assert state.before is not None
        assert state.after is not None
        holes = self._model.hole_of
        return TuneResult(
            tensors={holes[name]: value for name, value in self._model.values.items()},
            quantization_steps={holes[name]: step for name, step in state.quantization_steps.items()},
            golden=self._golden_section(),
            mode=state.mode,
            metric=self._metric,
            before=state.before,
            after=state.after,
            held_out=len(self._split.held_out),
            tiers=tuple(state.tiers),
            steps=state.steps,
            peak=self._budget.peak,
            interruption=interruption,
        )

    def _golden_section(self) -> bytes | None:
        """Return section GOLDEN with the values that were learned: the seed's inputs, and what they give now."""
        golden, of = self._seed.golden, self._state.after
        if golden is None or not self._model.values:
            return None
        if self._golden[0] is not of:
            self._golden = (of, self._model.run_golden(golden, self._settings.notice))
        return self._golden[1]

    def _climb_all(self, checkpoint: Checkpoint | None) -> None:
        too_large: MemoryBudgetError | None = None
        state = self._state
        for tier in self._tiers:
            if tier in state.done:
                continue
            if self._progress.is_over:
                self._settings.notice(f"the time is up before {tier}")
                break
            if tier in (SMALL, FULL) and state.steps >= self._settings.steps:
                self._settings.notice(f"no step is left for {tier}; give more --steps")
                break
            try:
                kept = self._climb(tier, checkpoint)
            except TimeUpError:
                self._settings.notice(f"the time is up in {tier}")
                break
            except MemoryBudgetError as error:
                too_large, kept = error, None
                self._settings.notice(f"{tier} is left out: {error}")
            if kept is False and tier == SMALL:
                break
            state.done.append(tier)
            if kept is not None:
                self._save()
        if too_large is not None and not state.tiers:
            raise too_large
        if state.before is None:
            raise GoalNotMetError("nothing was scored: the time was up, or no tier fits; give more time")

    def _climb(self, tier: str, checkpoint: Checkpoint | None) -> bool | None:
        """Train one tier; return whether its values were kept, None where the model has nothing that it trains."""
        self._progress.begin(tier)
        if tier == BN:
            best = self._estimate_norms()
        elif tier == HEAD:
            fitted = self._fit_head()
            if fitted is None:
                return None
            best = fitted
        else:
            best = self._descend(tier, checkpoint)
        if best.values:
            self._offer()
        return bool(best.values)

    def _offer(self) -> None:
        """Give `on_kept` what was learned so far; what goes wrong there is tried again where the run ends."""
        self._is_taken = False
        try:
            self._on_kept(self._result())
            self._is_taken = True
        except (OSError, SeedError) as error:
            self._settings.notice(f"{error}; the run goes on, and tries that again at its end")

    @contextlib.contextmanager
    def _best_values(self, tier: str, validation_score: Scoring, held_out_score: Scoring) -> Iterator[BestValues]:
        """Give the best values so far to a tier, and keep its own where they are better, also after an interruption.

        Args:
            tier: its name.
            validation_score: scores values on the validation samples.
            held_out_score: scores them on what was held out.
        """
        state = self._state
        if state.before is None:
            state.before, state.validation = held_out_score({}), validation_score({})
            state.after = state.before
        assert state.after is not None
        assert state.validation is not None
        self._progress.best = state.validation
        best = BestValues(state.validation)
        is_tried = True
        try:
            yield best
        except Exception as error:
            is_tried = isinstance(error, TimeUpError)
            raise
        except BaseException:
            if tier in (BN, HEAD) and state.done:  # they begin again, and those before them needn't
                self._save(now=True)
            self._settings.interrupted()
            raise
        finally:
            # However late it is, or nothing of the tier would count.
            with self._progress.unlimited():
                best.replace(*self._acceptance.accept(state, tier, best, validation_score, held_out_score))
            if is_tried:
                kept, seconds = bool(best.values), self._progress.seconds
                state.tiers.append(TierResult(tier, best.score, kept, best.steps, best.micro_batch, seconds))

    def _estimate_norms(self) -> BestValues:
        model, names = self._model, [each.name for each in self._model.statistics]
        labelled = self._samples.labels is not None
        with model.opened(norms.statistic_outputs(model), names) as run:
            statistics = norms.Statistics(model, run, self._task, self._split.train, self._budget)
            found = statistics.estimate(self._split.train, self._progress)
            if not labelled:
                validate, confirm = (
                    partial(statistics.fit, rows) for rows in (self._split.validation, self._split.held_out)
                )
                with self._best_values(BN, validate, confirm) as best:
                    best.micro_batch = statistics.size
                    best.update(validate(found), found)
                return best
        with model.opened(evaluator.OUTPUTS, names) as scoring:
            scorer = Evaluator(scoring, model, self._task, self._split, self._budget)
            with self._best_values(BN, scorer.validation_score, scorer.held_out_score) as best:
                best.micro_batch = statistics.size
                best.update(scorer.validation_score(found), found)
        return best

    def _fit_head(self) -> BestValues | None:
        model = self._model
        names = [each.name for each in model.tensors_of(HEAD)]
        rows = np.union1d(self._split.validation, self._split.held_out)
        ridge = Ridge(model, self._task, self._split.train, rows, self._budget)
        if not ridge.problem:
            with model.opened([FEATURES]) as run:
                ridge.compute(run)
        # Without the session: its memory and the layer's would add up.
        head = ridge.find()
        if head is None and self._settings.mode == HEAD:
            raise UnsupportedError(f"{ridge.problem}; use --mode small")
        if head is None:
            self._settings.notice(f"head is left out: {ridge.problem}")
            return None
        self._acceptance.inputs = ridge.inputs(head)
        with contextlib.ExitStack() as stack:
            scored, watch = ridge.scored, self._progress.watch
            layer = None if scored is None else LayerRun(model, head, rows, scored, watch)
            scoring = layer or stack.enter_context(model.opened(evaluator.OUTPUTS, names))
            # The layer by itself holds a copy of the head while it is measured.
            later = ridge.fitting_bytes - (ridge.head_bytes if layer else 0)
            scorer = Evaluator(scoring, model, self._task, self._split, self._budget, later)
            scores = scorer.validation_score, scorer.held_out_score
            with self._best_values(HEAD, *scores) as best, contextlib.suppress(TimeUpError):
                best.micro_batch = ridge.size
                for values in ridge.fit(head, self._progress):
                    best.update(scorer.validation_score(values), values)
                    del values  # the next ones needn't stand beside it
        return best

    def _descend(self, tier: str, checkpoint: Checkpoint | None) -> BestValues:
        model, settings, state = self._model, self._settings, self._state
        names = [each.name for each in model.tensors_of(tier)]
        steps = settings.steps - state.steps
        if settings.mode == AUTO and tier == SMALL and FULL in self._tiers:
            steps = max(1, int(SMALL_SHARE * steps))
        with contextlib.ExitStack() as stack:
            run = stack.enter_context(model.opened(gradient_outputs(model, tier), names))
            if self._budget.room is None:
                scoring = stack.enter_context(model.opened(evaluator.OUTPUTS, names))
                scorer = Evaluator(scoring, model, self._task, self._split, self._budget)
            else:
                # A second session would hold the weights once more; gradients that nobody needs take time alone.
                scorer = Evaluator(run, model, self._task, self._split, None)
            values = {name: model.stored(name) for name in names}
            # Where all weights are fed, none is read from the file as well.
            begun = values if tier == FULL else {}

            def fed(score: Scoring) -> Scoring:
                return lambda given: score(given or begun)

            best = stack.enter_context(
                self._best_values(tier, fed(scorer.validation_score), fed(scorer.held_out_score))
            )
            session = TierSession(tier, model, run, scorer, self._task, self._split.train)
            descent = Descent(session, values, best, steps, settings, self._progress, self._budget)
            if checkpoint is not None and (record := checkpoint.take_tier(tier)) is not None:
                descent.restore(record, checkpoint)
            best.micro_batch = descent.micro_batch
            try:
                descent.run(lambda: self._save(descent))
            except Exception:
                raise
            except BaseException:
                if descent.is_between_steps:  # the checkpoint is then no older than what is kept
                    self._save(descent, now=True)
                raise
            finally:
                best.steps = descent.step
                state.steps += descent.step
                descent.end()
        return best
