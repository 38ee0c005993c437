"""The plan of a hold: lanes side by side, what a failure ends, what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.claims import hold
from bench.claims.goals import GOALS
from bench.claims.plan import JOBS, PLANS, Job

PLAN = (
    Job("a", "first", 0, 10, "teachers a"),
    Job("a-heal", "first", 0, 10, "heal --start {out}/a", ("a",)),
    Job("b", "second", 1, 10, "teachers b"),
    Job("b-on", "second", 1, 10, "teachers b --start {out}/b", ("a",)),
)

LONE = Job("lone", "first", 0, 10, "teachers b")


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were begun; one whose arguments hold `fails` fails."""
    commands: list[list[str]] = []

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        commands.append([*command, given["env"]["CUDA_VISIBLE_DEVICES"]])
        return subprocess.CompletedProcess(command, int("fails" in command))

    monkeypatch.setattr(hold, "PLANS", {"all": PLAN})
    monkeypatch.setattr(hold, "cards", lambda: 2)
    monkeypatch.setattr(hold.subprocess, "run", run)
    return commands


def events(out: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (out / "hold.jsonl").read_text().splitlines()]
    return [(line["event"], line["job"]) for line in lines if "job" in line]


def begin(out: Path, *more: str) -> int:
    return hold.main(["--cards", "2", "--data", str(out), "--out", str(out), *more])


def test_each_job_gets_its_card_its_folder_and_its_seconds(began: list[list[str]], tmp_path: Path) -> None:
    assert begin(tmp_path, "--share", "0.5", "--jobs", "3") == 0
    by_module = {tuple(command[2:4]): command for command in began}
    assert len(began) == 4
    heal = by_module["bench.claims.heal", "--start"]
    assert heal[0] == sys.executable
    assert heal[4:] == [
        str(tmp_path / "a"), "--data", str(tmp_path), "--out", str(tmp_path / "a-heal"), "--jobs", "3",
        "--time-limit", "5.0", "0",
    ]  # fmt: skip
    assert by_module["bench.claims.teachers", "b"][-1] == "1"


def test_on_one_card_all_lanes_share_it(began: list[list[str]], tmp_path: Path) -> None:
    assert begin(tmp_path, "--cards", "1") == 0
    assert {command[-1] for command in began} == {"0"}


def test_a_failure_leaves_out_what_needs_it_and_nothing_else(
    began: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "PLANS", {"all": (Job("a", "first", 0, 10, "teachers fails"), *PLAN[1:], LONE)})
    assert begin(tmp_path) == hold.FAILED
    found = events(tmp_path)
    assert {name for event, name in found if event == "ended"} == {"b", "lone"}
    assert {name for event, name in found if event == "left out"} == {"a", "a-heal", "b-on"}
    assert found.count(("begins", "a")) == hold.ATTEMPTS


def test_a_job_that_died_begins_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([-9, 0])

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, next(codes))

    monkeypatch.setattr(hold, "PLANS", {"all": PLAN[:1]})
    monkeypatch.setattr(hold, "cards", lambda: 1)
    monkeypatch.setattr(hold.subprocess, "run", run)
    assert begin(tmp_path) == 0
    assert [event for event, _ in events(tmp_path)] == ["begins", "failed", "begins", "ended"]


def test_a_job_that_was_ended_with_the_hold_does_not_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [0.0]

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        spent[0] += given["timeout"]
        raise subprocess.TimeoutExpired(command, given["timeout"])

    monkeypatch.setattr(hold, "PLANS", {"all": PLAN[:1]})
    monkeypatch.setattr(hold, "cards", lambda: 1)
    monkeypatch.setattr(hold.Hold, "_spent", lambda self: spent[0])
    monkeypatch.setattr(hold.subprocess, "run", run)
    assert begin(tmp_path, "--end", "100") == hold.FAILED
    assert [event for event, _ in events(tmp_path)] == ["begins", "failed", "left out"]


def test_a_full_disk_ends_no_lane(
    began: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open

    def full(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "hold.jsonl":
            raise OSError(28, "No space left on device")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", full)
    assert begin(tmp_path) == 0
    assert len(began) == len(PLAN)
    assert '"event": "end", "failed": []' in capsys.readouterr().out


def test_a_job_whose_time_is_gone_is_not_begun(began: list[list[str]], tmp_path: Path) -> None:
    assert begin(tmp_path, "--end", "42") == hold.FAILED
    # Judging a seed takes longer than judging a teacher, which leaves 7 of its 10 seconds.
    assert {name for event, name in events(tmp_path) if event == "ended"} == {"a", "b", "b-on"}
    assert {command[command.index("--time-limit") + 1][:1] for command in began} <= {"6", "7"}


def test_a_job_that_is_long_in_judging_begins_with_less_time(
    began: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = (Job("a", "first", 0, 100, "heal a"), Job("b", "second", 1, 100, "heal b", after=150))
    monkeypatch.setattr(hold, "PLANS", {"all": jobs})
    assert begin(tmp_path, "--end", "200") == 0
    given = {command[3]: float(command[command.index("--time-limit") + 1]) for command in began}
    assert given["a"] == 100
    assert 49 < given["b"] <= 50


def test_tiny_runs_take_steps_and_heal_for_seconds(began: list[list[str]], tmp_path: Path) -> None:
    assert begin(tmp_path, "--steps", "4", "--tiny") == 0
    for command in began:
        assert "--tiny" in command
        assert ("--steps" in command) == ("bench.claims.heal" not in command)


def test_the_whole_plan_trains_and_heals_every_goal() -> None:
    names = {job.name for job in JOBS}
    for goal in GOALS:
        assert {goal.name, f"{goal.name}-heal", f"{goal.name}-on", f"{goal.name}-student-heal"} <= names


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_has_no_circle_and_a_lane_one_card(plan: str) -> None:
    jobs = PLANS[plan]
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    before: dict[str, set[str]] = {job.name: set(job.needs) for job in jobs}
    lanes: dict[str, list[Job]] = {}
    for job in jobs:
        lane = lanes.setdefault(job.lane, [])
        assert all(job.card == other.card for other in lane)
        before[job.name] |= {other.name for other in lane}
        lane.append(job)
    done: set[str] = set()
    while len(done) < len(names):
        ready = {name for name in names if name not in done and before[name] <= done}
        assert ready, "jobs wait for each other"
        done |= ready


@pytest.mark.parametrize("plan", PLANS)
def test_a_random_start_is_healed_with_the_settings_of_the_seed(plan: str) -> None:
    commands = {job.name: job.command.split() for job in PLANS[plan]}
    for name, words in commands.items():
        if name.endswith("-random-heal"):
            seed = commands[name.replace("-random", "")]
            assert [word for word in words if word not in ("--random", "--teacher", words[2])] == [
                word for word in seed if word != words[2]
            ]


@pytest.mark.parametrize("plan", PLANS)
def test_every_command_of_a_plan_names_a_program_and_folders_that_jobs_before_it_fill(plan: str) -> None:
    folder = Path(hold.__file__).parent
    for job in PLANS[plan]:
        assert (folder / f"{job.program}.py").is_file()
        read = {word.split("/")[1] for word in job.command.split() if word.startswith("{out}/")}
        assert read - {job.name.removesuffix("-words")} <= set(job.needs)
