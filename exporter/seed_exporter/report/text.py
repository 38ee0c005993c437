"""Report of an export as lines for a terminal."""

from __future__ import annotations

import math
from typing import Final

from seed_exporter.evaluate.compare import OutputError
from seed_exporter.graph.kinds import fp32_bytes
from seed_exporter.graph.source_size import source_size
from seed_exporter.quantize.default_size import LEAST_RATIO
from seed_exporter.quantize.methods import METHODS
from seed_exporter.results import Options, Result
from seed_exporter.targets import FP32
from seed_runtime.format.dtypes import BY_CODE

LOST: Final = 0.5
"""Error that leaves nothing to use, in root mean squares of the output."""
UNLIKE: Final = "its shape, or where it is infinite or NaN, differs from the original's"
"""What there is to say of an output with an infinite error."""
_INTEGERS: Final = ("int", "uint", "bool")
"""How the names of these types begin."""
_NO_MATRICES: Final = "no matrix of floats is left in this model that could be quantized"


def summary(result: Result) -> str:
    """Write the summary that the command prints."""
    in_attributes = source_size(result.graph).in_attributes
    source = size(result.seed.header.model.source_bytes)
    lines = [
        (
            f"{result.path}: {size(result.bytes)} for "
            f"{f'a model of {source}' if in_attributes else f'{source} of weights'}, {ratio_text(result)}"
        ),
    ]
    if result.outputs:
        lines.append(f"outputs against the original's, on {result.inputs} inputs ({result.inputs_note}):")
    for name, error in result.outputs.items():
        if error.identical:
            lines.append(f"  {name}: identical")
            continue
        if error.noisy:
            lines.append(f"  {name}: {noise_text(error)}")
            continue
        if math.isinf(error.relative):
            lines.append(f"  {name}: {UNLIKE}")
            continue
        if error.is_text:
            lines.append(f"  {name}: {100 * (error.agreement or 0):.1f} % of the texts are the original's")
            continue
        agree = "" if error.agreement is None else f", {100 * error.agreement:.1f} % of the largest scores agree"
        lines.append(f"  {name}: error {100 * error.relative:.2f} % (RMS), cosine {error.cosine:.6f}{agree}")
    if result.outputs and all(error.noisy for error in result.outputs.values()):
        lines.append(
            "note: noise decides all outputs, so that no error was measured; judge some answers of the seed yourself"
        )
    if result.line:
        lines.append(_line_text(result))
    if result.dtype != FP32.name:
        word, _, _ = result.dtype.partition("-")  # as the command line takes it; a note says what it fell back to
        lines.append(f"devices hold {size(result.held_bytes)} of weights by --dtype {word}")
    if result.error_rates:
        lines.append(f"wrong by the labels: {error_rates_text(result.error_rates)}")
    if result.timed_out:
        lines.append("note: the time limit ended the search; more time, or a lower --effort, may make the seed smaller")
    if warning := beyond_use(result):
        lines.append(f"warning: {warning}")
    in_floats = result.dtype == FP32.name
    if result.default and in_floats and not in_attributes and result.bytes > fp32_bytes(result.graph) / LEAST_RATIO:
        lines.append(f"note: {_reason(result)}")
    lines.extend(f"note: {note}" for note in (*result.graph.notes, *result.notes))
    lines.append("encoded and checked in " + ", ".join(f"{phase} {t:.1f} s" for phase, t in result.seconds.items()))
    runs = "run it: seed-run {} --verify" if result.outputs else "write the model: seed-run {} --assemble model"
    lines.append(runs.format(result.path))
    return "\n".join(lines)


def error_rates_text(rates: tuple[float, float]) -> str:
    """Say how many of the task's decisions are wrong."""
    return f"{100 * rates[1]:.2f} % of the decisions, of the original's {100 * rates[0]:.2f} %"


def _line_text(result: Result) -> str:
    """Say what the seed was kept to, and how far that can be trusted."""
    damage = f"damage {result.damage:.3g} by {result.metric}"
    if result.line_kept:
        text = f"as small as it keeps {result.line}; {damage}"
    elif result.default:
        text = f"as large as it is by default, which doesn't keep {result.line}; {damage}; --quality goes further"
    else:
        text = f"the best that was found doesn't keep {result.line}; {damage}"
    if result.inputs == "generated":
        text += "; generated inputs mislead: real ones, by --calib x.npz, may allow a far smaller seed"
    return text


def ratio_text(result: Result) -> str:
    """Say how much smaller or larger the seed is than the original, and how many bits it has for each number."""
    text = f"{result.ratio:.2f}x smaller" if result.ratio >= 1 else f"{1 / result.ratio:.2f}x larger"
    if not result.parameters:
        return text
    if source_size(result.graph).in_attributes:
        kind, counted = "number", f"{result.parameters / 1e6:.2f} M numbers, most in attributes of its nodes"
    else:
        kind, counted = "weight", f"{result.parameters / 1e6:.2f} M parameters"
    return f"{text}, {result.bits_per_weight:.2f} bits per {kind} ({counted})"


def goal_missed(result: Result, options: Options) -> str:
    """Say what was asked for and not reached, what was written, and what to do."""
    if options.quality is not None:
        wanted = f"quality {options.quality:.10g}"
    elif options.target is not None:
        wanted = f"{options.target:g}x"
    else:
        wanted = f"{options.size:,} bytes"
    found = f"{result.bytes:,} bytes, {result.ratio:.2f}x is "
    if options.quality is not None:
        found += f"the best so far, with a damage of {result.damage:.3g} by {result.metric},"
    elif result.healing:
        return (
            f"{wanted} was not reached: {found}the best so far, and was written to {result.path}; give it more time, "
            f"or ask for less"
        )
    elif METHODS[options.method].has_quality and not result.timed_out:
        found += "the best so far, about the smallest possible size,"
    else:
        found += "the best so far"
    return f"{wanted} was not reached: {found} and was written to {result.path}; {advice(result)}"


def advice(result: Result) -> str:
    """Say what to do about a size that was not reached."""
    if warning := beyond_use(result):
        return warning
    if source_size(result.graph).in_attributes:
        return "ask for less: what is in attributes of nodes is kept bit by bit"
    if not _adjustable(result):
        return f"ask for less: {_NO_MATRICES}"
    return "ask for less, or give the model fewer parameters"


def noise_text(error: OutputError) -> str:
    """Say what was compared of an output that noise decides."""
    if error.relative > LOST:
        return "noise decides it, and its type, known sizes or infinities differ from the original's"
    return "noise decides it, as two runs of the original differ; its type and known sizes are the original's"


def beyond_use(result: Result) -> str:
    """Warn of a seed whose answers have little to do with the original's; "" for all others.

    Integers are judged where there is nothing else: one box more, and the indices of all others have moved.
    """
    chosen = _integers(result)
    judged = {name: error for name, error in result.outputs.items() if name not in chosen} or result.outputs
    lost = [name for name, error in judged.items() if not error.identical and error.relative > LOST]
    if not lost:
        return ""
    worst = max(100 * judged[name].relative for name in lost)
    error = f"error {worst:.0f} %" if math.isfinite(worst) else "another shape, infinity or NaN"
    return (
        f"the answers of this seed have little to do with the original's ({', '.join(lost)}: {error}), so that it is "
        f"hardly of use; ask for a larger one, or compare on real inputs with --calib"
    )


def _integers(result: Result) -> set[str]:
    """Return the names of the outputs that are tensors of integers or truth values, such as indices of boxes."""
    codes = {value.name: value.type.tensor_type.elem_type for value in result.graph.model.graph.output}
    return {name for name, code in codes.items() if code in BY_CODE and BY_CODE[code].name.startswith(_INTEGERS)}


def _reason(result: Result) -> str:
    """Say in numbers what keeps a seed from LEAST_RATIO, and whether --target helps."""
    allowed = fp32_bytes(result.graph) / LEAST_RATIO
    quantized = _adjustable(result)
    streams = [stream for stream in result.seed.streams if not set(quantized) & set(stream.names)]
    kept = sum(stream.size for stream in streams)
    fixed = result.bytes - sum(stream.size for stream in result.seed.streams)
    text = (
        f"less than {LEAST_RATIO:g}x against fp32, which would be {size(allowed)}: graph and header take "
        f"{size(fixed)}" + (f", what is kept of vectors and integers {size(kept)}" if kept else "")
    )
    count = sum(result.graph.weights[name].count for name in quantized)
    room = 8 * (allowed - fixed - kept)
    if fixed >= allowed:
        return f"{text}, so that no choice of weights reaches it"
    if not count:
        return f"{text}; {_NO_MATRICES}"
    if room > 0:
        text += f", which leaves {room / count:.2f} bits for each of the {count:,} weights that can be quantized"
    return f"{text}; --target goes further"


def _adjustable(result: Result) -> list[str]:
    """Return the names of the weights that are quantized, and may be so more coarsely."""
    return [name for name, plan in result.plans.items() if plan.adjustable]


def size(count: float) -> str:
    """Write a number of bytes as people read it, in powers of 1000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f} bytes"
