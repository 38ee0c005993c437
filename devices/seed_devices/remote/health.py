"""Examine a device's store for the doctor. Sent there and run by its own python3 as `python3 - STORE MODULES`.

Uses the standard library only and prints one JSON line. Nothing is changed. What can't be found out is None.
"""

import contextlib
import json
import os
import pwd
import subprocess
import sys
from typing import Any

START_S = 180
"""Seconds for the first start of the runtime on the smallest boards."""
LEFT_MAX = 100
"""Largest number of leftovers that are reported."""


def collect(store: str, modules: str) -> dict[str, Any]:
    """Return all findings. `modules` is what the runtime must be able to import, separated by commas."""
    python = os.path.join(store, "runtime", "current", "bin", "python")
    linked = os.path.lexists(os.path.join(store, "runtime", "current"))
    found: dict[str, Any] = {
        "user": user(),
        "linked": linked,
        "starts": None,
        "status": None,
        "status_error": None,
        "leftovers": leftovers(store),
        "signers": os.path.exists(os.path.join(config_home(), "seed", "allowed_signers")),
        "linger": linger(),
        "services": services(store),
    }
    if linked:
        code, output = run([python, "-c", "import " + modules])
        found["starts"] = "" if code == 0 else last_line(output) or f"it returned {code}"
        if code == 0:
            found["status"], found["status_error"] = status(python)
    return found


def status(python: str) -> tuple[Any, Any]:
    """Return what the agent reports about the store, and why it doesn't; one of them is None."""
    # The agent's name, and its former one for older runtimes.
    for module in ("seed_runtime.agent", "seed_runtime.device"):
        code, output = run([python, "-m", module, "status"])
        if "No module named" not in output:
            break
    try:
        answer = json.loads(output[output.index("{") : output.rindex("}") + 1])
    except ValueError:
        return None, last_line(output) or "it prints nothing"
    return (answer, None) if code == 0 else (None, str(answer.get("error", "it gives no reason")))


def leftovers(store: str) -> list[dict[str, Any]]:
    """Return what interrupted pushes left: partial seeds, runtimes that were never finished, and wheels for one."""
    found = []
    for folder, kind in (("incoming", "seed"), ("runtime", "runtime"), ("runtime/.wheels", "wheel")):
        for entry in names(os.path.join(store, folder)):
            if kind == "wheel" or entry.endswith((".part", ".new")) or entry.startswith(".gone-"):
                path = os.path.join(store, folder, entry)
                found.append({"kind": kind, "path": path, "bytes": size(path)})
    return found[:LEFT_MAX]


def services(store: str) -> dict[str, Any]:
    """Return what is stored about the service of each model that has one."""
    found = {}
    for name in names(os.path.join(store, "models")):
        path = os.path.join(store, "models", name, "service.json")
        if os.path.exists(path):
            found[name] = read_json(path)
    return found


def linger() -> Any:
    """Return whether this user's services run without a login; None where there is no systemd."""
    if not os.path.isdir("/run/systemd/system"):
        return None
    return os.path.exists(f"/var/lib/systemd/linger/{user()}")


def user() -> str:
    """Return the name of the user who runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def config_home() -> str:
    """Return the folder of the user's settings."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return home if os.path.isabs(home) else os.path.expanduser("~/.config")


def names(folder: str) -> list[str]:
    """Return what a folder holds; nothing if it can't be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def size(path: str) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    try:
        return total + (os.path.getsize(path) if os.path.isfile(path) else 0)
    except OSError:
        return total


def read_json(path: str) -> Any:
    """Return what a JSON file holds; None if it can't be read."""
    try:
        with open(path) as file:
            return json.loads(file.read(1 << 16))
    except (OSError, ValueError):
        return None


def run(command: list[str]) -> tuple[int, str]:
    """Run a command; returns its exit status and its output, errors last."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # Nothing is written: no compiled modules, and not what ONNX Runtime keeps for its telemetry.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            cwd="/",
            timeout=START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"it does not answer within {START_S} s"
    except OSError as error:
        return 1, str(error)
    text = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    return done.returncode, text.decode("utf-8", "replace")


def last_line(text: str) -> str:
    """Return the last line of a text that isn't empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    print(json.dumps(collect(sys.argv[1], sys.argv[2])))
