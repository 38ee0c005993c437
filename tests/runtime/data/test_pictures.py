"""Pictures as samples: what transparent and damaged ones become, and what is said without Pillow."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.data import pictures
from seed_runtime.data.sample_files import open_samples
from seed_runtime.errors import InputError, UnsupportedError
from tests.runtime.data.test_sample_files import PICTURE, claimed_png, folder_of, png, values


def test_transparent_parts_of_a_picture_are_white(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGBA", (2, 2), (255, 0, 51, 0)).save(file, "PNG")
    half, palette = io.BytesIO(), io.BytesIO()
    image.new("LA", (2, 2), (0, 128)).save(half, "PNG")
    flat = image.new("P", (2, 2), 3)
    flat.putpalette(range(48))
    flat.save(palette, "PNG", transparency=3)
    path = folder_of(tmp_path, {"0/a.png": file.getvalue(), "0/b.png": half.getvalue(), "0/c.png": palette.getvalue()})
    with open_samples(path, [TensorSpec("image", "uint8", ("n", 2, 2, 3))]) as found:
        assert values(found["image"])[:, 0, 0].tolist() == [[255] * 3, [127] * 3, [255] * 3]


@pytest.mark.parametrize("kind", [IndexError, AttributeError, RuntimeError])
def test_whatever_pillow_raises_names_the_picture(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")

    def fail(*given: object, **named: object) -> None:
        warnings.warn("Corrupt EXIF data", stacklevel=1)
        raise kind("list index out of range")

    monkeypatch.setattr(image.Image, "convert", fail)
    path = folder_of(tmp_path, {"0/a.png": png(2, 2)})
    with (
        pytest.raises(InputError, match=r"0/a.png can't be read as a picture \(list index"),
        open_samples(path, [PICTURE], pixels="0..1"),
    ):
        pass
    assert capfd.readouterr().err == ""


def test_without_pillow_pictures_are_refused_and_the_alternative_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    path = folder_of(tmp_path, {"0/a.png": claimed_png(2, 2)})
    problem = r"pip install 'seed-runtime\[pictures\]'\), or give .npy or .npz"
    with pytest.raises(UnsupportedError, match=problem), open_samples(path, [PICTURE], pixels="0..1"):
        pass


def test_the_limit_of_pixels_is_below_what_a_board_of_half_a_gigabyte_holds() -> None:
    assert pictures.PIXELS_MAX * pictures.PIXEL_BYTES <= 384 << 20
