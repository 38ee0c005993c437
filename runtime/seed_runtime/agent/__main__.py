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
from seed_runtime.agent.protocol.failures import failure_answer
from seed_runtime.agent.protocol.schema import OPERATIONS
from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import SeedError, UsageError
from seed_runtime.system.locks import BusyError

USAGE = """\
usage: python -m seed_runtime.agent agent
       python -m seed_runtime.agent settle NAME
       python -m seed_runtime.agent OPERATION [FIELD=VALUE ...]

`agent` speaks JSON lines on stdin and stdout: seed-deploy starts it. `settle` is what a service runs before its server:
it undoes a switch that was interrupted, and leaves one that is under way alone. An operation by hand prints its answer
as one JSON object; the exit codes are those of seed-run.

operations and their fields (those in brackets may be left out):
{operations}

example: python -m seed_runtime.agent status
         python -m seed_runtime.agent rollback name=magika
"""
"""The text of --help."""
BY_HAND = tuple(op for op in OPERATIONS if op not in ("begin", "install", "release", "begin_tuning", "tune", "stop"))
"""Operations that make sense in a process of their own: a push holds its locks from `begin` to `switch`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent or one operation. Return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(operations=_list_operations()), end="")
        return 0 if arguments else 2
    if arguments == ["agent"]:
        return _serve()
    if arguments[0] == "settle" and len(arguments) == 2:
        return _undo_interrupted_switch(arguments[1])
    return _run_operation(arguments)


def _undo_interrupted_switch(name: str) -> int:
    """Undo an interrupted switch of a model. Its service is not restarted, since it is about to start."""
    try:
        model = Store().model(name)
        if not model.has_service:
            return 0
        # A process that holds the lock has asked for this start, and handles its failure.
        with contextlib.suppress(BusyError), model.locked(0):
            if activation.undo_interrupted_switch(model):
                print(f"seed_runtime.agent: {name}: the last switch was interrupted; the version before it runs")
    except (SeedError, OSError) as error:
        print(f"seed_runtime.agent: {failure_answer(error)['error']}", file=sys.stderr)
        return 1
    return 0


def _serve() -> int:
    """Serve the client on stdin and stdout until it leaves."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    # What a library prints must not stand between the lines of the protocol, so it goes to stderr.
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Agent(Transport(sys.stdin.fileno(), sink)).serve()
    except KeyboardInterrupt:
        return 130
    return 0


def _run_operation(arguments: Sequence[str]) -> int:
    """Run the operation that the first argument names, with fields as the others say, and print its answer."""
    op, pairs = arguments[0], [argument.partition("=") for argument in arguments[1:]]
    try:
        if op not in BY_HAND:
            raise UsageError(f"{op[:80]!r} can't be done by hand; choose from: {', '.join(BY_HAND)}")
        fields = OPERATIONS[op].request
        for key, equals, _ in pairs:
            if key not in fields or not equals:
                raise UsageError(f"{key[:80]!r} is not FIELD=VALUE of {op}; see: python -m seed_runtime.agent --help")
        request = {"op": op, **{key: fields[key].parse(key, value) for key, _, value in pairs}}
        # Progress isn't shown, since all of these are quick.
        with open(os.devnull, "r+b") as null:
            agent = Agent(Transport(null.fileno(), null))
            answer = agent.answer(request)
            agent.release()
    except UsageError as error:
        answer = failure_answer(error)
    except KeyboardInterrupt:
        return 130
    if answer.pop("ok"):
        print(json.dumps(answer, indent=2))
        return 0
    print(f"seed_runtime.agent: {answer['error']}", file=sys.stderr)
    return int(answer["exit"])


def _list_operations() -> str:
    lines = []
    for op in BY_HAND:
        fields = (name if field.required else f"[{name}]" for name, field in OPERATIONS[op].request.items())
        lines.append(f"  {op:10} {' '.join(fields)}".rstrip())
    return "\n".join(lines)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that unfinished files are removed on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
