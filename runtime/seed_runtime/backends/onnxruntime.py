"""ONNX Runtime on the CPU. The library is imported when a model is opened, not before.

What the settings of each mode do to memory was measured: docs/adr/0003-onnx-runtime-memory.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from seed_runtime.backends.dimensions import broken_sums
from seed_runtime.backends.interface import model_path, usable_cores
from seed_runtime.backends.onnxruntime_errors import failures, locale_advice, reason
from seed_runtime.backends.onnxruntime_releases import is_older
from seed_runtime.backends.tensors import Array, Feeds, Shape, TensorSpec, check_feeds, made_in_place, shape_of
from seed_runtime.backends.values import ValueType, check_names, input_type, names_of, output_type
from seed_runtime.backends.workers import Watch, Workers
from seed_runtime.errors import InputError, SeedError, UnsupportedError
from seed_runtime.skeletons.info import SkeletonInfo
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE, scan
from seed_runtime.system.scratch import scratch_folder

_IMPORT_BYTES: Final = 24 << 20
"""Memory that importing the library adds [B].

`import onnxruntime` adds 20.5 MB (1.32, x86-64) to a process that has NumPy; the rest is a margin for other versions
and processors.
"""
_LEAN_FOLD_BYTES: Final = 1 << 16
"""The largest copy that constant folding may make of a weight in lean mode [B].

Shape computations stay below; a transposed copy of a tied embedding (154 MB in GPT-2's shape) does not, and is fused
into the MatMul.
"""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt. Source: <malloc.h>"""
_MALLOC_THRESHOLD: Final = 128 << 10
"""glibc's initial threshold [B]."""
_AS_REQUESTED: Final = 1
"""ArenaExtendStrategy::kSameAsRequested of ONNX Runtime."""
_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
"""Option for a model from memory: the folder of its weights file."""
_FOLDER_SINCE: Final = "1.21"
"""First release with this option."""
_IN_PLACE_SINCE: Final = "1.20"
"""First release whose attention is right where it adds several tokens to others in place; in 1.19 it is another one."""
_LOG_FATAL: Final = 4
"""Severity from which ONNX Runtime logs: it logs every failure that it raises as well, and the exception's text is
enough."""


@dataclass(frozen=True)
class _Mode:
    level: str
    arena: bool = True
    entries: tuple[tuple[str, str], ...] = ()


_MAPPED_WEIGHTS = (
    ("session.disable_prepacking", "1"),
    ("optimization.constant_folding_max_output_size_in_bytes", str(_LEAN_FOLD_BYTES)),
)

_MODES = {
    # All optimizations; weights are repacked into private memory and their mapped pages are released.
    "fast": _Mode("ORT_ENABLE_ALL"),
    # Weights stay mapped from the file. The highest level is left out because it reorders the weights of
    # convolutions into copies.
    "lean": _Mode("ORT_ENABLE_EXTENDED", entries=_MAPPED_WEIGHTS),
    # As lean, and the memory of each tensor is returned to the system at once: up to a third less for convolutional
    # networks, whose runs take up to eleven times as long.
    "small": _Mode("ORT_ENABLE_EXTENDED", arena=False, entries=_MAPPED_WEIGHTS),
}


class OnnxRuntimeBackend:
    """ONNX Runtime as a `Backend`. Models that are open at once share the arena that activations come from."""

    name = "onnxruntime"
    modes = tuple(_MODES)
    # Without repacked weights a model opens in a sixth to two thirds of the time, and a run takes up to 2.5 times as
    # long: docs/adr/0030-cold-start.md.
    quick_modes = ("lean", "fast", "small")

    def available(self) -> bool:
        """Return whether ONNX Runtime is installed (see `Backend.available`)."""
        return importlib.util.find_spec("onnxruntime") is not None

    def import_bytes(self) -> int:
        """Return what importing ONNX Runtime will still add to the process [B] (see `Backend.import_bytes`)."""
        return 0 if "onnxruntime" in sys.modules else _IMPORT_BYTES

    def load(self) -> None:
        """Import ONNX Runtime (see `Backend.load`)."""
        _library()

    def version(self) -> str:
        """Return ONNX Runtime's version (see `Backend.version`)."""
        return str(_library().__version__)

    def open(
        self, folder: Path, mode: str, threads: int | None = None, *, watch: Watch | None = None
    ) -> OnnxRuntimeRunner:
        """Open the model assembled in `folder` in ONNX Runtime (see `Backend.open`)."""
        model = model_path(folder, MODEL_FILE, mode, _MODES)
        return self._open(str(model), Path(folder), mode, threads, watch)

    def open_joined(
        self,
        model: bytes,
        folder: Path,
        threads: int | None = None,
        *,
        reuse_memory: bool = False,
        watch: Watch | None = None,
    ) -> OnnxRuntimeRunner:
        """Open a skeleton with more of a graph behind it; weights that are inputs are read from the file or fed."""
        mode = "lean" if reuse_memory else "small"  # a step of a small network: 18.3 ms, and 27.2 ms
        if not is_older(_library().__version__, _FOLDER_SINCE):
            return self._open(model, folder, mode, threads, watch)
        with scratch_folder() as beside:
            (beside / MODEL_FILE).write_bytes(model)
            (beside / WEIGHTS_FILE).symlink_to((folder / WEIGHTS_FILE).resolve())
            return self._open(str(beside / MODEL_FILE), folder, mode, threads, watch)

    def _open(
        self, source: str | bytes, folder: Path, mode: str, threads: int | None, watch: Watch | None
    ) -> OnnxRuntimeRunner:
        ort = _library()
        _freeze_malloc_thresholds()
        _share_exact_arena(ort)
        options, workers = _options(ort, _MODES[mode], threads), Workers()
        if isinstance(source, bytes):
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        # The oldest versions have none. Constants are folded while a model is loaded, which may take as long as a run.
        cancel = getattr(options, "set_load_cancellation_flag", lambda _: None)
        try:
            session = workers.call(
                lambda: ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]),
                lambda: cancel(True),
                watch,
            )
        except failures(ort) as error:
            raise UnsupportedError(
                f"ONNX Runtime {ort.__version__} can't take this model: {reason(error)}; "
                + (
                    locale_advice(error)
                    or "install a newer onnxruntime, or export the model with operators that it has"
                )
            ) from error
        return OnnxRuntimeRunner(ort, session, _MODES[mode].arena, workers, folder / MODEL_FILE)


