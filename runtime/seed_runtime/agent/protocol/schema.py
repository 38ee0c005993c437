"""The table of operations: which fields each one takes and which it answers with.

The agent checks requests with it. The host checks answers with it before anything of them is rendered, compared or
made a part of a command; that the agent's answers fit is tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.agent.names import NAME
from seed_runtime.agent.protocol.checks import (
    Check,
    boolean,
    count,
    digest,
    dimension,
    lenient_record,
    list_of,
    mapping_of,
    name,
    number,
    optional,
    pair_of,
    record,
    text,
    timestamp,
)
from seed_runtime.agent.protocol.fields import Field
from seed_runtime.errors import UsageError
from seed_runtime.format.preamble import DIGEST
from seed_runtime.limits import FILE_MAX, WEIGHTS_MAX
from seed_runtime.version import __version__

WAIT_MAX: Final = 600
"""Longest time that a request may wait for another push to end, in seconds."""
KEEP_MAX: Final = 64
"""Largest number of versions of a model that a switch may be asked to keep."""
LINES_MAX: Final = 1000
"""Largest number of log lines in one answer."""
MEMORY_MAX: Final = 1 << 50
"""Largest memory limit, in bytes."""
PHASES: Final = ("begin", "receive", "verify", "assemble", "golden", "place", "switch", "prune")
"""Names of the phases in progress lines, in the order of a push."""
TUNE: Final = "tune"
"""Name of the phase of a fine-tune: `done` and `total` are steps of the tier that runs, the detail is PROGRESS."""
DATA_MAX: Final = 1 << 34
"""Largest file of samples, in bytes: its blocks are read whole, at least a 4,096th of it."""
DATA_BLOCK_MAX: Final = DATA_MAX >> 12
"""Largest block of samples whose digest is compared, in bytes."""
STEPS_MAX: Final = 1 << 24
SECONDS_MAX: Final = 1 << 24
"""Longest time limit of a fine-tune, in seconds: 194 days."""
RATE_MAX: Final = 1000

_PREFIX: Final = re.compile(r"[0-9a-f]{6,64}")
_ADDRESS: Final = re.compile(r"unix|127\.0\.0\.1:[0-9]{1,5}")


@dataclass(frozen=True)
class Operation:
    """One operation of the agent."""

    request: Mapping[str, Field]
    """Fields of the request beside "op"."""
    answer: Mapping[str, Check]
    """Fields of the answer beside "ok"."""


# Objects within answers. Sizes are in bytes.

FACTS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("machine", "os", "os_id", "python", "python_path", "numpy", "onnxruntime", "litert"), text),
    **dict.fromkeys(("pillow", "tokenizers", "seed_runtime", "store", "model", "noexec", "exec_folder"), text),
    **dict.fromkeys(("bits", "ram", "ram_available", "cores", "disk_free", "disk_cached"), count),
    **dict.fromkeys(("venv", "ensurepip", "store_writable", "home_writable", "systemd_user", "ssh_keygen"), boolean),
    **dict.fromkeys(("signers", "termux", "systemd"), boolean),
    "libc": pair_of(text),
    "instructions": list_of(text),
    "clock": timestamp,
    "runtime": record(path=text, version=text),
    "wheels": mapping_of(text, count),
}
"""Checks of the facts that `facts` collects about a device; each fact may be None."""

RECORD: Final[Mapping[str, Check]] = {
    "digest": digest, "model_id": optional(text), "model_version": optional(count), "bytes": optional(count),
    "weights_bytes": optional(count), "pushed": optional(text), "golden": optional(boolean),
    "golden_distance": optional(number), "planned_bytes": optional(count), "backend": optional(text),
    "base": optional(digest),
}  # fmt: skip
"""Checks of the record that an installation made of a version (record.json)."""

_VERSION: Final = record(**RECORD, running=optional(boolean), intact=optional(boolean))
_EVENT: Final = record(time=optional(text), what=optional(text), digest=optional(text), result=optional(text))
_SERVICE: Final = record(
    unit=optional(text), asked=optional(text), address=optional(text), memory_asked=optional(count),
    max_memory=optional(count), memory_max=optional(count), linger=optional(boolean), active=optional(text),
    pid=optional(count), restarts=optional(count), memory_current=optional(count), hint=optional(text),
    error=optional(text), stale=optional(boolean), installing=optional(boolean),
)  # fmt: skip
_LATENCY: Final = record(bounds=list_of(number), counts=list_of(count), seconds=number)
_MODEL: Final = record(
    name=name, current=optional(digest), previous=optional(digest), service=optional(_SERVICE),
    versions=optional(list_of(_VERSION)), partial=optional(count), partial_digest=optional(digest),
    last=optional(_EVENT), left_out=optional(count), tuning_bytes=optional(count),
)  # fmt: skip

PROGRESS: Final[Mapping[str, Check]] = {
    "tier": text, "loss": optional(number), "score": optional(number), "memory": count, "seconds_left": number,
}  # fmt: skip
"""Checks of the detail of a fine-tune's progress; loss and score are None before there are any."""
_TIER: Final = record(
    tier=text, score=optional(number), loss=optional(number), kept=boolean, steps=count, micro_batch=count,
    seconds=number,
)  # fmt: skip

_TENSOR: Final = record(name=text, dtype=text, shape=optional(list_of(dimension)))

# Fields that several requests have.

