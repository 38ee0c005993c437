"""What the metadata of a TFLite file, and the files that are appended to it, say of its processing."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_exporter import loaders
from seed_exporter.pipeline import export
from seed_exporter.processing import attach
from seed_exporter.processing.tflite_metadata import ARCHIVE_MAX, LABELS_FILE_MAX, METADATA_MAX
from seed_exporter.results import Options
from seed_exporter.skeletons import builder_for
from seed_runtime.format.parts import processing as part
from tests.support.public_models import CACHE
from tests.support.seed_run import result
from tests.support.tflite_bytes import WEIGHT, Numbers, Scalar, Tables
from tests.support.tflite_classifier import (
    CALIBRATION,
    LABELS,
    LABELS_TEXT,
    NORMALIZATION,
    NORMALIZED,
    THRESHOLD,
    classifier,
    metadata_of,
    picture_fields,
    scores_fields,
    units,
    with_files,
)

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")

AUTO = Path("auto")
FILES = {"labels.txt": LABELS_TEXT}
NAN = Numbers("f", [math.nan])
PUBLIC = CACHE / "pypi" / "mediapipe-0.10.14" / "mediapipe" / "modules"


def found_in(path: Path) -> tuple[Any, list[str]]:
    """Return the processing of a file, and what the user is told."""
    notes: list[str] = []
    graph = loaders.load(path)
    data = attach(graph, builder_for(graph), path, AUTO, notes).processing
    if not data:
        return None, notes
    text, attachments = part.unpack(data)
    return (json.loads(text), {name: bytes(each) for name, each in attachments.items()}), notes


def found(folder: Path, data: bytes) -> tuple[Any, list[str]]:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return found_in(path)


def test_a_classifier_with_labels_is_asked_about_pictures(tmp_path: Path) -> None:
    (description, files), notes = found(tmp_path, with_files(classifier(metadata_of(license="Apache-2.0")), FILES))
    assert files == {"labels.txt": LABELS_TEXT.rstrip()}
    assert description["about"] == {"license": "Apache-2.0"}
    (image,), (labels,) = description["inputs"], description["outputs"]
    assert (image["size"], image["resize"], image["channels"]) == ([2, 8], "stretch", "L")
    assert (image["layout"], image["mean"], image["scale"]) == ("NHWC", [127.5], [127.5])
    assert labels == {
        "kind": "labels", "reads": {"scores": "scores"}, "labels": "labels.txt", "activation": "none"
    }  # fmt: skip
    assert notes == ["processing is taken from the file's own metadata; --processing none leaves it out"]


def test_packed_labels_and_a_threshold_are_read(tmp_path: Path) -> None:
    outputs = [scores_fields(given=[(THRESHOLD, {0: Scalar("f", 0.25)})])]
    data = with_files(classifier(metadata_of(outputs=outputs)), FILES, zipfile.ZIP_DEFLATED)
    (description, files), _ = found(tmp_path, data)
    assert description["outputs"][0]["threshold"] == 0.25
    assert files == {"labels.txt": LABELS_TEXT.rstrip()}


def test_a_batch_of_any_size_is_one_of_one_picture(tmp_path: Path) -> None:
    (description, _), _ = found(tmp_path, with_files(classifier(metadata_of(), is_free=True), FILES))
    assert [step["kind"] for step in description["outputs"]] == ["labels"]


def test_labels_are_found_behind_a_file_larger_than_what_is_looked_at(tmp_path: Path) -> None:
    (_, files), _ = found(tmp_path, with_files(classifier(metadata_of()) + bytes(ARCHIVE_MAX), FILES))
    assert files == {"labels.txt": LABELS_TEXT.rstrip()}


@pytest.mark.parametrize(
    ("metadata", "files"),
    [
        (None, FILES),
        (metadata_of(inputs=[]), FILES),
        (metadata_of(outputs=[scores_fields()] * 2), FILES),
        (metadata_of(inputs=[picture_fields(color_space=1)]), FILES),  # colors, of a model with one channel
        (metadata_of(inputs=[picture_fields(normalization={})]), FILES),
        (metadata_of(inputs=[{0: "numbers"}]), FILES),
    ],
)
def test_nothing_is_guessed_where_too_little_is_said(
    metadata: bytes | None, files: dict[str, bytes], tmp_path: Path
) -> None:
    assert found(tmp_path, with_files(classifier(metadata), files)) == (None, [])


@pytest.mark.parametrize(
    ("outputs", "files"),
    [
        ([scores_fields(None)], FILES),
        ([scores_fields(given=[(CALIBRATION, {1: Scalar("f", 0)})])], FILES),
        ([scores_fields("../labels.txt")], FILES),
        ([scores_fields()], {"other.txt": LABELS_TEXT}),
        ([scores_fields()], {"labels.txt": b"label 0\nlabel 1"}),
    ],
)
def test_the_numbers_for_pictures_are_told_where_no_output_has_labels(
    outputs: list[Any], files: dict[str, bytes], tmp_path: Path
) -> None:
    nothing, (note,) = found(tmp_path, with_files(classifier(metadata_of(outputs=outputs)), files))
    assert nothing is None
    assert "a picture of mean [127.5] and scale [127.5], and no output with a label for each" in note


def test_scores_that_are_integers_get_no_labels(tmp_path: Path) -> None:
    nothing, (note,) = found(tmp_path, with_files(classifier(metadata_of(), kind=3), FILES))
    assert nothing is None
    assert "mean [0.0] and scale [1.0]" in note


@pytest.mark.parametrize(
    ("mean", "std", "quantization", "said"),
    [
        # The middle of the bytes, and steps of one byte.
        ([127.5], [127.5], (1 / 127.5, 0), "mean [127.5] and scale [1.0"),
        # -10 stands for 0, which is the byte 123.5, and a step is one of 64 / 32 bytes.
        ([123.5], [64.0], (1 / 32, -10), "mean [143.5] and scale [2.0]"),
        ([], [64.0], (1 / 32, -10), "mean [20.0] and scale [2.0]"),
        ([123.5], [64.0], None, "mean [128.0] and scale [1.0]"),
        ([123.5], [], (1 / 32, -10), "mean [128.0] and scale [1.0]"),
    ],
)
def test_a_picture_for_int8_is_normalized_and_quantized(
    mean: list[float], std: list[float], quantization: tuple[float, int] | None, said: str, tmp_path: Path
) -> None:
    picture = picture_fields(normalization={0: Numbers("f", mean), 1: Numbers("f", std)})
    data = classifier(metadata_of(inputs=[picture]), kind=9, quantization=quantization)
    nothing, (note,) = found(tmp_path, with_files(data, FILES))
    assert nothing is None
    assert said in note


def _method(data: bytes) -> bytes:
    """Return a file with a zip that says in its list of another way of packing."""
    at = data.rindex(b"PK\1\2")
    return data[: at + 10] + struct.pack("<H", zipfile.ZIP_LZMA) + data[at + 12 :]


def _far(data: bytes) -> bytes:
    """Return a file with a zip of 64 bits that says that its file is where none can be."""
    at, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
    listed = bytearray(data[at:end]) + struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    struct.pack_into("<H", listed, 30, 12)
    struct.pack_into("<I", listed, 42, 0xFFFFFFFF)
    return data[:at] + listed + data[end : end + 12] + struct.pack("<I", len(listed)) + data[end + 16 :]


TWICE = picture_fields() | {4: units((NORMALIZATION, NORMALIZED), (NORMALIZATION, {1: Numbers("f", [255])}))}
WHOLE = with_files(classifier(metadata_of()), FILES)
ATTACKS = {
    "metadata that are cut": (classifier(metadata_of()[:64]), "TFLite metadata"),
    "metadata of another kind": (classifier(metadata_of().replace(b"M001", b"M002", 1)), "aren't M001"),
    "metadata of a newer schema": (
        classifier(metadata_of(custom={10: Scalar("I", 1)})), "field 10 in a table SubGraphMetadata"
    ),
    "an offset that leads out": (classifier(b"\xf0\xff\xff\x7fM001" + bytes(56)), "reaches past the end"),
    "as many metadata as never were": (classifier(bytes(METADATA_MAX + 1)), f"{METADATA_MAX:,}"),
    "a mean for each of 1,000 channels": (
        classifier(metadata_of(inputs=[picture_fields(normalization={0: Numbers("f", [0] * 1000)})])), "channels"
    ),
    "two normalizations": (classifier(metadata_of(inputs=[TWICE])), "two process units of type 1"),
    "a standard deviation of 0": (
        with_files(classifier(metadata_of(inputs=[picture_fields(normalization={1: Numbers("f", [0])})])), FILES),
        "'scale' is 0",
    ),
    "a mean that is no number": (
        with_files(
            classifier(metadata_of(inputs=[picture_fields(normalization={0: NAN, 1: Numbers("f", [1])})])), FILES
        ),
        "NaN is no JSON",
    ),
    "a threshold that is no number": (
        with_files(
            classifier(metadata_of(outputs=[scores_fields(given=[(THRESHOLD, {0: Scalar("f", math.nan)})])])), FILES
        ),
        "NaN is no JSON",
    ),
    "a place beyond all files": (_far(WHOLE), "the files that were appended to the model can't be read"),
    "no zip": (classifier(metadata_of()), "can't be read"),
    "a zip that is cut": (WHOLE[:-1], "can't be read"),
    "a bomb": (
        with_files(classifier(metadata_of()), {"labels.txt": bytes(8 << 20)}, zipfile.ZIP_DEFLATED),
        f"{LABELS_FILE_MAX:,}",
    ),
    "a zip in the front of a large file": (WHOLE + bytes(ARCHIVE_MAX), "can't be read"),
    "another way of packing": (_method(WHOLE), "method 14"),
    "labels that are no text": (
        with_files(classifier(metadata_of()), {"labels.txt": b"\xff\n" * 15 + b"\xff"}), "UTF-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_damaged_metadata_are_named_and_end_no_export(attack: str, tmp_path: Path) -> None:
    data, said = ATTACKS[attack]
    nothing, (note,) = found(tmp_path, data)
    assert nothing is None
    assert said in note


def test_a_zip_of_a_hundred_thousand_names_is_not_read(tmp_path: Path) -> None:
    names = io.BytesIO()
    with zipfile.ZipFile(names, "w") as archive:
        archive.writestr("labels.txt", LABELS_TEXT)
    whole = names.getvalue()
    at = whole.index(b"PK\1\2")
    entry, end = whole[at : whole.index(b"PK\5\6")], whole[whole.index(b"PK\5\6") :]
    count = 100_000
    listed = entry * count
    # The list is larger than what of a file is looked at.
    end = end[:8] + struct.pack("<HHII", 0xFFFF, 0xFFFF, len(listed), at) + end[20:]
    assert len(listed) > ARCHIVE_MAX
    nothing, (note,) = found(tmp_path, classifier(metadata_of()) + whole[:at] + listed + end)
    assert nothing is None
    assert "can't be read" in note


def test_metadata_of_a_detector_s_anchors_do_no_harm(tmp_path: Path) -> None:
    custom = {9: Tables([{0: "DETECTOR_METADATA", 1: Numbers("B", [7] * 64, 16)}])}
    (description, _), _ = found(tmp_path, with_files(classifier(metadata_of(custom=custom)), FILES))
    assert description["outputs"][0]["kind"] == "labels"


@pytest.mark.slow
@pytest.mark.parametrize("is_free", [False, True])
def test_a_photo_is_answered_with_labels_and_the_file_is_given_back(
    is_free: bool, tmp_path: Path, own_folders: Path
) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    source = tmp_path / "model.tflite"
    source.write_bytes(with_files(classifier(metadata_of(), is_free=is_free), FILES))
    export(source, output=tmp_path / "m.seed", options=Options(method="lossless", processing=AUTO, jobs=1))
    assert (seed_runtime.open(tmp_path / "m.seed").assemble(tmp_path / "out") / "model.tflite").read_bytes() == (
        source.read_bytes()
    )
    picture = pillow.new("L", (8, 2), 0)
    picture.putpixel((3, 1), 255)
    picture.save(tmp_path / "photo.png")
    (answer,) = result(tmp_path / "m.seed", tmp_path / "photo.png", "--top", "2")["answers"]
    scores = [weight - 1 + 2 * (index == 11) for index, weight in enumerate(WEIGHT)]
    best = sorted(range(16), key=lambda index: -scores[index])[:2]
    (labels,) = answer["outputs"]
    assert [(one["label"], one["score"]) for one in labels["labels"]] == [
        (LABELS[index], pytest.approx(scores[index])) for index in best
    ]


@pytest.mark.slow
@pytest.mark.skipif(not PUBLIC.exists(), reason="fetch the models first: python -m bench.public prepare tflite")
@pytest.mark.parametrize(
    ("path", "mean", "scale"),
    [
        ("face_detection/face_detection_short_range", [127.5], [127.5]),
        ("face_landmark/face_landmark", [0.0], [255.0]),
        ("hand_landmark/hand_landmark_lite", [0.0] * 3, [255.0] * 3),
        ("palm_detection/palm_detection_full", [0.0], [255.0]),
        ("selfie_segmentation/selfie_segmentation", [0.0], [255.0]),
    ],
)
def test_public_models_say_how_their_pictures_are_made(path: str, mean: list[float], scale: list[float]) -> None:
    nothing, (note,) = found_in(PUBLIC / f"{path}.tflite")
    assert nothing is None
    assert f"a picture of mean {mean} and scale {scale}, and no output with a label" in note
