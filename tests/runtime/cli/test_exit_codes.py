"""How `seed-run` ends: each exit code, one line with the next step, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from tests.support.model_seeds import FEATURES, classifier
from tests.support.seed_run import (
    COMMAND,
    cache_folder,
    files_under,
    one_object,
    refused_here,
    result,
    seed_run,
)
from tests.support.seed_run import refused as refused_anywhere

refused = partial(refused_anywhere, process=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=np.ones((1, FEATURES), np.float32))
    return tmp_path / "x.npz"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"only root may mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk up to `leave` bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(bytes(free - leave))
    return ballast


# 0 and 2: the command line


def test_version_and_help_are_results() -> None:
    assert seed_run("--version").stdout.decode() == f"seed-run {seed_runtime.__version__}\n"
    text = seed_run("--help").stdout.decode()
    assert "examples:" in text
    assert "exit codes:" in text
    assert "--serve ADDRESS" in text
    assert "--apply SEED" in text
    assert "--fine-tune DATA" in text
    assert "--text TEXT" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no seed is named"),
        (("SEED",), "x: float32[batch, 32]"),
        (("absent.seed", "--inspect"), "absent.seed: No such file"),
        ((".", "--inspect"), "Is a directory"),
        (
            ("SEED", "--max-memory", "64", "--inspect"),
            "--max-memory: '64' is 64 bytes, and less than 1 MB makes no sense",
        ),
        (("SEED", "--max-memory", "lots", "--inspect"), "--max-memory: 'lots' is not a size"),
        (("SEED", "--threads", "0", "--inspect"), "--threads: '0'"),
        (("-", "--input", "-"), "can't both come from stdin"),
        (("SEED", "--verify", "--input", "x.npz"), "--verify takes no --input"),
        (("SEED", "--inspect", "--output", "y.npz"), "--inspect takes no --output"),
        (("SEED", "--input", "x.npz", "--output", "-", "--json"), "both write to stdout"),
        (("SEED", "--input", "x.npz", "--output", "y.npy"), ".npz"),
        (("SEED", "--input", "x.npz", "--runs", "3"), "is an option of --bench"),
        (("SEED", "--bench", "--runs", "0"), "give at least 1"),
        (("SEED", "--assemble", ""), "--assemble needs"),
        (("SEED", "--fine-tune", "", "-o", "t.seed"), "--fine-tune and -o need files"),
        (("SEED", "--fine-tune", "x.npz", "-o", "SEED"), "is the seed itself"),
        (("SEED", "--fine-tune", "x.npz", "-o", "x.npz"), "is the data itself"),
        (("SEED", "--fine-tune", "x.npz", "--time-limit", "soon"), "'soon' is not a time"),
        (("SEED", "--fine-tune", "x.npz", "--input", "x.npz"), "--fine-tune takes no --input"),
        (("SEED", "--mode", "auto"), "--mode is an option of --fine-tune"),
        (("SEED", "--steps", "0"), "--steps is an option of --fine-tune"),
        (("SEED", "--apply", ""), "--apply needs a seed"),
        (("SEED", "--apply", "absent.seed"), "absent.seed: No such file"),
        (("-", "--apply", "t.seed"), "a base is read more than once"),
        (("SEED", "--apply", "-", "--apply", "t.seed"), "a base is read more than once"),
        (("SEED", "--apply", "-", "--input", "-"), "can't both come from stdin"),
        (("SEED", "--serve", ""), "--serve needs an address"),
        (("SEED", "--serve", "nowhere"), "'nowhere' is not an address"),
        (("SEED", "--serve", "0.0.0.0:8080"), "would let other machines in"),
        (("SEED", "--serve", ":0", "--json"), "--serve takes no --json"),
        (("SEED", "--serve", ":0", "--input", "x.npz"), "--serve takes no --input"),
    ],
)
def test_what_can_not_be_asked_for_is_2(
    seed: Path, arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refused_here(2, capfd, *(str(seed) if each == "SEED" else each for each in arguments))


@pytest.mark.parametrize("name", ["model.seed", "x.npz", "link", "hard"])
def test_an_output_that_is_what_is_read_is_2(
    name: str, seed: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(seed)
    (tmp_path / "hard").hardlink_to(data)
    before = seed.read_bytes(), data.read_bytes()
    error = refused_here(2, capfd, str(seed), "--input", str(data), "--output", str(tmp_path / name))
    assert "itself, which would be lost; give --output another file" in error
    with seed.open("rb") as stdin:
        command = [*COMMAND, "-", "--input", data, "--output", seed]
        assert subprocess.run(command, stdin=stdin, capture_output=True).returncode == 2
    assert (seed.read_bytes(), data.read_bytes()) == before


def test_an_unknown_flag_is_2_and_not_guessed(seed: Path) -> None:
    for flag in ("--inspec", "--bogus"):
        done = seed_run(seed, flag)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.splitlines()[-1] == f"seed-run: error: unrecognized arguments: {flag}".encode()


def test_an_output_that_can_not_be_made_is_refused_before_the_model_runs(
    seed: Path, data: Path, own_folders: Path
) -> None:
    assert "/nowhere/y.npz" in refused(2, seed, "--input", data, "--output", "/nowhere/y.npz")
    assert not files_under(own_folders)


def test_a_flag_counts_before_the_environment_and_that_before_the_file(
    seed: Path, data: Path, own_folders: Path
) -> None:
    config = own_folders / "config" / "seed" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('max-memory = "3MB"\nof-another-command = [1]\n')
    assert "allows 2.9 MiB" in refused(14, seed, "--input", data)
    environment = {"SEED_MAX_MEMORY": "5MiB"}
    assert "allows 5.0 MiB" in refused(14, seed, "--input", data, env=environment)
    assert "allows 7.0 MiB" in refused(14, seed, "--input", data, "--max-memory", "7MiB", env=environment)
    config.write_text("max-memory = true\n")
    assert f"{config}: max-memory is True" in refused(2, seed, "--inspect")
    config.write_text('cache-limit = "500"\n')
    assert "less than 1 MB makes no sense here; did you mean 500MB?" in refused(2, seed, "--input", data)
    assert "SEED_CACHE_LIMIT: '2' is 2 bytes" in refused(2, seed, "--input", data, env={"SEED_CACHE_LIMIT": "2"})
    config.write_text("max-memory = \n")
    assert f"{config}: Invalid value" in refused(2, seed, "--inspect")


# 10: the seed


@pytest.mark.parametrize("size", [0, 1, 8, 55, 56, 200, 1000, -1])
def test_a_cut_seed_is_10_and_one_line_in_every_command(
    seed: Path, size: int, tmp_path: Path, own_folders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.seed"
    cut.write_bytes(seed.read_bytes()[:size])
    for command in ((), ("--inspect",), ("--verify",), ("--assemble", str(tmp_path / "out")), ("--bench",)):
        assert refused_here(10, capfd, cut, *command).rstrip().endswith(("again", "-o model.seed"))
    assert files_under(tmp_path) == ["cut.seed", "model.seed"]
    assert not files_under(own_folders)


def test_a_cut_seed_in_a_real_shell_is_10(seed: Path) -> None:
    script = f"head -c 1000 {seed} > {seed}.cut; {' '.join(COMMAND)} {seed}.cut; echo $?"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "10\n"
    assert done.stderr.count("\n") == 1


def test_a_flipped_bit_among_the_weights_is_10_and_nothing_is_written(
    seed: Path, data: Path, tmp_path: Path, own_folders: Path
) -> None:
    flipped = bytearray(seed.read_bytes())
    flipped[-100] ^= 1
    seed.write_bytes(flipped)
    for command in (("--assemble", tmp_path / "out"), ("--input", data), ("--bench",)):
        assert "the digest says" in refused(10, seed, *command)
    done = seed_run(seed, "--verify", "--json")
    assert done.returncode == 10
    found = one_object(done.stdout)
    assert (found["ok"], found["golden"]) == (False, None)
    assert "the digest says" in found["error"]
    assert files_under(tmp_path) == ["model.seed", "x.npz"]
    assert not files_under(own_folders)


# 12 and 14


def test_a_golden_sample_that_differs_is_12_and_says_how_far(tmp_path: Path) -> None:
    path = tmp_path / "wrong.seed"
    path.write_bytes(classifier(golden="wrong"))
    line = refused(12, path, "--verify")
    assert re.search(r"output 'scores' .* by [\d.e+]+ times its tolerance", line)
    done = seed_run(path, "--verify", "--json")
    assert done.returncode == 12
    found = one_object(done.stdout)
    assert (found["ok"], found["golden"]) == (False, False)
    assert found["golden_distance"] > 1


def test_without_onnx_runtime_a_run_is_12_and_inspect_works(seed: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "onnxruntime.py").write_text("raise ImportError('not installed')")
    environment = {"PYTHONPATH": f"{tmp_path / 'hidden'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    assert "pip install onnxruntime" in refused(12, seed, "--input", data, env=environment)
    assert seed_run(seed, "--inspect", env=environment).returncode == 0
    assert seed_run(seed, "--assemble", tmp_path / "out", env=environment).returncode == 0


def test_the_limit_that_a_refusal_asks_for_is_enough(seed: Path, data: Path) -> None:
    line = refused(14, seed, "--input", data, "--max-memory", "20MB")
    asked = re.search(r"--max-memory (\d+MiB)$", line.strip())
    assert asked
    assert seed_run(seed, "--input", data, "--max-memory", asked[1]).returncode == 0


def test_under_a_limit_a_seed_without_measurements_is_12_and_a_larger_input_is_3(
    seed: Path, data: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "large.npz", x=np.ones((65, FEATURES), np.float32))
    assert "measured up to 64" in refused(3, seed, "--input", tmp_path / "large.npz", "--max-memory", "1GB")
    assert seed_run(seed, "--input", tmp_path / "large.npz").returncode == 0
    seed.write_bytes(classifier(footprint=False))
    assert "no memory measurements" in refused(12, seed, "--input", data, "--max-memory", "1GB")


# 13: disks


def test_a_full_disk_is_13_and_nothing_is_left(seed: Path, data: Path, small_disk: Path) -> None:
    fill(small_disk, leave=8192)
    assert "are free" in refused(13, seed, "--assemble", small_disk / "out")
    assert "are free" in refused(13, seed, "--input", data, env={"XDG_CACHE_HOME": str(small_disk)})
    assert files_under(small_disk) == ["ballast"]


def test_a_disk_that_fills_while_outputs_are_written_is_13(seed: Path, small_disk: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((20, 64, FEATURES), np.float32))  # outputs of 205 kB
    fill(small_disk, leave=100_000)
    line = refused(13, seed, "--input", tmp_path / "x.npz", "--output", small_disk / "y.npz")
    assert "No space left" in line
    assert files_under(small_disk) == ["ballast"]


def test_a_read_only_cache_serves_what_it_holds_and_a_temporary_folder_the_rest(
    seed: Path, data: Path, small_disk: Path, tmp_path: Path
) -> None:
    environment = {"XDG_CACHE_HOME": str(small_disk), "TMPDIR": str(tmp_path)}
    assert seed_run(seed, "--input", data, env=environment).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = files_under(tmp_path)
    held = seed_run(seed, "--input", data, env=environment)
    assert (held.returncode, held.stderr) == (0, b"")
    assert result(seed, "--verify", env=environment, process=True)["ok"]
    assert seed_run(seed, "--bench", "--runs", "1", env=environment).returncode == 0
    seed.write_bytes(classifier(golden="none"))
    other = seed_run(seed, "--input", data, env=environment)
    assert other.returncode == 0
    assert b"can't be written to; assembling in a temporary folder" in other.stderr
    assert files_under(tmp_path) == before


def test_a_file_in_the_place_of_the_cache_is_no_obstacle(seed: Path, data: Path, own_folders: Path) -> None:
    (own_folders / "cache" / "seed").mkdir(parents=True)
    (own_folders / "cache" / "seed" / "models").write_text("mine")
    done = seed_run(seed, "--input", data)
    assert (done.returncode, b"temporary folder" in done.stderr) == (0, True)
    assert (own_folders / "cache" / "seed" / "models").read_text() == "mine"


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "XDG_CACHE_HOME"])
def test_an_account_without_a_home_gets_advice(
    seed: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], variable: str
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(variable)
    monkeypatch.setattr(Path, "home", no_home)
    assert f"set HOME or {variable}" in refused_here(2, capfd, seed, "--input", data)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_the_caller_closed_is_nowhere(seed: Path, data: Path, closed: str) -> None:
    number = {"stdout": 1, "stderr": 2}[closed]
    commands: list[tuple[list[str], int]] = [
        (["--verify"], 0),
        (["--input", str(data)], 0),
        (["--inspect"], 0),
        ([], 2),
    ]
    for arguments, code in commands:
        shell = ["sh", "-c", f'exec "$@" {number}>&-', "sh", *COMMAND, str(seed), *arguments]
        done = subprocess.run(shell, capture_output=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert b"internal error" not in done.stderr


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.seed").touch()
    line = refused(10, tmp_path / "empty.seed", "--inspect")
    assert "empty.seed: it is empty; this seed is damaged, copy it to the device again" in line
    assert "it is empty" in refused(10, "-", "--verify")


def test_a_cache_that_can_not_exist_is_replaced_by_a_temporary_folder(seed: Path, data: Path) -> None:
    done = seed_run(seed, "--input", data, env={"XDG_CACHE_HOME": "/dev/null/cache"})
    assert done.returncode == 0
    assert b"temporary folder" in done.stderr


# 130: interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("command", ["--assemble", "--input"])
def test_a_signal_during_assembly_leaves_nothing(
    seed: Path, data: Path, tmp_path: Path, own_folders: Path, number: int, code: int, command: str
) -> None:
    # Through a pipe that stops in the middle, so that assembly can't be over before the signal comes.
    arguments = [command, str(tmp_path / "out" / "model" if command == "--assemble" else data)]
    with subprocess.Popen(
        [*COMMAND, "-", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(seed.read_bytes()[:-1000])
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not [*tmp_path.rglob("model.weights"), *own_folders.rglob("model.weights")]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == code
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert files_under(tmp_path) == ["model.seed", "x.npz"]
    assert not (tmp_path / "out").exists()
    assert not files_under(own_folders)
    assert not [*cache_folder(own_folders).glob("*.part")]


# 1: our own faults


def test_an_internal_error_is_1_and_shows_its_traceback_only_when_asked(
    seed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(self: seed_runtime.Seed) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(seed_runtime.Seed, "skeleton", broken)
    assert "internal error: RuntimeError: first line second line" in refused_here(1, capfd, seed, "--inspect")
    monkeypatch.setenv("SEED_DEBUG", "1")
    from seed_runtime.cli import main

    assert main([str(seed), "--inspect"]) == 1
    assert "Traceback" in capfd.readouterr().err
