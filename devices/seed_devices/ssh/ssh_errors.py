"""Why ssh failed, from what it wrote: one of the errors that a script can tell apart, with the next step.

OpenSSH returns 255 for everything that is not the remote command's own, so its words are all there is. They have
been the same for many years, and are not translated.
"""

from __future__ import annotations

import re
import shlex

from seed_devices import profiles
from seed_devices.errors import AuthenticationError, HostKeyError, UnreachableError
from seed_runtime.errors import SeedError, UsageError

AGAIN = "run the same command again: it goes on where it stopped"

_LOST = re.compile(
    r"not responding|[Bb]roken pipe|reset by|closed by|Connection to .* closed|disconnected|send disconnect|"
    r"read from master failed|read header failed|timed out"
)


def classify(host: str, stderr: str, *, was_up: bool = False) -> SeedError:
    """The error for ssh's `stderr`; `was_up` says that the connection had stood before."""
    # "UNKNOWN" is what a command says that found the shared connection gone.
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "UNKNOWN port" not in line]
    if "Host key verification failed" in stderr or "host key is known for" in stderr:
        return _host_key(host, stderr)
    if "configuration option" in stderr or "Bad owner or permissions" in stderr or "user config file" in stderr:
        line = next(line for line in lines if "onfig" in line or "Bad owner" in line)
        return UsageError(f"{line}; correct your ssh_config, or give another one with -F")
    if "Permission denied (" in stderr or "Too many authentication failures" in stderr:
        return _authentication(host, stderr)
    if "Session open refused" in stderr:
        return UnreachableError(
            host, "its sshd allows too few sessions on a connection", "set MaxSessions 10 in its sshd_config"
        )
    reason = _last(lines)
    if was_up:
        return UnreachableError(
            host, f"the connection was lost ({reason})" if reason else "the connection was lost", AGAIN
        )
    return UnreachableError(host, reason or "ssh ended without a word", _step(host, stderr))


def _host_key(host: str, stderr: str) -> HostKeyError:
    if "IDENTIFICATION HAS CHANGED" in stderr or "Offending" in stderr:
        told = re.search(r"""ssh-keygen -f "?([^"\n]+)"? -R "?([^"\s]+)""", stderr)
        words = ["-f", told[1], "-R", told[2]] if told else ["-R", _bare(host)]
        remove = shlex.join(["ssh-keygen", *words])
        return HostKeyError(
            host,
            "its key is not the one that is known: another machine answers, or it was set up anew",
            f"if you know why, forget the old key: {remove} , and push once with --accept-new-host-key",
        )
    if "revoked" in stderr:
        return HostKeyError(host, "its key is marked as revoked", "see the known_hosts file that says so")
    known = re.search(r"host key is known for (\S+) and", stderr)
    name = known[1] if known else _bare(host)
    return HostKeyError(
        host,
        f"its key is unknown (ssh-keygen -F {shlex.quote(name)} finds none)",
        "connect once by ssh and compare the key, or take it at first sight: --accept-new-host-key",
    )


def _authentication(host: str, stderr: str) -> AuthenticationError:
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
        f"give your key to it: ssh-copy-id {shlex.quote(host)} , or load it: ssh-add",
    )


def _step(host: str, stderr: str) -> str:
    if "Could not resolve" in stderr:
        return "check the name, or give it a Host entry in your ssh_config"
    if "refused" in stderr:
        return (
            f"see that sshd runs there and on which port ({profiles.other_ports()}), and write the port into your "
            f"ssh_config, or ssh://{shlex.quote(host)}:PORT for the device"
        )
    if "no matching" in stderr.lower():
        return "the two ends share no algorithm; update the ssh on the older one"
    return f"see that it is switched on and in the network: ssh -v {shlex.quote(host)}"


def _last(lines: list[str]) -> str:
    """The line that says most: the last one about the connection, else the last one."""
    telling = [line for line in lines if _LOST.search(line) or "ssh: " in line or "kex_exchange" in line]
    line = (telling or lines or [""])[-1]
    return line.removeprefix("ssh: ").rstrip(".")


def _bare(host: str) -> str:
    return host.rpartition("@")[2]
