"""`push --canary`: the others get a seed only after the canaries were watched, and a fault leads back."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seed_devices.cli import rollout
from seed_devices.cli.rollout import Plan, Rollout
from seed_devices.fleet import canary, parallel
from seed_devices.fleet.canary import judge
from seed_devices.fleet.parallel import Access, Outcome, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.push import one_device, preflight
from seed_devices.push.job import Options, PushResult
from seed_devices.push.observe import observe
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from tests.devices.support.answering import answering
from tests.devices.support.commands import COMMAND, deploy, environment, stderr_of
from tests.devices.support.inferences import ask, asked_all_along
from tests.devices.support.proxy import Proxy
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import make_seed
from tests.devices.support.sshd import RUNTIME, Device, MakeDevice, Sshd, make_key
from tests.support.ports import free_port
from tests.support.service_manager import kill_servers, make_manager, server_pid

pytestmark = pytest.mark.slow
NAME = "product"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make_seed(tmp_path / "1.seed", version=1, golden="right")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make_seed(tmp_path / "2.seed", version=2, golden="right")


@pytest.fixture
def fleet(make_device: MakeDevice, old: Path) -> list[Device]:
    """Return three devices on which the old version runs."""
    devices = [make_device() for _ in range(3)]
    for device in devices:
        send(device, old)
    return devices


def push(devices: list[Device], seed: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return deploy(devices[0].config, "push", seed, *(device.alias for device in devices), *words)


def versions(devices: list[Device], old: Path, new: Path) -> str:
    """Return what runs on each device, as letters."""
    letters = {old.read_bytes(): "o", new.read_bytes(): "n"}
    return "".join(letters[running_seed(device, NAME)] for device in devices)


def short(seed: Path) -> str:
    return preflight.load(seed).digest[:12]


def verify_another(device: Device, seed: Path) -> None:
    """Let the device's `seed-run` work with this seed, whichever model is meant."""
    path = device.store / "runtime" / RUNTIME / "bin" / "seed-run"
    path.write_text(path.read_text().replace('"$@"', f'{shlex.quote(str(seed))} "${{@:2}}"'))
    path.write_text(path.read_text().replace("#!/bin/sh", "#!/bin/bash"))


def test_well_canaries_let_the_others_follow(fleet: list[Device], old: Path, new: Path) -> None:
    done = push(fleet, new, "--canary", "1", "--watch", "1s")
    assert done.returncode == 0, stderr_of(done)
    assert versions(fleet, old, new) == "nnn"
    lines = stderr_of(done).splitlines()
    assert "watching 1 canary for 1 s" in lines
    assert f"{fleet[0].alias}: it has no service" in lines
    assert "no fault of the canaries was found; going on with 2 devices" in lines
    assert [line.split()[0] for line in done.stdout.decode().splitlines()[1:4]] == [device.alias for device in fleet]


def test_a_wrong_golden_sample_rolls_all_canaries_back(
    fleet: list[Device], old: Path, new: Path, tmp_path: Path
) -> None:
    verify_another(fleet[1], make_seed(tmp_path / "wrong.seed", version=2, golden="wrong"))
    done = push(fleet, new, "--canary", "2", "--watch", "1min")
    assert done.returncode == 30
    assert versions(fleet, old, new) == "ooo"
    assert done.stdout.decode().splitlines()[-3:] == [
        f"{fleet[0].alias}: rolled back to {short(old)}",
        *(line for line in done.stdout.decode().splitlines() if "its golden sample fails: " in line),
        f"{fleet[1].alias}: rolled back to {short(old)}",
    ]
    assert re.search(
        rf"\nseed-deploy: {fleet[1].alias}: its golden sample fails: .*; 1 other device was not pushed to; "
        rf"see: seed-deploy logs {fleet[1].alias}:{NAME}\n$",
        stderr_of(done),
    )


