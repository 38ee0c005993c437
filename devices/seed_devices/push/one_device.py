"""One push to one device, in phases: connect, probe, check, runtime, transfer, install, switch, service.

What is sent is the seed that was given, or one of those that were named beside it which takes fewer bytes.

Before `transfer` nothing of the seed is sent, and before `runtime` nothing on the device is written. A failure in any
phase leaves what ran before; the next push continues with the bytes that have arrived. A version that runs already
costs one login and two questions, unless the runtime is to be updated.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from seed_devices import names, profiles
from seed_devices.errors import RemoteError, ReplacementError, WheelsError
from seed_devices.profiles import Profile
from seed_devices.push import preflight, requirements, runtime
from seed_devices.push.candidates import Candidates
from seed_devices.push.choose import fallback_notes, feasible_routes, require_route, return_notes, routes_to
from seed_devices.push.deliver import Delivery, deliver
from seed_devices.push.job import Job, Options, Phases, PushResult
from seed_devices.push.preflight import SeedFile
from seed_devices.push.requirements import NoRoomError
from seed_devices.push.routes import Route, whole_size
from seed_devices.push.services import install_service, restart_stale_services
from seed_devices.push.wheels import NoWheelsError
from seed_devices.remote.agent_client import AgentClient, Progress
from seed_devices.remote.facts import find_pythons, read_facts, stored_versions
from seed_devices.remote.pythons import Pythons
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UnsupportedError
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.version import __version__

T = TypeVar("T")

_OTHER_MODEL: Final = "OtherModelError"
"""How the device calls the error of a switch to another model."""


@dataclass(frozen=True)
class Preparation:
    """A device that can take the seed, and the agent to continue with."""

    agent: AgentClient
    routes: list[Route] = field(default_factory=list)
    """The routes that the device can take, the best one first."""
    facts: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    runtime_installed: bool = False
    """True if a runtime was installed, or would be in a dry run."""
    runtime_sent: int | None = 0
    """Bytes of its wheels that were sent, or would be; None if they aren't known."""
    failed_services: dict[str, RemoteError] = field(default_factory=dict)
    """Services that didn't start with the new runtime, by the names of their models."""


def push(
    connection: Connection,
    seed: SeedFile | Candidates,
    name: str | None,
    options: Options,
    progress: Progress | None = None,
) -> PushResult:
    """Bring a seed to a device and let it run.

    Args:
        connection: to the device.
        seed: what is to run there; or that with the seeds that may be sent in its place.
        name: the model's name there; the seed's own if None.
        options: what was asked for.
        progress: called with the name of a phase, what is done of it, and all of it.

    Raises:
        SeedError: of the connection, of the device (RemoteError), or of `preflight.check`.
        ReplacementError: another model has this name there.
    """
    candidates = seed if isinstance(seed, Candidates) else Candidates(seed)
    job = Job(connection, candidates, name or candidates.given.default_name, options, Phases(progress))
    connection.max_rate, connection.shared_pace = options.max_rate, options.shared_pace
    with job.phases.phase("connect"):
        agent = AgentClient(connection)
    try:
        model: Mapping[str, Any]
        chain_max: int | None = None
        with job.phases.phase("probe"):
            if agent.runtime is None:
                model = stored_versions(connection, job.name)
            else:
                model, chain_max = _installed_model(agent, job.name)
        check_replacement(job, model)
        routes, _ = routes_to(job, agent.runtime, chain_max, model)
        prepared = Preparation(agent, routes)
        if options.update_runtime or options.python is not None or not (routes and routes[0].is_stored):
            prepared = _prepare(job, agent, model, chain_max)
            if prepared.agent is not agent:
                # Without a runtime only the names of versions could be read.
                agent = prepared.agent
                model, chain_max = _installed_model(agent, job.name)
                check_replacement(job, model)
                found, _ = routes_to(job, agent.runtime, chain_max, model)
                feasible = {route.seed.digest for route in prepared.routes}
                prepared = replace(prepared, routes=[route for route in found if route.seed.digest in feasible])
                require_route(job, prepared.routes, agent.runtime, chain_max, model)
        elif options.service and not model.get("service"):
            with job.phases.phase("check"):
                facts = read_facts(connection, agent)
                preflight.check_service(job.host, facts, _profile(facts))
        if options.dry_run:
            return dry_run_result(job, model, prepared)
        try:
            delivery = deliver(job, agent, prepared.routes)
        except RemoteError as refused:
            if refused.kind == _OTHER_MODEL:  # which another push has brought since it was checked
                check_replacement(job, _installed_model(agent, job.name)[0])
            raise
        service = install_service(job, agent) if options.service else dict(model.get("service") or {}) or None
        result = _result(job, prepared, delivery, service, return_notes(job, delivery.route, model, dry_run=False))
    finally:
        agent.close()
    if prepared.failed_services:
        failed, error = next(iter(prepared.failed_services.items()))
        raise RemoteError(
            error.exit_code,
            f"{job.host}: {job.name} runs with runtime {result.runtime}, but the service of {failed} did not restart "
            f"with it ({str(error).removeprefix(f'{job.host}: ')}); see: "
            f"seed-deploy logs {shlex.quote(names.model_name(job.host, failed))}",
            error.kind,
        )
    return result


