"""Which seed a push sends to which device: the fewest bytes that bring the version there, of those that it can take."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seed_devices.errors import RemoteError
from seed_devices.push import at_hand, preflight
from seed_devices.push.at_hand import SeedsAtHand, collect
from seed_devices.push.choose import possible_ways, require_way
from seed_devices.push.job import Job, Options, Phases
from seed_devices.push.preflight import SeedFile, SeedHeader
from seed_devices.push.ways import Reader, Stored, find_ways, whole_size
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from seed_runtime.format.header import ModelInfo, Tuned
from tests.devices.support.seeds import make_delta, make_seed
from tests.support.deltas import delta_on
from tests.support.signing import add_signature, make_signature, needs_ssh_keygen, new_key, sign_seed

NEW = Reader("9.0.0", 32)
FACTS: dict[str, Any] = {"disk_free": 1 << 30, "ram": 1 << 30, "clock": 2_000_000_000}


def header(
    name: str, version: int, size: int, base: SeedHeader | None = None, *, source: int = 400, level: int = 1
) -> SeedHeader:
    """Return a seed by its name, whose first letter fills its digest."""
    model = ModelInfo("bell", version, level, source // 4, source)
    depth = 0 if base is None else base.depth + 1
    return SeedHeader(
        Path(f"{name}.seed"), name[0] * 64, size, model, base and base.digest, depth, tuned=False, signer=None
    )


def given(of: SeedHeader) -> SeedFile:
    return SeedFile(**vars(of), weights_size=400, assembly=1, session=None)


ONE = header("a", 1, 1000)
TWO = header("b", 2, 1100)
TWO_ON_ONE = header("c", 2, 50, ONE)
THREE = header("d", 3, 1200)
THREE_ON_TWO = header("e", 3, 60, TWO_ON_ONE)
ALL = (ONE, TWO, TWO_ON_ONE, THREE, THREE_ON_TWO)


def stored(*headers: SeedHeader, current: SeedHeader | None = None, **more: Any) -> Stored:
    versions = [
        {"digest": each.digest, "model_version": each.model.version, "base": each.base, "intact": True}
        for each in headers
    ]
    return Stored({"versions": versions, "current": current and current.digest, **more})


def names(seeds: SeedsAtHand, there: Stored, reader: Reader = NEW) -> list[str]:
    """Return each way as the names of the seeds to send."""
    return ["+".join(each.path.stem for each in way.files) for way in find_ways(seeds, there, reader)[0]]


def test_a_device_with_the_base_gets_the_delta_and_one_without_it_the_whole_seed() -> None:
    seeds = SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE])
    assert names(seeds, stored(ONE, current=ONE)) == ["c", "b"]
    assert names(seeds, stored()) == ["b"]  # not the whole seed of version 1, for 50 bytes less
    assert names(SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE], [ONE.digest]), stored()) == ["a+c", "b"]
    assert whole_size(seeds) == 1100


def test_bases_that_are_missing_are_sent_below_it() -> None:
    seeds = SeedsAtHand(given(THREE_ON_TWO), ALL)
    assert names(seeds, stored(ONE)) == ["c+e", "d"]
    assert names(seeds, stored(ONE, TWO_ON_ONE)) == ["e", "d"]
    assert names(seeds, stored()) == ["a+c+e", "d"]
    # The version before was pushed as a whole, so its delta isn't there.
    assert names(seeds, stored(TWO)) == ["a+c+e", "d"]


def test_what_has_arrived_counts_as_sent() -> None:
    seeds = SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE])
    ways, _ = find_ways(seeds, stored(ONE, partial=1080, partial_digest=TWO.digest), NEW)
    assert [(way.form.path.stem, way.left) for way in ways] == [("b", 20), ("c", 50)]
    ways, _ = find_ways(seeds, stored(ONE, partial=30, partial_digest=TWO_ON_ONE.digest), NEW)
    assert [(way.form.path.stem, way.left) for way in ways] == [("c", 20), ("b", 1100)]


def test_either_form_of_the_version_is_the_version() -> None:
    for seed, other in ((TWO, TWO_ON_ONE), (TWO_ON_ONE, TWO)):
        seeds = SeedsAtHand(given(seed), [ONE, other])
        there = stored(ONE, other, current=other)
        (first, *_), _ = find_ways(seeds, there, NEW)
        assert (first.form.digest, first.left, first.is_stored) == (other.digest, 0, True)
    both = stored(ONE, TWO, TWO_ON_ONE, current=TWO_ON_ONE)
    assert names(SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE]), both) == ["c", "b"]
    assert names(SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE]), stored(ONE, TWO, TWO_ON_ONE, current=ONE)) == ["b", "c"]


def test_a_base_that_was_damaged_or_lost_its_own_is_none() -> None:
    seeds = SeedsAtHand(given(THREE), [THREE_ON_TWO])
    assert names(seeds, stored(ONE, TWO_ON_ONE)) == ["e", "d"]
    assert names(seeds, stored(TWO_ON_ONE)) == ["d"]
    damaged = stored(ONE, TWO_ON_ONE)
    damaged.versions[ONE.digest] = {**damaged.versions[ONE.digest], "intact": False}
    assert names(seeds, damaged) == ["d"]
    circle = stored(ONE, TWO_ON_ONE)
    circle.versions[ONE.digest] = {**circle.versions[ONE.digest], "base": TWO_ON_ONE.digest}
    assert names(seeds, circle) == ["d"]


def test_a_version_that_everybody_leaves_at_1_says_nothing() -> None:
    other = header("x", 1, 40, ONE)
    assert names(SeedsAtHand(given(header("y", 1, 1100)), [ONE, other]), stored(ONE)) == ["y"]
    assert names(SeedsAtHand(given(other), [ONE, header("y", 1, 10)]), stored(ONE)) == ["x"]


@pytest.mark.parametrize(
    "other",
    [
        header("x", 2, 40, ONE, source=404),  # of another source
        replace(TWO_ON_ONE, tuned=True),
        replace(TWO_ON_ONE, model=replace(TWO_ON_ONE.model, model_id="other")),
        header("x", 2, 40, TWO),  # on the given one itself
        header("x", 2, 40, header("z", 1, 9)),  # a base of an unknown version
        header("x", 2, 40),  # another whole one
    ],
)
def test_what_only_looks_like_the_version_is_not_sent(other: SeedHeader) -> None:
    assert names(SeedsAtHand(given(TWO), [other]), stored(ONE)) == ["b"]


def test_a_runtime_that_is_too_old_gets_the_whole_seed_and_a_note() -> None:
    seeds = SeedsAtHand(given(TWO), [ONE, TWO_ON_ONE])
    for reader in (Reader("0.1.0", None), Reader("0.1.0", 0)):
        ways, notes = find_ways(seeds, stored(ONE), reader)
        assert [way.form.path.stem for way in ways] == ["b"]
        assert notes == ["its runtime 0.1.0 is too old for c.seed; --update-runtime brings a newer one"]
    assert names(SeedsAtHand(given(THREE), ALL), stored(ONE, TWO_ON_ONE), Reader("0.1.0", 1)) == ["d"]
    newer = replace(TWO_ON_ONE, model=replace(TWO_ON_ONE.model, feature_level=1))
    assert names(SeedsAtHand(given(TWO), [newer]), stored(ONE), Reader("0.0.9", 32)) == []


def job_of(seeds: SeedsAtHand) -> Job:
    return Job(Connection("pi@h"), seeds, "bell", Options(), Phases(None))


def test_a_delta_without_its_base_is_12_and_names_it() -> None:
    job = job_of(SeedsAtHand(given(TWO_ON_ONE)))
    with pytest.raises(RemoteError) as caught:
        require_way(job, [], "9.0.0", 32, {})
    assert caught.value.exit_code == 12
    assert str(caught.value) == (
        f"pi@h: c.seed is a delta on the seed {ONE.digest}, which is neither there nor in the folder of c.seed; put it "
        "there, name it with --delta, or push the whole seed"
    )
    with pytest.raises(
        RemoteError, match=r"its runtime 0\.1\.0 is older than c\.seed, a delta on 1 seeds, needs"
    ) as caught:
        require_way(job, [], "0.1.0", None, {"versions": [{"digest": ONE.digest}]})
    assert caught.value.exit_code == 12


def test_a_delta_that_the_device_would_not_accept_is_passed_over(tmp_path: Path) -> None:
    one = make_seed(tmp_path / "v1.seed")
    delta = make_delta(tmp_path / "v2-on-v1.seed", one, version=2)
    seed = preflight.load(make_seed(tmp_path / "v2.seed", version=2))
    seeds = collect(replace(seed, signer="its key"), [delta])
    ways, _ = find_ways(seeds, Stored({"versions": [{"digest": preflight.load(one).digest}]}), NEW)
    assert [way.form.path.stem for way in ways] == ["v2-on-v1", "v2"]
    left, notes = possible_ways(job_of(seeds), ways, FACTS | {"signers": True}, None, runtime_due=False)
    assert [way.form.path.stem for way in left] == ["v2"]
    assert notes[0].startswith("v2-on-v1.seed was not used: it takes signed seeds only")
    seeds = collect(seed, [delta])
    ways, _ = find_ways(seeds, Stored({"versions": [{"digest": preflight.load(one).digest}]}), NEW)
    with pytest.raises(RemoteError, match=r"v2\.seed is not signed") as caught:
        possible_ways(job_of(seeds), ways, FACTS | {"signers": True}, None, runtime_due=False)
    assert caught.value.exit_code == 11


@needs_ssh_keygen
def test_a_signed_seed_is_replaced_only_by_one_that_the_same_key_has_signed(tmp_path: Path) -> None:
    own, other = (new_key(tmp_path / name) for name in ("own", "other"))
    one, two = make_seed(tmp_path / "v1.seed"), make_seed(tmp_path / "v2.seed", version=2)
    delta = make_delta(tmp_path / "v2-on-v1.seed", one, version=2)
    unsigned = delta.read_bytes()
    two.write_bytes(sign_seed(two.read_bytes(), own))
    forged = add_signature(unsigned, make_signature(b"something else", own))
    cases = {"none": unsigned, "other": sign_seed(unsigned, other), "own": sign_seed(unsigned, own), "forged": forged}
    there = Stored({"versions": [{"digest": preflight.load(one).digest}]})
    taken = {}
    for case, data in cases.items():
        delta.write_bytes(data)
        seeds = collect(preflight.load(two))
        ways, _ = find_ways(seeds, there, NEW)
        ways, _ = possible_ways(job_of(seeds), ways, FACTS, None, runtime_due=False)
        taken[case] = ways[0].form.path.stem
    assert taken == {"none": "v2", "other": "v2", "own": "v2-on-v1", "forged": "v2"}


def test_a_delta_that_is_damaged_here_is_passed_over(tmp_path: Path) -> None:
    one = make_seed(tmp_path / "v1.seed")
    delta = make_delta(tmp_path / "v2-on-v1.seed", one, version=2)
    delta.write_bytes(delta.read_bytes()[:-1] + bytes([delta.read_bytes()[-1] ^ 1]))
    seeds = collect(preflight.load(make_seed(tmp_path / "v2.seed", version=2)))
    ways, _ = find_ways(seeds, Stored({"versions": [{"digest": preflight.load(one).digest}]}), NEW)
    left, (note,) = possible_ways(job_of(seeds), ways, FACTS, None, runtime_due=False)
    assert [way.form.path.stem for way in left] == ["v2"]
    assert note == (
        "v2-on-v1.seed was not used: v2-on-v1.seed: its bytes don't match its digests; this seed is damaged, "
        "export it again"
    )


# Which seeds are at hand


def test_the_folder_of_the_seed_is_looked_through(tmp_path: Path) -> None:
    one, two = make_seed(tmp_path / "v1.seed"), make_seed(tmp_path / "v2.seed", version=2)
    delta = make_delta(tmp_path / "delta.seed", one, version=2)
    (tmp_path / "none.seed").write_bytes(b"no seed")
    (tmp_path / "folder.seed").mkdir()
    (tmp_path / "gone.seed").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.seed")
    seeds = collect(preflight.load(two))
    assert {each.path for each in seeds.headers.values()} == {one, two, delta}
    assert [each.path for each in seeds.same_version()] == [two, delta]
    assert [each.path for each in collect(preflight.load(two), whole=True).headers.values()] == [two]


def test_of_a_folder_with_many_seeds_the_newest_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_seed(tmp_path / f"{number}.seed", version=number) for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        os.utime(path, (number, number))
    monkeypatch.setattr(at_hand, "FOLDER_MAX", 1)
    assert {each.path for each in collect(preflight.load(paths[0])).headers.values()} == {paths[0], paths[2]}


def test_a_named_delta_may_lie_anywhere_and_must_belong_to_the_seed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    one, two = make_seed(elsewhere / "v1.seed"), make_seed(tmp_path / "v2.seed", version=2)
    delta = make_delta(elsewhere / "delta.seed", one, version=2)
    seed = preflight.load(two)
    there = Stored({"versions": [{"digest": preflight.load(one).digest}]})
    assert names(collect(seed), there) == ["v2"]
    assert names(collect(seed, [delta]), there) == ["delta", "v2"]
    link = tmp_path / "link"
    link.symlink_to(delta)
    assert names(collect(seed, [link]), there) == ["delta", "v2"]
    assert set(names(collect(seed, [delta, one]), Stored({}))) == {"v2", "v1+delta"}
    _, notes = find_ways(collect(seed, [delta]), Stored({}), NEW)
    assert notes == ["delta.seed was not used: its base is neither there nor at hand"]
    with pytest.raises(UsageError, match=r"v1\.seed is product 1, which is neither product 2 nor a base of it"):
        collect(seed, [one])
    with pytest.raises(UsageError, match="give the path of a seed"):
        collect(seed, [tmp_path / "none.seed"])


def test_whole_and_deltas_contradict_each_other(tmp_path: Path) -> None:
    one = make_seed(tmp_path / "v1.seed")
    delta = make_delta(tmp_path / "delta.seed", one, version=2)
    with pytest.raises(UsageError, match="--whole sends no delta, and --delta names one"):
        collect(preflight.load(one), [delta], whole=True)
    with pytest.raises(UsageError, match=r"delta\.seed is a delta itself; leave --whole out"):
        collect(preflight.load(delta), whole=True)


def test_a_fine_tune_is_a_version_of_its_own(tmp_path: Path) -> None:
    one, two = make_seed(tmp_path / "v1.seed"), make_seed(tmp_path / "v2.seed", version=2)
    path = tmp_path / "tuned.seed"
    path.write_bytes(delta_on(one.read_bytes(), version=2, tuned=Tuned("small")))
    there = Stored({"versions": [{"digest": preflight.load(one).digest}]})
    assert names(collect(preflight.load(two)), there) == ["v2"]
    assert names(collect(preflight.load(path)), there) == ["tuned"]
