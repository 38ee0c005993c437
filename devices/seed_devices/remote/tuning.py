"""Bring samples to a device, let it fine-tune its model on them, and bring back what it learned."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.remote.agent_client import AgentClient, Progress
from seed_devices.remote.device_schema import check_answer
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.transfer import PATH_MAX, put
from seed_runtime.agent.protocol.schema import DATA_BLOCK_MAX, DATA_MAX, PROGRESS
from seed_runtime.agent.store import partial
from seed_runtime.errors import InputError, SeedError
from seed_runtime.limits import FILE_MAX
from seed_runtime.system.files import atomic_write

_PORTION: Final = 1 << 20
"""Bytes that are read at once."""
_OLD: Final = re.compile("op is .*begin_tuning.* this runtime .* knows")
"""What an agent says that is too old for this."""


def file_digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file in hexadecimal, and its size [B].

    Raises:
        InputError: it can't be read, or is no `.npz`.
    """
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(_PORTION):
                if not size and not data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                    raise InputError(f"{path} is no .npz file; write one with numpy.savez(file, input=x, labels=y)")
                found.update(data)
                size += len(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give --data an .npz file") from None
    if size > DATA_MAX:
        raise InputError(f"{path} has {size:,} bytes, at most {DATA_MAX:,} are sent; give fewer samples")
    if not size:
        raise InputError(f"{path} is empty; write it with numpy.savez(file, input=x, labels=y)")
    return found.hexdigest(), size


def send_samples(
    connection: Connection, agent: AgentClient, name: str, path: Path, digest: str, size: int, progress: Progress | None
) -> int:
    """Send samples for a fine-tune, but for the blocks that are there already; return the bytes that were sent.

    Raises:
        RemoteError: the device refuses them, such as because another run is under way.
        UnreachableError: the link was lost; the next call continues.
    """
    host = shlex.quote(connection.target)
    try:
        answer = agent.call("begin_tuning", name=name, digest=digest, file_size=size)
    except RemoteError as error:
        if _OLD.search(str(error)):
            raise RemoteError(
                12, f"{connection.target}: its runtime is too old to tune; update it: seed-deploy push "
                f"model.seed {host} --update-runtime"
            ) from None  # fmt: skip
        raise
    remote, tail, block = answer.get("path"), answer.get("tail") or [], answer.get("block") or 0
    if remote is None or (tail and not 0 < block <= DATA_BLOCK_MAX):
        raise RemoteError(
            1, f"{connection.target}: its agent doesn't say where samples go; see: seed-deploy doctor {host}"
        )
    have = _matching(path, tail, block)
    if have < size:
        show = None if progress is None else lambda done, total: progress("transfer", done, total)
        put(connection, path, remote, have, progress=show)
    return size - have


def tune(
    agent: AgentClient, show: Callable[[str, int, int, dict[str, Any]], None], host: str, **fields: Any
) -> dict[str, Any]:
    """Let the device tune, and return its answer. Ctrl-C asks it for the best so far, a second one ends this.

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

    with _asking_to_stop(agent):
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


@contextlib.contextmanager
def _asking_to_stop(agent: AgentClient) -> Iterator[None]:
    """Let the first Ctrl-C within the block ask the device to stop, and the next one interrupt as ever."""
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        agent.ask_to_stop()

    try:
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
