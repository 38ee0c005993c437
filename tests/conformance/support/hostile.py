"""Seeds that a decoder refuses: a wrong value in each field of SPEC.md, a broken rule for skeletons, and cut files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from seed_runtime.errors import SeedError, UnsupportedError
from tests.attacks.support.attack_cases import ATTACKS
from tests.attacks.support.skeleton_attacks import RULES
from tests.conformance.support import packings
from tests.conformance.support.seeds import RAW, Stream, Tensor, build
from tests.conformance.support.valid_delta import all_codecs
from tests.conformance.support.vector import Vector
from tests.support.delta_builder import build_delta
from tests.support.seed_builder import ALL, Replacement, build_seed
from tests.support.spec_bytes import LZMA_PROPERTIES, u8

DAMAGED, NEWER = 10, 12
"""Exit codes: the seed breaks a MUST; the seed is newer than the reader."""
SIZE_MAX = 4096
"""Larger seeds are left out: their attack is a limit on a size that others break with fewer bytes [B]."""
_BY_LIBRARY = ("lzma.", "deflate.")
"""Fields whose attacks in tests/attacks are packed by this machine's zlib or liblzma."""
_STREAMS = [("raw",), ("grid",), ("split",), ("moments",), ("lowrank",), ("trellis",), ("adaptive",)]
_STREAMS += [("integers",), ("raw", "grid"), ALL]
"""The streams of the seeds, the smallest seed first."""
_SHOWN = 12
"""Bytes of a field that a description shows."""


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module, each of another seed."""
    seen: set[bytes] = set()
    numbers: Counter[str] = Counter()
    for field, replaced, error, has_base in _cases():
        seed, tests = _of_delta(replaced) if has_base else _smallest(replaced)
        if seed in seen or len(seed) > SIZE_MAX:
            continue
        seen.add(seed)
        field = f"base-{field}" if has_base and not field.startswith("base.") else field
        numbers[field] += 1
        name = f"bad-{field.replace('.', '-').replace('_', '-')}-{numbers[field]}"
        code = NEWER if issubclass(error, UnsupportedError) else DAMAGED
        yield Vector(name, tests, seed, code, bases=(all_codecs(),) if has_base else ())
    yield from _packings()
    yield from _cut()


def _cases() -> Iterator[tuple[str, Mapping[str, Replacement], type[SeedError], bool]]:
    """Yield field or rule, what is replaced, the error, and whether there is a base, where the error is determined."""
    for attack in ATTACKS:
        by_library = attack.field.startswith(_BY_LIBRARY) or (
            attack.field == "plane.data" and "plane.packing" in attack.replaced
        )
        if attack.error is not SeedError and not by_library:
            yield attack.field, attack.replaced, attack.error, attack.has_base
    for rule, replaced, error, _ in RULES:
        # A skeleton newer than the reader has an error of its own: all others are damage.
        yield f"skeleton-{rule}", replaced, error, False


def _of_delta(replaced: Mapping[str, Replacement]) -> tuple[bytes, str]:
    """Return the seed with a base in which these fields change, and what was replaced."""
    notes: dict[str, tuple[bytes, bytes]] = {}
    seed = build_delta({key: _noted(key, value, notes) for key, value in replaced.items()})
    return seed, "; ".join(_changed(key, old, new) for key, (old, new) in notes.items())


def _smallest(replaced: Mapping[str, Replacement]) -> tuple[bytes, str]:
    """Return the smallest seed in which these fields change, and what was replaced."""
    for streams in _STREAMS:
        notes: dict[str, tuple[bytes, bytes]] = {}
        try:
            seed = build_seed({key: _noted(key, value, notes) for key, value in replaced.items()}, streams)
        except AssertionError:
            continue
        if all(old == new for old, new in notes.values()):
            continue
        return seed, "; ".join(_changed(key, old, new) for key, (old, new) in notes.items())
    raise AssertionError(f"no seed has {list(replaced)}")


def _noted(key: str, value: Replacement, notes: dict[str, tuple[bytes, bytes]]) -> Replacement:
    def replace(old: bytes) -> bytes:
        new = value(old) if callable(value) else value
        notes[key] = old, new
        return new

    return replace


def _changed(key: str, old: bytes, new: bytes) -> str:
    name, _, number = key.partition("#")
    name += f" (number {int(number) + 1})" if number else ""
    if len(new) > len(old) and new.startswith(old) and old:
        return f"{name}: {_hex(new[len(old) :])} behind the valid bytes"
    return f"{name}: {_hex(new)} instead of {_hex(old)}"


def _hex(data: bytes) -> str:
    if not data:
        return "nothing"
    return data[:_SHOWN].hex(" ") + (f" ... ({len(data)} bytes)" if len(data) > _SHOWN else "")


def _packings() -> Iterator[Vector]:
    fixed, text = packings.deflate_fixed(packings.TEXT), packings.TEXT
    lzma = packings.LZMA_TEXT[2:]
    front = packings.lzma_properties()
    cases: dict[str, tuple[str, int, bytes]] = {
        "deflate-cut": ("deflate without its last byte", 1, fixed[:-1]),
        "deflate-more": ("a byte behind the end of deflate", 1, fixed + b"\0"),
        "deflate-open": ("deflate whose last block isn't marked", 1, bytes([fixed[0] & 0xFE]) + fixed[1:]),
        "deflate-block-type": ("a deflate block of the reserved type", 1, b"\7" + fixed[1:]),
        "deflate-short": ("deflate of a byte less", 1, packings.deflate_fixed(text[:-1])),
        "deflate-long": ("deflate of a byte more", 1, packings.deflate_fixed(text + b"0")),
        "deflate-bomb": ("deflate of 256 KiB", 1, packings.deflate_fixed(bytes(1 << 18))),
        "deflate-zlib": ("a zlib wrapper", 1, b"\x78\xda" + fixed),
        "deflate-far": ("a deflate match that begins before the output", 1, b"\3\2" + bytes(8)),
        "deflate-nothing": ("deflate of no bytes at all", 1, b""),
        "lzma-cut": ("LZMA without its last byte", 2, front + lzma[:-1]),
        "lzma-more": ("a byte behind the end of LZMA", 2, front + lzma + b"\0"),
        "lzma-no-marker": ("LZMA without an end marker", 2, front + lzma[:-6]),
        "lzma-first-byte": ("LZMA whose first byte is not 0", 2, front + b"\1" + lzma[1:]),
        "lzma-bomb": ("LZMA of 64 KiB", 2, packings.LZMA_ZEROS),
        "lzma-properties": ("LZMA properties of 225", 2, packings.lzma_properties(12, 225) + lzma),
        "lzma-lc-lp": ("LZMA with lc + lp = 5", 2, packings.lzma_properties(12, LZMA_PROPERTIES + 18) + lzma),
        "lzma-small-dictionary": ("an LZMA dictionary of 2^11", 2, packings.lzma_properties(11) + lzma),
        "lzma-large-dictionary": ("an LZMA dictionary of 2^21", 2, packings.lzma_properties(21) + lzma),
        "lzma-no-properties": ("LZMA of one byte", 2, front[:1]),
        "lzma-last-state": ("LZMA whose last byte is another one", 2, front + lzma[:-1] + bytes([lzma[-1] ^ 1])),
        "stored-short": ("stored data of a byte less", 0, text[:-1]),
        "stored-long": ("stored data of a byte more", 0, text + b"0"),
    }
    for name, (tests, packing, data) in cases.items():
        yield Vector(f"bad-packing-{name}", tests, _raw_seed(u8(packing) + u8(1) + data), DAMAGED)
    tests = "packing 3, which is reserved"
    yield Vector("bad-packing-reserved", tests, _raw_seed(u8(3) + u8(1) + text), NEWER)


def _raw_seed(chunk: bytes) -> bytes:
    """Return a seed whose only chunk should become TEXT."""
    return build("", "", [Stream(RAW, [Tensor(2, (len(packings.TEXT),))], [chunk], packings.TEXT)]).seed


def _cut() -> Iterator[Vector]:
    seed = build_seed(streams=("raw",))
    header = int.from_bytes(seed[12:16], "little")
    for name, tests, data in (
        ("empty", "an empty file", b""),
        ("text", "a text", b"import numpy\n" * 9),
        ("line-ends", "a seed after a transfer in text mode", seed.replace(b"\r\n", b"\n", 1)),
        ("magic", "half of the magic", seed[:4]),
        ("preamble", "cut within the preamble", seed[:40]),
        ("front", "cut behind the preamble", seed[:56]),
        ("header", "cut within the header", seed[:100]),
        ("body", "cut behind the header", seed[: 56 + header]),
        ("end", "without its last byte", seed[:-1]),
        ("longer", "with a byte more", seed + b"\0"),
        ("twice", "two seeds, one behind the other", seed + seed),
    ):
        yield Vector(f"bad-file-{name}", tests, data, DAMAGED)
    for at, part in (
        (9, "version"),
        (16, "file_size"),
        (60, "the header"),
        (56 + header, "the skeleton"),
        (-1, "a chunk"),
    ):
        flipped = bytearray(seed)
        flipped[at] ^= 0x10
        yield Vector(
            f"bad-flipped-{part.split()[-1].replace('_', '-')}", f"a flipped bit in {part}", bytes(flipped), DAMAGED
        )
