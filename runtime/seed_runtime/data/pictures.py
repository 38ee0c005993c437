"""Pictures as samples: decoded by Pillow where that is installed, scaled to the input's height and width.

They are stored as bytes, and become the numbers that a model takes when they are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from seed_runtime.backends import Array, TensorSpec
from seed_runtime.data.rows import RowNumbers, RowSource
from seed_runtime.errors import InputError, SeedError, UnsupportedError, UsageError
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline

SUFFIXES: Final = (".png", ".jpg", ".jpeg")
"""Ends of names of pictures, in lower case."""
PIXELS_MAX: Final = 1 << 25
"""Largest number of pixels of a picture: a file of kilobytes may claim gigabytes."""
PIXEL_BYTES: Final = 12
"""Bytes a pixel that decoding and converting take: four each, and the coefficients of a progressive JPEG."""
ALPHA_PIXEL_BYTES: Final = 20
"""The same for a picture with transparent parts, which is drawn on white."""
TURN_PIXEL_BYTES: Final = 4
"""What is added for a photo that a camera has marked as turned."""
_ORIENTATION: Final = 0x0112
"""EXIF's tag for how a picture is to be turned: 1 to 8, 1 for not at all."""
_SCANS_MAX: Final = 100
"""Largest number of scans of a JPEG, each of which takes the time of a whole picture and a few bytes: of 300 in 109 KB,
8 s for 16 million pixels. Progressive ones have about ten."""
_SCAN: Final = b"\xff\xda"
_FORMATS: Final = ("PNG", "JPEG")
_BLOCK: Final = 1 << 20
"""Bytes of a file that are looked through at a time."""
_PNG_DEPTH_AT: Final = 24
"""Offset of the bits a channel in a PNG file: of 16, Pillow drops the lower ones in color alone."""

