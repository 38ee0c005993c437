"""Whole seeds of any tensors and streams, as SPEC.md writes them. What they decode to comes from the plain decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.conformance.support.symbols import stored
from tests.conformance.support.vector import Hole, Vector
from tests.golden import plain, plain_codecs
from tests.support.spec_bytes import block, number, string, u8, u16, u32, u64, varint

RAW, GRID, SPLIT, MOMENTS, LOWRANK, DELTA, ADAPTIVE, INTEGERS = 1, 2, 3, 4, 5, 7, 8, 9
MODEL, WEIGHTS, PARTS, HOLES, STREAMS, GOLDEN, FOOTPRINT, SIGNATURE = 1, 2, 3, 4, 5, 0x8006, 0x8007, 0xFFFF
BASE, TUNED = 8, 0x8009
OPSET = block(8, number(2, 17))
"""Operators of the domain "", version 17."""


@dataclass(frozen=True)
class Tensor:
    """A hole: the number of its dtype, and its dimensions."""

    dtype: int
    dims: Sequence[int]


@dataclass(frozen=True)
class Stream:
    """One codec's chunks, and the tensors that they fill."""

    codec: int
    tensors: Sequence[Tensor]
    chunks: Sequence[bytes]
    data: bytes | None = None
    """The bytes of all tensors, where the plain decoder would take long to find them."""


@dataclass(frozen=True)
class Part:
    """A part behind the skeleton."""

    kind: int
    packing: int
    raw_size: int
    data: bytes
    names: str | None = None
    """What names begin with in the end of the part, which is left out; None for a whole part."""


@dataclass(frozen=True)
class Options:
    """What a seed may have beside its streams."""

    model: bytes = string("vector") + varint(1) + varint(1) + varint(4) + varint(16)
    """Payload of MODEL."""
    sections: Mapping[int, bytes] | None = None
    """Optional sections by id."""
    parts: Sequence[Part] = ()
    pack: Callable[[bytes], tuple[int, bytes]] = stored
    """Packing of the skeleton."""
    graph: bytes | None = None
    """All of the graph but its initializers in the weights file."""
    first: bytes = number(1, 8)
    """Fields of the skeleton before the graph."""
    last: bytes = OPSET
    """Fields behind it."""
    names: str | None = None
    """What the names of initializers begin with that are left out, as the last bytes of the skeleton; None for none."""


def value(field: int, name: str, dims: Sequence[int | str] | None, code: int = 1) -> bytes:
    """Return an input or output of the graph: a tensor; None for one of unknown rank."""
    shape = b"" if dims is None else block(2, b"".join(block(1, _dim(dim)) for dim in dims))
    return block(field, block(1, name) + block(2, block(1, number(1, code) + shape)))


def _dim(dim: int | str) -> bytes:
    return number(1, dim) if isinstance(dim, int) else block(2, dim)


def identity() -> bytes:
    """Return the graph y = Identity(x), with x of any number of 3 x 4 arrays."""
    node = block(1, block(1, "x") + block(2, "y") + block(4, "Identity"))
    return node + block(2, "g") + value(11, "x", ["n", 3, 4]) + value(12, "y", ["n", 3, 4])


def build(name: str, tests: str, streams: Sequence[Stream], options: Options | None = None) -> Vector:
    """Return the vector of a valid seed."""
    options = options or Options()
    tensors = [tensor for stream in streams for tensor in stream.tensors]
    names = [f"t{index}" for index in range(len(tensors))]
    holes, weights = place(streams)
    skeleton, parts = _parts(options, holes)
    sections = {
        PARTS: varint(len(parts)) + b"".join(map(_part, parts)),
        HOLES: _holes(tensors, names),
    }
    seed = _seed(options, sections, parts, streams, weights)
    return Vector(name, tests, seed, model=skeleton, weights=weights, holes=holes)


def build_tflite(name: str, tests: str, streams: Sequence[Stream], skeleton: bytes) -> Vector:
    """Return the vector of a seed of a TFLite skeleton; what it decodes to comes from the plain decoder."""
    holes, weights = place(streams)
    seed = seed_of_tflite(streams, skeleton)
    return Vector(name, tests, seed, weights=weights, holes=holes, tflite=plain.decode_all(seed).tflite())


def seed_of_tflite(streams: Sequence[Stream], skeleton: bytes) -> bytes:
    """Return the bytes of a seed of a TFLite skeleton."""
    tensors = [tensor for stream in streams for tensor in stream.tensors]
    parts = [Part(2, 0, len(skeleton), skeleton)]
    holes = _holes(tensors, [f"t{index}" for index in range(len(tensors))])
    sections = {PARTS: varint(1) + _part(parts[0]), HOLES: holes}
    return _seed(Options(), sections, parts, streams, place(streams)[1])


