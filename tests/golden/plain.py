"""A decoder of seeds written from SPEC.md alone, with the standard library: slow, and in nothing like the runtime.

It checks little; that the runtime refuses what it must is tested elsewhere. It shows that the document is enough, and
that both read the same weights from it. Codecs and symbol streams are in the files beside it.
"""

from __future__ import annotations

import hashlib
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.golden.plain_bytes import BITS, Bytes, Hole, unpack
from tests.golden.plain_codecs import CODECS, LOW_BITS_OF_SPLIT, Base, delta, normal, splitmix

__all__ = ["BITS", "CODECS", "LOW_BITS_OF_SPLIT", "Decoded", "Hole", "decode", "decode_all", "normal", "splitmix"]


@dataclass
class Decoded:
    """A seed that was decoded, as a seed on top of it needs it."""

    digest: bytes
    depth: int
    holes: list[Hole]
    skeleton: bytes
    weights: bytes
    kind: int = 1

    def files(self) -> dict[str, bytes]:
        """Return the files of the model."""
        if self.kind == 1:
            return {"model.onnx": self.skeleton, "model.weights": self.weights}
        return {"model.tflite": self.tflite()}

    def tflite(self) -> bytes:
        """Return the model of a TFLite skeleton: what was kept, with each hole in its range."""
        part = Bytes(self.skeleton)
        count = part.uint(4)
        assert count == len(self.holes)
        gaps = [part.uint(4) for _ in range(count)]
        numbers = [part.uint(2) for _ in range(count)]
        model = b""
        for gap, number in zip(gaps, numbers, strict=True):
            model += part.take(gap)
            assert int.from_bytes(model[-4:], "little") == self.holes[number].size
            model += self.hole(number)
        return model + part.rest()

    def hole(self, index: int) -> bytes:
        """Return the bytes of a hole."""
        at = sum(hole.skip + hole.size for hole in self.holes[:index]) + self.holes[index].skip
        return self.weights[at : at + self.holes[index].size]

    def like(self, hole: Hole) -> bytes:
        """Return the bytes of the only hole with the same digest of its name, dtype and dimensions."""
        key = hole.name_digest, hole.dtype, hole.dims
        (index,) = [i for i, mine in enumerate(self.holes) if (mine.name_digest, mine.dtype, mine.dims) == key]
        return self.hole(index)


def decode(seed: bytes, bases: Sequence[bytes] = ()) -> tuple[bytes, bytes]:
    """Return the skeleton and the weights file of a seed; its bases are its own one, that one's base, and so on."""
    found = decode_all(seed, bases)
    return found.skeleton, found.weights


def decode_all(seed: bytes, bases: Sequence[bytes] = ()) -> Decoded:
    """Decode a seed and its bases."""
    base = None
    for each in reversed(bases):
        base = decode_on(each, base)
    return decode_on(seed, base)


def decode_on(seed: bytes, base: Decoded | None) -> Decoded:
    """Decode a seed on top of another one."""
    front = Bytes(seed)
    assert front.take(8) == bytes.fromhex("89534545440d0a1a")
    assert (front.uint(2), front.uint(2)) == (1, 0)
    header_size, file_size, digest = front.uint(4), front.uint(8), front.take(32)
    assert file_size == len(seed)
    header = Bytes(front.take(header_size))
    assert hashlib.sha256(seed[:24] + header.data).digest() == digest
    sections = {}
    while header.at < header_size:
        number = header.uint(2)
        sections[number] = Bytes(header.take(header.uint(4)))
    weights_size, weights_digest, depth = sections[2].varint(), sections[2].take(32), 0
    if 8 in sections:
        assert base is not None
        assert sections[8].take(32) == base.digest
        depth = sections[8].varint()
        assert depth == base.depth + 1
        assert (3 in sections) == (4 in sections)
    else:
        assert base is None
    skeleton, holes = (b"", list[Hole]()) if base is None else (base.skeleton, base.holes)
    model_kind = 1 if base is None else base.kind
    if 3 in sections:
        model_kind, skeleton, holes = _parts_and_holes(sections[3], sections[4], front)
    weights, first = b"", 0
    for _ in range(sections[5].varint()):
        codec, taken, count = sections[5].uint(1), sections[5].varint(), sections[5].varint()
        sizes = [sections[5].varint() for _ in range(count)]
        digests = [sections[5].take(16) for _ in range(count)]
        chunks = [front.take(size) for size in sizes]
        assert [hashlib.sha256(chunk).digest()[:16] for chunk in chunks] == digests
        mine = holes[first : first + taken]
        if codec == 7:
            assert base is not None
            data = delta(mine, chunks, of_base(base, holes is base.holes, first, mine))
        else:
            data = CODECS[codec](mine, chunks)
        for hole in mine:
            weights += bytes(hole.skip) + data[: hole.size]
            data = data[hole.size :]
        assert not data
        first += taken
    assert front.at == len(seed)
    assert len(weights) == weights_size
    assert hashlib.sha256(weights).digest() == weights_digest
    return Decoded(digest, depth, holes, skeleton, weights, model_kind)


