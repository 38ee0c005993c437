"""Seeds on arm64: the weights are the same bits as on x86-64, and the golden sample holds.

The arm64 Python comes from this machine's own package sources, its NumPy and ONNX Runtime from the package index;
QEMU runs it as a process, without root and without mounts. All are kept in the user's cache: some 230 MB.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import seed_runtime
from seed_runtime.assemble import MODEL_FILE, WEIGHTS_FILE
from seed_runtime.codecs import CODECS
from tests.conftest import ROOT
from tests.exporter.exporting import dense, layers, quick_export

pytestmark = [pytest.mark.slow, pytest.mark.network]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seed-arm64"
"""Asked for here: tests have cache folders of their own."""
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = tuple(f"{name}=={version(name)}" for name in ("numpy", "onnxruntime"))
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# Without it ONNX Runtime reads this machine's, which says nothing of an arm64 core, and crashes. QEMU looks for
# whatever an emulated process opens under its root first.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""

Arm64 = Callable[..., str]
"""Runs arm64 Python with these arguments; returns what it printed."""


class UnavailableError(Exception):
    """What can't be had here, and why."""


@pytest.fixture(scope="module")
def arm64() -> Iterator[Arm64]:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(f"it compares arm64 with Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once take turns
        try:
            root = _made("root", " ".join(DEBIAN), _make_root)
            (python,) = (root / "usr" / "bin").glob("python3.*[0-9]")
            emulator = _emulator()
            site = _made("site", " ".join((python.name, *WHEELS)), lambda folder: _make_site(folder, python))
        except UnavailableError as error:
            pytest.skip(f"no arm64 Python here: {error}")

        def run(*arguments: str) -> str:
            environment = {
                "HOME": os.environ.get("HOME", ""),
                "PATH": os.environ["PATH"],
                "PYTHONHOME": str(root / "usr"),
                "PYTHONPATH": f"{site}:{ROOT / 'runtime'}",
                "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode"),
                **{name: value for name, value in os.environ.items() if name.startswith("XDG_")},
            }
            command = [str(emulator), "-L", str(root), str(python), *arguments]
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{arguments} returned {done.returncode}\n{done.stdout}{done.stderr}"
            return done.stdout

        yield run


def _made(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made anew unless it is whole and was made for `key`."""
    folder, made_for = CACHE / name, CACHE / f"{name}.made-for"
    if not folder.is_dir() or not made_for.exists() or made_for.read_text() != key:
        made_for.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        made_for.write_text(key)
    return folder


def _call(command: Sequence[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took over {error.timeout:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "silent").splitlines()[-1]
        raise UnavailableError(f"{command[0]} returned {done.returncode}: {last}")


def _packages(folder: Path, architecture: str, names: Sequence[str]) -> None:
    """Unpack packages of this machine's sources, and what they depend on, into `folder`; touches no state of apt's."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        state = Path(scratch)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()  # nothing is installed, so whatever is needed is fetched
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State": state / "state",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "",
            "APT::Update::Post-Invoke": "",
            "Debug::NoLocking": "true",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        apt = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]
        _call([*apt, "update"])
        _call([*apt, "--no-install-recommends", "--download-only", "install", *names])
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            _call(["dpkg-deb", "-x", str(package), str(folder)])


def _make_root(folder: Path) -> None:
    _packages(folder, "arm64", DEBIAN)
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc" / "cpuinfo").write_text(CPUINFO)


def _make_site(folder: Path, python: Path) -> None:
    # By pip's rules a wheel for an older glibc suits a newer one; given platforms, it wants them all listed.
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)]
    _call(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--no-compile"),
            *(*platforms, "--platform=manylinux2014_aarch64"),
            f"--python-version={python.name.removeprefix('python')}",
            *("--target", str(folder), "--upgrade", *WHEELS),
        ]
    )


def _emulator() -> Path:
    """QEMU of this machine, else one from its package sources."""
    installed = next(filter(None, map(shutil.which, EMULATORS)), None)
    if installed:
        return Path(installed)
    folder = _made("qemu", "qemu-user-static", lambda folder: _packages(folder, "amd64", ["qemu-user-static"]))
    for name in EMULATORS:
        if (folder / "usr" / "bin" / name).exists():
            return folder / "usr" / "bin" / name
    raise UnavailableError("the package qemu-user-static holds no qemu-aarch64")


def _low_rank(rng: np.random.Generator) -> onnx.ModelProto:
    low = rng.standard_normal((192, 6)) @ rng.standard_normal((6, 192)) / 192**0.5
    return dense([low, rng.standard_normal((192, 96)) / 14], [np.zeros(192) + 0.1, np.zeros(96)])


def _floats(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 96, 160, 40)


def _halves(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 96, 160, 40, dtype=np.float16)


def test_what_runs_is_arm64(arm64: Arm64) -> None:
    printed = arm64("-c", "import numpy, platform; print(platform.machine(), numpy.__version__)")
    assert printed.split() == ["aarch64", version("numpy")]


@pytest.mark.parametrize(
    ("codec", "model", "options"),
    [
        ("grid", _floats, {}),
        ("grid", _halves, {}),
        ("lowrank", _low_rank, {}),
        ("moments", _floats, {"method": "moments", "target": 20.0}),
        ("split", _floats, {"method": "lossless"}),
    ],
    ids=["grid", "grid-float16", "lowrank", "moments", "split"],
)
def test_a_seed_becomes_the_same_bits_on_arm64_and_passes_its_golden_sample(
    codec: str,
    model: Callable[[np.random.Generator], onnx.ModelProto],
    options: dict[str, Any],
    arm64: Arm64,
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    path, here, there = tmp_path / "model.seed", tmp_path / "x86-64", tmp_path / "arm64"
    quick_export(model(rng), path, **options)
    seed = seed_runtime.open(path)
    assert codec in {CODECS[stream.codec].name for stream in seed.header.streams}
    seed.assemble(here)

    command = ["-m", "seed_runtime.cli", str(path), "--quiet"]
    arm64(*command, "--assemble", str(there))
    for name in (MODEL_FILE, WEIGHTS_FILE):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    verified = json.loads(arm64(*command, "--verify", "--json"))
    assert (verified["ok"], verified["golden"]) == (True, True)