def check_replacement(job: Job, model: Mapping[str, Any]) -> None:
    """Check that the seed is of the same model as what runs under its name, unless another one was asked for.

    A version whose record names no model counts as the same.

    Raises:
        ReplacementError: another model runs there.
    """
    running = next((one for one in model.get("versions") or [] if one["digest"] == model.get("current")), None)
    there = (running or {}).get("model_id")
    if there is not None and there != job.seed.model.model_id and not job.options.replace:
        raise ReplacementError(job.host, job.name, there, job.seed.model.model_id)


def dry_run_result(job: Job, model: Mapping[str, Any], prepared: Preparation) -> PushResult:
    """Return what a push would do to a device that has `model` of this name."""
    route = prepared.routes[0]
    if not route.is_stored:
        state = "would push"
    elif model.get("current") != route.seed.digest:
        state = "would switch"
    else:
        state = "would update" if prepared.runtime_installed else "unchanged"
    return PushResult(
        name=job.name,
        digest=route.seed.digest,
        state=state,
        sent=route.bytes_to_send,
        file=str(route.seed.path),
        is_given=route.seed.digest == job.seed.digest,
        delta=_delta(route),
        whole_bytes=whole_size(job.candidates),
        previous=model.get("current"),
        facts=prepared.facts,
        runtime_installed=prepared.runtime_installed,
        runtime_sent=prepared.runtime_sent,
        notes=[
            *prepared.notes,
            *fallback_notes(prepared.routes),
            *return_notes(job, route, model, dry_run=True),
        ],
        seconds=job.phases.seconds,
    )


def _result(
    job: Job, prepared: Preparation, delivery: Delivery, service: dict[str, Any] | None, more_notes: list[str]
) -> PushResult:
    hint = (service or {}).get("hint") if job.options.service else None
    return PushResult(
        name=job.name,
        digest=delivery.route.seed.digest,
        state=delivery.state,
        sent=delivery.sent,
        file=str(delivery.route.seed.path),
        is_given=delivery.route.seed.digest == job.seed.digest,
        delta=_delta(delivery.route),
        whole_bytes=whole_size(job.candidates),
        previous=delivery.previous,
        removed=list(delivery.removed),
        facts=prepared.facts,
        record=delivery.record,
        runtime=prepared.agent.runtime,
        runtime_installed=prepared.runtime_installed,
        runtime_sent=prepared.runtime_sent,
        service=service,
        notes=[*prepared.notes, *delivery.notes, *more_notes, *([hint] if hint else [])],
        seconds=job.phases.seconds,
    )


def _delta(route: Route) -> dict[str, Any] | None:
    """Return what a result says of a seed that stands on another one; None for a whole seed."""
    seed = route.seed
    if seed.base is None:
        return None
    return {
        "file": str(seed.path),
        "bytes": seed.file_size,
        "base": seed.base,
        "base_version": route.base_version,
        "with": len(route.files) - 1,
    }


