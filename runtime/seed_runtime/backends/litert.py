"""LiteRT on the CPU: `ai_edge_litert`, or `tflite_runtime` on devices that have it. Imported when a model is opened.

Python gives LiteRT a file that it doesn't verify, so that a model is checked here once more (skeletons/tflite.py): a
folder may hold anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import sys
import threading
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from seed_runtime.backends import litert_notice
from seed_runtime.backends.interface import model_path, usable_cores
from seed_runtime.backends.tensors import Array, Feeds, TensorSpec, check_feeds
from seed_runtime.backends.values import input_spec
from seed_runtime.backends.workers import Watch, Workers
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.skeletons.info import SkeletonInfo
from seed_runtime.skeletons.tflite import MODEL_FILE, scan_file

PACKAGES: Final = MappingProxyType({"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"})
"""Packages that have LiteRT's interpreter, by their import names, the first that is there and can be used counts."""
_NUMPY_1: Final = "tflite_runtime"
"""Package that was compiled for NumPy 1. With NumPy 2 it is imported, and fails in the middle of opening a model."""
_IMPORT_BYTES: Final = 16 << 20
"""Memory that importing the library adds [B].

`ai_edge_litert` 2.3 adds 9.5 MB on x86-64 to a process that has NumPy; the rest is a margin for other versions and
processors.
"""
_MODES: Final = MappingProxyType({"fast": "BUILTIN", "lean": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"})
"""Modes and LiteRT's sets of operators: XNNPACK, in the first one, packs weights into its own memory, and is three to
five times as fast."""


class LiteRTBackend:
    """LiteRT as a `Backend`."""

    name = "litert"
    modes = tuple(_MODES)
    quick_modes = modes

    def available(self) -> bool:
        """Return whether one of the packages is installed (see `Backend.available`)."""
        return _installed() is not None

    def import_bytes(self) -> int:
        """Return what importing LiteRT will still add to the process [B] (see `Backend.import_bytes`)."""
        return 0 if any(f"{name}.interpreter" in sys.modules for name in PACKAGES) else _IMPORT_BYTES

    def load(self) -> None:
        """Import LiteRT (see `Backend.load`)."""
        _library()

    def version(self) -> str:
        """Return LiteRT's version (see `Backend.version`)."""
        from importlib import metadata

        _library()
        name = _installed()
        return metadata.version(PACKAGES[name]) if name else ""

    def open(self, folder: Path, mode: str, threads: int | None = None, *, watch: Watch | None = None) -> LiteRTRunner:
        """Open the model assembled in `folder` in LiteRT (see `Backend.open`)."""
        return self._open(folder, mode, threads, watch, preserves=False)

    def open_preserving(self, folder: Path, threads: int | None = None) -> LiteRTRunner:
        """Open a model so that `LiteRTRunner.inner` has every value between its operators, which takes much memory."""
        return self._open(folder, self.modes[-1], threads, None, preserves=True)

    def open_joined(
        self,
        model: bytes,
        folder: Path,
        threads: int | None = None,
        *,
        reuse_memory: bool = False,
        watch: Watch | None = None,
    ) -> LiteRTRunner:
        """Raise UnsupportedError: no TFLite model has a training graph."""
        raise UnsupportedError("a TFLite model can't be trained on a device; export an ONNX model for that")

    def _open(
        self, folder: Path, mode: str, threads: int | None, watch: Watch | None, *, preserves: bool
    ) -> LiteRTRunner:
        model = model_path(folder, MODEL_FILE, mode, _MODES)
        info = _checked(model)
        library, workers = _library(), Workers()
        if mode == self.modes[0] and not preserves:
            litert_notice.keep_out(library)

        def opened() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the option for all values takes is known
                interpreter = library.Interpreter(
                    model_path=str(model),
                    num_threads=threads or usable_cores(),
                    experimental_op_resolver_type=getattr(library.OpResolverType, _MODES[mode]),
                    experimental_preserve_all_tensors=preserves,
                )
            interpreter.allocate_tensors()
            return interpreter

        try:
            interpreter = workers.call(opened, lambda: None, watch)
        except (RuntimeError, ValueError) as error:
            raise UnsupportedError(
                f"LiteRT can't take this model: {_reason(error)}; install a newer {_package()}, or convert the model "
                f"with operators that it has"
            ) from error
        return LiteRTRunner(interpreter, info, workers)


class LiteRTRunner:
    """Model open in LiteRT, a `Runner`. Calls from several threads at once wait for each other."""

    def __init__(self, interpreter: Any, info: SkeletonInfo, workers: Workers) -> None:
        self._interpreter, self._workers = interpreter, workers
        self._lock = threading.Lock()
        self._places = [each["index"] for each in interpreter.get_input_details()]
        self._results = [each["index"] for each in interpreter.get_output_details()]
        self._inputs = tuple(map(input_spec, info.inputs))
        self._outputs = tuple(map(input_spec, info.outputs))
        for spec in (*self._inputs, *self._outputs):
            if spec.dtype not in BY_NAME or BY_NAME[spec.dtype].bits < 8 or not hasattr(np, spec.dtype.rstrip("_")):
                raise UnsupportedError(
                    f"{spec.name!r} of this model is of the type {spec.dtype}, and inputs and outputs are arrays of "
                    f"numbers; convert the model with the step left out that takes or makes it"
                )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that every run must give, in the model's order."""
        return self._inputs

    @property
    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Return none: no input of a TFLite model has a default."""
        return ()

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model, in its own order."""
        return self._outputs

    @property
    def metadata(self) -> dict[str, str]:
        """Return none: those of a TFLite model are flatbuffers."""
        return {}

    def check(self, feeds: Feeds, made: Collection[str] = ()) -> None:
        """Raise InputError for feeds that can't be used (see `Runner.check`)."""
        check_feeds(self._inputs, feeds, made=made)

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> dict[str, Array]:
        """Check the feeds, run the model once, and return outputs by name (see `Runner.run`)."""
        if self._interpreter is None:
            raise ValueError("the session is closed; open the seed again")
        places = dict(zip((spec.name for spec in self._outputs), self._results, strict=True))
        wanted = list(places) if outputs is None else list(outputs)
        for name in wanted:
            if name not in places:
                raise InputError(f"the model has no output {name!r}; it has {', '.join(places)}")
        self.check(feeds)
        interpreter = self._interpreter

        def work() -> dict[str, Array]:
            with self._lock:
                self._give(interpreter, feeds)
                interpreter.invoke()
                return {name: interpreter.get_tensor(places[name]) for name in wanted}

        try:
            return self._workers.call(work, lambda: None, watch)
        except (RuntimeError, ValueError) as error:
            given = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            raise InputError(
                f"the model can't run on {given}: {_reason(error)}; check the sizes and the values' range"
            ) from error

    def inner(self, number: int) -> Array:
        """Return the value of tensor `number` of the last run, of a model that was opened to preserve all."""
        value: Array = self._interpreter.get_tensor(number)
        return value

    def close(self) -> None:
        """Free the interpreter's memory (see `Runner.close`)."""
        self._workers.close()
        self._interpreter = None

    def _give(self, interpreter: Any, feeds: Feeds) -> None:
        """Copy feeds into the inputs, once these have their sizes."""
        shapes = [tuple(each["shape"]) for each in interpreter.get_input_details()]
        resized = False
        for spec, place, shape in zip(self._inputs, self._places, shapes, strict=True):
            if feeds[spec.name].shape != shape:
                interpreter.resize_tensor_input(place, feeds[spec.name].shape)
                resized = True
        if resized:
            interpreter.allocate_tensors()
        for spec, place in zip(self._inputs, self._places, strict=True):
            array = feeds[spec.name]
            interpreter.set_tensor(
                place, np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
            )


BACKEND = LiteRTBackend()


def _checked(model: Path) -> SkeletonInfo:
    with model.open("rb") as file:
        if not model.stat().st_size:
            raise UnsupportedError(f"{model} is empty; assemble it again")
        # Closed with the last view of it: an error on its way out holds some.
        info = scan_file(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if info.custom_operators:
        raise UnsupportedError(
            f"this model has operators that only its maker's programs have: {', '.join(info.custom_operators)}; "
            f"write the model with --assemble, and run it in a program that has them"
        )
    return info


def _installed() -> str | None:
    return next((name for name in PACKAGES if _is_there(name) and (name != _NUMPY_1 or _numpy_is_1())), None)


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _numpy_is_1() -> bool:
    return np.__version__.startswith("1.")


def _package() -> str:
    return PACKAGES.get(_installed() or "", "ai-edge-litert")


def _library() -> Any:
    name = _installed()
    if name is None and _is_there(_NUMPY_1):
        raise UnsupportedError(
            f"{PACKAGES[_NUMPY_1]} works with NumPy 1 and this is NumPy {np.__version__}; install LiteRT beside it: "
            f"pip install ai-edge-litert"
        )
    if name is None:
        raise UnsupportedError(
            "running a TFLite model needs LiteRT; install it with: pip install ai-edge-litert "
            "(or tflite-runtime, on Python 3.11 with NumPy 1)"
        )
    try:
        return importlib.import_module(f"{name}.interpreter")
    except ImportError as error:
        raise UnsupportedError(
            f"{PACKAGES[name]} can't be imported ({error}); install it again with: pip install -U {PACKAGES[name]}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