def test_json_has_the_decision_and_its_reasons(fleet: list[Device], old: Path, new: Path, tmp_path: Path) -> None:
    verify_another(fleet[2], make_seed(tmp_path / "wrong.seed", version=2, golden="wrong"))
    done = push(fleet, new, "--canary", f"{fleet[0].alias},{fleet[2].alias}", "--watch", "1min", "--json")
    found = json.loads(done.stdout)
    assert [host["host"] for host in found["hosts"]] == [fleet[0].alias, fleet[2].alias]
    assert (found["canary"]["decision"], found["canary"]["watch_s"]) == ("rolled back", 60)
    assert found["canary"]["not_pushed"] == [fleet[1].alias]
    well, faulty = found["canary"]["hosts"]
    assert (well["faults"], well["missing"], well["rolled_back"]) == ([], ["it has no service"], True)
    assert faulty["faults"][0].startswith("its golden sample fails: ")
    assert faulty["runs"] == faulty["before"] == preflight.load(old).digest
    found = json.loads(push(fleet[:2], new, "--canary", "1", "--watch", "1s", "--json").stdout)
    assert (found["canary"]["decision"], found["canary"]["not_pushed"]) == ("went on", [])
    assert [host["state"] for host in found["hosts"]] == ["switched", "pushed"]


def test_a_push_to_a_canary_that_fails_keeps_the_seed_from_the_others(
    fleet: list[Device], old: Path, tmp_path: Path
) -> None:
    wrong = make_seed(tmp_path / "wrong.seed", version=2, golden="wrong")
    done = push(fleet, wrong, "--canary", "1")
    assert done.returncode == 30
    assert versions(fleet, old, wrong) == "ooo"
    assert re.search(
        rf"seed-deploy: the push to the canary {fleet[0].alias} failed: .* \(exit 12\); 2 other devices were not "
        "pushed to; the same command again does only what is missing\n$",
        stderr_of(done),
    )


def test_a_canary_that_cant_be_reached_for_the_push_keeps_the_seed_from_the_others(
    sshd: Sshd, fleet: list[Device], old: Path, new: Path
) -> None:
    sshd.alias("canary-gone", make_key(sshd.folder / "key-canary-gone"), port=free_port())
    done = deploy(sshd.config, "push", new, fleet[0].alias, "canary-gone", fleet[1].alias, "--canary", "2")
    assert done.returncode == 30
    assert versions(fleet, old, new) == "noo"
    assert "the push to the canary canary-gone failed: " in stderr_of(done)
    assert f"{fleet[0].alias}: runs {short(new)}; go back: seed-deploy rollback {fleet[0].alias}:{NAME}\n" in (
        done.stdout.decode()
    )


def test_a_first_version_stays_where_there_is_nothing_to_go_back_to(
    make_device: MakeDevice, new: Path, tmp_path: Path
) -> None:
    devices = [make_device() for _ in range(2)]
    verify_another(devices[0], make_seed(tmp_path / "wrong.seed", version=2, golden="wrong"))
    done = push(devices, new, "--canary", "1", "--watch", "1min")
    assert done.returncode == 30
    assert running_seed(devices[0], NAME) == new.read_bytes()
    words = f"seed-deploy remove {devices[0].alias}:{NAME} --all"
    assert f"{devices[0].alias}: not rolled back: it had no version; remove it: {words}\n" in done.stdout.decode()
    # Again: it runs already, so that nothing of this call is undone.
    done = push(devices, new, "--canary", "1", "--watch", "1min")
    assert "not rolled back: it had this version before; go back: seed-deploy rollback" in done.stdout.decode()
    assert not devices[1].model(NAME).exists()


def test_a_dry_run_shows_the_canaries(fleet: list[Device], old: Path, new: Path) -> None:
    done = push(fleet, new, "--canary", "2", "--dry-run")
    assert done.returncode == 0
    names = f"{fleet[0].alias}, {fleet[1].alias}"
    assert done.stdout.decode().splitlines()[-1] == f"2 canaries: {names}, watched for 5 min before 1 other"
    found = json.loads(push(fleet, new, "--canary", "2", "--dry-run", "--json").stdout)["canary"]
    assert [host["host"] for host in found["hosts"]] == [device.alias for device in fleet[:2]]
    assert (found["decision"], found["not_pushed"]) == (None, [fleet[2].alias])
    assert versions(fleet, old, new) == "ooo"


