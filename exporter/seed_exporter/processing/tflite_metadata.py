"""The metadata that a TFLite file has of its inputs and outputs, and the files that were appended to it as a zip.

The packages that have the schema as Python code are MediaPipe, whose wheel of 35 MB (0.10.14) needs OpenCV and JAX, and
tflite-support, which had its last release in 2023; both follow offsets unchecked. So the published schema stands here,
for the runtime's own walk over flatbuffers. Metadata and zip are hostile: sizes are bounded before anything is
unpacked, and names in the zip are looked up and never used as paths.

Source: MediaPipe, tasks/metadata/metadata_schema.fbs, version 1.5.0.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.skeletons.cut_file import CutFile
from seed_runtime.skeletons.flatbuffer import Table, Vector, Walker

METADATA_MAX: Final = 4 << 20
"""Largest metadata [B]; those of the public models have up to 1.3 KB, and anchors of a detector some 500 KB."""
ARCHIVE_MAX: Final = 4 << 20
"""Bytes at the end of a file in which the zip is looked for [B]: its list of names has some 90,000 entries at most."""
LABELS_FILE_MAX: Final = 1 << 20
"""Largest file of labels, unpacked [B]."""
CHANNELS_MAX: Final = 4
"""Largest number of means or of standard deviations."""
_NAME: Final = b"TFLITE_METADATA"
_IDENTIFIER: Final = b"M001"
_TEXT_MAX: Final = 256
"""Largest part of a text that is read [B]."""
_WHERE: Final = "TFLite metadata"
_AXIS_LABELS: Final = 2
"""Type of a file whose lines name the elements of a tensor."""
_PICTURE, _NORMALIZATION, _CALIBRATION, _THRESHOLD = "ImageProperties", 1, 2, 3
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways of packing whose memory is bounded."""


def _named(text: str) -> tuple[tuple[str, str], ...]:
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


_TABLES: Final = {
    "ModelMetadata": _named(
        "name s description s version s subgraph_metadata [SubGraphMetadata author s license s "
        "associated_files [AssociatedFile min_parser_version s"
    ),
    "SubGraphMetadata": _named(
        "name s description s input_tensor_metadata [TensorMetadata output_tensor_metadata [TensorMetadata "
        "associated_files [AssociatedFile input_process_units [ProcessUnit output_process_units [ProcessUnit "
        "input_tensor_groups [TensorGroup output_tensor_groups [TensorGroup custom_metadata [CustomMetadata"
    ),
    "TensorMetadata": _named(
        "name s description s dimension_names [s content Content process_units [ProcessUnit stats Stats "
        "associated_files [AssociatedFile"
    ),
    "AssociatedFile": _named("name s description s type b locale s version s"),
    "Content": _named("content_properties_type B content_properties ContentProperties range ValueRange"),
    "FeatureProperties": (),
    "ImageProperties": _named("color_space b default_size ImageSize"),
    "ImageSize": _named("width I height I"),
    "BoundingBoxProperties": _named("index [I type b coordinate_type b"),
    "AudioProperties": _named("sample_rate I channels I"),
    "ValueRange": _named("min i max i"),
    "ProcessUnit": _named("options_type B options ProcessUnitOptions"),
    "NormalizationOptions": _named("mean [f std [f"),
    "ScoreCalibrationOptions": _named("score_transformation b default_score f"),
    "ScoreThresholdingOptions": _named("global_score_threshold f"),
    "BertTokenizerOptions": _named("vocab_file [AssociatedFile"),
    "SentencePieceTokenizerOptions": _named("sentencePiece_model [AssociatedFile vocab_file [AssociatedFile"),
    "RegexTokenizerOptions": _named("delim_regex_pattern s vocab_file [AssociatedFile"),
    "Stats": _named("max [f min [f"),
    "TensorGroup": _named("name s tensor_names [s"),
    "CustomMetadata": _named("name s data [B"),
}
"""Name and kind of each field, as in seed_runtime.skeletons.tflite_schema."""
_UNIONS: Final = {
    "ContentProperties": {1: "FeatureProperties", 2: _PICTURE, 3: "BoundingBoxProperties", 4: "AudioProperties"},
    "ProcessUnitOptions": {
        _NORMALIZATION: "NormalizationOptions",
        _CALIBRATION: "ScoreCalibrationOptions",
        _THRESHOLD: "ScoreThresholdingOptions",
        4: "BertTokenizerOptions",
        5: "SentencePieceTokenizerOptions",
        6: "RegexTokenizerOptions",
    },
}


@dataclass(frozen=True)
class TensorMetadata:
    """What is said of one input or output."""

    color_space: int | None
    """Number of a picture's colors: 0 where they aren't stated, 1 for RGB, 2 for gray; None for what is no picture."""
    size: tuple[int, int] | None
    """Height and width of a picture where the model leaves them free."""
    mean: tuple[float, ...]
    """Subtracted from bytes, one for all channels or one for each; none where nothing is said."""
    std: tuple[float, ...]
    """What the difference is divided by."""
    threshold: float | None
    """Least score."""
    is_calibrated: bool
    """Whether a file has a function for each score."""
    labels: str | None
    """Name of the first file whose lines name its elements."""


