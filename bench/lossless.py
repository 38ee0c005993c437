"""Compare `--method lossless` with xz, zstd and ZipNN on the weights of every public model, bit by bit the same.

The peers get the same distinct weights as plain bytes. xz (-9e) and zstd (-19, window 128 MiB) each compress the bytes
as they are stored and as planes (all first bytes, then all second ones, ...), and the smaller result counts; casts are
compressed as planes only. ZipNN gets the element type, and the types one by one. The seed's figure is the whole file
without its graph.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

import seed_runtime
from bench import chart, measure, seeds
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.calibrate import Statistics
from seed_exporter.codecs.base import Plan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize.methods import METHODS, Evaluator
from seed_exporter.skeletons import builder_for
from seed_runtime.assembly.assemble import decode_streams
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.reader import SeedReader

CAST = ("minilm6", "efflite0")
"""Models whose weights are also measured in other types."""
XZ = {"format": lzma.FORMAT_XZ, "preset": 9 | lzma.PRESET_EXTREME, "check": lzma.CHECK_CRC32}
ZSTD_LEVEL, ZSTD_WINDOW_LOG = 19, 27
ZIPNN_TYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}


def run(quick: bool = False) -> Figures:
    from bench.public import MODELS, cache_folder

    rows: list[Figures] = []
    goals: list[Goal] = []
    names = ("magika", "ppcls", "basicpitch") if quick else tuple(MODELS)
    for name in names:
        measure.note(f"lossless: {name}")
        graph = loaders.load(MODELS[name].prepare(cache_folder()))
        kinds: dict[str, Graph] = {"as it is": graph}
        if name in CAST:
            kinds |= {"bf16": cast(graph, "bfloat16"), "fp16": cast(graph, "float16"), "int8": to_int8(graph)}
        for kind, variant in kinds.items():
            measure.note(f"lossless: {name}, {kind}")
            row = {"model": name, "kind": kind, **_measured(variant, thorough=variant is graph)}
            measure.say(f"{name}, {kind}: {row['ratio']:g}x in {row['seconds']:.0f} s")
            rows.append(row)
            goals += _goals(row)
    return {"rows": rows, "goals": [goal.as_json() for goal in goals], "load": measure.load()}


def _goals(row: Figures) -> list[Goal]:
    title = row["model"] if row["kind"] == "as it is" else f"{row['model']} as {row['kind']}"
    return [
        Goal(f"{title}: bytes, of the best of {', '.join(row['peers'])}",
             row["seed_bytes"] / min(row["peers"].values()), 1, "x"),
        Goal(f"{title}: decoding, times xz's speed", row["times_xz"], 1, "x", least=True),
        Goal(f"{title}: weights bit by bit the same", float(row["exact"]), 1, "", least=True),
    ]  # fmt: skip


def _measured(graph: Graph, thorough: bool) -> Figures:
    start = time.perf_counter()
    data = {dtype: b"".join(parts) for dtype, parts in _by_type(graph.weights.values()).items()}
    size = sum(len(part) for part in data.values())
    with measure.scratch() as folder:
        path = folder / "model.seed"
        made = seeds.make(graph, _plans(graph, folder), path)
        header = seed_runtime.open(path).header
        exact = _assembles_to(graph, path, folder / "out", [name for stream in made.streams for name in stream.names])
        peers = _peers(data, thorough)
        coded = folder / "weights.xz"
        coded.write_bytes(lzma.compress(b"".join(data.values()), format=lzma.FORMAT_XZ, preset=6))
        times = measure.rounds({"seed": _seed(path, folder / "plain"), "xz": _xz(coded, folder / "plain")}, 3)
        seed_bytes = path.stat().st_size - sum(part.size for part in header.parts)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "types": {dtype: len(part) for dtype, part in data.items()},
        "bytes": size,
        "seed_bytes": seed_bytes,
        "graph_bytes": sum(part.size for part in header.parts),
        "ratio": measure.rounded(size / seed_bytes),
        "peers": peers,
        "exact": exact,
        "seed_mb_per_s": measure.rounded(size / measure.median([each.cpu for each in times["seed"]]) / 1e6),
        "xz_mb_per_s": measure.rounded(size / measure.median([each.cpu for each in times["xz"]]) / 1e6),
        "times_xz": measure.rounded(measure.median_ratio(times["xz"], times["seed"])),
    }


def _plans(graph: Graph, folder: Path) -> dict[str, Plan]:
    """Return the plans of `--method lossless`, which needs sizes and runs no model."""
    evaluator = Evaluator(
        encoder=StreamEncoder(graph),
        skeletons=builder_for(graph),
        model=seeds.model_of("bench", graph),
        statistics=Statistics({}),
        front_bytes=0,
        goal=None,
        feeds=(),
        expected=(),
        folder=folder,
    )
    return dict(METHODS["lossless"].choose(evaluator, lambda: None).plans)


def _seed(path: Path, out: Path) -> Callable[[], measure.Spent]:
    """Decode header and streams to the weights file, digests included, but not the graph, which xz doesn't have."""

    def decode() -> None:
        with path.open("rb", buffering=0) as source, out.open("wb", buffering=0) as target:
            reader = SeedReader(source, path.name)
            for part in reader.header.parts:
                reader.skip_part(part)
            decode_streams(reader.header, reader.chunks, target.write)

    return lambda: measure.spent(decode)


