"""A disk whose unflushed writes are lost when its power is cut, as an NBD server on a Unix socket.

    python -m tests.interop.support.disk BASE STATE SOCKET [--torn SEED]

What the guest has flushed goes into STATE, a folder; BASE, an image, is only read. What it has written since is in
this process's memory alone: SIGKILL loses all of it, as a drive's write cache loses it. A drive may also have written
some of it already, in any order: on SIGUSR1 half of those blocks, drawn by SEED, go into STATE before the process ends.

Source: the NBD protocol, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle handshake,
simple replies, flush and FUA).
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = 4096
"""Bytes that are lost or kept together; ext4's blocks are as large."""
MOST = 32 << 20
"""Largest request [B], as the protocol recommends."""

_HELLO = b"NBDMAGIC"
_OPTION = b"IHAVEOPT"
_OPTION_REPLY = 0x3E889045565A9
_REQUEST, _REPLY = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _REP_INFO, _UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA = 1
_EINVAL = 22


class Disk:
    """Blocks in three layers: written since the last flush, flushed, and the base image."""

    def __init__(self, base: Path, state: Path) -> None:
        self.size = base.stat().st_size
        state.mkdir(parents=True, exist_ok=True)
        self._base = os.open(base, os.O_RDONLY)
        self._flushed = os.open(state / "blocks", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._flushed, self.size)
        present = os.open(state / "present", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(present, -(-self.size // BLOCK))
        self._present = mmap.mmap(present, 0)
        self._fresh: dict[int, bytes] = {}

    def read(self, offset: int, size: int) -> bytes:
        return b"".join(self._block(block)[start:end] for block, start, end in _pieces(offset, size))

    def write(self, offset: int, data: bytes) -> None:
        taken = 0
        for block, start, end in _pieces(offset, len(data)):
            piece = data[taken : taken + end - start]
            if len(piece) < BLOCK:
                old = self._block(block)
                piece = old[:start] + piece + old[end:]
            self._fresh[block] = piece
            taken += end - start

    def flush(self, blocks: list[int] | None = None) -> None:
        """Store all that was written, or these blocks only, so that a cut of the power doesn't lose it."""
        for block in list(self._fresh) if blocks is None else blocks:
            data = self._fresh.pop(block, None)
            if data is not None:
                os.pwrite(self._flushed, data, block * BLOCK)
                self._present[block] = 1

    def tear(self, rng_seed: int) -> None:
        """Store half of the blocks that were written since the last flush, drawn by `rng_seed`."""
        self.flush([block for block in list(self._fresh) if random.Random(f"{rng_seed} {block}").random() < 0.5])

    def _block(self, block: int) -> bytes:
        fresh = self._fresh.get(block)
        if fresh is not None:
            return fresh
        data = os.pread(self._flushed if self._present[block] else self._base, BLOCK, block * BLOCK)
        return data + bytes(BLOCK - len(data))


def serve(disk: Disk, client: socket.socket) -> None:
    """Answer one client until it disconnects."""
    if not _shake_hands(disk, client):
        return
    while True:
        magic, flags, kind, cookie, offset, size = struct.unpack(">IHHQQI", _exactly(client, 28))
        if magic != _REQUEST or size > MOST:
            return
        data = _exactly(client, size) if kind == _WRITE else b""
        if kind == _DISCONNECT:
            return
        error, answer = 0, b""
        if kind in (_READ, _WRITE) and offset + size > disk.size:
            error = _EINVAL
        elif kind == _READ:
            answer = disk.read(offset, size)
        elif kind == _WRITE:
            disk.write(offset, data)
            if flags & _FUA:
                disk.flush([block for block, _, _ in _pieces(offset, size)])
        elif kind == _FLUSH:
            disk.flush()
        else:
            error = _EINVAL
        client.sendall(struct.pack(">IIQ", _REPLY, error, cookie) + answer)


def _shake_hands(disk: Disk, client: socket.socket) -> bool:
    client.sendall(_HELLO + _OPTION + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
    (client_flags,) = struct.unpack(">I", _exactly(client, 4))
    export = struct.pack(">QH", disk.size, _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA)
    while True:
        _, option, size = struct.unpack(">8sII", _exactly(client, 16))
        if size > MOST:
            return False
        _exactly(client, size)  # the name of an export: there is only one

        def reply(kind: int, data: bytes = b"", option: int = option) -> None:
            client.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)

        if option == _EXPORT_NAME:
            client.sendall(export + (b"" if client_flags & _NO_ZEROES else bytes(124)))
            return True
        if option in (_INFO, _GO):
            reply(_REP_INFO, struct.pack(">H", 0) + export)
            reply(_ACK)
            if option == _GO:
                return True
        elif option == _ABORT:
            reply(_ACK)
            return False
        else:
            reply(_UNSUPPORTED)


def _pieces(offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the blocks that a range touches: number, start and end within the block."""
    end = offset + size
    while offset < end:
        block, start = divmod(offset, BLOCK)
        stop = min(BLOCK, start + end - offset)
        yield block, start, stop
        offset += stop - start


def _exactly(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = client.recv(min(size - len(data), 1 << 20))
        if not more:
            raise EOFError("the client disconnected")
        data += more
    return bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.support.disk")
    parser.add_argument("base", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--torn", type=int, default=0, metavar="SEED")
    options = parser.parse_args()
    disk = Disk(options.base, options.state)

    def cut(*_: object) -> None:
        disk.tear(options.torn)
        os._exit(0)

    signal.signal(signal.SIGUSR1, cut)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(options.socket))
        listening.listen(4)
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            with client:
                try:
                    serve(disk, client)
                except (EOFError, ConnectionError):
                    continue


if __name__ == "__main__":
    sys.exit(main())
