"""Choose how a version reaches a device: the routes that its runtime and the device itself allow."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import preflight
from seed_devices.push.job import Job
from seed_devices.push.routes import Route, RuntimeLimits, StoredVersions, find_routes, missing_base
from seed_runtime.errors import SeedError
from seed_runtime.units import size_text


def routes_to(
    job: Job, runtime_version: str | None, chain_max: int | None, model: Mapping[str, Any]
) -> tuple[list[Route], list[str]]:
    """Return the routes by which the version can reach the device, and notes on seeds that can't be used."""
    return find_routes(job.candidates, StoredVersions(model), RuntimeLimits(runtime_version or "0", chain_max))


def require_route(
    job: Job,
    routes: Sequence[Route],
    runtime_version: str | None,
    chain_max: int | None,
    model: Mapping[str, Any],
) -> None:
    """Raise RemoteError where no route leads to the device: the given seed lacks a base, or a runtime that reads it."""
    if routes:
        return
    seed = job.seed
    words = f"{shlex.quote(str(seed.path))} {shlex.quote(job.host)}"
    if (missing := missing_base(job.candidates, StoredVersions(model))) is not None:
        raise RemoteError(
            12,
            f"{job.host}: {seed.path.name} is a delta on the seed {missing}, which is neither there nor in the folder "
            f"of {seed.path.name}; put it into that folder, or name the whole seed of this version: seed-deploy push "
            f"{words} --whole FILE",
            "MissingBaseError",
        )
    raise RemoteError(
        12,
        f"{job.host}: its runtime {runtime_version} is older than {seed.path.name}, a delta on {seed.depth} seeds, "
        f"needs (chains there: {chain_max or 0}); update it: seed-deploy push --update-runtime {words}",
        "UnsupportedError",
    )


def feasible_routes(
    job: Job, routes: Sequence[Route], facts: Mapping[str, Any], profile: Profile | None, *, runtime_due: bool
) -> tuple[list[Route], list[str]]:
    """Return the routes whose seeds the device can take, and notes.

    Raises:
        SeedError: there is none; it says what is wrong with the given seed.
    """
    feasible: list[Route] = []
    notes: list[str] = []
    refused: SeedError | None = None
    for route in routes:
        try:
            found = [
                note
                for header in route.files
                for note in preflight.check(
                    job.candidates.load(header),
                    job.host,
                    facts,
                    profile,
                    max_memory=job.options.max_memory,
                    bytes_to_send=route.bytes_to_send,
                    service=job.options.service,
                    runtime_due=runtime_due,
                )
            ]
        except SeedError as error:
            if refused is None or (route.seed is job.seed and not route.is_repair):
                refused = error
            if not route.is_repair:
                notes.append(f"{route.seed.path.name} was not used: {str(error).removeprefix(f'{job.host}: ')}")
            continue
        notes += [] if feasible else found
        feasible.append(route)
    if not feasible:
        assert refused is not None, "there is a route"
        raise refused
    return feasible, list(dict.fromkeys(notes))


def fallback_notes(routes: Sequence[Route]) -> list[str]:
    """Return what a dry run says of the routes behind the first one."""
    return [
        f"if the device refuses it, {route.seed.path.name} would be sent ({size_text(route.bytes_to_send)})"
        for route in routes[1:]
        if not route.is_repair and not routes[0].is_stored
    ]


def return_notes(job: Job, route: Route, model: Mapping[str, Any], *, dry_run: bool) -> list[str]:
    """Return a note if a push leaves a version that stands on the one that was pushed, such as a fine-tune of it."""
    stored = StoredVersions(model)
    if stored.current is None or not stored.is_below(route.seed.digest):
        return []
    left, back = stored.current[:12], shlex.quote(names.model_name(job.host, job.name))
    if dry_run:
        return [f"{left} runs there, which stands on this one, such as a fine-tune: the push would switch back from it"]
    text = f"this switched back from {left}, which stands on it, such as a fine-tune; to run that again"
    return [f"{text}: seed-deploy rollback {back}"]
