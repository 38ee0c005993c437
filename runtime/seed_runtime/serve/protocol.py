"""Messages of the Open Inference Protocol, version 2, over REST, with the extension for binary tensors.

A request is JSON, followed by the bytes of the tensors that are sent as binary data, in the order of the inputs.
Answers have the same form. `parameters` other than those of the extension are ignored, as are unknown keys.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md;
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from seed_runtime.backends import Array, Feeds, TensorSpec, names_of
from seed_runtime.errors import InputError
from seed_runtime.limits import RANK_MAX
from seed_runtime.serve import numbers, texts
from seed_runtime.serve.limits import EMPTY_MAX, ENVELOPE_MAX, ID_MAX
from seed_runtime.version import __version__

if TYPE_CHECKING:
    from seed_runtime.processing import Processing
    from seed_runtime.processing.generation import Generation, Tokenizer

DATATYPES: Final = {"string": "BYTES", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"} | {
    f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
"""The protocol's names of our types. There are no tensors of its type BF16 here."""
EXTENSIONS: Final = ("binary_tensor_data", "statistics")
"""Extensions of the protocol that are supported."""
_DIM_MAX: Final = 1 << 31
"""Upper bound of a tensor's sizes."""


@dataclass(frozen=True)
class Writer:
    """What writes texts."""

    generation: Generation
    tokenizer: Tokenizer
    run_into: Callable[[Feeds, Mapping[str, Array], Sequence[str]], dict[str, Array]]
    """Runs the model once, see `Session.run_into`. It is called by one thread at a time."""
    admit: Callable[[Feeds, int], None]
    """Raises MemoryBudgetError for feeds that memory has no room for beside so many bytes, see `Session.admit`."""


@dataclass(frozen=True)
class ServedModel:
    """The model that is served."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Feeds], Mapping[str, Array]]
    """Runs the model once. It is called by one thread at a time."""
    optional_inputs: tuple[TensorSpec, ...] = ()
    """Inputs that have a default."""
    digest: str = ""
    """The seed's digest, in hexadecimal."""
    takes_empty: bool = True
    """False if an empty tensor might end the process."""
    processing: Processing | None = None
    """What stands before and behind it; None where its seed doesn't say."""
    writer: Writer | None = None
    """Writes texts; None where its seed doesn't say how, or this runtime can't."""
    writes_not: str = ""
    """Why this runtime can't, with the next step."""
    memory_limit: int | None = None
    """Limit of --max-memory, for what is decoded; None for none [B]."""
    backend: str = "onnxruntime"
    """Name of the backend that runs it."""

    def metadata(self) -> dict[str, Any]:
        """Return the answer to a request for the model's metadata."""
        asked: dict[str, Any] = {}
        if self.processing is not None:
            asked = {"parameters": {"asked_about": list(self.processing.media)}}
        elif self.writer is not None:
            asked = {"parameters": {"generates_text": True}}
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": f"seed_{self.backend}",
            "inputs": [
                *(_describe(spec) for spec in self.inputs),
                *({**_describe(spec), "optional": True} for spec in self.optional_inputs),
            ],
            "outputs": [_describe(spec) for spec in self.outputs],
            **asked,
        }


@dataclass(frozen=True)
class Request:
    """One inference."""

    id: str | None
    """The client's name for it."""
    feeds: Feeds
    outputs: tuple[tuple[str, bool], ...]
    """Names of the specs of the outputs that are asked for, in order, and whether each is sent as binary data."""


def server_metadata() -> dict[str, Any]:
    """Return the answer to a request for the server's metadata."""
    return {"name": "seed-run", "version": __version__, "extensions": list(EXTENSIONS)}


