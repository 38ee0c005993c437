"""A board as its device reports it, in good health: tests change one thing and look at what is said about it."""

from __future__ import annotations

from typing import Any

from seed_devices import doctor
from seed_devices.doctor import Fault
from seed_runtime.version import __version__

NOW = 1_800_000_000.0

BOARD: dict[str, Any] = {
    "machine": "aarch64",
    "bits": 64,
    "os": "Debian GNU/Linux 12",
    "os_id": "debian",
    "libc": ["glibc", "2.36"],
    "python": "3.11.2",
    "python_path": "/usr/bin/python3",
    "numpy": None,
    "venv": True,
    "ram": 4 << 30,
    "ram_available": 3 << 30,
    "cores": 4,
    "disk_free": 20 << 30,
    "store": "/srv/seed",
    "store_writable": True,
    "home_writable": True,
    "clock": int(NOW) - 3,
    "systemd_user": True,
    "ssh_keygen": True,
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "termux": False,
    "runtime": {"path": f"/srv/seed/runtime/{__version__}-0123abcd", "version": __version__},
}
"""The facts of a Raspberry Pi 4 with a runtime."""
DIGESTS = ("a" * 64, "b" * 64)
"""The versions of its only model: the one that runs, and the one before."""
HEALTHY: dict[str, Any] = {
    "user": "pi",
    "linked": True,
    "starts": "",
    "status": {
        "models": [
            {
                "name": "magika",
                "current": DIGESTS[0],
                "previous": DIGESTS[1],
                "service": None,
                "versions": [{"digest": digest, "intact": True} for digest in DIGESTS],
                "partial": None,
                "partial_digest": None,
            }
        ]
    },
    "status_error": None,
    "leftovers": [],
    "signers": False,
    "linger": True,
    "services": {},
}
"""What health.py finds there."""


def judged(facts: dict[str, Any] | None = None, **found: Any) -> list[Fault]:
    """Return the doctor's judgement of the board, with some facts and findings changed."""
    return doctor.judge("pi@porch", {**BOARD, **(facts or {})}, {**HEALTHY, **found}, now=NOW)


def model(**changed: Any) -> dict[str, Any]:
    """Return the board's status, with some fields of its model changed."""
    return {"models": [{**HEALTHY["status"]["models"][0], **changed}]}
