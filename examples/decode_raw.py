"""A decoder of seeds whose weights are raw, written from SPEC.md alone with the standard library.

`python examples/decode_raw.py model.seed FOLDER` writes model.onnx and model.weights into a new folder, and
`python -m tests.conformance --valid --decoder "python examples/decode_raw.py" raw-` tries it on vectors of its codec.

Prints:
    model.onnx 240 bytes, model.weights 32 bytes, digests right
"""

from __future__ import annotations

import hashlib
import lzma
import math
import sys
import zlib
from pathlib import Path

MAGIC = bytes.fromhex("89534545440d0a1a")
HEADER_MAX = 1 << 20
BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4}
BITS |= dict.fromkeys((17, 18, 19, 20), 8)
CHUNK_DECODED_MAX = 1 << 20


class Fields:
    """Takes fields from the front of some bytes, and refuses to go past their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("the seed is cut")
        self.at += size
        return self.data[self.at - size : self.at]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a varint is too long")

    def rest(self) -> bytes:
        return self.bytes(len(self.data) - self.at)


def check(data: bytes, digest: bytes) -> bytes:
    """Return the bytes if they have this digest, or begin of a digest."""
    if hashlib.sha256(data).digest()[: len(digest)] != digest:
        raise ValueError("the seed is damaged")
    return data


def unpack(packing: int, data: bytes, size: int) -> bytes:
    """Undo a packing: stored, deflate or LZMA, to at most `size` bytes."""
    if packing == 1:
        out = zlib.decompressobj(-15).decompress(data, size + 1)
    elif packing == 2:
        pb, rest = divmod(data[0], 45)
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << data[1], "lc": rest % 9, "lp": rest // 9, "pb": pb}]
        out = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(data[2:], size + 1)
    else:
        out = data
    if len(out) != size:
        raise ValueError("packed data has another size than stated")
    return out


def decode(seed: bytes) -> tuple[bytes, bytes]:
    """Return the two files of the assembled model, model.onnx and model.weights."""
    file = Fields(seed)
    if file.bytes(8) != MAGIC:
        raise ValueError("not a seed")
    file.uint(4)  # version and flags
    header_size, file_size, digest = file.uint(4), file.uint(8), file.bytes(32)
    if header_size > HEADER_MAX or file_size != len(seed):
        raise ValueError("the seed is damaged")
    header = Fields(file.bytes(header_size))
    check(seed[:24] + header.data, digest)
    sections = {}
    while header.at < header_size:
        number = header.uint(2)
        sections[number] = Fields(header.bytes(header.uint(4)))

    weights_size, weights_digest = sections[2].varint(), sections[2].bytes(32)
    skeleton = read_skeleton(sections[3], file)
    sizes = hole_sizes(sections[4])
    weights, streams = b"", sections[5]
    for _ in range(streams.varint()):
        codec, holes, chunks = streams.uint(1), streams.varint(), streams.varint()
        if codec != 1:
            raise ValueError(f"a stream has codec {codec}; this decoder knows raw, codec 1")
        coded = [streams.varint() for _ in range(chunks)]
        digests = [streams.bytes(16) for _ in range(chunks)]
        mine, sizes = sizes[:holes], sizes[holes:]
        left, data = sum(mine), b""
        for size, chunk_digest in zip(coded, digests, strict=True):
            decoded = min(left, CHUNK_DECODED_MAX)
            data += raw(check(file.bytes(size), chunk_digest), decoded)
            left -= decoded
        for size in mine:
            weights += bytes(-len(weights) % 64) + data[:size]
            data = data[size:]
    if file.rest() or len(weights) != weights_size:
        raise ValueError("the seed is damaged")
    return skeleton, check(weights, weights_digest)


def read_skeleton(parts: Fields, file: Fields) -> bytes:
    """Read PARTS and the parts behind the header, and return the first one: the skeleton."""
    records = []
    for _ in range(parts.varint()):
        kind, packing = parts.uint(2), parts.uint(1)
        records.append((packing, parts.varint(), parts.varint(), parts.bytes(32)))
        if kind == 1 and packing & 0x80:
            raise ValueError("initializers are left out: SPEC.md says how to write them")
    data = [check(file.bytes(size), digest) for _, _, size, digest in records]
    packing, raw_size, _, _ = records[0]
    return unpack(packing, data[0], raw_size)


def hole_sizes(section: Fields) -> list[int]:
    """Read HOLES and return the bytes of each tensor."""
    count = section.varint()
    section.bytes(3 * count)  # digests of names
    packing, size = section.uint(1), section.varint()
    records, sizes = Fields(unpack(packing, section.rest(), size)), []
    for _ in range(count):
        dtype, rank = records.uint(1), records.varint()
        sizes.append((math.prod(records.varint() for _ in range(rank)) * BITS[dtype] + 7) // 8)
    return sizes


def raw(chunk: bytes, size: int) -> bytes:
    """Decode a chunk of codec 1: planes of bytes of equal rank, packed."""
    width = chunk[1]
    planes = unpack(chunk[0], chunk[2:], size)
    out, length = bytearray(size), size // width
    for plane in range(width):
        out[plane::width] = planes[plane * length : (plane + 1) * length]
    return bytes(out)


if __name__ == "__main__":
    model, weights = decode(Path(sys.argv[1]).read_bytes())
    folder = Path(sys.argv[2])
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model)
    (folder / "model.weights").write_bytes(weights)
    print(f"model.onnx {len(model)} bytes, model.weights {len(weights)} bytes, digests right")
