"""Give a graph the part that describes its processing, checked by the runtime's own reader."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from seed_exporter.graph.model import Graph
from seed_exporter.processing.files import read_description
from seed_exporter.processing.found import find
from seed_exporter.processing.package import Package
from seed_exporter.processing.text import json_bytes
from seed_exporter.skeletons import SkeletonBuilder
from seed_runtime import processing
from seed_runtime.backends import input_spec, output_specs
from seed_runtime.errors import FormatError, InputError, LimitError, UnsupportedError
from seed_runtime.format.parts import processing as part
from seed_runtime.limits import PROCESSING_RAW_MAX
from seed_runtime.skeletons import KINDS, SkeletonInfo

AUTO: Final = "auto"
"""Word in place of a file: what the model's package says."""
NONE: Final = "none"
"""Word in place of a file for a seed without processing."""


def attach(graph: Graph, skeletons: SkeletonBuilder, source: Any, wanted: Path | None, notes: list[str]) -> Graph:
    """Return the graph with its processing.

    Args:
        graph: the model.
        skeletons: of the same graph.
        source: what it was loaded from.
        wanted: the user's file, AUTO or NONE; None for NONE.
        notes: gets lines for the user.

    Raises:
        InputError: the file can't be used with this model.
        UsageError: it can't be read.
    """
    if wanted is None or str(wanted) == NONE:
        return graph
    skeleton = skeletons.build(list(graph.weights))
    info = KINDS[skeleton.kind].scan(skeleton.data)
    if str(wanted) == AUTO:
        return _automatic(graph, info, source, notes)
    description, attachments = read_description(wanted)
    try:
        data = part_of(description, attachments, info)
    except FormatError as error:
        raise InputError(f"{wanted}: {error.where}: {error.problem}; see docs/processing.md") from None
    return replace(graph, processing=data)


def _automatic(graph: Graph, info: SkeletonInfo, source: Any, notes: list[str]) -> Graph:
    """Return the graph with what the model's package says, which never ends an export."""
    inputs = [input_spec(value) for value in info.inputs]
    outputs = [spec for value in info.outputs for spec in output_specs(value)]
    package = Package(
        Path(source).parent if isinstance(source, str | os.PathLike) else None,
        {spec.name: spec for spec in inputs},
        {spec.name: spec for spec in outputs},
        info.metadata,
        None if graph.file is None else graph.file.data,
    )
    try:
        found = find(package)
        if found is None:
            return graph
        data = part_of(*found, info)
    except (
        FormatError,
        UnsupportedError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        # Without the advice of damage, which is for seeds on devices.
        reason = f"{error.where}: {error.problem}" if isinstance(error, FormatError) else error
        notes.append(
            f"what the model's package says of its processing isn't used ({reason}); give it with --processing"
        )
        return graph
    notes.append(f"processing is taken from {', '.join(package.used)}; --processing none leaves it out")
    return replace(graph, processing=data)


def part_of(description: Mapping[str, Any], attachments: Mapping[str, bytes], info: SkeletonInfo) -> bytes:
    """Return the bytes of the part.

    Args:
        description: the object of docs/processing.md.
        attachments: the files that it names.
        info: of the model's skeleton.

    Raises:
        FormatError: it isn't one for this model.
        UnsupportedError: a step of it, or a part of a tokenizer, isn't known.
    """
    try:
        data = part.pack(json_bytes(description), attachments)
    except ValueError as error:
        raise FormatError("processing", str(error)) from None
    if len(data) > PROCESSING_RAW_MAX:
        raise LimitError("processing", len(data), PROCESSING_RAW_MAX)
    outputs = [spec for value in info.outputs for spec in output_specs(value)]
    found = processing.parse(
        data,
        [input_spec(value) for value in info.inputs],
        outputs,
        lambda: info.metadata,
        [input_spec(value) for value in info.optional_inputs],
    )
    found.check_tokenizers()
    return data