def of_base(base: Decoded, shared: bool, first: int, holes: list[Hole]) -> Base:
    """Return a function that gives the bytes of the base's hole for a hole of a stream."""
    return (lambda index: base.hole(first + index)) if shared else (lambda index: base.like(holes[index]))


def _parts_and_holes(parts_section: Bytes, section: Bytes, front: Bytes) -> tuple[int, bytes, list[Hole]]:
    """Read PARTS and HOLES, and the parts."""
    parts = []
    for _ in range(parts_section.varint()):
        kind, packing = parts_section.uint(2), parts_section.uint(1)
        part = kind, packing, parts_section.varint(), parts_section.varint(), parts_section.take(32)
        parts.append((*part, parts_section.take(parts_section.varint()) if kind == 1 and packing & 0x80 else None))
    holes, end, count = [], 0, section.varint()
    digests = section.take(3 * count)
    packing, size = section.uint(1), section.varint()
    records = Bytes(unpack(packing, section.rest()))
    assert len(records.data) == size
    for index in range(count):
        dtype, rank = records.uint(1), records.varint()
        holes.append(Hole(dtype, -end % 64, [records.varint() for _ in range(rank)]))
        holes[-1].name_digest = digests[3 * index : 3 * index + 3]
        end += -end % 64 + holes[-1].size
    skeleton, skeleton_kind = b"", 1
    for kind, packing, raw_size, size, part_digest, names in parts:
        data = front.take(size)
        assert hashlib.sha256(data).digest() == part_digest
        if kind in (1, 2):
            skeleton_kind = kind
            skeleton = unpack(packing & 0x7F, data) + (b"" if names is None else initializers(names, holes))
            assert len(skeleton) == raw_size
    return skeleton_kind, skeleton, holes


def initializers(names: bytes, holes: list[Hole]) -> bytes:
    """Return the fields of a graph that a seed leaves out."""

    def field(tag: int, data: bytes) -> bytes:
        return number(tag) + number(len(data)) + data

    out, end = b"", 0
    for index, hole in enumerate(holes):
        offset = end + hole.skip
        end = offset + hole.size
        tensor = b"".join(number(0x08) + number(dim) for dim in hole.dims) + number(0x10) + number(hole.dtype)
        tensor += field(0x42, names + numbered(index))
        for key, value in ((b"location", "model.weights"), (b"offset", str(offset)), (b"length", str(hole.size))):
            tensor += field(0x6A, field(0x0A, key) + field(0x12, value.encode()))
        out += field(0x2A, tensor + b"\x70\x01")
    return out


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + number(value // 128)


def numbered(index: int) -> bytes:
    digits, length = string.digits + string.ascii_lowercase + string.ascii_uppercase, 1
    while index >= 62**length:
        index, length = index - 62**length, length + 1
    return "".join(digits[index // 62**place % 62] for place in reversed(range(length))).encode()


def main(seed: str, folder: str, *bases: str) -> None:
    """Decode a seed to a folder, as tests/conformance asks."""
    found = decode_all(Path(seed).read_bytes(), [Path(base).read_bytes() for base in bases])
    Path(folder).mkdir()
    for name, data in found.files().items():
        Path(folder, name).write_bytes(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
