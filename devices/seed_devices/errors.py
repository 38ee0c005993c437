"""What can go wrong between a workstation and its devices, with exit codes 20 to 31 (docs/exit-codes.md).

Fields, not text, as in `seed_runtime.errors`; `str(error)` is one line that ends with the next step.
"""

from __future__ import annotations

from seed_runtime.errors import SeedError


class UnreachableError(SeedError):
    """No connection to the host, or it was lost on the way, or nothing is heard on it."""

    exit_code = 20

    def __init__(self, host: str, reason: str, step: str) -> None:
        super().__init__(host, reason, step)
        self.host, self.reason, self.step = host, reason, step

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}; {self.step}"


class AuthenticationError(SeedError):
    """The host answers and refuses the login."""

    exit_code = 21

    def __init__(self, host: str, reason: str, step: str) -> None:
        super().__init__(host, reason, step)
        self.host, self.reason, self.step = host, reason, step

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}; {self.step}"


class HostKeyError(SeedError):
    """The host's key is unknown, or not the one that is known."""

    exit_code = 22

    def __init__(self, host: str, reason: str, step: str) -> None:
        super().__init__(host, reason, step)
        self.host, self.reason, self.step = host, reason, step

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}; {self.step}"


class WheelsError(SeedError):
    """The wheels of a device's runtime are not in the cache, and the package index can't be reached from here."""

    exit_code = 20

    def __init__(self, title: str, reason: str) -> None:
        super().__init__(title, reason)
        self.title, self.reason = title, reason

    def __str__(self) -> str:
        return (
            f"{self.title} are not in this machine's cache and can't be downloaded ({self.reason}); "
            "run the same command again once this machine reaches a package index"
        )


class FleetError(SeedError):
    """Some hosts of several failed; each has said why."""

    exit_code = 30

    def __init__(self, failed: int, total: int) -> None:
        super().__init__(failed, total)
        self.failed, self.total = failed, total

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.total} hosts failed, see their lines; run the same command again: "
            f"it does only what is missing"
        )


class FaultsFound(SeedError):  # noqa: N818  what a doctor finds is no error of the doctor's
    """The doctor found faults; each has been named with its fix."""

    exit_code = 31

    def __init__(self, faults: int, hosts: int) -> None:
        super().__init__(faults, hosts)
        self.faults, self.hosts = faults, hosts

    def __str__(self) -> str:
        faults = "1 fault" if self.faults == 1 else f"{self.faults} faults"
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts"
        return f"{faults} on {hosts}; the line under each says what mends it"


class RemoteError(SeedError):
    """An error of the device's own, with the exit code that it gave, or one about the device."""

    def __init__(self, exit_code: int, text: str, kind: str = "") -> None:
        super().__init__(exit_code, text, kind)
        self.exit_code, self.text, self.kind = exit_code, text, kind

    def __str__(self) -> str:
        return self.text
