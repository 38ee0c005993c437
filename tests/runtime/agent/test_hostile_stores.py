"""Stores whose links, folders and records say what isn't so: no base is found through them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.agent.store.chains import Chains
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import FormatError, MissingBaseError, MissingLinkError
from tests.runtime.agent.support.device_agent import (
    NAME,
    LocalAgent,
    digest_of,
    push,
    seed,
)
from tests.runtime.agent.support.version_chains import chain, digests


def test_no_link_leads_to_a_base(tmp_path: Path) -> None:
    one, two = digests(2)
    push(*chain(2))
    model = Store().model(NAME)
    elsewhere = tmp_path / one
    (model.versions / one).rename(elsewhere)
    (model.versions / one).symlink_to(elsewhere)
    with pytest.raises(MissingLinkError):
        seed_runtime.open(model.seed_path(two))
    assert seed_runtime.open(model.seed_path(two), enforce=False).header.base is not None  # to be inspected
    (model.versions / one).unlink()
    (model.versions / one).mkdir()
    (model.versions / one / "model.seed").symlink_to(elsewhere / "model.seed")
    with pytest.raises(MissingLinkError):
        seed_runtime.open(model.seed_path(two))
    (model.versions / one / "model.seed").unlink()
    os.mkfifo(model.versions / one / "model.seed")
    with pytest.raises(MissingLinkError):
        seed_runtime.open(model.seed_path(two))


def test_another_seed_under_the_name_of_a_base_is_no_base() -> None:
    one, two = digests(2)
    push(*chain(2))
    model = Store().model(NAME)
    model.seed_path(one).write_bytes(seed(3))
    with pytest.raises(MissingLinkError):
        seed_runtime.open(model.seed_path(two))
    model.seed_path(one).write_bytes(seed(1)[:100])
    with pytest.raises(FormatError, match=f"version {one[:12]}"):
        seed_runtime.open(model.seed_path(two))


def test_a_seed_in_a_folder_of_another_name_finds_no_base(tmp_path: Path) -> None:
    one, two = digests(2)
    for name in (one, "f" * 64):
        (tmp_path / name).mkdir()
    (tmp_path / one / "model.seed").write_bytes(seed(1))
    (tmp_path / ("f" * 64) / "model.seed").write_bytes(chain(2)[1])
    opened = seed_runtime.open(tmp_path / ("f" * 64) / "model.seed")
    assert opened.digest.hex() == two
    with pytest.raises(MissingBaseError):
        opened.check()


@pytest.mark.parametrize("base", ["../../../etc", "f" * 63, 7, None, {"a": 1}, "F" * 64])
def test_a_record_decides_nothing_while_the_seed_can_be_read(base: object) -> None:
    one, two = digests(2)
    push(*chain(2))
    model = Store().model(NAME)
    path = model.versions / two / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base": base}))
    assert Chains(model).below(two) == [one]
    (version, _) = LocalAgent().call("status")["models"][0]["versions"]
    assert version["base"] is None
    model.seed_path(two).write_bytes(b"damaged")
    assert Chains(model).below(two) == []


def test_records_that_name_one_another_end() -> None:
    push(seed(1), seed(2))
    one, two = (digest_of(seed(version)) for version in (1, 2))
    model = Store().model(NAME)
    for digest, base in ((one, two), (two, one)):
        (model.versions / digest / "record.json").write_text(json.dumps({"digest": digest, "base": base}))
        model.seed_path(digest).write_bytes(b"damaged")
    assert set(Chains(model).below(one)) == {one, two}
    assert Chains(model).above(one) == [two]
