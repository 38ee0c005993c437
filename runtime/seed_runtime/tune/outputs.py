"""What a training graph gives, checked: nobody but its nodes says of what type and shape that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from seed_runtime.backends import Array, TensorSpec
from seed_runtime.errors import InputError
from seed_runtime.format.parts.kind import HoleLike
from seed_runtime.skeletons.info import refuse
from seed_runtime.skeletons.training import FEATURES, LOSS, TrainingInfo

_FLOAT = "float32"


class Outputs:
    """The outputs of a model and of its training graph, as SPEC.md says that they are ("Training graph").

    Args:
        info: of the training graph.
        holes: of the seed.
        output: name of the model's output that is compared.
    """

    def __init__(self, info: TrainingInfo, holes: Sequence[HoleLike], output: str) -> None:
        self._axis, self._output, self._target = info.axis, output, info.target.dims or ()
        numbers = {each.output: each.hole for each in info.tensors}
        numbers |= {one.output: one.hole for pair in info.norms for one in pair}
        self._dims = {LOSS: (), **{output: tuple(holes[number].dims) for output, number in numbers.items()}}
        self._width: int | None = None

    def check_types(self, specs: Sequence[TensorSpec], outputs: Collection[str]) -> None:
        """Raise FormatError for outputs that are no tensors of float32."""
        floats = {spec.name for spec in specs if spec.dtype == _FLOAT}
        if wrong := sorted(set(outputs) - floats):
            refuse(f"the output {wrong[0]!r} of its training graph is no tensor of {_FLOAT}")

    def check(self, found: Mapping[str, Array], outputs: Sequence[str], target: Array | None) -> None:
        """Check what a run gave.

        Args:
            found: its arrays.
            outputs: names of those that were asked for.
            target: what the model's output is compared with; None where it isn't.

        Raises:
            FormatError: one is missing or of another shape.
            InputError: the target is of another shape than the model's output.
        """
        if missing := [name for name in outputs if name not in found]:
            refuse(f"the output {missing[0]!r} of its training graph is missing")
        for name, array in found.items():
            if name in self._dims and array.shape != self._dims[name]:
                refuse(f"the output {name!r} of its training graph is {_shown(array)} in place of {self._dims[name]}")
        if self._output in found:
            self._check_compared(found[self._output], target)
        if FEATURES in found:
            self._check_features(found[FEATURES], found.get(self._output))

    def _check_compared(self, y: Array, target: Array | None) -> None:
        fits = (
            y.size > 0
            and y.ndim == len(self._target)
            and all(want == size or not isinstance(want, int) for want, size in zip(self._target, y.shape, strict=True))
        )
        if not fits:
            refuse(f"its output {self._output!r} is {_shown(y)}, which its training graph can't compare with a target")
        if target is not None and target.shape != y.shape:
            raise InputError(
                f"the model's output {self._output!r} is {list(y.shape)}, and the labels are for one of "
                f"{list(target.shape)}; give labels for what the model gives"
            )

    def _check_features(self, features: Array, y: Array | None) -> None:
        width = features.shape[-1] if features.ndim else 0
        if not width or width != (self._width or width):
            refuse(f"the features of its training graph are {_shown(features)}, which is no vector for each position")
        self._width = width
        is_last = self._axis is None or self._axis == len(self._target) - 1
        if y is not None and is_last and features.size * y.shape[-1] != y.size * width:
            refuse(f"the features of its training graph are {_shown(features)}, and the output is {_shown(y)}")


def _shown(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
