"""A 32-bit ARM userland behind a real sshd: seeds are pushed, verified and assembled there, with Debian's NumPy."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from tests.devices.support.sshd import Device, Sshd
from tests.exporter.support.exporting import layers, quick_export
from tests.interop.support import userland
from tests.interop.support.arm64 import UnavailableError, call, made, tool
from tests.interop.support.containers import emulate
from tests.interop.support.machines import deploy_json
from tests.support.project import skip_or_fail

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

LIBRARIES = Path("usr/lib/arm-linux-gnueabihf")
MIRROR = "http://deb.debian.org/debian"
CURRENT = ".local/share/seed/runtime/current/bin"


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "doorbell.seed"
    quick_export(layers(np.random.default_rng(7), 64, 256, 32), path, model_id="doorbell", model_version=1)
    return path


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Return a board without a runtime."""
    try:
        emulate("qemu-arm")
        names = (*userland.PACKAGES, "python3-numpy")
        root = made("userland-armhf", f"1 {' '.join(names)}", _make)
    except UnavailableError as error:
        skip_or_fail(f"no 32-bit ARM userland here: {error}")
    server = Sshd(tmp_path_factory.mktemp("armhf-sshd"))
    try:
        yield userland.device(server, "armhf", root)
    finally:
        server.stop()


def _make(folder: Path) -> None:
    # Not from this machine's own sources, as for arm64: few others than Debian's have this architecture.
    wanted = ",".join([*userland.PACKAGES, "python3-numpy"])
    options = ["--variant=extract", "--architectures=armhf", f"--include={wanted}", "--quiet"]
    call([tool("mmdebstrap"), *options, "bookworm", str(folder), MIRROR], timeout=600)
    # What the packages' own scripts would do, which are not run: the alternatives for BLAS and LAPACK.
    for name in ("blas", "lapack"):
        (folder / LIBRARIES / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
    for name in ("proc", "dev", "tmp", "home/pi"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "etc" / "passwd").write_text(f"root:x:0:0:root:{userland.HOME}:/bin/sh\n")
    (folder / "etc" / "group").write_text("root:x:0:\n")


def there(device: Device, command: str) -> str:
    """What a shell command printed there that must succeed."""
    done = subprocess.run(
        ["ssh", "-F", str(device.config), "-o", "BatchMode=yes", device.alias, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_32_bit_board_verifies_and_assembles_what_is_pushed(board: Device, seed: Path, tmp_path: Path) -> None:
    assert there(board, "python3 -c 'import platform, struct; print(platform.machine(), struct.calcsize(\"P\"))'") in (
        "armv7l 4\n",
        "armv8l 4\n",
    )
    (pushed,) = deploy_json(board.config, "push", str(seed), board.alias)["hosts"]
    assert (pushed["state"], pushed["runtime_installed"]) == ("pushed", True)
    assert pushed["record"]["golden"] is None
    assert "verified and assembled" in " ".join(pushed["notes"])
    there(board, f"{CURRENT}/seed-run .local/share/seed/models/doorbell/current/model.seed --assemble out")
    here = seed_runtime.open(seed).assemble(tmp_path / "out")
    for name in (MODEL_FILE, WEIGHTS_FILE):
        expected = hashlib.sha256((here / name).read_bytes()).hexdigest()
        assert there(board, f"sha256sum out/{name}").split()[0] == expected
    verified = there(board, f"{CURRENT}/seed-run .local/share/seed/models/doorbell/current/model.seed --verify --json")
    found = json.loads(verified)
    assert (found["ok"], found["golden"]) == (True, None)
    print(there(board, f"{CURRENT}/python -c 'import numpy; print(\"NumPy\", numpy.__version__)'").strip())