def test_ctrl_c_during_the_watch_says_what_runs_and_how_to_go_on_or_back(
    fleet: list[Device], old: Path, new: Path
) -> None:
    names = [device.alias for device in fleet]
    config = fleet[0].config
    ours, theirs = pty.openpty()
    command = [*COMMAND, "push", str(new), *names, "--canary", "1", "--watch", "1h", "--keep", "5"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**environment(config), "TERM": "xterm", "COLUMNS": "150"}
    )
    os.close(theirs)
    shown, is_stopped = "", False
    state = "golden sample right, no service.*watching the canaries, (1 h|59 min).* left; 2 devices wait"
    watched = re.compile(state, re.DOTALL)
    with contextlib.suppress(OSError):
        while data := os.read(ours, 1 << 12):
            shown += data.decode()
            if not is_stopped and watched.search(shown):
                process.send_signal(signal.SIGINT)
                is_stopped = True
    process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 130
    assert versions(fleet, old, new) == "noo"
    lines = [line.strip() for line in shown.replace("\r", "").splitlines()]
    assert "2 devices were not pushed to; the canaries:" in lines
    assert f"{names[0]}: runs {short(new)}, before it {short(old)}, golden sample right, no service" in lines
    go_on = next(line for line in lines if line.startswith("go on without them: "))
    go_back = next(line for line in lines if line.startswith("go back: "))
    assert go_on.endswith(f"push {new} {' '.join(names)} --keep 5")
    assert deploy(config, *shlex.split(go_back.partition(": ")[2])[1:]).returncode == 0
    assert versions(fleet, old, new) == "ooo"
    assert deploy(config, *shlex.split(go_on.partition(": ")[2])[1:]).returncode == 0
    assert versions(fleet, old, new) == "nnn"


# In this process, so that something can happen to a canary between the push and the watch


class Trial:
    """A rollout to the first of some devices."""

    def __init__(self, devices: list[Device], seed: Path, watch_s: float = 1.0, canaries: int = 1) -> None:
        self.seed, self.pushed = preflight.load(seed), 0
        access = Access(devices[0].config)
        targets = [Target(device.alias) for device in devices]
        self.access = access
        self.rollout = Rollout(
            Plan(targets[:canaries], targets[canaries:], watch_s), NAME, access=access, parallel=8,
            max_memory=None, quiet=True, again=["seed-deploy"],
        )  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Do it, and return the fields of `--json`."""
        self.rollout.run(self.push_all)
        return self.rollout.as_json()

    def push_all(self, targets: list[Target]) -> list[Outcome[PushResult]]:
        def work(target: Target, connection: Connection) -> PushResult:
            return one_device.push(connection, self.seed, NAME, Options())

        outcomes = run_on_each(targets, work, access=self.access)
        assert [outcome.error for outcome in outcomes] == [None] * len(targets)
        if not self.pushed:
            self.after_canaries()
        self.pushed += len(targets)
        return outcomes

    def after_canaries(self) -> None:
        """Do something between the push and the watch."""


def test_a_device_that_dies_during_the_watch_is_missing_and_stops_nothing(
    sshd: Sshd, make_device: MakeDevice, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "RETRY_S", (0.01,))
    with Proxy(sshd.port) as proxy:
        devices = [make_device(port=proxy.port), make_device()]
        for device in devices:
            send(device, old)
        trial = Trial(devices, new)
        trial.after_canaries = lambda: setattr(proxy, "cut_after", 0)  # type: ignore[method-assign]
        found = trial.run()
    assert (found["decision"], found["hosts"][0]["faults"]) == ("went on", [])
    assert re.match(r"it could not be asked (\d+) of \1 times: ", found["hosts"][0]["missing"][0])
    assert versions(devices, old, new) == "nn"


def test_a_device_that_died_is_not_rolled_back_and_the_command_for_it_is_told(
    sshd: Sshd, make_device: MakeDevice, old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "RETRY_S", (0.01,))
    with Proxy(sshd.port) as proxy:
        devices = [make_device(port=proxy.port), make_device(), make_device()]
        for device in devices:
            send(device, old)
        verify_another(devices[1], make_seed(tmp_path / "wrong.seed", version=2, golden="wrong"))
        trial = Trial(devices, new, canaries=2)
        trial.after_canaries = lambda: setattr(proxy, "cut_after", 0)  # type: ignore[method-assign]
        found = trial.run()
    dead, faulty = found["hosts"]
    assert (found["decision"], dead["rolled_back"], faulty["rolled_back"]) == ("rolled back", False, True)
    assert dead["end"].startswith("could not be rolled back: ")
    assert dead["end"].endswith(f"; go back: seed-deploy rollback {devices[0].alias}:{NAME}")
    assert versions(devices, old, new) == "noo"


def test_an_older_runtime_is_missing_data(device: Device) -> None:
    model = {"name": NAME, "current": "a" * 64, "service": {"active": "active", "pid": 7}}
    refusal = {
        "ok": False,
        "exit": 2,
        "kind": "UsageError",
        "error": 'op is "health"; this runtime (0.1.0) knows facts',
    }
    answering(device, {"models": [model]}, refusal)
    with Connection(device.alias, config=device.config) as connection:
        seen = observe(connection, NAME, golden=False)
    assert (seen.digest, seen.ready, seen.latency) == ("a" * 64, None, None)
    verdict = judge("a" * 64, None, [seen])
    assert verdict.faults == ()
    assert any("its runtime is older" in text for text in verdict.missing)


def test_times_that_cant_be_a_histogram_are_missing_data(device: Device) -> None:
    model = {"name": NAME, "current": "a" * 64, "service": {"active": "active", "pid": 7}}
    for counts in ([3, 1], [1], []):
        latency = {"bounds": [0.1], "counts": counts, "seconds": 1.0}
        answering(device, {"models": [model]}, {"ready": True, "problem": None, "latency": latency})
        with Connection(device.alias, config=device.config) as connection:
            assert observe(connection, NAME, golden=False).latency is None


@pytest.fixture
def serving(make_device: MakeDevice, old: Path, tmp_path: Path) -> Iterator[tuple[list[Device], Path]]:
    """Return two devices with the old version, of which the first serves it, and the folder of its manager."""
    manager, variables = make_manager(tmp_path)
    devices = [make_device(environment=variables), make_device()]
    for device in devices:
        send(device, old)
    with Connection(devices[0].alias, config=devices[0].config) as connection, AgentClient(connection) as agent:
        agent.call("service", name=NAME, action="install")
    yield devices, manager
    kill_servers(manager)


@pytest.fixture
def long_watch(monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the time of a watch in which a busy machine too looks at the canaries often enough to find a fault [s]."""
    monkeypatch.setattr(rollout, "_PAUSE_MAX_S", 2.0)
    return 600.0