class OnnxRuntimeRunner:
    """Model open in ONNX Runtime, a `Runner`. Calls from several threads at once are safe, and their memory adds up."""

    def __init__(self, ort: Any, session: Any, arena: bool, workers: Workers, model: Path) -> None:
        self._ort = ort
        self._session = session
        self._arena = arena
        self._workers = workers
        self._model = model
        inputs, optional = session.get_inputs(), session.get_overridable_initializers()
        outputs = session.get_outputs()
        shapes = self._shapes([*inputs, *optional, *outputs])
        self._inputs, self._optional = (
            tuple(input_type(value.name, value.type, shapes[value.name]).specs[0] for value in values)
            for values in (inputs, optional)
        )
        self._values = tuple(output_type(value.name, value.type, shapes[value.name]) for value in outputs)
        self._outputs = tuple(spec for value in self._values for spec in value.specs)
        check_names(self._outputs)
        self._metadata = dict(session.get_modelmeta().custom_metadata_map)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that every run must give, in the model's order."""
        return self._inputs

    @property
    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that have a default, which a run may give."""
        return self._optional

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model, in its own order."""
        return self._outputs

    @property
    def metadata(self) -> dict[str, str]:
        """Texts that the model's maker gave programs, by key."""
        return self._metadata

    def check(self, feeds: Feeds, made: Collection[str] = ()) -> None:
        """Raise InputError for feeds that can't be used (see `Runner.check`)."""
        check_feeds(self._inputs, feeds, self._optional, lambda: self._declared.takes_missing, made)

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> dict[str, Array]:
        """Check the feeds, run the model once, and return outputs by name (see `Runner.run`)."""
        known = {spec.name: value for value in self._values for spec in value.specs}
        wanted = list(known) if outputs is None else list(outputs)
        asked = list(dict.fromkeys(self._value(name, known) for name in wanted))
        names = [value.name for value in asked]
        values = self._call(lambda session, native, options: session.run(names, native, options), feeds, watch)
        found = {name: array for kind, value in zip(asked, values, strict=True) for name, array in kind.arrays(value)}
        if outputs is None:
            return found
        return {name: found[name] for spec in wanted for name in names_of(spec, found)}

    def run_into(self, feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run the model once and write outputs into arrays (see `WritingRunner.run_into`)."""
        known = {value.name: value for value in self._values if value.form == "tensor"}
        for name in (*into, *outputs):
            self._value(name, known)
        made = made_in_place(feeds, into)
        if made and is_older(self._ort.__version__, _IN_PLACE_SINCE):
            raise UnsupportedError(
                f"ONNX Runtime {self._ort.__version__} computes something else where a model adds to its past in "
                f"place; install onnxruntime {_IN_PLACE_SINCE} or later"
            )

        def bound(session: Any, native: Feeds, options: Any) -> list[Any]:
            binding = session.io_binding()
            for name, array in native.items():
                binding.bind_cpu_input(name, array)
            for name, array in into.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, _address(array))
            for name in outputs:
                binding.bind_output(name, "cpu")
            session.run_with_iobinding(binding, options)
            return [value.numpy() for value in binding.get_outputs()[len(into) :]]

        return dict(zip(outputs, self._call(bound, feeds, None, made), strict=True))

    def close(self) -> None:
        """End what runs, and free the session's memory (see `Runner.close`)."""
        self._session = None
        self._workers.close()

    def _value(self, name: str, known: Mapping[str, ValueType]) -> ValueType:
        if name not in known:
            raise InputError(f"the model has no output {name!r}; it has {', '.join(known)}")
        return known[name]

    def _call(
        self,
        work: Callable[[Any, Feeds, Any], list[Any]],
        feeds: Feeds,
        watch: Watch | None,
        made: Collection[str] = (),
    ) -> list[Any]:
        """Check the feeds, and return what `work` makes of the session, the feeds and the options of a run."""
        if self._session is None:
            raise ValueError("the session is closed; open the seed again")
        self.check(feeds, made)
        # ORT reads big-endian arrays as if they were native.
        native = {name: _native(array) for name, array in feeds.items()}
        session, options = self._session, self._run_options()
        try:
            return self._workers.call(
                lambda: work(session, native, options), lambda: setattr(options, "terminate", True), watch
            )
        except failures(self._ort) as error:
            if isinstance(error, self._ort.capi.onnxruntime_pybind11_state.NotImplemented):
                raise UnsupportedError(f"ONNX Runtime can't run this model: {reason(error)}") from error
            given = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            sums = broken_sums(self._inputs, feeds)
            raise InputError(
                f"the model can't run on {given}: {reason(error)}; "
                f"{'; '.join([*sums, ''])}check the sizes and the values' range"
            ) from error

    @cached_property
    def _declared(self) -> SkeletonInfo:
        """What the model says of itself. Read only where it matters: a large graph takes seconds on a small device."""
        try:
            return scan(self._model.read_bytes())
        except (SeedError, OSError):
            # No skeleton of ours: a model that a program assembled by itself.
            return SkeletonInfo(0, {}, (), (), ())

    def _shapes(self, values: Sequence[Any]) -> dict[str, Shape | None]:
        """Return the shapes of inputs and outputs; ONNX Runtime shows those without one as it shows scalars."""
        unstated: set[str] = set()
        if any(not value.shape for value in values):
            declared = (*self._declared.inputs, *self._declared.optional_inputs, *self._declared.outputs)
            unstated = {value.name for value in declared if value.dims is None}
        return {
            value.name: None if value.name in unstated and not value.shape else shape_of(value.shape)
            for value in values
        }

    def _run_options(self) -> Any:
        """Return options of one run; they can end that run and no other."""
        options = self._ort.RunOptions()
        # The arena is emptied after each run: filled by inputs of many sizes in turn it would be fragmented,
        # and grew by 3 to 20 % over what any one of them needs.
        if self._arena:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options


BACKEND = OnnxRuntimeBackend()


def disable_telemetry() -> None:
    """Switch ONNX Runtime's telemetry off for this process and those that it starts. Call it before the import.

    From 1.29 on the wheels for Linux send events by default: as the library is loaded, it writes an identifier and a
    database into the user's cache, opens connections, and takes 2 MiB and a thread. Its `disable_telemetry_events`
    comes too late for that. An empty variable or another value, such as 0, would leave it on.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _library() -> Any:
    disable_telemetry()
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnsupportedError(
            f"ONNX Runtime can't be imported ({error}); install it with: pip install onnxruntime"
        ) from error
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(_LOG_FATAL)
    return ort


def _freeze_malloc_thresholds() -> None:
    """Keep glibc's malloc at its initial rule: 128 KiB and more are mapped, and returned to the system when freed.

    By itself it raises the threshold to the size of what was freed, up to 32 MiB. What the arena frees
    after a run then stays in the heap, and 200 runs of mixed sizes took Magika from 42 to 111 MB above the
    baseline, against 44 this way, at the same speed. Holds for the whole process; other allocators ignore it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        mallopt(parameter, _MALLOC_THRESHOLD)


def _share_exact_arena(ort: Any) -> None:
    """Give all sessions of this process one arena that grows by what is asked for.

    By itself an arena doubles its growth, and its peak then jumps with the input's size: Magika took 48 MB
    at 7 inputs and 41 at 8, so that no measurement at a few sizes could bound it. This way it grows evenly.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    # Refused where the process has one already, ours from an earlier session or the program's own.
    with contextlib.suppress(*failures(ort)):
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))


def _options(ort: Any, mode: _Mode, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, mode.level)
    # With the memory pattern, the second run of a shape takes a block of the whole peak beside the arena that
    # the first one left: MiniLM-L6 at 8 x 256 went from 166 to 277 MB above the baseline, at the same speed.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = mode.arena
    options.add_session_config_entry("session.use_env_allocators", "1" if mode.arena else "0")
    for key, value in mode.entries:
        options.add_session_config_entry(key, value)
    return options


def _address(array: Array) -> int:
    # Several times as fast as `ctypes.data`, and each token of a text has dozens of arrays.
    address: int = array.__array_interface__["data"][0]
    return address


def _native(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
