"""Put a seed that was proven on the disk, and say what it became."""

from __future__ import annotations

import shutil
from pathlib import Path

import seed_runtime
from seed_exporter.quantize.against_base import count_modes
from seed_exporter.records import Built, Proven, Work
from seed_exporter.results import Result, Source
from seed_runtime.system.files import atomic_write
from seed_runtime.trust.sshsig import describe_key


def write(proven: Proven, source: Source, output: Path, work: Work) -> Result:
    """Put the file in place once its bytes have been read back and checked."""
    built, made, options = proven.built, proven.draft, work.options
    with work.timed("write"):
        # Not beside the output, which may be a pipe; and not to stay, so that only the copy needs to reach the disk.
        whole = work.subfolder("written") / "seed"
        with open(whole, "wb") as file:
            size = made.write_into(file)
        # Whatever this machine's allowed signers are: the seed isn't for it alone.
        base = made.base
        written = seed_runtime.open(whole, enforce=False, base=None if base is None else base.seed)
        written.check(cache=None if base is None else base.cache)
        with open(whole, "rb") as copied, atomic_write(output) as target:
            shutil.copyfileobj(copied, target)
    goal, signature = source.goal(options), made.header.signature
    return Result(
        path=output,
        bytes=size,
        ratio=source.ratio(size),
        parameters=source.parameters,
        bits_per_weight=8 * size / max(1, source.parameters),
        outputs=proven.judgement.errors,
        goal_met=(goal is None or size <= goal) and (options.quality is None or built.met),
        seconds=work.seconds,
        inputs=source.reference.kind,
        inputs_note=source.reference.note,
        notes=(*work.notes, *_base_notes(built, work)),
        graph=built.graph,
        plans=built.plans,
        seed=made,
        digest=written.digest.hex(),
        signed_with=None if signature is None else describe_key(signature),
        default=goal is None and options.quality is None and work.method.has_default,
        damage=proven.judgement.damage,
        metric=source.metric(options).name,
        line=line.text if goal is None and work.method.has_quality and (line := source.line(options)) else "",
        line_kept=proven.judgement.line_kept,
        points=tuple(built.trail.points),
        weight_bytes=built.weight_bytes,
        weight_damages=dict(built.trail.damages),
        calibrated=work.findings.calibrated,
        effort=options.effort,
        timed_out=built.trail.expired_in_search,
        error_rates=proven.judgement.error_rates,
        tuning=proven.tuning,
        healing=tuple(built.trail.looks),
        dtype=options.dtype,
    )


def _base_notes(built: Built, work: Work) -> list[str]:
    """Say what the base was worth."""
    if work.base is None:
        return []
    same, differing = count_modes(built.plans)
    if not same + differing:
        return [f"no tensor takes fewer bytes with {work.base.seed.name}: the seed is whole and has no base"]
    anew = len(built.plans) - same - differing
    return [f"of {len(built.plans)} tensors {same} are those of the base, {differing} differ from it, {anew} are anew"]
