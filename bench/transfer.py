"""Measure how fast a file travels to a device, beside OpenSSH's sftp on the same connection, in turn.

The device is a real sshd on a loopback port: once by itself, and once behind a proxy that delays all bytes by half a
round trip in each direction, as a distant device does. OpenSSH's client and server are the same for both; what differs
is sftp's own protocol, with its requests and answers, against bytes that follow one another.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench import measure
from bench.measure import Figures, Goal, Spent
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.transfer import put
from tests.devices.support.sshd import Sshd

RATIO_MIN = 0.8
ROUNDS = 7
CASES = (("the same machine", 0.0, 100_000_000), ("a round trip of 50 ms", 0.05, 20_000_000))
"""What is measured: a name, the round trip [s], and the size of the file [bytes]."""


def run(quick: bool) -> Figures:
    cases = []
    with measure.scratch() as folder:
        server = Sshd(folder, settings="Subsystem sftp internal-sftp\n")
        try:
            for number, (name, round_trip, size) in enumerate(CASES):
                measure.note(name)
                with _delayed(server.port, round_trip / 2) as port:
                    figures = _case(server, f"case{number}", port, size // (10 if quick else 1), 2 if quick else ROUNDS)
                cases.append({"case": name, **figures})
        finally:
            server.stop()
    goals = [Goal(f"{case['case']}: speed over sftp's", case["ratio"], RATIO_MIN, "", least=True) for case in cases]
    return {"cases": cases, "goals": [goal.as_json() for goal in goals]}


def table(figures: Figures) -> list[str]:
    lines = ["| device | file | seed-deploy | sftp | speed over sftp's |", "|---|--:|--:|--:|--:|"]
    for case in figures["cases"]:
        rates = " | ".join(f"{case['bytes'] / case[f'{name}_s'] / 1e6:.0f} MB/s" for name in ("plain", "sftp"))
        lines.append(f"| {case['case']} | {case['bytes'] / 1e6:.0f} MB | {rates} | **{case['ratio']:.2f}** |")
    return lines


def _case(server: Sshd, alias: str, port: int, size: int, rounds: int) -> Figures:
    device = server.device(alias, runtime=False, port=port)
    local, remote, batch = (server.folder / f"{alias}-{name}" for name in ("local", "remote", "batch"))
    local.write_bytes(os.urandom(size))
    batch.write_text(f"put {local} {remote}\n")
    with Connection(device.alias, config=device.config) as connection:
        connection.hold()
        sftp = [
            "sftp",
            "-q",
            "-F",
            str(device.config),
            "-o",
            f"ControlPath={connection.control_path}",
            "-b",
            str(batch),
        ]

        def plain() -> Spent:
            remote.unlink(missing_ok=True)
            return measure.spent(lambda: put(connection, local, str(remote), 0))

        def by_sftp() -> Spent:
            remote.unlink(missing_ok=True)
            return measure.spent(lambda: subprocess.run([*sftp, device.alias], check=True, stdout=subprocess.DEVNULL))

        plain()  # fills the caches of the file system for all following rounds
        spent = measure.rounds({"plain": plain, "sftp": by_sftp}, rounds)
    return {
        "bytes": size,
        "rounds": rounds,
        **{f"{name}_s": round(measure.median([one.wall for one in values]), 4) for name, values in spent.items()},
        "ratio": round(measure.median_ratio(spent["sftp"], spent["plain"], "wall"), 3),
    }


@contextmanager
def _delayed(target: int, delay_s: float) -> Iterator[int]:
    """Serve a port that passes all bytes on to another one of this machine, each `delay_s` later."""
    if not delay_s:
        yield target
        return
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(server, target, delay_s), daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def _accept(server: socket.socket, target: int, delay_s: float) -> None:
    with suppress(OSError):
        while True:
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # As much as there is may be on its way: a link of any rate, but for its round trip.
                under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()
                threading.Thread(target=_read, args=(source, under_way, delay_s), daemon=True).start()
                threading.Thread(target=_write, args=(sink, under_way), daemon=True).start()


def _read(source: socket.socket, under_way: queue.Queue[tuple[float, bytes]], delay_s: float) -> None:
    data = b"more"
    while data:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        under_way.put((time.monotonic() + delay_s, data))


def _write(sink: socket.socket, under_way: queue.Queue[tuple[float, bytes]]) -> None:
    with suppress(OSError):
        while True:
            due, data = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
