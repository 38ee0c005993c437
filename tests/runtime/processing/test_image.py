"""Pictures as inputs: how they are placed, in which numbers they end, and which are refused."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import seed_runtime
from seed_runtime.errors import FormatError, InputError, MemoryBudgetError, UnsupportedError
from seed_runtime.memory.process import baseline
from seed_runtime.processing import PICTURE, Item, prepare
from seed_runtime.processing.answers import Placement
from seed_runtime.processing.image import ImageStep
from tests.support.described_models import claimed_png, described, png, typed_input

pytest.importorskip("PIL")


def feeds_of(
    picture: bytes, shape: list[int | str], code: int = TensorProto.FLOAT, limit: int | None = None, **fields: Any
) -> Any:
    """Return the input and the facts of a picture."""
    step = {"kind": "image", "fills": {"pixels": "x"}, "scale": [1], **fields}
    seed = seed_runtime.open(io.BytesIO(described(typed_input(shape, code), {"inputs": [step]})))
    processing = seed.processing()
    assert processing is not None
    sample = prepare(processing, (Item(PICTURE, "photo.png", data=picture),), limit)
    return sample.first["x"], sample.facts


def gradient(width: int, height: int) -> np.ndarray:
    """Return a picture whose red is the column, whose green is the row, and whose blue is 9."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, 9)], axis=2).astype(np.uint8)


def test_a_picture_of_the_models_size_becomes_its_bytes() -> None:
    pixels = gradient(6, 4)
    found, _ = feeds_of(png(6, 4, pixels), [1, 3, 4, 6], size=[4, 6])
    assert np.array_equal(found, pixels.transpose(2, 0, 1)[None].astype(np.float32))
    found, _ = feeds_of(png(6, 4, pixels), [1, 4, 6, 3], size=[4, 6], layout="NHWC", channels="BGR")
    assert np.array_equal(found, pixels[None, :, :, ::-1].astype(np.float32))


def test_mean_and_scale_apply_to_bytes_channel_by_channel() -> None:
    picture = png(2, 2, (255, 0, 51))
    found, _ = feeds_of(picture, [1, 3, 2, 2], size=[2, 2], mean=[127.5], scale=[127.5])
    assert found[0, :, 0, 0].tolist() == pytest.approx([1.0, -1.0, -0.6])
    found, _ = feeds_of(picture, [1, 3, 2, 2], size=[2, 2], channels="BGR", mean=[1, 0, 5], scale=[10, 1, 250])
    assert found[0, :, 0, 0].tolist() == pytest.approx([5.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (TensorProto.UINT8, [255, 0, 51]),
        (TensorProto.INT8, [127, -128, -77]),
        (TensorProto.FLOAT16, [127.0, -128.0, -77.0]),
    ],
)
def test_integers_are_rounded_and_clipped_to_the_inputs_type(code: int, expected: list[float]) -> None:
    mean = 0.0 if code == TensorProto.UINT8 else 128.4 if code == TensorProto.INT8 else 128.0
    found, _ = feeds_of(png(2, 2, (255, 0, 51)), [1, 3, 2, 2], code, size=[2, 2], mean=[mean])
    assert found[0, :, 0, 0].tolist() == expected


def test_gray_pictures_have_one_channel() -> None:
    found, _ = feeds_of(png(2, 2, 77, "L"), [1, 1, 2, 2], size=[2, 2], channels="L")
    assert np.array_equal(found, np.full((1, 1, 2, 2), 77, np.float32))


def test_a_crop_takes_the_middle() -> None:
    pixels = gradient(10, 4)
    found, facts = feeds_of(png(10, 4, pixels), [1, 3, 4, 4], size=[4, 4], resize="crop")
    assert np.array_equal(found[0, 0, 0], [3, 4, 5, 6])
    assert (facts.placement.left, facts.placement.scale_x) == (-3, 1.0)
    # Cut out of twice its size: the same as scaling all of it first.
    from PIL import Image

    whole = np.asarray(Image.fromarray(pixels).resize((20, 8), Image.Resampling.BILINEAR))
    found, _ = feeds_of(png(10, 4, pixels), [1, 3, 4, 6], size=[4, 6], resize="crop", shortest=8)
    assert np.array_equal(found[0].transpose(1, 2, 0), whole[2:6, 7:13])


def test_a_letterbox_keeps_proportions_and_fills_up() -> None:
    picture = png(8, 4, (200, 100, 50))
    found, facts = feeds_of(picture, [1, 3, 8, 8], size=[8, 8], resize="letterbox", pad=114)
    assert found[0, 0, :, 0].tolist() == [114, 114, 200, 200, 200, 200, 114, 114]
    assert facts.placement == Placement(8, 4, 1.0, 1.0, 0, 2, 8, 8)
    found, _ = feeds_of(picture, [1, 3, 8, 8], size=[8, 8], resize="letterbox", centered=False)
    assert found[0, 0, :, 0].tolist() == [200] * 4 + [0] * 4


