"""Measure updates of a model over a slow link: what differs from the version on the device, beside the whole seed.

The model predicts the next byte of a text from the 16 before it. Version 1 is trained on the sources of Python's own
library, version 2 is version 1 trained on for a tenth of the steps, on sources and on the prose of Python's manual
(`pydoc_data.topics`) in turn: once at the rate of version 1, once at a tenth of it. All are exported with inputs of
their training, version 2 also as what differs from version 1, and all are judged on text that nothing was trained or
chosen on: the last tenth of the files and of the manual.

The device is a real sshd on a loopback port behind a proxy that lets RATE bytes a second pass in each direction. Before
each push it has version 1, and its copy in the cache. Seconds are those of the clock for the whole push: login, checks,
transfer, installation with the golden sample, switch. Bytes are those of both directions on the wire.
"""

from __future__ import annotations

import socket
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from bench import measure
from bench.measure import Figures, Goal
from seed_devices.push import preflight
from seed_devices.push.candidates import find_candidates
from seed_devices.push.job import Options as PushOptions
from seed_devices.push.one_device import push
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.pace import Pace
from seed_exporter import export
from seed_exporter.results import Options
from seed_runtime.seed import Seed
from seed_runtime.seed import open as open_seed
from tests.devices.support.proxy import Proxy
from tests.devices.support.sshd import Sshd

RATE: Final = 20_000
"""Bytes a second in each direction: a slow radio link."""
BESIDE_MAX: Final = 20_000
"""Most bytes on the wire beside the seed itself, the login included: those of an unchanged push."""
UPDATES: Final = {"trained on at the same rate": 1.0, "fine-tuned at a tenth of the rate": 0.1}
"""How version 2 is made, and its share of version 1's rate."""
ROUNDS: Final = 3
CONTEXT, WIDTH, HIDDEN = 16, 16, 256
STEPS, BATCH = 2000, 512
"""Steps of version 1; version 2 takes a tenth of them more."""
RATE_OF_STEPS: Final = 2e-3
TEXT_MAX: Final = 4_000_000
"""Bytes of sources that are read."""
JUDGED: Final = 20_000
"""Bytes predicted of each held-out text."""

