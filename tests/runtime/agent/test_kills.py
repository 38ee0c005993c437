"""A push that is killed, or meets a full disk, at any moment leaves a device that runs a whole version.

SEED_SOAK_KILLS sets how many processes are killed at random (`make soak`).
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.agent.protocol.schema import PHASES
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import (
    NAME,
    AgentProcess,
    LocalAgent,
    RefusedError,
    agent,
    digest_of,
    push,
    running,
    seed,
    tree,
)
from tests.support.project import ROOT

# Read before the tests' own environment begins, which holds no SEED_ variables.
KILLS = int(os.environ.get("SEED_SOAK_KILLS", "10"))
DELAY_S = 0.03
"""Longest time in seconds between a phase's first line and the kill: most phases of a small seed take less."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pushed", "least"), [("kill", "whole", 80), ("kill", "delta", 80), ("full", "whole", 15)]
)
def test_a_push_that_breaks_at_any_moment_leaves_a_whole_version(kind: str, pushed: str, least: int) -> None:
    script = Path(__file__).parent.joinpath("support", "kill_points.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    # In memory: only processes die here, and a disk takes a minute for all the flushing.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, str(script), kind, pushed, f"{folder}/work"],
            capture_output=True,
            text=True,
            env=environment,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least


@pytest.mark.slow
def test_a_process_that_is_killed_at_random_leaves_a_whole_version(capsys: pytest.CaptureFixture[str]) -> None:
    rng, came_up, old_ran = random.Random(3), Counter[str](), 0
    versions = [seed(version) for version in range(1, 6)]
    push(versions[0])
    order = [phase for _ in range(-(-KILLS // len(PHASES))) for phase in rng.sample(PHASES, len(PHASES))]
    for number, phase in enumerate(order[:KILLS]):
        before, data = running(), versions[(number + 1) % len(versions)]
        killed_push(data, phase, rng.choice((0.0, rng.uniform(0, DELAY_S))))
        came_up[phase] += 1
        found = running()
        assert found in (before, digest_of(data)), (number, phase)
        old_ran += found == before
        assert answers(Store().model(NAME).link / "model.seed"), (number, phase)
        push(data, keep=1)
        assert running() == digest_of(data), (number, phase)
    with capsys.disabled():
        reported = ", ".join(f"{phase} {came_up[phase]}" for phase in PHASES)
        print(
            f"\n{KILLS} kills: the old version ran after {old_ran}, the new one after the others; by phase: {reported}"
        )


def killed_push(data: bytes, phase: str, delay_s: float) -> None:
    """Push until the phase `phase` begins and a little longer, then kill the agent."""
    with agent() as client:

        def kill(now: str, done: int, total: int) -> None:
            if now == phase and client.process.returncode is None:
                time.sleep(delay_s)
                client.process.kill()
                client.process.wait()

        client.on_progress = kill
        # A kill behind the last answer is not seen here.
        with contextlib.suppress(EOFError):
            slow_push(client, data)
        assert phase in client.phases


def slow_push(client: AgentProcess, data: bytes) -> None:
    """Push with a transfer in pieces, so that a kill can interrupt it."""
    begun = client.begin(data)
    if begun["state"] == "partial":
        with open(begun["path"], "r+b", buffering=0) as file:
            file.seek(begun["have"])
            for start in range(begun["have"], len(data), 500):
                file.write(data[start : start + 500])
        client.install(data)
    if begun["state"] != "current":
        client.switch(data, keep=1)


def answers(path: Path) -> bool:
    """Return whether the seed runs here with the results of its golden sample."""
    with seed_runtime.open(path).session(verify=True) as session:
        verdict = session.verify()
    return verdict.present and verdict.ok


# A disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a file system of 3 MiB with the store and the cache."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    monkeypatch.setenv("SEED_HOME", str(disk / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "cache"))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_push_leaves_the_version_that_ran(small_disk: Path) -> None:
    push(seed(1))
    page, filler, refusals = 4096, small_disk / "filler", 0
    # Its copy in the cache is in use, and makes no way.
    server = seed_runtime.open(Store().model(NAME).link / "model.seed").session()
    for pages in range(20):
        local = LocalAgent()
        local.send(seed(2))
        room = os.statvfs(small_disk).f_bavail - pages
        filler.write_bytes(bytes(max(0, room) * page))
        before = tree(Store().model(NAME).versions)
        try:
            local.install(seed(2))
            local.switch(seed(2))
            code = 0
        except RefusedError as error:
            code = error.exit
        filler.unlink()
        local.end()
        if not code:
            assert running() == digest_of(seed(2))
            break
        assert (code, running()) == (13, digest_of(seed(1))), pages
        if not Store().model(NAME).has(digest_of(seed(2))):
            assert tree(Store().model(NAME).versions) == before
        refusals += 1
    else:
        pytest.fail("it never had room enough")
    server.close()
    assert refusals >= 2


@pytest.mark.slow
def test_a_push_to_a_full_disk_is_refused_before_anything_is_sent(small_disk: Path) -> None:
    push(seed(1))
    (small_disk / "filler").write_bytes(bytes((os.statvfs(small_disk).f_bavail - 100) * 4096))
    before = tree(Store().home)
    local = LocalAgent()
    with pytest.raises(RefusedError) as caught:
        local.begin(seed(2))
    assert caught.value.exit == 13
    local.end()
    assert tree(Store().home) == before
    # What helps, helps.
    local.call("remove", name=NAME, all=True)
    assert running() is None


@pytest.mark.slow
def test_unused_cached_models_are_removed_for_a_push(small_disk: Path) -> None:
    push(seed(1))
    cached = small_disk / "cache" / "seed" / "models" / ("0" * 64)
    cached.mkdir()
    (cached / "model.weights").write_bytes(bytes(1 << 20))
    os.utime(cached, (0, 0))
    (small_disk / "filler").write_bytes(bytes((os.statvfs(small_disk).f_bavail - 60) * 4096))
    push(seed(2))
    assert running() == digest_of(seed(2))
    assert not cached.exists()


@pytest.mark.slow
def test_a_read_only_home_is_refused_with_the_next_step(small_disk: Path) -> None:
    push(seed(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = tree(Store().home)
    local = LocalAgent()
    with pytest.raises(RefusedError, match=f"sudo mount -o remount,rw {small_disk}") as caught:
        local.begin(seed(2))
    assert caught.value.exit == 2
    assert tree(Store().home) == before
    assert local.call("status")["models"][0]["current"] == digest_of(seed(1))
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