PIXELS: Final[dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "0..255": ((0.0,), (1.0,)),
    "0..1": ((0.0,), (255.0,)),
    "-1..1": ((127.5,), (127.5,)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""Means and divisors of red, green and blue, or of all alike: a value is (byte - mean) / divisor.

Source of the last one: torchvision, "Models and pre-trained weights", mean and std times 255.
"""


def need_pillow(otherwise: str) -> None:
    """Raise UnsupportedError if Pillow isn't installed.

    Args:
        otherwise: what the user can do without it.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UnsupportedError(
            "pictures are decoded by Pillow, which isn't installed here; install it "
            f"(pip install 'seed-runtime[pictures]'), or {otherwise}"
        ) from None


def decode(file: BinaryIO, name: str, mode: str, limit: int | None) -> Any:
    """Return a picture of Pillow's class, decoded, with transparent parts drawn on white.

    Args:
        file: a PNG or a JPEG.
        name: for messages.
        mode: "RGB" or "L".
        limit: of --max-memory; None for none [B].

    Raises:
        InputError: it is damaged, too large, or none.
        MemoryBudgetError: decoding it takes too much memory.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Pillow warns of damage on stderr, and raises whatever its parsers do: also IndexError and AttributeError.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            depth = file.read(_PNG_DEPTH_AT + 1)[_PNG_DEPTH_AT:]
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as picture:
                count = picture.width * picture.height
                if count > PIXELS_MAX:
                    raise InputError(f"{name} has {count:,} pixels, at most {PIXELS_MAX:,} are read; make it smaller")
                if picture.format == "PNG" and depth > b"\x08":
                    raise InputError(f"{name} has more than 8 bits a channel; save it with 8")
                if picture.format != "PNG" and (scans := _count_scans(file)) > _SCANS_MAX:
                    raise InputError(f"{name} has {scans:,} scans, at most {_SCANS_MAX} are decoded; save it again")
                has_alpha = "A" in picture.getbands() or "transparency" in picture.info
                turn = _turn(picture)
                need = count * ((ALPHA_PIXEL_BYTES if has_alpha else PIXEL_BYTES) + (TURN_PIXEL_BYTES if turn else 0))
                check_budget(f"decoding {name}", baseline().resident + need, limit, cgroup_limit())
                plain = (_on_white(picture) if has_alpha else picture).convert(mode)
                return plain if turn is None else plain.transpose(turn)
    except (SeedError, MemoryError):
        raise
    except UnidentifiedImageError:  # its text has the address of an object
        raise InputError(f"{name} can't be read as a picture: it is neither PNG nor JPEG; save it as one") from None
    except Exception as error:
        raise InputError(f"{name} can't be read as a picture ({error}); save it again as PNG or JPEG") from None


@dataclass(frozen=True)
class _Form:
    height: int
    width: int
    channels: int
    is_channels_first: bool


class PictureInput:
    """The input of a model that takes pictures.

    Args:
        inputs: of the model.
        pixels: a word of `PIXELS`: what the model takes pictures as; None where none is given.
        limit: of --max-memory; None for none [B].

    Attributes:
        size: of a picture as it is stored [B].

    Raises:
        InputError: the model takes no pictures, or it isn't said as what numbers.
        UnsupportedError: Pillow isn't installed.
        UsageError: the word is none of these.
    """

    def __init__(self, inputs: Sequence[TensorSpec], pixels: str | None, limit: int | None) -> None:
        if pixels is not None and pixels not in PIXELS:
            raise UsageError(f"no range of pixels is called {pixels!r}; use one of {', '.join(PIXELS)}")
        self._form = form = _form_of(inputs)
        self.size = form.height * form.width * form.channels
        spec = inputs[0]
        if spec.dtype != "uint8" and pixels is None:
            raise InputError(
                f"a picture's bytes are 0 to 255, and input {spec.name!r} is {spec.dtype}: say what the model takes "
                f"them as, as its training did: --pixels {', '.join(PIXELS)}"
            )
        self._limit, self._dtype, self._pixels = limit, spec.dtype, pixels or "0..255"
        means, _ = PIXELS[self._pixels]
        if spec.dtype not in ("uint8", "float32") or (len(means) > 1 and form.channels != len(means)):
            raise InputError(
                f"pictures can't become {spec} by --pixels {pixels}; give .npy files of what the model takes"
            )
        need_pillow("give .npy or .npz files instead")

    def decode(self, path: Path) -> Array:
        """Return a picture as uint8[1, height, width, channels].

        Raises:
            InputError: it is damaged, too large, or none.
            MemoryBudgetError: decoding it takes too much memory.
        """
        from PIL import Image

        form = self._form
        try:
            with open(path, "rb") as file:
                picture = decode(file, str(path), "RGB" if form.channels == 3 else "L", self._limit)
        except PermissionError as error:
            raise InputError(f"{path}: {error.strerror}; let this user read it") from None
        except OSError as error:
            raise InputError(f"{path} can't be read as a picture ({error}); save it again as PNG or JPEG") from None
        scaled = picture.resize((form.width, form.height), Image.Resampling.BILINEAR)
        return np.asarray(scaled, np.uint8).reshape(1, form.height, form.width, form.channels)

    def rows(self, stored: RowSource) -> RowSource:
        """Return pictures as the model takes them, from what `decode` gave."""
        return _PictureRows(stored, self._form, self._dtype, self._pixels)


class _PictureRows:
    """Pictures of bytes as a `RowSource` of the model's numbers."""

    def __init__(self, stored: RowSource, form: _Form, dtype: str, pixels: str) -> None:
        self._stored, self._form = stored, form
        image = (form.height, form.width)
        sample = (form.channels, *image) if form.is_channels_first else (*image, form.channels)
        self.shape, self.dtype = (stored.shape[0], *sample), np.dtype(dtype)
        self._mean, self._divisor = (np.array(each, np.float32) for each in PIXELS[pixels])

    def read(self, rows: RowNumbers) -> Array:
        """Return some pictures (see `RowSource`)."""
        found: Array = self._stored.read(rows)
        if self._form.is_channels_first:
            found = np.moveaxis(found, -1, 1)
            shape: tuple[int, ...] = (-1, 1, 1)
        else:
            shape = (-1,)
        if self.dtype == np.uint8:
            return np.ascontiguousarray(found)
        values: Array = found.astype(np.float32, order="C")
        values -= self._mean.reshape(shape)
        values /= self._divisor.reshape(shape)
        return values

    def blocks(self) -> Iterator[Array]:
        """Yield all elements (see `RowSource`)."""
        for row in range(self.shape[0]):
            yield self.read(np.array([row])).reshape(-1)


def _form_of(inputs: Sequence[TensorSpec]) -> _Form:
    shape: Sequence[Any] = inputs[0].shape or () if len(inputs) == 1 else ()
    if len(shape) == 4 and shape[1] in (1, 3) and isinstance(shape[2], int) and isinstance(shape[3], int):
        return _Form(shape[2], shape[3], shape[1], True)
    if len(shape) == 4 and shape[3] in (1, 3) and isinstance(shape[1], int) and isinstance(shape[2], int):
        return _Form(shape[1], shape[2], shape[3], False)
    raise InputError(
        "pictures are for models with one input of a fixed height and width and 1 or 3 channels, and this one takes "
        f"{', '.join(map(str, inputs))}; give .npy or .npz files of its inputs"
    )


def _count_scans(file: BinaryIO) -> int:
    """Return how often the marker of a scan stands in a JPEG; within a scan's data it can't. The position stays."""
    position = file.tell()
    file.seek(0)
    count, last = 0, b""
    while block := file.read(_BLOCK):
        count += (last + block).count(_SCAN)
        last = block[-1:]
    file.seek(position)
    return count


def _turn(picture: Any) -> Any:
    """Return how a picture is to be turned or mirrored so that it is upright; None for not at all."""
    from PIL import Image

    ways = Image.Transpose
    by_tag = (
        None, None, ways.FLIP_LEFT_RIGHT, ways.ROTATE_180, ways.FLIP_TOP_BOTTOM, ways.TRANSPOSE, ways.ROTATE_270,
        ways.TRANSVERSE, ways.ROTATE_90,
    )  # fmt: skip
    try:
        tag = picture.getexif().get(_ORIENTATION, 1)
        return by_tag[tag] if isinstance(tag, int) and 0 < tag < len(by_tag) else None
    except Exception:
        # A damaged record of the camera doesn't make the picture unusable.
        return None


def _on_white(picture: Any) -> Any:
    """Return a picture with transparent parts as it looks on white."""
    from PIL import Image

    layer = picture.convert("RGBA")
    plain = Image.new("RGB", layer.size, "white")
    plain.paste(layer, mask=layer.getchannel("A"))
    return plain
