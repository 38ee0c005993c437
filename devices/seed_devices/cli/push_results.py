"""Print what came of pushes, for people."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seed_devices.cli import show
from seed_devices.cli.rates import Rates
from seed_devices.fleet.parallel import Outcome
from seed_devices.push.job import PushResult
from seed_runtime.units import size_text


def print_results(outcomes: list[Outcome[PushResult]], rates: Rates) -> None:
    """Print what came of a push: a line and notes for one device, a table for several.

    Args:
        outcomes: of the devices.
        rates: from which a dry run estimates its time.
    """
    if len(outcomes) == 1:
        if (value := outcomes[0].value) is not None:
            print(f"{outcomes[0].target}: {result_text(outcomes[0], rates)}")
            if value.facts and _is_dry(value):
                print(f"  device: {_device_text(value.facts)}")
            for note in value.notes:
                print(f"  note: {note}")
        return
    heads = ["host", "name", "result", "digest", "runtime", "seed", "time", ""]
    show.print_rows(heads, [_row(outcome) for outcome in outcomes], right=[4, 5, 6])
    for outcome in outcomes:
        for note in outcome.value.notes if outcome.value else ():
            print(f"{outcome.target}: note: {note}")
    if any(outcome.value and _is_dry(outcome.value) for outcome in outcomes):
        print(totals_text(outcomes, rates))


def result_text(outcome: Outcome[PushResult], rates: Rates) -> str:
    """Return what came of a push to one device, in one line without its name.

    Args:
        outcome: of the device.
        rates: from which a dry run estimates its time.
    """
    value = outcome.value
    if value is None:
        return f"failed: {show.reason(outcome)}"
    short = value.digest[: show.SHORT]
    runtime = f"runtime {value.runtime} installed ({size_text(value.runtime_sent or 0)} sent)"
    if value.state == "unchanged":
        what = runtime if value.runtime_installed else "nothing was sent"
        return f"{value.name} {short} runs already{_as_file(value)}, {what} ({outcome.seconds:.1f} s)"
    if _is_dry(value):
        return f"{value.name} {short}: it would {_dry_text(value, rates)}; nothing was written"
    parts = [_sent_text(value)] if value.state == "pushed" else [f"it was kept there{_as_file(value)}"]
    if value.runtime_installed:
        parts.insert(0, runtime)
    if value.record is not None:
        golden = {True: "golden sample right", None: "no golden sample compared"}
        parts.append(golden.get(value.record.get("golden"), "golden sample not run"))
    if value.previous and value.previous != value.digest:
        parts.append(f"before it {value.previous[: show.SHORT]}")
    if value.service:
        parts.append(f"serves on {value.service.get('address', 'its socket')}")
    return f"{value.name} {short} runs ({', '.join(parts)}, {outcome.seconds:.1f} s)"


def next_command(outcomes: list[Outcome[PushResult]], options: Sequence[str]) -> str | None:
    """Return what a user may want to do after a push; None if it failed somewhere, or was a dry run.

    Args:
        outcomes: of the devices.
        options: words that chose the devices or the way to them, for several devices those of the inventory, too.
    """
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    if len(values) < len(outcomes) or any(map(_is_dry, values)):
        return None
    if len(outcomes) > 1:
        return f"see what runs: {shlex.join(['seed-deploy', 'status', *options])}"
    model = outcomes[0].target.of(values[0].name)
    return f"run it: {shlex.join(['seed-deploy', 'run', model, *options])} --input x.npz --output y.npz"


def totals(outcomes: list[Outcome[PushResult]], rates: Rates) -> dict[str, Any]:
    """Return what all devices were sent, or would be, as fields of `--json`.

    Args:
        outcomes: of the devices.
        rates: without one there is no estimate of the time.
    """
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    sizes = [value.all_sent for value in values]
    seconds = rates.seconds(sizes)
    return {
        "sent": sum(value.sent for value in values),
        "runtime_sent": sum(value.runtime_sent or 0 for value in values),
        "all_sent": sum(sizes),
        "transfer_s": None if seconds is None else round(seconds, 3),
    }


def totals_text(outcomes: list[Outcome[PushResult]], rates: Rates) -> str:
    """Return what all devices were sent, or would be, in one line."""
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    found = totals(outcomes, rates)
    verb = "would be sent" if any(map(_is_dry, values)) else "sent"
    text = f"in all: {size_text(found['all_sent'])} {verb} to {len(values)} devices"
    if found["runtime_sent"]:
        text += f", {size_text(found['runtime_sent'])} of them for the runtime"
    if verb == "sent":
        return text
    return text + rates.time_text([value.all_sent for value in values])


def _row(outcome: Outcome[PushResult]) -> list[str]:
    value, host = outcome.value, outcome.target.device
    if value is None:
        seconds, reason = f"{outcome.seconds:.1f} s", show.reason(outcome)
        return [host, outcome.target.name or "", "failed", "", "", "", seconds, reason]
    runtime = "unknown" if value.runtime_sent is None else size_text(value.runtime_sent) if value.runtime_sent else ""
    short = value.digest[: show.SHORT]
    file = _file_text(value) if value.sent else _as_file(value).strip()
    return [host, value.name, value.state, short, runtime, size_text(value.sent), f"{outcome.seconds:.1f} s", file]


def _sent_text(value: PushResult) -> str:
    """Return what was sent, and beside a delta what the whole seed would have been."""
    file = _file_text(value)
    return f"{size_text(value.sent)} sent" + (f": {file}" if file else "")


def _file_text(value: PushResult) -> str:
    """Return which file is sent if it isn't the given one, on what a delta stands, and the size of the whole seed."""
    parts = [] if value.is_given or value.file is None else [Path(value.file).name]
    if (delta := value.delta) is not None:
        version, more = delta.get("base_version"), delta.get("with")
        text = f"a delta on version {delta['base'][: show.SHORT] if version is None else version}"
        if more:
            text += " together with " + ("its base" if more == 1 else f"{more} seeds that it stands on")
        parts.append(text)
    if parts and value.whole_bytes is not None and value.whole_bytes > value.sent:
        parts.append(f"in place of {size_text(value.whole_bytes)}")
    return ", ".join(parts)


