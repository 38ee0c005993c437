"""`seed-run SEED --prompt TEXT`: text for people and for programs, Ctrl-C, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.cli import main
from seed_runtime.processing.generation import Generator
from tests.support.decoder_model import decoder_seed, wide_seed
from tests.support.model_seeds import classifier
from tests.support.seed_run import COMMAND, one_object, refused_here, result, seed_run

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.seed"
    path.write_bytes(decoder_seed())
    return path


def test_the_text_is_printed_and_programs_get_one_object(seed: Path) -> None:
    done = seed_run(seed, "--prompt", "hello")
    assert (done.returncode, done.stderr) == (0, b"")
    found = result(seed, "--prompt", "hello")
    assert f"{found['text']}\n".encode() == done.stdout
    assert found["tokens"] == list(found["text"].encode())
    assert (len(found["tokens"]), found["prompt_tokens"], found["stop"]) == (12, 7, "max tokens")
    assert found["seconds"].keys() == {"assembly", "opening", "first_token", "run"}
    assert found["tokens_per_second"] > 0


def test_the_command_line_decides_how_tokens_are_chosen(seed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def text(*options: str) -> str:
        assert main([str(seed), "--prompt", "hello", *options]) == 0
        return capsys.readouterr().out

    hot = ("--temperature", "3", "--top-k", "20", "--top-p", "0.99", "--rng-seed")
    assert text(*hot, "1") == text(*hot, "1") != text(*hot, "2")
    assert len(text("--max-tokens", "3")) == 4
    assert text("--repetition-penalty", "2") != text()


def test_pieces_are_printed_as_they_come_and_what_there_is_after_ctrl_c(
    seed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    whole = Generator.run

    def interrupted(self: Generator, model: Any) -> Iterator[str]:
        for number, piece in enumerate(whole(self, model)):
            shown.append(capsys.readouterr().out)
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield piece

    monkeypatch.setattr(Generator, "run", interrupted)
    assert main([str(seed), "--prompt", "hello"]) == 130
    assert [len(text) for text in shown] == [0, 1, 1, 1]
    assert main([str(seed), "--prompt", "hello", "--json"]) == 130
    found = one_object(capsys.readouterr().out.encode())
    assert (found["stop"], len(found["text"])) == ("interrupted", 3)


@pytest.mark.slow
def test_a_process_that_is_interrupted_ends_with_130(seed: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, str(seed), "--prompt", "hello"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0 where it was done before


def test_text_can_not_move_a_terminals_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from seed_runtime.cli.generate import _shown

    assert _shown("a\tb\n") == "a\tb\n"
    assert _shown("a\x1b[2Jb\r") == "a\\x1b[2Jb\\r"


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (3, ("--prompt", "x" * 60), "has 62 tokens, 15 more than"),
        (2, ("--prompt", "x", "--input", "x.npz"), "takes no --input"),
        (2, ("--prompt", "x", "photo.jpg"), "takes no photo.jpg"),
        (2, ("--prompt", "x", "--text", "y"), "takes no --text"),
        (2, ("--prompt", "x", "--inspect"), "--inspect takes no --prompt"),
        (2, ("--prompt", "x", "--max-tokens", "0"), "--max-tokens 0 can't be used"),
        (2, ("--prompt", "x", "--top-p", "1.5"), "--top-p 1.5 can't be used; give 0 to 1"),
        (2, ("--prompt", "x", "--temperature", "nan"), "--temperature nan can't be used"),
        (2, ("--prompt", "x", "--rng-seed", "-1"), "--rng-seed -1 is negative"),
        (2, ("--top-k", "5", "--inspect"), "--top-k is an option of --prompt"),
        (2, ("photo.jpg",), "writes text and is asked by a prompt"),
        (2, ("--prompt", "x", "--steps", "3"), "--steps is an option of --fine-tune"),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_line(
    seed: Path, code: int, arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said in refused_here(code, capfd, seed, *arguments)


def test_an_answer_whose_last_run_is_beyond_what_was_measured_is_refused_before_its_first_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.seed"
    path.write_bytes(wide_seed(past_max=20))
    options = ("--prompt", "x" * 10, "--max-memory", "8GB", "--max-tokens")
    assert "memory was measured up to" in refused_here(3, capfd, path, *options, "20")


def test_a_model_that_writes_no_text_takes_no_prompt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "classifier.seed"
    path.write_bytes(classifier())
    assert "doesn't say how its model is asked for text" in refused_here(12, capfd, path, "--prompt", "x")


def test_a_damaged_description_ends_with_10(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hostile.seed"
    path.write_bytes(decoder_seed(context=1 << 50))
    assert "context" in refused_here(10, capfd, path, "--prompt", "x")


def test_inspect_shows_what_the_model_is_asked_for(seed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(seed), "--inspect"]) == 0
    out = capsys.readouterr().out
    assert "prompt: input_ids, position_ids, attention_mask, of at most 48 tokens" in out
    assert "text: logits" in out
