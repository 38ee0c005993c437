# ruff: noqa: UP006, UP035, UP045 - runs on Python 3.6 as well, see below
"""Facts about this device as one JSON line: machine, system, Python, libraries, memory, disk, clock.

Self-contained: `python3 -` with this file on stdin works on any Python >= 3.6 before anything of ours is installed, and
importing it is quick. It writes nothing, starts nothing, and imports no library to find out its version. A fact that
can't be found out is None, and never an error.
"""

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import struct
import sys
import time
from typing import Any, Dict, List, Optional

TEXT_MAX = 1 << 16
"""Largest number of bytes read of a file of the system."""
WHEELS_MAX = 100
"""Largest number of wheels that are reported."""
INSTRUCTIONS = ("asimddp", "i8mm", "avx2", "avx_vnni", "avx512_vnni")
"""Instructions that multiply integers, by Linux's names: those of arm64, and then those of x86-64."""


def collect() -> Dict[str, Any]:
    """Return all facts. Sizes are in bytes, the clock in seconds since 1970 UTC."""
    store = store_home()
    memory = read_memory()
    system = _os_release()
    return {
        "machine": platform.machine(),
        "instructions": read_instructions(),
        "bits": struct.calcsize("P") * 8,
        "os": " ".join(filter(None, (system.get("NAME") or platform.system(), system.get("VERSION_ID")))),
        "os_id": system.get("ID", platform.system().lower()),
        "libc": _libc(),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "numpy": _version("numpy"),
        "onnxruntime": _version("onnxruntime"),
        "litert": _version("ai-edge-litert") or _tflite_runtime(),
        "pillow": _version("pillow"),
        "tokenizers": _version("tokenizers"),
        "seed_runtime": _version("seed-runtime"),
        "venv": _importable("venv"),
        # Debian ships venv with Python, and ensurepip in another package, without which a venv has no pip.
        "ensurepip": _importable("ensurepip"),
        "ram": memory.get("MemTotal"),
        "ram_available": memory.get("MemAvailable"),
        "cores": _cores(),
        "disk_free": _disk_free(store),
        "disk_cached": _disk_cached(store),
        "store": store,
        "store_writable": _writable(store),
        "noexec": _noexec_mount(os.path.join(store, "runtime")),
        "exec_folder": _exec_folder(),
        "home_writable": _writable(os.path.expanduser("~")),
        "clock": int(time.time()),
        "systemd": os.path.isdir("/run/systemd/system"),
        "systemd_user": _systemd_user(),
        "ssh_keygen": shutil.which("ssh-keygen") is not None,
        "signers": os.path.lexists(os.path.join(_xdg("XDG_CONFIG_HOME", "~/.config"), "seed", "allowed_signers")),
        "model": _text("/proc/device-tree/model").strip("\0 \n") or None,
        "termux": "com.termux" in os.environ.get("PREFIX", "") or os.path.isdir("/data/data/com.termux"),
        "runtime": _runtime(store),
        "wheels": _wheels(store),
    }


def store_home() -> str:
    """Return the store's folder, as seed_runtime.system.paths.store_home(), which may not be installed yet."""
    own = os.environ.get("SEED_HOME", "")
    return own if os.path.isabs(own) else os.path.join(_xdg("XDG_DATA_HOME", "~/.local/share"), "seed")


def _tflite_runtime() -> Optional[str]:
    """Return the version of tflite-runtime, which fails beside NumPy 2; None where it couldn't be used."""
    return _version("tflite-runtime") if (_version("numpy") or "").startswith("1.") else None