def test_a_line_keeps_its_height_and_gets_the_width_that_it_needs() -> None:
    options: dict[str, Any] = {"resize": "height", "size": [4, 8], "longest": 40, "multiple": 8, "pad": 127.5}
    shape: list[int | str] = [1, 3, 4, "width"]
    found, _ = feeds_of(png(20, 8, (200, 0, 0)), shape, **options)
    assert found.shape == (1, 3, 4, 16)
    assert found[0, 0, 0].tolist() == [200] * 10 + [127.5] * 6
    assert feeds_of(png(2, 8), shape, **options)[0].shape == (1, 3, 4, 8)
    assert feeds_of(png(900, 3), shape, **options)[0].shape == (1, 3, 4, 40)


def test_a_page_is_scaled_to_the_longest_side_and_to_multiples() -> None:
    shape: list[int | str] = [1, 3, "h", "w"]
    options: dict[str, Any] = {"resize": "longest", "size": [32, 32], "longest": 128, "multiple": 32}
    found, facts = feeds_of(png(256, 100), shape, **options)
    assert found.shape == (1, 3, 64, 128)
    assert (facts.placement.scale_x, facts.placement.scale_y) == (0.5, 0.64)
    assert feeds_of(png(1000, 2), shape, **options)[0].shape == (1, 3, 32, 128)


def test_a_photo_that_its_camera_marked_as_turned_stands_upright() -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    found, facts = feeds_of(png(6, 4, gradient(6, 4), exif=exif), [1, 3, 6, 4], size=[6, 4])
    assert np.array_equal(found[0, 0, :, 0], np.arange(6))
    assert (facts.placement.width, facts.placement.height) == (4, 6)


def scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is there so many times."""
    data = png(8, 8, format="JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - 1) + data[-2:]


def test_a_photo_of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert feeds_of(scans(50), [1, 3, 2, 2], size=[2, 2])[0].shape == (1, 3, 2, 2)
    with pytest.raises(InputError, match=r"photo.png has [0-9,]+ scans, at most 100 are decoded; save it again"):
        feeds_of(scans(3000), [1, 3, 2, 2], size=[2, 2])


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (b"", "photo.png can't be read as a picture"),
        (b"a letter, and no photo", "photo.png can't be read as a picture: it is neither PNG nor JPEG; save it as one"),
        (png(4, 4)[:-20], "photo.png can't be read as a picture"),
        (png(4, 4, format="BMP"), "photo.png can't be read as a picture"),
        (claimed_png(60000, 60000), "3600000000 pixels"),
        (claimed_png(8000, 8000), "photo.png has 64,000,000 pixels, at most 33,554,432 are read"),
    ],
)
def test_what_is_no_picture_or_a_bomb_is_refused(picture: bytes, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        feeds_of(picture, [1, 3, 2, 2], size=[2, 2])
    assert problem in str(refused.value)


def test_a_picture_without_end_makes_no_input_without_end() -> None:
    found, _ = feeds_of(png(1, 60000), [1, 3, 2, 2], size=[2, 2], resize="crop", shortest=8000)
    assert found.shape == (1, 3, 2, 2)


def test_what_scaling_makes_between_is_bounded_and_planned() -> None:
    tall = png(1, 50_000)
    with pytest.raises(InputError, match="is too tall to be scaled, 1 x 50,000 pixels; cut it"):
        feeds_of(tall, [1, 3, 2, 2000], size=[2, 2000])
    with pytest.raises(MemoryBudgetError, match=r"scaling photo.png needs"):
        feeds_of(tall, [1, 3, 2, 1000], limit=baseline().resident + (100 << 20), size=[2, 1000])


def test_decoding_is_planned_before_it_is_done() -> None:
    with pytest.raises(MemoryBudgetError, match=r"decoding photo.png needs"):
        feeds_of(claimed_png(4000, 4000), [1, 3, 2, 2], limit=32 << 20, size=[2, 2])
    with pytest.raises(MemoryBudgetError, match=r"scaling photo.png needs"):
        feeds_of(png(1, 1), [1, 3, 4000, 4000], limit=baseline().resident + (100 << 20), size=[4000, 4000])


def test_without_pillow_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = png(2, 2)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'seed-runtime\[pictures\]'\), or give the model's inputs"):
        feeds_of(picture, [1, 3, 2, 2], size=[2, 2])


def test_a_picture_is_no_text() -> None:
    with pytest.raises(FormatError, match="it can't make input x: string"):
        feeds_of(png(2, 2), [1, 3, 2, 2], TensorProto.STRING, size=[2, 2])


def test_any_picture_lies_within_the_canvas() -> None:
    def step(resize: str) -> ImageStep:
        shortest = 60 if resize == "crop" else 0
        numbers = (30, 50), shortest, 90, 8, True, 0.0
        return ImageStep("here", {}, resize, *numbers, "box", "RGB", "NCHW", (0,), (1,))

    for resize in ("stretch", "crop", "letterbox", "height", "longest"):
        for width, height in ((1, 1), (1, 9999), (9999, 1), (51, 29), (640, 480)):
            place = step(resize).placement(width, height)
            scaled = round(width * place.scale_x), round(height * place.scale_y)
            assert min(place.canvas_width, place.canvas_height) > 0
            if resize == "crop":
                assert scaled[0] >= place.canvas_width - place.left
                assert scaled[1] >= place.canvas_height - place.top
            else:
                assert 0 < scaled[0] <= place.canvas_width - place.left
                assert 0 < scaled[1] <= place.canvas_height - place.top
