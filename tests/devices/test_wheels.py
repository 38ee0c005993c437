"""The wheels of a device: made from what is installed here, downloaded once, stored, refused where there are none."""

from __future__ import annotations

import os
import re
import sys
import threading
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import seed_runtime
from seed_devices import profiles
from seed_devices.errors import WheelsError
from seed_devices.profiles import Profile
from seed_devices.push import wheel_cache, wheels
from seed_devices.push.installed_wheel import write_wheel
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


def test_what_is_needed_is_the_base_install_and_what_extras_add(tmp_path: Path) -> None:
    lines = ["numpy>=1.26", "click>=8.1; extra == 'deploy'", 'ai-edge-litert>=2.0; extra == "tflite"']
    metadata_text = "Metadata-Version: 2.1\nName: seed-runtime\nVersion: 1.0\n"
    metadata_text += "".join(f"Requires-Dist: {line}\n" for line in lines)
    path = tmp_path / "seed_runtime-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("seed_runtime-1.0.dist-info/METADATA", metadata_text)
    own = wheel_cache.describe(path)
    assert wheels.requirements(own) == ["numpy>=1.26"]
    assert wheels.requirements(own, ("tflite",)) == ["numpy>=1.26", "ai-edge-litert>=2.0"]


@pytest.mark.slow
def test_an_installed_distribution_gives_the_wheel_that_it_came_from(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    again = write_wheel(distribution(installed), tmp_path)
    assert again.name == wheel.name
    before, after = contents(wheel), contents(again)
    (record,) = (name for name in before if name.endswith("/RECORD"))
    assert sorted(before.pop(record).splitlines()) == sorted(after.pop(record).splitlines())
    assert after == before


@pytest.mark.slow
def test_without_a_checkout_devices_get_what_is_installed(
    wheel: Path, installed: Path, no_index: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution(installed))
    own = wheels.own_wheel()
    assert own.path.name == wheel.name
    assert wheels.own_wheel() == own


@pytest.mark.slow
def test_a_file_that_was_changed_after_the_installation_is_not_passed_on(installed: Path, tmp_path: Path) -> None:
    changed = installed / "seed_runtime" / "limits.py"
    original = changed.read_bytes()
    changed.write_bytes(original + b"# changed\n")
    with pytest.raises(UsageError, match=r"limits\.py was changed after it was installed; install it again"):
        write_wheel(distribution(installed), tmp_path)
    changed.unlink()
    with pytest.raises(UsageError, match=r"limits\.py is missing"):
        write_wheel(distribution(installed), tmp_path)
    changed.write_bytes(original)


@pytest.mark.slow
def test_our_own_wheel_is_made_once_without_an_index(no_index: None) -> None:
    first = wheels.own_wheel()
    assert first.path.name.startswith(f"seed_runtime-{seed_runtime.__version__}-")
    assert {re.split("[<>=]", line)[0] for line in wheels.requirements(first)} == {"numpy", "onnxruntime"}
    made = first.path.stat().st_mtime_ns
    assert wheels.own_wheel().path.stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_damaged_wheel_in_the_cache_is_made_again(no_index: None) -> None:
    first = wheels.own_wheel()
    with first.path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert wheels.own_wheel() == first
    assert contents(first.path)


@pytest.mark.slow
def test_without_an_index_and_a_cache_the_error_says_what_to_do(no_index: None) -> None:
    with pytest.raises(WheelsError, match=r"can't be downloaded .*once this machine reaches a package index") as caught:
        wheels.collect(profile(), (3, 11), "2.36")
    assert caught.value.exit_code == 20
    assert not list(wheel_cache.cache_root().glob("*.part"))


class Index:
    """Stands in for the package index: has one version of everything, or can't be reached."""

    def __init__(self) -> None:
        self.version: str | None = "1.0"
        self.asked = 0

    def download(self, folder: Path) -> None:
        self.asked += 1
        if self.version is None:
            raise WheelsError("wheels of a", "it does not answer")
        with zipfile.ZipFile(folder / f"a-{self.version}-py3-none-any.whl", "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.py"), self.version)

    def wheel(self, notes: list[str] | None = None) -> Path:
        (wheel,), said = wheel_cache.cached("a", self.download, "wheels of a", wheels.ASK_S)
        if notes is not None:
            notes += said
        return wheel.path


@pytest.fixture
def index() -> Index:
    return Index()


def age(seconds: float) -> None:
    """Make all that is in the cache look as if it had been asked for so long ago."""
    for path in wheel_cache.cache_root().glob("*-*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_a_newer_wheel_of_the_index_is_used_and_the_one_before_it_stays_for_whoever_still_sends_it(
    index: Index,
) -> None:
    first = index.wheel()
    index.version = "2.0"
    assert (index.wheel(), index.asked) == (first, 1), "a fleet is one question"
    age(wheels.ASK_S)
    second = index.wheel()
    assert (second.name, first.exists()) == ("a-2.0-py3-none-any.whl", True)
    age(wheels.ASK_S)
    index.version = "3.0"
    third = index.wheel()
    assert (third.name, second.exists(), first.exists()) == ("a-3.0-py3-none-any.whl", True, False)


def test_without_an_index_what_it_had_before_is_used_and_named(index: Index) -> None:
    notes: list[str] = []
    first = index.wheel(notes)
    assert notes == []
    index.version = None
    age(wheels.ASK_S)
    assert index.wheel(notes) == first
    assert re.fullmatch(
        r"wheels of a: those of 20\d\d-.* the index could not be asked \(it does not answer\)", notes[0]
    )
    assert (index.wheel(notes), len(notes), index.asked) == (first, 1, 2), "nor is its silence asked for again at once"
    assert not list(wheel_cache.cache_root().glob("*.part"))


def test_a_clock_that_was_set_back_does_not_keep_old_wheels(index: Index) -> None:
    index.wheel()
    index.version = "2.0"
    age(-2 * 86400)
    assert index.wheel().name == "a-2.0-py3-none-any.whl"
    assert index.wheel().name == "a-2.0-py3-none-any.whl"


def test_a_damaged_wheel_of_the_index_is_downloaded_again(index: Index) -> None:
    index.wheel().write_bytes(b"damaged")
    assert zipfile.is_zipfile(index.wheel())
    assert index.asked == 2


def test_two_at_once_ask_the_index_once(index: Index) -> None:
    threads = [threading.Thread(target=index.wheel) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.asked == 1


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("machine", "python"), [("aarch64", (3, 11)), ("x86_64", (3, 11)), ("aarch64", (3, 13))])
def test_the_wheels_of_a_device_are_downloaded_once_and_stored(
    machine: str, python: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = wheels.collect(profile(machine), python, "2.36")
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
    assert wheels.collect(profile(machine), python, "2.36") == house


@pytest.mark.slow
@pytest.mark.network
def test_a_python_that_the_index_has_no_wheels_for_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"the package index has no wheels for Python 3\.11"):
        wheels.collect(profile(), (3, 11), "2.17")
