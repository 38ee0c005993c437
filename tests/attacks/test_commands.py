"""Attacks through `seed-run`: the documented exit code, one line with the next step, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.cli import main
from tests.attacks.support.attack_cases import ATTACKS, Attack
from tests.attacks.support.skeleton_attacks import RULES
from tests.support.seed_builder import build_seed
from tests.support.spec_bytes import u8, u16

SEED = build_seed(streams=("raw", "grid"))

CASES: dict[str, tuple[bytes, int]] = {
    "cut": (SEED[:-1], 10),
    "cut in the header": (SEED[:100], 10),
    "flipped": (SEED[:-9] + b"\xff" + SEED[-8:], 10),
    "longer": (SEED + b"\0", 10),
    "empty": (b"", 10),
    "text": (b"not a seed\n" * 100, 10),
    "newer": (build_seed({"preamble.version": u16(2)}), 12),
    "newer section": (build_seed({"section.id#4": u16(9)}), 12),
    "hostile path": (build_seed({"skeleton.location": b"../../etc/passwd"}), 10),
    "golden sample": (build_seed({"golden_input.kind": u8(4)}, streams=("raw", "grid")), 10),
    "footprint": (build_seed({"footprint.modes": u8(0)}, streams=("raw", "grid")), 10),
    "terminal": (build_seed({"model.id": b"\x05\x1b[2J!"}), 10),
}
ACTIONS = ("--inspect", "--verify", "--assemble", "run")
ONE_OF_EACH = list({attack.field.split(".")[0]: attack for attack in ATTACKS}.values())


@pytest.fixture(scope="module")
def x(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an input of the valid seed's model."""
    path = tmp_path_factory.mktemp("input") / "x.npz"
    np.savez(path, x=np.zeros((1, 3, 4), np.float32))
    return path


def refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert ";" in err
    assert "\x1b[2J" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "action"),
    # --inspect reads the header and the skeleton, not the weights.
    [(name, action) for name in CASES for action in ACTIONS if (name, action) != ("flipped", "--inspect")],
)
def test_a_bad_seed_is_refused_by_each_action(
    name: str, action: str, tmp_path: Path, own_folders: Path, x: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, code = CASES[name]
    path = tmp_path / "hostile.seed"
    path.write_bytes(data)
    actions = {"--assemble": ["--assemble", str(tmp_path / "model")], "run": ["--input", str(x)]}
    refused([str(path), *actions.get(action, [action])], code, capsys)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile.seed"]
    left = [path for path in own_folders.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("attack", ONE_OF_EACH, ids=lambda attack: attack.field)
def test_a_wrong_field_of_each_table_is_refused_by_verify(
    attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, base = tmp_path / "hostile.seed", tmp_path / "base.seed"
    path.write_bytes(attack.seed())
    base.write_bytes(build_seed())
    seeds = [str(base), "--apply", str(path)] if attack.has_base else [str(path)]
    assert main([*seeds, "--verify", "--json"]) in (10, 12)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("index", range(0, len(RULES), 9))
def test_a_hostile_skeleton_is_never_opened(index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hostile.seed"
    path.write_bytes(build_seed(RULES[index][1]))
    assert main([str(path), "--verify"]) in (10, 12)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("data", [SEED[:300], SEED + b"\0", b"nothing\n"], ids=["cut", "longer", "text"])
def test_a_bad_seed_is_refused_from_a_pipe(data: bytes, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seed_runtime.cli", "-", "--assemble", "model"],
        input=data,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (10, b"")
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []
