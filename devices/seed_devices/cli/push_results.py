"""Print what came of pushes, for people."""

from __future__ import annotations

from typing import Any

from seed_devices.cli import show
from seed_devices.fleet.parallel import Outcome
from seed_devices.push.job import PushResult
from seed_runtime.units import size_text


def print_results(outcomes: list[Outcome[PushResult]]) -> None:
    """Print what came of a push: a line and notes for one device, a table for several."""
    if len(outcomes) == 1:
        if outcomes[0].value is not None:
            print(f"{outcomes[0].target}: {result_text(outcomes[0])}")
            if outcomes[0].value.facts and outcomes[0].value.state.startswith("would"):
                print(f"  device: {_device_text(outcomes[0].value.facts)}")
            for note in outcomes[0].value.notes:
                print(f"  note: {note}")
        return
    rows = []
    for outcome in outcomes:
        value = outcome.value
        rows.append(
            [
                outcome.target.host,
                value.name if value else outcome.target.name or "",
                value.state if value else "failed",
                value.digest[: show.SHORT] if value else "",
                size_text(value.sent) if value else "",
                f"{outcome.seconds:.1f} s",
                "" if value else show.reason(outcome),
            ]
        )
    notes = [f"{outcome.target}: note: {note}" for outcome in outcomes if outcome.value for note in outcome.value.notes]
    show.print_rows(["host", "name", "result", "digest", "sent", "time", ""], rows, right=[4, 5])
    if notes:
        print("\n".join(notes))


def result_text(outcome: Outcome[PushResult]) -> str:
    """Return what came of a push to one device, in one line without its name."""
    value = outcome.value
    if value is None:
        return f"failed: {show.reason(outcome)}"
    short = value.digest[: show.SHORT]
    if value.state == "unchanged":
        what = f"runtime {value.runtime} installed" if value.runtime_installed else "nothing was sent"
        return f"{value.name} {short} runs already, {what} ({outcome.seconds:.1f} s)"
    if value.state.startswith("would"):
        actions = ["install the runtime"] if value.runtime_installed else []
        if value.state == "would push":
            actions.append(f"send {size_text(value.sent)} and switch")
        elif value.state == "would switch":
            actions.append("switch")
        return f"{value.name} {short}: it would {', '.join(actions)}; nothing was written"
    parts = [f"{size_text(value.sent)} sent"] if value.state == "pushed" else ["it was kept there"]
    if value.runtime_installed:
        parts.insert(0, f"runtime {value.runtime} installed")
    if value.record is not None:
        golden = {True: "golden sample right", None: "no golden sample"}
        parts.append(golden.get(value.record.get("golden"), "golden sample not run"))
    if value.previous and value.previous != value.digest:
        parts.append(f"before it {value.previous[: show.SHORT]}")
    if value.service:
        parts.append(f"serves on {value.service.get('address', 'its socket')}")
    return f"{value.name} {short} runs ({', '.join(parts)}, {outcome.seconds:.1f} s)"


def _device_text(facts: dict[str, Any]) -> str:
    """Return what a device is and has, in one line."""
    parts = [facts.get("model"), facts.get("machine"), facts.get("os"), f"Python {facts.get('python')}"]
    names = {"numpy": "NumPy", "onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
    parts += [f"{name} {facts[key]}" for key, name in names.items() if facts.get(key)]
    sizes = {"ram": "of memory", "ram_available": "of it free", "disk_free": "free on its disk"}
    parts += [f"{size_text(facts[key])} {what}" for key, what in sizes.items() if isinstance(facts.get(key), int)]
    return ", ".join(str(part) for part in parts if part)