def build_on(
    name: str,
    tests: str,
    base: Vector,
    streams: Sequence[Stream],
    options: Options | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Vector:
    """Return the vector of a valid seed with a base.

    Args:
        name: of the vector.
        tests: what it has that others have not.
        base: the vector of the base.
        streams: of the seed.
        options: what it may have beside.
        names: of the tensors, for a seed with a skeleton and holes of its own; None for the base's.
    """
    options = options or Options()
    decoded = plain.decode_all(base.seed, [each.seed for each in base.bases])
    tensors = [tensor for stream in streams for tensor in stream.tensors]
    holes, weights = place(streams, decoded, names)
    sections = {BASE: decoded.digest + varint(decoded.depth + 1)}
    skeleton, parts = base.model, list[Part]()
    if names is not None:
        skeleton, parts = _parts(options, holes)
        sections |= {PARTS: varint(len(parts)) + b"".join(map(_part, parts)), HOLES: _holes(tensors, names)}
    seed = _seed(options, sections, parts, streams, weights)
    bases = (base, *base.bases)
    return Vector(name, tests, seed, model=skeleton, weights=weights, holes=holes, bases=bases)


def _parts(options: Options, holes: Sequence[Hole]) -> tuple[bytes, list[Part]]:
    """Return the skeleton, and all parts."""
    if options.names is None:
        carried = skeleton = options.first + block(7, _graph(options, holes)) + options.last
    else:
        skeleton = options.first + options.last + block(7, _graph(options, holes))
        carried = skeleton[: len(skeleton) - len(_initializers(options, holes))]
    packing, packed = options.pack(carried)
    return skeleton, [Part(1, packing, len(skeleton), packed, options.names), *options.parts]


def _seed(
    options: Options, sections: Mapping[int, bytes], parts: Sequence[Part], streams: Sequence[Stream], weights: bytes
) -> bytes:
    whole = {
        MODEL: options.model,
        WEIGHTS: varint(len(weights)) + hashlib.sha256(weights).digest() + varint(1 << 20),
        STREAMS: varint(len(streams)) + b"".join(map(_stream, streams)),
    }
    whole |= dict(sections) | dict(options.sections or {})
    header = b"".join(u16(number_) + u32(len(payload)) + payload for number_, payload in sorted(whole.items()))
    body = b"".join(part.data for part in parts) + b"".join(chunk for stream in streams for chunk in stream.chunks)
    return seal(header, body)


def seal(header: bytes, body: bytes, version: int = 1, flags: int = 0) -> bytes:
    """Return the seed of a header, and the parts and chunks behind it."""
    front = b"\x89SEED\r\n\x1a" + u16(version) + u16(flags) + u32(len(header)) + u64(56 + len(header) + len(body))
    return front + hashlib.sha256(front + header).digest() + header + body


def place(
    streams: Sequence[Stream], base: plain.Decoded | None = None, names: Sequence[str] | None = None
) -> tuple[list[Hole], bytes]:
    """Return the holes of all streams, and the weights file; for the arguments see `build_on`."""
    holes: list[Hole] = []
    weights = b""
    for stream in streams:
        first = len(holes)
        mine = [plain.Hole(tensor.dtype, 0, list(tensor.dims)) for tensor in stream.tensors]
        data = stream.data
        if stream.codec == DELTA and data is None:
            assert base is not None
            for index, hole in enumerate(mine if names is not None else []):
                hole.name_digest = _name_digest((names or [])[first + index])
            data = plain_codecs.delta(mine, list(stream.chunks), plain.of_base(base, names is None, first, mine))
        elif data is None:
            data = plain.CODECS[stream.codec](mine, list(stream.chunks))
        assert len(data) == sum(hole.size for hole in mine)
        for tensor, hole in zip(stream.tensors, mine, strict=True):
            weights += bytes(-len(weights) % 64)
            holes.append(Hole(tensor.dtype, tensor.dims, len(weights)))
            weights, data = weights + data[: hole.size], data[hole.size :]
    return holes, weights


def _name_digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:3]


def _graph(options: Options, holes: Sequence[Hole]) -> bytes:
    return (options.graph if options.graph is not None else identity()) + _initializers(options, holes)


def _initializers(options: Options, holes: Sequence[Hole]) -> bytes:
    out = b""
    for index, hole in enumerate(holes):
        name = f"t{index}" if options.names is None else options.names + plain.numbered(index).decode()
        size = plain.Hole(hole.dtype, 0, list(hole.dims)).size
        tensor = b"".join(number(1, dim) for dim in hole.dims) + number(2, hole.dtype) + block(8, name)
        for key, text in (("location", "model.weights"), ("offset", str(hole.offset)), ("length", str(size))):
            tensor += block(13, block(1, key) + block(2, text))
        out += block(5, tensor + number(14, 1))
    return out


def _part(part: Part) -> bytes:
    sizes = varint(part.raw_size) + varint(len(part.data))
    front = u16(part.kind) + u8(part.packing + (0 if part.names is None else 0x80)) + sizes
    return front + hashlib.sha256(part.data).digest() + (b"" if part.names is None else string(part.names))


def _holes(tensors: Sequence[Tensor], names: Sequence[str]) -> bytes:
    records = b"".join(
        u8(tensor.dtype) + varint(len(tensor.dims)) + b"".join(map(varint, tensor.dims)) for tensor in tensors
    )
    digests = b"".join(map(_name_digest, names))
    return varint(len(tensors)) + digests + u8(0) + varint(len(records)) + records


def _stream(stream: Stream) -> bytes:
    out = u8(stream.codec) + varint(len(stream.tensors)) + varint(len(stream.chunks))
    out += b"".join(varint(len(chunk)) for chunk in stream.chunks)
    return out + b"".join(hashlib.sha256(chunk).digest()[:16] for chunk in stream.chunks)
