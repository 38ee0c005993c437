"""`--inspect`, `--verify`, `--assemble` and `--bench`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from tests.support.model_seeds import CLASSES, DETECTOR_METADATA, FEATURES, classifier, detector, tokens
from tests.support.seed_run import COMMAND, cache_folder, files_under, refused, result, seed_run

# --inspect


def test_inspect_shows_what_the_seed_holds(seed: Path) -> None:
    found = result(seed, "--inspect")
    assert (found["model_id"], found["model_version"], found["format_version"]) == ("classifier", 3, 1)
    assert found["bytes"] == seed.stat().st_size == sum(found["parts_bytes"].values())
    opened = seed_runtime.open(seed)
    assert found["source_bytes"] == opened.header.model.source_bytes
    assert found["ratio"] == pytest.approx(found["source_bytes"] / found["bytes"], rel=1e-3)
    assert found["parameters"] == opened.header.model.parameters
    assert found["bits_per_weight"] == pytest.approx(8 * found["bytes"] / found["parameters"], rel=1e-3)
    assert found["digest"] == opened.digest.hex()
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", FEATURES]}]
    assert found["outputs"] == [{"name": "scores", "dtype": "float32", "shape": ["batch", CLASSES]}]
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert {"w1", "w2"} <= set(tensors)  # the bias may be small enough to stay inside the skeleton
    assert tensors["w2"] == tensors["w2"] | {"shape": [64, CLASSES], "dtype": "float32", "bytes": 256 * CLASSES}
    assert {codec["codec"] for codec in found["codecs"]} == {tensor["codec"] for tensor in tensors.values()}
    assert sum(codec["bytes"] for codec in found["codecs"]) == found["parts_bytes"]["streams"]
    assert (found["ir_version"], found["opsets"], found["oldest_onnxruntime"]) == (8, {"": 17}, "1.19")
    assert found["golden"]["inputs"][0]["shape"] == [1, FEATURES]


def test_inspect_shows_the_memory_that_is_needed(seed: Path) -> None:
    # As a process of its own: what it holds already counts, and that of the tests may hold hundreds of megabytes.
    memory = result(seed, "--inspect", process=True)["memory"]
    assert memory["assembly_bytes"] > 1 << 24
    smallest, largest = memory["sessions"]
    assert (smallest["dims"], largest["dims"]) == ({"x:0": 1}, {"x:0": 64})
    assert memory["assembly_bytes"] < smallest["least_bytes"] < smallest["needed_bytes"] < largest["needed_bytes"]
    assert set(memory["modes"]) == {"fast", "lean"}


def test_metadata_is_shown_one_line_an_entry_and_given_whole_as_json(tmp_path: Path) -> None:
    path = tmp_path / "detector.seed"
    path.write_bytes(detector())
    text = seed_run(path, "--inspect").stdout.decode()
    assert "names: 0: cat\\n1: \\x1b[31mdog\n" in text
    assert "\x1b" not in text
    assert result(path, "--inspect")["metadata"] == DETECTOR_METADATA


def test_inspect_as_text_has_the_same_and_no_colour_where_it_is_not_wanted(seed: Path) -> None:
    text = seed_run(seed, "--inspect").stdout.decode()
    assert "classifier version 3" in text
    assert "x: float32[batch, 32]" in text
    assert "32x64" in text
    assert "ONNX Runtime 1.19 and newer: IR version 8, opset ai.onnx 17" in text
    assert "\x1b" not in text

    def on_a_terminal(**environment: str) -> str:
        ours, theirs = pty.openpty()
        base = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        subprocess.run(
            [*COMMAND, str(seed), "--inspect"], stdout=theirs, check=True, env={**base, "TERM": "xterm", **environment}
        )
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
        os.close(ours)
        return shown

    assert "\x1b[1m" in on_a_terminal()
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")


def test_inspect_names_the_weights_that_are_on_a_trellis(tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier(on_trellis=("w2",)))
    for found in (result(path, "--inspect"), result("-", "--inspect", stdin=path.read_bytes())):
        assert {row["name"]: row["trellis"] for row in found["tensors"]} == {"w1": False, "w2": True, "b": False}
        assert {row["codec"]: row["trellises"] for row in found["codecs"]} == {"grid": 1, "split": 0}
    lines = seed_run(path, "--inspect").stdout.decode().splitlines()
    assert any(line.startswith("w2 ") and " grid, trellis " in line for line in lines)
    assert not any(line.startswith("w1 ") and "trellis" in line for line in lines)


def test_inspect_passes_over_all_but_the_first_chunk_of_a_file_s_streams(seed: Path) -> None:
    opened = seed_runtime.open(seed)
    data = bytearray(seed.read_bytes())
    front = len(data) - opened.header.body_size + sum(part.size for part in opened.header.parts)
    first = opened.header.streams[0]
    assert len(first.sizes) > 1
    data[front + first.sizes[0]] ^= 1
    seed.write_bytes(data)
    assert result(seed, "--inspect")["model_id"] == "classifier"
    data[front] ^= 1
    seed.write_bytes(data)
    assert "stream 0, chunk 0" in refused(10, seed, "--inspect")


def test_inspect_decodes_nothing_and_imports_no_backend(seed: Path) -> None:
    script = (
        "import sys; from seed_runtime.cli import main; from seed_runtime.codecs import symbols;"
        "symbols.SymbolReader.pieces = None;"
        "assert main([sys.argv[1], '--inspect']) == 0; assert 'onnxruntime' not in sys.modules;"
        "assert 'tomllib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(seed)], check=True, stdout=subprocess.DEVNULL)


def test_a_seed_from_a_pipe_can_be_looked_at(seed: Path) -> None:
    assert result("-", "--inspect", stdin=seed.read_bytes())["model_id"] == "classifier"


# --verify


def test_verify_checks_digests_and_the_golden_sample(seed: Path) -> None:
    found = result(seed, "--verify")
    assert found["ok"] is True
    assert found["golden"] is True
    assert found["digest"] == seed_runtime.open(seed).digest.hex()
    assert found["golden_distance"] <= 1
    done = seed_run(seed, "--verify")
    assert done.returncode == 0
    assert done.stdout.decode().startswith(f"ok: classifier version 3, digest {found['digest']}\n")


def test_a_seed_without_a_golden_sample_says_so(tmp_path: Path, own_folders: Path) -> None:
    path = tmp_path / "tokens.seed"
    path.write_bytes(tokens())
    found = result(path, "--verify")
    assert (found["ok"], found["golden"]) == (True, None)
    assert b"not checked" in seed_run(path, "--verify").stdout
    assert not files_under(own_folders)


@pytest.mark.parametrize("file", ["model.weights", "model.onnx"])
@pytest.mark.parametrize("through_a_pipe", [False, True])
def test_verify_assembles_an_altered_copy_in_the_cache_again(
    seed: Path, own_folders: Path, file: str, through_a_pipe: bool
) -> None:
    assert result(seed, "--verify")["ok"]
    (altered,) = cache_folder(own_folders).glob(f"*/{file}")
    before = altered.read_bytes()
    altered.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])  # the same size
    if through_a_pipe:
        done = seed_run("-", "--verify", stdin=seed.read_bytes())
    else:
        done = seed_run(seed, "--verify")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"seed-run: the assembled copy in the cache was altered; assembling it again\n"
    assert altered.read_bytes() == before
    assert seed_run(seed, "--verify").stderr == b""


def test_verify_reads_the_seed_even_where_the_cache_has_its_model(seed: Path) -> None:
    assert result(seed, "--verify")["ok"]
    flipped = bytearray(seed.read_bytes())
    flipped[-100] ^= 1
    seed.write_bytes(flipped)
    refused(10, seed, "--verify")


# --assemble


def test_an_assembled_folder_is_a_plain_model_that_onnx_runtime_opens(seed: Path, tmp_path: Path) -> None:
    import onnxruntime

    folder = tmp_path / "deep" / "model"
    done = seed_run(seed, "--assemble", folder)
    assert done.stdout.decode() == f"{folder / 'model.onnx'}\n"
    assert files_under(folder) == ["model.onnx", "model.weights"]
    x = np.random.default_rng(1).normal(size=(2, FEATURES)).astype(np.float32)
    (theirs,) = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(None, {"x": x})
    with seed_runtime.open(seed).session() as session:
        assert np.allclose(session.run({"x": x})["scores"], theirs, rtol=1e-5)


def test_assembling_again_replaces_the_model_and_nothing_else(seed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    first = result(seed, "--assemble", folder)
    assert first["weights_bytes"] == (folder / "model.weights").stat().st_size
    assert result(seed, "--assemble", folder)["digest"] == first["digest"]
    (folder / "notes.txt").write_text("mine")
    assert "something else" in refused(3, seed, "--assemble", folder)
    assert files_under(folder) == ["model.onnx", "model.weights", "notes.txt"]


def test_a_seed_from_a_pipe_is_assembled_while_it_arrives(seed: Path, tmp_path: Path) -> None:
    assert result("-", "--assemble", tmp_path / "model", stdin=seed.read_bytes())["assemble_s"] > 0
    assert files_under(tmp_path / "model") == ["model.onnx", "model.weights"]


# --bench


def test_bench_prints_what_programs_rely_on_and_leaves_nothing(seed: Path, own_folders: Path) -> None:
    found = result(seed, "--bench", "--runs", "5", process=True)
    assert found["assemble_s"] > 0
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p90"] <= found["latency_ms"]["p99"]
    assert 10 < found["assemble_peak_rss_mib"] < found["peak_rss_mib"] <= found["planned_mib"]
    assert (found["runs"], found["input"]) == (5, "golden sample")
    assert not files_under(own_folders)


def test_bench_runs_on_an_input_where_there_is_no_golden_sample(tmp_path: Path) -> None:
    path, data = tmp_path / "tokens.seed", tmp_path / "x.npz"
    path.write_bytes(tokens())
    assert "--bench --input x.npz" in refused(3, path, "--bench")
    np.savez(data, ids=np.zeros((2, 1, 5), np.int32), shift=np.zeros(8, np.float32))
    done = seed_run(path, "--bench", "--runs", "2", "--input", data, "--threads", "1")
    assert b"1 threads" in done.stdout
    assert b"p50 " in done.stdout


def test_without_the_cache_nothing_stays_on_the_disk(seed: Path, tmp_path: Path, own_folders: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((1, FEATURES), np.float32))
    assert seed_run(seed, "--input", tmp_path / "x.npz", "--no-cache").returncode == 0
    assert not files_under(own_folders)
