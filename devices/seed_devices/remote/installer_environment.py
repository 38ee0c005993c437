"""Make the virtual environment of a runtime, and say why one can't be made. Sent to the device before installer.py.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re

from seed_devices.remote.installer_answers import RefusalError


def in_use(root: str) -> set[str]:
    """Return the runtimes in `root` that processes run from, by their commands and the libraries that they mapped."""
    places = {os.fsencode(path) for path in (root, os.path.realpath(root))}
    inside = re.compile(b"(?:%s)/([^/\\0\n]+)/" % b"|".join(map(re.escape, places)))
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for file in ("cmdline", "maps"):
            # Those of other users can't be read, and what has ended is gone.
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as stream:
                found |= {os.fsdecode(name) for name in inside.findall(stream.read())}
    return found


def make_environment(path: str, system: bool) -> None:
    """Make a virtual environment without pip: ensurepip is a package of its own on Debian."""
    try:
        import venv
    except ImportError:
        text = "its Python has no venv module; install it there: sudo apt install python3-venv"
        raise RefusalError(12, text) from None
    venv.EnvBuilder(system_site_packages=system, symlinks=True, with_pip=False).create(path)


def rename_inside(folder: str, old: str, new: str) -> None:
    """Replace a path in the scripts of a folder: they name the place where they will be."""
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "r+b") as file:
                content = file.read()
                file.seek(0)
                file.write(content.replace(os.fsencode(old), os.fsencode(new)))
                file.truncate()


def clean_environment(keep_pip: bool) -> dict[str, str]:
    """Return the environment without what lets other packages in; pip's settings only if its index is to be asked."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    if not keep_pip:
        kept = {key: value for key, value in kept.items() if not key.startswith("PIP_")} | {
            "PIP_CONFIG_FILE": os.devnull
        }
    return kept | {"LC_ALL": "C.UTF-8"}


def pip_failure(output: str, online: bool) -> tuple[int, str]:
    """Return the exit code and the message for what pip printed."""
    line = last_line(output)
    if "No space left" in output or "Disk quota" in output:
        return 13, "the disk filled up while the runtime was installed; free some space"
    if online:
        return 12, f"pip could not install there: {line}; without --online this host sends the wheels"
    return 12, f"pip could not install the wheels there: {line}; check the device's Python installation"


def test_failure(code: int, output: str) -> str:
    """Return why the new runtime does not start, and what helps."""
    line = last_line(output)
    if library := re.search(r"(lib[\w+-]+)\.so\.?(\d*)[.\d]*: cannot open shared object", output):
        # Debian's packages of libraries bear the library's name and its number.
        step = f"install it there: sudo apt install {library[1]}{library[2]}"
    elif code == -4:
        line, step = "its processor lacks an instruction that the wheels use", "use a newer board"
    elif "numpy" in line:
        step = "install it there: sudo apt install python3-numpy"
    else:
        step = "run seed-deploy doctor on it"
    return f"the new runtime does not start there: {line}; {step}"


def last_line(output: str) -> str:
    """Return the last line of an output, or its last one that begins with ERROR."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("ERROR: ")[:300]


def version(path: str) -> tuple[int, ...]:
    """Return the numbers of a runtime's version."""
    return tuple(int(number) for number in re.findall(r"\d+", text_version(path))[:3])


def text_version(path: str) -> str:
    """Return the version in the name of a runtime's folder."""
    return os.path.basename(path).rpartition("-")[0]
