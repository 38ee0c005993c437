"""A description of processing, read from a seed's part: which step fills which input, which reads which output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from seed_runtime.backends import TensorSpec
from seed_runtime.errors import FormatError, too_new
from seed_runtime.format.parts import processing as part
from seed_runtime.limits import PROCESSING_STEPS_MAX
from seed_runtime.processing import generation
from seed_runtime.processing.fields import Fields, parse_object
from seed_runtime.processing.generation import Generation
from seed_runtime.processing.registry import INPUTS, OUTPUTS
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, OutputStep, Specs
from seed_runtime.processing.text import TextStep
from seed_runtime.processing.tokenizer_file import expanded, parse_tokenizer

_WHERE: Final = "processing"
Step = TypeVar("Step")


@dataclass(frozen=True)
class Processing:
    """Steps before and behind a model, checked against its inputs and outputs."""

    inputs: tuple[InputStep, ...]
    outputs: tuple[OutputStep, ...]
    state: Mapping[str, str]
    """Names of outputs by the inputs that get them in the next call; zeros in the first one."""
    specs: Specs
    """Inputs of the model by name."""
    description: Mapping[str, Any]
    """The description as it stands in the seed."""
    attachments: Mapping[str, int]
    """Sizes of the attachments [B]."""
    generation: Generation | None = None
    """How the model is asked for text; it has no steps then."""

    @property
    def media(self) -> tuple[str, ...]:
        """Media of the items that a sample needs."""
        return tuple(step.medium for step in self.inputs if step.medium)

    def check_tokenizers(self) -> None:
        """Check tokenizers, which a device reads when it is asked; for what is raised see `parse_tokenizer`."""
        found = [(step.tokens.data, step.where) for step in self.inputs if isinstance(step, TextStep)]
        if self.generation is not None:
            found.append((self.generation.tokenizer, f"{_WHERE}, generation"))
        for data, where in found:
            expanded(parse_tokenizer(data, where), where)


def parse(
    data: bytes | memoryview,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    metadata: Callable[[], Mapping[str, str]],
    optional: Sequence[TensorSpec] = (),
) -> Processing:
    """Read and check a part.

    Args:
        data: the unpacked part.
        inputs: that the model needs.
        outputs: of the model.
        metadata: gives the model's metadata.
        optional: inputs that have a default.

    Raises:
        FormatError: it breaks a rule of SPEC.md, or is of another model.
        UnsupportedError: a step, or a field of one, is unknown to this runtime.
    """
    text, attachments = part.unpack(data)
    description = parse_object(text, _WHERE)
    fields, sources = Fields(description, _WHERE), Sources(attachments, metadata)
    before = [
        _step(INPUTS, each, f"{_WHERE}, inputs[{index}]", sources)
        for index, each in enumerate(fields.objects("inputs", PROCESSING_STEPS_MAX))
    ]
    behind = [
        _step(OUTPUTS, each, f"{_WHERE}, outputs[{index}]", sources)
        for index, each in enumerate(fields.objects("outputs", PROCESSING_STEPS_MAX))
    ]
    state = fields.pairs("state")
    fields.pairs("about")
    specs = {spec.name: spec for spec in (*inputs, *optional)}
    made = {spec.name: spec for spec in outputs}
    sizes = {name: len(each) for name, each in attachments.items()}
    if fields.has("generation"):
        if before or behind or state:
            raise FormatError(_WHERE, "a model that generates text has no inputs, outputs or state beside it")
        words = Fields(fields.value("generation"), f"{_WHERE}, generation")
        fields.end()
        found = generation.read(words, sources, specs, [spec.name for spec in inputs], made)
        return Processing((), (), {}, specs, description, sizes, found)
    fields.end()
    _check_inputs(before, state, specs, [spec.name for spec in inputs])
    _check_outputs(behind, state, made, specs)
    return Processing(tuple(before), tuple(behind), state, specs, description, sizes)


def _step(kinds: Mapping[str, Callable[[Fields, Sources], Step]], value: object, where: str, sources: Sources) -> Step:
    fields = Fields(value, where)
    kind = fields.text("kind")
    if kind not in kinds:
        raise too_new(where, f"a step of kind {kind!r}")
    fields.where = f"{where} ({kind})"
    step = kinds[kind](fields, sources)
    fields.end()
    return step


def _check_inputs(steps: Sequence[InputStep], state: Mapping[str, str], specs: Specs, needed: Sequence[str]) -> None:
    """Raise FormatError unless every input that must be given is filled once."""
    filled: set[str] = set()
    for name in [name for step in steps for name in step.fills.values()] + list(state):
        if name not in specs:
            raise FormatError(_WHERE, f"the model has no input {name!r}")
        if name in filled:
            raise FormatError(_WHERE, f"input {name!r} is filled twice")
        filled.add(name)
    for name in needed:
        if name not in filled:
            raise FormatError(_WHERE, f"no step fills input {name!r}")
    for step in steps:
        step.check(specs)
    media = [step.medium for step in steps if step.medium]
    if not media or len(set(media)) < len(media):
        raise FormatError(_WHERE, "one step of each medium is needed, of pictures, texts or sound")


def _check_outputs(steps: Sequence[OutputStep], state: Mapping[str, str], made: Specs, inputs: Specs) -> None:
    for name in [name for step in steps for name in step.reads.values()] + list(state.values()):
        if name not in made:
            raise FormatError(_WHERE, f"the model has no output {name!r}")
    for name, source in state.items():
        if inputs[name].dtype != made[source].dtype:
            raise FormatError(_WHERE, f"input {name!r} can't get output {source!r}, which is of another type")
