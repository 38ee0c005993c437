"""What a processor's instructions say of it, and what models for it hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from seed_runtime.agent import facts, processors
from seed_runtime.agent.processors import BOARDS, Processor, parse_processor, processor_of
from seed_runtime.errors import UsageError

# The beginnings of /proc/cpuinfo on 64-bit systems of these boards and machines.
PI_3 = """\
processor\t: 0
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 4
"""
PI_4 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
I8MM = PI_5.replace("asimddp", "asimddp i8mm bf16")
HASWELL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz
fpu\t\t: yes
flags\t\t: fpu vme sse sse2 ssse3 fma sse4_1 sse4_2 movbe popcnt avx f16c rdrand bmi1 avx2 smep bmi2 erms invpcid
vmx flags\t: vnmi preemption_timer invvpid
"""
CASCADE_LAKE = HASWELL.replace("erms", "erms avx512f avx512vl avx512_vnni")
ALDER_LAKE = HASWELL.replace("erms", "erms avx_vnni")
ATOM = HASWELL.replace(" avx f16c", "").replace(" avx2", "")


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path, read = tmp_path / "cpuinfo", facts._text
    monkeypatch.setattr(facts, "_text", lambda name: read(str(path) if name == "/proc/cpuinfo" else name))
    return path


@pytest.mark.parametrize(
    ("text", "machine", "written", "dtype"),
    [
        (PI_3, "aarch64", "arm64", "fp32"),
        (PI_4, "aarch64", "arm64", "fp32"),
        (PI_5, "aarch64", "arm64+asimddp", "int8"),
        (I8MM, "aarch64", "arm64+asimddp+i8mm", "int8"),
        (HASWELL, "x86_64", "x86-64+avx2", "int8"),
        (CASCADE_LAKE, "x86_64", "x86-64+avx2+avx512_vnni", "int8"),
        (ALDER_LAKE, "x86_64", "x86-64+avx2+avx_vnni", "int8"),
        (ATOM, "x86_64", "x86-64", "fp32"),
    ],
    ids=["pi3", "pi4", "pi5", "i8mm", "avx2", "avx512-vnni", "avx-vnni", "atom"],
)
def test_the_dtype_follows_from_what_linux_lists(
    text: str, machine: str, written: str, dtype: str, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo.write_text(text)
    monkeypatch.setattr(processors.platform, "machine", lambda: machine)
    found = processors.this_processor()
    assert (str(found), found.dtype) == (written, dtype)
    assert found.reason
    assert parse_processor(written) == found


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nFeatures"], ids=["none", "empty", "cut"])
def test_instructions_that_arent_listed_are_unknown_and_promise_nothing(text: str | None, cpuinfo: Path) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    assert facts.read_instructions() is None
    assert processor_of("x86_64", None).dtype == "fp32"


def test_boards_have_the_instructions_that_they_list(cpuinfo: Path) -> None:
    for name, text in {"pi3": PI_3, "pi4": PI_4, "pi5": PI_5, "zero2": PI_3}.items():
        cpuinfo.write_text(text)
        assert processor_of("aarch64", facts.read_instructions()) == BOARDS[name] == parse_processor(name)


def test_what_isnt_known_of_a_device_is_left_out() -> None:
    assert processor_of("AMD64", ["avx2", "$(reboot)", "i8mm", "avx2"]) == Processor("x86-64", ("avx2",))


@pytest.mark.parametrize(
    "text", ["pi9", "", "+", "arm64+", "arm64+avx3", "arm64+avx2", "x86-64+i8mm", "aarch64", "asimddp"]
)
def test_an_unknown_device_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="use pi3, pi4, pi5, zero2, or what seed-deploy doctor says"):
        parse_processor(text)
