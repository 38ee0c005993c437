"""`seed-run model.seed --input ...`: which array goes where, what comes out, and what is refused."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.model_seeds import CLASSES, FEATURES, tokens
from tests.support.seed_run import COMMAND, cache_folder, files_under, refused, refused_here, result, seed_run


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.seed"
    path.write_bytes(tokens())
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def features(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, FEATURES)).astype(np.float32)


def outputs_of(seed: Path, data: Path) -> dict[str, np.ndarray]:
    target = data.with_name("y.npz")
    done = seed_run(seed, "--input", data, "--output", target)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    with np.load(target, allow_pickle=False) as arrays:
        return dict(arrays)


# What goes in


def test_one_batch_gives_outputs_by_name(seed: Path, tmp_path: Path) -> None:
    outputs = outputs_of(seed, npz(tmp_path / "x.npz", x=features(3)))
    assert {name: array.shape for name, array in outputs.items()} == {"scores": (3, CLASSES)}


def test_an_axis_more_counts_calls_and_each_call_is_as_if_alone(seed: Path, tmp_path: Path) -> None:
    x = features(4, 2)
    together = outputs_of(seed, npz(tmp_path / "x.npz", x=x, labels=np.arange(4)))["scores"]
    assert together.shape == (4, 2, CLASSES)
    alone = outputs_of(seed, npz(tmp_path / "x.npz", x=x[3]))["scores"]
    assert np.array_equal(together[3], alone)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", ["npy", "npz", "compressed"])
def test_every_way_to_store_an_array_gives_the_same(seed: Path, tmp_path: Path, save: str, order: Any) -> None:
    x = features(3, 2)
    expected = outputs_of(seed, npz(tmp_path / "x.npz", x=x))["scores"]
    path = tmp_path / ("stored.npy" if save == "npy" else "stored.npz")
    if save == "npy":
        np.save(path, np.asarray(x, order=order))
    elif save == "npz":
        np.savez(path, np.asarray(x, order=order))  # without a name
    else:
        np.savez_compressed(path, x=np.asarray(x, order=order).astype(">f4"))
    assert np.array_equal(outputs_of(seed, path)["scores"], expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_input_may_be_empty(two: Path, tmp_path: Path, order: Any) -> None:
    shift = np.zeros(8, np.float32)
    for ids in (np.zeros((2, 0), np.int32), np.zeros((0, 2), np.int64), np.zeros((3, 1, 0), np.int32)):
        states = outputs_of(two, npz(tmp_path / "x.npz", ids=np.asarray(ids, order=order), shift=shift))["states"]
        assert states.shape == (*ids.shape, 8)


def test_an_empty_array_may_not_claim_sizes_that_no_array_has(seed: Path, tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (1 << 40, 1 << 40, 0)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    assert "a shape that no array has" in refused(3, seed, "--input", tmp_path / "x.npy")


def test_an_input_given_once_serves_every_call(two: Path, tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.int32).reshape(3, 2, 2)
    shift = np.arange(8, dtype=np.float32)
    states = outputs_of(two, npz(tmp_path / "x.npz", ids=ids, shift=shift))["states"]
    assert states.shape == (3, 2, 2, 8)
    zero = outputs_of(two, npz(tmp_path / "x.npz", ids=ids, shift=np.zeros(8, np.float32)))["states"]
    assert np.allclose(states - zero, shift, atol=1e-5)


def test_integers_of_another_width_are_converted_if_every_value_fits(two: Path, tmp_path: Path) -> None:
    shift = np.zeros(8, np.float16)
    data = npz(tmp_path / "x.npz", ids=[[1, 2], [3, 199]], shift=shift)  # int64, as Python's integers become
    done = seed_run(two, "--input", data)
    assert done.returncode == 0
    assert b"int64 and converted to int32" in done.stderr
    assert b"float16 and converted to float32" in done.stderr
    line = refused(3, two, "--input", npz(data, ids=[[1 << 40, 0]], shift=shift.astype(np.float32)), "-q")
    assert "int32" in line
    assert str(1 << 40) in line


def test_the_input_and_the_output_may_be_pipes(seed: Path, tmp_path: Path) -> None:
    x = features(2)
    expected = outputs_of(seed, npz(tmp_path / "x.npz", x=x))["scores"]
    for save in (np.save, np.savez):
        data = io.BytesIO()
        save(data, x)
        done = seed_run(seed, "--input", "-", "--output", "-", stdin=data.getvalue())
        assert done.returncode == 0, done.stderr.decode()
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
            assert np.array_equal(arrays["scores"], expected)


def test_the_seed_may_be_a_pipe(seed: Path, tmp_path: Path, own_folders: Path) -> None:
    data = npz(tmp_path / "x.npz", x=features(1))
    for _ in range(2):  # assembled, then found in the cache and checked to its end
        assert seed_run("-", "--input", data, stdin=seed.read_bytes()).returncode == 0
    assert "ends after" in refused(10, "-", "--input", data, stdin=seed.read_bytes()[:-10])
    assert "follow behind its end" in refused(10, "-", "--input", data, stdin=seed.read_bytes() + b"x")
    assert len(files_under(cache_folder(own_folders))) == 3  # and that they are on the disk


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": features(1)}, "no input 'y'"),
        ({"x": features(1), "mask": features(1)}, "no input 'mask'"),
        ({"labels": features(1)}, "'x' is missing"),
        ({"x": features(1).astype(np.float64)}, ".astype('float32')"),
        ({"x": np.ones((1, FEATURES), np.uint8)}, ".astype('float32')"),
        ({"x": np.ones((1, FEATURES + 1), np.float32)}, "x: float32[batch, 32] is expected"),
        ({"x": np.ones(FEATURES, np.float32)}, "x: float32[batch, 32] is expected"),
        ({"x": np.ones((1, 1, 1, FEATURES), np.float32)}, "x: float32[batch, 32] is expected"),
        ({"x": np.ones((0, 1, FEATURES), np.float32)}, "length 0"),
        ({"x": np.full((1, FEATURES), np.nan, np.float32)}, "holds NaN"),
        ({"x": np.array([[{}]], object)}, "Python objects"),
        ({"x": np.array([["a"]])}, "x: float32[batch, 32] is expected"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_what_was_expected(
    seed: Path, tmp_path: Path, arrays: dict[str, np.ndarray], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "y.npz"
    target.parent.mkdir()
    data = npz(tmp_path / "x.npz", **arrays)
    assert message in refused_here(3, capfd, seed, "--input", data, "--output", target)
    assert not files_under(target.parent)


def test_calls_that_differ_in_number_are_refused(two: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", ids=np.zeros((3, 1, 1), np.int32), shift=np.zeros((2, 8), np.float32))
    assert "3 in 'ids', 2 in 'shift'" in refused(3, two, "--input", data)


def test_one_array_is_not_enough_for_two_inputs(two: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.int32))
    assert "shift: float32[8]" in refused(3, two, "--input", tmp_path / "x.npy")


def test_a_bad_index_is_reported_as_a_fault_of_the_input(two: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", ids=np.full((1, 1), 999, np.int32), shift=np.zeros(8, np.float32))
    assert "ids: int32[1, 1]" in refused(3, two, "--input", data)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "cut npz", "cut npy", "flipped"])
def test_a_file_that_can_not_be_read_is_one_line(
    seed: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "cut npy":
        np.save(tmp_path / "x.npy", features(2))
        path.write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    elif kind != "missing":
        whole = npz(tmp_path / "x.npz", x=features(2)).read_bytes()
        flipped = bytearray(whole)
        flipped[200] ^= 1
        path.write_bytes({"empty": b"", "text": b"hello", "cut npz": whole[:-30], "flipped": bytes(flipped)}[kind])
    refused_here(3, capfd, seed, "--input", path)


def test_a_header_that_lies_about_its_size_is_refused_before_memory_is_taken(seed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", features(2))
    data = (tmp_path / "x.npy").read_bytes()
    lie = data.replace(b"(2, 32), }                ", b"(2000000000000, 32), }    ")
    assert lie != data
    (tmp_path / "x.npy").write_bytes(lie)
    assert "is cut" in refused(3, seed, "--input", tmp_path / "x.npy")


# What comes out


def test_the_summary_shows_shape_first_values_and_the_best_scores(seed: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", x=features(1))
    scores = outputs_of(seed, data)["scores"][0]
    done = seed_run(seed, "--input", data)
    assert done.returncode == 0
    first, values, top = done.stdout.decode().splitlines()
    assert first == f"scores: float32[1, {CLASSES}]"
    assert values.split()[0] == f"{scores[0]:.5g}"
    assert top.strip().startswith(f"top 5: [{scores.argmax()}] {scores.max():.5g}, ")


def test_json_is_one_object_with_the_same(seed: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", x=features(1))
    scores = outputs_of(seed, data)["scores"][0]
    found = result(seed, "--input", data)
    assert found["calls"] == 1
    output = found["outputs"]["scores"]
    assert (output["dtype"], output["shape"]) == ("float32", [1, CLASSES])
    assert output["values"] == scores[:8].tolist()
    assert [item["index"] for item in output["top"]] == np.argsort(-scores)[:5].tolist()
    assert 0 < found["peak_rss_mib"] <= found["planned_mib"]


def test_infinities_are_null_in_json(seed: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", x=np.full((1, FEATURES), 3e38, np.float32))
    assert None in result(seed, "--input", data)["outputs"]["scores"]["values"]


def test_an_output_is_replaced_whole_or_not_at_all(seed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "y.npz"
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    x = features(3, 1)
    x[2] = np.nan
    refused(3, seed, "--input", npz(tmp_path / "x.npz", x=x), "--output", target)  # two calls have run by then
    assert files_under(target.parent) == ["y.npz"]
    assert target.read_bytes() == b"the old one"
    assert seed_run(seed, "--input", npz(tmp_path / "x.npz", x=x[:2]), "--output", target).returncode == 0
    assert files_under(target.parent) == ["y.npz"]
    with np.load(target) as arrays:
        assert arrays["scores"].shape == (2, 1, CLASSES)


def test_a_device_is_written_to_and_not_replaced(seed: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = npz(tmp_path / "x.npz", x=features(1))
    with subprocess.Popen([*COMMAND, str(seed), "--input", str(data), "--output", str(fifo)]) as process:
        with fifo.open("rb") as file, np.load(io.BytesIO(file.read())) as arrays:
            assert arrays["scores"].shape == (1, CLASSES)
        assert process.wait() == 0
    assert fifo.is_fifo()


def test_nothing_but_results_goes_to_stdout_and_quiet_silences_the_rest(two: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "x.npz", ids=[[1]], shift=np.zeros(8, np.float32))
    loud, quiet = seed_run(two, "--input", data), seed_run(two, "--input", data, "-q")
    assert loud.stdout == quiet.stdout
    assert b"converted" in loud.stderr
    assert quiet.stderr == b""


def test_progress_is_shown_on_a_terminal_only_and_cleared(seed: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    data = npz(tmp_path / "x.npz", x=features(5, 1))
    done = subprocess.run(
        [*COMMAND, str(seed), "--input", str(data)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},  # not that of whatever runs the tests, which may be a dumb one
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "assembling" in shown
    assert shown.endswith("\r")
    assert b"assembling" not in done.stdout


def test_a_reader_that_leaves_early_ends_the_command_quietly(seed: Path) -> None:
    process = subprocess.Popen([*COMMAND, str(seed), "--inspect"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == -13  # SIGPIPE
    assert errors == b""
