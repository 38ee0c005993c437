"""The parts of SPEC.md that tests compare with the code: field tables, rules, limits, and the example's bytes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "SPEC.md"


@cache
def _blocks(kind: str) -> list[tuple[str, str]]:
    """Return name and text of each fenced block that opens with "```kind name"."""
    found = re.findall(rf"^```{kind}(?: (\S+))?\n(.*?)^```$", PATH.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"SPEC.md has no block of kind {kind!r}"
    return [(name, text) for name, text in found]


def fields() -> list[str]:
    """Return `table.field` of each row of the tables whose columns are Offset, Size, Type, Field."""
    out = []
    for table, text in _blocks("fields"):
        lines = text.splitlines()
        assert lines[0].split() == ["Offset", "Size", "Type", "Field"], table
        column = lines[0].index("Field")
        for line in lines[1:]:
            if line[:1].strip():
                name = re.match(r"[a-z0-9_]+(?=[.:, ]|$)", line[column:])
                assert name, f"{table}: {line}"
                out.append(f"{table}.{name.group()}")
    assert len(set(out)) == len(out)
    return out


def rules(table: str) -> list[str]:
    """Return the names that begin the lines of a block of rules."""
    (text,) = [text for name, text in _blocks("rules") if name == table]
    return [line.split()[0] for line in text.splitlines() if line[:1].strip()]


def rule_text(table: str) -> str:
    """Return the text of a block of rules."""
    (text,) = [text for name, text in _blocks("rules") if name == table]
    return text


def messages() -> dict[str, dict[int, tuple[str, str, str]]]:
    """Return the fields of each message of a skeleton: number to name, kind and how many."""
    (text,) = [text for name, text in _blocks("messages") if name == "skeleton"]
    found: dict[str, dict[int, tuple[str, str, str]]] = {}
    for line in text.splitlines()[1:]:
        message, number, name, kind, most = line.split()
        found.setdefault(message, {})[int(number)] = name, kind, most
    return found


def limits() -> dict[str, int]:
    """Return the table of limits as name to value."""
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([\d,]+) \|", PATH.read_text(), re.MULTILINE)
    return {name: int(value.replace(",", "")) for name, value in rows}


def listing(name: str) -> str:
    """Return the text of a worked example's block of bytes: "example" or "second"."""
    (text,) = [text for found, text in _blocks("hex") if found == name]
    return text


def example(name: str = "example") -> tuple[bytes, dict[str, list[float]]]:
    """Return the bytes of a worked example, and the values of each of its tensors."""
    lines = listing(name)
    data = b""
    for line in lines.splitlines():
        if match := re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", line):
            assert int(match[1], 16) == len(data), f"{line}: the offset is {len(data):04x}"
            data += bytes.fromhex(match[2])
    (text,) = [text for found, text in _blocks("weights") if found == name]
    tensors = {}
    for line in text.splitlines():
        tensor, *values = line.split()
        tensors[tensor] = [float(value) for value in values]
    return data, tensors
