"""Limits of control groups, from /proc and /sys as the kernel and container runtimes write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from seed_runtime.memory.cgroup import CgroupLimit, cgroup_limit

MIB = 1 << 20
STATUS = "Name:\tpython3\nVmRSS:\t   30720 kB\nRssAnon:\t   10240 kB\nRssFile:\t   20480 kB\nRssShmem:\t       0 kB\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n"
)
NONE = "9223372036854771712\n"


def machine(folder: Path, group: str, mounts: str, files: Mapping[str, str]) -> Path:
    """Write a root folder with the files of /proc/self and of the control groups."""
    for name, text in {
        "proc/self/cgroup": group,
        "proc/self/mountinfo": "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts,
        "proc/self/status": STATUS,
        **{f"sys/fs/cgroup/{path}": text for path, text in files.items()},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_no_group_with_a_limit_is_none(tmp_path: Path) -> None:
    files = {"user.slice/memory.max": "max\n", "user.slice/memory.stat": "anon 99\n"}
    assert cgroup_limit(machine(tmp_path, "0::/user.slice\n", V2, files)) is None
    assert cgroup_limit(tmp_path / "nowhere") is None


def test_the_least_limit_of_the_ancestors_counts(tmp_path: Path) -> None:
    files = {
        "a.slice/memory.max": f"{96 * MIB}\n",
        "a.slice/b.service/memory.max": f"{64 * MIB}\n",
        "a.slice/b.service/inner/memory.max": "max\n",
    }
    root = machine(tmp_path, "0::/a.slice/b.service/inner\n", V2, files)
    assert cgroup_limit(root) == CgroupLimit("/a.slice/b.service", 64 * MIB, 0)


def test_what_others_hold_and_cannot_give_back_is_taken_off(tmp_path: Path) -> None:
    # 10 MiB of the anonymous memory is this process's own; pages of files are given back.
    stat = f"anon {50 * MIB}\nfile {80 * MIB}\nkernel {3 * MIB}\nshmem {4 * MIB}\nfile_mapped 0\nanon_thp 5\n"
    files = {
        "a/memory.max": f"{100 * MIB}\n",
        "a/memory.stat": stat,
        "a/b/memory.max": f"{70 * MIB}\n",
        "a/b/memory.stat": f"anon {11 * MIB}\nshmem 0\n",
    }
    found = cgroup_limit(machine(tmp_path, "0::/a/b\n", V2, files))
    assert found == CgroupLimit("/a", 100 * MIB, 44 * MIB)
    assert found.room == 56 * MIB


def test_a_group_that_is_full_leaves_no_room_and_not_less(tmp_path: Path) -> None:
    files = {"a/memory.max": "4096\n", "a/memory.stat": f"anon {50 * MIB}\n"}
    found = cgroup_limit(machine(tmp_path, "0::/a\n", V2, files))
    assert found is not None
    assert found.room == 0


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    # A namespace of its own, as of Docker with version 2.
    root = machine(tmp_path, "0::/\n", V2, {"memory.max": f"{48 * MIB}\n", "memory.stat": f"anon {12 * MIB}\n"})
    assert cgroup_limit(root) == CgroupLimit("/", 48 * MIB, 2 * MIB)


@pytest.mark.parametrize("base", ["/", "/docker/0123", "/docker/with\\040space"])
def test_version_1_is_read_where_it_is_mounted(base: str, tmp_path: Path) -> None:
    path = base.replace("\\040", " ").rstrip("/") + "/inner"
    files = {
        "memory/memory.limit_in_bytes": NONE,
        "memory/inner/memory.limit_in_bytes": f"{64 * MIB}\n",
        "memory/inner/memory.stat": f"rss 1\ntotal_rss {13 * MIB}\ntotal_shmem {MIB}\ntotal_cache {40 * MIB}\n",
    }
    group = f"9:name=systemd:/\n4:cpu,memory:{path}\n1:cpu:/\n"
    assert cgroup_limit(machine(tmp_path, group, V1.format(root=base), files)) == CgroupLimit(
        "/inner", 64 * MIB, 4 * MIB
    )


def test_a_limit_of_version_1_above_the_container_is_found_as_well(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": NONE,
        "memory/memory.stat": f"hierarchical_memory_limit {32 * MIB}\ntotal_rss {20 * MIB}\n",
    }
    root = machine(tmp_path, "4:memory:/docker/0123\n", V1.format(root="/docker/0123"), files)
    found = cgroup_limit(root)
    assert found is not None
    assert (found.size, found.others) == (32 * MIB, 0)


def test_both_versions_at_once_are_looked_at(tmp_path: Path) -> None:
    mounts = V1.format(root="/") + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    files = {"memory/a/memory.limit_in_bytes": f"{64 * MIB}\n", "unified/b/memory.max": f"{32 * MIB}\n"}
    root = machine(tmp_path, "4:memory:/a\n0::/b\n", mounts, files)
    assert cgroup_limit(root) == CgroupLimit("/b", 32 * MIB, 0)


def test_a_group_outside_of_what_is_mounted_does_not_lead_out_of_it(tmp_path: Path) -> None:
    files = {"memory.max": f"{48 * MIB}\n", "../../outside/memory.max": "1\n"}
    root = machine(tmp_path, "0::/../../outside\n", V2, files)
    assert cgroup_limit(root) == CgroupLimit("/", 48 * MIB, 0)


@pytest.mark.parametrize("text", ["", "maximum", "-1", "12 MB", "9" * 40, "\u0664"])
def test_a_limit_that_is_no_number_is_none(text: str, tmp_path: Path) -> None:
    assert cgroup_limit(machine(tmp_path, "0::/a\n", V2, {"a/memory.max": text})) is None
