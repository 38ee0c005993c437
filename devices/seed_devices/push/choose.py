"""Choose how a version comes to a device: the ways that its runtime and the device itself can take."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import preflight
from seed_devices.push.job import Job
from seed_devices.push.ways import Reader, Stored, Way, find_ways, missing_base
from seed_runtime.errors import SeedError


def ways_there(
    job: Job, runtime_version: str | None, chain_max: int | None, model: Mapping[str, Any]
) -> tuple[list[Way], list[str]]:
    """Return the ways to bring the version there, and notes on seeds that can't be used."""
    return find_ways(job.at_hand, Stored(model), Reader(runtime_version or "0", chain_max))


def require_way(
    job: Job, ways: list[Way], runtime_version: str | None, chain_max: int | None, model: Mapping[str, Any]
) -> None:
    """Raise RemoteError where there is no way to bring the version there: the given seed lacks a base, or a reader."""
    if ways:
        return
    seed = job.seed
    words = f"{shlex.quote(str(seed.path))} {shlex.quote(job.host)}"
    if (missing := missing_base(job.at_hand, Stored(model))) is not None:
        raise RemoteError(
            12,
            f"{job.host}: {seed.path.name} is a delta on the seed {missing}, which is neither there nor in the folder "
            f"of {seed.path.name}; put it there, name it with --delta, or push the whole seed",
            "MissingBaseError",
        )
    raise RemoteError(
        12,
        f"{job.host}: its runtime {runtime_version} is older than {seed.path.name}, a delta on {seed.depth} seeds, "
        f"needs (chains there: {chain_max or 0}); update it: seed-deploy push --update-runtime {words}",
        "UnsupportedError",
    )


def possible_ways(
    job: Job, ways: list[Way], facts: Mapping[str, Any], profile: Profile | None, *, runtime_due: bool
) -> tuple[list[Way], list[str]]:
    """Return the ways whose seeds the device can take, and notes; raise what is wrong with the given one if none is."""
    possible: list[Way] = []
    notes: list[str] = []
    refused: SeedError | None = None
    for way in ways:
        try:
            found = [
                note
                for header in way.files
                for note in preflight.check(
                    job.at_hand.load(header),
                    job.host,
                    facts,
                    profile,
                    max_memory=job.options.max_memory,
                    left=way.left,
                    service=job.options.service,
                    runtime_due=runtime_due,
                )
            ]
        except SeedError as error:
            if way.form is job.seed or refused is None:
                refused = error
            if way.form is not job.seed:
                notes.append(f"{way.form.path.name} was not used: {str(error).removeprefix(f'{job.host}: ')}")
            continue
        notes += [] if possible else found
        possible.append(way)
    if not possible:
        assert refused is not None, "there is a way"
        raise refused
    return possible, list(dict.fromkeys(notes))
