"""TFLite skeletons: a model's file without the data of its weights, which is otherwise the file as it is.

Nothing is stripped or renamed: with every bit of the weights, a device has the file that the seed was made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seed_exporter.graph.model import Graph
from seed_exporter.skeletons.layout import Skeleton, SkeletonBuilder
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format.parts import TFLITE_SKELETON
from seed_runtime.limits import PART_RAW_MAX
from seed_runtime.skeletons import KINDS
from seed_runtime.skeletons.tflite import scan


def matches(graph: Graph) -> bool:
    """Return whether the graph's model is a TFLite file."""
    return graph.file is not None


class Builder(SkeletonBuilder):
    """Builds TFLite skeletons of one graph; what doesn't depend on the weights' order is done once."""

    def __init__(self, graph: Graph) -> None:
        assert graph.file is not None
        super().__init__(graph.weights)
        file = graph.file
        places = sorted((file.places[name].offset, name) for name in graph.weights)
        kept, gaps, end = [], [], 0
        for offset, name in places:
            kept.append(file.data[end:offset])
            gaps.append(offset - end)
            end = offset + file.places[name].size
        kept.append(file.data[end:])
        self._names = [name for _, name in places]
        self._gaps, self._kept = np.array(gaps, "<u4").tobytes(), b"".join(kept)

    def build_unchecked(self, order: Sequence[str]) -> Skeleton:
        """Build the skeleton of this order without that check, see `SkeletonBuilder.build_unchecked`."""
        holes = self._lay_out(order)
        number_of = {name: number for number, name in enumerate(order)}
        numbers = np.array([number_of[name] for name in self._names], "<u2").tobytes()
        return Skeleton(
            kind=TFLITE_SKELETON.number,
            data=b"".join((len(holes).to_bytes(4, "little"), self._gaps, numbers, self._kept)),
            names="",
            tail=0,
            holes=holes,
        )

    @staticmethod
    def _check(skeleton: Skeleton) -> None:
        """Raise UnsupportedError unless a device accepts the skeleton."""
        if len(skeleton.data) > PART_RAW_MAX:
            raise UnsupportedError(
                f"this model takes {len(skeleton.data):,} bytes without its weights, and a seed carries "
                f"{PART_RAW_MAX:,}; convert it without large tables of texts"
            )
        try:
            KINDS[skeleton.kind].layout.check(scan(skeleton.data), skeleton.holes)
        except FormatError as error:
            raise UnsupportedError(
                f"no device would accept this model: {error.where}: {error.problem}; convert it again"
            ) from error
