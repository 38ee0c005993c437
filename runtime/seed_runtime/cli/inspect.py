"""`--inspect`: show what a seed holds and what it needs. No weight is decoded and no backend is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any

from seed_runtime import skeletons
from seed_runtime.backends import TensorSpec, dims_at, input_spec, litert, output_specs
from seed_runtime.backends.onnxruntime_releases import oldest_release
from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_seed
from seed_runtime.cli.terminal import Terminal, heading, one_line, print_json, table
from seed_runtime.codecs import CODECS
from seed_runtime.data import calls, stored  # noqa: F401  a run holds them as well, so the plan must count them
from seed_runtime.errors import MemoryBudgetError
from seed_runtime.format.header import Header
from seed_runtime.format.parts import PROCESSING, TRAINING
from seed_runtime.format.preamble import VERSION
from seed_runtime.golden import SUPPLIED, Expected
from seed_runtime.seed import Seed
from seed_runtime.units import mib, size_text


def inspect(job: Job, terminal: Terminal) -> int:
    """Show the seed as tables, or as one JSON object; return the exit code."""
    with open_seed(job) as seed:
        if seed.header.base is not None and seed.base is None:
            return _inspect_without_base(seed, job)
        info = seed.skeleton()
        # Before the tables are made: their memory is no part of the plan.
        memory = _memory(seed, job)
        facts = _facts(seed, info, memory)
    if job.json:
        print_json(facts)
    else:
        for line in _lines(facts):
            print(line)
    return 0


def _inspect_without_base(seed: Seed, job: Job) -> int:
    """Show what the header of a seed says whose base was not given; return the exit code."""
    facts = _identity(seed) | _origin(seed)
    if job.json:
        print_json(facts)
        return 0
    print(heading(f"{facts['name']}: {facts['model_id']} version {facts['model_version']}"))
    for line in table([("size", size_text(facts["bytes"])), ("digest", facts["digest"]), *_base_rows(facts)]):
        print(line)
    print(f"for all else, give its base: seed-run BASE --apply {seed.name} --inspect")
    return 0


def _identity(seed: Seed) -> dict[str, Any]:
    model = seed.header.model
    return {
        "name": seed.name,
        "model_id": model.model_id,
        "model_version": model.version,
        "format_version": VERSION,
        "signature": asdict(seed.signature()),
        "feature_level": model.feature_level,
        "min_runtime": ".".join(map(str, model.min_runtime)),
        "digest": seed.digest.hex(),
        "bytes": seed.file_size,
    }


def _origin(seed: Seed) -> dict[str, Any]:
    """Return what the seed says of its base, and of how it was trained."""
    base, tuned = seed.header.base, seed.header.tuned
    return {
        "base": None if base is None else {"digest": base.digest.hex(), "depth": base.depth},
        "tuned": None if tuned is None else asdict(tuned),
    }


def _base_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    base, tuned = facts["base"], facts["tuned"]
    if base is not None:
        depth = base["depth"]
        yield "base", f"{base['digest']}; the chain is {depth} {'seed' if depth == 1 else 'seeds'} deep"
    if tuned is not None:
        scores = f", {tuned['metric']} {tuned['before']:.4g} before and {tuned['after']:.4g} after"
        yield "tuned", tuned["mode"] + (scores if tuned["metric"] else "")


def _facts(seed: Seed, info: skeletons.SkeletonInfo, memory: dict[str, Any]) -> dict[str, Any]:
    header, model = seed.header, seed.header.model
    coded = sum(sum(stream.sizes) for stream in header.streams)
    # Those of a base aren't in the file.
    parts = {} if seed.shares_parts else {part.kind: part.size for part in header.parts}
    known = (header.skeleton.kind, TRAINING.number, PROCESSING.number)
    names = seed.kind.layout.check(info, header.holes)
    processing = _processing(seed)
    # Last of all that is read, as a pipe can be read only once.
    trellises = seed.trellises()
    return {
        **_identity(seed),
        **_origin(seed),
        "source_bytes": model.source_bytes,
        "ratio": round(model.source_bytes / seed.file_size, 3),
        "parameters": model.parameters,
        "bits_per_weight": round(8 * seed.file_size / model.parameters, 4) if model.parameters else None,
        "weights_bytes": header.weights.size,
        "weights_digest": header.weights.digest.hex(),
        "skeleton_bytes": header.skeleton.raw_size,
        "parts_bytes": {
            "header": seed.file_size - sum(parts.values()) - coded,
            "skeleton": parts.get(header.skeleton.kind, 0),
            "training": parts.get(TRAINING.number, 0),
            "processing": parts.get(PROCESSING.number, 0),
            "streams": coded,
            "other": sum(size for kind, size in parts.items() if kind not in known),
        },
        "disk_bytes": sum(seed.kind.sizes(header).values()),
        "memory": memory,
        "inputs": [_spec(input_spec(value)) for value in info.inputs],
        "optional_inputs": [_spec(input_spec(value)) for value in info.optional_inputs],
        "outputs": [_spec(spec) for value in info.outputs for spec in output_specs(value)],
        "ir_version": info.ir_version,
        "opsets": info.opsets,
        "oldest_onnxruntime": oldest_release(info.ir_version, info.opsets) if info.opsets else None,
        "backend": seed.kind.backend,
        "custom_operators": list(info.custom_operators),
        "metadata": dict(info.metadata),
        "golden": _golden(seed),
        "processing": processing,
        "ignored_sections": {f"{section:#06x}": size for section, size in header.ignored.items()},
        "held_as": _held(header),
        "codecs": _codecs(header, trellises),
        "tensors": [
            {
                "name": name,
                "name_digest": hole.name_digest.hex(),
                "dtype": hole.dtype.name,
                "shape": list(hole.dims),
                "bytes": hole.size,
                "codec": codec,
                "trellis": trellis,
                "stream": index,
            }
            for name, hole, (index, codec), trellis in zip(
                names, header.holes, _stream_of_holes(header), trellises, strict=True
            )
        ],
    }


def _memory(seed: Seed, job: Job) -> dict[str, Any]:
    """Return what --max-memory must allow: for assembly, and for sessions at the ends of what was measured."""
    assembly = seed.plan_assembly(cores=1).needed_bytes or 0
    plans: dict[str, Any] = {
        "assembly_bytes": assembly,
        "assembly_mib": mib(assembly),
        "sessions": [],
        "modes": {},
    }
    footprint = seed.footprint()
    if footprint is None:
        return plans
    ends = [min(footprint.points), max(footprint.points, key=lambda point: (prod(point), point))]
    for point in dict.fromkeys(ends):
        dims = dims_at(footprint.axes, point)
        fastest = max(seed.plan_session(dims, threads=job.threads).needed_bytes or 0, assembly)
        least = max(_least(seed, dims, job.threads), assembly)
        plans["sessions"].append(
            {
                "dims": dims,
                "needed_bytes": fastest,
                "needed_mib": mib(fastest),
                "least_bytes": least,
                "least_mib": mib(least),
            }
        )
    plans["modes"] = {
        mode.name: [
            {"dims": dims, "bytes": footprint.predict(mode.name, dims)}
            for dims in (dims_at(footprint.axes, point) for point in footprint.points)
        ]
        for mode in footprint.modes
    }
    return plans


def _least(seed: Seed, dims: Mapping[str, int], threads: int | None) -> int:
    """Return the limit that the mode with the least memory needs [B]."""
    try:
        return seed.plan_session(dims, 1, threads=threads).needed_bytes or 0
    except MemoryBudgetError as error:
        return error.needed


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}


def _golden(seed: Seed) -> dict[str, Any] | None:
    golden = seed.golden
    if golden is None:
        return None
    return {
        "bytes": len(seed.header.golden or b""),
        "inputs": [
            {"dtype": each.dtype.name, "shape": list(each.dims), "supplied": each.kind == SUPPLIED}
            for each in golden.inputs
        ],
        "outputs": [
            {"compared": False}
            if each is None
            else {"elements": each.size, "tolerance": each.tolerance if isinstance(each, Expected) else 0.0}
            for each in golden.outputs
        ],
    }


def _processing(seed: Seed) -> dict[str, Any] | None:
    """Return what stands before and behind the model."""
    steps = seed.processing()
    if steps is None:
        return None
    return {
        "asked_about": list(steps.media) if steps.generation is None else ["prompt"],
        "description": dict(steps.description),
        "attachments": dict(steps.attachments),
    }


def _processing_rows(processing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a row for each step and each attachment."""
    description = processing["description"]
    for title, side, ends in (("asked about", "inputs", "fills"), ("answers", "outputs", "reads")):
        for index, step in enumerate(description.get(side, [])):
            names = ", ".join(step[ends].values())
            yield title if index == 0 else "", f"{step['kind']}: {names}"
    if (words := description.get("generation")) is not None:
        yield "asked about", f"prompt: {', '.join(words['fills'].values())}, of at most {words['context']:,} tokens"
        yield "answers", f"text: {', '.join(words['reads'].values())}"
    for index, (name, size) in enumerate(processing["attachments"].items()):
        yield "attached" if index == 0 else "", f"{name}, {size_text(size)}"