def read_request(body: bytearray | memoryview, json_size: int, model: ServedModel) -> Request:
    """Parse a request.

    Names, types and sizes are checked before anything is converted. Relations between shapes, and NaN, are checked
    when the model is run.

    Args:
        body: the request. Binary tensors in the result are views of it.
        json_size: the number of bytes at its beginning that are JSON.
        model: the model that it is for.

    Raises:
        InputError: it can't be used.
    """
    view = memoryview(body)
    if json_size > ENVELOPE_MAX and json_size < len(body):
        raise InputError(f"the JSON before binary data has at most {ENVELOPE_MAX:,} bytes")
    found, arrays = numbers.extract_arrays(view[:json_size])
    identifier = found.get("id")
    if not (identifier is None or (isinstance(identifier, str) and len(identifier) <= ID_MAX)):
        raise InputError(f"id must be a string of at most {ID_MAX} characters")
    feeds: dict[str, Array] = {}
    place = json_size
    specs = {spec.name: spec for spec in (*model.inputs, *model.optional_inputs)}
    for entry in _objects(found, "inputs", required=True):
        spec = _spec_of(entry, specs)
        where = f"input {spec.name!r}"
        if spec.name in feeds:
            raise InputError(f"{where} is given twice")
        shape, size = _shape(entry, spec, model.takes_empty), _parameters(entry, where).get("binary_data_size")
        is_text = spec.dtype == "string"
        if size is None and is_text and "data" in entry:
            feeds[spec.name] = texts.read_texts(where, entry["data"], shape)
            continue
        if size is None:
            text = numbers.find_array(entry.get("data"), arrays)
            if text is None:
                raise InputError(f"{where} has no data; send a list of numbers, or binary_data_size and the bytes")
            feeds[spec.name] = numbers.read_array(where, text, shape, np.dtype(spec.dtype))
            continue
        if "data" in entry:
            raise InputError(f"{where} has both data and binary_data_size; send one of them")
        wanted = None if is_text else math.prod(shape) * np.dtype(spec.dtype).itemsize
        if type(size) is not int or size < 0 or wanted not in (None, size):
            make = "a whole number is needed" if wanted is None else f"its shape and datatype make {wanted:,}"
            raise InputError(f"{where}: binary_data_size is {_short(size)}, {make}")
        if size > len(view) - place:
            raise InputError(f"{where}: {size:,} bytes of binary data are announced, {len(view) - place:,} came")
        data = view[place : place + size]
        feeds[spec.name] = (
            texts.read_text_bytes(where, data, shape)
            if is_text
            else _from_bytes(where, data, shape, np.dtype(spec.dtype))
        )
        place += size
    if place != len(view):
        raise InputError(f"{len(view) - place:,} bytes stand behind the request that no binary_data_size announces")
    for name in (spec.name for spec in model.inputs):
        if name not in feeds:
            raise InputError(f"input {name!r} is missing; the model expects {', '.join(map(_text, model.inputs))}")
    return Request(identifier, feeds, _outputs(found, model))


