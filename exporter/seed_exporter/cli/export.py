"""`seed-export MODEL`: a model in, a seed out."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from seed_exporter.cli.values import Ratio, Size, Time
from seed_exporter.cli.words import COMMANDS, RECIPE
from seed_exporter.quantize.effort import DEFAULT
from seed_runtime.errors import GoalNotMetError, UsageError
from seed_runtime.system import files
from seed_runtime.version import __version__

if TYPE_CHECKING:
    from seed_exporter.zoo.recipe import Recipe

_SIZING = (
    "method", "effort", "dtype", "metric", "shrink", "finetune_graph", "base", "processing", "calib", "time_limit",
    "sign",
)  # fmt: skip
"""Options that change a seed's size beside those that ask for one: a recipe's goal is of a seed without them."""
_EPILOG = """\b
Examples:
  seed-export model.onnx -o model.seed
  seed-export model.onnx -o model.seed --target 8x --report report.html
  seed-export model.onnx -o model.seed --calib x.npz --quality 0.99
  seed-export model.onnx -o exact.seed --method lossless
  seed-export model.onnx -o pi.seed --calib x.npz --dtype auto --for pi5
  seed-export pruned.onnx -o small.seed --shrink
  seed-export model.onnx -o h.seed --heal data.npz --target 60x --time-limit 10m
  seed-export new.onnx -o v2.seed --base model.seed --model-version 2
\b
Ready seeds of public models: seed-export zoo
Many models: seed-export batch --help
Beside other software: seed-export compare --help
Checkpoints of a training run: seed-export archive --help
\b
Then, on the device:
  seed-run model.seed --input x.npz --max-memory 128MB