Weights = dict[str, npt.NDArray[np.float32]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Text:
    """One kind of text: what is trained on, and the last tenth, which isn't."""

    train: Bytes
    held_out: Bytes


def run(quick: bool) -> Figures:
    with measure.scratch() as folder:
        first, seconds, quality = _make_seeds(folder, 40 if quick else STEPS)
        server = Sshd(folder, settings="Subsystem sftp internal-sftp\n")
        try:
            with _Link(server.port, RATE) as link:
                updates = {
                    name: _pushes(server, link, first, second, number, 1 if quick else ROUNDS)
                    for number, (name, second) in enumerate(seconds.items())
                }
        finally:
            server.stop()
    beside = [case["wire_bytes"] - case["seed_bytes"] for cases in updates.values() for case in cases.values()]
    goals = [Goal("bytes on the wire beside the seed, the most of all pushes", max(beside), BESIDE_MAX, "bytes")]
    return {"rate": RATE, "updates": updates, "quality": quality, "goals": [goal.as_json() for goal in goals]}


def table(figures: Figures) -> list[str]:
    lines = [
        f"| version 2, over {figures['rate'] / 1000:.0f} KB/s | | whole seed | as a delta | |",
        "|---|---|--:|--:|--:|",
    ]
    for name, cases in figures["updates"].items():
        for text, key, unit in (
            ("the seed", "seed_bytes", "bytes"),
            ("on the wire", "wire_bytes", "bytes"),
            ("transfer", "transfer_s", "s"),
            ("whole push", "seconds", "s"),
        ):
            whole, delta = cases["whole"][key], cases["delta"][key]
            lines.append(f"| {name} | {text} | {whole:,} {unit} | **{delta:,} {unit}** | {delta / whole:.2f} |")
    lines += ["", "| bits per byte of held-out text | sources | manual |", "|---|--:|--:|"]
    lines += [f"| {name} | {bits['sources']:.3f} | {bits['manual']:.3f} |" for name, bits in figures["quality"].items()]
    return lines


def _pushes(server: Sshd, link: _Link, first: Path, second: Path, number: int, rounds: int) -> Figures:
    """Return the medians of pushes of one update, whole and as a delta in turn."""
    found = [_round(server, link, first, second, f"{number}-{count}") for count in range(rounds)]
    cases = {}
    for case in ("whole", "delta"):
        seconds, transfer = ([each[case][key] for each in found] for key in ("seconds", "transfer_s"))
        cases[case] = {
            "seed_bytes": found[0][case]["sent"],
            "wire_bytes": int(measure.median([each[case]["wire"] for each in found])),
            "seconds": round(measure.median(seconds), 2),
            "transfer_s": round(measure.median(transfer), 2),
        }
    return cases


def _round(server: Sshd, link: _Link, first: Path, second: Path, name: str) -> dict[str, dict[str, Any]]:
    """Push version 2 to two devices that have version 1: whole to one, as a delta to the other."""
    found = {}
    for case in ("whole", "delta"):
        measure.note(f"push {name}: {case}")
        alias = f"{case}{name}"
        device = server.device(alias)
        with Connection(device.alias, config=device.config) as connection:
            push(connection, preflight.load(first), None, PushOptions())
        slow = f"{alias}-slow"
        server.alias(slow, server.key_of(device), port=link.port)
        deltas = [second.with_name("v2-on-v1.seed")] if case == "delta" else []
        candidates = find_candidates(preflight.load(second), deltas)
        link.reset()
        start = time.perf_counter()
        with Connection(slow, config=device.config) as connection:
            done = push(connection, candidates, None, PushOptions())
        seconds = time.perf_counter() - start
        if done.state != "pushed" or (done.delta is not None) != (case == "delta"):
            raise RuntimeError(f"{case}: {done}")
        found[case] = {
            "sent": done.sent, "wire": link.total, "seconds": seconds, "transfer_s": done.seconds["transfer"],
        }  # fmt: skip
    return found


class _Link(Proxy):
    """A proxy that lets so many bytes a second pass in each direction."""

    def __init__(self, target: int, rate: int) -> None:
        self._paces = {True: Pace(rate), False: Pace(rate)}
        super().__init__(target)

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        pace = self._paces[up]
        try:
            while data := source.recv(pace.block):
                pace.wait(len(data))
                if up:
                    self.sent += len(data)
                else:
                    self.received += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


# The model


def _make_seeds(folder: Path, steps: int) -> tuple[Path, dict[str, Path], Figures]:
    """Train and export. Return version 1, version 2 by how it was made, with its delta beside it, and their losses."""
    texts = _texts()
    rng = np.random.default_rng(0)
    one = _initial(rng)
    measure.note("training version 1")
    _train(one, [texts["sources"]], steps, RATE_OF_STEPS, rng)
    first = _export(folder, one, 1, [texts["sources"]], rng)
    base = open_seed(first)
    quality = {"version 1, original": _bits(_original(one), texts), "version 1, seed": _bits(_of_seed(base), texts)}
    seconds = {}
    for number, (name, share) in enumerate(UPDATES.items()):
        measure.note(f"version 2, {name}")
        own = folder / str(number)
        own.mkdir()
        two = {key: value.copy() for key, value in one.items()}
        _train(two, list(texts.values()), max(1, steps // 10), share * RATE_OF_STEPS, rng)
        seconds[name] = _export(own, two, 2, list(texts.values()), rng)
        delta = _export(own, two, 2, list(texts.values()), rng, base=first)
        quality |= {
            f"version 2, {name}, original": _bits(_original(two), texts),
            f"version 2, {name}, whole seed": _bits(_of_seed(open_seed(seconds[name])), texts),
            f"version 2, {name}, delta": _bits(_of_seed(base.apply(delta)), texts),
        }
    return first, seconds, quality


def _export(
    folder: Path, weights: Weights, version: int, texts: list[Text], rng: np.random.Generator, base: Path | None = None
) -> Path:
    model, data = folder / f"v{version}.onnx", folder / f"v{version}.npz"
    if base is None:
        model.write_bytes(_model(weights).SerializeToString())
        np.savez(data, x=np.concatenate([_draw(text.train, 256 // len(texts), rng)[0] for text in texts]))
    path = folder / (f"v{version}.seed" if base is None else f"v{version}-on-v1.seed")
    below = () if base is None else (base,)
    export(model, output=path, options=Options(calib=data, model_id="bytes", model_version=version, base=below))
    return path


def _texts() -> dict[str, Text]:
    library = Path(sysconfig.get_path("stdlib"))
    data = b""
    for path in sorted(library.glob("*.py")) + sorted(library.glob("*/*.py")):
        if "site-packages" not in path.parts and "test" not in path.parts and path.parent.name != "pydoc_data":
            data += path.read_bytes()
    from pydoc_data import topics

    manual = "\n".join(topics.topics.values()).encode()
    return {"sources": _text(data[:TEXT_MAX]), "manual": _text(manual)}


def _text(data: bytes) -> Text:
    found, cut = np.frombuffer(data, np.uint8), len(data) * 9 // 10
    return Text(found[:cut], found[cut:])


def _initial(rng: np.random.Generator) -> Weights:
    def normal(rows: int, cols: int, fan: int) -> npt.NDArray[np.float32]:
        return (rng.standard_normal((rows, cols)) / np.sqrt(fan)).astype(np.float32)

    return {
        "embedding": normal(256, WIDTH, WIDTH),
        "w1": normal(CONTEXT * WIDTH, HIDDEN, CONTEXT * WIDTH // 2),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": normal(HIDDEN, 256, HIDDEN),
        "b2": np.zeros(256, np.float32),
    }


def _draw(text: Bytes, count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Bytes]:
    """Return `count` contexts of a text, and the byte behind each."""
    starts = rng.integers(0, len(text) - CONTEXT, count)
    return text[starts[:, None] + np.arange(CONTEXT)].astype(np.int64), text[starts + CONTEXT]


def _train(weights: Weights, texts: list[Text], steps: int, rate: float, rng: np.random.Generator) -> None:
    """Train in place with Adam, its rate falling to a tenth of `rate`; each step takes the next text in turn."""
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    for step in range(1, steps + 1):
        context, target = _draw(texts[step % len(texts)].train, BATCH, rng)
        now = rate * (1 - 0.9 * step / steps)
        for name, gradient in _gradients(weights, context, target).items():
            first[name] += 0.1 * (gradient - first[name])
            second[name] += 0.01 * (gradient * gradient - second[name])
            mean, power = first[name] / (1 - 0.9**step), second[name] / (1 - 0.99**step)
            weights[name] -= (now * mean / (np.sqrt(power) + 1e-8)).astype(np.float32)


def _gradients(weights: Weights, context: npt.NDArray[np.int64], target: Bytes) -> Weights:
    """Return the gradients of the mean cross-entropy."""
    rows = np.arange(len(target))
    joined = weights["embedding"][context].reshape(len(target), -1)
    hidden = np.maximum(joined @ weights["w1"] + weights["b1"], 0)
    logits = hidden @ weights["w2"] + weights["b2"]
    slope = np.exp(logits - logits.max(1, keepdims=True))
    slope /= slope.sum(1, keepdims=True)
    slope[rows, target] -= 1
    slope /= len(target)
    back = (slope @ weights["w2"].T) * (hidden > 0)
    embedding = np.zeros_like(weights["embedding"])
    np.add.at(embedding, context.reshape(-1), (back @ weights["w1"].T).reshape(-1, WIDTH))
    return {
        "embedding": embedding,
        "w1": joined.T @ back,
        "b1": back.sum(0),
        "w2": hidden.T @ slope,
        "b2": slope.sum(0),
    }


def _model(weights: Weights) -> Any:
    nodes = [
        helper.make_node("Gather", ["embedding", "x"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["joined"]),
        helper.make_node("Gemm", ["joined", "w1", "b1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, CONTEXT * WIDTH], np.int64), "shape"))
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", CONTEXT])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 256])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _original(weights: Weights) -> Any:
    def logits(context: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        joined = weights["embedding"][context].reshape(len(context), -1)
        return np.asarray(np.maximum(joined @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"])

    return logits


def _of_seed(seed: Seed) -> Any:
    def logits(context: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        with seed.session() as session:
            return np.asarray(session.run({"x": context})["logits"])

    return logits


def _bits(logits_of: Any, texts: Mapping[str, Text]) -> dict[str, float]:
    """Return the bits that each held-out byte costs, on average."""
    found = {}
    for name, text in texts.items():
        context, target = _draw(text.held_out, JUDGED, np.random.default_rng(1))
        logits = logits_of(context).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        surprise = np.log2(np.exp(logits).sum(1)) - logits[np.arange(len(target)), target] / np.log(2)
        found[name] = round(float(surprise.mean()), 4)
    return found
