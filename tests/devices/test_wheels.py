"""The wheelhouse of a device: made from what is installed here, fetched once, kept, refused where none can be had."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

import seed_runtime
from seed_devices import profiles
from seed_devices.profiles import Profile
from seed_devices.push import wheels
from seed_devices.push.repack import repack
from seed_runtime.errors import UnsupportedError, UsageError
from tests.support.project import run_checked


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find no index: nobody listens on that port, and no settings of the user's lead elsewhere."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


def profile(machine: str = "aarch64") -> Profile:
    return profiles.match({"machine": machine, "bits": 64, "libc": ["glibc", "2.36"]})


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install this tree's wheel into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run_checked([*pip, "--target", str(folder), str(wheel)])
    return folder


def distribution(folder: Path) -> metadata.Distribution:
    (found,) = metadata.distributions(path=[str(folder)])
    return found


@pytest.mark.slow
def test_an_installed_distribution_gives_the_wheel_that_it_came_from(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    again = repack(distribution(installed), tmp_path)
    assert again.name == wheel.name
    before, after = contents(wheel), contents(again)
    (record,) = (name for name in before if name.endswith("/RECORD"))
    assert sorted(before.pop(record).splitlines()) == sorted(after.pop(record).splitlines())
    assert after == before


@pytest.mark.slow
def test_a_file_that_was_changed_after_the_installation_is_not_passed_on(installed: Path, tmp_path: Path) -> None:
    changed = installed / "seed_runtime" / "limits.py"
    original = changed.read_bytes()
    changed.write_bytes(original + b"# changed\n")
    with pytest.raises(UsageError, match=r"limits\.py was changed after it was installed; install it again"):
        repack(distribution(installed), tmp_path)
    changed.unlink()
    with pytest.raises(UsageError, match=r"limits\.py is missing"):
        repack(distribution(installed), tmp_path)
    changed.write_bytes(original)


@pytest.mark.slow
def test_our_own_wheel_is_made_once_without_an_index(no_index: None) -> None:
    first = wheels.own_wheel()
    assert first.path.name.startswith(f"seed_runtime-{seed_runtime.__version__}-")
    assert {re.split("[<>=]", line)[0] for line in wheels.requirements(first)} == {"numpy", "onnxruntime"}
    made = first.path.stat().st_mtime_ns
    assert wheels.own_wheel().path.stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_damaged_wheel_in_the_cache_is_made_anew(no_index: None) -> None:
    first = wheels.own_wheel()
    with first.path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert wheels.own_wheel() == first
    assert contents(first.path)


@pytest.mark.slow
def test_without_an_index_and_a_cache_the_error_says_what_to_do(no_index: None) -> None:
    with pytest.raises(wheels.WheelsError, match=r"can't be fetched .*once it reaches a package index") as caught:
        wheels.collect(profile(), (3, 11), ("glibc", "2.36"))
    assert caught.value.exit_code == 20
    assert not list(wheels.cache_root().glob("*.part"))


class Index:
    """Stands in for the package index: has one version of everything, or can't be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.version: str | None = "1.0"
        self.asked = 0
        monkeypatch.setattr(wheels, "_download", self._download)

    def _download(self, what: str, wanted: Sequence[str], target: Sequence[str], folder: Path) -> None:
        self.asked += 1
        if self.version is None:
            raise wheels.WheelsError(what, "it does not answer")
        for one in wanted:
            with zipfile.ZipFile(folder / f"{one}-{self.version}-py3-none-any.whl", "w") as archive:
                archive.writestr(zipfile.ZipInfo(f"{one}.py"), self.version)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(monkeypatch)


def fetched(notes: list[str] | None = None) -> Path:
    (wheel,) = wheels._fetched("wheels of a", ["a"], ["--platform=p"], [] if notes is None else notes)
    return wheel.path


def age(seconds: float) -> None:
    """Let what is in the cache have been asked for so long ago."""
    for path in wheels.cache_root().glob("*/digests.json"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_a_newer_wheel_of_the_index_is_used_and_the_one_before_it_stays_for_whoever_still_sends_it(
    index: Index,
) -> None:
    first = fetched()
    index.version = "2.0"
    assert (fetched(), index.asked) == (first, 1), "a fleet is one question"
    age(wheels.ASK_S)
    second = fetched()
    assert (second.name, first.exists()) == ("a-2.0-py3-none-any.whl", True)
    age(wheels.SPARE_S)
    assert (fetched(), first.exists(), index.asked) == (second, False, 3)


def test_without_an_index_what_it_had_before_is_used_and_named(index: Index) -> None:
    notes: list[str] = []
    first = fetched(notes)
    assert notes == []
    index.version = None
    age(wheels.ASK_S)
    assert fetched(notes) == first
    assert re.fullmatch(
        r"wheels of a: those of 20\d\d-.* the index could not be asked \(it does not answer\)", notes[0]
    )
    assert (fetched(notes), len(notes), index.asked) == (first, 1, 2), "nor is its silence asked for again at once"
    assert not list(wheels.cache_root().glob("*.part"))


def test_a_clock_that_was_set_back_does_not_keep_old_wheels(index: Index) -> None:
    fetched()
    index.version = "2.0"
    age(-wheels.SPARE_S)
    assert fetched().name == "a-2.0-py3-none-any.whl"
    assert fetched().name == "a-2.0-py3-none-any.whl"


def test_a_damaged_wheel_of_the_index_is_fetched_again(index: Index) -> None:
    fetched().write_bytes(b"damaged")
    assert zipfile.is_zipfile(fetched())
    assert index.asked == 2


@pytest.mark.parametrize("libc", [("musl", ""), ("bionic", ""), ("", "")])
def test_another_c_library_has_no_wheels(libc: tuple[str, str]) -> None:
    with pytest.raises(UnsupportedError, match="use a system with glibc"):
        wheels.platform_tags(profile(), libc)


def test_a_c_library_from_before_manylinux_has_no_wheels() -> None:
    with pytest.raises(UnsupportedError, match=r"glibc 2.12 is older than 2.17; update its system"):
        wheels.platform_tags(profile(), ("glibc", "2.12"))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("machine", "python"), [("aarch64", (3, 11)), ("x86_64", (3, 11)), ("aarch64", (3, 13))])
def test_the_wheels_of_a_device_are_fetched_once_and_kept(
    machine: str, python: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = wheels.collect(profile(machine), python, ("glibc", "2.36"))
    names = {wheel.path.name.split("-")[0] for wheel in house.needed}
    assert {"numpy", "onnxruntime"} <= names
    for wheel in house.needed:
        if not wheel.path.name.endswith("-none-any.whl"):
            assert f"_{machine}" in wheel.path.name
            assert f"cp{python[0]}{python[1]}" in wheel.path.name or "abi3" in wheel.path.name
    assert house.pip.path.name.startswith("pip-")
    size = sum(wheel.size for wheel in house.all)
    unpacked = sum(wheel.unpacked for wheel in house.all)
    print(f"{machine}, Python {python}: {size:,} bytes in {len(house.all)} wheels, {unpacked:,} unpacked")
    # From here on as without a network.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert wheels.collect(profile(machine), python, ("glibc", "2.36")) == house


@pytest.mark.slow
@pytest.mark.network
def test_a_python_that_the_index_has_no_wheels_for_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"the package index has no wheels for Python 3\.11"):
        wheels.collect(profile(), (3, 11), ("glibc", "2.17"))
