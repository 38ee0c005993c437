"""Small fake wheels: a real pip installs them for real, in seconds instead of minutes."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from seed_devices.push import requirements, runtime, wheels
from seed_devices.push.installed_wheel import write_wheel
from seed_devices.push.wheel_cache import Wheel, describe
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from tests.devices.support.sshd import Device

PADDING = 1 << 20
"""How many bytes of the fake ONNX Runtime don't compress, so that there is something to send."""


def house(folder: Path, version: str = "9.0.0", *, litert: bool = False) -> wheels.Wheelhouse:
    """Make wheels of a seed-runtime that prints its version, of its dependencies, and of the pip of this machine.

    Args:
        folder: for the wheels.
        version: of seed-runtime.
        litert: whether there is a LiteRT, which the extra `tflite` needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    padding = random.Random(version).randbytes(PADDING)
    own = _wheel(
        folder,
        "seed_runtime",
        version,
        {
            "seed_runtime/__init__.py": f"__version__ = {version!r}\n".encode(),
            "seed_runtime/cli.py": f"def main():\n    print({version!r})\n".encode(),
            "seed_runtime/agent/__init__.py": b"",
            "seed_runtime/agent/operations.py": b"import numpy\n",
        },
        requires=("numpy>=1", "onnxruntime", "ai-edge-litert>=2.0; extra == 'tflite'"),
    )
    needed: tuple[Wheel, ...] = (
        _wheel(folder, "numpy", "2.0", {"numpy/__init__.py": b""}),
        _wheel(folder, "onnxruntime", "1.0", {"onnxruntime/__init__.py": b"", "onnxruntime/library.bin": padding}),
    )
    if litert:
        files = {"ai_edge_litert/__init__.py": b"", "ai_edge_litert/interpreter.py": b""}
        needed = (*needed, _wheel(folder, "ai_edge_litert", "2.3.0", files))
    return wheels.Wheelhouse(version, own, _pip(folder), needed)


def install(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    wheelhouse: wheels.Wheelhouse,
    *,
    changed: dict[str, object] | None = None,
    **options: object,
) -> runtime.Installed:
    """Call `runtime.install` with these wheels, as a host of their version; `changed` replaces facts of the device."""
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: wheelhouse)
    monkeypatch.setattr(requirements, "__version__", wheelhouse.version)
    with Connection(device.alias, config=device.config) as connection:
        return runtime.install(connection, {**facts(connection), **(changed or {})}, **options)  # type: ignore[arg-type]


def facts(connection: Connection) -> dict[str, object]:
    """Return what the device reports about itself."""
    from seed_runtime.agent import facts as module

    done = connection.python(Path(module.__file__).read_text())
    found: dict[str, object] = json.loads(done.text.strip().splitlines()[-1])
    return found


def runtime_output(device: Device) -> str:
    """Run `seed-run` of the current runtime by its own script, and return what it prints: its version."""
    script = device.store / "runtime" / "current" / "bin" / "seed-run"
    return subprocess.run([str(script)], capture_output=True, text=True, check=True).stdout.strip()


def runtimes(device: Device) -> set[str]:
    """Return all that the runtime folder holds, but for the lock."""
    return {entry.name for entry in (device.store / "runtime").iterdir()} - {".lock"}


def assert_whole(device: Device, *versions: str) -> None:
    """Check that nothing is there but whole runtimes, one of each of these versions, and the link."""
    names = runtimes(device)
    assert "current" in names
    assert sorted(name.rpartition("-")[0] for name in names - {"current"}) == sorted(versions)


def python_folder(folder: Path) -> Path:
    """Make a folder for PATH in which python3 is the one that runs the tests, without its virtual environment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python3").symlink_to(Path(sys.executable).resolve())
    return folder


def _pip(folder: Path) -> Wheel:
    try:
        return describe(write_wheel(metadata.distribution("pip"), folder))
    except (UsageError, metadata.PackageNotFoundError) as error:
        pytest.skip(f"no pip can be made a wheel of here: {error}")


def _wheel(folder: Path, name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> Wheel:
    info = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    lines += ["Provides-Extra: tflite"] if any("extra ==" in one for one in requires) else []
    held = {
        **files,
        f"{info}/METADATA": "\n".join(lines).encode() + b"\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if name == "seed_runtime":
        held[f"{info}/entry_points.txt"] = b"[console_scripts]\nseed-run = seed_runtime.cli:main\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in held.items():
            archive.writestr(inside, content)
        rows = [
            f"{inside},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},"
            f"{len(content)}"
            for inside, content in held.items()
        ]
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return describe(path)
