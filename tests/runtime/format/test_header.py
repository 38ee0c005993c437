"""The header by bytes written by hand from SPEC.md, both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seed_runtime.errors import FormatError, LimitError, UnsupportedError, WrongBaseError
from seed_runtime.format.dtypes import BY_CODE, BY_NAME
from seed_runtime.format.header import (
    BaseInfo,
    Header,
    Hole,
    ModelInfo,
    Part,
    Stream,
    Tuned,
    WeightsInfo,
    build_on,
    parse,
    serialize,
)
from seed_runtime.format.sections.model import FEATURE_LEVEL
from seed_runtime.format.writer import to_sign
from tests.support.spec_bytes import varint

MODEL = "04 74 69 6e 79  ac 02  01  10  40"
WEIGHTS = "70" + "11" * 32 + "80 80 40"
PARTS = "01  01 00  02  e8 07  64" + "22" * 32
HOLES = "02  aabbcc ddeeff  00 07  01 01 04  0a 02 03 08"
STREAMS = "02  01 01 01 05" + "33" * 16 + "02 01 02 06 88 01" + "44" * 16 + "55" * 16
BODY = 100 + 5 + 6 + 136

EXPECTED = Header(
    model=ModelInfo("tiny", 300, 1, 16, 64),
    weights=WeightsInfo(112, b"\x11" * 32, 1 << 20),
    parts=(Part(1, 2, 1000, 100, b"\x22" * 32),),
    holes=(
        Hole(BY_NAME["float32"], (4,), 0, 0, b"\xaa\xbb\xcc"),
        Hole(BY_NAME["float16"], (3, 8), 48, 64, b"\xdd\xee\xff"),
    ),
    streams=(Stream(1, 0, 1, (5,), b"\x33" * 16), Stream(2, 1, 1, (6, 136), b"\x44" * 16 + b"\x55" * 16)),
)


def section(number: int, payload: str | bytes) -> bytes:
    raw = bytes.fromhex(payload) if isinstance(payload, str) else payload
    return number.to_bytes(2, "little") + len(raw).to_bytes(4, "little") + raw


def data(*more: bytes, **instead: str) -> bytes:
    payloads = [instead.get("model", MODEL), instead.get("weights", WEIGHTS), instead.get("parts", PARTS)]
    payloads += [instead.get("holes", HOLES), instead.get("streams", STREAMS)]
    return b"".join(section(number + 1, payload) for number, payload in enumerate(payloads)) + b"".join(more)


def comparable(header: Header) -> Header:
    return replace(header, streams=tuple(replace(stream, sizes=tuple(stream.sizes)) for stream in header.streams))


def test_a_header_written_by_hand_is_read() -> None:
    assert comparable(parse(data(), BODY)) == EXPECTED


def test_a_header_is_written_as_by_hand() -> None:
    assert serialize(EXPECTED) == data()


def test_optional_sections_are_read_and_written() -> None:
    whole = data(section(0x8006, b"golden"), section(0x8007, b"footprint"))
    header = parse(whole, BODY)
    assert (header.golden, header.footprint) == (b"golden", b"footprint")
    assert serialize(header) == whole


def test_a_signature_is_the_last_section_and_signs_those_before_it() -> None:
    whole = data(section(0x8006, b"golden"), section(0xFFFF, b"signature"))
    header = parse(whole, BODY)
    assert (header.signature, header.ignored) == (b"signature", {})
    assert serialize(header) == whole
    assert to_sign(header) == b"\1\0\0\0SG" + data(section(0x8006, b"golden"))


def test_sizes_and_offsets_follow_from_the_fields() -> None:
    header = parse(data(), BODY)
    assert [(hole.offset, hole.size, hole.count) for hole in header.holes] == [(0, 16, 4), (64, 48, 24)]
    assert [stream.digest(chunk)[0] for stream in header.streams for chunk in range(len(stream.sizes))] == [
        0x33,
        0x44,
        0x55,
    ]
    assert header.body_size == BODY
    assert header.skeleton.raw_size == 1000


def test_a_model_without_weights_has_neither_holes_nor_streams() -> None:
    header = parse(data(weights="00" + "11" * 32 + "00", holes="00 00 00", streams="00"), 100)
    assert (header.weights.size, header.holes, header.streams) == (0, (), ())


def test_a_scalar_has_one_element_and_four_bit_elements_share_bytes() -> None:
    header = parse(
        data(
            weights="41" + "11" * 32 + "00",
            holes="02 aabbcc ddeeff 00 05 01 00 15 01 01",
            streams="01 01 02 01 05" + "33" * 16,
        ),
        105,
    )
    assert [(hole.count, hole.size) for hole in header.holes] == [(1, 4), (1, 1)]
    assert [BY_NAME["int4"].size(count) for count in (1, 2, 3, 8)] == [1, 1, 2, 4]


def test_every_dtype_has_the_number_and_the_size_that_onnx_gives_it() -> None:
    onnx = pytest.importorskip("onnx")
    for dtype in BY_CODE.values():
        assert onnx.TensorProto.DataType.Name(dtype.code).lower() == {"float32": "float", "float64": "double"}.get(
            dtype.name, dtype.name
        )
        assert dtype.storage.itemsize == max(1, dtype.bits // 8)


def test_parts_and_chunks_must_fill_the_file() -> None:
    for size in (BODY - 1, BODY + 1, 0, -5):
        with pytest.raises(FormatError, match="parts and chunks take 247 bytes"):
            parse(data(), size)


def test_unknown_optional_sections_are_ignored_and_named() -> None:
    assert parse(data(section(0x8FFF, b"x" * 7), section(0xFFFE, b"mine")), BODY).ignored == {0x8FFF: 7, 0xFFFE: 4}


def test_an_unknown_critical_section_is_newer_than_this_runtime() -> None:
    with pytest.raises(UnsupportedError, match="section 0x0009 is unknown"):
        parse(data(section(9, b"")), BODY)


def test_what_is_unknown_is_named_before_what_is_missing() -> None:
    # A seed may lack what a critical section brings: only that section tells why.
    with pytest.raises(UnsupportedError, match="section 0x0009 is unknown"):
        parse(section(1, MODEL) + section(9, b""), 0)


BASE = "77" * 32 + "01"
TUNED = "05 73 6d 61 6c 6c  03 61 63 63  00 00 00 3f  00 00 40 3f"


def on_base(*more: bytes, streams: str = STREAMS) -> bytes:
    payloads = {1: MODEL, 2: WEIGHTS, 5: streams, 8: BASE}
    return b"".join(section(number, payload) for number, payload in payloads.items()) + b"".join(more)


def test_a_header_with_a_base_is_read_and_written_without_parts_and_holes() -> None:
    whole = on_base(section(0x8009, TUNED))
    header = parse(whole, BODY - 100)
    assert header.base == BaseInfo(b"\x77" * 32, 1)
    assert header.tuned == Tuned("small", "acc", 0.5, 0.75)
    assert (header.parts, header.holes, header.has_parts) == ((), (), False)
    assert serialize(header) == whole
    unscored = on_base(section(0x8009, "02 62 6e 00"))
    assert parse(unscored, BODY - 100).tuned == Tuned("bn")
    assert serialize(parse(unscored, BODY - 100)) == unscored


def test_a_header_with_a_base_may_have_parts_and_holes_of_its_own() -> None:
    whole = data(section(8, BASE))
    header = parse(whole, BODY)
    assert (header.has_parts, comparable(header)) == (True, replace(EXPECTED, base=BaseInfo(b"\x77" * 32, 1)))
    assert serialize(header) == whole
    for kept, gone in ((3, 4), (4, 3)):
        payloads = {1: MODEL, 2: WEIGHTS, 3: PARTS, 4: HOLES, 5: STREAMS, 8: BASE}
        rest = b"".join(section(number, payload) for number, payload in payloads.items() if number != gone)
        with pytest.raises(FormatError, match=f"section 0x000{gone} is missing"):
            parse(rest, BODY - (0 if kept == 3 else 100))


def test_parts_and_holes_of_the_base_take_the_place_of_missing_ones() -> None:
    names = "new.seed", "base.seed"
    base = parse(data(section(0x8007, b"footprint")), BODY)
    header = parse(on_base(), BODY - 100)
    built = build_on(header, base, b"\x77" * 32, names)
    assert (built.parts, built.holes, built.footprint) == (base.parts, base.holes, b"footprint")
    own = parse(on_base(section(0x8007, b"own")), BODY - 100)
    assert build_on(own, base, b"\x77" * 32, names).footprint == b"own"
    whole = parse(data(section(8, BASE)), BODY)
    assert build_on(whole, base, b"\x77" * 32, names) is whole
    with pytest.raises(
        WrongBaseError, match=r"new.seed builds on the seed with the digest 7777.* and base.seed has .*88"
    ):
        build_on(header, base, b"\x88" * 32, names)
    with pytest.raises(FormatError, match="a depth of 1 is not one more"):
        build_on(header, replace(base, base=BaseInfo(bytes(32), 1)), b"\x77" * 32, names)
    with pytest.raises(FormatError, match="112 bytes are not the base's 111"):
        build_on(header, replace(base, weights=WeightsInfo(111, bytes(32))), b"\x77" * 32, names)
    with pytest.raises(FormatError, match="the streams fill 2 holes, there are 1"):
        build_on(header, replace(base, holes=base.holes[:1]), b"\x77" * 32, names)


def test_a_record_of_a_fine_tune_has_finite_scores_or_none() -> None:
    for scores in ((float("nan"), 0.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="can't hold the scores"):
            Tuned("small", "acc", *scores)
    with pytest.raises(ValueError, match="can't hold the scores"):
        Tuned("small", "", 0.5, 0.5)


def test_a_level_up_to_this_runtimes_has_the_first_release_that_reads_it() -> None:
    def releases(level: int) -> tuple[int, int, int]:
        return parse(data(model=MODEL.replace("ac 02  01", f"ac 02  {level:02x}")), BODY).model.min_runtime

    assert releases(1) == (0, 1, 0)
    assert [releases(level) for level in range(FEATURE_LEVEL + 1)] == sorted(map(releases, range(FEATURE_LEVEL + 1)))
    with pytest.raises(UnsupportedError, match=f"needs level {FEATURE_LEVEL + 1} .* update it: pip install"):
        releases(FEATURE_LEVEL + 1)


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5])
def test_a_missing_section_is_named(missing: int) -> None:
    payloads = dict(enumerate((MODEL, WEIGHTS, PARTS, HOLES, STREAMS), start=1))
    rest = b"".join(section(number, payload) for number, payload in payloads.items() if number != missing)
    with pytest.raises(FormatError, match=f"section 0x000{missing} is missing"):
        parse(rest, BODY)


def test_sections_stand_in_ascending_order_and_once() -> None:
    for more in (section(5, STREAMS), section(1, MODEL)):
        with pytest.raises(FormatError, match="stands behind"):
            parse(data(more), BODY)


def test_a_header_cut_at_any_byte_is_refused() -> None:
    whole = data(section(0x8006, b"golden"))
    ends = {len(data())}  # where only an optional section is lost
    for size in range(len(whole)):
        if size not in ends:
            with pytest.raises(FormatError):
                parse(whole[:size], BODY)


def test_optional_parts_follow_the_skeleton_in_ascending_order() -> None:
    def part(kind: str) -> str:
        return f"{kind} 00 03 03" + "66" * 32

    first = PARTS[2:]
    header = parse(data(parts="03" + first + part("01 80") + part("02 80")), BODY + 6)
    assert [part.kind for part in header.parts] == [1, 0x8001, 0x8002]
    for kinds in (["02 80", "01 80"], ["01 80", "01 80"], ["01 00", "01 80"]):
        with pytest.raises(FormatError, match="may not be of kind"):
            parse(data(parts="03" + first + "".join(map(part, kinds))), BODY + 6)
    with pytest.raises(FormatError, match="may not be of kind"):
        parse(data(parts="01" + part("01 80")), BODY - 97)


def test_a_skeleton_of_another_kind_is_newer_than_this_runtime() -> None:
    with pytest.raises(UnsupportedError, match="part kind 0x0003"):
        parse(data(parts=PARTS.replace("01 00", "03 00")), BODY)


def test_eight_dimensions_of_a_terabyte_do_not_become_a_long_number() -> None:
    huge = "80 80 80 80 80 20"
    with pytest.raises(FormatError, match="past the weights file"):
        parse(data(holes="01 aabbcc 00 32 01 08" + huge * 8), BODY)
    with pytest.raises(LimitError, match="dimension"):
        parse(data(holes="01 aabbcc 00 08 01 01 81 80 80 80 80 20"), BODY)


@pytest.mark.parametrize(("share", "most"), [(0, 64), (1, 65), (3, 67)])
def test_a_seed_with_little_weights_has_few_streams(share: int, most: int) -> None:
    # A stream can take 8,192 steps for 8,192 symbols, which take a byte.
    def parsed(count: int) -> Header:
        size = share << 17 if share else 64 * count
        dims = [64] * (count - 1) + [size - 64 * (count - 1)]
        records = b"".join(b"\2\1" + varint(dim) for dim in dims)
        holes = varint(count) + b"abc" * count + b"\0" + varint(len(records)) + records
        streams = varint(count) + (b"\1\1\1\0" + bytes(16)) * count
        weights = varint(size).hex() + "11" * 32 + "00"
        return parse(data(weights=weights, holes=holes.hex(), streams=streams.hex()), 100)

    assert len(parsed(most).streams) == most
    with pytest.raises(LimitError, match=f"number of streams: {most + 1} exceeds the limit of {most}"):
        parsed(most + 1)


def test_the_chunks_of_all_streams_share_one_limit() -> None:
    with pytest.raises(LimitError, match="chunks of a stream"):
        parse(data(streams="02  01 01 01 05" + "33" * 16 + "02 01 80 80 08"), BODY)
