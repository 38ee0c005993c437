"""A wrong value in any field of SPEC.md, digests valid: the right error, little memory, nothing written."""

from __future__ import annotations

import io
import re
import tracemalloc
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import SeedError, UnsupportedError
from tests.attacks.support.attack_cases import ATTACKS, Attack
from tests.attacks.support.skeleton_attacks import RULES
from tests.support.delta_builder import build_delta, changed_weights, delta_fields
from tests.support.seed_builder import ALL, FieldWriter, Replacement, build_fields, build_seed, decoded_weights
from tests.support.spec_fields import fields, rules

PEAK_MAX = 12 << 20
"""Bytes that Python and NumPy may take together: the header, one chunk, one part and the windows, in every case."""

NEXT_STEPS = (
    "this seed is damaged, copy it",
    "make a seed with",
    "update it",
    "export the model again",
    "give its own",
)


def read_everything(seed: seed_runtime.Seed) -> None:
    """Do all that reading a seed does, except writing."""
    seed.check()


def assert_refused(
    data: bytes, folder: Path, error: type[SeedError], text: str, base: seed_runtime.Seed | None = None
) -> None:
    path, target = folder / "hostile.seed", folder / "target"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(error, match=text) as caught:
            read_everything(seed_runtime.open(path, base=base))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == (12 if isinstance(caught.value, UnsupportedError) else 10)
    line = str(caught.value)
    assert "\n" not in line
    assert re.search(
        "; (this seed is damaged, copy it|make a seed with|update it|export the model again|give its own base)", line
    ), line
    assert "\x1b" not in line
    assert peak < PEAK_MAX
    with pytest.raises(error, match=text):
        read_everything(seed_runtime.open(io.BytesIO(data), base=base))
    with pytest.raises(error):
        seed_runtime.open(path, base=base).assemble(target)
    assert {entry.name for entry in folder.iterdir()} == {"hostile.seed"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> seed_runtime.Seed:
    """The valid seed, on which seeds with a base build."""
    path = tmp_path_factory.mktemp("base") / "base.seed"
    path.write_bytes(build_seed())
    return seed_runtime.open(path)


def test_the_valid_seed_with_a_base_is_accepted(base: seed_runtime.Seed, tmp_path: Path) -> None:
    (tmp_path / "valid.seed").write_bytes(build_delta())
    seed = base.apply(tmp_path / "valid.seed")
    read_everything(seed)
    folder = seed.assemble(tmp_path / "target")
    assert (folder / "model.weights").read_bytes() == changed_weights()


def test_the_valid_seed_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "valid.seed"
    path.write_bytes(build_seed())
    seed = seed_runtime.open(path)
    read_everything(seed)
    folder = seed.assemble(tmp_path / "target")
    assert (folder / "model.weights").read_bytes() == decoded_weights()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: "+".join(attack.replaced))
def test_a_wrong_field_is_refused(attack: Attack, base: seed_runtime.Seed, tmp_path: Path) -> None:
    assert_refused(attack.seed(), tmp_path, attack.error, attack.text, base if attack.has_base else None)


@pytest.mark.parametrize(
    ("rule", "replaced", "error", "text"), RULES, ids=[f"{rule}-{i}" for i, (rule, *_) in enumerate(RULES)]
)
def test_a_skeleton_that_breaks_a_rule_is_refused(
    rule: str, replaced: dict[str, Replacement], error: type[SeedError], text: str, tmp_path: Path
) -> None:
    assert_refused(build_seed(replaced), tmp_path, error, text)


def test_every_field_of_the_specification_has_an_attack() -> None:
    assert {attack.field for attack in ATTACKS} == set(fields())


def test_every_rule_for_skeletons_has_an_attack() -> None:
    assert {rule for rule, *_ in RULES} == set(rules("skeleton"))


def test_the_seed_builder_writes_every_field_of_the_specification() -> None:
    written = {name for name, _ in build_fields() + delta_fields()}
    only_elsewhere = {
        "head_chunk.data",
        "lzma.properties",
        "lzma.dictionary",
        "lzma.data",
        "deflate.data",
        "plane.size",
        "head.col_steps",
    }
    hidden = {
        "golden_input.data",
        "golden_output.digest",
        "holes.data",
        "parts.names",
        "section.payload",
        "data_chunk.words",
        "skeleton.place",
        "signature.blob",
    }
    assert set(fields()) - written <= only_elsewhere | hidden


def test_replacing_a_field_that_is_not_there_is_a_mistake_of_the_test() -> None:
    with pytest.raises(AssertionError, match="no such fields"):
        build_seed({"no.field": b""})
    assert FieldWriter({}).used == set()
    assert len(ALL) == 8
