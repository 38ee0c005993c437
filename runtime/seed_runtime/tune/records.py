"""Records of a fine-tune: its settings, its progress, its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from seed_runtime.backends import Array

BN, HEAD, SMALL, FULL = "bn", "head", "small", "full"
TIERS: Final = (BN, HEAD, SMALL, FULL)
"""What can be trained: statistics of batch norms, the last layer, with it scales and biases, everything."""
AUTO: Final = "auto"
"""Climbs the tiers while the score rises."""
STEPS: Final = 120
"""Steps of gradients that a run takes at most, all tiers together."""
SAMPLES_LEAST: Final = {BN: 32, HEAD: 16, SMALL: 16, FULL: 32}
"""Samples that a tier needs, those that are held out included."""


@dataclass(frozen=True)
class Score:
    """How good a model is on samples that it wasn't trained on: larger is better.

    Attributes:
        value: the score by its metric.
        loss: decides between equal scores: the smaller one is better.
    """

    value: float
    loss: float

    def __gt__(self, other: Score) -> bool:
        return (self.value, -self.loss) > (other.value, -other.loss)


UNUSABLE: Final = Score(-math.inf, math.inf)
"""Score of outputs that are NaN or infinite: worse than any other, and not better than itself."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        tier: what is trained.
        step: steps that are done; batches of samples where no gradients are taken.
        steps: of this tier.
        loss: mean loss of the last step's samples; NaN where there is none.
        score: the best so far on the validation samples; NaN before the first one.
        memory: what the process holds now [B].
        seconds_left: time that the tier will take at this pace, at most to the time limit [s].
    """

    tier: str
    step: int
    steps: int
    loss: float
    score: float
    memory: int
    seconds_left: float


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        mode: one of `TIERS`, or AUTO.
        loss: a word of `targets.LOSSES`; None to choose by the labels.
        steps: most steps of gradients, all tiers together.
        rate: largest change of an element in a step (Adam), or factor of gradients (SGD); None for the tier's own.
        optimizer: a word of `optimizers.OPTIMIZERS`.
        batch: samples of a step.
        rng_seed: decides what is held out, and the order of samples.
        delta_size: most bytes of the seed that holds what was learned; None for a tenth of the
            model's own seed, or 4 KB where that is less, and no limit in tier `full` [B].
        max_memory: limit of the whole process, None for none [B].
        time_limit: of the whole run, None for none [s].
        started: value of `time.monotonic` from which the limit counts; None for that of the call.
        threads: of the backend; None for one per core.
        progress: called with how far it is.
        watch: called before each run of the model, and about once a second within it. A BaseException that isn't an
            Exception, raised here or by `progress`, ends the run like Ctrl-C.
        interrupted: called when the run is interrupted, before the best values so far are scored: a second
            interruption ends that as well.
        notice: gets lines for the user.
    """

    mode: str = AUTO
    loss: str | None = None
    steps: int = STEPS
    rate: float | None = None
    optimizer: str = "adam"
    batch: int = 32
    rng_seed: int = 0
    delta_size: int | None = None
    max_memory: int | None = None
    time_limit: float | None = None
    started: float | None = None
    threads: int | None = None
    progress: Callable[[Progress], None] = lambda progress: None
    interrupted: Callable[[], None] = lambda: None
    notice: Callable[[str], None] = lambda line: None
    watch: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class TierResult:
    """What one tier was worth.

    Attributes:
        tier: its name.
        score: that of its best values on what was held out, rounded as a delta holds them; that of the tier before
            where none was better.
        kept: whether that was better than before, so that its values are in the result.
        steps: steps of gradients that it took.
        micro_batch: samples that were computed at once.
        seconds: time that it took.
    """

    tier: str
    score: Score
    kept: bool
    steps: int
    micro_batch: int
    seconds: float


@dataclass(frozen=True)
class TuneResult:
    """Result of a fine-tune.

    Attributes:
        tensors: new values of the tensors that changed, by the number of their hole, float32 in the tensor's shape;
            none where nothing got better. They differ from the seed's by whole steps.
        quantization_steps: these steps, by the number of the hole.
        golden: section GOLDEN with the new values; None where the seed has none, or nothing got better.
        mode: the last tier whose values were kept; "" for none.
        metric: name of the score.
        before: score of the seed as it was, on what was held out.
        after: score with the new values, on the same.
        held_out: how many samples these are.
        tiers: what was tried, in order.
        steps: steps of gradients in all.
        peak: highest resident size of the process so far [B].
        interruption: what ended the run early, such as Ctrl-C; the result is the best so far then.
    """

    tensors: Mapping[int, Array]
    quantization_steps: Mapping[int, float]
    golden: bytes | None
    mode: str
    metric: str
    before: Score
    after: Score
    held_out: int
    tiers: tuple[TierResult, ...]
    steps: int
    peak: int
    interruption: BaseException | None = field(default=None, compare=False)