_NAME: Final = Field(str, pattern=NAME, text="letters, digits, dots and dashes, at most 64")
_ANY_NAME: Final = Field(str, None, NAME, text="letters, digits, dots and dashes, at most 64")
_DIGEST: Final = Field(str, pattern=DIGEST, text="a digest of 64 hexadecimal digits")
_ANY_DIGEST: Final = Field(str, None, _PREFIX, text="at least 6 hexadecimal digits of a digest")
_WORD: Final = Field(str, None, re.compile("[a-z-]{1,20}"), text="a word of seed-run's options")
_MEMORY: Final = Field(int, None, most=MEMORY_MAX, least=1)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "facts": Operation({}, {"facts": lenient_record(**FACTS)}),
    "status": Operation(
        {"name": _ANY_NAME},
        {
            "models": optional(list_of(_MODEL)),
            "runtime": optional(text),
            "disk_free": optional(count),
            # Missing where the runtime is older than seeds with a base.
            "chain_max": optional(count),
        },
    ),
    "begin": Operation(
        {
            "name": _NAME,
            "digest": _DIGEST,
            "file_size": Field(int, most=FILE_MAX, least=1),
            "weights_bytes": Field(int, 0, most=WEIGHTS_MAX),
            "wait_s": Field(float, 0, most=WAIT_MAX),
            "base": Field(str, None, DIGEST, text="a digest of 64 hexadecimal digits"),
        },
        {
            "state": optional(text),
            "have": optional(count),
            "path": optional(text),
            "tail": optional(list_of(text)),
            "block": optional(count),
        },
    ),
    "resume": Operation({"have": Field(int, most=FILE_MAX)}, {"have": optional(count)}),
    "install": Operation(
        {"name": _NAME, "digest": _DIGEST, "max_memory": _MEMORY},
        {
            "record": optional(record(**RECORD)),
            "seconds": optional(mapping_of(text, number)),
            "peak_rss": optional(count),
        },
    ),
    "switch": Operation(
        {
            "name": _NAME,
            "digest": _DIGEST,
            "keep": Field(int, 3, most=KEEP_MAX, least=1),
            "replace": Field(bool, False, text="true or false"),
        },
        {"previous": optional(digest), "removed": optional(list_of(digest))},
    ),
    "rollback": Operation(
        {"name": _NAME, "to": _ANY_DIGEST},
        {"current": optional(digest), "previous": optional(digest)},
    ),
    "remove": Operation(
        {"name": _NAME, "digest": _ANY_DIGEST, "all": Field(bool, False, text="true or false")},
        {"removed": optional(list_of(digest)), "bytes": optional(count)},
    ),
    "log": Operation(
        {"name": _NAME, "lines": Field(int, 20, most=LINES_MAX, least=1)},
        {"lines": optional(list_of(_EVENT)), "service": optional(list_of(text))},
    ),
    "service": Operation(
        {
            "name": _NAME,
            "action": Field(str, pattern=re.compile("install|remove|status"), text="install, remove or status"),
            "address": Field(str, None, _ADDRESS, text="unix or 127.0.0.1:PORT"),
            "memory_max": _MEMORY,
        },
        {"service": optional(_SERVICE)},
    ),
    "health": Operation(
        {"name": _NAME},
        {"ready": optional(boolean), "problem": optional(text), "latency": optional(_LATENCY)},
    ),
    "tuning_inputs": Operation(
        {"name": _NAME},
        # What the model takes, for samples that are made on the host, and how many classes it has.
        {"inputs": list_of(_TENSOR), "classes": count},
    ),
    "begin_tuning": Operation(
        {"name": _NAME, "digest": _DIGEST, "file_size": Field(int, most=DATA_MAX, least=1)},
        # Digests of blocks of the data that is there, and their size.
        {"path": optional(text), "have": optional(count), "tail": optional(list_of(text)), "block": optional(count)},
    ),
    "tune": Operation(
        {
            "name": _NAME,
            "digest": _DIGEST,
            "mode": _WORD,
            "loss": _WORD,
            "optimizer": _WORD,
            "steps": Field(int, None, most=STEPS_MAX, least=1),
            "rate": Field(float, None, most=RATE_MAX),
            "rng_seed": Field(int, None, most=SECONDS_MAX),
            "time_limit": Field(float, None, most=SECONDS_MAX),
            "threads": Field(int, None, most=1024, least=1),
            "max_memory": _MEMORY,
            "keep": Field(int, 3, most=KEEP_MAX, least=1),
        },
        {
            "mode": optional(text),
            "metric": optional(text),
            "before": optional(number),
            "after": optional(number),
            "held_out": optional(count),
            "steps": optional(count),
            "tiers": optional(list_of(_TIER)),
            "stopped": optional(boolean),
            "notes": optional(list_of(text)),
            "peak_rss": optional(count),
            # What runs now in place of `previous`; None where nothing was better.
            "digest": optional(digest),
            "previous": optional(digest),
            "bytes": optional(count),
            "path": optional(text),
        },
    ),
    "stop": Operation({}, {}),
    "release": Operation({}, {}),
}
"""All operations. An operation named here is a method of `operations.Agent` with the fields as its arguments."""


def check_request(request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the operation of a request and all its fields, checked.

    Raises:
        UsageError: there is no such operation, or a field is not what the table says.
    """
    op = request.get("op")
    if not isinstance(op, str) or op not in OPERATIONS:
        raise UsageError(f"op is {json.dumps(op)[:80]}; this runtime ({__version__}) knows {', '.join(OPERATIONS)}")
    return op, {key: field.check(key, request.get(key)) for key, field in OPERATIONS[op].request.items()}
