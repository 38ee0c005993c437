"""Whose seeds this machine takes, and that it does not go back to older ones (SPEC.md, "Signatures").

Nothing is asked unless `allowed_signers` stands in the configuration folder. If it does, each seed must bear a
signature by one of them, made for the namespace "seed", and must not be older than the newest version that was accepted
of its model, unless this very seed was accepted before and is still listed.

The signer of a listed seed may also be one who was allowed when it was accepted: a key that runs out, or a clock that
went back to 1970, takes no model away from a device that has it. One who is removed from `allowed_signers` is refused
at once all the same.

Digests are those of seeds, in hexadecimal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seed_runtime.errors import TrustError, UntrustedError, UsageError
from seed_runtime.format.header import Header
from seed_runtime.system import paths
from seed_runtime.trust import sshsig, state


@dataclass(frozen=True)
class Verdict:
    """What `check` would say of a seed, for people."""

    enforced: bool
    """Whether this machine refuses what is not signed by its allowed signers."""
    key: str | None
    """Type and fingerprint of the key that the signature names; None where there is no signature."""
    signer: str | None
    """Who that is by `allowed_signers`, once the signature was found right and the seed not too old."""
    problem: str | None
    """Why the seed is refused, or what is wrong with its signature where nothing is enforced."""


def check(header: Header, digest: str, signed: bytes | None, name: str = "the seed") -> str | None:
    """The signer; None where this machine has no allowed signers. TrustError for a seed that it doesn't take."""
    allowed = allowed_signers()
    if allowed is None:
        return None
    if header.signature is None or signed is None:
        raise UntrustedError(
            f"{name} is not signed, and {allowed} says whose seeds this machine takes; "
            f"sign it (seed-export --sign KEY), or {sshsig.ELSEWHERE}"
        )
    accepted = state.read(state.file_path())
    model = accepted.get(header.model.model_id)
    when = model.digests.get(digest) if model else None
    try:
        signer = sshsig.signer_of(header.signature, signed, allowed, name)
    except TrustError:
        if when is None:
            raise
        signer = sshsig.signer_of(header.signature, signed, allowed, name, when)
    _check_age(header, digest, accepted, name)
    return signer


def accept(header: Header, digest: str, *, kept: bool = False) -> None:
    """Note that a checked seed is in use: older versions of its model are refused from now on, this one never.

    One that is `kept`, in a store, stays listed until it is forgotten; others until too many newer ones are listed.
    Nothing is noted where this machine has no allowed signers. TrustError where the note can't be kept.
    """
    if allowed_signers() is None:
        return
    name = header.model.model_id
    path = state.file_path()
    model = state.read(path).get(name)
    if model and digest in (model.kept if kept else model.digests):
        return  # also on a disk that can't be written to
    with state.changed(path) as accepted:
        # Another process may have accepted a newer version since this one was checked.
        _check_age(header, digest, accepted, "the seed")
        model = accepted.setdefault(name, state.Accepted(0))
        model.newest = max(model.newest, header.model.version)
        model.digests.setdefault(digest, int(time.time()))
        if kept:
            model.kept.add(digest)
        model.limit()


def forget(digests: Iterable[str]) -> None:
    """Strike seeds that are no longer kept off the list; how new the newest was stays known."""
    path, gone = state.file_path(), set(digests)
    if any(gone & model.digests.keys() for model in state.read(path).values()):
        with state.changed(path) as accepted:
            for model in accepted.values():
                for digest in gone:
                    model.forget(digest)


def verdict(header: Header, digest: str, signed: bytes | None, name: str = "the seed") -> Verdict:
    """The same check without consequences; where nothing is enforced, whether the signature fits its bytes."""
    enforced, key, signer, problem = True, None, None, None
    with contextlib.suppress(TrustError):  # which `check` raises as well
        enforced = allowed_signers() is not None
    try:
        if header.signature is not None:
            key = "an unknown key"
            key = sshsig.key_of(header.signature, name)
        signer = check(header, digest, signed, name)
        if not enforced and header.signature is not None and signed is not None:
            sshsig.check_bytes(header.signature, signed, name)
    except TrustError as error:
        problem = str(error)
    return Verdict(enforced, key, signer, problem)


def allowed_signers() -> Path | None:
    """The file that names them; None where there is none, and any seed is taken. TrustError if it can't be read."""
    try:
        path = paths.config_home() / "allowed_signers"
    except UsageError:  # no home, so nothing can be configured
        return None
    try:
        with path.open("rb"):
            return path
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return None
        problem = "it is a link to a file that is not there"
    except OSError as error:
        problem = error.strerror or str(error)
    raise TrustError(f"{path}: {problem}; make it readable, no seed is taken without it")


def _check_age(header: Header, digest: str, accepted: state.State, name: str) -> None:
    model_id, version = header.model.model_id, header.model.version
    if not model_id:
        raise UntrustedError(
            f"{name} has no model id, so its age can't be compared; export it again with --model-id NAME --sign KEY"
        )
    model = accepted.get(model_id)
    if model and version < model.newest and digest not in model.digests:
        raise UntrustedError(
            f"{name} is version {version} of {model_id}, and this machine has accepted version {model.newest}; "
            f"export it with --model-version {model.newest + 1}; to go back, remove {model_id} from {state.file_path()}"
        )
