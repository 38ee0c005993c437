"""Packed bytes that are the same with every version of zlib and liblzma: written by hand, or packed once and kept."""

from __future__ import annotations

from tests.support.spec_bytes import LZMA_PROPERTIES

STORED, DEFLATE, LZMA = 0, 1, 2
TEXT = b"the same words, the same words, and the same words once more: the same words, the same words 000"
"""96 bytes that have been packed below."""
DYNAMIC_TEXT = bytes.fromhex(
    "05c1c109c0400804c056b6807bdc3bdd485cf0630457b0fdcc4c10b224b6da753041c892d86ad7817d8e094296c456bb"
    "50df4b64351f4c10b224b6da753041c892d86a17eebd3f"
)
"""TEXT as one deflate block with Huffman tables of its own."""
LZMA_TEXT = bytes.fromhex(
    "5d0c003a1a08ce76d976d393cee06c5c75e42bf7faa3813e1f235545b273f77c407b757c26ed20b7a056ac59d37e322efffcc4e400"
)
"""TEXT as LZMA1 with lc 3, lp 0, pb 2 and a dictionary of 4 KiB, behind the two bytes of properties."""
LZMA_TEXT_OTHER = bytes.fromhex(
    "1214003a1ad9d4744c9dd91101fb1ba1e23f4b93c1919d12507875bfcbda3d8e320814123da19509904f277223d8297866ffdc2b8000"
)
"""TEXT as LZMA1 with lc 0, lp 2, pb 0 and a dictionary of 1 MiB, behind the two bytes of properties."""
LZMA_ZEROS = bytes.fromhex(
    "5d0c00006ffdffffa3b7ff473e481572396151b89228e6a38607f9eee41e82d32fc53a3c014bb17ec98a8a4d2fa30dd9"
    "7fa6e38c231153e05918c5758ae277f8b6947f0c6ac0de7449645ca3cde7a3ffff0c1c0000"
)
"""64 KiB of zeros as LZMA1, behind the two bytes of properties."""
_END_OF_BLOCK = 256


class _Bits:
    """Bits in the order of RFC 1951, the lowest one of a byte first."""

    def __init__(self) -> None:
        self._value = self._size = 0
        self._parts: list[bytes] = []

    def put(self, value: int, size: int) -> None:
        """Append a number, its lowest bit first."""
        self._value |= value << self._size
        self._size += size
        while self._size >= 8:
            self._parts.append(bytes([self._value & 0xFF]))
            self._value >>= 8
            self._size -= 8

    def code(self, value: int, size: int) -> None:
        """Append a Huffman code, its highest bit first."""
        self.put(int(f"{value:0{size}b}"[::-1], 2), size)

    def end(self) -> bytes:
        """Return all bytes, the last one filled with zeros."""
        self.put(0, -self._size % 8)
        return b"".join(self._parts)


def deflate_stored(data: bytes) -> bytes:
    """Return deflate blocks of at most 64 bytes that hold the data as it is, an empty one in front."""
    blocks = [b"", *(data[start : start + 64] for start in range(0, len(data), 64))]
    out = b""
    for number, block in enumerate(blocks):
        size = len(block)
        out += bytes([number == len(blocks) - 1]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
        out += block
    return out


def deflate_fixed(data: bytes) -> bytes:
    """Return one deflate block with the fixed Huffman codes, in which repetitions of a byte are matches."""
    out, at = _Bits(), 0
    out.put(1, 1)
    out.put(1, 2)
    while at < len(data):
        run = 1
        while run < 259 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        _symbol(out, data[at])
        if run == 259:
            # As many bytes as the longest match takes, from one byte back.
            _symbol(out, 285)
            out.code(0, 5)
            at += 259
        else:
            at += 1
    _symbol(out, _END_OF_BLOCK)
    return out.end()


def _symbol(out: _Bits, symbol: int) -> None:
    """Append a literal or length by the fixed codes of RFC 1951, section 3.2.6."""
    if symbol < 144:
        out.code(0x30 + symbol, 8)
    elif symbol < 256:
        out.code(0x190 + symbol - 144, 9)
    elif symbol < 280:
        out.code(symbol - 256, 7)
    else:
        out.code(0xC0 + symbol - 280, 8)


def lzma_properties(dictionary_log2: int = 12, properties: int = LZMA_PROPERTIES) -> bytes:
    """Return the two bytes in front of LZMA1."""
    return bytes([properties, dictionary_log2])
