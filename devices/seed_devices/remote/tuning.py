"""Bring samples to a device, let it fine-tune its model on them, and bring back what it learned."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from types import FrameType
from typing import Any, Final

from seed_devices.errors import NotTunedError, RemoteError
from seed_devices.remote.agent_client import AgentClient, Progress
from seed_devices.remote.device_schema import check_answer
from seed_devices.remote.sample_files import ModelInputs, SampleFile
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.transfer import PATH_MAX, put
from seed_runtime.agent.protocol.schema import DATA_BLOCK_MAX, PROGRESS
from seed_runtime.agent.store import partial
from seed_runtime.backends import TensorSpec
from seed_runtime.errors import SeedError
from seed_runtime.limits import FILE_MAX
from seed_runtime.system.files import atomic_write

ELEMENTS_MAX: Final = 1 << 26
"""Most elements of an input that samples are packed for: a device may claim any shape."""
_PORTION: Final = 1 << 20
"""Bytes that are read at once."""
_OLD: Final = re.compile('op is "(begin_tuning|tuning_inputs)"; this runtime .* knows')
"""What an agent says that is too old for this."""


class Interrupts:
    """Let the first Ctrl-C within a block ask all devices that tune for the best so far; the next interrupts as ever.

    Where none tunes, the first one interrupts as ever, too. Devices are added from any thread; the block is one of the
    main thread, or does nothing.
    """

    def __init__(self) -> None:
        self._running: set[AgentClient] = set()
        self._before: Any = None
        self._is_asked = False

    def __enter__(self) -> Interrupts:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def asking(self, agent: AgentClient, host: str) -> Iterator[None]:
        """Let Ctrl-C within the block, which tunes, ask this device.

        Raises:
            NotTunedError: see `check`.
        """
        self._running.add(agent)
        try:
            self.check(host)
            yield
        finally:
            self._running.discard(agent)

    def check(self, host: str) -> None:
        """Raise NotTunedError if others were asked already: this device, which doesn't tune yet, need not begin."""
        if self._is_asked:
            raise NotTunedError(
                host, "interrupted before it began to tune", "its model is as before; run the command for it again"
            )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        if not self._running:
            signal.raise_signal(signal.SIGINT)
            return
        # Before the devices are asked: one that is added meanwhile looks at it.
        self._is_asked = True
        for agent in list(self._running):
            agent.ask_to_stop()


def describe_inputs(connection: Connection, agent: AgentClient, name: str) -> ModelInputs:
    """Ask the device what its model takes.

    Raises:
        RemoteError: it refuses, such as because the model can't be tuned; or it claims what no samples could fill.
    """
    answer = _call(connection, agent, "tuning_inputs", name=name)
    inputs = tuple(
        TensorSpec(each["name"], each["dtype"], None if each.get("shape") is None else tuple(each["shape"]))
        for each in answer["inputs"]
    )
    for spec in inputs:
        if prod(size for size in spec.shape or () if isinstance(size, int)) > ELEMENTS_MAX:
            raise RemoteError(
                12,
                f"{connection.target}: its model takes {spec}, and samples of at most {ELEMENTS_MAX:,} elements are "
                f"packed; give an .npz file",
            )
    return ModelInputs(inputs, answer["classes"])


def send_samples(
    connection: Connection, agent: AgentClient, name: str, samples: SampleFile, progress: Progress | None
) -> int:
    """Send samples for a fine-tune, but for the blocks that are there already; return the bytes that were sent.

    Raises:
        RemoteError: the device refuses them, such as because another run is under way.
        UnreachableError: the link was lost; the next call continues.
    """
    answer = _call(connection, agent, "begin_tuning", name=name, digest=samples.digest, file_size=samples.size)
    remote, tail, block = answer.get("path"), answer.get("tail") or [], answer.get("block") or 0
    if remote is None or (tail and not 0 < block <= DATA_BLOCK_MAX):
        raise RemoteError(
            1,
            f"{connection.target}: its agent doesn't say where samples go; see: seed-deploy doctor "
            f"{shlex.quote(connection.target)}",
        )
    have = _matching(samples.path, tail, block)
    if have < samples.size:
        show = None if progress is None else lambda done, total: progress("transfer", done, total)
        put(connection, samples.path, remote, have, progress=show)
    return samples.size - have


def tune(
    agent: AgentClient, show: Callable[[str, int, int, dict[str, Any]], None], host: str, **fields: Any
) -> dict[str, Any]:
    """Let the device tune, and return its answer.

    Args:
        agent: of the device; the samples are there.
        show: called with a phase, how much of it is done, all of it, and the checked detail of a fine-tune.
        host: the device, for messages.
        fields: of the request.
    """
    latest: dict[str, Any] = {}

    def detail(found: dict[str, Any]) -> None:
        latest.clear()
        latest.update(check_answer(host, PROGRESS, found))

    return agent.call("tune", lambda phase, done, total: show(phase, done, total, latest), detail, **fields)


def fetch(connection: Connection, remote: str, digest: str, size: int, local: Path) -> None:
    """Bring a seed from the device.

    Args:
        connection: to the device.
        remote: its path there.
        digest: its digest.
        size: of the file [B].
        local: where it goes; an older file is replaced in one step.

    Raises:
        RemoteError: another seed came, or none.
    """
    if not remote.startswith("/") or len(remote) > PATH_MAX or any(ord(letter) < 32 for letter in remote):
        raise RemoteError(12, f"{connection.target}: it names {remote[:80]!r}, which is no path of a file")
    problem = f"{connection.target}: the tuned seed didn't arrive whole; it runs there. Run seed-deploy status"
    if not 0 < size <= FILE_MAX:
        raise RemoteError(1, problem)
    connection.hold()
    with atomic_write(local) as file:
        process = connection.popen('exec cat "$1"', remote)
        assert process.stdout is not None
        left = size
        try:
            while data := process.stdout.read(min(_PORTION, left + 1)):
                left -= len(data)
                if left < 0:
                    break
                file.write(data)
        finally:
            processes.stop(process)
        file.flush()
        # By its descriptor, since what is being written has another name than `local`.
        if left or not _is_whole(file.fileno(), digest):
            raise RemoteError(1, problem)


def _is_whole(descriptor: int, digest: str) -> bool:
    with contextlib.suppress(SeedError, OSError):
        return partial.holds_whole(descriptor, digest)
    return False


def _matching(path: Path, tail: list[str], block: int) -> int:
    """Return how many bytes of a file the device has, by the digests of its blocks."""
    have = 0
    with path.open("rb") as file:
        for digest in tail:
            data = file.read(block)
            if not data or hashlib.sha256(data).hexdigest() != digest:
                break
            have += len(data)
    return have


def _call(connection: Connection, agent: AgentClient, op: str, **fields: Any) -> dict[str, Any]:
    """Send a request that a runtime may be too old for."""
    try:
        return agent.call(op, **fields)
    except RemoteError as error:
        if (old := _OLD.search(str(error))) is None:
            raise
        what, more = ("tune", "") if old[1] == "begin_tuning" else ("tune on folders", ", or give an .npz file")
        raise RemoteError(
            12, f"{connection.target}: its runtime is too old to {what}; update it: seed-deploy push model.seed "
            f"{shlex.quote(connection.target)} --update-runtime{more}"
        ) from None  # fmt: skip
