"""`seed-deploy` on its command line: results, exit codes, and what is left when it is interrupted."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from seed_devices.cli import main
from seed_devices.push import preflight
from tests.devices.support.commands import COMMAND, deploy, environment, hosts, stderr_of
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME, make_seed
from tests.devices.support.sshd import Device, Sshd, make_key
from tests.support.ports import free_port

COMMANDS = ("push", "list", "status", "run", "tune", "logs", "rollback", "remove", "doctor")


def arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as found:
        return dict(found)


# What it prints


def test_a_device_without_a_runtime_does_not_seem_to_have_a_full_disk(bare: Device) -> None:
    done = deploy(bare.config, "status", bare.alias)
    assert done.stdout.decode().splitlines()[1].split() == [bare.alias, "nothing", "no", "runtime"]
    (host,) = hosts(bare.config, "status", bare.alias)
    assert (host["runtime"], host["disk_free"]) == (None, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"seed-deploy {command} " in capsys.readouterr().out.partition("Examples:")[2]


@pytest.mark.slow
def test_a_model_is_pushed_looked_at_run_rolled_back_and_removed(device: Device, tmp_path: Path) -> None:
    config, host = device.config, device.alias
    first, second = (make_seed(tmp_path / f"{number}.seed", version=number) for number in (1, 2))
    digests = [preflight.load(seed).digest for seed in (first, second)]
    done = deploy(config, "push", first, host)
    assert (done.returncode, stderr_of(done)) == (0, "")
    assert re.fullmatch(
        rf"{host}: product {digests[0][:12]} runs \(.* sent, no golden sample compared, .* s\)\n"
        rf"  run it: seed-deploy run {host}:product --input x.npz --output y.npz\n",
        done.stdout.decode(),
    )
    deploy(config, "push", second, host)

    (status,) = hosts(config, "status", host)
    (model,) = status["models"]
    assert (model["name"], model["version"], model["digest"]) == ("product", 2, digests[1])
    assert sorted(model["kept"]) == sorted(digests)
    assert status["runtime"]
    listed = deploy(config, "list", host).stdout.decode().splitlines()
    assert [line.split()[1:4] for line in listed[1:]] == [
        ["product", digests[1][:12], "2"],
        ["product", digests[0][:12], "1"],
    ]
    assert re.search(r"install .*\n.*switch .*ok\n", deploy(config, "logs", host).stdout.decode())

    np.savez(tmp_path / "x.npz", x=np.zeros((1, 16), np.float32))
    done = deploy(config, "run", host, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    assert (done.returncode, done.stdout) == (0, b"")
    assert arrays((tmp_path / "y.npz").read_bytes())["y"].tolist() == [[2.0] * 16]
    for command, option in (("rollback", "--to"), ("remove", "--digest")):
        done = deploy(config, command, f"{host}:product", option, "9x")
        assert done.returncode == 2
        assert f"no version of product begins with '9x'; write one of: {digests[1][:12]} (version 2, runs)" in (
            stderr_of(done)
        )
    done = deploy(config, "rollback", f"{host}:prodct", "--to", digests[0])
    assert (done.returncode, "there is no model prodct; there are: product" in stderr_of(done)) == (2, True)
    done = deploy(config, "rollback", f"{host}:product")
    assert done.stdout.decode() == f"{host}: product {digests[0][:12]} runs again, before it {digests[1][:12]}\n"
    done = deploy(
        config, "run", f"{host}:product", "--input", "-", "--output", "-", stdin=(tmp_path / "x.npz").read_bytes()
    )
    assert arrays(done.stdout)["y"].tolist() == [[1.0] * 16]

    assert deploy(config, "remove", f"{host}:product").returncode == 0
    assert hosts(config, "status", host)[0]["models"][0]["kept"] == [digests[0]]
    done = deploy(config, "remove", host, "--all")
    assert (done.returncode, f"write {host}:NAME; there are: product" in stderr_of(done)) == (2, True)
    done = deploy(config, "remove", f"{host}:product", "--digest", digests[0])
    assert (done.returncode, "is running" in stderr_of(done)) == (2, True)
    done = deploy(config, "remove", f"{host}:product", "--all")
    assert done.returncode == 0
    assert f"the model product, its service if it had one, and its versions {digests[0][:12]} removed" in (
        done.stdout.decode()
    )
    assert not (device.store / "models" / "product").exists()


@pytest.mark.slow
def test_run_passes_options_on_and_brings_the_exit_code_back(device: Device, tmp_path: Path) -> None:
    deploy(device.config, "push", EXAMPLE, device.alias)
    done = deploy(device.config, "run", device.alias, "--verify", "--json")
    assert done.returncode == 0
    assert b'"ok": true' in done.stdout
    (tmp_path / "x.npz").write_bytes(b"no archive")
    kept = tmp_path / "y.npz"
    kept.write_bytes(b"an earlier result")
    done = deploy(device.config, "run", device.alias, "--input", tmp_path / "x.npz", "--output", kept)
    assert done.returncode == 3
    assert stderr_of(done).startswith("seed-run: ")
    assert kept.read_bytes() == b"an earlier result"
    done = deploy(device.config, "run", f"{device.alias}:other", "--verify")
    assert (done.returncode, stderr_of(done)) == (2, "seed-run: no model other here; push it first\n")


@pytest.mark.slow
def test_without_a_name_the_only_model_is_meant_and_two_are_asked_about(device: Device) -> None:
    deploy(device.config, "push", EXAMPLE, device.alias)
    assert deploy(device.config, "logs", device.alias).returncode == 0
    deploy(device.config, "push", EXAMPLE, f"{device.alias}:second")
    done = deploy(device.config, "logs", device.alias)
    assert done.returncode == 2
    assert f"write {device.alias}:NAME; there are: second, {EXAMPLE_NAME}" in stderr_of(done)


@pytest.mark.slow
def test_what_cant_be_undone_needs_a_name(device: Device) -> None:
    deploy(device.config, "push", EXAMPLE, device.alias)
    done = deploy(device.config, "remove", device.alias, "--all")
    assert done.returncode == 2
    assert (device.model(EXAMPLE_NAME) / "current" / "model.seed").exists()


@pytest.mark.slow
def test_a_dry_run_tells_what_the_device_is_and_what_would_be_done(device: Device) -> None:
    done = deploy(device.config, "push", EXAMPLE, device.alias, "--dry-run")
    assert done.returncode == 0
    first, second = done.stdout.decode().splitlines()[:2]
    assert first.endswith(f": it would send {EXAMPLE.stat().st_size} bytes and switch; nothing was written")
    assert re.match(r"  device: .*Python 3\..*, NumPy .*, ONNX Runtime .* of memory, .* free on its disk", second)


# How it fails


@pytest.mark.slow
def test_each_failure_of_ssh_has_its_code_and_one_line(sshd: Sshd, device: Device, tmp_path: Path) -> None:
    sshd.alias("cli-refused", make_key(sshd.folder / "key-cli-refused"), port=free_port())
    sshd.alias("cli-stranger", make_key(sshd.folder / "key-cli-stranger"))
    sshd.alias("cli-unknown", sshd.key_of(device), known_hosts=tmp_path / "empty")
    for host, code, text in (
        ("cli-refused", 20, "Connection refused"),
        ("no.such.host.invalid", 20, "Could not resolve"),
        ("cli-stranger", 21, "ssh-copy-id cli-stranger"),
        ("cli-unknown", 22, "--accept-new-host-key"),
    ):
        done = deploy(sshd.config, "push", EXAMPLE, host)
        assert (done.returncode, done.stdout) == (code, b"")
        assert re.fullmatch(rf"seed-deploy: {re.escape(host)}: .*{re.escape(text)}.*\n", stderr_of(done))
    assert deploy(sshd.config, "push", EXAMPLE, "cli-unknown", "--accept-new-host-key").returncode == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["push", str(EXAMPLE)], "which device?"),
        (["push", "none.seed", "h"], "No such file"),
        (["push", str(EXAMPLE), "a", "a"], "a is named twice"),
        (["push", str(EXAMPLE), "a:8022:x"], "write ssh://a:8022/x"),
        (["push", str(EXAMPLE), "a", "--group", "x"], "--inventory"),
        (["push", str(EXAMPLE), "a", "--service-address", "unix"], "needs --service"),
        (["push", str(EXAMPLE), "a", "--max-rate", "fast"], "is not a size"),
        (["push", str(EXAMPLE), "a", "--max-rate", "1"], "did you mean 1MB?"),
        (["push", str(EXAMPLE), "a", "--max-rate-per-device", "500"], "did you mean 500KB?"),
        (["push", str(EXAMPLE), "a", "--max-memory", "2"], "did you mean 2GB?"),
        (["push", str(EXAMPLE), "a", "--watch", "1min"], "--watch is for canaries"),
        (["push", str(EXAMPLE), "a", "b", "--canary", "2"], "at least 1 and at most 1"),
        (["push", str(EXAMPLE), "a", "b", "--canary", "1", "--watch", "10"], "did you mean 10s or 10min?"),
        (["push", str(EXAMPLE), "a", "b", "--canary", "1", "--watch", "0s"], "is not between 1s and 7d"),
        (["push", str(EXAMPLE), "a", "b", "--canary", "1", "--watch", "soon"], "is not a time"),
        (["push", str(EXAMPLE), "a", "--max-memory", "64"], "did you mean 64MB?"),
        (["push", str(EXAMPLE), "a", "-F", "none"], "no such ssh_config"),
        (["remove", "a:b", "--all", "--digest", "abcdef"], "contradict"),
        (["status"], "which device?"),
        (["fly"], "No such command"),
    ],
)
def test_a_command_line_that_cant_be_is_a_usage_error(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_a_device_that_was_never_pushed_to_says_so(sshd: Sshd) -> None:
    device = sshd.device("untouched", runtime=False)
    (found,) = hosts(device.config, "status", device.alias)
    assert (found["ok"], found["runtime"], found["models"]) == (True, None, [])
    done = deploy(device.config, "rollback", f"{device.alias}:x")
    assert done.returncode == 12
    assert "a push installs it: seed-deploy push model.seed untouched" in stderr_of(done)


def test_without_the_hosts_packages_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['click'] = None; from seed_devices.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, "push", "m.seed", "h"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(r"seed-deploy: .*: pip install 'seed-runtime\[deploy\]'\n", stderr_of(done))
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"--help" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_push_leaves_what_runs_and_no_process(
    sshd: Sshd, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    device = sshd.device(f"interrupted-{number.name.lower()}")
    old, new = make_seed(tmp_path / "1.seed", version=1), make_seed(tmp_path / "2.seed", width=1024, version=2)
    deploy(device.config, "push", old, device.alias)
    # So slow that a busy machine sends the signal before the end, too.
    command = [*COMMAND, "push", str(new), device.alias, "--max-rate", "150KB"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(device.config))
    until = time.monotonic() + 60
    while not any(path.stat().st_size for path in device.store.glob("incoming/*.part")):
        assert time.monotonic() < until, "nothing arrives"
        time.sleep(0.05)
    running = device.processes()
    assert any(line.startswith("ssh ") for line in running), running
    assert any("seed_runtime.agent" in line and not line.startswith("ssh ") for line in running), running
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if number == signal.SIGINT:
        assert re.fullmatch(rb"\n?seed-deploy: interrupted; .*\n", errors)
    assert (device.model("product") / "current" / "model.seed").read_bytes() == old.read_bytes()
    until = time.monotonic() + 60
    while (left := device.processes()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    (again,) = hosts(device.config, "push", new, device.alias)
    assert again["state"] == "pushed"
    assert again["sent"] < new.stat().st_size
