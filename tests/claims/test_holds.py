"""A healing that is longer than a hold: pause, bring everything to another machine in parts, go on, end."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.claims import hold
from bench.claims.plan import Job
from tests.support.claims_data import tiny_data

# PyTorch, which the default tests run without.
pytestmark = pytest.mark.slow

HEAL = "heal --start {out}/mobilenetv2 --set passes=0 --set fold=0.2 --set cut=0.2 --set batch=8"
TEACHER = Job("mobilenetv2", "a", 0, 4, "teachers mobilenetv2 --batch 8")


def last_line(out: Path) -> str:
    lines = [json.loads(line) for line in (out / "hold.jsonl").read_text().splitlines()]
    return str([line for line in lines if line["event"] == "ended"][-1]["last"])


def facts(state: Path) -> Any:
    import numpy as np

    from seed_exporter.heal.checkpoint import FACTS, FILE

    with np.load(state / FILE) as stored:
        return json.loads(stored[FACTS].tobytes())


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a plan of a teacher and a healing, its programs in this process; returns the hold's exit code."""
    import torch

    from bench.claims import heal, teachers

    torch.set_num_threads(1)
    # On a GPU no run begins with a search, however few its steps.
    monkeypatch.setattr("seed_exporter.stages.healing.heal.is_short", lambda *_: False)
    monkeypatch.setattr(heal, "LOOK_EVERY", 0.1)

    others = subprocess.run  # an export measures memory in processes of its own

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[Any]:
        programs = {"bench.claims.heal": heal.main, "bench.claims.teachers": teachers.main}
        if len(command) < 3 or command[2] not in programs:
            return others(command, **given)
        with contextlib.redirect_stdout(given["stdout"]):
            code = programs[command[2]](command[3:])
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(hold.subprocess, "run", run)
    monkeypatch.setattr(hold, "cards", lambda: 1)

    def begun(data: Path, out: Path, whole: float, seconds: float) -> int:
        jobs = (TEACHER, Job("mobilenetv2-heal", "a", 0, 4, f"{HEAL} --whole {whole}", ("mobilenetv2",)))
        monkeypatch.setattr(hold, "PLANS", {"all": jobs})
        monkeypatch.setattr(hold, "TINY_SECONDS", seconds)
        return hold.main([
            "--data", str(data), "--out", str(out), "--tiny", "--steps", "3", "--jobs", "1"
        ])  # fmt: skip

    return begun


def test_a_healing_goes_on_from_hold_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., int]
) -> None:
    from bench.claims import collect, pack, states

    monkeypatch.setattr("bench.claims.pieces.SIZE", 100_000)
    data, first, home, parts, second = (tmp_path / name for name in ("data", "first", "home", "parts", "second"))
    data.mkdir()
    tiny_data(data)
    assert begin(data, first, whole=1000, seconds=1) == 0
    done = json.loads(last_line(first))["paused"]
    assert 0 < done < 0.5

    assert collect.main([str(first), str(home), "--checkpoint", "mobilenetv2"]) == 0
    assert collect.main([str(first), str(home), "--state", "mobilenetv2-heal"]) == 0
    shutil.copy(first / "mobilenetv2" / "result.json", home / "mobilenetv2")
    assert pack.main(["--data", str(data), "--out", str(parts), "--with", str(home), "--most", "300000"]) == 0
    folders = sorted(parts.iterdir())
    assert len(folders) > 1
    for folder in folders:
        shutil.copytree(folder, second, dirs_exist_ok=True)
    state = second / "out" / "mobilenetv2-heal" / "state"

    piece = next(state.glob("state-*.bin"))
    kept = piece.read_bytes()
    piece.write_bytes(kept[:-1])
    with pytest.raises(ValueError, match=f"{piece.name} is missing or damaged; copy all parts"):
        states.join(state)
    piece.write_bytes(kept)

    out = second / "out"
    assert begin(data, out, whole=8, seconds=600) == 0
    result = json.loads((out / "mobilenetv2-heal" / "result.json").read_text())
    assert result["set"][0] == "passes=0"
    looks = [json.loads(each) for each in (out / "mobilenetv2-heal" / "looks.jsonl").read_text().splitlines()]
    assert looks[-1]["share"] == 1
    assert states.share_of(state) == 1
    prices = facts(state)["prices"]
    assert prices[-1][0] == 1
    states.rewind(state, 0.5)
    assert states.share_of(state) == 0.5
    rewound = facts(state)
    assert rewound["controller"][1] == rewound["prices"][-1][1] == next(p for s, p in reversed(prices) if s <= 0.5)
    assert rewound["controller"][-1] == 0
