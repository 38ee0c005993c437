"""Make a seed of a model: load, shrink, target, calibrate and plan or heal, cut, build, prove, tune, write.

Facts of the original are frozen in `Source` when it is loaded; stages work on the graph that their record holds, and
one that edits it hands on another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from seed_exporter import sign
from seed_exporter.build.base_model import BaseModel
from seed_exporter.heal.looks import Training
from seed_exporter.option_checks import check_options
from seed_exporter.output_files import check_output
from seed_exporter.records import Loaded, Progress, Work
from seed_exporter.results import InterruptedExport, Options, Result
from seed_exporter.stages import front_size
from seed_exporter.stages.fitting import build_and_prove
from seed_exporter.stages.healing import check_installed, heal_and_prove
from seed_exporter.stages.loading import calibrate, load
from seed_exporter.stages.shrinking import shrink
from seed_exporter.stages.targeting import choose_target, resolve_dtype
from seed_exporter.stages.training import prepare_training
from seed_exporter.stages.tuning import tune_vectors
from seed_exporter.stages.writing import write
from seed_exporter.targets import AUTO
from seed_runtime.system.scratch import scratch_folder


def export(
    source: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    output: str | os.PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    watch: Callable[[Training], None] | None = None,
    **loader_options: Any,
) -> Result:
    """Make a seed of a model: a path (`.onnx`, `.pt2`, `.tflite`), an ONNX model, an exported program, a torch module.

    Args:
        source: the model.
        example_inputs: the positional arguments of a torch module, with which it is traced.
        output: path of the seed; an older seed there is replaced once the new one is whole.
        options: what the command line can say.
        progress: called while work goes on.
        say: called with lines for the user that can't wait for the result.
        watch: called with a training at its start and at each look at it.
        loader_options: passed to the format's loader, such as `dynamic_shapes` and `input_names` of a module.

    Raises:
        UsageError: the options contradict each other, or the output can't be written or holds something else.
        InterruptedExport: Ctrl-C during the search; the best so far was written.
        UnsupportedError: the model can't be read or run.
        InputError: the calibration data doesn't fit the model.
    """
    with exported(
        source,
        example_inputs,
        output=output,
        options=options,
        progress=progress,
        say=say,
        watch=watch,
        **loader_options,
    ) as (
        result,
        _,
    ):
        return result


@contextmanager
def exported(
    source: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    output: str | os.PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    watch: Callable[[Training], None] | None = None,
    **loader_options: Any,
) -> Iterator[tuple[Result, Loaded]]:
    """Make a seed as `export` does, and yield the result with the model as it was loaded.

    What the model was judged and calibrated on can be read until the block ends.
    """
    options = options or Options()
    is_auto = options.dtype == AUTO
    options, notes = resolve_dtype(options)
    check_options(options)
    check_output(output)
    # What is wrong with a key is said now, not after minutes.
    signature_bytes = 0 if options.sign is None else front_size.SECTION_BYTES + sign.size_of_signatures(options.sign)
    if example_inputs is not None:
        loader_options["example_inputs"] = example_inputs
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
        show = progress or (lambda phase, done, total: None)
        base = stack.enter_context(BaseModel.opened(options.base, folder / "base")) if options.base else None
        work = Work(
            options, folder, show, signature_bytes, deadline=deadline, say=say or (lambda line: None), base=base,
            watch=watch or (lambda training: None), notes=notes, is_auto=is_auto,
        )  # fmt: skip
        loaded, result, interruption = _stages(source, Path(output), work, loader_options)
        if interruption is not None:
            raise InterruptedExport(result) from interruption
        yield result, loaded


def _stages(
    source: Any, output: Path, work: Work, loader_options: Mapping[str, Any]
) -> tuple[Loaded, Result, BaseException | None]:
    """Go through all stages; return the model, the result, and what ended the search early."""
    # Weights are coded in parallel already; with the BLAS's own threads besides, the search takes three times as long.
    with threadpool_limits(1, "blas"):
        if work.options.heal is not None:
            check_installed()
        loaded = load(source, work, **loader_options)
        model = shrink(loaded, work) if work.options.shrink else loaded
        work = choose_target(model, work)
        if work.options.finetune_graph:
            model = prepare_training(model, work)
        if work.options.heal is not None:
            proven = heal_and_prove(model, loaded.graph, work)
        else:
            calibrated = calibrate(model, work)
            proven = tune_vectors(build_and_prove(calibrated, work), calibrated, work)
        result = replace(
            write(proven, loaded.source, output, work), shrinkage=proven.built.shrinkage or model.shrinkage
        )
        return loaded, result, proven.built.interruption
