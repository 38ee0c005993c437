"""The original's answers, which every later stage of an export is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate import inputs, noise
from seed_exporter.evaluate.mixed import NO_MIXES, Mixed, mix
from seed_exporter.evaluate.model_files import backend_name, backend_of, write_model_files
from seed_exporter.evaluate.noise import Noisy
from seed_exporter.evaluate.samples import CALLS_MAX, Run, Samples, read_samples
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import SkeletonBuilder
from seed_runtime.backends import Array, Feeds, TensorSpec, input_spec
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.golden import Recipe

Generate = Callable[[Sequence[TensorSpec], Sequence[Recipe], Run], Samples]
"""Function that makes inputs of a model from its inputs' types, recipes that it accepts, and a way to run it."""

FEED_RNG_SEEDS: Final = (101, 202, 303, 404)
"""Random states of the generated inputs that outputs are compared on, where no better ones are made."""
OUTPUTS_MAX: Final = 64 << 20
"""Size of outputs from which on no more generated inputs are compared [B]."""
GENERATED: Final = "random numbers; real inputs say more: --calib x.npz"
"""What is said of generated inputs."""
TRAINING_MAX: Final = 1 << 16
"""Most calls that a model is healed on."""
GOLDEN_RNG_SEED: Final = 1
"""Random state of the golden sample."""


@dataclass(frozen=True)
class Reference:
    """The original's answers, in arrays that can't be written to: what every later stage is compared with.

    Attributes:
        kind: origin of the feeds, `real` or `generated`.
        note: sentence for the user on where they are from and which are used for what.
        specs: the model's inputs.
        feeds: inputs of some calls, on which outputs are judged.
        calibration: inputs of other calls, on which statistics are measured; read when they are asked for, and the
            same as `feeds` where there are no others.
        call: real inputs of the sizes that the user's calls have; None for generated ones.
        outputs: the original's outputs for them, in the same order.
        recipes: the golden sample's inputs, as a device makes them.
        sample: the arrays that `recipes` give.
        sample_outputs: the original's outputs for `sample`.
        noisy: outputs that noise decides, and the axes whose sizes it decides.
        labels: of the task, for the decisions on `feeds`; None where the data has none.
        mixed: calls made of few real ones, for a line of quality to be judged on as well.
        training: inputs of calls to heal on, none of them in `feeds`; the same as `calibration` without a file of their
            own.
        training_labels: of the task, one row for each of them; None where the data has none.
        backend: name of what runs the model.
    """

    kind: str
    note: str
    specs: tuple[TensorSpec, ...]
    feeds: Sequence[Feeds]
    calibration: Sequence[Feeds]
    call: Feeds | None
    outputs: Sequence[Mapping[str, Array]]
    recipes: tuple[Recipe, ...]
    sample: Feeds
    sample_outputs: Mapping[str, Array]
    noisy: Noisy
    labels: Array | None = None
    mixed: Mixed = NO_MIXES
    training: Sequence[Feeds] = ()
    training_labels: Array | None = None
    backend: str = "onnxruntime"

    @property
    def is_measured(self) -> bool:
        """False for a model that nothing here can run, so that only every bit of it can be kept."""
        return bool(self.outputs)


def unmeasured(graph: Graph) -> Reference:
    """Return the reference of a model that nothing here can run."""
    assert graph.file is not None
    specs = tuple(map(input_spec, graph.file.info.inputs))
    note = "the model was not run, as it has operators that only its maker's programs have"
    return Reference("generated", note, specs, (), (), None, (), (), {}, {}, {}, backend=backend_name(graph))


