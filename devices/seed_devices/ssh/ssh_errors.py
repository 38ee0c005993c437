"""Turn what ssh wrote into an error that a script can tell apart, with the advice for it.

OpenSSH returns 255 for everything that is not the remote command's own, so its words are all there is. They have been
the same for many years, and are not translated.
"""

from __future__ import annotations

import re
import shlex

from seed_devices import names, profiles
from seed_devices.errors import AuthenticationError, HostKeyError, RemoteError, UnreachableError
from seed_devices.ssh.shell import START_S, Start
from seed_runtime.errors import SeedError, UsageError

AGAIN = "run the same command again: it continues where it stopped"

_LOST = re.compile(
    r"not responding|[Bb]roken pipe|reset by|closed by|Connection to .* closed|disconnected|send disconnect|"
    r"read from master failed|read header failed|timed out"
)
_CAUSE = re.compile(
    _LOST.pattern
    + r"|ssh: |kex_exchange|refused|failed|unreachable|[Nn]o route|not found|No such|not resolve|no matching"
)
"""What a line says that names a cause; others are banners."""
_CHATTER = re.compile(r"Warning: |\*\* |debug\d|Pseudo-terminal|Load key|Authenticated |Transferred|Bytes per second")
"""How lines begin in which ssh names no cause."""


def ssh_error(host: str, stderr: str, *, was_up: bool = False, by_hand: str = "") -> SeedError:
    """Return the error for what ssh wrote to stderr.

    Args:
        host: the device's name.
        stderr: what ssh wrote.
        was_up: whether the connection had stood before.
        by_hand: the command with which the user opens a connection that is then used.
    """
    # "UNKNOWN" is what a command says that found the shared connection gone.
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "UNKNOWN port" not in line]
    if "Host key verification failed" in stderr or "host key is known for" in stderr:
        return _host_key_error(host, stderr)
    if "configuration option" in stderr or "Bad owner or permissions" in stderr or "user config file" in stderr:
        line = next(line for line in lines if "onfig" in line or "Bad owner" in line)
        return UsageError(f"{line}; correct your ssh_config, or give another one with -F")
    if "Permission denied (" in stderr or "Too many authentication failures" in stderr:
        return _authentication_error(host, stderr, by_hand)
    if "Session open refused" in stderr:
        return UnreachableError(
            host, "its sshd allows too few sessions on a connection", "set MaxSessions 10 in its sshd_config"
        )
    if was_up:
        reason = next((line for line in lines if _LOST.search(line)), "").rstrip(".")
        return UnreachableError(
            host, f"the connection was lost ({reason})" if reason else "the connection was lost", AGAIN
        )
    return UnreachableError(host, _first_cause(lines) or "ssh ended without a message", _advice(host, stderr))


def shell_error(
    host: str, started: Start, *, code: int = 0, stderr: str = "", user_master: str | None = None
) -> SeedError:
    """Return the error for a login after which no command ran.

    Args:
        host: the device's name.
        started: how the login shell began.
        code: with what it ended, where it did.
        stderr: what it wrote there.
        user_master: the socket of the user's own connection, where it is used.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not _CHATTER.match(line)]
    words = started.words or (lines[-1] if lines else "")
    says = f' (it prints "{words}")' if words else ""
    attempt = f"ssh {names.ssh_words(host)} echo works"
    if started.state == "locked":
        return UnreachableError(
            host, f"the login takes more than {START_S:g} s", "see what keeps it busy, or restart it"
        )
    if started.state == "ended":
        return RemoteError(
            12,
            f"{host}: the login works, but its shell ends at once with {code} and runs no command{says}; see what this "
            f"prints: {attempt} , and there whether a start file such as ~/.bashrc exits, or the account has no shell",
        )
    if started.state == "loud":
        return RemoteError(
            12,
            f"{host}: the login works, but its shell prints on and on and runs no command{says}; make its start files "
            f"silent, see: {attempt}",
        )
    if user_master is not None:
        return UnreachableError(
            host,
            f"no command runs within {started.patience_s:g} s on the connection that you have opened to it",
            f"close it: ssh -S {shlex.quote(user_master)} -O exit {names.ssh_words(host)} , and open it again",
        )
    return UnreachableError(
        host,
        f"the login works, but its shell runs no command within {started.patience_s:g} s{says}",
        f"see what this prints: {attempt} , and there whether a start file such as ~/.bashrc asks, waits or starts "
        "another shell: its first line should be [ -t 0 ] || return",
    )


def _host_key_error(host: str, stderr: str) -> HostKeyError:
    if "IDENTIFICATION HAS CHANGED" in stderr or "Offending" in stderr:
        proposed = re.search(r"""ssh-keygen -f "?([^"\n]+)"? -R "?([^"\s]+)""", stderr)
        words = ["-f", proposed[1], "-R", proposed[2]] if proposed else ["-R", names.known_name(host)]
        remove = shlex.join(["ssh-keygen", *words])
        return HostKeyError(
            host,
            "its key is not the one that is known: another machine answers, or its system was installed again",
            f"if you know why, remove the old key: {remove} , and push once with --accept-new-host-key",
        )
    if "revoked" in stderr:
        return HostKeyError(host, "its key is marked as revoked", "see the known_hosts file that says so")
    known = re.search(r"host key is known for (\S+) and", stderr)
    name = known[1] if known else names.known_name(host)
    return HostKeyError(
        host,
        f"its key is unknown (ssh-keygen -F {shlex.quote(name)} finds none)",
        "connect once by ssh and compare the key, or accept it unseen: --accept-new-host-key",
    )


def _authentication_error(host: str, stderr: str, by_hand: str) -> AuthenticationError:
    key = re.search(r"Permissions \d+ for '(.+)' are too open", stderr)
    if key:
        return AuthenticationError(host, "ssh won't use a key that others can read", f"chmod 600 {shlex.quote(key[1])}")
    if "Too many authentication failures" in stderr:
        return AuthenticationError(
            host, "the login was refused after too many keys", "name the right one by IdentityFile and IdentitiesOnly"
        )
    # With ssh's own name for who refuses: it may be a jump host.
    denied = re.search(r"(?:\S+: )?Permission denied \([^)]*\)", stderr)
    methods = denied[0] if denied else "Permission denied"
    keys = f"copy your key to it: ssh-copy-id {names.ssh_words(host)} , or load it: ssh-add"
    if by_hand and re.search(r"\(.*(password|keyboard-interactive)", methods):
        # Nothing is asked here: a fleet has many devices, and scripts have no terminal.
        keys += f" ; or open a connection, which is then used: {by_hand}"
    return AuthenticationError(host, f"the login was refused: {methods}", keys)


def _advice(host: str, stderr: str) -> str:
    if "Could not resolve" in stderr:
        return "check the name, or give it a Host entry in your ssh_config"
    if "refused" in stderr:
        return (
            f"check that sshd runs there and on which port ({profiles.other_ports()}), and write the port into your "
            f"ssh_config, or give the device as {shlex.quote(names.with_port(host, 'PORT'))}"
        )
    if "no matching" in stderr.lower():
        return "the two ends share no algorithm; update the ssh on the older one"
    return f"check that it is switched on and in the network: ssh -v {names.ssh_words(host)}"


def _first_cause(lines: list[str]) -> str:
    """Return the first line that names a cause: those after it tell what came of that."""
    lines = [line for line in lines if not _CHATTER.match(line)]
    cause = next((line for line in lines if _CAUSE.search(line)), lines[0] if lines else "")
    return cause.removeprefix("ssh: ").rstrip(".")
