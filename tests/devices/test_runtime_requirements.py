"""Which devices can take a runtime, and what is said to those that can't."""

from __future__ import annotations

from typing import Any

import pytest

from seed_devices.push import requirements, runtime
from seed_devices.remote import installer_environment
from seed_runtime.errors import DiskSpaceError, UnsupportedError
from tests.devices.support.board import BOARD


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"python": "3.9.2"}, r"its Python is 3\.9\.2 and 3\.11 is needed; update its system to Debian 12"),
        ({"python": "3.10.12", "os_id": "ubuntu"}, r"to Ubuntu 24\.04"),
        ({"libc": ["musl", ""]}, "its C library is musl .* such as Debian"),
        ({"libc": ["", ""]}, "its C library is unknown .* such as Debian"),
        ({"libc": ["glibc", "2.12"]}, r"its glibc 2\.12 is older than 2\.17; update its system"),
        ({"libc": ["glibc", "9"]}, "its C library can't be used"),
        ({"libc": ["bionic", ""], "termux": True}, "proot-distro install debian"),
        ({"machine": "armv6l", "bits": 32}, "armv6l .* use a 64-bit system"),
        ({"venv": False}, "sudo apt install python3-venv"),
        ({"store_writable": False}, "can't be written to there; mount it writable"),
        ({"noexec": "/home"}, r"is on /home, which is mounted noexec: .* mount -o remount,exec /home"),
        ({"machine": "armv7l", "bits": 32}, "sudo apt install python3-numpy"),
        ({"machine": "armv7l", "bits": 32, "numpy": "1.19.5"}, r"its NumPy is 1\.19\.5"),
    ],
)
def test_a_device_that_can_take_no_runtime_is_refused_with_the_next_step(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said) as caught:
        requirements.check({**BOARD, **changed})
    assert caught.value.exit_code == 12


def test_a_full_disk_is_refused_before_wheels_are_fetched() -> None:
    with pytest.raises(DiskSpaceError, match="free some space there"):
        requirements.check({**BOARD, "disk_free": 1 << 20})


def test_a_32_bit_board_with_the_distributions_numpy_is_taken() -> None:
    assert not requirements.check({**BOARD, "machine": "armv7l", "bits": 32, "numpy": "1.24.2"}).inference


def test_a_seed_that_needs_a_runtime_which_this_host_has_not_is_refused() -> None:
    connection: Any = None
    with pytest.raises(UnsupportedError, match="update it here: pip install -U"):
        runtime.install(connection, BOARD, needed=(99, 0, 0))
    with pytest.raises(UnsupportedError, match=r"needs seed-runtime 99\.0\.0"):
        requirements.check(BOARD, (99, 0, 0))


@pytest.mark.parametrize(
    ("there", "needed", "update", "due"),
    [
        (None, (0, 0, 0), False, True),
        ("0.0.9", (0, 1, 0), False, True),
        ("0.0.9", (0, 0, 9), False, False),  # though this host has a newer one
        ("0.0.9", (0, 0, 9), True, True),
        ("99.0.0", (98, 0, 0), True, False),
    ],
)
def test_a_runtime_is_due_if_none_starts_or_it_is_older_than_the_seed_needs_or_than_is_asked_for(
    there: str | None, needed: tuple[int, int, int], update: bool, due: bool
) -> None:
    assert requirements.is_due(there, needed, update=update) == due


@pytest.mark.parametrize(
    ("code", "said", "step"),
    [
        (1, "ImportError: libstdc++.so.6: cannot open shared object file", "sudo apt install libstdc++6"),
        (1, "ImportError: libgomp.so.1: cannot open shared object file", "sudo apt install libgomp1"),
        (1, "ModuleNotFoundError: No module named 'numpy'", "sudo apt install python3-numpy"),
        (-4, "", "use a newer board"),
        (1, "anything else", "seed-deploy doctor"),
    ],
)
def test_a_new_runtime_that_does_not_start_is_refused_with_what_helps(code: int, said: str, step: str) -> None:
    assert step in installer_environment.test_failure(code, said)


def test_litert_is_installed_for_models_that_it_runs_and_kept_where_it_is() -> None:
    profile = requirements.check(BOARD)
    small = requirements.check({**BOARD, "machine": "armv7l", "bits": 32, "numpy": "1.24.2"})
    there = {**BOARD, "litert": "2.3.0"}
    assert requirements.extras("onnxruntime", (), BOARD) == requirements.extras(None, (), BOARD) == ()
    assert requirements.extras("litert", (), BOARD) == requirements.extras("onnxruntime", (), there) == ("tflite",)
    assert requirements.lacks("litert", BOARD, profile)
    assert not requirements.lacks("litert", there, profile)
    assert not requirements.lacks("litert", BOARD, small)
    assert not requirements.lacks("onnxruntime", BOARD, profile)
    assert requirements.modules(profile, ("tflite",))[-1] == "ai_edge_litert.interpreter"
    assert requirements.modules(small, ("tflite",)) == ["numpy", "seed_runtime.cli"]


def test_packages_with_which_models_are_asked_are_installed_and_kept_where_a_runtime_has_them() -> None:
    there = {**BOARD, "tokenizers": "0.22.1"}
    assert requirements.extras("onnxruntime", ("text",), BOARD) == ("text",)
    assert requirements.extras("litert", ("pictures",), there) == ("pictures", "text", "tflite")
    # Debian's own Pillow is not the runtime's.
    assert requirements.extras(None, (), {**BOARD, "runtime": None, "pillow": "9.4.0"}) == ()
    profile = requirements.check(BOARD)
    assert requirements.missing_packages(("pictures", "text"), BOARD, profile) == "Pillow and tokenizers"
    assert requirements.missing_packages(("pictures", "text"), there, profile) == "Pillow"
    small = requirements.check({**BOARD, "machine": "armv7l", "bits": 32, "numpy": "1.24.2"})
    assert requirements.missing_packages(("text",), BOARD, small) == ""
    assert requirements.modules(profile, ("pictures", "text"))[-2:] == ["PIL.Image", "tokenizers"]
