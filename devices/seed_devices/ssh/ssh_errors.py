"""Turn what ssh and sftp wrote into an error that a script can tell apart, with the advice for it.

OpenSSH returns 255 for everything that is not the remote command's own, so its words are all there is. They have been
the same for many years, and are not translated.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from seed_devices import profiles
from seed_devices.errors import AuthenticationError, HostKeyError, RemoteError, UnreachableError
from seed_runtime.errors import SeedError, UsageError

AGAIN = "run the same command again: it continues where it stopped"

_LOST = re.compile(
    r"not responding|[Bb]roken pipe|reset by|closed by|Connection to .* closed|disconnected|send disconnect|"
    r"read from master failed|read header failed|timed out"
)


def ssh_error(host: str, stderr: str, *, was_up: bool = False) -> SeedError:
    """Return the error for what ssh wrote to stderr.

    Args:
        host: the device, as the user wrote it.
        stderr: what ssh wrote.
        was_up: whether the connection had stood before.
    """
    # "UNKNOWN" is what a command says that found the shared connection gone.
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "UNKNOWN port" not in line]
    if "Host key verification failed" in stderr or "host key is known for" in stderr:
        return _host_key_error(host, stderr)
    if "configuration option" in stderr or "Bad owner or permissions" in stderr or "user config file" in stderr:
        line = next(line for line in lines if "onfig" in line or "Bad owner" in line)
        return UsageError(f"{line}; correct your ssh_config, or give another one with -F")
    if "Permission denied (" in stderr or "Too many authentication failures" in stderr:
        return _authentication_error(host, stderr)
    if "Session open refused" in stderr:
        return UnreachableError(
            host, "its sshd allows too few sessions on a connection", "set MaxSessions 10 in its sshd_config"
        )
    reason = _best_line(lines)
    if was_up:
        return UnreachableError(
            host, f"the connection was lost ({reason})" if reason else "the connection was lost", AGAIN
        )
    return UnreachableError(host, reason or "ssh ended without a message", _advice(host, stderr))


def sftp_error(host: str, lines: Sequence[str], code: int) -> RemoteError:
    """Return the error for what sftp wrote to stderr, while the connection stands.

    Args:
        host: the device, as the user wrote it.
        lines: what sftp wrote.
        code: its exit status.
    """
    if any("subsystem request failed" in line for line in lines):
        return RemoteError(12, f"{host}: its sshd has no sftp; add to its sshd_config: Subsystem sftp internal-sftp")
    reason = lines[-1].strip() if lines else f"exit status {code}"
    return RemoteError(1, f"{host}: sftp: {reason}; see: seed-deploy doctor {shlex.quote(host)}")


def _host_key_error(host: str, stderr: str) -> HostKeyError:
    if "IDENTIFICATION HAS CHANGED" in stderr or "Offending" in stderr:
        proposed = re.search(r"""ssh-keygen -f "?([^"\n]+)"? -R "?([^"\s]+)""", stderr)
        words = ["-f", proposed[1], "-R", proposed[2]] if proposed else ["-R", _without_user(host)]
        remove = shlex.join(["ssh-keygen", *words])
        return HostKeyError(
            host,
            "its key is not the one that is known: another machine answers, or its system was installed again",
            f"if you know why, remove the old key: {remove} , and push once with --accept-new-host-key",
        )
    if "revoked" in stderr:
        return HostKeyError(host, "its key is marked as revoked", "see the known_hosts file that says so")
    known = re.search(r"host key is known for (\S+) and", stderr)
    name = known[1] if known else _without_user(host)
    return HostKeyError(
        host,
        f"its key is unknown (ssh-keygen -F {shlex.quote(name)} finds none)",
        "connect once by ssh and compare the key, or accept it unseen: --accept-new-host-key",
    )


def _authentication_error(host: str, stderr: str) -> AuthenticationError:
    key = re.search(r"Permissions \d+ for '(.+)' are too open", stderr)
    if key:
        return AuthenticationError(host, "ssh won't use a key that others can read", f"chmod 600 {shlex.quote(key[1])}")
    if "Too many authentication failures" in stderr:
        return AuthenticationError(
            host, "the login was refused after too many keys", "name the right one by IdentityFile and IdentitiesOnly"
        )
    denied = re.search(r"Permission denied \([^)]*\)", stderr)
    return AuthenticationError(
        host,
        f"the login was refused: {denied[0] if denied else 'Permission denied'}",
        f"copy your key to it: ssh-copy-id {shlex.quote(host)} , or load it: ssh-add",
    )


def _advice(host: str, stderr: str) -> str:
    if "Could not resolve" in stderr:
        return "check the name, or give it a Host entry in your ssh_config"
    if "refused" in stderr:
        return (
            f"check that sshd runs there and on which port ({profiles.other_ports()}), and write the port into your "
            f"ssh_config, or ssh://{shlex.quote(host)}:PORT for the device"
        )
    if "no matching" in stderr.lower():
        return "the two ends share no algorithm; update the ssh on the older one"
    return f"check that it is switched on and in the network: ssh -v {shlex.quote(host)}"


def _best_line(lines: list[str]) -> str:
    """Return the last line about the connection, else the last line."""
    about = [line for line in lines if _LOST.search(line) or "ssh: " in line or "kex_exchange" in line]
    line = (about or lines or [""])[-1]
    return line.removeprefix("ssh: ").rstrip(".")


def _without_user(host: str) -> str:
    return host.rpartition("@")[2]
