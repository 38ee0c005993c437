"""Write a wheel of an installed distribution, out of its installed files.

pip can't do this: `pip wheel` needs sources or an index, and an index may by now hold other bytes under the same name.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError

_ADDED: Final = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""Files of .dist-info that pip adds or writes anew; it also adds compiled modules, and commands outside the folder."""
_TIME: Final = (2020, 2, 2, 0, 0, 0)
"""The time of every entry, so that the same files give the same bytes."""


def write_wheel(distribution: metadata.Distribution, folder: Path) -> Path:
    """Write the wheel that `distribution` was installed from into `folder`.

    Every file must have the digest that RECORD holds for it, so that nothing that was changed after the installation
    is passed on to devices.

    Returns:
        The path of the wheel. Its files and its RECORD are those of the wheel that was installed.

    Raises:
        UsageError: a file is missing or was changed, or the distribution isn't pure Python.
    """
    name = distribution.name
    again = f"install it again: pip install --force-reinstall {name}"
    if not distribution.files or "Tag: py3-none-any" not in (distribution.read_text("WHEEL") or ""):
        raise UsageError(f"{name} was not installed from a pure Python wheel with a list of its files; {again}")
    stem = f"{name.replace('-', '_')}-{distribution.version}"
    path, info, record = folder / f"{stem}-py3-none-any.whl", f"{stem}.dist-info", []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(distribution.files, key=str):
            added = "__pycache__" in file.parts or (str(file.parent) == info and file.name in _ADDED)
            if added or file.parts[0] == "..":
                continue
            try:
                content = file.read_binary()
            except OSError:
                raise UsageError(f"{file.locate()} is missing; {again}") from None
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if file.hash is None or (file.hash.mode, file.hash.value) != ("sha256", digest):
                raise UsageError(f"{file.locate()} was changed after it was installed; {again}")
            _add(archive, str(file), content)
            record.append(f"{file},sha256={digest},{len(content)}\n")
        _add(archive, f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())
    return path


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