def test_a_service_that_stays_as_quick_lets_the_others_follow(
    serving: tuple[list[Device], Path], old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever else this machine does meanwhile, and however seldom it comes to look.
    monkeypatch.setattr(canary, "SLOWER", 1000.0)
    monkeypatch.setattr(canary, "WINDOWS", 1)
    devices, _ = serving
    path = tmp_path / "run" / f"seed-{NAME}.sock"
    for _ in range(40):
        ask(path, NAME)
    with asked_all_along(path, NAME):
        found = Trial(devices, new, watch_s=10.0).run()
    assert (found["decision"], found["hosts"][0]["faults"], found["hosts"][0]["missing"]) == ("went on", [], [])
    assert versions(devices, old, new) == "nn"


def test_a_service_that_became_slow_is_rolled_back(
    serving: tuple[list[Device], Path], old: Path, tmp_path: Path, long_watch: float
) -> None:
    devices, _ = serving
    path = tmp_path / "run" / f"seed-{NAME}.sock"
    for _ in range(40):
        ask(path, NAME)
    slow = make_seed(tmp_path / "slow.seed", version=2, burden=20_000_000)
    with asked_all_along(path, NAME):
        trial = Trial(devices, slow, watch_s=long_watch)
        found = trial.run()
    assert found["decision"] == "rolled back"
    assert re.match(r"its inferences became slower: .* ms on average over \d+, and .* ms with the version before",
                    found["hosts"][0]["faults"][0])  # fmt: skip
    assert str(trial.rollout.error()).startswith(f"{devices[0].alias}: its inferences became slower: ")
    assert versions(devices, old, slow) == "oo"
    ask(path, NAME)


def test_a_service_that_ends_is_rolled_back_and_serves_again(
    serving: tuple[list[Device], Path], old: Path, new: Path, tmp_path: Path, long_watch: float
) -> None:
    devices, manager = serving
    trial = Trial(devices, new, watch_s=long_watch)
    trial.after_canaries = lambda: os.kill(server_pid(manager, NAME), signal.SIGKILL)  # type: ignore[method-assign]
    begin = time.monotonic()
    found = trial.run()
    assert time.monotonic() - begin < long_watch / 2
    assert found["decision"] == "rolled back"
    assert found["hosts"][0]["faults"][0].startswith("its service is not ready: it does not answer: ")
    assert versions(devices, old, new) == "oo"
    ask(tmp_path / "run" / f"seed-{NAME}.sock", NAME)
