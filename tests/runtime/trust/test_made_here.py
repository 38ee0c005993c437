"""Seeds that a device made itself, where signatures are required: accepted here alone, as long as their base is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime import trust
from seed_runtime.delta import write_delta
from seed_runtime.errors import BaseError, TrustError
from seed_runtime.seed import Seed
from seed_runtime.trust import state
from seed_runtime.tune import Score, TuneResult
from seed_runtime.tuned_seed import write_tuned
from tests.support.signing import (
    accepted_file,
    needs_ssh_keygen,
    new_key,
    sign_seed,
    trusted_key,
    unsigned_seed,
    write_allowed_signers,
)

pytestmark = needs_ssh_keygen


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def made_on(
    base: Seed, path: Path, change: float = 1.0, before_publishing: Callable[[bytes], None] = lambda digest: None
) -> Path:
    """Write a seed on top of another one, as a fine-tune does, without a note of it."""
    number = next(at for at, hole in enumerate(base.header.holes) if hole.dtype.name == "float32")
    with base.assembled_weights() as weights:
        hole = base.header.holes[number]
        values = weights.read(number, 0, hole.count).reshape(hole.dims) + np.float32(change)
    write_delta(base, {number: values}, path, mode="small", before_publishing=before_publishing)
    return path


def result_of(base: Seed) -> TuneResult:
    """Return what a fine-tune of a tensor may give."""
    number = next(at for at, hole in enumerate(base.header.holes) if hole.dtype.name == "float32")
    value = np.ones(base.header.holes[number].dims, np.float32)
    return TuneResult(
        tensors={number: value},
        quantization_steps={number: 0.25},
        golden=None,
        mode="small",
        metric="accuracy",
        before=Score(0.5, 1.0),
        after=Score(0.75, 0.5),
        held_out=9,
        tiers=(),
        steps=0,
        peak=0,
    )


@pytest.fixture
def base(tmp_path: Path) -> Seed:
    """A signed seed that this device accepts."""
    key = trusted_key(tmp_path)
    return seed_runtime.open(written(tmp_path / "base.seed", sign_seed(unsigned_seed("bell", 3), key)))


def note(base: Seed, path: Path) -> None:
    base.note_made_of_this(base.apply(path, enforce=False).digest)


def test_what_was_made_here_is_accepted_on_its_base(base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    with pytest.raises(TrustError, match="is not signed"):
        base.apply(path)
    note(base, path)
    tuned = base.apply(path)
    tuned.check()
    verdict = tuned.signature()
    assert (verdict.enforced, verdict.key, verdict.signer, verdict.problem) == (True, None, "alice@example.org", None)
    again = made_on(tuned, tmp_path / "again.seed", -2.0)
    note(tuned, again)
    tuned.apply(again).check()


def test_what_another_process_puts_there_is_not_taken_for_what_was_made(
    base: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tuned.seed"
    forged = made_on(base, tmp_path / "forged.seed", 2.0).read_bytes()
    with monkeypatch.context() as patch:
        replace = os.replace

        def swapping(source: Path, target: Path) -> None:
            replace(source, target)
            if target.name == path.name:
                path.write_bytes(forged)

        patch.setattr(os, "replace", swapping)
        write_tuned(base, result_of(base), path)
    with pytest.raises(TrustError, match="is not signed"):
        base.apply(path)
    write_tuned(base, result_of(base), path)
    base.apply(path).check()


def test_what_can_not_be_noted_is_not_written(base: Seed, tmp_path: Path) -> None:
    write_allowed_signers()
    (tmp_path / "tuned.seed").write_bytes(b"older")
    with pytest.raises(TrustError):
        write_tuned(base, result_of(base), tmp_path / "tuned.seed")
    assert (tmp_path / "tuned.seed").read_bytes() == b"older"


def test_another_device_refuses_it(base: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    with pytest.raises(TrustError, match="is not signed"):
        base.apply(path)


def test_another_seed_on_the_same_base_is_refused(base: Seed, tmp_path: Path) -> None:
    note(base, made_on(base, tmp_path / "tuned.seed"))
    for change in (2.0, 1.25):
        with pytest.raises(TrustError, match="is not signed"):
            base.apply(made_on(base, tmp_path / "forged.seed", change))
    data = bytearray((tmp_path / "tuned.seed").read_bytes())
    data[-1] ^= 1
    with pytest.raises(seed_runtime.errors.FormatError):
        base.apply(written(tmp_path / "bent.seed", bytes(data))).check()


def test_without_its_base_nobody_answers_for_it(base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    with pytest.raises(TrustError, match="is not signed"):
        seed_runtime.open(path)
    other = seed_runtime.open(
        written(tmp_path / "other.seed", sign_seed(unsigned_seed("bell", 4), tmp_path / "key")), enforce=False
    )
    with pytest.raises(BaseError):
        other.apply(path)


def test_a_base_that_is_not_accepted_can_not_be_the_start(base: Seed, tmp_path: Path) -> None:
    for name, data in (
        ("unsigned", unsigned_seed("bell", 3)),
        ("stranger", sign_seed(unsigned_seed("bell", 3), new_key(tmp_path / "stranger"))),
    ):
        wrong = seed_runtime.open(written(tmp_path / f"{name}.seed", data), enforce=False)
        path = made_on(wrong, tmp_path / f"{name}-tuned.seed")
        with pytest.raises(TrustError):
            note(wrong, path)
        with pytest.raises(TrustError):
            wrong.apply(path)


def test_removing_the_signer_of_the_base_disables_what_was_made_of_it(base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    base.apply(path).check()
    write_allowed_signers()
    with pytest.raises(TrustError):
        seed_runtime.open(tmp_path / "base.seed", enforce=False).apply(path)


def test_what_was_made_of_a_version_that_is_too_old_is_as_old(base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    newer = sign_seed(unsigned_seed("bell", 4), tmp_path / "key")
    seed_runtime.open(written(tmp_path / "newer.seed", newer)).check()
    with pytest.raises(TrustError, match="has accepted version 4"):
        base.apply(path)
    # A version that was accepted before the newer one still is, and so is what was made of it.
    accepted_file().unlink()
    base.check()
    note(base, path)
    seed_runtime.open(tmp_path / "newer.seed").check()
    base.apply(path).check()


def test_where_nothing_is_required_nothing_is_noted(tmp_path: Path) -> None:
    whole = seed_runtime.open(written(tmp_path / "base.seed", unsigned_seed("bell", 3)))
    note(whole, made_on(whole, tmp_path / "tuned.seed"))
    assert not accepted_file().exists()


def test_the_list_is_bounded_and_keeps_what_is_stored(base: Seed, tmp_path: Path) -> None:
    for number in range(state.LISTED_MAX + 3):
        trust.note_made(base.header, f"{number:064x}")
        if number == 0:
            trust.accept(base.header, f"{0:064x}", stored=True)
    listed = json.loads(accepted_file().read_bytes())["models"]["bell"]["made"]
    assert len(listed) == state.LISTED_MAX + 1
    assert f"{0:064x}" in listed
    assert f"{1:064x}" not in listed


@pytest.mark.parametrize("made", [[], {"a": -1}, {"a": "b"}, 3])
def test_a_damaged_list_accepts_nothing(made: object, base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    held = json.loads(accepted_file().read_bytes())
    held["models"]["bell"]["made"] = made
    accepted_file().write_text(json.dumps(held))
    if made == []:
        with pytest.raises(TrustError, match="is not signed"):
            base.apply(path)
        return
    with pytest.raises(TrustError, match="is damaged"):
        base.apply(path)


def test_a_copy_under_another_name_is_the_same_seed(base: Seed, tmp_path: Path) -> None:
    path = made_on(base, tmp_path / "tuned.seed")
    note(base, path)
    shutil.copy(path, tmp_path / "copy.seed")
    base.apply(tmp_path / "copy.seed").check()