\b
Exit codes: 0 ok, 1 internal error, 2 usage, 3 data can't be used, 12 model can't be taken,
13 no disk space, 14 no memory, 15 goal not met (the best so far was written), 130 interrupted,
129 and 143 ended by SIGHUP and SIGTERM; of zoo:NAME also 10 a package has other bytes, 20 it can't be downloaded.
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The seed; MODEL's name with .seed if left out.",
)
@click.option("--target", type=Ratio(), help="Ratio to reach, such as 20x: source weights over the whole file.")
@click.option("--size", type=Size(), help="Largest size of the file, such as 160KB; it is used within 1 %.")
@click.option(
    "--quality",
    type=float,
    help="Smallest file that keeps this share of equal decisions, such as 0.99; the mean cosine where outputs are no "
    "scores, and 1 - damage by --metric where that is given.",
)
@click.option(
    "--metric",
    metavar="METRIC",
    help="How damage is measured: kl, cosine, agreement, relative, labels (what more is wrong by the labels), or "
    "module:function of your own, which gets (inputs, original outputs, candidate outputs) and returns a number, "
    "smaller is better.  [default: by the outputs]",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "int8", "int4", "int2", "auto"]),
    default="fp32",
    show_default=True,
    help="What devices hold of matrices: floats, half floats, or integers of so many bits, with which layers compute "
    "where ONNX Runtime does. Quality is that of what devices run; without a goal, integers keep 98 % of decisions. "
    "auto is int8 where the device of --for multiplies bytes faster than floats and the model allows it, else fp32.",
)
@click.option(
    "--for",
    "device",
    metavar="DEVICE",
    help="What --dtype auto is for: pi3, pi4, pi5, zero2, or what seed-deploy doctor says of a device, such as "
    "arm64+asimddp.  [default: this machine]",
)
@click.option(
    "--effort",
    type=click.IntRange(1, 9),
    default=DEFAULT,
    show_default=True,
    help="Work for fewer bytes: 1 rounds to nearest, 2 measures each tensor's damage, 3 and 4 round by what layers see "
    "of --calib, 5 weighs bits against errors and looks for best paths, 6 to 8 train biases and "
    "norms on --calib, 9 trains all weights on it and needs PyTorch.",
)
@click.option(
    "--shrink",
    is_flag=True,
    help="Cut dead channels, heads, neurons, rows of tables and emptied blocks out of MODEL first, which computes the "
    "same with less memory and time then: for models whose weights were set to 0 by whole rows or columns. --heal does "
    "so at its end.",
)
@click.option(
    "--finetune-graph",
    is_flag=True,
    help="Add a graph of losses and gradients, some KB, so that devices can train the model: seed-run --fine-tune. "
    "Batch norms aren't folded then.",
)
@click.option(
    "--processing",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default="auto",
    show_default=True,
    help="Add what stands before and behind MODEL, so that devices ask it about pictures, texts or sound: a JSON or "
    "TOML file that names labels and the like, see docs/processing.md; auto for what MODEL's metadata, and known files "
    "beside it, say; none for a seed without.",
)
@click.option(
    "--base",
    metavar="SEED",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what differs from this seed, of an earlier version of MODEL, at the same quality; devices need both. "
    "Where it has a base itself, give that one before it.",
)
@click.option(
    "--time-limit",
    type=Time(),
    help="Time after which the search takes the best so far, such as 10m. Bytes may differ from run to run then.",
)
@click.option(
    "--method",
    type=click.Choice(["grid", "lossless", "moments"]),
    default="grid",
    show_default=True,
    help="grid: quantized and entropy-coded; lossless: every bit; moments: the published method, to compare.",
)
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    help="Real inputs (.npz, one array per input, samples first): statistics are measured on most, outputs are judged "
    "on the others. Generated if left out.",
)
@click.option(
    "--heal",
    type=click.Path(path_type=Path),
    help="Train the seed's weights on these inputs (.npz as for --calib; labels help and aren't needed), so that a "
    "model keeps its function at a --target where rounding alone loses it. Needs PyTorch, and time: see --time-limit.",
)
@click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Save the state of --heal in this folder every five minutes and at its end, and go on from the one that is "
    "there.",
)
@click.option(
    "--model-id", help="Name that stays the same over versions; if left out, that of --base, or the file's name."
)
@click.option(
    "--model-version",
    type=click.IntRange(0, (1 << 63) - 1),
    default=1,
    show_default=True,
    help="Grows with every release of a model id.",
)
@click.option(
    "--sign",
    metavar="KEY",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Sign with this SSH key (ssh-keygen); a public one stands for its private half in the agent or in hardware.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page (HTML) with the sizes and the damage that were tried, and where the bytes went.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Show in --report what installed software of others makes of MODEL, on the same inputs (takes minutes).",
)
@click.option("--jobs", type=click.IntRange(1), default=None, help="Threads; all cores if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.version_option(__version__, prog_name="seed-export")
def command(
    model: str, output: Path | None, as_json: bool, quiet: bool, report: Path | None, peers: bool, **chosen: Any
) -> None:
    """Turn MODEL (.onnx, .pt2, .tflite, or zoo:NAME) into a seed: its graph, and its weights as entropy-coded streams.

    Without --target, --size and --quality the seed is the smallest that keeps 99.5 % of the decisions on the inputs of
    --calib, or a cosine of .999 where outputs are no scores, and at least 4 times smaller than fp32 in any case. Where
    inputs are few, it keeps cosines on mixes of them as well.
    Without --calib, inputs are generated; they mislead, and only a hundredth of the loss of the cosine is allowed.
    Where graph, header and integers alone take nearly a quarter, a note says so. The seed is assembled again with the
    device's own decoder and compared with the original before it replaces anything. Ctrl-C during the search writes
    the best so far.
    """
    if model in COMMANDS:
        raise UsageError(f"'{model}' is a command and comes before all options; a file of that name is ./{model}")
    if not Path(model).name:
        raise UsageError(f"{model!r} is no file; give a .onnx, .pt2 or .tflite file")
    if peers and report is None:
        raise UsageError("--peers is for the page of --report; add --report report.html, or see seed-export compare")
    # Later than the command line: its faults and its help need no ONNX.
    from seed_exporter.output_files import check_output, check_report
    from seed_exporter.pipeline import exported
    from seed_exporter.progress import ProgressBar
    from seed_exporter.report import page, text
    from seed_exporter.report.comparison import Comparison
    from seed_exporter.report.healing import LivePage
    from seed_exporter.results import InterruptedExport, Options
    from seed_exporter.zoo.registry import find
    from seed_runtime.system.scratch import scratch_folder

    chosen["jobs"] = chosen["jobs"] or Options().jobs
    recipe = find(model.removeprefix(RECIPE)) if model.startswith(RECIPE) else None
    path = output or (Path(f"{recipe.name}.seed") if recipe else Path(Path(model).name).with_suffix(".seed"))
    if report is not None:
        check_report(report)
        if files.is_same_file(report, path):
            raise UsageError(f"--report and -o both name {path}; give the report another name, such as report.html")
    interruption, is_recipes = None, False
    live = None if report is None else LivePage(report)
    with ExitStack() as held:
        if recipe is not None:
            check_output(path)
            model, is_recipes = _followed(recipe, held.enter_context(scratch_folder()), chosen, quiet or as_json)
        options = Options(**chosen)
        with ProgressBar(quiet or as_json) as bar:
            try:
                result, loaded = held.enter_context(
                    exported(
                        model, output=path, options=options, progress=bar.update, say=bar.say,
                        watch=None if live is None else live.show,
                    )
                )  # fmt: skip
            except InterruptedExport as error:
                result, loaded, interruption = error.result, None, error
            except BaseException as error:
                if live is not None:
                    live.stop(str(error) if isinstance(error, Exception) else "it was stopped")
                raise
        click.echo(json.dumps(result.as_json()) if as_json else text.summary(result))
        if report is not None:
            beside = Comparison(Path(model).stem, options.metric or "auto")
            try:
                if peers and loaded is not None:
                    # Exports without it need no peers.
                    from seed_exporter.comparison.run import call_peers

                    with ProgressBar(quiet or as_json) as bar:
                        call_peers(loaded, options, beside, bar.update)
            finally:
                # The seed is written already; what was measured when this is interrupted is right.
                page.write(report, result, beside)
    if interruption is not None:
        raise interruption
    if not result.goal_met:
        raise GoalNotMetError(text.goal_missed(result, options))
    if recipe is not None and is_recipes and (missed := recipe.goal.missed(result.bytes, result.ratio)):
        raise GoalNotMetError(f"{RECIPE}{recipe.name}: {missed}; {path} was written all the same: judge it by --verify")


def _followed(recipe: Recipe, folder: Path, chosen: dict[str, Any], quiet: bool) -> tuple[str, bool]:
    """Prepare a recipe in a folder, and add its options to those that were chosen.

    Returns:
        The path of its model, and whether its seed is to reach the recipe's goal: no option says otherwise.
    """
    from seed_exporter.quantize.methods import METHODS
    from seed_exporter.results import Options
    from seed_exporter.stages.targeting import resolve_dtype
    from seed_exporter.zoo.prepare import prepare

    prepared = prepare(recipe, folder, (lambda line: None) if quiet else partial(click.echo, err=True))
    source = click.get_current_context().get_parameter_source
    for name, value in prepared.options.items():
        chosen[name] = value if source(name) is ParameterSource.DEFAULT else chosen[name]
    has_goal = any(chosen[name] is not None for name in ("target", "size", "quality", "heal"))
    if not has_goal and METHODS[chosen["method"]].has_default and resolve_dtype(Options(**chosen))[0].dtype == "fp32":
        chosen.update(recipe.options)
    is_recipes = not has_goal and all(source(name) is ParameterSource.DEFAULT for name in _SIZING)
    return str(prepared.model), is_recipes
