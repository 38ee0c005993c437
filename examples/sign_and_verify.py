"""Sign a seed with an SSH key, and let a device accept the seeds of this signer only.

`allowed_signers` stands in `$XDG_CONFIG_HOME/seed` on a device; here in the folder `device`, so that yours stays as it
is. Needs ssh-keygen. The same from a shell: seed-export model.onnx -o signed.seed --sign key

Prints:
    signed.seed: accepted
    unsigned.seed: refused with exit code 11
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import small_model

import seed_exporter
import seed_runtime
from seed_runtime.errors import TrustError

if not Path("key").exists():
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "example", "-f", "key"], check=True)
model = small_model.write_all()
for name, key in (("signed.seed", Path("key")), ("unsigned.seed", None)):
    options = seed_exporter.Options(effort=1, target=4, model_id="classifier", sign=key)
    seed_exporter.export(model, output=name, options=options)

# From here on, a device that trusts one signer.
device = Path("device").resolve()
os.environ |= {f"XDG_{kind}_HOME": str(device / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
signers = device / "config" / "seed" / "allowed_signers"
signers.parent.mkdir(parents=True, exist_ok=True)
signers.write_text(f'me@example.org namespaces="seed" {Path("key.pub").read_text()}')
for name in ("signed.seed", "unsigned.seed"):
    try:
        seed_runtime.open(name).check()
        print(f"{name}: accepted")
    except TrustError as error:
        print(f"{name}: refused with exit code {error.exit_code}")
