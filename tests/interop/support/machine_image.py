"""The parts of a whole arm64 machine: QEMU's `virt` board with Debian, systemd and sshd.

`image()` makes them once, in the user's cache. Packages are unpacked, not installed: `_configure` does what their
scripts would have done.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interop.support import arm64
from tests.interop.support.arm64 import CACHE, UnavailableError, call, made, packages, tool

PACKAGES = (
    *("base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "debianutils", "diffutils"),
    *("e2fsprogs", "findutils", "grep", "gzip", "hostname", "iproute2", "kmod", "libc-bin", "libpam-runtime"),
    *("libstdc++6", "login", "mawk", "mount", "ncurses-base", "netbase", "passwd", "procps", "sed", "tar", "tzdata"),
    *("udev", "util-linux", "dbus", "dbus-user-session", "libpam-systemd", "systemd-sysv"),
    *("openssh-server", "python3", "python3-venv", "linux-image-cloud-arm64"),
)
EARLY_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng")
"""Modules that the initial RAM disk loads; ext4 is built in."""
DISK_SIZE = 3 << 30
"""Size of the disk [B]. Its file is sparse."""
USER = "pi"
_REMOVED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl",
            "usr/lib/aarch64-linux-gnu/perl", "usr/lib/aarch64-linux-gnu/libperl.so.5.36.0")  # fmt: skip
_PAM = {
    "common-auth": "auth required pam_unix.so\n",
    "common-account": "account required pam_unix.so\n",
    "common-password": "password required pam_deny.so\n",
    # Without a systemd of its own for root, which would take 10 s of the first login.
    "common-session": "session required pam_unix.so\n"
    "session [success=1 default=ignore] pam_succeed_if.so quiet uid = 0\nsession optional pam_systemd.so\n",
    "common-session-noninteractive": "session required pam_unix.so\n",
    "sshd": "@include common-auth\n@include common-account\nsession required pam_loginuid.so\n"
    "@include common-session\n",
}
_NETWORK = """\
[Unit]
DefaultDependencies=no
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ip link set lo up; ip address add 10.0.2.15/24 dev eth0; ip link set eth0 up'

