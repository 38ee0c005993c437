"""The memory of `seed-run`: it stays below its plan, and a plan is all that it needs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from seed_runtime.backends import TensorSpec
from seed_runtime.data import stored
from seed_runtime.data.calls import bind
from tests.support.cgroups import MemoryCgroup, memory_cgroup
from tests.support.model_seeds import FEATURES, build_model_seed, onnx_model
from tests.support.seed_run import COMMAND, refused, result

MIB = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=np.ones((64, FEATURES), np.float32))
    return tmp_path / "x.npz"


@pytest.fixture
def group() -> Iterator[MemoryCgroup]:
    with memory_cgroup() as made:
        yield made


def run_within(group: MemoryCgroup, limit: int, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run `seed-run` in the cgroup, limited to so many bytes."""
    group.limit(limit)
    script = 'echo $$ > "$0" && exec "$@"'
    command = ["sh", "-c", script, str(group.processes), *COMMAND, *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)


def large(path: Path) -> Path:
    """Write a seed of 16 million weights."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((2048, 4096), np.float32) for name in ("w0", "w1")}
    nodes = [helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0) for name in weights]
    model = onnx_model(nodes, {}, {f"{name}_sum": [] for name in weights}, weights)
    path.write_bytes(build_model_seed(model, model_id="large", step=0.4))
    return path


@pytest.mark.slow
def test_assembly_takes_little_and_no_more_for_a_large_model(seed: Path, tmp_path: Path) -> None:
    small = result(seed, "--assemble", tmp_path / "a", process=True)["peak_rss_mib"]
    large_path = large(tmp_path / "large.seed")
    most = result(large_path, "--assemble", tmp_path / "b", process=True)["peak_rss_mib"]
    assert most <= 64
    # Between no decoding at all and millions of weights; 22 million and a billion differ by 2 MiB.
    assert most - small < 8
    assert most * MIB < result(large_path, "--inspect", process=True)["memory"]["assembly_bytes"]


@pytest.mark.slow
def test_a_plan_holds_in_a_cgroup_of_its_size_and_half_of_it_is_14(
    seed: Path, data: Path, tmp_path: Path, group: MemoryCgroup
) -> None:
    memory = result(seed, "--inspect", process=True)["memory"]
    for command, needed in (
        (("--assemble", tmp_path / "out"), memory["assembly_bytes"]),
        (("--input", data), memory["sessions"][-1]["needed_bytes"]),
        (("--input", data), memory["sessions"][-1]["least_bytes"]),
    ):
        whole = run_within(group, needed, seed, *command, "--max-memory", str(needed))
        assert whole.returncode == 0, whole.stderr.decode()
        half = run_within(group, needed // 2, seed, *command, "--max-memory", str(needed // 2))
        assert (half.returncode, half.stdout) == (14, b"")


@pytest.mark.parametrize(
    "command",
    [
        ["--assemble", "out"],
        *(pytest.param(words, marks=pytest.mark.slow) for words in (["--verify"], ["--input", "x.npz"], ["--bench"])),
    ],
    ids=lambda command: command[0],
)
def test_in_a_cgroup_that_is_too_small_a_command_says_so_instead_of_being_killed(
    seed: Path, data: Path, command: list[str], tmp_path: Path, group: MemoryCgroup
) -> None:
    words = [str(tmp_path / word) if word in ("out", "x.npz") else word for word in command]
    done = run_within(group, 24 * MIB, seed, *words)
    assert (done.returncode, done.stdout) == (14, b""), done.stderr.decode()
    (line,) = done.stderr.decode().splitlines()
    assert "and the memory limit of the container or service (cgroup /seed-test-" in line
    assert "is 24.0 MiB" in line
    # What it asks for is enough.
    least = int(re.findall("raise it to at least ([0-9]+) MiB", line)[0])
    assert run_within(group, least * MIB, seed, *words).returncode == 0


def test_a_cgroup_does_not_keep_a_seed_from_being_looked_at(seed: Path, group: MemoryCgroup) -> None:
    assert run_within(group, 40 * MIB, seed, "--inspect").returncode == 0


def test_calls_do_not_add_up(seed: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.ones((1, 64, FEATURES), np.float32))
    np.savez(tmp_path / "many.npz", x=np.ones((2000, 64, FEATURES), np.float32))  # 16 MB, outputs of 20 MB
    peaks = [
        result(seed, "--input", tmp_path / name, "--output", tmp_path / "y.npz", process=True)["peak_rss_mib"]
        for name in ("one.npz", "many.npz")
    ]
    assert peaks[1] - peaks[0] < 4


def test_what_a_conversion_holds_beside_the_input_is_in_the_plan(tmp_path: Path) -> None:
    spec = TensorSpec("x", "float32", ("batch", FEATURES))
    for array, beside in (
        (np.ones((64, FEATURES), np.float32), 0),
        (np.ones((9, 64, FEATURES), np.float16), 2 * 64 * FEATURES),  # one call, as it is stored
        (np.ones((FEATURES, 64), np.float32).T, 2 * 4 * 64 * FEATURES),  # the whole file, and one call of it
    ):
        np.save(tmp_path / "x.npy", array)
        with stored.open_arrays(str(tmp_path / "x.npy")) as arrays:
            assert bind(arrays, [spec]).extra_bytes == beside


def test_an_input_is_planned_by_its_header_before_it_is_read(seed: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 25, FEATURES)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + (4 * FEATURES << 25))  # 4 GB that the disk does not hold
    assert "measured up to 64" in refused(3, seed, "--input", path, "--max-memory", "1GB", process=True)
