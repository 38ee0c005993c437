"""Which seed a push sends to which device: the fewest bytes that bring the version there, of those that it can take."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seed_devices.errors import RemoteError
from seed_devices.push import candidates, preflight
from seed_devices.push.candidates import Candidates, find_candidates
from seed_devices.push.choose import feasible_routes, require_route, return_notes
from seed_devices.push.job import Job, Options, Phases
from seed_devices.push.preflight import SeedFile, SeedHeader
from seed_devices.push.routes import Route, RuntimeLimits, StoredVersions, find_routes, whole_size
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from seed_runtime.format.header import ModelInfo
from tests.devices.support.seeds import make_delta, make_seed
from tests.support.deltas import delta_on
from tests.support.model_seeds import classifier
from tests.support.signing import add_signature, make_signature, needs_ssh_keygen, new_key, sign_seed

NEW = RuntimeLimits("9.0.0", 32)
FACTS: dict[str, Any] = {"disk_free": 1 << 30, "ram": 1 << 30, "clock": 2_000_000_000}


def header(name: str, version: int, size: int, base: SeedHeader | None = None) -> SeedHeader:
    """Return a seed by its name, whose first letter fills its digest."""
    model = ModelInfo("bell", version, 1, 100, 400)
    depth = 0 if base is None else base.depth + 1
    return SeedHeader(Path(f"{name}.seed"), name[0] * 64, size, model, base and base.digest, depth, signer=None)


def given(of: SeedHeader) -> SeedFile:
    return SeedFile(**vars(of), weights_size=400, assembly=1, session=None)


ONE = header("a", 1, 1000)
TWO = header("b", 2, 1100)
TWO_ON_ONE = header("c", 2, 50, ONE)
THREE = header("d", 3, 1200)
THREE_ON_TWO = header("e", 3, 60, TWO_ON_ONE)
LINKS = (ONE, TWO_ON_ONE)


def stored(*headers: SeedHeader, current: SeedHeader | None = None, **more: Any) -> StoredVersions:
    versions = [
        {"digest": each.digest, "model_version": each.model.version, "base": each.base, "intact": True}
        for each in headers
    ]
    return StoredVersions({"versions": versions, "current": current and current.digest, **more})


def names(seeds: Candidates, there: StoredVersions, limits: RuntimeLimits = NEW, *, repairs: bool = False) -> list[str]:
    """Return each route as the names of the seeds to send."""
    routes = find_routes(seeds, there, limits)[0]
    return ["+".join(each.path.stem for each in route.files) for route in routes if route.is_repair is repairs]


def test_a_device_with_the_base_gets_the_named_delta_and_one_without_it_the_whole_seed() -> None:
    seeds = Candidates(given(TWO), [TWO_ON_ONE], LINKS)
    assert names(seeds, stored(ONE, current=ONE)) == ["c", "b"]
    assert names(seeds, stored()) == ["b"]  # not the whole seed of version 1, for 50 bytes less
    assert whole_size(seeds) == 1100


def test_bases_that_are_missing_are_sent_below_a_delta() -> None:
    seeds = Candidates(given(THREE_ON_TWO), bases=[*LINKS, TWO, THREE])
    assert names(seeds, stored(ONE)) == ["c+e"]
    assert names(seeds, stored(ONE, TWO_ON_ONE)) == ["e"]
    assert names(seeds, stored()) == ["a+c+e"]
    # The version before was pushed as a whole, so its delta isn't there.
    assert names(seeds, stored(TWO)) == ["a+c+e"]
    assert whole_size(seeds) == 1110


def test_a_whole_seed_that_is_named_is_sent_where_the_base_is_missing() -> None:
    seeds = Candidates(given(THREE_ON_TWO), [THREE], LINKS)
    assert names(seeds, stored(ONE)) == ["c+e", "d"]
    assert names(seeds, stored()) == ["d"]
    assert whole_size(seeds) == 1200


def test_nothing_but_what_was_named_is_sent_in_place_of_the_given_seed() -> None:
    for seed, other in ((TWO, TWO_ON_ONE), (TWO_ON_ONE, TWO)):
        seeds = Candidates(given(seed), bases=[ONE, other])
        assert names(seeds, stored(ONE)) == [seed.path.stem]
        # Not even where it runs already: equal numbers don't mean equal weights.
        assert names(seeds, stored(ONE, other, current=other)) == [seed.path.stem]


def test_the_size_of_the_whole_seed_is_not_known_without_all_bases() -> None:
    assert whole_size(Candidates(given(THREE_ON_TWO), bases=[TWO_ON_ONE, THREE])) is None


def test_what_has_arrived_counts_as_sent() -> None:
    seeds = Candidates(given(TWO), [TWO_ON_ONE], LINKS)
    routes, _ = find_routes(seeds, stored(ONE, partial=1080, partial_digest=TWO.digest), NEW)
    assert [(route.seed.path.stem, route.bytes_to_send) for route in routes] == [("b", 20), ("c", 50)]
    routes, _ = find_routes(seeds, stored(ONE, partial=30, partial_digest=TWO_ON_ONE.digest), NEW)
    assert [(route.seed.path.stem, route.bytes_to_send) for route in routes] == [("c", 20), ("b", 1100)]


def test_each_named_seed_of_the_version_is_the_version() -> None:
    for seed, other in ((TWO, TWO_ON_ONE), (TWO_ON_ONE, TWO)):
        seeds = Candidates(given(seed), [other], LINKS)
        (first, *_), _ = find_routes(seeds, stored(ONE, other, current=other), NEW)
        assert (first.seed.digest, first.bytes_to_send, first.is_stored) == (other.digest, 0, True)
    both = Candidates(given(TWO), [TWO_ON_ONE], LINKS)
    assert names(both, stored(ONE, TWO, TWO_ON_ONE, current=TWO_ON_ONE)) == ["c", "b"]
    assert names(both, stored(ONE, TWO, TWO_ON_ONE, current=ONE)) == ["b", "c"]


def test_a_base_that_was_damaged_or_lost_its_own_is_none() -> None:
    seeds = Candidates(given(THREE), [THREE_ON_TWO])
    assert names(seeds, stored(ONE, TWO_ON_ONE)) == ["e", "d"]
    assert names(seeds, stored(TWO_ON_ONE)) == ["d"]
    for wrong in ({"intact": False}, {"base": TWO_ON_ONE.digest}):
        versions = [
            {"digest": ONE.digest, **wrong},
            {"digest": TWO_ON_ONE.digest, "base": ONE.digest},
        ]
        assert names(seeds, StoredVersions({"versions": versions})) == ["d"]


def test_all_bases_are_sent_again_in_the_end_where_no_whole_seed_is_named() -> None:
    seeds = Candidates(given(THREE_ON_TWO), bases=LINKS)
    assert names(seeds, stored(ONE, TWO_ON_ONE), repairs=True) == ["a+c+e"]
    assert names(seeds, stored(ONE, TWO_ON_ONE, THREE_ON_TWO), repairs=True) == ["a+c+e"]
    assert names(seeds, stored(), repairs=True) == []  # that is the way by itself
    assert names(Candidates(given(THREE_ON_TWO), [THREE], LINKS), stored(*LINKS), repairs=True) == []


def test_a_runtime_that_is_too_old_gets_the_whole_seed_and_a_note() -> None:
    seeds = Candidates(given(TWO), [TWO_ON_ONE], LINKS)
    for limits in (RuntimeLimits("0.1.0", None), RuntimeLimits("0.1.0", 0)):
        routes, notes = find_routes(seeds, stored(ONE), limits)
        assert [route.seed.path.stem for route in routes] == ["b"]
        text = "c.seed was not used: its runtime 0.1.0 is too old for it; --update-runtime brings a newer one"
        assert notes == [text]
    older = RuntimeLimits("0.1.0", 1)
    assert names(Candidates(given(THREE), [THREE_ON_TWO], LINKS), stored(ONE, TWO_ON_ONE), older) == ["d"]
    assert names(seeds, stored(ONE), RuntimeLimits("0.0.9", 32)) == []


def job_of(seeds: Candidates) -> Job:
    return Job(Connection("pi@h"), seeds, "bell", Options(), Phases(None))


def test_a_delta_without_its_base_is_12_and_names_it() -> None:
    job = job_of(Candidates(given(TWO_ON_ONE)))
    with pytest.raises(RemoteError) as caught:
        require_route(job, [], "9.0.0", 32, {})
    assert caught.value.exit_code == 12
    assert str(caught.value) == (
        f"pi@h: c.seed is a delta on the seed {ONE.digest}, which is neither there nor in the folder of c.seed; put it "
        "into that folder, or name the whole seed of this version: seed-deploy push c.seed pi@h --whole FILE"
    )
    with pytest.raises(
        RemoteError, match=r"its runtime 0\.1\.0 is older than c\.seed, a delta on 1 seeds, needs"
    ) as caught:
        require_route(job, [], "0.1.0", None, {"versions": [{"digest": ONE.digest}]})
    assert caught.value.exit_code == 12


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return make_seed(tmp_path / "v1.seed")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return make_seed(tmp_path / "v2.seed", version=2, matrix=1, bias=3)


@pytest.fixture
def delta(tmp_path: Path, one: Path) -> Path:
    return make_delta(tmp_path / "v2-on-v1.seed", one, version=2)


def on(*seeds: Path) -> StoredVersions:
    return StoredVersions({"versions": [{"digest": preflight.load(each).digest} for each in seeds]})


def feasible(seeds: Candidates, there: StoredVersions, **facts: Any) -> tuple[list[str], list[str]]:
    """Return the file of each route that the device can take, and the notes."""
    routes, _ = find_routes(seeds, there, NEW)
    left, notes = feasible_routes(job_of(seeds), routes, FACTS | facts, None, runtime_due=False)
    return [route.seed.path.stem for route in left], notes


def test_a_delta_that_the_device_would_not_accept_is_passed_over(one: Path, two: Path, delta: Path) -> None:
    seed = preflight.load(two)
    left, notes = feasible(find_candidates(replace(seed, signer="its key"), [delta]), on(one), signers=True)
    assert left == ["v2"]
    assert notes[0].startswith("v2-on-v1.seed was not used: it takes signed seeds only")
    with pytest.raises(RemoteError, match=r"v2\.seed is not signed") as caught:
        feasible(find_candidates(seed, [delta]), on(one), signers=True)
    assert caught.value.exit_code == 11


@needs_ssh_keygen
def test_beside_a_signed_seed_the_signature_of_a_named_one_is_checked(
    one: Path, two: Path, delta: Path, tmp_path: Path
) -> None:
    own, other = (new_key(tmp_path / name) for name in ("own", "other"))
    unsigned = delta.read_bytes()
    two.write_bytes(sign_seed(two.read_bytes(), own))
    forged = add_signature(unsigned, make_signature(b"something else", own))
    cases = {"none": unsigned, "other": sign_seed(unsigned, other), "own": sign_seed(unsigned, own), "forged": forged}
    taken = {}
    for case, data in cases.items():
        delta.write_bytes(data)
        taken[case] = feasible(find_candidates(preflight.load(two), [delta]), on(one))[0][0]
    # Whom it trusts is the device's to say.
    assert taken == {"none": "v2-on-v1", "other": "v2-on-v1", "own": "v2-on-v1", "forged": "v2"}


def test_a_delta_that_is_damaged_here_is_passed_over(one: Path, two: Path, delta: Path) -> None:
    delta.write_bytes(delta.read_bytes()[:-1] + bytes([delta.read_bytes()[-1] ^ 1]))
    left, (note,) = feasible(find_candidates(preflight.load(two), [delta]), on(one))
    assert left == ["v2"]
    assert note == (
        "v2-on-v1.seed was not used: v2-on-v1.seed: its bytes don't match its digests; this seed is damaged, "
        "export it again"
    )


@pytest.mark.parametrize("known", ["base", "whole", "neither"])
def test_memory_and_onnx_runtime_of_a_delta_are_those_of_its_base_or_of_the_whole_seed(
    one: Path, two: Path, delta: Path, known: str
) -> None:
    there = on(one)
    if known != "base":
        one.unlink()
    seeds = find_candidates(preflight.load(delta), whole=two if known == "whole" else None)
    loaded = seeds.load(seeds.given)
    if known == "neither":
        assert (loaded.session, loaded.library) == (None, None)
        assert feasible(seeds, there, onnxruntime="1.0")[0] == ["v2-on-v1"]
        return
    assert loaded.library == preflight.load(two).library
    with pytest.raises(RemoteError, match=r"its ONNX Runtime is 1\.0 and product 2 needs") as caught:
        feasible(seeds, there, onnxruntime="1.0")
    assert caught.value.exit_code == 12


def test_memory_that_a_delta_needs_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    one, delta = tmp_path / "v1.seed", tmp_path / "v2-on-v1.seed"
    one.write_bytes(classifier())
    delta.write_bytes(delta_on(classifier(), version=2))
    session = preflight.load(one).session
    assert session is not None
    seeds = find_candidates(preflight.load(delta))
    assert (seeds.given.session, seeds.load(seeds.given).session) == (None, session)
    with pytest.raises(RemoteError, match="MiB at least and the device has") as caught:
        feasible(seeds, on(one), ram=session - 1)
    assert caught.value.exit_code == 14


# Which seeds may be sent


def test_a_folder_is_looked_through_for_bases_alone(one: Path, two: Path, delta: Path, tmp_path: Path) -> None:
    (tmp_path / "none.seed").write_bytes(b"no seed")
    (tmp_path / "folder.seed").mkdir()
    (tmp_path / "gone.seed").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.seed")
    seeds = find_candidates(preflight.load(delta))
    assert [each.path for each in seeds.alternatives] == [delta]
    assert [each.path for each in seeds.bases_of(seeds.given)] == [one]
    assert names(seeds, StoredVersions({})) == ["v1+v2-on-v1"]
    assert names(find_candidates(preflight.load(two)), on(one)) == ["v2"]


def test_of_a_folder_with_many_seeds_the_newest_are_read(
    one: Path, delta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = preflight.load(delta)
    for number, path in enumerate((delta, one)):
        os.utime(path, (number, number))
    monkeypatch.setattr(candidates, "FOLDER_MAX", 1)
    assert names(find_candidates(seed), StoredVersions({})) == ["v1+v2-on-v1"]
    os.utime(one, (0, 0))
    os.utime(delta, (1, 1))
    assert names(find_candidates(seed), StoredVersions({})) == []


def test_a_named_delta_may_lie_anywhere_with_its_bases_beside_it(two: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = make_seed(elsewhere / "v1.seed")
    link = make_delta(elsewhere / "link.seed", first, version=2)
    delta = make_delta(elsewhere / "delta.seed", first, link, version=2)
    seed, there = preflight.load(two), on(first)
    assert names(find_candidates(seed), there) == ["v2"]
    assert names(find_candidates(seed, [delta]), there) == ["link+delta", "v2"]
    link.unlink()
    _, notes = find_routes(find_candidates(seed, [delta]), there, NEW)
    base = preflight.load(delta).base
    assert notes == [f"delta.seed was not used: its base {base} is neither there nor in the folder of delta.seed"]


def test_what_is_named_must_be_the_same_version_and_of_the_right_kind(
    one: Path, two: Path, delta: Path, tmp_path: Path
) -> None:
    seed, difference = preflight.load(two), preflight.load(delta)
    later = make_delta(tmp_path / "v3.seed", one, version=3)
    other = make_seed(tmp_path / "other.seed", version=2, model_id="other")
    cases = [
        (seed, [later], None, r"v3\.seed is product 3 and .*v2\.seed is product 2; --delta names"),
        (seed, [one], None, r"v1\.seed is whole; give it with --whole"),
        (seed, [], two, r"v2\.seed is whole itself"),
        (difference, [], other, r"other\.seed is other 2 and"),
        (difference, [], one, r"v1\.seed is product 1 and"),
        (difference, [], later, r"v3\.seed is a delta; give it with --delta"),
        (seed, [tmp_path / "none.seed"], None, "give the path of a seed"),
    ]
    for of, deltas, whole, text in cases:
        with pytest.raises(UsageError, match=text):
            find_candidates(of, deltas, whole)


def test_a_named_file_may_be_a_link_and_one_that_is_cut_is_10(two: Path, delta: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.x"
    link.symlink_to(delta)
    assert find_candidates(preflight.load(two), [link]).alternatives[1].path == delta
    delta.write_bytes(delta.read_bytes()[:-1])
    with pytest.raises(RemoteError, match=r"this seed is damaged, export it again") as caught:
        find_candidates(preflight.load(two), [link])
    assert caught.value.exit_code == 10


def test_a_version_that_others_stand_on_is_left_with_a_note() -> None:
    job = job_of(Candidates(given(ONE)))
    versions = [{"digest": each.digest, "base": each.base} for each in (ONE, TWO_ON_ONE, THREE_ON_TWO)]
    (route,) = (Route((ONE,), 0),)
    there = {"versions": versions, "current": THREE_ON_TWO.digest}
    (note,) = return_notes(job, route, there, dry_run=False)
    assert note.startswith("this switched back from eeeeeeeeeeee, which stands on it")
    assert note.endswith("to run that again: seed-deploy rollback pi@h:bell")
    assert "would switch back" in return_notes(job, route, there, dry_run=True)[0]
    for current in (ONE.digest, None):
        assert return_notes(job, route, {**there, "current": current}, dry_run=False) == []