def _xz(path: Path, out: Path) -> Callable[[], measure.Spent]:
    """Return a function that times xz's decoder, on a file of preset 6.

    It decodes a little faster than one of 9e, whose dictionary exceeds the cache, and is as small within 1 %.
    """

    def decode() -> None:
        with lzma.open(path) as source, out.open("wb", buffering=0) as target:
            shutil.copyfileobj(source, target, 1 << 20)

    return lambda: measure.spent(decode)


def _assembles_to(graph: Graph, path: Path, folder: Path, order: list[str]) -> bool:
    """Return whether the assembled file has every byte of every weight."""
    seed_runtime.open(path).assemble(folder)
    weights = np.memmap(folder / "model.weights", np.uint8, "r")
    holes = seed_runtime.open(path).header.holes
    for name, hole in zip(order, holes, strict=True):
        data = graph.weights[name].data
        if hashlib.sha256(weights[hole.offset : hole.offset + hole.size]).digest() != _digest(data):
            return False
    return True


def _digest(data: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).digest()


def _by_type(weights: Iterable[Weight]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for weight in weights:
        found.setdefault(weight.dtype.name, []).append(np.ascontiguousarray(weight.data).tobytes())
    return found


def _peers(data: dict[str, bytes], thorough: bool) -> dict[str, int]:
    """Compute the size of each peer's best result, summed over element types [B]."""
    candidates = [b"".join(planes(part, BY_NAME[dtype].bits // 8) for dtype, part in data.items())]
    if thorough:
        candidates.append(b"".join(data.values()))
    with ProcessPoolExecutor(2) as pool:
        xz = [pool.submit(xz_size, candidate) for candidate in candidates]
        zstd = [pool.submit(zstd_size, candidate) for candidate in candidates]
        sizes = {
            "xz": min(each.result() for each in xz),
            "zstd": min(each.result() for each in zstd),
        }
    sizes["ZipNN"] = sum(zipnn_size(part, dtype) for dtype, part in data.items())
    return sizes


def planes(data: bytes, width: int) -> bytes:
    """Return all first bytes of the elements, then all second ones, and so on."""
    return np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes() if width > 1 else data


def xz_size(data: bytes) -> int:
    return len(lzma.compress(data, **XZ))


def zstd_size(data: bytes) -> int:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG, enable_ldm=True, source_size=len(data)
    )
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def zipnn_size(data: bytes, dtype: str) -> int:
    """Compute ZipNN's size [B]; types that it doesn't know count as bfloat16 or uncompressed, whichever is smaller."""
    from zipnn import ZipNN

    known = ZIPNN_TYPES.get(dtype)
    if known is None and len(data) % 2:
        return len(data)
    coder = ZipNN(input_format="byte", bytearray_dtype=known or "bfloat16", threads=1)
    coded = coder.compress(bytearray(data))
    if bytes(coder.decompress(coded)) != data:
        raise RuntimeError("ZipNN gave other bytes back")
    return min(len(coded), len(data)) if known is None else len(coded)


def cast(graph: Graph, dtype: str) -> Graph:
    """Return the same weights with their fp32 tensors rounded to `dtype`."""
    return Graph(graph.model, {name: _cast(weight, dtype) for name, weight in graph.weights.items()})


def _cast(weight: Weight, name: str) -> Weight:
    if weight.dtype.name != "float32":
        return weight
    if name == "float16":
        data = weight.data.astype(np.float16)
    else:
        bits = np.ascontiguousarray(weight.data).view(np.uint32)
        data = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    return replace(weight, dtype=BY_NAME[name], data=data)


def to_int8(graph: Graph) -> Graph:
    """Return the same weights with every matrix rounded to int8, scaled by its rows' largest value."""
    weights = {}
    for name, weight in graph.weights.items():
        if kind_of(weight) is Kind.MATRIX:
            values = as_float32(weight)
            scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-30) / 127
            data = np.rint(values / scale).astype(np.int8).reshape(weight.shape)
            weight = replace(weight, dtype=BY_NAME["int8"], data=data)
        weights[name] = weight
    return Graph(graph.model, weights)


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | weights | seed | xz -9e | zstd -19 | ZipNN | ratio | decoding | xz's |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        title = row["model"] if row["kind"] == "as it is" else f"– as {row['kind']}"
        peers = row["peers"]
        lines.append(
            f"| {title} | {row['bytes'] / 1e6:.2f} MB | **{row['seed_bytes'] / 1e6:.3f} MB** "
            f"| {peers['xz'] / 1e6:.3f} | {peers['zstd'] / 1e6:.3f} | {peers['ZipNN'] / 1e6:.3f} "
            f"| {row['ratio']:.3f}x | {row['seed_mb_per_s']:.0f} MB/s | {row['xz_mb_per_s']:.0f} MB/s |"
        )
    return lines


def charts(figures: Figures) -> dict[str, str]:
    groups = {}
    for row in figures["rows"]:
        title = row["model"] if row["kind"] == "as it is" else f"{row['model']} {row['kind']}"
        sizes = {"seed": row["seed_bytes"], **row["peers"]}
        groups[title] = {name: 100 * size / row["bytes"] for name, size in sizes.items()}
    return {"lossless": chart.bars("Lossless: bytes left, % of the weights", groups, "%")}
