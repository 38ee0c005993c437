"""Files within Debian packages, read without unpacking them, and the lists of packages that the data is made of."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

LISTS = Path(__file__).parent / "packages"


def pins(name: str) -> list[tuple[str, str]]:
    """Return (package, version) of the list `packages/NAME.txt`, a line `package=version` each."""
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    return [(line.split("=")[0], line.split("=", 1)[1]) for line in lines if line and not line.startswith("#")]


def archives(cache: Path, name: str) -> dict[str, Path]:
    """Return the package files of a list, by package; those that are missing are downloaded."""
    # Imported here: it brings Pillow along, which tests and teachers do without.
    from bench.public.fetch import debian_archives

    wanted = pins(name)
    return dict(zip([package for package, _ in wanted], debian_archives(cache, wanted), strict=True))


def members(archive: Path, chosen: Callable[[str, int], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of a package's files in the order of their paths.

    Args:
        archive: a Debian package.
        chosen: whether to read a file, by path and size [B].
    """
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"{archive} is no Debian package that dpkg-deb reads; remove it and make the data again")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in sorted((item for item in tar if item.isfile()), key=lambda item: item.name):
            path = member.name.removeprefix("./")
            file = tar.extractfile(member) if chosen(path, member.size) else None
            if file is not None:
                yield path, file.read()
