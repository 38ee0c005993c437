"""A machine that has the runtime and one model, installed once for all tests that start from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seed_exporter
from tests.exporter.support.exporting import layers
from tests.interop.support.machine import Machine
from tests.interop.support.machine_image import Image
from tests.interop.support.machines import STORE, deploy, deploy_json
from tests.support.shared import SharedFolder


@dataclass(frozen=True)
class InstalledMachine:
    """The state of a machine that was shut down. Tests start copies of it."""

    state: Path
    seed: Path
    """The seed of the model `small` that was pushed: float32 x of (batch, 64)."""


def installed_machine(shared: SharedFolder, image: Image) -> InstalledMachine:
    """Return a machine to which `small` was pushed twice; the power was cut while the first push installed the runtime.

    The first test of the run that asks makes it, which takes some two minutes.
    """

    def install(folder: Path) -> None:
        seed = folder / "small.seed"
        options = seed_exporter.Options(model_id="small")
        seed_exporter.export(layers(np.random.default_rng(1), 64, 512, 32), output=seed, options=options)
        with Machine(image, folder / "machine") as machine, ThreadPoolExecutor(1) as pool:
            print(f"booted in {machine.boot():.0f} s")
            lost = pool.submit(deploy, machine.ssh_config, "push", str(seed), "device", code=20)
            machine.run(f"until ls -d {STORE}/runtime/*.new/lib/python3*/site-packages/numpy; do sleep 0.5; done")
            machine.cut(torn=True)
            lost.result()
            machine.boot(torn=1)
            print(machine.run(f"du -sh {STORE}/runtime/.wheels {STORE}/runtime/*.new; ls -A {STORE}/runtime").stdout)
            (pushed,) = deploy_json(machine.ssh_config, "push", str(seed), "device")["hosts"]
            print(f"pushed, in seconds: {pushed['seconds']}")
            assert pushed["runtime_installed"]
            machine.shut_down()

    folder = shared.made("installed-machine", install)
    return InstalledMachine(folder / "machine", folder / "small.seed")
