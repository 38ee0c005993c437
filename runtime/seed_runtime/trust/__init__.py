"""Decides whether this machine accepts a seed: whose signature it needs, and how old it may be (SPEC.md, "Signatures").

Any seed is accepted unless there is a file `allowed_signers` in the configuration folder. If there is, each seed needs
a signature by one of these signers, made for the namespace "seed", and must not be older than the newest version that
was accepted of its model, unless this very seed was accepted before and is still listed.

A listed seed is also accepted if its signer was allowed when it was accepted: a key that expires, or a clock that goes
back to 1970, doesn't disable a model on a device that has it. A signer who is removed from `allowed_signers` is refused
at once all the same.

What this machine learned itself, as a seed on top of one that it accepts, is signed by nobody. Such a seed is accepted
where it is listed as made here, for as long as its base is accepted: whoever signed that answers for the model, and
removing the signer disables both.

Digests are those of seeds, in hexadecimal. `name` is how error messages name the seed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from seed_runtime.errors import TrustError, UntrustedError, UsageError
from seed_runtime.format.header import Header
from seed_runtime.system import paths
from seed_runtime.trust import sshsig, state


@dataclass(frozen=True)
class Verdict:
    """The result of checking a seed, to be shown to people."""

    enforced: bool
    """True if this machine refuses seeds that its allowed signers haven't signed."""
    key: str | None
    """Type and fingerprint of the key that the signature names; None if there is no signature."""
    signer: str | None
    """The signer's name in `allowed_signers`, if the signature is right and the seed not too old. Without a signature
    that is the signer of its base, out of which this machine made the seed itself."""
    problem: str | None
    """Reason why the seed is refused, or fault of its signature if nothing is enforced; None where there is none."""


BaseCheck = Callable[[], str | None]
"""Checks the base of a seed as `check` does, and returns its signer."""


def check(
    header: Header, digest: str, signed: bytes | None, name: str = "the seed", base: BaseCheck | None = None
) -> str | None:
    """Check that this machine accepts a seed. Nothing is noted.

    Args:
        header: the seed's header.
        digest: its digest.
        signed: the bytes that a signature covers; None if the seed has none.
        name: how messages name it.
        base: checks its base, which it is built on; None where it has none, or where that isn't known.

    Returns:
        The signer, of a seed that was made here its base's; None if this machine has no allowed signers.

    Raises:
        UntrustedError: the seed is refused, and would be at any time.
        TrustError: it can't be checked, or its signer isn't allowed now.
    """
    allowed = allowed_signers()
    if allowed is None:
        return None
    accepted = state.read(state.file_path())
    model = accepted.get(header.model.model_id)
    if header.signature is None or signed is None:
        if base is not None and model and digest in model.made:
            return base()
        raise UntrustedError(
            f"{name} is not signed, and {allowed} says whose seeds this machine accepts; "
            f"sign it (seed-export --sign KEY), or {sshsig.ELSEWHERE}"
        )
    when = model.digests.get(digest) if model else None
    try:
        signer = sshsig.find_signer(header.signature, signed, allowed, name)
    except TrustError:
        if when is None:
            raise
        signer = sshsig.find_signer(header.signature, signed, allowed, name, when)
    _check_age(header, digest, accepted, name)
    return signer


def accept(header: Header, digest: str, *, stored: bool = False) -> None:
    """Note that a checked seed is in use: from now on older versions of its model are refused, and this one isn't.

    Nothing is noted if this machine has no allowed signers.

    Args:
        header: the seed's header.
        digest: its digest.
        stored: it is in a store, and stays listed until `forget`. Other seeds stay listed until too many newer ones
            are.

    Raises:
        TrustError: a newer version has been accepted meanwhile, or the note can't be written.
    """
    if allowed_signers() is None:
        return
    name = header.model.model_id
    path = state.file_path()
    model = state.read(path).get(name)
    if model and digest in (model.stored if stored else model.digests):
        return  # without writing, so that it works on a read-only disk
    with state.update(path) as accepted:
        # Another process may have accepted a newer version since this one was checked.
        _check_age(header, digest, accepted, "the seed")
        model = accepted.setdefault(name, state.AcceptedModel(0))
        model.newest = max(model.newest, header.model.version)
        model.digests.setdefault(digest, int(time.time()))
        if stored:
            model.stored.add(digest)
        model.drop_oldest()


def note_made(header: Header, digest: str) -> None:
    """Note that this machine made a seed itself, on top of one that it has just accepted.

    Nothing is noted if this machine has no allowed signers.

    Args:
        header: the seed's header.
        digest: its digest.

    Raises:
        TrustError: the note can't be written.
    """
    if allowed_signers() is None:
        return
    with state.update(state.file_path()) as accepted:
        model = accepted.setdefault(header.model.model_id, state.AcceptedModel(0))
        model.made.pop(digest, None)  # so that it is the newest
        model.made[digest] = int(time.time())
        model.drop_oldest()


def forget(digests: Iterable[str]) -> None:
    """Remove seeds that are no longer stored from the accepted list. The newest version of each model stays known.

    Raises:
        TrustError: the list can't be read or written.
    """
    path, gone = state.file_path(), set(digests)
    if any(gone & model.digests.keys() for model in state.read(path).values()):
        with state.update(path) as accepted:
            for model in accepted.values():
                for digest in gone:
                    model.forget(digest)


def assess(
    header: Header, digest: str, signed: bytes | None, name: str = "the seed", base: BaseCheck | None = None
) -> Verdict:
    """Check a seed as `check` does, without raising an error.

    If nothing is enforced, only find out whether the signature fits the signed bytes.
    """
    enforced, key, signer, problem = True, None, None, None
    with contextlib.suppress(TrustError):  # `check` raises it again
        enforced = allowed_signers() is not None
    try:
        if header.signature is not None:
            key = "an unknown key"
            key = sshsig.describe_key(header.signature, name)
        signer = check(header, digest, signed, name, base)
        if not enforced and header.signature is not None and signed is not None:
            sshsig.check_signature(header.signature, signed, name)
    except TrustError as error:
        problem = str(error)
    return Verdict(enforced, key, signer, problem)


def allowed_signers() -> Path | None:
    """Return the file of allowed signers; None if there is none, and any seed is accepted.

    Raises:
        TrustError: it can't be read.
    """
    try:
        path = paths.config_home() / "allowed_signers"
    except UsageError:  # no home folder, so nothing can be configured
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
    raise TrustError(f"{path}: {problem}; make it readable, no seed is accepted without it")


def _check_age(header: Header, digest: str, accepted: state.State, name: str) -> None:
    """UntrustedError for a seed older than the newest accepted one of its model, unless it is listed itself."""
    model_id, version = header.model.model_id, header.model.version
    if not model_id:
        raise UntrustedError(
            f"{name} has no model id, so its age can't be compared; export it again with --model-id NAME --sign KEY"
        )
    model = accepted.get(model_id)
    # Of a seed that was made here, its base's age counts.
    if model and version < model.newest and digest not in model.digests.keys() | model.made.keys():
        raise UntrustedError(
            f"{name} is version {version} of {model_id}, and this machine has accepted version {model.newest}; "
            f"export it with --model-version {model.newest + 1}; to go back, remove {model_id} from {state.file_path()}"
        )
