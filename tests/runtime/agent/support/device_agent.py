"""Small seeds, and the agent in this process or in one of its own."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import seed_runtime
from seed_runtime import generator
from seed_runtime.agent.operations import Agent
from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.store.store import Store
from seed_runtime.golden import Recipe
from tests.support.model_seeds import F32, build_model_seed, onnx_model

NAME = "tiny"
INPUTS = 16
OnProgress = Callable[[str, int, int], object]


class RefusedError(Exception):
    """The agent answered with `ok` false."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(answer["error"])
        self.exit, self.kind = answer["exit"], answer["kind"]


@functools.cache
def seed(version: int = 1, *, model_id: str = NAME, width: int = 32) -> bytes:
    """Return a seed with a golden sample; each version has other weights."""
    rng = np.random.default_rng(version)
    weights = {"w0": rng.normal(size=(INPUTS, width)), "w1": rng.normal(size=(width, 4)), "b": rng.normal(size=4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["relu"]),
        helper.make_node("MatMul", ["relu", "w1"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    return build_model_seed(
        onnx_model(nodes, {"x": ["batch", INPUTS]}, {"y": ["batch", 4]}, weights),
        model_id=model_id,
        version=version,
        step=0.05,
        recipes=(Recipe(generator.NORMAL, F32, (1, INPUTS), 0.0, 1.0),),
    )


def digest_of(data: bytes) -> str:
    return data[24:56].hex()


class PushRequests:
    """The requests of a push, as seed-deploy sends them by `call`."""

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer; RefusedError for a failure."""
        raise NotImplementedError

    def begin(self, data: bytes, name: str = NAME, **more: Any) -> dict[str, Any]:
        return self.call("begin", name=name, digest=digest_of(data), file_size=len(data), **more)

    def send(self, data: bytes, name: str = NAME) -> dict[str, Any]:
        """Begin, and send what is missing."""
        begun = self.begin(data, name)
        if begun["state"] == "partial":
            with open(begun["path"], "r+b") as file:
                assert file.seek(0, os.SEEK_END) == begun["have"]
                file.write(data[begun["have"] :])
        return begun

    def install(self, data: bytes, name: str = NAME, **more: Any) -> dict[str, Any]:
        return self.call("install", name=name, digest=digest_of(data), **more)

    def switch(self, data: bytes, name: str = NAME, keep: int = 3, **more: Any) -> dict[str, Any]:
        return self.call("switch", name=name, digest=digest_of(data), keep=keep, **more)

    def push(self, data: bytes, name: str = NAME, keep: int = 3) -> dict[str, Any]:
        """All of it; returns what `switch` answered, {} where this version ran already."""
        state = self.send(data, name)["state"]
        if state == "partial":
            self.install(data, name)
        return self.switch(data, name, keep) if state != "current" else {}


class LocalAgent(PushRequests):
    """The agent in this process, which is quick."""

    def __init__(self) -> None:
        self.agent = Agent(Transport(0, io.BytesIO()))

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        answer = self.agent.answer({"op": op, **fields})
        if not answer["ok"]:
            raise RefusedError(answer)
        return answer

    def end(self) -> None:
        self.agent.release()


class AgentProcess(PushRequests):
    """The agent in a process of its own."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seed_runtime.agent", "agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **(environment or {})},
        )
        self.hello = self._line()
        self.phases: list[str] = []
        self.on_progress: OnProgress = lambda *_: None

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer; EOFError where the agent has died."""
        self.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        return self.answer()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None

    def answer(self) -> dict[str, Any]:
        while True:
            line = self._line()
            if "progress" in line:
                phase, done, total = line["progress"]
                if phase not in self.phases:
                    self.phases.append(phase)
                self.on_progress(phase, done, total)
            elif line["ok"]:
                return line
            else:
                raise RefusedError(line)

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def agent(environment: Mapping[str, str] | None = None) -> Iterator[AgentProcess]:
    client = AgentProcess(environment)
    try:
        yield client
    finally:
        client.process.kill()
        client.process.wait()
        for stream in (client.process.stdin, client.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # of a request that it didn't live to read
                stream.close()


def push(*seeds: bytes, name: str = NAME, keep: int = 3) -> None:
    """Push these seeds, one after the other."""
    local = LocalAgent()
    for data in seeds:
        local.push(data, name, keep)
    local.end()


def running(name: str = NAME) -> str | None:
    """Return the running version, after checking all bytes of its seed."""
    model = Store().model(name)
    digest = model.running
    if digest is not None:
        opened = seed_runtime.open(model.link / "model.seed")
        opened.check()
        assert opened.digest.hex() == digest
    return digest


def refused(call: Any, code: int) -> str:
    """Return the one line with which a call is refused, with this exit code."""
    with pytest.raises(RefusedError) as caught:
        call()
    assert caught.value.exit == code, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Return everything in a folder by path: the contents of files, the targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        found[key] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found
