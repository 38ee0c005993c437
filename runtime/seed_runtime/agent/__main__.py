"""`python -m seed_runtime.agent`: the agent of seed-deploy, or one operation by hand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from seed_runtime.agent import activation
from seed_runtime.agent.operations import Agent
from seed_runtime.agent.protocol import OPERATIONS, Wire, answer_for
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import SeedError, UsageError
from seed_runtime.system.locks import BusyError

USAGE = """\
usage: python -m seed_runtime.agent agent
       python -m seed_runtime.agent settle NAME
       python -m seed_runtime.agent OPERATION [FIELD=VALUE ...]

`agent` speaks JSON lines on stdin and stdout: it is what seed-deploy starts. `settle` is what a service runs before its
server: a switch that was interrupted is taken back, one that is under way is left alone. An operation by hand prints
its answer as one JSON object; the exit codes are those of seed-run.

operations and their fields (those in brackets may be left out):
{operations}

example: python -m seed_runtime.agent status
         python -m seed_runtime.agent rollback name=magika
"""
BY_HAND = tuple(op for op in OPERATIONS if op not in ("begin", "install", "release"))
"""What makes sense in a process of its own: a push holds its locks from begin to switch."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(operations=_operations()), end="")
        return 0 if arguments else 2
    if arguments == ["agent"]:
        return _agent()
    if arguments[0] == "settle" and len(arguments) == 2:
        return _settle(arguments[1])
    return _once(arguments)


def _settle(name: str) -> int:
    """See `switching.settle`; the service is not restarted, it is about to start."""
    try:
        model = Store().model(name)
        if not model.has_service:
            return 0
        # Whoever holds the lock has asked for this start, and sees to what comes of it.
        with contextlib.suppress(BusyError), model.locked(0):
            if activation.settle(model):
                print(f"seed_runtime.agent: {name}: the last switch was interrupted; the version before runs")
    except (SeedError, OSError) as error:
        print(f"seed_runtime.agent: {answer_for(error)['error']}", file=sys.stderr)
        return 1
    return 0


def _agent() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    # Nothing that a library prints may stand between our lines.
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Agent(Wire(sys.stdin.fileno(), sink)).serve()
    except KeyboardInterrupt:
        return 130
    return 0


def _once(arguments: Sequence[str]) -> int:
    op, pairs = arguments[0], [argument.partition("=") for argument in arguments[1:]]
    try:
        if op not in BY_HAND:
            raise UsageError(f"{op[:80]!r} can't be done by hand; choose from: {', '.join(BY_HAND)}")
        fields = OPERATIONS[op]
        for key, equals, _ in pairs:
            if key not in fields or not equals:
                raise UsageError(f"{key[:80]!r} is not FIELD=VALUE of {op}; see: python -m seed_runtime.agent --help")
        request = {"op": op, **{key: fields[key].read(key, value) for key, _, value in pairs}}
        # Progress isn't shown: all of these are quick.
        with open(os.devnull, "r+b") as nobody:
            agent = Agent(Wire(nobody.fileno(), nobody))
            answer = agent.answer(request)
            agent.release()
    except UsageError as error:
        answer = answer_for(error)
    except KeyboardInterrupt:
        return 130
    if answer.pop("ok"):
        print(json.dumps(answer, indent=2))
        return 0
    print(f"seed_runtime.agent: {answer['error']}", file=sys.stderr)
    return int(answer["exit"])


def _operations() -> str:
    lines = []
    for op in BY_HAND:
        fields = (name if field.required else f"[{name}]" for name, field in OPERATIONS[op].items())
        lines.append(f"  {op:10} {' '.join(fields)}".rstrip())
    return "\n".join(lines)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that half-written files are removed on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
