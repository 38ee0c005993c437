"""Step "image": a picture as the numbers that a model takes, by Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.data.pictures import decode, need_pillow
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.limits import PICTURE_INPUT_MAX, PICTURE_SIDE_MAX
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline
from seed_runtime.processing.answers import Facts, Placement
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.items import PICTURE, Item
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Prepared, Specs, check_input, one_call

STRETCH: Final = "stretch"
CROP: Final = "crop"
LETTERBOX: Final = "letterbox"
HEIGHT: Final = "height"
LONGEST: Final = "longest"
_MODES: Final = (STRETCH, CROP, LETTERBOX, HEIGHT, LONGEST)
_FILTERS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_CHANNELS: Final = ("RGB", "BGR", "L")
_LAYOUTS: Final = ("NCHW", "NHWC")
_DTYPES: Final = ("float16", "float32", "float64", "uint8", "int8", "int32")
_ROLES: Final = ("shape", "scale", "source")
_VALUE_BYTES: Final = 24
"""Bytes that a value of an input takes at most while it is made: as float64, scaled, and in the model's type."""

_SCALING_MAX: Final = 1 << 26
"""Largest number of pixels while a picture is scaled: Pillow scales its rows first, and a file of kilobytes may have
millions of them."""
_SCALING_BYTES: Final = 4
"""Bytes that such a pixel takes."""


