"""Push a seed to devices over SSH, run it there, push a second version, and roll it back.

`python examples/push_to_fleet.py pi@porch pi@gate`; `SEED_SSH_CONFIG` names an ssh_config in place of your own. The
devices need an SSH server and Python 3.11; a push installs the runtime there.
Needs pip install 'seed-runtime[export,deploy]'.

Prints, for each command, the table of `seed-deploy`, such as:
    $ seed-deploy push v1.seed porch gate
    HOST   MODEL       STATE   ...
    porch  classifier  pushed  ...
    gate   classifier  pushed  ...
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import small_model

import seed_exporter


def deploy(*words: str) -> None:
    """Run seed-deploy and show the command; exit with its code if it fails."""
    print("$ seed-deploy", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "seed_devices.cli", *words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


hosts = sys.argv[1:]
if not hosts:
    raise SystemExit("name the devices: python examples/push_to_fleet.py pi@porch pi@gate")
model = small_model.write_all()
for version in (1, 2):
    options = seed_exporter.Options(effort=version, target=4, model_id="classifier", model_version=version)
    seed_exporter.export(model, output=f"v{version}.seed", options=options)

deploy("push", "v1.seed", *hosts)
deploy("run", hosts[0], "--input", "x.npz", "--output", "y.npz")
print(f"{hosts[0]} answered: classes {np.load(Path('y.npz'))['scores'].argmax(axis=1).tolist()}")
deploy("push", "v2.seed", *hosts, "--canary", "1", "--watch", "2s")
deploy("rollback", *hosts)
deploy("status", *hosts)
