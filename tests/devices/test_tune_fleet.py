"""`seed-deploy tune` of folders and of several devices: each for itself, one table, one exit code."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_devices.cli import tune as command
from seed_devices.errors import NotTunedError, RemoteError
from seed_devices.fleet.target import parse
from seed_devices.remote import tuning
from seed_devices.remote.sample_files import ModelInputs, SampleFile, SampleFiles
from seed_devices.ssh.connection import Connection
from seed_runtime.backends import TensorSpec
from seed_runtime.data.sample_files import open_samples
from seed_runtime.errors import InputError, UsageError
from tests.devices.support.commands import COMMAND, deploy, environment, hosts, stderr_of
from tests.devices.support.pushing import send
from tests.devices.support.sshd import Device, MakeDevice, Sshd
from tests.support.ports import free_port
from tests.support.tuned_model import CLASSES, data

NAME = "m"
HEAD = ("--mode", "head", "--threads", "1")
PICTURES = ModelInputs((TensorSpec("x", "float32", ("n", 3, 8, 8)),), CLASSES)
GOES_DOWN = ("--mode", "small", "--steps", "2", "--lr", "900", "--threads", "1")


def class_folders(root: Path) -> Path:
    """Write the samples as one `.npy` file each, in a folder of its class."""
    found = data()
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for number, (x, label) in enumerate(zip(found["x"], found["labels"], strict=True)):
        np.save(root / str(label) / f"{number}.npy", x)
    return root


def ignore(phase: str, done: int, total: int) -> None:
    pass


def packed(folder: Path, scratch: Path, pixels: str | None = None, model: ModelInputs = PICTURES) -> Path:
    scratch.mkdir()
    return SampleFiles(scratch, pixels).of(folder, lambda: model, ignore).path


def test_a_folder_is_packed_into_what_it_holds_and_always_into_the_same_bytes(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data")
    first, second = (packed(folder, tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    with np.load(first) as found, open_samples(str(folder), PICTURES.inputs, classes=CLASSES) as there:
        assert set(found) == {"x", "labels"}
        assert np.array_equal(found["labels"], there["labels"])
        assert np.array_equal(found["x"], there["x"].read(np.arange(len(found["x"]))))


def test_pictures_are_packed_as_the_numbers_that_the_model_takes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label in range(CLASSES):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        image.new("RGB", (16, 16), (255, 0, 51 * label)).save(tmp_path / "data" / str(label) / "a.png")
    with np.load(packed(tmp_path / "data", tmp_path / "scratch", "0..1")) as found:
        assert found["labels"].tolist() == list(range(CLASSES))
        assert found["x"].shape == (CLASSES, 3, 8, 8)
        assert found["x"].dtype == np.float32
        assert found["x"][:, :, 0, 0] == pytest.approx(np.array([[1, 0, label / 5] for label in range(CLASSES)]))
    with pytest.raises(InputError, match="--pixels"):
        packed(tmp_path / "data", tmp_path / "other")


def test_a_folder_is_packed_once_for_all_devices_with_the_same_inputs(tmp_path: Path) -> None:
    folder, asked = class_folders(tmp_path / "data"), []
    files = SampleFiles(tmp_path, None)

    def report(phase: str, done: int, total: int) -> None:
        asked.append((phase, done, total))

    first = files.of(folder, lambda: PICTURES, report)
    count = len(asked)
    assert asked[-1][0] == "pack"
    assert asked[-1][1] == asked[-1][2] > 0
    assert files.of(folder, lambda: PICTURES, report) is first
    assert len(asked) == count
    with pytest.raises(InputError, match="is expected"):
        files.of(folder, lambda: ModelInputs((TensorSpec("x", "float32", (8, 8)),), CLASSES), report)


def test_pixels_are_about_folders_of_pictures_alone(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pixels"):
        SampleFiles(tmp_path, "0..1").check(samples)
    with pytest.raises(InputError, match="folder of samples"):
        SampleFiles(tmp_path, None).check(tmp_path / "none")


class Answering:
    """Answers in place of an agent."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def described(answer: dict[str, Any] | Exception, folder: Path) -> ModelInputs:
    (folder / "ssh_config").write_text("")
    with Connection("d", config=folder / "ssh_config") as connection:
        return tuning.describe_inputs(connection, Answering(answer), NAME)  # type: ignore[arg-type]


def test_a_device_says_what_its_model_takes_and_no_shape_that_would_fill_this_machine(tmp_path: Path) -> None:
    tensor = {"name": "x", "dtype": "float32", "shape": ["n", 3, 8, 8]}
    assert described({"inputs": [tensor], "classes": CLASSES}, tmp_path) == PICTURES
    assert described({"inputs": [{**tensor, "shape": None}], "classes": 2}, tmp_path).inputs[0].shape is None
    huge = {"inputs": [{**tensor, "shape": ["n", 3, 1 << 20, 1 << 20]}], "classes": 2}
    with pytest.raises(RemoteError, match="elements are packed") as caught:
        described(huge, tmp_path)
    assert caught.value.exit_code == 12


