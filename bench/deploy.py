"""Measure `seed-deploy push` beside the tools that it uses, over a real sshd on a loopback port.

A push of a 1 MB seed and the switch to it, from a warm connection, is timed beside `scp` plus `seed-run --verify` on
the same connection, in turn. Every push is a first one: the version, its assembled copy and the file from scp are
removed before each round. An unchanged push is counted in bytes by a proxy between ssh and sshd, both directions and
the login included. Fifty devices share one installed runtime, and each has a store of its own; one process
pushes to all of them at once and reads its own peak memory.

Times are those of the clock instead of processor seconds, because other processes do most of the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import measure
from bench.measure import Figures, Goal, Spent
from seed_devices.push import preflight
from seed_devices.push.job import Options
from seed_devices.push.one_device import push
from seed_devices.ssh.connection import Connection
from tests.devices.support.proxy import Proxy
from tests.devices.support.seeds import EXAMPLE, make_seed
from tests.devices.support.sshd import Sshd

TIMES_MAX = 3.0
UNCHANGED_MAX = 20_000
PEAK_MAX_MB = 100.0
HOSTS = 50
ROUNDS = 9
WIDTH = 550
"""Width of the matrix in the seed, which takes about 1 MB without loss [columns]."""

_FLEET = """
import sys
from seed_devices.cli import main
from seed_runtime.memory.process import peak_rss
code = main(sys.argv[1:])
print(peak_rss(), file=sys.stderr)
sys.exit(code)
"""


def run(quick: bool) -> Figures:
    with measure.scratch() as folder, _server(folder) as server:
        speed = _speed(server, folder, 2 if quick else ROUNDS)
        unchanged = _unchanged(server)
        fleet = _fleet(server, 5 if quick else HOSTS)
    goals = [
        Goal(
            "1 MB, warm connection: push and switch over scp and seed-run --verify", speed["times"], TIMES_MAX, "times"
        ),
        Goal("unchanged push, bytes on the wire", unchanged["sent"] + unchanged["received"], UNCHANGED_MAX, "bytes"),
        Goal(f"{fleet['hosts']} devices at once: own process", fleet["peak_mb"], PEAK_MAX_MB, "MB"),
        Goal(f"{fleet['hosts']} devices at once: failures", fleet["failed"], 0, ""),
    ]
    return {"speed": speed, "unchanged": unchanged, "fleet": fleet, "goals": [goal.as_json() for goal in goals]}


def table(figures: Figures) -> list[str]:
    speed, unchanged, fleet = figures["speed"], figures["unchanged"], figures["fleet"]
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in speed["steps"].items())
    return [
        "| what | measured |",
        "|---|--:|",
        f"| push of {speed['bytes'] / 1e6:.2f} MB and switch, warm connection | **{speed['push_s']:.2f} s** |",
        f"| `scp` on the same connection | {speed['scp_s']:.2f} s |",
        f"| `seed-run --verify` on the same connection | {speed['verify_s']:.2f} s |",
        f"| push over both | **{speed['times']:.2f} times** |",
        f"| unchanged push, sent and received | **{unchanged['sent'] + unchanged['received']:,} bytes** |",
        f"| {fleet['hosts']} devices at once, whole call | {fleet['seconds']:.1f} s |",
        f"| {fleet['hosts']} devices at once, peak of the own process | **{fleet['peak_mb']:.1f} MB** |",
        f"| {fleet['hosts']} devices at once, failures | {fleet['failed']} |",
        "",
        f"Steps of the median push: {steps}.",
    ]


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Sshd]:
    server = Sshd(folder, settings="Subsystem sftp internal-sftp\n")
    try:
        yield server
    finally:
        server.stop()


def _speed(server: Sshd, folder: Path, rounds: int) -> Figures:
    device = server.device("speed")
    seed = preflight.load(make_seed(folder / "megabyte.seed", width=WIDTH, model_id="megabyte"))
    steps: list[dict[str, float]] = []
    with Connection(device.alias, config=device.config) as connection:
        connection.hold()
        copy = device.home / "copied.seed"
        control = ["-F", str(device.config), "-o", f"ControlPath={connection.control_path}"]

        def pushed() -> Spent:
            shutil.rmtree(device.store / "models", ignore_errors=True)
            shutil.rmtree(device.home / "cache", ignore_errors=True)
            start = time.perf_counter()
            steps.append(push(connection, seed, None, Options()).seconds)
            return Spent(0, time.perf_counter() - start)

        def copied() -> Spent:
            copy.unlink(missing_ok=True)
            return _timed(["scp", "-q", *control, str(seed.path), f"{device.alias}:{copy}"])

        def verified() -> Spent:
            program = device.store / "runtime" / "current" / "bin" / "seed-run"
            return _timed(["ssh", *control, device.alias, str(program), str(copy), "--verify"])

        pushed()  # fills the caches of the file system and of Python for all following rounds
        steps.clear()
        spent = measure.rounds({"push": pushed, "scp": copied, "verify": verified}, rounds)
    walls = {name: [one.wall for one in values] for name, values in spent.items()}
    times = [
        ours / (scp + verify)
        for ours, scp, verify in zip(walls["push"], walls["scp"], walls["verify"], strict=True)
    ]  # fmt: skip
    middle = sorted(range(rounds), key=lambda index: walls["push"][index])[rounds // 2]
    return {
        "bytes": seed.file_size,
        "rounds": rounds,
        **{f"{name}_s": round(measure.median(values), 4) for name, values in walls.items()},
        "times": round(measure.median(times), 3),
        "steps": {step: round(seconds, 3) for step, seconds in steps[middle].items()},
    }


def _unchanged(server: Sshd) -> Figures:
    with Proxy(server.port) as proxy:
        device = server.device("unchanged", port=proxy.port)
        for _ in range(2):
            proxy.reset()
            with Connection(device.alias, config=device.config) as connection:
                done = push(connection, preflight.load(EXAMPLE), None, Options())
    if done.state != "unchanged":
        raise RuntimeError(f"the second push was {done.state}")
    return {"sent": proxy.sent, "received": proxy.received}


def _fleet(server: Sshd, hosts: int) -> Figures:
    devices = server.fleet(hosts)
    words = ["push", str(EXAMPLE), *(device.alias for device in devices), "--parallel", str(hosts), "--json", "-q"]
    measure.note(f"{hosts} devices at once")
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _FLEET, *words, "-F", str(server.config)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    found = json.loads(done.stdout)["hosts"]
    return {
        "hosts": hosts,
        "seconds": round(seconds, 2),
        "peak_mb": round(int(done.stderr.splitlines()[-1]) / 1e6, 1),
        "failed": sum(not host["ok"] for host in found),
    }


def _timed(command: list[str]) -> Spent:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=dict(os.environ))
    return Spent(0, time.perf_counter() - start)