def _codec_name(number: int) -> str:
    return CODECS[number].name if number in CODECS else f"codec {number}"


def _stream_of_holes(header: Header) -> Iterator[tuple[int, str]]:
    """Yield the number of the stream and the name of the codec of each hole."""
    for index, stream in enumerate(header.streams):
        yield from [(index, _codec_name(stream.codec))] * stream.holes


def _codecs(header: Header, trellises: Sequence[bool]) -> list[dict[str, Any]]:
    """Return sums over all streams of a codec."""
    sums: dict[str, dict[str, Any]] = {}
    for stream in header.streams:
        holes = header.holes[stream.first : stream.first + stream.holes]
        row = sums.setdefault(
            name := _codec_name(stream.codec),
            {"codec": name, "streams": 0, "tensors": 0, "trellises": 0, "chunks": 0, "elements": 0, "bytes": 0},
        )
        row["streams"] += 1
        row["tensors"] += stream.holes
        row["trellises"] += sum(trellises[stream.first : stream.first + stream.holes])
        row["chunks"] += len(stream.sizes)
        row["elements"] += sum(hole.count for hole in holes)
        row["bytes"] += sum(stream.sizes)
    for row in sums.values():
        row["bits_per_weight"] = round(8 * row["bytes"] / max(1, row["elements"]), 4)
    return list(sums.values())


