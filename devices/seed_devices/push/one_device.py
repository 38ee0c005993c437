"""One push to one device: connect, probe, check, runtime, transfer, install, switch, service.

Up to `transfer` nothing of the seed is sent, and up to `runtime` nothing on the device is written. A failure at any
step leaves what ran before; the next push goes on from the bytes that have arrived. A version that runs already costs
one login and two questions, unless the runtime is to be updated.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

from seed_devices import profiles
from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import preflight, runtime
from seed_devices.push.preflight import SeedFile
from seed_devices.remote import device_schema
from seed_devices.remote.agent_client import AgentClient, Progress
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError, UnsupportedError

STEPS: Final = ("connect", "probe", "check", "runtime", "transfer", "install", "switch", "service")
WAIT_S: Final = 75
"""How long a push waits for another one to the same model: longer than a dead link keeps the lock (agent.STALL_S)."""
FACTS_MAX: Final = 1 << 16
_DAMAGED: Final = 10
_TRIES: Final = 2
"""Transfers of one push: the end of an earlier one that was cut may arrive late, among the new bytes."""


@dataclass(frozen=True)
class Options:
    """What was asked for. Sizes in bytes, the rate in bytes per second."""

    max_rate: int | None = None
    max_memory: int | None = None
    keep: int = 3
    service: bool = False
    address: str | None = None
    online: bool = False
    update_runtime: bool = False
    """Bring this host's runtime also where the one there is as new as the seed needs."""
    dry_run: bool = False


@dataclass
class Pushed:
    """What came of it. `state`: "unchanged", "switched" (it was kept there), "pushed", or "would ..." in a dry run."""

    name: str
    digest: str
    state: str = ""
    sent: int = 0
    """Bytes of the seed that were sent."""
    previous: str | None = None
    removed: list[str] = field(default_factory=list)
    facts: dict[str, Any] | None = None
    """What the device told of itself, where it was asked."""
    record: dict[str, Any] | None = None
    runtime: str | None = None
    runtime_installed: bool = False
    service: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        found = dict(vars(self))
        found["seconds"] = {step: round(value, 3) for step, value in self.seconds.items()}
        return found


def push(
    connection: Connection, seed: SeedFile, name: str | None, options: Options, progress: Progress | None = None
) -> Pushed:
    """Let the device run this seed. Errors: those of ssh, of the device (RemoteError), of preflight.check."""
    return _Push(connection, seed, name, options, progress).run()


def facts_of(connection: Connection, agent: AgentClient) -> dict[str, Any]:
    """What the device is and has: from its agent, else from its python3. UnsupportedError without either."""
    if agent.runtime is not None:
        found = agent.call("facts")["facts"]
    else:
        source = (resources.files("seed_runtime.agent") / "facts.py").read_text()
        done = connection.python(source)
        lines = [line for line in done.stdout[:FACTS_MAX].splitlines() if line.startswith(b"{")]
        if done.code and not lines:
            if done.code in (126, 127):
                raise runtime.no_python(connection.target)
            said = done.stderr.strip().splitlines()
            raise RemoteError(12, f"{connection.target}: its python3 fails: {said[-1] if said else done.code}; mend it")
        found = device_schema.usable_facts((device_schema.parse_object(lines[-1]) if lines else None) or {})
    if not found.get("python"):
        raise RemoteError(
            1, f"{connection.target}: it tells nothing about itself; see: ssh {shlex.quote(connection.target)} python3"
        )
    return found