def write_answer(model: ServedModel, request: Request, values: Mapping[str, Array]) -> tuple[int | None, Iterator[Any]]:
    """Write an answer.

    Args:
        model: the model.
        request: what was asked for.
        values: the outputs.

    Returns:
        The size of the JSON at the beginning if binary data follow, else None; and the answer's bytes in portions.
    """
    entries: list[dict[str, Any]] = []
    binary: list[memoryview] = []
    wanted = [(name, as_bytes) for spec, as_bytes in request.outputs for name in names_of(spec, values)]
    for name, as_bytes in wanted:
        array = values[name]
        datatype = DATATYPES["string" if array.dtype.kind == "O" else array.dtype.name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if as_bytes:
            data = _to_bytes(array)
            entry["parameters"] = {"binary_data_size": data.nbytes}
            binary.append(data)
        entries.append(entry)
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        head["id"] = request.id
    if binary and all(as_bytes for _, as_bytes in wanted):
        text = json.dumps({**head, "outputs": entries}).encode()
        return len(text), iter([text, *binary])
    parts = _json_parts(head, entries, [None if as_bytes else values[name] for name, as_bytes in wanted])
    if not binary:
        return None, parts
    # A header gives the size of the JSON, so it is put together before it is sent.
    text = b"".join(parts)
    return len(text), iter([text, *binary])


def _json_parts(
    head: Mapping[str, Any], entries: Sequence[dict[str, Any]], arrays: Sequence[Array | None]
) -> Iterator[bytes]:
    yield json.dumps(head)[:-1].encode() + b', "outputs": ['
    for index, (entry, array) in enumerate(zip(entries, arrays, strict=True)):
        text = json.dumps(entry).encode()
        yield b", " + text[:-1] if index else text[:-1]
        if array is not None:
            yield b', "data": '
            yield from texts.write_texts(array) if array.dtype.kind == "O" else numbers.write_array(array)
        yield b"}"
    yield b"]}"


def _describe(spec: TensorSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": spec.name, "datatype": DATATYPES[spec.dtype]}
    if spec.shape is None:
        # The protocol has no word for a tensor of any number of axes, and clients expect a list.
        return found | {"shape": [-1], "parameters": {"any_shape": True}}
    return found | {"shape": [size if isinstance(size, int) else -1 for size in spec.shape]}


def _text(spec: TensorSpec) -> str:
    found = _describe(spec)
    return f"{spec.name}: {found['datatype']}{'[any shape]' if spec.shape is None else found['shape']}"


def _objects(found: Mapping[str, Any], key: str, *, required: bool) -> list[dict[str, Any]]:
    entries = found.get(key)
    if entries is None and not required:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"the request needs {key}, a list of objects")
    return entries


def _spec_of(entry: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> TensorSpec:
    """Return the input that an entry is for, its name and datatype checked."""
    name = entry.get("name")
    if not isinstance(name, str) or name not in specs:
        expected = ", ".join(map(_text, specs.values())) or "none"
        raise InputError(f"the model has no input {_short(name)}; it expects {expected}")
    if entry.get("datatype") != DATATYPES[specs[name].dtype]:
        given = _short(entry.get("datatype"))
        raise InputError(f"input {name!r}: datatype {given} was given, the model expects {_text(specs[name])}")
    return specs[name]


def _shape(entry: Mapping[str, Any], spec: TensorSpec, takes_empty: bool) -> tuple[int, ...]:
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > RANK_MAX
        or not all(type(size) is int and 0 <= size < _DIM_MAX for size in shape)
    ):
        raise InputError(f"input {spec.name!r}: shape must be a list of at most {RANK_MAX} integers from 0 on")
    fits = spec.shape is None or (
        len(shape) == len(spec.shape)
        and all(size == want or not isinstance(want, int) for size, want in zip(shape, spec.shape, strict=True))
    )
    if 0 in shape and not takes_empty:
        raise InputError(
            f"input {spec.name!r}: shape {shape} is empty, on which operators of this model end the process; "
            f"send no empty tensors"
        )
    # The body says nothing about the other sizes then, and outputs may be as large as they are.
    if 0 in shape and math.prod(size or 1 for size in shape) > EMPTY_MAX:
        raise InputError(
            f"input {spec.name!r}: shape {shape} is empty, and its other sizes make more than {EMPTY_MAX:,}"
        )
    if not fits:
        raise InputError(f"input {spec.name!r}: shape {shape} was given, the model expects {_text(spec)}")
    return tuple(shape)


def _parameters(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"{where}: parameters must be an object")
    return parameters


def _to_bytes(array: Array) -> memoryview:
    if array.dtype.kind == "O":
        return texts.write_text_bytes(array)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _from_bytes(where: str, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        flags = np.frombuffer(data, np.uint8)
        if flags.size and flags.max() > 1:
            raise InputError(f"{where}: a BOOL is a byte of 0 or 1")
    array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    # ONNX Runtime reads whole words, and the JSON before may have any length.
    return np.require(array, requirements="A")


def _outputs(found: Mapping[str, Any], model: ServedModel) -> tuple[tuple[str, bool], ...]:
    known = [spec.name for spec in model.outputs]
    default = _flag(_parameters(found, "the request"), "binary_data_output", False)
    entries = _objects(found, "outputs", required=False)
    if not entries:
        return tuple((name, default) for name in known)
    wanted: dict[str, bool] = {}
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or name not in known:
            raise InputError(f"the model has no output {_short(name)}; it has {', '.join(known)}")
        if name in wanted:
            raise InputError(f"output {name!r} is asked for twice")
        wanted[name] = _flag(_parameters(entry, f"output {name!r}"), "binary_data", default)
    return tuple(wanted.items())


def _flag(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
