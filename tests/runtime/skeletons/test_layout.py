"""Where decoded bytes go: a file beside the model, or ranges within it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime import skeletons
from seed_runtime.assembly import assemble
from seed_runtime.errors import FormatError, InputError
from seed_runtime.format import parts
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from seed_runtime.format.parts import PartKind
from seed_runtime.skeletons.cut_file import CutFile
from seed_runtime.skeletons.info import ExternalTensor, SkeletonInfo
from seed_runtime.skeletons.layout import WeightsBeside, WeightsWithin, _FileOutput
from tests.support.seed_builder import build_seed
from tests.support.tflite_bytes import cut
from tests.support.written_seeds import write_seed_bytes

U8 = BY_NAME["uint8"]
KIND = 0x0701
"""A skeleton that only these tests have: what cut_file.py reads, with nothing in it that anybody checks."""
HOLES = (Hole(U8, (4,), 0, 0), Hole(U8, (2,), 60, 64), Hole(U8, (3,), 62, 128))
VALUES = b"1234", b"56", b"789"
WEIGHTS = b"1234" + bytes(60) + b"56" + bytes(62) + b"789"
MODEL = b"".join((b"front", b"\3\0\0\0", b"789", b",", b"\4\0\0\0", b"1234", b".", b"\2\0\0\0", b"56", b";end"))
RANGES = [(9, 3), (17, 4), (26, 2)]
"""Their places in the model, in its order: of holes 2, 0 and 1."""
SKELETON = cut(MODEL, RANGES, [2, 0, 1])


def scan(data: bytes | memoryview) -> SkeletonInfo:
    ranges = CutFile(memoryview(data)).ranges
    tensors = [ExternalTensor(str(number), U8, (size,), at, size) for number, (at, size) in enumerate(ranges)]
    return SkeletonInfo(1, {}, (), (), tuple(tensors))


@pytest.fixture(autouse=True)
def _kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.KINDS, KIND, PartKind(KIND, "ranges", "model.txt", is_skeleton=True))
    monkeypatch.setitem(
        skeletons.KINDS, KIND, skeletons.Kind("ranges", WeightsWithin("model.txt"), "none", scan, False)
    )


def seed(skeleton: bytes = SKELETON, weights: bytes = WEIGHTS) -> seed_runtime.Seed:
    chunk = b"\0\1" + b"".join(VALUES)
    return seed_runtime.open(io.BytesIO(write_seed_bytes([(KIND, skeleton)], HOLES, 1, [chunk], weights)))


def test_weights_are_written_into_the_ranges_of_the_model(tmp_path: Path) -> None:
    folder = seed().assemble(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"model.txt": MODEL}


def test_such_a_model_is_not_replaced_as_nothing_tells_it_from_a_file_of_the_users_own(tmp_path: Path) -> None:
    seed().assemble(tmp_path / "model")
    with pytest.raises(InputError, match="holds something else"):
        seed().assemble(tmp_path / "model")
    assert (tmp_path / "model" / "model.txt").read_bytes() == MODEL


def test_a_model_without_weights_is_what_was_kept(tmp_path: Path) -> None:
    with skeletons.KINDS[KIND].layout.begin(tmp_path, cut(b"no ranges", [])):
        pass
    assert (tmp_path / "model.txt").read_bytes() == b"no ranges"


def test_checking_such_a_seed_writes_nothing(tmp_path: Path) -> None:
    seed().check()
    assert list(tmp_path.iterdir()) == []


def test_digests_are_compared_as_for_any_layout(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="assembled weights"):
        seed(weights=WEIGHTS[:-1] + b"0").assemble(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("skeleton", "problem"),
    [
        (cut(MODEL, RANGES[:2]), "it has 2 ranges for weights and the table of holes has 3"),
        (cut(MODEL, RANGES, [0, 1, 2]), "tensor '0' differs in dims from hole 0"),
        (cut(MODEL, RANGES, [0, 0, 1]), "doesn't name each hole once"),
        (SKELETON[:30], "reach past its end"),
    ],
)
def test_ranges_that_are_not_the_holes_are_refused(skeleton: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=problem):
        seed(skeleton).assemble(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_within_or_between_ranges_is_found(tmp_path: Path) -> None:
    made = seed()
    layout, file = skeletons.KINDS[KIND].layout, tmp_path / "model" / "model.txt"
    made.assemble(file.parent)
    assert layout.is_intact(file.parent, SKELETON, made.header)
    for place in range(len(MODEL)):
        file.write_bytes(MODEL[:place] + b"?" + MODEL[place + 1 :])
        assert not layout.is_intact(file.parent, SKELETON, made.header)
    for other in (MODEL + b"?", MODEL[:-1], MODEL[:8], b""):
        file.write_bytes(other)
        assert not layout.is_intact(file.parent, SKELETON, made.header)


def test_a_changed_file_beside_the_model_is_found(tmp_path: Path) -> None:
    made = seed_runtime.open(io.BytesIO(build_seed()))
    skeleton = made.skeleton_bytes()
    layout = made.kind.layout
    folder = made.assemble(tmp_path / "model")
    assert isinstance(layout, WeightsBeside)
    assert layout.is_intact(folder, skeleton, made.header)
    for name in made.kind.sizes(made.header):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert not layout.is_intact(folder, skeleton, made.header)
        (folder / name).write_bytes(data)


def test_a_write_that_takes_less_than_it_was_given_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        taken = b""

        def write(self, data: memoryview) -> int:
            self.taken += bytes(data[:3])
            return min(3, len(data))

        def close(self) -> None:
            pass

    slow = Slow()
    with _FileOutput(tmp_path / "file") as output:
        output._file.close()
        monkeypatch.setattr(output, "_file", slow)
        output.write(memoryview(b"0123456789"))
    assert slow.taken == b"0123456789"


def test_the_kind_says_what_is_written_of_a_further_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.KINDS, 0x8701, PartKind(0x8701, "labels", "labels.txt"))
    monkeypatch.setitem(parts.KINDS, 0x8702, PartKind(0x8702, "notes", None))
    given = [(KIND, SKELETON), (0x8701, b"cat\ndog\n"), (0x8702, b"not for the disk"), (0x8703, b"unknown")]
    data = write_seed_bytes(given, HOLES, 1, [b"\0\1" + b"".join(VALUES)], WEIGHTS)
    made = seed_runtime.open(io.BytesIO(data))
    assert made.kind.sizes(made.header) == {"model.txt": len(MODEL), "labels.txt": 8}
    folder = made.assemble(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "model.txt": MODEL,
        "labels.txt": b"cat\ndog\n",
    }
    assert assemble.is_assembled(folder, made.header)
    (folder / "mine.txt").write_text("of somebody else")
    with pytest.raises(InputError, match="holds something else"):
        seed_runtime.open(io.BytesIO(data)).assemble(folder)


def test_a_part_is_read_ahead_of_its_turn_and_handed_out_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(parts.KINDS, 0x8701, PartKind(0x8701, "labels", "labels.txt"))
    given = [(KIND, SKELETON), (0x8701, b"cat"), (0x8703, b"unknown")]
    data = write_seed_bytes(given, HOLES, 1, [b"\0\1" + b"".join(VALUES)], WEIGHTS)
    made = seed_runtime.open(io.BytesIO(data))
    assert bytes(made._part_bytes(1)) == b"cat"
    assert bytes(made.skeleton_bytes()) == SKELETON
    folder = made.assemble(tmp_path / "model")
    assert (folder / "labels.txt").read_bytes() == b"cat"
