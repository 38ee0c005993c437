"""`seed-deploy tune`: a device learns from samples that it is sent, and runs the result only if that is better."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_devices.errors import RemoteError
from seed_devices.remote import tuning
from seed_devices.remote.agent_client import AgentClient
from seed_devices.remote.sample_files import SampleFile, file_digest
from seed_devices.ssh.connection import Connection
from seed_runtime.agent.protocol.checks import record
from seed_runtime.agent.protocol.schema import OPERATIONS
from seed_runtime.format.reader import SeedReader
from seed_runtime.system.locks import FileLock
from tests.devices.support.commands import deploy, stderr_of
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import EXAMPLE
from tests.devices.support.sshd import Device, MakeDevice
from tests.support.service_manager import kill_servers, make_manager, server_pid
from tests.support.signing import needs_ssh_keygen, new_key, public_key, sign_seed
from tests.support.tuned_model import CLASSES, data

NAME = "m"
HEAD = ("--mode", "head", "--threads", "1")


class _ThisMachine:
    """A connection whose device is this machine."""

    target = "h"

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def hold(self) -> None:
        pass

    def popen(self, script: str, *words: str) -> subprocess.Popen[bytes]:
        command = ["sh", "-c", script, "sh", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self.stack.enter_context(process)


def test_a_tuned_seed_that_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    whole, there, here = EXAMPLE.read_bytes(), tmp_path / "there.seed", tmp_path / "here.seed"
    digest = whole[24:56].hex()
    for data_there, is_whole in ((whole, True), (whole[:-1] + bytes([whole[-1] ^ 1]), False), (whole[:-1], False)):
        there.write_bytes(data_there)
        here.write_bytes(b"before")
        connection = _ThisMachine()
        with (
            connection.stack,
            contextlib.nullcontext() if is_whole else pytest.raises(RemoteError, match="didn't arrive whole"),
        ):
            tuning.fetch(connection, str(there), digest, len(whole), here)  # type: ignore[arg-type]
        assert here.read_bytes() == (whole if is_whole else b"before")


@pytest.fixture
def tunable(device: Device, seed_of) -> Device:
    """A device that runs a model whose head is damaged."""
    send(device, seed_of("head"), NAME)
    return device


def tune(device: Device, samples: Path, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return deploy(device.config, "tune", f"{device.alias}:{NAME}", "--data", samples, *words)


def current(device: Device) -> str:
    return os.readlink(device.model(NAME) / "current").removeprefix("versions/")


def sample_file(path: Path) -> SampleFile:
    return SampleFile(path, *file_digest(path))


def left_of(device: Device) -> set[str]:
    return {path.name for path in (device.store / "tuning" / NAME).iterdir()}


@pytest.mark.slow
def test_what_was_learned_runs_comes_back_and_is_rolled_back(tunable: Device, samples: Path, tmp_path: Path) -> None:
    before = current(tunable)
    done = tune(tunable, samples, *HEAD, "--json", "--fetch", tmp_path / "tuned.seed")
    assert done.returncode == 0, stderr_of(done)
    (found,) = json.loads(done.stdout)["hosts"]
    assert (found["name"], found["mode"], found["previous"]) == (NAME, "head", before)
    assert found["after"] > found["before"] + 0.3
    assert found["digest"] == current(tunable) != before
    assert found["sent"] == samples.stat().st_size
    assert left_of(tunable) == {"lock"}

    fetched = tmp_path / "tuned.seed"
    assert fetched.read_bytes() == running_seed(tunable, NAME)
    base = tmp_path / "base.seed"
    base.write_bytes((tunable.model(NAME) / "versions" / before / "model.seed").read_bytes())
    with seed_runtime.open(base).apply(fetched).session(threads=1) as session:
        assert session.verify().present
        y = session.run({"x": data()["x"]})["y"]
    assert (y.argmax(axis=1) == data()["labels"]).mean() > found["before"] + 0.3

    done = deploy(tunable.config, "rollback", f"{tunable.alias}:{NAME}")
    assert done.returncode == 0, stderr_of(done)
    assert current(tunable) == before


@pytest.mark.slow
def test_the_service_goes_on_with_what_was_learned(
    make_device: MakeDevice, seed_of, samples: Path, tmp_path: Path
) -> None:
    manager, variables = make_manager(tmp_path)
    device = make_device(environment=variables)
    send(device, seed_of("head"), NAME)
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        agent.call("service", name=NAME, action="install")
    try:
        before = server_pid(manager, NAME)
        assert tune(device, samples, *HEAD).returncode == 0
        assert server_pid(manager, NAME) != before
        with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
            assert agent.call("health", name=NAME)["ready"] is True
            (found,) = agent.call("status", name=NAME)["models"]
        assert found["current"] == current(device)
        assert len(found["versions"]) == 2
    finally:
        kill_servers(manager)


@pytest.mark.slow
def test_nothing_is_switched_where_nothing_got_better(tunable: Device, samples: Path) -> None:
    before = current(tunable)
    done = tune(tunable, samples, "--mode", "small", "--steps", "2", "--lr", "900", "--threads", "1")
    assert done.returncode == 15, stderr_of(done)
    assert f"nothing got better on the samples that were held out, and {NAME} is as before" in stderr_of(done)
    assert current(tunable) == before
    assert left_of(tunable) == {"lock"}


def bad_samples(case: str, folder: Path) -> Path:
    arrays = data(40)
    changed: dict[str, dict[str, np.ndarray]] = {
        "labels": {"labels": np.full(40, CLASSES)},
        "nan": {"x": np.full_like(arrays["x"], np.nan)},
        "few": {name: array[:10] for name, array in arrays.items()},
    }
    np.savez(folder / "data.npz", **{**arrays, **changed[case]})
    return folder / "data.npz"


@pytest.mark.slow
def test_data_that_can_not_be_used_is_refused_and_the_model_is_as_before(tunable: Device, tmp_path: Path) -> None:
    before = current(tunable)
    for case, problem in (
        ("labels", f"holds class {CLASSES}, and the model has classes 0 to {CLASSES - 1}"),
        ("nan", "holds NaN or infinities"),
        ("few", "samples, and there are 10; collect more"),
    ):
        done = tune(tunable, bad_samples(case, tmp_path), *HEAD)
        assert done.returncode == 3, stderr_of(done)
        assert problem in stderr_of(done)
    (tmp_path / "text.npz").write_text("x")
    for path in (tmp_path / "text.npz", tmp_path / "none.npz", tmp_path):
        assert tune(tunable, path).returncode == 3
    assert current(tunable) == before


@pytest.mark.slow
def test_a_seed_without_a_training_graph_and_an_unknown_model_are_refused(
    device: Device, seed_of, samples: Path
) -> None:
    send(device, seed_of("no training graph"), NAME)
    done = tune(device, samples, *HEAD)
    assert done.returncode == 12
    assert "export its model again with --finetune-graph" in stderr_of(done)
    done = deploy(device.config, "tune", f"{device.alias}:other", "--data", samples)
    assert done.returncode == 2
    assert "there is no model other" in stderr_of(done)


@pytest.mark.slow
def test_a_limit_of_memory_that_is_too_small_is_refused(tunable: Device, samples: Path) -> None:
    before = current(tunable)
    done = tune(tunable, samples, *HEAD, "--max-memory", "20MB")
    assert done.returncode == 14, stderr_of(done)
    assert current(tunable) == before


@pytest.mark.slow
def test_a_second_run_on_the_same_model_is_refused(tunable: Device, samples: Path) -> None:
    folder = tunable.store / "tuning" / NAME
    folder.mkdir(parents=True)
    with FileLock(folder / "lock") as lock:
        assert lock.try_acquire()
        done = tune(tunable, samples, *HEAD)
    assert done.returncode == 2
    assert f"{NAME} is being tuned already" in stderr_of(done)
    assert left_of(tunable) == {"lock"}


@pytest.mark.slow
def test_a_link_that_breaks_ends_the_run_and_the_same_command_goes_on(
    device: Device, seed_of, samples: Path, tmp_path: Path
) -> None:
    send(device, seed_of("small"), NAME)
    before = current(device)
    options = {"mode": "small", "steps": 4000, "rate": 0.0003, "threads": 1}
    sent = sample_file(samples)
    steps: list[int] = []
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert tuning.send_samples(connection, agent, NAME, sent, None) == sent.size

        def show(phase: str, done: int, total: int, detail: dict[str, Any]) -> None:
            steps.append(done if phase == "tune" else 0)
            if max(steps) > 20:
                raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            tuning.tune(agent, show, "d", name=NAME, digest=sent.digest, keep=3, **options)
    until = time.monotonic() + 120
    lock = FileLock(device.store / "tuning" / NAME / "lock")
    while not lock.try_acquire():
        assert time.monotonic() < until, "the run goes on without its client"
        time.sleep(0.05)
    lock.close()
    assert current(device) == before
    assert f"{sent.digest}.npz" in left_of(device)
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert tuning.send_samples(connection, agent, NAME, sent, None) == 0


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_so_far(device: Device, seed_of, samples: Path) -> None:
    send(device, seed_of("small"), NAME)
    before, sent = current(device), sample_file(samples)
    # Many steps are left after the first look, at 50, however late this machine comes to read of it.
    options = {"mode": "small", "steps": 600, "rate": 0.03, "threads": 1, "keep": 3}
    handler = signal.getsignal(signal.SIGINT)
    asked: list[int] = []

    def show(phase: str, done: int, total: int, detail: dict[str, Any]) -> None:
        if phase == "tune" and done > 60 and not asked:
            assert detail["tier"] == "small"
            assert detail["loss"] > 0
            asked.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        tuning.send_samples(connection, agent, NAME, sent, None)
        with tuning.Interrupts() as interrupts, interrupts.asking(agent, "d"):
            found = tuning.tune(agent, show, "d", name=NAME, digest=sent.digest, **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert found["stopped"] is True
    assert asked[0] <= found["steps"] < 600
    assert found["after"] > found["before"]
    assert current(device) == found["digest"] != before
    assert left_of(device) == {"lock"}


@pytest.mark.slow
@needs_ssh_keygen
def test_a_device_that_requires_signatures_runs_what_it_learned(
    make_device: MakeDevice, seed_of, samples: Path, tmp_path: Path
) -> None:
    device, key = make_device(), new_key(tmp_path / "key")
    signers = device.home / "config" / "seed" / "allowed_signers"
    signers.parent.mkdir(parents=True)
    signers.write_text(f"alice@example.org {public_key(key)}\n")
    (tmp_path / "signed.seed").write_bytes(sign_seed(seed_of("head").read_bytes(), key))
    send(device, tmp_path / "signed.seed", NAME)
    done = tune(device, samples, *HEAD, "--fetch", tmp_path / "tuned.seed")
    assert done.returncode == 0, stderr_of(done)
    assert deploy(device.config, "run", f"{device.alias}:{NAME}", "--verify").returncode == 0
    # Another device has no note of it.
    other = make_device()
    (other.home / "config" / "seed").mkdir(parents=True)
    (other.home / "config" / "seed" / "allowed_signers").write_text(signers.read_text())
    send(other, tmp_path / "signed.seed", NAME)
    folder = other.model(NAME) / "versions" / current(device)
    folder.mkdir()
    (folder / "model.seed").write_bytes((tmp_path / "tuned.seed").read_bytes())
    done = deploy(other.config, "rollback", f"{other.alias}:{NAME}", "--to", current(device)[:12])
    assert done.returncode == 11


@pytest.mark.slow
def test_samples_that_were_cut_go_on_and_damaged_blocks_are_sent_again(tunable: Device, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(1).standard_normal((2000, 3, 8, 8)).astype(np.float32))
    file = sample_file(path)
    digest, size = file.digest, file.size
    content, block = path.read_bytes(), 1 << 18
    there = tunable.store / "tuning" / NAME / f"{digest}.npz"
    there.parent.mkdir(parents=True)
    (there.parent / f"{'0' * 64}.npz").write_bytes(b"of another run")
    for begun, missing in (
        (content[: 2 * block + 100], size - 2 * block),
        (content[:block] + bytes(block) + content[2 * block :], size - block),
        (content + b"more", 0),
        (content, 0),
    ):
        there.write_bytes(begun)
        with Connection(tunable.alias, config=tunable.config) as connection, AgentClient(connection) as agent:
            assert tuning.send_samples(connection, agent, NAME, file, None) == missing
        assert hashlib.sha256(there.read_bytes()).hexdigest() == digest
    assert left_of(tunable) == {"lock", there.name}
    there.write_bytes(bytes(size))
    with Connection(tunable.alias, config=tunable.config) as connection, AgentClient(connection) as agent:
        agent.call("begin_tuning", name=NAME, digest=digest, file_size=size)
        with pytest.raises(RemoteError, match="arrived damaged, and were removed") as caught:
            agent.call("tune", name=NAME, digest=digest)
    assert caught.value.exit_code == 3
    assert left_of(tunable) == {"lock"}


@pytest.mark.slow
def test_the_agent_answers_with_the_fields_of_its_table(tunable: Device, samples: Path) -> None:
    sent = sample_file(samples)
    with Connection(tunable.alias, config=tunable.config) as connection, AgentClient(connection) as agent:
        answer = agent.call("begin_tuning", name=NAME, digest=sent.digest, file_size=sent.size)
        assert set(answer) - {"ok"} == set(OPERATIONS["begin_tuning"].answer)
        Path(answer["path"]).write_bytes(samples.read_bytes())
        answer = agent.call("tune", name=NAME, digest=sent.digest, mode="head", threads=1)
        assert set(answer) - {"ok"} == set(OPERATIONS["tune"].answer)
        answer.pop("ok")
        assert record(**OPERATIONS["tune"].answer)(answer) == answer
        assert agent.call("stop") == {"ok": True}
    with (tunable.model(NAME) / "current" / "model.seed").open("rb") as file:
        assert SeedReader(file, "m").header.base is not None


@pytest.mark.slow
def test_removing_a_model_removes_its_samples(tunable: Device, samples: Path) -> None:
    sent = sample_file(samples)
    with Connection(tunable.alias, config=tunable.config) as connection, AgentClient(connection) as agent:
        tuning.send_samples(connection, agent, NAME, sent, None)
    assert deploy(tunable.config, "remove", f"{tunable.alias}:{NAME}", "--all").returncode == 0
    assert not (tunable.store / "tuning" / NAME).exists()


class HostileAgent:
    """Answers in place of an agent."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        {"path": None},
        {"path": "/x", "tail": ["0" * 64], "block": 0},
        {"path": "/x", "tail": ["0" * 64], "block": 1 << 60},
        {"path": "x\n", "tail": []},
    ],
)
def test_answers_that_say_nothing_usable_are_refused(answer: dict[str, Any], samples: Path, tmp_path: Path) -> None:
    (tmp_path / "ssh_config").write_text("")
    with Connection("nowhere", config=tmp_path / "ssh_config") as connection, pytest.raises(RemoteError):
        tuning.send_samples(connection, HostileAgent(**answer), NAME, SampleFile(samples, "0" * 64, 9999), None)
