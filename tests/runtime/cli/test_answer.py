"""`seed-run SEED photo.jpg`: answers for people and for programs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from seed_runtime.cli import main
from seed_runtime.errors import DiskSpaceError
from seed_runtime.format.header import Header
from tests.support.described_models import (
    claimed_png,
    color_description,
    color_model,
    color_seed,
    described,
    png,
    typed_input,
)
from tests.support.model_seeds import classifier
from tests.support.seed_run import one_object, refused, refused_here, result, seed_run, seed_run_here

pytest.importorskip("PIL")


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "colors.seed"
    path.write_bytes(color_seed())
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png(8, 6, (0, 255, 0)))
    return path


def test_a_photo_gives_labels_with_scores(seed: Path, photo: Path) -> None:
    done = seed_run_here(seed, photo)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [" 0.9647  green", " 0.0177  red", " 0.0177  blue"]


def test_programs_get_one_object(seed: Path, photo: Path) -> None:
    found = result(seed, photo, "--top", "1")
    best = {"index": 1, "label": "green", "score": pytest.approx(0.9647, abs=1e-4)}
    outputs = [{"kind": "labels", "labels": [best]}]
    assert found["answers"] == [{"source": str(photo), "notes": [], "outputs": outputs}]
    assert (found["comparisons"], found["drawn"]) == ([], None)
    assert found["seconds"].keys() == {"assembly", "opening", "run"}


def test_many_photos_are_answered_in_their_order_and_options_may_stand_between(
    seed: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.jpg").write_bytes(png(4, 4, (255, 0, 0), format="JPEG"))
    assert main([str(seed), str(photo), "--top", "1", str(tmp_path / "other.jpg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[2]] == [f"{photo}:", f"{tmp_path / 'other.jpg'}:"]
    assert [line.split()[-1] for line in lines[1::2]] == ["green", "red"]


def test_a_seed_from_a_pipe_answers_too(photo: Path) -> None:
    done = seed_run("-", photo, "--json", stdin=color_seed())
    assert done.returncode == 0, done.stderr.decode()
    assert one_object(done.stdout)["answers"][0]["outputs"][0]["labels"][0]["label"] == "green"


def test_the_picture_is_drawn_with_what_was_found(
    seed: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    photo.write_bytes(png(200, 100, (0, 255, 0)))
    for name, kind in (("out.png", "PNG"), ("out.jpg", "JPEG")):
        assert main([str(seed), str(photo), "--draw", str(tmp_path / name)]) == 0
        with Image.open(tmp_path / name) as drawn:
            assert (drawn.format, drawn.size) == (kind, (200, 100))
            assert len(drawn.getcolors(1 << 16) or []) > 2


def test_the_answer_is_out_before_the_model_is_on_the_disk_and_a_full_disk_is_told_behind_it(
    seed: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path, header: Header) -> None:
        raise DiskSpaceError(str(folder), 2, 1)

    monkeypatch.setattr("seed_runtime.assembly.cache.sync_assembled", full)
    assert main([str(seed), str(photo)]) == 13
    out, err = capfd.readouterr()
    assert "green" in out
    assert len(err.splitlines()) == 1


def test_one_question_is_asked_in_the_mode_that_answers_soonest_and_three_in_the_fast_one(
    seed: Path, photo: Path
) -> None:
    assert result(seed, photo)["mode"] == "lean"
    assert result(seed, photo, photo, photo)["mode"] == "fast"


def test_labels_can_not_reach_the_terminal_as_they_are(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.seed"
    path.write_bytes(described(color_model(), color_description(), labels=b"a\x1b[31m\nb\r\nc"))
    assert main([str(path), str(photo)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "a\\x1b[31m" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("absent.png",), 3, "absent.png: No such file or directory; give the path of a picture"),
        (("NOTE",), 3, "can't be read as a picture"),
        (("--text", "hello"), 2, "is asked about pictures (photo.jpg) and takes no --text"),
        (("speech.wav",), 2, "is asked about pictures (photo.jpg), and speech.wav is none"),
        (("PHOTO", "--input", "x.npz"), 2, "--input is for arrays"),
        (("PHOTO", "--output", "y.npz"), 2, "--output is for arrays"),
        (("PHOTO", "--verify"), 2, "--verify takes no"),
        (("PHOTO", "--top", "0"), 2, "give at least 1"),
        (("PHOTO", "PHOTO", "--draw", "o.png"), 2, "--draw needs one picture"),
        (("PHOTO", "--draw", "o.gif"), 2, "ends in .png or .jpg"),
        (("PHOTO", "--draw", "PHOTO"), 2, "is the picture itself, which would be lost"),
        (("--draw", "o.png"), 2, "--draw is for a model that is asked about a file"),
        (("--top", "3", "--inspect"), 2, "--top is for a model that is asked about a file"),
        (("PHOTO", "--draw", "absent/o.png"), 2, "absent"),
        (("NOTE", "--draw", "FOLDER"), 2, "is a folder; name a file in it"),
    ],
)
def test_what_can_not_be_asked_is_refused(
    seed: Path, photo: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "note.txt").write_text("no photo")
    (tmp_path / "folder.png").mkdir()
    given = {"FOLDER": str(tmp_path / "folder.png"), "PHOTO": str(photo), "NOTE": str(tmp_path / "note.txt")}
    assert message in refused_here(code, capfd, str(seed), *(given.get(each, each) for each in arguments))


def test_sound_can_not_be_drawn_into(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    step = {"kind": "audio", "fills": {"samples": "x"}, "rate": 16000}
    (tmp_path / "sound.seed").write_bytes(described(typed_input([1, "n"]), {"inputs": [step]}))
    said = refused_here(2, capfd, tmp_path / "sound.seed", "absent.wav", "--draw", str(tmp_path / "o.png"))
    assert "absent.wav is no picture; leave out --draw" in said


def test_a_seed_that_knows_no_pictures_says_how_it_would(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.seed").write_bytes(classifier())
    assert "export the model again with --processing" in refused(12, tmp_path / "plain.seed", photo)


def test_an_unknown_step_is_named_and_the_model_runs_on_arrays_all_the_same(
    photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "newer.seed"
    path.write_bytes(described(color_model(), color_description(kind="smell"), labels=b"a\nb\nc"))
    problem = "a step of kind 'smell' is unknown to this runtime; update it"
    assert problem in refused_here(12, capfd, path, photo)
    assert problem in refused_here(12, capfd, path, "--verify")
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros((1, 3, 4, 4), np.float32))
    assert main([str(path), "--input", str(tmp_path / "x.npy")]) == 0


def test_the_answer_keeps_the_limit_of_memory(seed: Path, tmp_path: Path) -> None:
    # Claimed alone: the plan comes before the first pixel.
    (tmp_path / "large.png").write_bytes(claimed_png(5000, 5000))
    assert "decoding" in refused(14, seed, tmp_path / "large.png", "--max-memory", "128MB", process=True)


def test_inspect_shows_steps_and_attachments(seed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(seed, "--inspect")
    assert found["processing"]["asked_about"] == ["picture"]
    assert found["processing"]["attachments"] == {"labels.txt": 14}
    assert found["parts_bytes"]["processing"] > 0
    assert main([str(seed), "--inspect"]) == 0
    text = capsys.readouterr().out
    assert "asked about  image: image" in text
    assert "answers      labels: scores" in text
    assert "attached     labels.txt, 14 bytes" in text
