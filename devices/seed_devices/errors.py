"""Errors between a workstation and its devices, with exit codes 20 to 31 (docs/exit-codes.md).

Fields, not text, as in `seed_runtime.errors`; `str(error)` is one line that ends with the next step.
"""

from __future__ import annotations

from seed_devices import names
from seed_runtime.errors import SeedError


class _HostError(SeedError):
    """An error of one host: the reason, and advice on what to do."""

    def __init__(self, host: str, reason: str, advice: str) -> None:
        super().__init__(host, reason, advice)
        self.host, self.reason, self.advice = host, reason, advice

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}; {self.advice}"


class UnreachableError(_HostError):
    """There is no connection to the host, or it was lost, or the host is silent."""

    exit_code = 20


class AuthenticationError(_HostError):
    """The host answers and refuses the login."""

    exit_code = 21


class HostKeyError(_HostError):
    """The host's key is unknown, or not the one that is known."""

    exit_code = 22


class NotTunedError(_HostError):
    """Ctrl-C came before the host began to tune its model."""

    exit_code = 130


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


class ReplacementError(SeedError):
    """A push would replace a model by another one that has the same name on the device, which nobody asked for.

    Args:
        host: the device, as a user can write it.
        name: what both are called there.
        there: the id of the model that runs.
        seed: the id of the model that was to be pushed.
    """

    exit_code = 2

    def __init__(self, host: str, name: str, there: str, seed: str) -> None:
        super().__init__(host, name, there, seed)
        self.host, self.name, self.there, self.seed = host, name, there, seed

    def __str__(self) -> str:
        return (
            f"{self.host}: {self.name} is {self.there} there, and this seed is {self.seed}: another model; "
            f"push it with --replace if that is meant, or under another name: {names.model_name(self.host, 'NAME')}"
        )


class FleetError(SeedError):
    """Some of several hosts failed; the error of each has been printed.

    Args:
        failed: how many.
        total: how many there are.
        advice: on what to do.
    """

    exit_code = 30

    def __init__(
        self, failed: int, total: int, advice: str = "run the same command again: it does only what is missing"
    ) -> None:
        super().__init__(failed, total, advice)
        self.failed, self.total, self.advice = failed, total, advice

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} hosts failed, see their lines; {self.advice}"


class RolloutError(SeedError):
    """The canaries of a rollout stopped it."""

    exit_code = 30

    def __init__(self, reason: str, waiting: int, advice: str) -> None:
        super().__init__(reason, waiting, advice)
        self.reason, self.waiting, self.advice = reason, waiting, advice

    def __str__(self) -> str:
        others = "1 other device was" if self.waiting == 1 else f"{self.waiting} other devices were"
        return f"{self.reason}; {others} not pushed to; {self.advice}"


class FaultsFound(SeedError):  # noqa: N818  faults that the doctor finds are no error of the doctor
    """The doctor found faults; each has been printed with its fix."""

    exit_code = 31

    def __init__(self, faults: int, hosts: int) -> None:
        super().__init__(faults, hosts)
        self.faults, self.hosts = faults, hosts

    def __str__(self) -> str:
        faults = "1 fault" if self.faults == 1 else f"{self.faults} faults"
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts"
        return f"{faults} on {hosts}; the line under each says how to fix it"


class RemoteError(SeedError):
    """An error that a device reported, with the exit code that it gave, or an error about a device."""

    def __init__(self, exit_code: int, text: str, kind: str = "") -> None:
        super().__init__(exit_code, text, kind)
        self.exit_code, self.text, self.kind = exit_code, text, kind

    def __str__(self) -> str:
        return self.text