@dataclass(frozen=True)
class ImageStep:
    """Fills inputs with the pixels of a picture, and with its size where a model asks for that."""

    where: str
    fills: Mapping[str, str]
    resize: str
    size: tuple[int, int]
    """Height and width; of HEIGHT the least width, of LONGEST the least sides [pixel]."""
    shortest: int
    """Length of the shorter side before a crop; 0 for the least that covers the canvas [pixel]."""
    longest: int
    """Largest width of HEIGHT, and largest side of LONGEST [pixel]."""
    multiple: int
    """What the sides are multiples of, where they aren't fixed [pixel]."""
    is_centered: bool
    """Whether a letterbox has bars on both sides; else to the right and below."""
    pad: float
    """Value of a byte where the picture doesn't reach."""
    filter: str
    channels: str
    layout: str
    mean: tuple[float, ...]
    """Subtracted from bytes of 0 to 255, one for all channels or one for each."""
    scale: tuple[float, ...]
    """What the difference is divided by."""
    kind: str = "image"
    medium: str = PICTURE

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the model takes other pictures (see `InputStep`)."""
        pixels = inputs[self.fills["pixels"]]
        height: int | None = None if self.resize == LONGEST else self.size[0]
        width: int | None = None if self.resize in (HEIGHT, LONGEST) else self.size[1]
        depth = 1 if self.channels == "L" else 3
        form = (1, depth, height, width) if self.layout == "NCHW" else (1, height, width, depth)
        check_input(self.where, pixels, _DTYPES, form)
        for role in _ROLES:
            if role in self.fills:
                check_input(self.where, inputs[self.fills[role]], ("float32", "float64", "int32", "int64"), (1, 2))

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Decode, scale and normalize a picture (see `InputStep`)."""
        assert item is not None
        need_pillow("give the model's inputs with --input x.npz")
        with item.open() as file:
            picture = decode(file, item.name, "L" if self.channels == "L" else "RGB", limit)
        facts.placement = place = self.placement(*picture.size)
        count = place.canvas_width * place.canvas_height
        if count > PICTURE_INPUT_MAX:
            raise InputError(f"{item.name} would become {count:,} pixels, at most {PICTURE_INPUT_MAX:,} are made")
        between = min(round(place.width * place.scale_x), place.canvas_width) * place.height
        if between > _SCALING_MAX:
            raise InputError(f"{item.name} is too tall to be scaled, {place.width:,} x {place.height:,} pixels; cut it")
        need = baseline().resident + count * len(picture.getbands()) * _VALUE_BYTES + between * _SCALING_BYTES
        check_budget(f"scaling {item.name}", need, limit, cgroup_limit())
        pixels = inputs[self.fills["pixels"]]
        feeds = {pixels.name: self._values(self._drawn(picture, place), place, pixels.dtype)}
        sizes = {
            "shape": (place.canvas_height, place.canvas_width),
            "scale": (place.scale_y, place.scale_x),
            "source": (place.height, place.width),
        }
        for role, value in sizes.items():
            if role in self.fills:
                name = self.fills[role]
                feeds[name] = np.array([value], inputs[name].dtype)
        return one_call(feeds)

    def placement(self, width: int, height: int) -> Placement:
        """Return where a picture of this size lies on the model's canvas."""
        canvas_height, canvas_width = self.size
        if self.resize == STRETCH:
            scaled = (canvas_width, canvas_height)
        elif self.resize == CROP:
            ratio = max(canvas_width / width, canvas_height / height)
            if self.shortest:
                ratio = self.shortest / min(width, height)
            scaled = (max(canvas_width, int(width * ratio)), max(canvas_height, int(height * ratio)))
        elif self.resize == LETTERBOX:
            ratio = min(canvas_width / width, canvas_height / height)
            scaled = (_clamp(round(width * ratio), canvas_width), _clamp(round(height * ratio), canvas_height))
        elif self.resize == HEIGHT:
            wanted = -(-width * canvas_height // height)
            scaled = (_clamp(wanted, self.longest), canvas_height)
            canvas_width = min(self.longest, _up(max(scaled[0], canvas_width), self.multiple))
        else:
            ratio = min(1.0, self.longest / max(width, height))
            scaled = (self._rounded(width * ratio, canvas_width), self._rounded(height * ratio, canvas_height))
            canvas_width, canvas_height = scaled
        left, top = 0, 0
        if self.resize == CROP or (self.resize == LETTERBOX and self.is_centered):
            left, top = round((canvas_width - scaled[0]) / 2), round((canvas_height - scaled[1]) / 2)
        return Placement(
            width, height, scaled[0] / width, scaled[1] / height, left, top, canvas_width, canvas_height
        )  # fmt: skip

    def canvas_at(self, share: float) -> tuple[int, int]:
        """Return height and width of a canvas on which sides that follow the picture have a share of the longest."""
        height, width = self.size
        side = self.longest * share
        if self.resize in (HEIGHT, LONGEST):
            width = self._rounded(side, width)
        if self.resize == LONGEST:
            height = self._rounded(side, height)
        return height, width

    def _rounded(self, side: float, least: int) -> int:
        """Return a side as a multiple, at least `least`."""
        return max(least, min(self.longest, self.multiple * max(1, round(side / self.multiple))))

    def _drawn(self, picture: Any, place: Placement) -> Any:
        """Return the part of the picture that lies on the canvas, scaled. Only that part is ever made."""
        from PIL import Image

        left, top = max(0, -int(place.left)), max(0, -int(place.top))
        width = min(round(place.width * place.scale_x) - left, place.canvas_width)
        height = min(round(place.height * place.scale_y) - top, place.canvas_height)
        box = (
            left / place.scale_x,
            top / place.scale_y,
            min(place.width, (left + width) / place.scale_x),
            min(place.height, (top + height) / place.scale_y),
        )
        return picture.resize((width, height), Image.Resampling[self.filter.upper()], box=box)

    def _values(self, drawn: Any, place: Placement, dtype: str) -> Array:
        pixels = np.asarray(drawn, np.uint8).reshape(drawn.height, drawn.width, -1)
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        canvas = np.full((place.canvas_height, place.canvas_width, pixels.shape[2]), self.pad, np.float32)
        top, left = max(0, int(place.top)), max(0, int(place.left))
        canvas[top : top + drawn.height, left : left + drawn.width] = pixels
        canvas -= np.array(self.mean, np.float32)
        canvas /= np.array(self.scale, np.float32)
        if np.dtype(dtype).kind in "iu":
            info = np.iinfo(dtype)
            np.clip(np.rint(canvas, out=canvas), max(info.min, -(2.0**24)), min(info.max, 2.0**24), out=canvas)
        if self.layout == "NCHW":
            canvas = canvas.transpose(2, 0, 1)
        return np.ascontiguousarray(canvas[None]).astype(dtype, copy=False)


def _clamp(side: int, most: int) -> int:
    return max(1, min(side, most))


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def read(fields: Fields, sources: Sources) -> ImageStep:
    """Read a step of this kind."""
    size = fields.integers("size", (2, 2), 1, PICTURE_SIDE_MAX)
    if (count := size[0] * size[1]) > PICTURE_INPUT_MAX:
        raise LimitError(f"{fields.where}: pixels", count, PICTURE_INPUT_MAX)
    channels = fields.word("channels", _CHANNELS, "RGB")
    depth = 1 if channels == "L" else 3
    mean, scale = (fields.numbers(name, 1, depth, (default,)) for name, default in (("mean", 0.0), ("scale", 255.0)))
    for name, values in (("mean", mean), ("scale", scale)):
        if len(values) not in (1, depth):
            fields.refuse(f"{name!r} has {len(values)} numbers for {depth} channels")
    if 0.0 in scale:
        fields.refuse("'scale' is 0")
    step = ImageStep(
        where=fields.where,
        fills=fields.names("fills", ["pixels"], _ROLES),
        resize=fields.word("resize", _MODES, STRETCH),
        size=size,
        shortest=fields.integer("shortest", 0, PICTURE_SIDE_MAX, 0),
        longest=fields.integer("longest", 1, PICTURE_SIDE_MAX, max(size)),
        multiple=fields.integer("multiple", 1, 1024, 1),
        is_centered=fields.flag("centered", True),
        pad=fields.number("pad", -1e6, 1e6, 0.0),
        filter=fields.word("filter", _FILTERS, "bilinear"),
        channels=channels,
        layout=fields.word("layout", _LAYOUTS, "NCHW"),
        mean=mean,
        scale=scale,
    )
    if step.shortest and (step.resize != CROP or step.shortest < max(size)):
        fields.refuse("'shortest' is for a crop, and is no shorter than what is cut out")
    if step.longest < max(size):
        raise FormatError(fields.where, "'longest' is shorter than the size")
    return step