def _held(header: Header) -> dict[str, int]:
    """Return how many bytes of the assembled weights have each element type, the most first [B]."""
    sizes: Counter[str] = Counter()
    for hole in header.holes:
        sizes[hole.dtype.name] += hole.size
    return dict(sizes.most_common())


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Write the facts as lines for people."""
    parts, memory, golden = facts["parts_bytes"], facts["memory"], facts["golden"]
    yield heading(f"{facts['name']}: {facts['model_id']} version {facts['model_version']}")
    exact = f" ({facts['bytes']:,} bytes)" if facts["bytes"] >= 1000 else ""
    ratio = f"{facts['ratio']:.4g} times smaller"
    if 0 < facts["ratio"] < 1:
        ratio = f"{1 / facts['ratio']:.4g} times larger"
    rows = [
        (
            "size",
            f"{size_text(facts['bytes'])}{exact}, {ratio}",
        ),
        ("weights", _weights(facts)),
        ("made of", ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size)),
        (
            "format",
            f"{facts['format_version']}, level {facts['feature_level']}: seed-runtime {facts['min_runtime']} and newer",
        ),
        ("digest", facts["digest"]),
        *_signature(facts["signature"]),
        *_base_rows(facts),
        ("disk", f"{size_text(facts['disk_bytes'])} once assembled"),
        ("held as", ", ".join(f"{dtype} {size_text(size)}" for dtype, size in facts["held_as"].items()) or "nothing"),
        ("memory", f"{memory['assembly_mib']:.1f} MiB to assemble"),
    ]
    for plan in memory["sessions"]:
        sizes = ", ".join(f"{key} = {size}" for key, size in plan["dims"].items()) or "any input"
        need = f"{plan['needed_mib']:.1f} MiB to run at full speed, at least {plan['least_mib']:.1f}"
        rows.append(("", f"{need}: {sizes}"))
    if not memory["sessions"]:
        rows.append(("", "sessions were not measured: --max-memory can't be enforced for them"))
    rows.append(("golden", f"a sample of {golden['bytes']} bytes" if golden else "no sample"))
    for kind in ("inputs", "optional_inputs", "outputs"):
        for index, spec in enumerate(facts[kind]):
            text = str(TensorSpec(spec["name"], spec["dtype"], None if spec["shape"] is None else tuple(spec["shape"])))
            rows.append((kind.removesuffix("_inputs") if index == 0 else "", text))
    if facts["processing"] is not None:
        rows.extend(_processing_rows(facts["processing"]))
    rows.append(("library", _library(facts)))
    about = {} if facts["processing"] is None else facts["processing"]["description"].get("about", {})
    for index, (key, value) in enumerate({**facts["metadata"], **about}.items()):
        rows.append(("metadata" if index == 0 else "", f"{key}: {one_line(value)}"))
    yield from table(rows)
    if not facts["tensors"]:
        return
    yield ""
    yield from _table(
        ("codec", "streams", "tensors", "trellises", "chunks", "elements", "bytes", "bits_per_weight"), facts["codecs"]
    )
    yield ""
    tensors = [
        {
            **row,
            "shape": "x".join(map(str, row["shape"])) or "scalar",
            "codec": row["codec"] + (", trellis" if row["trellis"] else ""),
        }
        for row in facts["tensors"]
    ]
    yield from _table(("name", "dtype", "shape", "codec", "bytes"), tensors)


def _weights(facts: Mapping[str, Any]) -> str:
    if not facts["parameters"]:
        return "none"
    return f"{facts['parameters']:,} at {facts['bits_per_weight']:.4g} bits, everything counted"


def _library(facts: Mapping[str, Any]) -> str:
    if facts["custom_operators"]:
        return f"none: {', '.join(facts['custom_operators'])} are operators that only its maker's programs have"
    if facts["backend"] == litert.BACKEND.name:
        return f"LiteRT: {' or '.join(litert.PACKAGES.values())}"
    versions = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in facts["opsets"].items())
    release = facts["oldest_onnxruntime"]
    needed = f"ONNX Runtime {release} and newer" if release else "no ONNX Runtime that is known"
    return f"{needed}: IR version {facts['ir_version']}, opset {versions}"


def _signature(signature: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if signature["key"] is None and signature["signer"] is not None:
        yield "signed", f"made on this machine, out of a seed that is signed by {signature['signer']}"
    elif signature["key"] is None:
        yield "signed", "unsigned"
    elif signature["signer"] is not None:
        yield "signed", f"by {signature['signer']}, {signature['key']}"
    else:
        yield "signed", f"with {signature['key']}" + ("" if signature["enforced"] else ", by whom is not checked here")
    if signature["problem"] is not None:
        yield "", ("refused here: " if signature["enforced"] else "") + signature["problem"]


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in columns] for row in rows]
    right = [index for index, name in enumerate(columns) if rows and not isinstance(rows[0][name], str)]
    first, *rest = table([[name.replace("_", " ") for name in columns], *cells], right)
    yield heading(first)
    yield from rest