def _xdg(variable: str, default: str) -> str:
    home = os.environ.get(variable, "")
    return home if os.path.isabs(home) else os.path.expanduser(default)


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(TEXT_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def read_memory() -> Dict[str, int]:
    """Return the rows of /proc/meminfo in bytes. In a container with a limit of its own they are the machine's."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return {key: int(size) << 10 for key, size in rows}


def read_instructions() -> Optional[List[str]]:
    """Return those of INSTRUCTIONS that all cores have; None where the system doesn't list them."""
    # Linux lists what programs may use, the same for all cores, also where these are of two kinds.
    found = re.search(r"^(?:Features|flags)[ \t]*:(.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    if found is None:
        return None
    listed = found.group(1).split()
    return [name for name in INSTRUCTIONS if name in listed]


def _os_release() -> Dict[str, str]:
    text = _text("/etc/os-release") or _text("/usr/lib/os-release")
    rows = re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)
    return {key: value.strip("\"'") for key, value in rows}


def _libc() -> List[str]:
    try:
        # "glibc 2.36"; other libraries don't know the name.
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):
        name, version = "", ""
    if name == "glibc":
        return [name, version]
    if "ANDROID_ROOT" in os.environ or os.path.isdir("/system/bin"):
        return ["bionic", ""]
    try:
        musl = any(entry.startswith("ld-musl-") for entry in os.listdir("/lib"))
    except OSError:
        musl = False
    return ["musl", ""] if musl else list(platform.libc_ver())


def _version(distribution: str) -> Optional[str]:
    try:
        from importlib import metadata
    except ImportError:  # Python < 3.8
        return None
    try:
        return metadata.version(distribution)
    except Exception:  # a damaged installation raises anything
        return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _existing(path: str) -> str:
    """Return the folder itself if it exists, else its nearest parent that does."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _disk_free(path: str) -> Optional[int]:
    try:
        status = os.statvfs(_existing(path))
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _disk_cached(store: str) -> int:
    """Return the bytes of assembled models on the disk of the store: unused ones are removed for a push."""
    root, size = os.path.join(_xdg("XDG_CACHE_HOME", "~/.cache"), "seed", "models"), 0
    try:
        if os.stat(root).st_dev != os.stat(_existing(store)).st_dev:
            return 0
    except OSError:
        return 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


def _writable(path: str) -> bool:
    return os.access(_existing(path), os.W_OK | os.X_OK)


def _is_noexec(path: str) -> bool:
    """Return whether no program and no library may be loaded from the disk of a folder."""
    try:
        return bool(os.statvfs(_existing(path)).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def _noexec_mount(path: str) -> Optional[str]:
    """Return where the disk of a folder is mounted if that is "noexec", else None."""
    if not _is_noexec(path):
        return None
    mount = os.path.realpath(_existing(path))
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return mount


def _exec_folder() -> Optional[str]:
    """Return a folder in which this user can put programs and start them; None if none of the usual ones is."""
    for folder in (os.path.expanduser("~"), "/opt", "/srv", "/usr/local", "/var/lib"):
        if os.path.isdir(folder) and _writable(folder) and not _is_noexec(folder):
            return folder
    return None


def _systemd_user() -> bool:
    """Return whether this user's systemd runs: then its private socket is there."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return shutil.which("systemctl") is not None and os.path.exists(os.path.join(folder, "systemd", "private"))


def _runtime(store: str) -> Optional[Dict[str, str]]:
    """Return the runtime in the store, if it is whole: runtime/current -> <version>-<8 hex digits>."""
    link = os.path.join(store, "runtime", "current")
    try:
        target = os.readlink(link)
    except OSError:
        return None
    match = re.match(r"([0-9][0-9A-Za-z.+!]*)-[0-9a-f]{8}$", target)
    path = os.path.join(store, "runtime", target)
    if not match or not os.access(os.path.join(path, "bin", "python"), os.X_OK):
        return None
    return {"path": path, "version": match.group(1)}


def _wheels(store: str) -> Dict[str, int]:
    """Return the sizes of wheels that arrived for a runtime that isn't installed yet, whole or in part, by file."""
    folder = os.path.join(store, "runtime", ".wheels")
    found = {}
    try:
        for name in sorted(os.listdir(folder))[:WHEELS_MAX]:
            found[name] = os.stat(os.path.join(folder, name)).st_size
    except OSError:
        pass
    return found


if __name__ == "__main__":
    print(json.dumps(collect(), sort_keys=True))
