"""Samples in files and folders: what is read, row by row, and what is refused before anything of it is held."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.data import sample_folder
from seed_runtime.data.rows import FileRows, RowSource
from seed_runtime.data.sample_files import open_samples
from seed_runtime.errors import DiskSpaceError, InputError, MemoryBudgetError, SeedError, UsageError
from seed_runtime.system import scratch

SPEC = TensorSpec("x", "float32", ("n", 4))
X = np.arange(24, dtype=np.int16).reshape(6, 4)
ROWS = np.array([5, 0, 3])
PICTURE = TensorSpec("image", "float32", ("n", 3, 2, 2))


def saved(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


@pytest.mark.parametrize("layout", ["plain", "compressed", "fortran", "npy"])
def test_rows_are_those_of_the_file_in_its_own_type(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    if layout == "npy":
        path.write_bytes(npy(X))
    elif layout == "compressed":
        np.savez_compressed(path, x=X, labels=np.arange(6))
    else:
        np.savez(path, x=np.asfortranarray(X) if layout == "fortran" else X, labels=np.arange(6))
    with open_samples(str(path), [SPEC]) as found:
        source = found["x"]
        assert isinstance(source, FileRows)
        assert (source.shape, source.dtype) == ((6, 4), np.int16)
        assert np.array_equal(source.read(ROWS), X[ROWS])
        assert np.array_equal(np.concatenate([block.copy() for block in source.blocks()]), X.ravel())
        assert np.array_equal(source.read(ROWS), X[ROWS])
        if layout != "npy":
            assert np.array_equal(found["labels"], np.arange(6))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_damaged_byte_is_found_when_all_is_read(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=np.zeros((100_000, 4), np.int16)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with open_samples(str(path), [SPEC]) as found:
        source = found["x"]
        assert isinstance(source, FileRows)
        with pytest.raises(InputError, match="is damaged"):
            list(source.blocks())


def test_a_file_that_is_cut_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    path.write_bytes(npy(X))
    with open_samples(str(path), [SPEC]) as found:
        os.truncate(path, 140)
        source = found["x"]
        assert isinstance(source, FileRows)
        with pytest.raises(InputError, match="was cut meanwhile"):
            source.read(ROWS)


def test_compressed_arrays_that_do_not_fit_on_the_disk_are_refused_before_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((1 << 20, 4), np.int16))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20}))
    monkeypatch.setattr("seed_runtime.data.spool.Spool.copy", lambda *given, **named: pytest.fail("it was copied"))
    with pytest.raises(DiskSpaceError), open_samples(str(tmp_path / "data.npz"), [SPEC]):
        pass


def folder_of(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(root / "data")


def values(source: np.ndarray | RowSource) -> np.ndarray:
    assert not isinstance(source, np.ndarray)
    return source.read(np.arange(source.shape[0]))


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    batch = io.BytesIO()
    np.savez(batch, x=X[2:5])
    files = {"dog/b.npy": npy(X[1]), "dog/a.npy": npy(X[0]), "cat/1.npz": batch.getvalue(), "cat/.hidden": b"?"}
    path = folder_of(tmp_path, files)
    with open_samples(path, [SPEC], classes=2) as found:
        assert np.array_equal(values(found["x"]), X[[2, 3, 4, 0, 1]])
        assert np.array_equal(found["labels"], [0, 0, 0, 1, 1])
        source = found["x"]
        assert not isinstance(source, np.ndarray)
        assert source.dtype == np.int16


def test_folders_of_numbers_are_these_classes(tmp_path: Path) -> None:
    with open_samples(folder_of(tmp_path, {"10/a.npy": npy(X[0]), "2/a.npy": npy(X[1])}), [SPEC], classes=11) as found:
        assert sorted(zip(np.asarray(found["labels"]).tolist(), values(found["x"])[:, 0].tolist(), strict=True)) == [
            (2, 4),
            (10, 0),
        ]


def test_an_empty_folder_is_a_class_without_samples(tmp_path: Path) -> None:
    path = folder_of(tmp_path, {"a/1.npy": npy(X[0]), "c/1.npy": npy(X[1])})
    (tmp_path / "data" / "b").mkdir()
    with open_samples(path, [SPEC], classes=3) as found:
        assert np.array_equal(found["labels"], [0, 2])


def test_files_of_a_folder_are_parts_of_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, rows in enumerate((slice(0, 2), slice(2, 6))):
        np.savez(tmp_path / "data" / f"{number}.npz", x=X[rows], labels=np.arange(6)[rows])
    with open_samples(str(tmp_path / "data"), [SPEC]) as found:
        assert np.array_equal(values(found["x"]), X)
        assert np.array_equal(found["labels"], np.arange(6))


def png(width: int, height: int, color: tuple[int, int, int] = (255, 0, 51)) -> bytes:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (width, height), color).save(file, "PNG")
    return file.getvalue()


def claimed_png(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    """Return a picture that claims to be large and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    front = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + front + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("0..255", [255, 0, 51]),
        ("0..1", [1, 0, 0.2]),
        ("-1..1", [1, -1, -0.6]),
        ("imagenet", [2.2489, -2.0357, -0.9156]),
    ],
)
def test_pictures_become_what_the_model_takes(pixels: str, expected: list[float], tmp_path: Path) -> None:
    path = folder_of(tmp_path, {"a/1.png": png(5, 7), "b/2.PNG": png(2, 2)})
    for spec in (PICTURE, TensorSpec("image", "float32", ("n", 2, 2, 3))):
        with open_samples(path, [spec], classes=2, pixels=pixels) as found:
            image = values(found["image"])
            assert (image.dtype, image.shape) == (np.float32, (2, *spec.shape[1:]))
            channels = image if spec is PICTURE else np.moveaxis(image, -1, 1)
            np.testing.assert_allclose(channels[0, :, 1, 1], expected, atol=1e-3)
            assert np.array_equal(found["labels"], [0, 1])
    spec = TensorSpec("image", "uint8", ("n", 2, 2, 3))
    with open_samples(path, [spec]) as found:
        assert values(found["image"])[0, 0, 0].tolist() == [255, 0, 51]