def make_reference(
    graph: Graph,
    skeletons: SkeletonBuilder,
    folder: Path,
    calib: Path | None,
    generate: Generate | None = None,
    heal: Path | None = None,
    *,
    mixes: bool = False,
) -> Reference:
    """Run the original on real inputs, or on generated ones.

    Args:
        graph: the original.
        skeletons: builder of its skeletons.
        folder: where its files are written.
        calib: data file with real inputs, None to generate inputs.
        generate: makes inputs where there are no real ones; None for the generator's random numbers.
        mixes: add mixed calls where real ones are few.
        heal: data file with inputs to heal on; where there is no `calib`, some of them are kept to judge outputs on.

    Raises:
        InputError: the data doesn't fit the model, or gets empty answers.
        UnsupportedError: the model can't be run, or no generated input suits it.
    """
    write_model_files(graph, folder, builder=skeletons)
    runner = backend_of(folder).open(folder, "fast")
    try:
        specs = runner.inputs
        given: Samples | None = None
        optional, training = runner.optional_inputs, None
        if calib is not None:
            given = read_samples(calib, specs, optional, runner.run, runner.check, folder)
        if heal is not None:
            (more := folder / "heal").mkdir(exist_ok=True)
            training = read_samples(heal, specs, optional, runner.run, runner.check, more, TRAINING_MAX)
            given = given or training
        calib = calib or heal
        try:
            recipes = inputs.find_recipes(graph, specs, runner.run)
        except UnsupportedError:
            if given is None:
                raise
            recipes = golden_sample.recipes_from_feeds(given.judged[0], specs)
        if given is None:
            given = (generate or _random)(specs, recipes, runner.run)
        feeds, outputs = given.judged, list[Mapping[str, Array]]()
        for feed in feeds:
            outputs.append(runner.run(feed))
            if calib is None and sum(array.nbytes for each in outputs for array in each.values()) > OUTPUTS_MAX:
                break
        feeds = feeds[: len(outputs)]
        if calib is not None and outputs[0] and not any(array.size for each in outputs for array in each.values()):
            raise InputError(f"{calib}: all outputs are empty, so that nothing can be judged; give inputs with answers")
        sample = inputs.make_feeds(specs, recipes, GOLDEN_RNG_SEED)
        sample_outputs = runner.run(sample)
        repeated = [*zip(feeds, outputs, strict=True), (sample, sample_outputs)]
        if not noise.draws_noise(graph):
            # Nobody can know all operators: one input is tried.
            del repeated[:-1]
        again = [runner.run(feed) for feed, _ in repeated]
        mixed = mix(feeds, CALLS_MAX - len(feeds), runner.run) if mixes and calib is not None else NO_MIXES
    finally:
        runner.close()
    for arrays in (*feeds, *outputs, *mixed.feeds, *mixed.outputs, sample, sample_outputs):
        for array in arrays.values():
            array.flags.writeable = False
    rounding = golden_sample.least_relative_tolerance(graph)
    noisy = noise.noisy_outputs([before for _, before in repeated], again, rounding)
    feeds_to_train, labels_to_train = _to_train(training, training is not given)
    kind = "generated" if calib is None else "real"
    return Reference(
        kind=kind,
        note=given.note,
        specs=specs,
        feeds=tuple(feeds),
        calibration=given.calibration,
        call=given.call,
        outputs=tuple(outputs),
        recipes=recipes,
        sample=sample,
        sample_outputs=sample_outputs,
        noisy=noisy,
        labels=given.labels,
        mixed=mixed,
        training=feeds_to_train,
        training_labels=labels_to_train,
        backend=backend_name(graph),
    )


def _to_train(samples: Samples | None, all_of_them: bool) -> tuple[Sequence[Feeds], Array | None]:
    """Return the inputs of a file to train on, with their labels: without those that are judged, or all of them."""
    if samples is None:
        return (), None
    if not all_of_them:
        return samples.calibration, samples.calibration_labels
    first, second = samples.calibration_labels, samples.labels
    labels = None if first is None or second is None else np.concatenate([first, second])
    return [*samples.calibration, *samples.judged], labels


def _random(specs: Sequence[TensorSpec], recipes: Sequence[Recipe], run: Run) -> Samples:
    feeds = [inputs.make_feeds(specs, recipes, rng_seed) for rng_seed in FEED_RNG_SEEDS]
    return Samples(feeds, feeds, None, GENERATED)
