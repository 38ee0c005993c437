"""Makes the wheel again that an installed distribution came from, out of its files.

What pip made at installation stays out: compiled modules, commands in bin/, its own notes. Every file must have the
digest that RECORD holds for it, so what was changed after the installation is refused, not passed on.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError

FILE_MAX: Final = 64 << 20
"""Bytes of one file of the distribution."""
_MADE_BY_INSTALLERS: Final = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_TIME: Final = (2020, 2, 2, 0, 0, 0)
"""Of every entry, so that the same files give the same wheel."""


def repack(distribution: metadata.Distribution, folder: Path) -> Path:
    """Write the wheel into `folder` and return its path. UsageError if the installed files are not as installed."""
    again = f"install it again: pip install --force-reinstall {distribution.name}"
    kept = []
    info = ""
    for file in distribution.files or []:
        parts = file.parts
        if parts[0] == ".." or "__pycache__" in parts:
            continue
        if parts[0].endswith(".dist-info"):
            info = parts[0]
            if len(parts) == 2 and parts[1] in _MADE_BY_INSTALLERS:
                continue
        kept.append(file)
    if not info or not kept:
        raise UsageError(f"{distribution.name} has no list of its files; {again}")
    tag = _tag(distribution)
    name = distribution.name.replace("-", "_")
    target = folder / f"{name}-{distribution.version}-{tag}.whl"
    rows = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(kept, key=str):
            path = Path(str(file.locate()))
            try:
                content = path.read_bytes() if path.stat().st_size <= FILE_MAX else b""
            except OSError:
                raise UsageError(f"{path} is missing; {again}") from None
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if file.hash is None or (file.hash.mode, file.hash.value) != ("sha256", digest):
                raise UsageError(f"{path} was changed after it was installed; {again}")
            archive.writestr(_entry(str(file)), content)
            rows.append((str(file), f"sha256={digest}", str(len(content))))
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        archive.writestr(_entry(f"{info}/RECORD"), record.getvalue())
    return target


def _tag(distribution: metadata.Distribution) -> str:
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    if tags != ["py3-none-any"]:
        raise UsageError(f"{distribution.name} is no pure Python wheel here ({tags}); install it from an index")
    return tags[0]


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