def a_class(**files: Callable[[], bytes]) -> Callable[[Path], str]:
    return lambda root: folder_of(root, {f"0/{name.replace('_', '.')}": data() for name, data in files.items()})


BAD: dict[str, tuple[Callable[[Path], str], list[TensorSpec], dict[str, object], type[SeedError], str]] = {
    "an empty folder": (str, [SPEC], {}, InputError, "is empty"),
    "empty classes": (
        lambda root: ((root / "data" / "0").mkdir(parents=True), str(root / "data"))[1],
        [SPEC],
        {},
        InputError,
        "holds no samples",
    ),
    "a text": (a_class(notes_txt=lambda: b"?"), [SPEC], {}, InputError, "notes.txt is no sample"),
    "a file beside classes": (
        lambda root: folder_of(root, {"a/1.npy": npy(X[0]), "1.npy": npy(X[0])}),
        [SPEC],
        {},
        InputError,
        "stands beside folders of classes",
    ),
    "too few folders": (
        lambda root: folder_of(root, {"a/1.npy": npy(X[0]), "b/1.npy": npy(X[0])}),
        [SPEC],
        {"classes": 3},
        InputError,
        "has 2 folders, and the model 3 classes",
    ),
    "another shape": (
        a_class(a_npy=lambda: npy(X[0]), b_npy=lambda: npy(X[0, :3])),
        [SPEC],
        {},
        InputError,
        r"b.npy: a sample of 'x' is int16\[3\], and in .*a.npy it is int16\[4\]",
    ),
    "another rank": (a_class(a_npy=lambda: npy(X[None, None])), [SPEC], {}, InputError, "one sample, or several"),
    "objects": (
        a_class(a_npy=lambda: npy(np.array([{}], object))),
        [SPEC],
        {},
        InputError,
        "Python objects, which are never loaded",
    ),
    "an element of a gigabyte": (
        a_class(a_npy=lambda: npy(np.zeros((1, 1), "S4")).replace(b"'|S4'", b"'|S1000000000'")),
        [SPEC],
        {},
        InputError,
        "is cut|elements of 1,000,000,000 bytes",
    ),
    "shards that differ": (
        lambda root: folder_of(root, {"a.npz": npz(x=X), "b.npz": npz(x=X, labels=np.arange(6))}),
        [SPEC],
        {},
        InputError,
        "split alike",
    ),
    "another file among shards": (
        lambda root: folder_of(root, {"a.npz": npz(x=X), "b.txt": b""}),
        [SPEC],
        {},
        InputError,
        "is no .npz file",
    ),
    "pictures and arrays": (
        a_class(a_npy=lambda: npy(np.zeros((3, 2, 2), np.float32)), b_png=lambda: png(2, 2)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "of one kind",
    ),
    "pictures of no range": (a_class(a_png=lambda: png(2, 2)), [PICTURE], {}, InputError, "--pixels 0..255, 0..1"),
    "an unknown range": (
        a_class(a_png=lambda: png(2, 2)),
        [PICTURE],
        {"pixels": "0..2"},
        UsageError,
        "use one of 0..255",
    ),
    "a range for arrays": (lambda root: saved(root, x=X), [SPEC], {"pixels": "0..1"}, UsageError, "about pictures"),
    "a range for folders of arrays": (
        a_class(a_npy=lambda: npy(X[0])),
        [SPEC],
        {"pixels": "0..1"},
        UsageError,
        "about pictures",
    ),
    "a range for parts": (
        lambda root: folder_of(root, {"a.npz": npz(x=X)}),
        [SPEC],
        {"pixels": "0..1"},
        UsageError,
        "about",
    ),
    "numbers and names": (
        lambda root: folder_of(root, {"0/1.npy": npy(X[0]), "1/1.npy": npy(X[0]), "cat/1.npy": npy(X[0])}),
        [SPEC],
        {"classes": 3},
        InputError,
        "has folders of numbers, such as 0, and others, such as cat",
    ),
    "a pipe": (
        lambda root: (folder_of(root, {"0/a.npy": npy(X[0])}), os.mkfifo(root / "data" / "0" / "z.png"))[0],
        [SPEC],
        {},
        InputError,
        "z.png is no sample",
    ),
    "a pipe among parts": (
        lambda root: (folder_of(root, {"a.npz": npz(x=X)}), os.mkfifo(root / "data" / "z.npz"))[0],
        [SPEC],
        {},
        InputError,
        "z.npz is no file",
    ),
    "sixteen bits in color": (
        a_class(a_png=lambda: claimed_png(2, 2, depth=16)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "more than 8 bits a channel",
    ),
    "sixteen bits in grey": (
        a_class(a_png=lambda: claimed_png(2, 2, depth=16, color=0)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "more than 8 bits a channel",
    ),
    "pictures for no such input": (
        a_class(a_png=lambda: png(2, 2)),
        [SPEC],
        {"pixels": "0..1"},
        InputError,
        "fixed height and width",
    ),
    "a damaged picture": (
        a_class(a_png=lambda: png(2, 2)[:40]),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "can't be read as a picture",
    ),
    "another format": (
        a_class(a_png=lambda: b"GIF89a" + bytes(99)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "can't be read as a picture",
    ),
    "a bomb": (
        a_class(a_png=lambda: claimed_png(60_000, 60_000)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "can't be read as a picture|has 3,600,000,000 pixels",
    ),
    "a small bomb": (
        a_class(a_png=lambda: claimed_png(6_000, 6_000)),
        [PICTURE],
        {"pixels": "0..1"},
        InputError,
        "has 36,000,000 pixels, at most",
    ),
    "a picture beyond the limit of memory": (
        a_class(a_png=lambda: claimed_png(5_000, 5_000)),
        [PICTURE],
        {"pixels": "0..1", "limit": 200_000_000},
        MemoryBudgetError,
        "decoding",
    ),
}


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("case", BAD)
def test_samples_that_can_not_be_used_are_refused_with_the_next_step(case: str, tmp_path: Path) -> None:
    if "bomb" in case or "memory" in case or "bits" in case:
        pytest.importorskip("PIL.Image")
    make, specs, options, kind, problem = BAD[case]
    path = make(tmp_path)
    with pytest.raises(kind, match=problem), open_samples(path, specs, **options):
        pass


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_folder, "FILES_MAX", 2)
    path = folder_of(tmp_path, {f"0/{number}.npy": npy(X[0]) for number in range(3)})
    with pytest.raises(InputError, match="over 2 files"), open_samples(path, [SPEC]):
        pass


def test_nothing_is_left_of_what_was_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "cache_home", lambda: tmp_path / "cache")
    path = folder_of(tmp_path, {"0/1.npy": npy(X[0])})
    with open_samples(path, [SPEC]):
        assert len(list((tmp_path / "cache").iterdir())) == 1
    assert list((tmp_path / "cache").iterdir()) == []