def test_a_runtime_that_packs_nothing_is_to_be_updated(tmp_path: Path) -> None:
    older = RemoteError(2, 'd: op is "tuning_inputs"; this runtime (0.1.0) knows facts, begin_tuning', "UsageError")
    with pytest.raises(
        RemoteError, match=r"too old to tune on folders; .* --update-runtime, or give an .npz"
    ) as caught:
        described(older, tmp_path)
    assert caught.value.exit_code == 12


def test_an_older_runtime_is_to_be_updated(samples: Path, tmp_path: Path) -> None:
    older = RemoteError(2, 'd: op is "begin_tuning"; this runtime (0.1.0) knows facts, status, begin', "UsageError")
    (tmp_path / "ssh_config").write_text("")
    with (
        Connection("d", config=tmp_path / "ssh_config") as connection,
        pytest.raises(RemoteError, match="too old to tune; update it: seed-deploy push") as caught,
    ):
        tuning.send_samples(connection, Answering(older), NAME, SampleFile(samples, "0" * 64, 9), None)  # type: ignore[arg-type]
    assert caught.value.exit_code == 12


@pytest.mark.parametrize(
    ("text", "host"), [("pi@porch:bell", "porch"), ("pi@gate:22", "gate-22"), ("pi@[fe80::1]", "fe80::1")]
)
def test_host_in_a_path_stands_for_the_host_without_user(text: str, host: str, tmp_path: Path) -> None:
    target = parse(text)
    assert command._fetched(f"{tmp_path}/{{host}}.seed", [target]) == {target: tmp_path / f"{host}.seed"}


def test_what_several_devices_learn_is_never_fetched_into_one_file(tmp_path: Path) -> None:
    targets = [parse("porch"), parse("gate")]
    with pytest.raises(UsageError, match="into the path"):
        command._fetched(str(tmp_path / "tuned.seed"), targets)
    with pytest.raises(UsageError, match="one by one"):
        command._fetched(f"{tmp_path}/{{host}}.seed", [parse("porch:a"), parse("porch:b")])
    assert command._fetched(None, targets) == {}


class Asked:
    """Notes that an agent was asked to stop."""

    def __init__(self) -> None:
        self.count = 0

    def ask_to_stop(self) -> None:
        self.count += 1


def test_ctrl_c_asks_all_that_tune_and_those_that_do_not_yet_never_begin() -> None:
    before = signal.getsignal(signal.SIGINT)
    tuned, late = [Asked(), Asked()], Asked()
    with tuning.Interrupts() as interrupts:
        with interrupts.asking(tuned[0], "a"), interrupts.asking(tuned[1], "b"):  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGINT)
            interrupted = pytest.raises(NotTunedError, match="its model is as before")
            with interrupted as caught, interrupts.asking(late, "c"):  # type: ignore[arg-type]
                pytest.fail("it began")
        assert [each.count for each in (*tuned, late)] == [1, 1, 0]
        assert caught.value.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_interrupts_as_ever_where_nothing_tunes() -> None:
    with tuning.Interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_a_folder_is_packed_sent_and_tuned_on(device: Device, seed_of, tmp_path: Path) -> None:
    send(device, seed_of("head"), NAME)
    folder = class_folders(tmp_path / "data")
    (host,) = hosts(device.config, "tune", f"{device.alias}:{NAME}", "--data", folder, *HEAD)
    assert host["after"] > host["before"] + 0.3
    assert host["digest"] == current(device)
    assert 0 < host["sent"] < sum(path.stat().st_size for path in folder.rglob("*.npy"))
    done = deploy(device.config, "tune", f"{device.alias}:other", "--data", folder)
    assert (done.returncode, "there is no model other" in stderr_of(done)) == (2, True)
    (folder / "0" / "note.txt").write_text("x")
    done = deploy(device.config, "tune", f"{device.alias}:{NAME}", "--data", folder)
    assert (done.returncode, "note.txt is no sample" in stderr_of(done)) == (3, True)
    assert host["digest"] == current(device)


