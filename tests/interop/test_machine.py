"""A whole arm64 machine with little memory: its disk, a push, what seeds take there, the service, a bad link."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.errors import MemoryBudgetError
from tests.devices.support.proxy import Proxy
from tests.exporter.support.exporting import layers, quick_export
from tests.interop.support.installed import InstalledMachine
from tests.interop.support.machine import Machine
from tests.interop.support.machine_image import Image
from tests.interop.support.machines import SEED_RUN, STORE, copied, deploy, deploy_json, peak
from tests.support.public_models import CACHE, exported, prepared, tasks
from tests.support.shared import SharedFolder
from tests.support.tuned_model import damaged_seed, data

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

TOLERANCE = 1e-4
PORT = 8123
COARSE = 1.5
"""Quantization step of the large model, in root mean squares of each matrix: its seed is then some 15 MB."""
CUTS = 3
"""How often the link is cut during one push."""
TUNING_LIMIT = 96
"""Limit of a fine-tune [MiB], of which Python, NumPy and ONNX Runtime take some 60."""
RESENT_MAX = 1 << 20
"""Bytes that a push may send again after a cut."""


@pytest.fixture
def device(machine_image: Image, installed: InstalledMachine, tmp_path: Path) -> Iterator[Machine]:
    """Return a machine with 512 MB of memory, the runtime and `small`."""
    with Machine(machine_image, copied(installed.state, tmp_path / "machine")) as machine:
        machine.boot()
        yield machine


def _matches(config: Path, name: str, seed: Path, feeds: dict[str, np.ndarray]) -> bool:
    """Whether the device's outputs are this machine's."""
    file = io.BytesIO()
    np.savez(file, **feeds)
    there = deploy(config, "run", f"device:{name}", "--input", "-", "--output", "-", stdin=file.getvalue())
    with seed_runtime.open(seed).session() as session, np.load(io.BytesIO(there)) as found:
        here = session.run(feeds)
        return all(np.abs(found[key] - here[key]).max() <= TOLERANCE * np.abs(here[key]).max() for key in here)


def test_a_cut_of_the_power_loses_what_was_not_synced_and_nothing_else(machine_image: Image, tmp_path: Path) -> None:
    with Machine(machine_image, tmp_path / "machine", memory=256) as machine:
        machine.boot()
        machine.run("echo kept > synced; sync synced; sync .; echo lost > unsynced; cat unsynced")
        machine.cut()
        machine.boot()
        assert machine.run("cat synced").stdout == "kept\n"
        assert machine.run("cat unsynced", check=False).stdout != "lost\n"


def test_a_cut_of_the_power_while_the_runtime_is_installed_costs_that_push_and_nothing_else(device: Machine) -> None:
    (runtime,) = device.run(f"ls {STORE}/runtime | grep -v current").stdout.split()
    assert device.run(f"readlink {STORE}/runtime/current").stdout.strip() == runtime
    assert device.run(f"ls -A {STORE}/runtime").stdout.split() == [".lock", runtime, "current"]
    device.run(f"{SEED_RUN} {STORE}/models/small/current/model.seed --verify")


@pytest.mark.parametrize("memory", [512, 256])
def test_a_pushed_seed_runs_in_little_memory_and_answers_rightly(
    memory: int,
    machine_image: Image,
    installed: InstalledMachine,
    small: Path,
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    with Machine(machine_image, copied(installed.state, tmp_path / "machine"), memory=memory) as machine:
        machine.boot()
        assert machine.run("uname -m").stdout == "aarch64\n"
        total = int(machine.run("cat /proc/meminfo").stdout.split()[1])
        assert total <= memory * 1024
        (again,) = deploy_json(machine.ssh_config, "push", str(installed.seed), "device")["hosts"]
        assert (again["state"], again["sent"]) == ("unchanged", 0)
        assert _matches(
            machine.ssh_config, "small", installed.seed, {"x": rng.standard_normal((3, 64)).astype(np.float32)}
        )
        printed, resident = peak(machine, [f"{STORE}/models/small/current/model.seed", "--verify", "--json"])
        assert json.loads(printed)["golden"] is True
        print(f"{memory} MB: small verified, VmHWM {resident:.1f} MiB")
        assert resident < 100


def test_on_512_mb_a_model_of_124_million_parameters_is_assembled_within_its_plan(
    device: Machine, tmp_path: Path
) -> None:
    synthetic, seeds = pytest.importorskip("bench.synthetic"), pytest.importorskip("bench.seeds")
    graph = synthetic.gpt2()
    made = seeds.make(graph, seeds.plans_at(graph, COARSE), tmp_path / "gpt2.seed")
    device.put(made.path, "gpt2.seed")
    inspected = json.loads(device.run(f"{SEED_RUN} gpt2.seed --inspect --json").stdout)
    planned = math.ceil(inspected["memory"]["assembly_mib"])
    printed, resident = peak(device, ["gpt2.seed", "--assemble", "out", "--max-memory", f"{planned}MiB", "--json"])
    print(f"124 M parameters: planned {planned} MiB, VmHWM {resident:.1f} MiB; {printed.strip()}")
    assert resident <= planned
    sizes = device.run("stat -c %s out/model.weights").stdout
    assert int(sizes) == seed_runtime.open(made.path).header.weights.size


def test_on_512_mb_minilm_runs_within_its_plan(device: Machine, shared_folder: SharedFolder, tmp_path: Path) -> None:
    prepared("minilm6")
    feeds = tasks().MODELS["minilm6"].inputs(CACHE, 1, "test")[0]
    seed = exported(shared_folder, "minilm6").seed
    deploy(device.ssh_config, "push", str(seed), "device")
    assert _matches(device.ssh_config, "minilm6", seed, feeds)
    np.savez(tmp_path / "x.npz", **feeds)
    device.put(tmp_path / "x.npz", "x.npz")
    words = [f"{STORE}/models/minilm6/current/model.seed", "--bench", "--runs", "1", "--input", "x.npz", "--json"]
    printed, resident = peak(device, words)
    print(f"MiniLM: VmHWM {resident:.1f} MiB; {printed.strip()}")
    assert resident <= json.loads(printed)["planned_mib"]


def test_on_512_mb_a_small_model_is_tuned_within_its_limit(
    device: Machine, shared_folder: SharedFolder, tmp_path: Path
) -> None:
    seed = damaged_seed(shared_folder, "small")
    np.savez(tmp_path / "data.npz", **data())
    device.put(seed.path, "damaged.seed")
    device.put(tmp_path / "data.npz", "data.npz")
    words = ["damaged.seed", "--fine-tune", "data.npz", "--mode", "auto", "--max-memory", f"{TUNING_LIMIT}MiB"]
    printed, resident = peak(device, [*words, "--lr", "0.03", "--steps", "40", "-o", "tuned.seed", "--json"])
    print(f"tuned with --mode auto: VmHWM {resident:.1f} MiB of {TUNING_LIMIT}; {printed.strip()}")
    found = json.loads(printed)
    assert [each["tier"] for each in found["tiers"]][:3] == ["bn", "head", "small"]
    assert found["after"] >= found["before"] + 0.3
    assert resident <= TUNING_LIMIT
    applied = device.run(f"{SEED_RUN} damaged.seed --apply tuned.seed --assemble out --json").stdout
    assert json.loads(applied)
    small = [*words[:-1], "30MB", "-o", "other.seed"]
    assert device.run(f"{SEED_RUN} {' '.join(small)}", check=False).returncode == MemoryBudgetError.exit_code
    assert device.run("test -e other.seed", check=False).returncode == 1


def test_the_service_answers_within_its_limit_and_again_after_a_cut_of_the_power(device: Machine, small: Path) -> None:
    words = ["push", str(small), "device", "--service", "--service-address", f"127.0.0.1:{PORT}"]
    deploy(device.ssh_config, *words)
    assert _ready(device)
    shown = device.run(
        "systemctl --user show 'seed*' -p ActiveState -p MemoryMax -p MemoryPeak -p MemoryCurrent"
    ).stdout
    print(shown)
    values = dict(line.split("=") for line in shown.split())
    assert values["ActiveState"] == "active"
    assert int(values["MemoryCurrent"]) <= int(values["MemoryMax"]) < 512 << 20
    device.run("sync")
    device.cut()
    device.boot()
    assert _ready(device)


def _ready(device: Machine) -> bool:
    """Whether its service answers on the loopback port there, within a minute or two."""
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/v2/health/ready', timeout=30)"
    command = f'for i in $(seq 60); do python3 -c "{ask}" 2>/dev/null && exit 0; sleep 2; done; exit 1'
    return device.run(command, check=False).returncode == 0


def test_over_a_slow_link_that_loses_packets_and_is_cut_a_push_goes_on_where_it_stopped(
    device: Machine, rng: np.random.Generator, tmp_path: Path
) -> None:
    seed = tmp_path / "large.seed"
    quick_export(layers(rng, 1024, 1024, 512), seed, model_id="large", method="lossless")
    size = seed.stat().st_size
    device.run(
        "modprobe act_police; tc qdisc add dev eth0 root netem delay 20ms loss 0.5% && "
        "tc qdisc add dev eth0 handle ffff: ingress && "
        "tc filter add dev eth0 parent ffff: matchall action police rate 8mbit burst 64k drop",
        user="root",
    )
    arrived = 0
    with Proxy(device.port) as link:
        config = tmp_path / "ssh_config"
        there = f"  HostKeyAlias [127.0.0.1]:{device.port}\n"
        config.write_text(device.ssh_config.read_text().replace(f"Port {device.port}", f"Port {link.port}") + there)
        for _ in range(CUTS):
            # Counted before the emulator's own buffers: what is in them is lost, as what is on a radio link.
            link.cut_after = link.sent + int(rng.integers(size // 3, 2 * size // 3))
            deploy(config, "push", str(seed), "device", code=20)
            arrived = int(device.run(f"cat {STORE}/incoming/*.part | wc -c").stdout)
            print(f"cut after {link.cut_after:,} bytes in all; {arrived:,} of {size:,} are there")
        link.cut_after = None
        (pushed,) = deploy_json(config, "push", str(seed), "device")["hosts"]
    print(f"the last push sent {pushed['sent']:,} bytes, {pushed['sent'] - (size - arrived):,} of them again")
    assert pushed["state"] == "pushed"
    assert pushed["sent"] - (size - arrived) <= RESENT_MAX
    assert _matches(device.ssh_config, "large", seed, {"x": rng.standard_normal((1, 1024)).astype(np.float32)})