class _Push:
    def __init__(
        self, connection: Connection, seed: SeedFile, name: str | None, options: Options, progress: Progress | None
    ) -> None:
        self._connection, self._seed, self._options = connection, seed, options
        self._host = connection.target
        self._progress = progress
        self._done = Pushed(name or seed.default_name, seed.digest)
        self._failed: dict[str, RemoteError] = {}
        """Services that didn't start with the new runtime, by the model's name."""

    def run(self) -> Pushed:
        self._connection.max_rate = self._options.max_rate
        with self._step("connect"):
            agent = AgentClient(self._connection)
        try:
            model: Mapping[str, Any] = {}
            if agent.runtime is not None:
                with self._step("probe"):
                    model = self._model(agent)
            if self._options.update_runtime or not self._is_there(model):
                agent = self._prepare(agent, model)
            if self._options.dry_run:
                return self._would(model)
            assert agent.runtime is not None
            self._done.runtime = agent.runtime
            self._deliver(agent)
            self._serve(agent, model.get("service"))
        finally:
            agent.close()
        for name, error in self._failed.items():
            raise RemoteError(
                error.exit_code,
                f"{self._host}: {self._done.name} runs with runtime {self._done.runtime}, but the service of {name} "
                f"did not start anew with it ({str(error).removeprefix(f'{self._host}: ')}); see: "
                f"seed-deploy logs {shlex.quote(f'{self._host}:{name}')}",
                error.kind,
            )
        return self._done

    def _prepare(self, agent: AgentClient, model: Mapping[str, Any]) -> AgentClient:
        """All checks, and the runtime; returns the agent to go on with."""
        with self._step("probe"):
            facts = self._done.facts = facts_of(self._connection, agent)
            profile = _profile(facts)
            trouble = runtime.trouble(self._connection, profile) if agent.runtime is not None and profile else ""
        with self._step("check"):
            needed = self._seed.model.min_runtime
            due = runtime.is_due(None if trouble else agent.runtime, needed, update=self._options.update_runtime)
            if trouble:
                self._done.notes.append(f"runtime {agent.runtime} did not start there: {trouble}")
            with self._named():
                profile = runtime.check(facts, needed) if due else profile
            self._done.notes += preflight.check(
                self._seed,
                self._host,
                facts,
                profile,
                max_memory=self._options.max_memory,
                have=self._have(model),
                service=self._options.service,
            )
        if self._options.dry_run:
            self._done.runtime_installed = due
            return agent
        if not due:
            if self._options.update_runtime:
                self._renew(agent)
            return agent
        with self._step("runtime"), self._named():
            installed = runtime.install(
                self._connection,
                facts,
                needed=needed,
                online=self._options.online,
                progress=self._part("runtime"),
            )
        self._done.runtime_installed = installed.fresh
        self._done.notes += installed.notes
        fresh = AgentClient(self._connection)
        agent.close()
        if fresh.runtime is None:
            raise RemoteError(
                1, f"{self._host}: the runtime was installed and does not start: {fresh.broken}; see: seed-deploy "
                f"doctor {shlex.quote(self._host)}"
            )  # fmt: skip
        self._renew(fresh)
        return fresh

    def _renew(self, agent: AgentClient) -> None:
        """Start services anew that run from another runtime than the current one, or that failed with it.

        The one of the model that is pushed is started by its switch. What fails doesn't keep the seed from its device.
        """
        for model in agent.call("status").get("models") or []:
            name, service = model["name"], model.get("service") or {}
            if name == self._done.name and model.get("current") != self._seed.digest:
                continue
            if service.get("stale") or service.get("active") == "failed":
                with self._step("service"):
                    try:
                        agent.call(
                            "service", self._part("service"), name=name, action="install",
                            address=service.get("asked"), memory_max=service.get("memory_asked"),
                        )  # fmt: skip
                        self._done.notes.append(f"the service of {name} was started anew, with the new runtime")
                    except RemoteError as error:
                        self._failed[name] = error

    def _deliver(self, agent: AgentClient) -> None:
        """From the first byte to the switch."""
        for attempt in range(_TRIES):
            with self._step("transfer"):
                state = self._transfer(agent)
            if state != "partial":
                break
            try:
                with self._step("install"):
                    answer = agent.call(
                        "install", self._part("install"), name=self._done.name, digest=self._seed.digest,
                        max_memory=self._options.max_memory,
                    )  # fmt: skip
                self._done.record = answer.get("record")
                break
            except RemoteError as error:
                if error.exit_code != _DAMAGED or attempt == _TRIES - 1:
                    raise
        if state == "current":
            self._done.state = "unchanged"
            agent.call("release")
            return
        with self._step("switch"):
            answer = agent.call(
                "switch", self._part("switch"), name=self._done.name, digest=self._seed.digest, keep=self._options.keep
            )
        self._done.state = "pushed" if state == "partial" else "switched"
        self._done.previous = answer.get("previous")
        self._done.removed = list(answer.get("removed") or [])

    def _transfer(self, agent: AgentClient) -> str:
        """Send what is missing; the device's word for what it had: "current", "kept" or "partial"."""
        seed = self._seed
        answer = agent.call(
            "begin", self._part("transfer"), name=self._done.name, digest=seed.digest, file_size=seed.file_size,
            weights_bytes=seed.weights_size, wait_s=WAIT_S,
        )  # fmt: skip
        state, have, path = answer.get("state"), answer.get("have"), answer.get("path")
        if state in ("current", "kept"):
            return str(state)
        if have is None or have > seed.file_size or path is None:
            raise RemoteError(
                1, f"{self._host}: its agent says that it has {have} bytes; see: seed-deploy doctor "
                f"{shlex.quote(self._host)}"
            )  # fmt: skip
        tail, block = answer.get("tail"), answer.get("block")
        if tail and block and block <= preflight.BLOCK_MAX:
            have += seed.known(have, tail, block)
            agent.call("resume", have=have)
        if have < seed.file_size:
            show = self._part("transfer")
            try:
                self._connection.put(
                    seed.path,
                    path,
                    resume=True,
                    progress=None if show is None else lambda done, total: show("transfer", done, total),
                )
            except RemoteError as error:
                raise self._explained(agent, error) from None
            self._done.sent += seed.file_size - have
        return "partial"

    def _explained(self, agent: AgentClient, error: RemoteError) -> RemoteError:
        """The reason behind sftp's "Failure", its word for most of what can happen: a full disk is what mostly does."""
        free = None
        with suppress(SeedError):
            free = agent.call("status", name=self._done.name).get("disk_free")
        if free is not None and free < preflight.ROOM:
            return RemoteError(
                13,
                f"{self._host}: no space left there, {free:,} bytes are free; free some: seed-deploy remove "
                f"{shlex.quote(self._host)}:NAME , then run this again: it goes on where it stopped",
                "DiskSpaceError",
            )
        return error

    def _serve(self, agent: AgentClient, there: Mapping[str, Any] | None) -> None:
        if not self._options.service:
            self._done.service = dict(there) if there else None
            return
        with self._step("service"):
            answer = agent.call(
                "service", self._part("service"), name=self._done.name, action="install",
                address=self._options.address, memory_max=self._options.max_memory,
            )  # fmt: skip
        self._done.service = answer.get("service")
        if hint := (self._done.service or {}).get("hint"):
            self._done.notes.append(hint)

    def _model(self, agent: AgentClient) -> dict[str, Any]:
        """What the device has of this model; {} for nothing."""
        models: list[dict[str, Any]] = agent.call("status", name=self._done.name).get("models") or []
        return next(iter(models), {})

    def _is_there(self, model: Mapping[str, Any]) -> bool:
        return any(each["digest"] == self._seed.digest for each in model.get("versions") or [])

    def _have(self, model: Mapping[str, Any]) -> int:
        """Bytes of this seed that have arrived there; what has arrived of another one doesn't count."""
        if self._is_there(model):
            return self._seed.file_size
        have = model.get("partial") if model.get("partial_digest") == self._seed.digest else None
        return min(have or 0, self._seed.file_size)

    def _would(self, model: Mapping[str, Any]) -> Pushed:
        self._done.previous = model.get("current")
        if model.get("current") == self._seed.digest:
            self._done.state = "would update" if self._done.runtime_installed else "unchanged"
        elif self._is_there(model):
            self._done.state = "would switch"
        else:
            self._done.state, self._done.sent = "would push", self._seed.file_size - self._have(model)
        return self._done

    @contextmanager
    def _step(self, step: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(step, 0, 0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self._done.seconds.get(step, 0.0)
            self._done.seconds[step] = spent + time.perf_counter() - start

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors that are about a device say which."""
        try:
            yield
        except UnsupportedError as error:
            raise RemoteError(12, f"{self._host}: {str(error).removeprefix(f'{self._host}: ')}") from None

    def _part(self, step: str) -> Progress | None:
        """Progress within a step. The device's own names for the parts are finer than what is shown."""
        if self._progress is None:
            return None
        show = self._progress
        return lambda part, done, total: show(step if part == step else f"{step}: {part}", done, total)


def _profile(facts: Mapping[str, Any]) -> Profile | None:
    """What kind of device it is; None for one that no profile knows, which may work all the same."""
    try:
        return profiles.match(facts)
    except UnsupportedError:
        return None