@pytest.mark.slow
def test_what_fails_on_one_device_leaves_the_others_alone(
    make_device: MakeDevice, sshd: Sshd, seed_of, samples: Path, tmp_path: Path
) -> None:
    good, plain = make_device(), make_device()
    send(good, seed_of("head"), NAME)
    send(plain, seed_of("no training graph"), NAME)
    sshd.alias("tune-late", sshd.key_of(good), port=free_port())
    names = [good.alias, plain.alias, "tune-late"]
    inventory = tmp_path / "hosts.toml"
    inventory.write_text("".join(f'[[host]]\ntarget = "{name}"\nname = "{NAME}"\n' for name in names))
    before = current(plain)
    done = deploy(sshd.config, "tune", "--inventory", inventory, "--data", samples, *HEAD)
    assert done.returncode == 30, stderr_of(done)
    assert "2 of 3 hosts failed, see their lines; run the command again for these alone" in stderr_of(done)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert rows[0][:7] == ["host", "name", "result", "digest", "held", "out", "before"]
    assert rows[1][:4] == [good.alias, NAME, "tuned", current(good)[:12]]
    assert float(rows[1][6]) > float(rows[1][5]) + 0.3
    assert [row[:3] for row in rows[2:]] == [[name, NAME, "failed"] for name in names[1:]]
    assert "export its model again with --finetune-graph" in done.stdout.decode()
    assert "better on 1 of 3 devices" in stderr_of(done)
    assert current(plain) == before


@pytest.mark.slow
def test_each_device_has_its_own_samples_and_its_own_result(
    make_device: MakeDevice, sshd: Sshd, seed_of, tmp_path: Path
) -> None:
    devices = [make_device() for _ in range(3)]
    for device in devices:
        send(device, seed_of("head"), NAME)
    class_folders(tmp_path / devices[0].alias)
    np.savez(tmp_path / f"{devices[1].alias}", **data(60))
    (tmp_path / f"{devices[1].alias}.npz").rename(tmp_path / devices[1].alias)
    words = ("--data", f"{tmp_path}/{{host}}", "--fetch", f"{tmp_path}/{{host}}.seed", *HEAD)
    targets = [f"{device.alias}:{NAME}" for device in devices]
    found = hosts(sshd.config, "tune", *targets, *words)
    assert [host["ok"] for host in found] == [True, True, False]
    assert [host["fetched"] for host in found[:2]] == [f"{tmp_path}/{each.alias}.seed" for each in devices[:2]]
    assert found[0]["held_out"] > found[1]["held_out"]
    assert (found[2]["exit"], found[2]["kind"]) == (3, "InputError")
    for device in devices[:2]:
        assert (tmp_path / f"{device.alias}.seed").read_bytes() == (
            device.model(NAME) / "current" / "model.seed"
        ).read_bytes()
    assert not (tmp_path / f"{devices[2].alias}.seed").exists()


@pytest.mark.slow
def test_where_nothing_got_better_the_scores_are_shown_and_the_code_is_the_devices(
    make_device: MakeDevice, sshd: Sshd, seed_of, samples: Path
) -> None:
    devices = [make_device() for _ in range(2)]
    for device in devices:
        send(device, seed_of("head"), NAME)
    before = [current(device) for device in devices]
    targets = [f"{device.alias}:{NAME}" for device in devices]
    found = hosts(sshd.config, "tune", *targets, "--data", samples, *GOES_DOWN)
    assert [(host["ok"], host["exit"], host["digest"]) for host in found] == [(False, 15, None)] * 2
    assert all(host["before"] >= host["after"] for host in found)
    done = deploy(sshd.config, "tune", *targets, "--data", samples, *GOES_DOWN)
    assert done.returncode == 30
    assert [line.split()[2:4] for line in done.stdout.decode().splitlines()[1:]] == [["as", "before"]] * 2
    assert [current(device) for device in devices] == before


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_of_each_device(make_device: MakeDevice, sshd: Sshd, seed_of, samples: Path) -> None:
    devices = [make_device() for _ in range(2)]
    for device in devices:
        send(device, seed_of("small"), NAME)
    before = [current(device) for device in devices]
    words = [*(f"{device.alias}:{NAME}" for device in devices), "--data", str(samples)]
    # What is learned is looked at after each twelfth of the steps, and devices let all else on this machine come first:
    # the first look must come soon, and many steps be left then.
    words += ["--mode", "small", "--steps", "600", "--lr", "0.03", "--threads", "1"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "tune", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
        env={**environment(sshd.config), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown, until = "", time.monotonic() + 120
    try:
        while not all(_is_past(shown, device.alias, 50) for device in devices):
            assert time.monotonic() < until, shown[-500:]
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 1 << 16).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while _read(ours):
            pass
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        os.close(ours)
    assert process.returncode == 130
    rows = [line.split() for line in out.decode().splitlines()[1:]]
    assert [row[2:4] for row in rows] == [["tuned", current(device)[:12]] for device in devices]
    # On a busy machine one may have ended by itself before the other one was past its first steps.
    assert "interrupted" in [row[-1] for row in rows], out.decode()
    assert [current(device) for device in devices] != before


def _is_past(shown: str, alias: str, step: int) -> bool:
    return any(int(found) > step for found in re.findall(rf"{alias}:{NAME}: small: (\d+) of", shown))


def _read(descriptor: int) -> bytes:
    """Return what a terminal shows; nothing where its program has ended."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""


def current(device: Device) -> str:
    return os.readlink(device.model(NAME) / "current").removeprefix("versions/")
