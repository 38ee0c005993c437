"""Low planes of a chunk: the bits below its symbols, packed (SPEC.md, "Symbol streams")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.packing import pack_lzma, properties
from seed_runtime.codecs.planes import JOINED_BELOW
from seed_runtime.format import primitives
from seed_runtime.format.packing import STORED, pack_quickly, smallest
from seed_runtime.limits import LOW_BITS_MAX

_LZMA_BYTES: Final = 1 << 16
"""Largest block of joined planes for which LZMA is tried as well [B]: a tenth of a second for up to .6 % of a seed."""
_LZMA_PROPERTIES: Final = (properties(0, 0, 0),)
"""Settings of LZMA that are tried: others gain .1 % of the planes of public models."""


def packed_planes(spans: Sequence[tuple[CodedMatrix, int, int]]) -> list[bytes]:
    """Return the packed planes of elements `start` to `stop` of these matrices, in the order of the format.

    Planes of small matrices are joined by position: each by itself is too short for a packing to learn from.
    """
    spans = [span for span in spans if span[0].low_bits]
    small = [span for span in spans if span[2] - span[1] < JOINED_BELOW]
    joined: list[list[bytes]] = [[] for _ in range(LOW_BITS_MAX // 8 + 7)]
    for span in small:
        for position, plane in _planes(*span):
            joined[position].append(plane)
    out = [_packed(b"".join(planes), joined=True) for planes in joined if planes]
    large = [span for span in spans if span[2] - span[1] >= JOINED_BELOW]
    return out + [_packed(plane, joined=False) for span in large for _, plane in _planes(*span)]


def _planes(matrix: CodedMatrix, start: int, stop: int) -> list[tuple[int, bytes]]:
    """List the planes of a matrix with their positions: whole bytes, then single bits, low ones first."""
    assert matrix.low is not None
    low = np.ascontiguousarray(matrix.low[start:stop])
    octets = low.view(np.uint8).reshape(-1, 4)
    count = matrix.low_bits // 8
    planes = [(place, octets[:, place].tobytes()) for place in range(count)]
    return planes + [(LOW_BITS_MAX // 8 + bit, _bit_plane(low, 8 * count + bit)) for bit in range(matrix.low_bits % 8)]


def _packed(plane: bytes, *, joined: bool) -> bytes:
    if _noise(plane):
        return primitives.uint(STORED, 1) + plane
    packing, data = pack_quickly(plane)
    if joined and len(plane) <= _LZMA_BYTES:
        packing, data = smallest((packing, data), pack_lzma(plane, _LZMA_PROPERTIES))
    return primitives.uint(packing, 1) + (primitives.varint(len(data)) if packing else b"") + data


def _bit_plane(values: npt.NDArray[np.uint32], bit: int) -> bytes:
    bits = (values >> np.uint32(bit) & np.uint32(1)).astype(np.uint8)
    return np.packbits(bits, bitorder="little").tobytes()


def _noise(plane: bytes) -> bool:
    """Return whether bytes are too even for deflate to gain 2 %; it saves most of the time of lossless encoding."""
    counts = np.bincount(np.frombuffer(plane, np.uint8), minlength=256)
    share = counts[counts > 0] / len(plane)
    return float(-(share * np.log2(share)).sum()) > 8 * 0.98 and len(plane) > 4096
