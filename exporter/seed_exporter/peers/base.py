"""Parts that peers share: what a peer is, what it delivers, the file it gets, xz around what it writes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import lzma
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnx.version_converter

from seed_exporter.evaluate import inputs
from seed_exporter.evaluate.compare import compare, worst_relative
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_runtime import backends
from seed_runtime.backends import Feeds
from seed_runtime.errors import SeedError
from seed_runtime.skeletons.onnx import MODEL_FILE

SINGLE_FILE_MAX: Final = 2**31 - 1
"""Largest ONNX model in one file: the limit of a protobuf message [B]."""

PREPARED_ERROR_MAX: Final = 1e-3
"""Largest relative error of a model's outputs after it was prepared for a peer: graphs are rounded in another order."""


class PeerError(Exception):
    """A peer can't take this model; the text is its reason, in one line."""


@dataclass(frozen=True)
class Deliverable:
    """One file that a peer makes of a model.

    Attributes:
        size: of all that a device needs to have the model again: graph and coded weights [B].
        model: ONNX file that runs with the weights as they come out of it, called as in an assembled seed.
    """

    size: int
    model: Path


Make = Callable[[Graph, Sequence[Feeds], Path, int], Deliverable]
"""Function of the model, calibration inputs, an empty folder, and one of the peer's settings."""


@dataclass(frozen=True)
class Peer:
    """One way to make a model smaller, by software of others.

    Attributes:
        name: for tables.
        module: that must be installed.
        install: command that installs it.
        make: makes one deliverable; raises PeerError where it can't.
        settings: of the rate, from the finest on; one where the peer has no choice.
        title_of: what a setting is called in a table; "" where there is one only.
        needs_data: True if it calibrates on inputs.
    """

    name: str
    module: str
    install: str
    make: Make
    settings: tuple[int, ...] = (0,)
    title_of: Callable[[int], str] = lambda setting: ""
    needs_data: bool = False

    @property
    def is_installed(self) -> bool:
        """True if the package is here; nothing is imported."""
        # What this program itself put in the place of a module has no origin to find.
        if self.module in sys.modules:
            return True
        return importlib.util.find_spec(self.module) is not None


def xz_size(*data: bytes) -> int:
    """Compute the size of byte strings, compressed as one by `xz -9e` [B]."""
    coder = lzma.LZMACompressor(check=lzma.CHECK_CRC32, preset=9 | lzma.PRESET_EXTREME)
    return sum(len(coder.compress(part)) for part in data) + len(coder.flush())


def single_file(graph: Graph, folder: Path) -> Path:
    """Write the graph as one ONNX file with its weights inside, as peers expect it; return its path.

    Raises:
        PeerError: the model is larger than one file may be.
    """
    if graph.distinct_bytes >= SINGLE_FILE_MAX:
        raise PeerError("the model is larger than 2 GB, which one ONNX file can't hold")
    source = write_model_files(graph, folder)
    path = folder / "single.onnx"
    onnx.save(onnx.load(source), path)
    return path


def at_opset(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """Return the model with operators of version `least`, or as it is where they are as new."""
    return model if opset_of(model) >= least else onnx.version_converter.convert_version(model, least)


def with_folded_constants(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the model with operators computed that read constants only, by ONNX Runtime's pre-processing."""
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization import quant_pre_process

    source, target = folder / "unfolded.onnx", folder / "folded.onnx"
    onnx.save(model, source)
    # Its inference of symbolic shapes needs sympy, and fails where it can't tell all shapes.
    quant_pre_process(source, target, skip_symbolic_shape=True)
    return onnx.load(target)


def check_prepared(graph: Graph, model: onnx.ModelProto, folder: Path) -> None:
    """Check on a generated input that a model which was prepared for a peer answers as the original does.

    Raises:
        PeerError: it doesn't.
    """
    first, second = folder / "original", folder / "prepared"
    for place in (first, second):
        place.mkdir()
    write_model_files(graph, first)
    onnx.save(model, second / MODEL_FILE)
    try:
        runner = backends.get().open(first, "fast")
        try:
            specs = runner.inputs
            feeds = [inputs.make_feeds(specs, inputs.find_recipes(graph, specs, runner.run), 0)]
        finally:
            runner.close()
        error = worst_relative(compare(run_all(first, feeds), run_all(second, feeds)))
    except SeedError as problem:
        raise PeerError(f"the model that was prepared for it can't be compared: {problem}") from problem
    if not error <= PREPARED_ERROR_MAX:
        raise PeerError(f"the model that was prepared for it answers otherwise: relative error {error:.2g}")


@contextlib.contextmanager
def peer_call(folder: Path) -> Iterator[None]:
    """Keep what a peer prints, logs and writes to itself, and turn whatever it raises into its reason.

    Its passes raise anything on graphs that they don't expect, and nncodec exits. `folder` is the current one of all
    this process meanwhile: a peer has left weights there.

    Args:
        folder: for files that the peer doesn't say where to write, an absolute path.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    except PeerError:
        raise
    except (Exception, SystemExit) as error:
        first = " ".join(str(error).split())[:200]
        raise PeerError(f"it fails on this model: {type(error).__name__}: {first}") from error
    finally:
        logging.disable(disabled)


def delivered(path: Path) -> Deliverable:
    """Return an ONNX file of a peer without an entropy coder as its deliverable: the file, xz'ed."""
    target = path.parent / "delivered" / MODEL_FILE
    target.parent.mkdir()
    # With weights that the peer put beside it.
    onnx.save(onnx.load(path), target)
    return Deliverable(xz_size(target.read_bytes()), target)