def _prepare(job: Job, agent: AgentClient, model: Mapping[str, Any], chain_max: int | None) -> Preparation:
    """Check that the device can take the seed, and install or update its runtime where that is due."""
    seed, options = job.seed, job.options
    notes: list[str] = []
    known: Pythons | None = None
    with job.phases.phase("probe"):
        if agent.runtime is None or options.python is not None:
            known = find_pythons(job.connection, options.python)
        facts = read_facts(job.connection, agent)
        profile = _profile(facts)
        broken = requirements.import_error(job.connection, profile) if agent.runtime is not None and profile else ""
    with job.phases.phase("check"):
        needed = seed.model.min_runtime
        due = requirements.is_due(None if broken else agent.runtime, needed, update=options.update_runtime)
        if not due and requirements.lacks(seed.backend, facts, profile):
            due = True
            notes.append("its runtime is made anew with LiteRT, which runs this model")
        missing_packages = requirements.missing_packages(seed.asked_with, facts, profile)
        if missing_packages and not due and options.update_runtime:
            due = True
            notes.append(f"its runtime is made anew with {missing_packages}, which questions to this model need")
        elif missing_packages and not due:
            notes.append(
                f"its runtime lacks {missing_packages}, so that this model takes tensors alone there; "
                f"--update-runtime makes it anew with {missing_packages}"
            )
        extras = requirements.extras(seed.backend, seed.asked_with, facts)
        if broken:
            notes.append(f"runtime {agent.runtime} did not start there: {broken}")
        if options.python is not None and known is not None and not due:
            due = options.update_runtime and known.best is not None and known.best.real != known.made_with
            if not options.update_runtime:
                notes.append(f"its runtime stays as it is; --update-runtime makes it anew with {options.python}")
        if due:
            known = known or find_pythons(job.connection)
            facts |= known.as_facts()
        with _naming(job.host):
            profile = requirements.check(facts, needed) if due else profile
        runtime_then, chain_then = (__version__, CHAIN_MAX) if due else (agent.runtime, chain_max)
        routes, unused = routes_to(job, runtime_then, chain_then, model)
        require_route(job, routes, runtime_then, chain_then, model)
        routes, checked = feasible_routes(job, routes, facts, profile, runtime_due=due)
        notes += unused + checked
    bytes_to_send = routes[0].bytes_to_send
    if options.dry_run:
        missing: int | None = 0
        if due and profile is not None and known is not None:
            missing = _bytes_of_runtime(job, facts, profile, known, notes, bytes_to_send, extras)
        return Preparation(agent, routes, facts, notes, due, missing)
    if not due or known is None:
        restarted, failed = restart_stale_services(job, agent) if options.update_runtime else ([], {})
        return Preparation(agent, routes, facts, notes + restarted, failed_services=failed)
    job.phases.to_send_after = bytes_to_send
    with job.phases.phase("runtime"), _naming(job.host):
        installed = _with_best_python(
            job,
            facts,
            known,
            notes,
            lambda facts: runtime.install(
                job.connection,
                facts,
                needed=needed,
                online=options.online,
                seed_bytes=bytes_to_send,
                extras=extras,
                progress=job.phases.progress_of("runtime"),
            ),
        )
    job.phases.sent_before, job.phases.to_send_after = installed.sent, 0
    fresh = AgentClient(job.connection)
    agent.close()
    if fresh.runtime is None:
        raise RemoteError(
            1,
            f"{job.host}: the runtime was installed and does not start: {fresh.start_error}; see: seed-deploy doctor "
            f"{shlex.quote(job.host)}",
        )
    restarted, failed = restart_stale_services(job, fresh)
    all_notes = [*notes, *installed.notes, *restarted]
    return Preparation(fresh, routes, facts, all_notes, installed.fresh, installed.sent, failed)


def _with_best_python(
    job: Job, facts: dict[str, Any], known: Pythons, notes: list[str], work: Callable[[dict[str, Any]], T]
) -> T:
    """Do `work` with the first Python of the device for which there are wheels; note which one if it isn't python3.

    Raises:
        NoWheelsError: there are wheels for none of them.
    """
    refused: NoWheelsError | None = None
    for python in known.suitable:
        job.connection.interpreter = python.path
        try:
            result = work({**facts, "python": python.version_text})
        except NoWheelsError as error:
            refused = refused or error
            continue
        if not python.path.endswith("/python3"):
            notes.append(f"its runtime is made with {python}")
        return result
    assert refused is not None, "requirements.check refuses a device without a suitable Python"
    raise refused


def _bytes_of_runtime(
    job: Job,
    facts: dict[str, Any],
    profile: Profile,
    known: Pythons,
    notes: list[str],
    seed_bytes: int,
    extras: tuple[str, ...],
) -> int | None:
    """Return the bytes of wheels that a push would send; None, with a note, where this machine can't get them now."""
    try:
        with job.phases.phase("wheels"), _naming(job.host):
            return _with_best_python(
                job,
                facts,
                known,
                notes,
                lambda facts: runtime.bytes_to_send(
                    facts, profile, online=job.options.online, seed_bytes=seed_bytes, extras=extras
                ),
            )
    except WheelsError as error:
        notes.append(f"the runtime's size is not known: {error}")
        return None


def _installed_model(agent: AgentClient, name: str) -> tuple[Mapping[str, Any], int | None]:
    """Return what the device has of this model, an empty mapping for nothing; and its runtime's `chain_max`."""
    answer = agent.call("status", name=name)
    models: list[dict[str, Any]] = answer.get("models") or []
    return next(iter(models), {}), answer.get("chain_max")


def _profile(facts: Mapping[str, Any]) -> Profile | None:
    """Return the device's profile; None for a device that no profile knows, which may work all the same."""
    try:
        return profiles.match(facts)
    except UnsupportedError:
        return None


@contextmanager
def _naming(host: str) -> Iterator[None]:
    """Turn an UnsupportedError or a NoRoomError within the block into a RemoteError that names the device."""
    try:
        yield
    except NoRoomError as error:
        raise RemoteError(error.exit_code, f"{host}: {error}", "DiskSpaceError") from None
    except UnsupportedError as error:
        raise RemoteError(12, f"{host}: {str(error).removeprefix(f'{host}: ')}") from None
