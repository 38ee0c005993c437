"""Names of devices as a user can paste them: to `seed-deploy`, to `ssh`, and as known_hosts has them.

A device's name is `[user@]host` where nothing else is needed, an IPv6 address in brackets, and
`ssh://[user@]host:port` with a port, so that two boards behind one address have two names.
"""

from __future__ import annotations

import shlex


def device_name(host: str, port: int | None = None) -> str:
    """Return the name of a device.

    Args:
        host: `[user@]host` as ssh takes it, an IPv6 address without brackets.
        port: where its sshd listens, if that is not left to ssh's configuration.
    """
    user, at, address = host.rpartition("@")
    if ":" in address:
        address = f"[{address}]"
    return f"{user}{at}{address}" if port is None else f"ssh://{user}{at}{address}:{port}"


def with_port(device: str, port: str) -> str:
    """Return the name of a device with another port, by its name; `port` may be a word that stands for one."""
    user, address, _ = _parts(device)
    return f"ssh://{user}{f'[{address}]' if ':' in address else address}:{port}"


def model_name(device: str, model: str) -> str:
    """Return what names a model on a device, by the device's name."""
    return f"{device}{'/' if device.startswith('ssh://') else ':'}{model}"


def ssh_words(device: str) -> str:
    """Return the words by which `ssh` and `ssh-copy-id` reach a device, quoted for a shell, by the device's name."""
    user, address, port = _parts(device)
    words = ["-p", port] if port else []
    return shlex.join([*words, f"{user}{address}"])


def known_name(device: str) -> str:
    """Return how known_hosts names a device, by the device's name."""
    _, address, port = _parts(device)
    return f"[{address}]:{port}" if port and port != "22" else address


def _parts(device: str) -> tuple[str, str, str]:
    """Return the user with its "@", the host or address, and the port of a device's name; "" for what isn't there."""
    rest, port = device, ""
    if device.startswith("ssh://"):
        rest, _, port = device.removeprefix("ssh://").rpartition(":")
    user, at, address = rest.rpartition("@")
    return f"{user}{at}", address.removeprefix("[").removesuffix("]"), port