def _as_file(value: PushResult) -> str:
    """Return as which file the version is there, where it isn't the given one."""
    return "" if value.is_given or value.file is None else f" as {Path(value.file).name}"


def _dry_text(value: PushResult, rates: Rates) -> str:
    actions = []
    if value.runtime_installed:
        size = f" ({size_text(value.runtime_sent)})" if value.runtime_sent is not None else ""
        actions.append(f"send the runtime{size} and install it")
    if value.state == "would push":
        file = _file_text(value)
        actions.append(f"send {size_text(value.sent)}{f' ({file})' if file else ''} and switch")
    elif value.state == "would switch":
        actions.append(f"switch{_as_file(value)}")
    total = f", {size_text(value.all_sent)} in all" if value.runtime_sent and value.sent else ""
    return ", ".join(actions) + total + rates.time_text([value.all_sent])


def _is_dry(value: PushResult) -> bool:
    return value.state.startswith("would")


def _device_text(facts: dict[str, Any]) -> str:
    """Return what a device is and has, in one line."""
    parts = [facts.get("model"), facts.get("machine"), facts.get("os"), f"Python {facts.get('python')}"]
    names = {
        "numpy": "NumPy",
        "onnxruntime": "ONNX Runtime",
        "litert": "LiteRT",
        "pillow": "Pillow",
        "tokenizers": "tokenizers",
    }
    parts += [f"{name} {facts[key]}" for key, name in names.items() if facts.get(key)]
    sizes = {"ram": "of memory", "ram_available": "of it free", "disk_free": "free on its disk"}
    parts += [f"{size_text(facts[key])} {what}" for key, what in sizes.items() if isinstance(facts.get(key), int)]
    return ", ".join(str(part) for part in parts if part)
