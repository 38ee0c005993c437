"""Find the Pythons of a device, and choose the one that runs the installer and that a runtime is made with.

Every `python3` and `python3.N` in the folders of PATH and in /usr/local/bin is asked what it is, in one round trip.
The first suitable one of these is taken: the one that the installed runtime was made with, `python3`, the newest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from seed_devices.remote import device_schema
from seed_devices.remote.agent_client import FIND_STORE
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.shell import START_S
from seed_devices.terminal_text import plain
from seed_runtime.agent.protocol.checks import record
from seed_runtime.errors import UsageError

OLDEST_PYTHON: Final = (3, 11)
"""The oldest version of Python that runs the runtime."""
FOLDERS: Final = "/usr/local/bin"
"""Folders beside those of PATH, separated by colons: where Pythons are put by hand, and a short PATH doesn't lead."""
FOUND_MAX: Final = 32
"""Largest number of Pythons that are looked at."""
_PYTHON, _MADE_WITH = "seed-python", "seed-made-with"

# Of what a Python prints, the last line counts if it starts, and the first one if it doesn't. Each is started once,
# however many links lead to it in a folder.
_SCRIPT: Final = f"""
{FIND_STORE}
ask() {{
    [ -x "$1" ] && [ ! -d "$1" ] || return 0
    answer=$("$1" -B -c "$program" </dev/null 2>&1)
    code=$?
    if [ "$code" -eq 0 ]; then answer=${{answer##*
}}; else answer=${{answer%%
*}}; fi
    printf '{_PYTHON}\\t%s\\t%s\\t%s\\n' "$1" "$code" "$answer"
}}
program=$1 named=$2 folders=$PATH:$3 seen=:
made=
if [ -r "$s/runtime/current/pyvenv.cfg" ]; then
    while read -r key equals value; do
        if [ "$key" = executable ]; then made=$value; fi
    done <"$s/runtime/current/pyvenv.cfg"
fi
printf '{_MADE_WITH}\\t%s\\n' "$made"
case $named in
*/*) ask "$named"; exit 0;;
?*) named=$(command -v "$named") && ask "$named"; exit 0;;
esac
[ -n "$made" ] && ask "$made"
IFS=:
for folder in $folders; do
    unset IFS
    folder=$(cd -P "$folder" 2>/dev/null && pwd -P) || continue
    case $seen in *":$folder:"*) continue;; esac
    seen=$seen$folder:
    ask "$folder/python3"
    for file in "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
        [ "$file" -ef "$folder/python3" ] || ask "$file"
    done
done
exit 0
"""
_PROGRAM: Final = """
import importlib.util, json, os, struct, sys
path = sys.executable
if sys.prefix != getattr(sys, "base_prefix", sys.prefix):
    path = getattr(sys, "_base_executable", path)
found = {"path": path, "real": os.path.realpath(path), "version": list(sys.version_info[:3])}
found["bits"] = struct.calcsize("P") * 8
found["missing"] = [name for name in ("venv", "zlib") if importlib.util.find_spec(name) is None]
try:
    from importlib import metadata
    found["numpy"] = metadata.version("numpy")
except Exception:
    found["numpy"] = None
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Python:
    """One Python of a device."""

    path: str
    """Path by which it is started, which may be a link."""
    real: str = ""
    """Path of its file; empty if it does not start."""
    version: tuple[int, ...] = ()
    fault: str = ""
    """Reason why no runtime can be made with it; empty if one can."""
    has_venv: bool = True
    lacks_numpy: bool = False
    """True for a 32-bit one without NumPy, of which there is no wheel: another one is better."""

    @property
    def version_text(self) -> str:
        """Return its version as it is written."""
        return ".".join(map(str, self.version))

    def __str__(self) -> str:
        return f"{self.path} {self.version_text}" if self.version else self.path


@dataclass(frozen=True)
class Pythons:
    """The Pythons of a device."""

    suitable: tuple[Python, ...]
    """Those that a runtime can be made with, the best one first."""
    others: tuple[Python, ...]
    """Those that none can be made with."""
    made_with: str = ""
    """Path of the file of the Python that the installed runtime was made with; empty if that isn't known."""

    @property
    def best(self) -> Python | None:
        """Return the Python to take: a suitable one, else one that starts; None if there is none."""
        return next((python for python in (*self.suitable, *self.others) if python.version), None)

    def as_facts(self) -> dict[str, Any]:
        """Return what replaces the facts about the Python that reported them: those of the best one, and all rows."""
        best: dict[str, Any] = {}
        if self.best is not None:
            best = {"python": self.best.version_text, "python_path": self.best.path, "venv": self.best.has_venv}
        return {**best, "pythons": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """Return them all for people and programs: what each is, and why it was not taken."""
        taken = self.suitable[:1]
        rows = [*((python, "" if python in taken else "another one is taken") for python in self.suitable)]
        rows += [(python, python.fault) for python in self.others]
        return [
            {
                "path": python.path,
                "version": python.version_text,
                "taken": not reason,
                "in_use": bool(python.real) and python.real == self.made_with,
                "reason": reason,
            }
            for python, reason in rows
        ]


def find(connection: Connection, named: str | None = None) -> Pythons:
    """Ask a device which Pythons it has.

    Args:
        connection: to the device.
        named: the only one to look at, a path or the name of a command.

    Raises:
        UsageError: there is none that is named so, or no runtime can be made with it.
        SeedError: of the connection.
    """
    done = connection.run(_SCRIPT, _PROGRAM, named or "", FOLDERS, timeout=START_S, check=False)
    found: dict[str, Python] = {}
    made_with = ""
    for line in done.text.splitlines():
        kind, *words = line.split("\t", 3)
        if kind == _MADE_WITH and words:
            made_with = words[0]
        elif kind == _PYTHON and len(words) == 3 and len(found) < FOUND_MAX:
            python = _judged(*words)
            found.setdefault(python.real or python.path, python)
    if named and not found:
        raise UsageError(f"{connection.target}: there is no Python {named} that can be started; give another --python")
    known = choose(list(found.values()), made_with)
    if named and not known.suitable:
        unfit = known.others[0]
        raise UsageError(
            f"{connection.target}: no runtime can be made with {unfit}: {unfit.fault}; give another --python, or leave "
            "it out"
        )
    return known


def choose(found: Sequence[Python], made_with: str = "") -> Pythons:
    """Tell suitable Pythons from others, and put the best one first.

    Args:
        found: all of them, in the order in which a shell there would find them.
        made_with: see Pythons.
    """
    suitable = [python for python in found if not python.fault]
    first = next((python for python in suitable if python.path.endswith("/python3")), None)

    def rank(python: Python) -> tuple[bool, bool, bool, tuple[int, ...]]:
        newest = tuple(-number for number in python.version)
        return python.lacks_numpy, python.real != made_with, python is not first, newest

    return Pythons(tuple(sorted(suitable, key=rank)), tuple(python for python in found if python.fault), made_with)


def _judged(path: str, code: str, answer: str) -> Python:
    """Return a Python by what it answered."""
    found = device_schema.parse_object(answer) if code == "0" else None
    try:
        checked: Mapping[str, Any] = record(**device_schema.PYTHON)(found or {})
        version = tuple(checked["version"])
        if len(version) != 3:
            raise ValueError
    except ValueError:
        words = plain(answer)[:100]
        return Python(plain(path), fault=f"it does not start{f' ({words})' if words else ''}")
    fault = ""
    if version < OLDEST_PYTHON:
        fault = f"it is older than {'.'.join(map(str, OLDEST_PYTHON))}"
    elif checked["missing"]:
        fault = f"it has no module {' and no module '.join(checked['missing'])}"
    lacks_numpy = checked["bits"] == 32 and checked.get("numpy") is None
    has_venv = "venv" not in checked["missing"]
    return Python(checked["path"], checked["real"], version, fault, has_venv, lacks_numpy)
