"""Memory limits of the control groups that this process is in: containers, services and sessions have them.

Beyond such a limit the kernel kills a process, so a plan has to stay below it. A group's limit holds for all processes
of the group and of the groups within it together; the least of the group's own and its ancestors' limits counts, less
what other processes hold there and can't give back (anonymous and shared memory; files' pages are given back). Swap
isn't counted on. Versions 1 and 2, and both at once.
Source: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NONE = 1 << 62
"""Number from which on a limit of version 1 is none: it writes the largest multiple of a page below 2^63."""


@dataclass(frozen=True)
class CgroupLimit:
    """The limit of a control group, and what is left of it for this process."""

    group: str
    """Path of the group within its hierarchy."""
    size: int
    """Memory that all processes of the group may take together [B]."""
    others: int
    """Memory that other processes of the group hold and can't give back [B]."""

    @property
    def room(self) -> int:
        """Memory that this process may take [B]."""
        return max(0, self.size - self.others)


def cgroup_limit(root: Path = Path("/")) -> CgroupLimit | None:
    """Return the limit that leaves this process the least; None where no group has one, and anywhere but on Linux.

    Args:
        root: folder in which `proc` and `sys` are, for tests.
    """
    own = _sum_of_rows(root / "proc/self/status", r"Rss(?:Anon|Shmem):", 1 << 10)
    limits = [limit for kind, path in _groups(root) for limit in _limits(root, kind, path, own)]
    return min(limits, key=lambda limit: limit.room, default=None)


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the type of file system, cgroup or cgroup2, and the path of this process's group in each hierarchy."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield "cgroup2", path
        elif "memory" in controllers.split(","):
            yield "cgroup", path


def _limits(root: Path, kind: str, path: str, own: int) -> Iterator[CgroupLimit]:
    """Yield the limits of a group and its ancestors, as far as they can be seen from here."""
    mount = _mount(root, kind)
    if mount is None:
        return
    base, mounted_at = mount
    # In a container, the mount may begin at the group itself, whose path is told as the machine sees it.
    inside = PurePosixPath(path)
    relative = inside.relative_to(base) if inside.is_relative_to(base) else PurePosixPath()
    parts = [part for part in relative.parts if part not in ("/", "..")]
    top = root / mounted_at.lstrip("/")
    for depth in range(len(parts), -1, -1):
        folder = top.joinpath(*parts[:depth])
        group = str(PurePosixPath("/").joinpath(*parts[:depth]))
        if kind == "cgroup2":
            size = _number(folder / "memory.max")
            held = _sum_of_rows(folder / "memory.stat", "(?:anon|shmem)")
        else:
            size = _number(folder / "memory.limit_in_bytes")
            held = _sum_of_rows(folder / "memory.stat", "total_(?:rss|shmem)")
        if size is not None:
            yield CgroupLimit(group, size, max(0, held - own))
    # Version 1 tells the least limit of the ancestors that can't be seen from within a container as well.
    above = _sum_of_rows(top.joinpath(*parts) / "memory.stat", "hierarchical_memory_limit")
    if kind == "cgroup" and 0 < above < _NONE:
        yield CgroupLimit(str(PurePosixPath("/").joinpath(*parts)), above, 0)


def _mount(root: Path, kind: str) -> tuple[PurePosixPath, str] | None:
    """Return the group at which a hierarchy is mounted, and the folder where; None where it isn't."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, behind = line.partition(" - ")
        before, after = fields.split(), behind.split()
        if len(before) < 5 or len(after) < 3 or after[0] != kind:
            continue
        if kind == "cgroup2" or "memory" in after[2].split(","):
            base, folder = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text) for text in before[3:5])
            return PurePosixPath(base), folder
    return None


def _number(path: Path) -> int | None:
    """Return the limit that a file holds; None for "max", for none of version 1, and where there is no file."""
    text = _text(path).strip()
    size = int(text) if re.fullmatch("[0-9]{1,19}", text) else _NONE
    return size if size < _NONE else None


def _sum_of_rows(path: Path, names: str, unit: int = 1) -> int:
    """Return the sum of the numbers in the rows that begin with one of the names [B]."""
    rows = re.findall(rf"^{names}\s+(\d{{1,19}})(?: kB)?$", _text(path), re.MULTILINE)
    return sum(int(number) for number in rows) * unit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeError):
        return ""
