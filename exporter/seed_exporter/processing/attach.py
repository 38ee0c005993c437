"""Give a graph the part that describes its processing, checked by the runtime's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from seed_exporter.graph.model import Graph
from seed_exporter.processing.files import read_description
from seed_exporter.processing.text import json_bytes
from seed_exporter.skeletons import SkeletonBuilder
from seed_runtime import processing
from seed_runtime.backends import input_spec, output_specs
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.format.parts import processing as part
from seed_runtime.limits import PROCESSING_RAW_MAX
from seed_runtime.skeletons import KINDS, SkeletonInfo

NONE: Final = "none"
"""Word in place of a file for a seed without processing."""


def attach(graph: Graph, skeletons: SkeletonBuilder, wanted: Path | None) -> Graph:
    """Return the graph with its processing.

    Args:
        graph: the model.
        skeletons: of the same graph.
        wanted: the user's file, or NONE; None to find out.

    Raises:
        InputError: the file can't be used with this model.
        UsageError: it can't be read.
    """
    if wanted is None or str(wanted) == NONE:
        return graph
    description, attachments = read_description(wanted)
    skeleton = skeletons.build(list(graph.weights))
    try:
        data = part_of(description, attachments, KINDS[skeleton.kind].scan(skeleton.data))
    except FormatError as error:
        raise InputError(f"{wanted}: {error.where}: {error.problem}; see docs/processing.md") from None
    return replace(graph, processing=data)


def part_of(description: Mapping[str, Any], attachments: Mapping[str, bytes], info: SkeletonInfo) -> bytes:
    """Return the bytes of the part.

    Args:
        description: the object of docs/processing.md.
        attachments: the files that it names.
        info: of the model's skeleton.

    Raises:
        FormatError: it isn't one for this model.
        UnsupportedError: a step of it isn't known.
    """
    try:
        data = part.pack(json_bytes(description), attachments)
    except ValueError as error:
        raise FormatError("processing", str(error)) from None
    if len(data) > PROCESSING_RAW_MAX:
        raise LimitError("processing", len(data), PROCESSING_RAW_MAX)
    outputs = [spec for value in info.outputs for spec in output_specs(value)]
    processing.parse(
        data,
        [input_spec(value) for value in info.inputs],
        outputs,
        lambda: info.metadata,
        [input_spec(value) for value in info.optional_inputs],
    )
    return data