[Install]
WantedBy=multi-user.target
"""
_SSHD = """\
UsePAM yes
UseDNS no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
MaxSessions 100
PrintMotd no
PrintLastLog no
Subsystem sftp /usr/lib/openssh/sftp-server
"""
_MASKED = (
    *("apt-daily.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer"),
    *("getty@tty1.service", "serial-getty@ttyAMA0.service", "systemd-timesyncd.service"),
    *("systemd-network-generator.service", "systemd-networkd.service", "systemd-resolved.service"),
    # Its devices are known and their drivers loaded; finding that out takes 20 s under emulation.
    *("systemd-udev-trigger.service", "systemd-udevd.service", "systemd-udevd-control.socket"),
    *("systemd-udevd-kernel.socket", "kmod-static-nodes.service", "systemd-modules-load.service"),
    *("modprobe@configfs.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service"),
    *("modprobe@dm_mod.service", "modprobe@loop.service", "systemd-remount-fs.service", "systemd-random-seed.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-ask-password-wall.path", "systemd-ask-password-console.path"),
)


@dataclass(frozen=True)
class Image:
    """The parts of a machine. Machines only read them."""

    kernel: Path
    initrd: Path
    disk: Path
    key: Path
    host_key: str


def image() -> Image:
    """Return the machine's parts. UnavailableError if they can't be made here."""
    for name in ("qemu-system-aarch64", "mkfs.ext4", "depmod", "cpio", "ssh", "ssh-keygen"):
        tool(name)
    if os.geteuid():
        raise UnavailableError("the files of its disk must belong to root, and this user isn't")
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    folder = made("machine", f"{source} {' '.join(PACKAGES)}", _make)
    return Image(
        folder / "vmlinuz",
        folder / "initrd",
        folder / "disk.img",
        folder / "key",
        (folder / "host_key.pub").read_text().strip(),
    )


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        packages(root, "arm64", PACKAGES)
        (release,) = (each.name for each in (root / "usr" / "lib" / "modules").iterdir())
        call([tool("depmod"), "-b", str(root), release])
        shutil.move(root / "boot" / f"vmlinuz-{release}", folder / "vmlinuz")
        _make_initrd(folder, root, release, Path(scratch, "early"))
        for name in ("key", "host_key"):
            call([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)])
        _configure(root, folder)
        call(
            [
                *(tool("mkfs.ext4"), "-q", "-F", "-d", str(root), "-L", "root", "-m", "0"),
                *("-E", "lazy_itable_init=0,lazy_journal_init=0", str(folder / "disk.img"), f"{DISK_SIZE >> 10}k"),
            ]
        )


def _make_initrd(folder: Path, root: Path, release: str, early: Path) -> None:
    """Write a RAM disk that loads the drivers of the board's disk and goes on with the system on it."""
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (early / name).mkdir(parents=True)
    shutil.copy(root / "usr" / "bin" / "busybox", early / "bin" / "busybox")
    (early / "bin" / "sh").symlink_to("busybox")
    order: list[str] = []
    for module in EARLY_MODULES:
        shown = call([tool("modprobe"), "-d", str(root), "-S", release, "--show-depends", module])
        for line in shown.splitlines():
            path = line.split()[1]
            if line.startswith("insmod") and path not in order:
                order.append(path)
    for index, path in enumerate(order):
        shutil.copy(path, early / "modules" / f"{index:02}.ko")
    (early / "init").write_text(
        "#!/bin/sh\n"
        "/bin/busybox mount -t devtmpfs devtmpfs /dev\n"
        "for module in /modules/*; do /bin/busybox insmod $module; done\n"
        "while [ ! -b /dev/vda ]; do /bin/busybox sleep 0.1; done\n"
        "/bin/busybox mount -t ext4 /dev/vda /root\n"
        "/bin/busybox umount /dev\n"
        "exec /bin/busybox switch_root /root /usr/lib/systemd/systemd\n"
    )
    (early / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(early)) for path in sorted(early.rglob("*")))
    done = subprocess.run(
        [tool("cpio"), "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=early, input=names.encode(), capture_output=True
    )
    if done.returncode:
        raise UnavailableError(f"cpio returned {done.returncode}: {done.stderr.decode().strip()}")
    (folder / "initrd").write_bytes(gzip.compress(done.stdout, 1))


def _configure(root: Path, keys: Path) -> None:
    """Set up what the packages' scripts would have: users, PAM, sshd, the network, a user manager without login."""
    etc = root / "etc"
    for name in _REMOVED:
        shutil.rmtree(root / name, ignore_errors=True)
        if (root / name).is_file():
            (root / name).unlink()
    _users(root)
    for name, text in _PAM.items():
        (etc / "pam.d" / name).write_text(text)
    texts = {
        "hostname": "device\n",
        "hosts": "127.0.0.1 localhost device\n",
        "machine-id": "5eed" * 8 + "\n",
        "nsswitch.conf": "passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files\n",
        "ssh/sshd_config": _SSHD,
        "systemd/system/network.service": _NETWORK,
        # Its keys and settings need no check at each boot.
        "systemd/system/ssh.service.d/quick.conf": "[Service]\nExecStartPre=\n",
        "environment": "LANG=C.UTF-8\n",
        "default/locale": "LANG=C.UTF-8\n",
    }
    for name, text in texts.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    system = etc / "systemd" / "system"
    (system / "multi-user.target.wants").mkdir(exist_ok=True)
    (system / "default.target").unlink(missing_ok=True)
    (system / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for name in ("network.service", "ssh.service"):
        where = "/etc/systemd/system" if name == "network.service" else "/lib/systemd/system"
        (system / "multi-user.target.wants" / name).symlink_to(f"{where}/{name}")
    for name in _MASKED:
        (system / name).unlink(missing_ok=True)
        (system / name).symlink_to("/dev/null")
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()
    (root / "var" / "log" / "journal").mkdir(parents=True, exist_ok=True)  # logs outlive a boot, as Debian has it
    for name in ("host_key", "host_key.pub"):
        shutil.copy(keys / name, etc / "ssh" / name.replace("host_key", "ssh_host_ed25519_key"))
    for home, owner in ((root / "root", 0), (root / "home" / USER, 1000)):
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        shutil.copy(keys / "key.pub", home / ".ssh" / "authorized_keys")
        (home / ".ssh").chmod(0o700)
        for path in (home, *home.rglob("*")):
            os.chown(path, owner, owner)
    # The user's own systemd starts at boot and outlives logins, as after `loginctl enable-linger`.
    (root / "var" / "lib" / "systemd" / "linger").mkdir(parents=True, exist_ok=True)
    (root / "var" / "lib" / "systemd" / "linger" / USER).touch()
    _compile(root)


def _users(root: Path) -> None:
    etc, masters = root / "etc", root / "usr" / "share" / "base-passwd"
    users = [
        "messagebus:x:100:100::/nonexistent:/usr/sbin/nologin",
        "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin",
        f"{USER}:x:1000:1000:,,,:/home/{USER}:/bin/bash",
    ]
    groups = ["messagebus:x:100:", "systemd-journal:x:102:", "input:x:103:", "sgx:x:104:", "kvm:x:105:",
              "render:x:106:", f"{USER}:x:1000:"]  # fmt: skip
    passwd = [*(masters / "passwd.master").read_text().replace(":*:", ":x:").splitlines(), *users]
    (etc / "passwd").write_text("\n".join(passwd) + "\n")
    (etc / "group").write_text(
        "\n".join([*(masters / "group.master").read_text().replace(":*:", ":x:").splitlines(), *groups]) + "\n"
    )
    # The star lets no password in, and isn't the exclamation mark that sshd takes for a locked account.
    (etc / "shadow").write_text("".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in passwd))
    (etc / "shadow").chmod(0o600)


def _compile(root: Path) -> None:
    """Byte-compile Python's library, as its packages' scripts do: without, each start would take seconds more."""
    python = arm64.python_of(root)
    library = root / "usr" / "lib" / python.name
    if python.name == f"python3.{sys.version_info.minor}":
        compiler: Sequence[str] = (sys.executable,)
    else:
        compiler = (str(arm64.emulator()), "-L", str(root), str(python))
    with contextlib.suppress(UnavailableError):  # a file of its tests is no Python on purpose
        call([*compiler, "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(library)], timeout=300)