@dataclass(frozen=True)
class Metadata:
    """What a file says of its first subgraph."""

    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    license: str


def read(data: memoryview) -> Metadata | None:
    """Read the metadata of a whole TFLite file that was checked; None where it has none.

    Raises:
        FormatError: they are damaged, or larger than is read.
        UnsupportedError: they are of a newer schema.
    """
    found = _bytes_of(data)
    if found is None:
        return None
    walker = Walker(CutFile.whole(found), _TABLES, _UNIONS, {})
    try:
        model: Table = walker.root("ModelMetadata", _IDENTIFIER, "metadata")
        subgraphs = model.get("subgraph_metadata", [])
        if not subgraphs:
            return None
        inputs, outputs = (
            tuple(_tensor(walker, each) for each in subgraphs[0].get(f"{end}_tensor_metadata", []))
            for end in ("input", "output")
        )
        return Metadata(inputs, outputs, walker.text(model.get("license"), "license", _TEXT_MAX))
    except LimitError as error:
        raise LimitError(error.where.replace("skeleton", _WHERE), error.value, error.limit) from None
    except FormatError as error:
        raise FormatError(_WHERE, error.problem) from None


def appended(data: memoryview, name: str) -> bytes | None:
    """Return a file of the zip at the end of a TFLite file; None where there is none of this name.

    Raises:
        FormatError: it is damaged, packed in another way than those of the tools, or larger than is read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data[-ARCHIVE_MAX:])) as archive:
            if name not in archive.NameToInfo:
                return None
            entry = archive.NameToInfo[name]
            if entry.compress_type not in _METHODS:
                raise FormatError(_WHERE, f"{name!r} is packed by method {entry.compress_type}")
            with archive.open(entry) as file:
                # What the zip says of its size isn't relied on.
                content = file.read(LABELS_FILE_MAX + 1)
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError
    ) as error:  # fmt: skip
        raise FormatError(_WHERE, f"the files that were appended to the model can't be read: {error}") from None
    if len(content) > LABELS_FILE_MAX:
        raise LimitError(f"{_WHERE}: {name}", len(content), LABELS_FILE_MAX)
    return content


def input_quantization(data: memoryview) -> tuple[float, int] | None:
    """Return the quantization step of the first input of a checked file, and what stands for 0; None without both."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    found = graph.Tensors(graph.Inputs(0)).Quantization()
    if found is None or found.ScaleLength() != 1 or found.ZeroPointLength() != 1:
        return None
    return found.Scale(0), found.ZeroPoint(0)


def _bytes_of(data: memoryview) -> memoryview | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == _NAME and entry.Buffer() < model.BuffersLength():
            buffer = model.Buffers(entry.Buffer())
            if buffer.DataLength() > METADATA_MAX:
                raise LimitError(_WHERE, buffer.DataLength(), METADATA_MAX)
            return memoryview(buffer.DataAsNumpy()) if buffer.DataLength() else None
    return None


def _tensor(walker: Walker, table: Table) -> TensorMetadata:
    content = table.get("content", {})
    is_picture = _UNIONS["ContentProperties"].get(content.get("content_properties_type", 0)) == _PICTURE
    picture: Table | None = content.get("content_properties") if is_picture else None
    size = (picture or {}).get("default_size")
    units: dict[int, Table] = {}
    for unit in table.get("process_units", []):
        if "options" not in unit:
            continue
        if unit["options_type"] in units:
            # MediaPipe refuses it too, and nothing says which of them counts.
            raise FormatError(_WHERE, f"a tensor has two process units of type {unit['options_type']}")
        units[unit["options_type"]] = unit["options"]
    numbers = units.get(_NORMALIZATION, {})
    named = (
        walker.text(each.get("name"), "the name of a file", _TEXT_MAX)
        for each in table.get("associated_files", [])
        if each.get("type") == _AXIS_LABELS
    )
    return TensorMetadata(
        None if picture is None else picture.get("color_space", 0),
        None if size is None else (size.get("height", 0), size.get("width", 0)),
        _floats(walker, numbers.get("mean")),
        _floats(walker, numbers.get("std")),
        units.get(_THRESHOLD, {}).get("global_score_threshold"),
        _CALIBRATION in units,
        next(named, None),
    )


def _floats(walker: Walker, vector: Vector | None) -> tuple[float, ...]:
    if vector is None:
        return ()
    if vector.length > CHANNELS_MAX:
        raise LimitError(f"{_WHERE}: channels", vector.length, CHANNELS_MAX)
    numbers: list[Any] = walker.numbers(vector, "normalization").tolist()
    return tuple(numbers)
