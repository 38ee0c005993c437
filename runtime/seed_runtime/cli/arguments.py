"""The command line of `seed-run`, as one checked record."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.cli import prompts, questions
from seed_runtime.errors import UsageError
from seed_runtime.system.files import is_same_file
from seed_runtime.version import __version__

_ACTIONS: Final = ("inspect", "verify", "assemble", "bench", "serve", "fine_tune")
_TUNING: Final = {
    "mode": "--mode",
    "tuned": "-o",
    "steps": "--steps",
    "lr": "--lr",
    "loss": "--loss",
    "optimizer": "--optimizer",
    "rng_seed": "--rng-seed",
    "delta_size": "--delta-size",
    "time_limit": "--time-limit",
    "pixels": "--pixels",
}
"""Options of --fine-tune by their names."""

_EXAMPLES: Final = """\
examples:
  seed-run model.seed --inspect
  seed-run model.seed --verify --json
  seed-run cats.seed photo.jpg
  seed-run detector.seed photo.jpg --draw boxes.png
  seed-run sentences.seed --text "a dog barks" --text "a cat meows" --json
  seed-run chat.seed --prompt "What is a seed?" --max-tokens 100
  seed-run model.seed --input x.npz --output y.npz --max-memory 64MB
  seed-run model.seed --assemble folder
  seed-run model.seed --bench --input x.npz
  seed-run model.seed --serve :8080
  seed-run model.seed --fine-tune data.npz --mode auto -o tuned.seed
  seed-run model.seed --fine-tune pictures --pixels 0..1 -o tuned.seed --time-limit 10m
  seed-run model.seed --apply tuned.seed --input x.npz
  curl -s https://example.org/model.seed | seed-run - --input x.npz

input:
  .npz with one array per model input, by name, or .npy for a model with one input. An array with as many axes
  as the input is one batch; with one axis more, its first axis counts calls; an input given once serves every
  call. Integers are converted where every value fits, floats only to wider floats; text is NumPy's str, or bytes
  in UTF-8; anything else is refused. Outputs that are maps are written as NAME.keys and NAME.values, sequences
  as NAME.0, NAME.1 and so on.

fine-tuning:
  data.npz has one array per model input, samples first, and labels: the number of a class for each sample, or floats
  of the output's shape. A folder in its place has one folder a class, in the order of their names or with numbers as
  names, of .npy or .npz files, or of .png and .jpg where Pillow is installed; or .npz files that are like data.npz.
  Of each class 15 % choose the best values and 15 % are held out; what doesn't get better on
  these isn't kept. Modes: bn estimates the statistics of batch norms again and needs no labels; head fits the last
  layer; small trains scales and biases with it, full all weights; auto climbs them. The seed must have been exported
  with --finetune-graph.

seeds with a base:
  --apply gives a seed that holds what differs from model.seed; given again, one that differs from the seed before.
  All options then are about the last one. The seeds before it are assembled into the cache.

settings, in the order in which they count:
  the flag; SEED_MAX_MEMORY, SEED_THREADS, SEED_CACHE_LIMIT; max-memory, threads and cache-limit in
  $XDG_CONFIG_HOME/seed/config.toml. SEED_DEBUG=1 shows the traceback of an error, NO_COLOR=1 plain text.

exit codes:
  0 ok, 1 internal error, 2 usage, 3 the input can't be used, 10 corrupt seed, 11 not signed by
  one of $XDG_CONFIG_HOME/seed/allowed_signers, or too old, 12 this device, backend or runtime can't take it, or
  the golden sample differs, 13 no disk space, 14 memory budget, 15 nothing got better by --fine-tune, 130 interrupted
"""


@dataclass(frozen=True)
class TuneJob:
    """What --fine-tune is asked for; None where it is left to the tuner."""

    data: str
    output: str | None
    """Path of the seed with what was learned; None to write none."""
    mode: str | None
    loss: str | None
    optimizer: str | None
    steps: int | None
    rate: float | None
    rng_seed: int | None
    delta_size: int | None
    """Most bytes of that seed [B]."""
    time_limit: float | None
    """Longest time [s]."""
    pixels: str | None
    """What the model takes pictures as."""


@dataclass(frozen=True)
class Job:
    """Job that a command line asks for."""

    seed: str
    """Path of the seed, or `-` for stdin."""
    apply: tuple[str, ...]
    """Seeds that are applied to it, each to the one before; the last one may be `-`."""
    action: str
    """Action: one of inspect, verify, assemble, bench, serve, fine_tune, answer, generate and run."""
    folder: str | None
    """Folder of --assemble; None without it."""
    address: str | None
    """Address of --serve; None without it."""
    input: str | None
    output: str | None
    runs: int | None
    tune: TuneJob | None
    """What --fine-tune is asked for; None without it."""
    asked: questions.Asked | None
    """What the model is asked about; None where it is run on arrays, or not at all."""
    prompted: prompts.Prompted | None
    """What the model is to write; None where it writes no text."""
    max_memory: int | None
    """Limit of the process's memory; None for none [B]."""
    threads: int | None
    cache_limit: int
    """Largest size of all assembled models in the cache together [B]."""
    use_cache: bool
    json: bool
    quiet: bool


def parse(argv: Sequence[str] | None) -> Job:
    """Read a command line.

    Raises:
        UsageError: it contradicts itself; argparse raises SystemExit for one that it can't read.
    """
    # Files may stand between options.
    options = _parser().parse_intermixed_args(argv)
    if options.seed is None:
        raise UsageError("no seed is named; give its path, or - for a pipe: seed-run model.seed --inspect")
    action = next((name for name in _ACTIONS if getattr(options, name)), "run")
    asked = questions.asked(options, action)
    prompted = prompts.prompted(options, action)
    if asked is not None:
        action = "answer"
    elif prompted is not None:
        action = "generate"
    _check(options, action)

    from seed_runtime.cli import settings

    return Job(
        seed=options.seed,
        apply=tuple(options.apply),
        action=action,
        folder=options.assemble,
        address=options.serve,
        input=options.input,
        output=options.output,
        runs=options.runs,
        tune=_tune_job(options),
        asked=asked,
        prompted=prompted,
        max_memory=settings.max_memory(options.max_memory),
        threads=settings.threads(options.threads),
        cache_limit=settings.cache_limit(),
        use_cache=not options.no_cache,
        json=options.json,
        quiet=options.quiet,
    )


def _tune_job(options: argparse.Namespace) -> TuneJob | None:
    """Return what --fine-tune is asked for; raise UsageError for its options without it."""
    given = {flag: getattr(options, name) for name, flag in _TUNING.items()}
    if options.prompt is not None:
        del given["--rng-seed"]
    if options.fine_tune is None:
        for flag, value in given.items():
            if value is not None:
                raise UsageError(f"{flag} is an option of --fine-tune; give both, or leave it out")
        return None
    if not options.fine_tune or options.tuned == "":
        raise UsageError("--fine-tune and -o need files; give their names: --fine-tune data.npz -o tuned.seed")
    if options.fine_tune == "-" and "-" in (options.seed, *options.apply):
        raise UsageError("the seed and the data would both be read from stdin; give one of them as a file")
    inputs = [(options.fine_tune, "the data"), *((seed, "the seed") for seed in (options.seed, *options.apply))]
    for path, what in inputs if options.tuned is not None else ():
        if is_same_file(options.tuned, path):
            raise UsageError(f"{options.tuned} is {what} itself, which would be lost; give -o another file")
    if options.tuned is not None and os.path.isdir(options.fine_tune):
        data = os.path.realpath(options.fine_tune)
        if os.path.commonpath([data, os.path.realpath(options.tuned)]) == data:
            raise UsageError(
                f"{options.tuned} is within the data, and would be taken for a part of it; give -o elsewhere"
            )
    from seed_runtime.units import parse_size, parse_time

    return TuneJob(
        data=options.fine_tune,
        output=options.tuned,
        mode=options.mode,
        loss=options.loss,
        optimizer=options.optimizer,
        steps=options.steps,
        rate=options.lr,
        rng_seed=options.rng_seed,
        delta_size=None if options.delta_size is None else parse_size(options.delta_size),
        time_limit=None if options.time_limit is None else parse_time(options.time_limit),
        pixels=options.pixels,
    )


class _Show(argparse.Action):
    """Print a text, by default the help, and exit. argparse's own actions hide that stdout couldn't be written to."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: str = "", **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        print(self._text or parser.format_help(), end="")
        parser.exit()


def _check(options: argparse.Namespace, action: str) -> None:
    """Raise UsageError for options that contradict each other."""
    if options.assemble == "":
        raise UsageError("--assemble needs a folder; give its name: --assemble model")
    if options.serve == "":
        raise UsageError("--serve needs an address; give one such as :8080 or unix:/path/of/socket")
    from_stdin = "-" in (options.seed, *options.apply)
    if from_stdin and options.input == "-":
        raise UsageError("the seed and the input can't both come from stdin; save one of them to a file")
    if options.apply and "-" in (options.seed, *options.apply[:-1]):
        raise UsageError("a base is read more than once, and stdin only once; save it to a file")
    if "" in options.apply:
        raise UsageError("--apply needs a seed; give its path, or - for a pipe: --apply tuned.seed")
    if options.input is not None and action not in ("run", "bench"):
        raise UsageError(f"--{action.replace('_', '-')} takes no --input; leave one of them out")
    if options.output is not None:
        if action != "run":
            raise UsageError(f"--{action.replace('_', '-')} takes no --output; leave one of them out")
        if options.output == "-" and options.json:
            raise UsageError("--json and --output - would both write to stdout; give --output a file")
        if options.output.endswith(".npy"):
            raise UsageError("outputs are written by name into one .npz; give --output a name that ends in .npz")
        seeds = [(given, "the seed") for given in (options.seed, *options.apply)]
        for given, what in (*seeds, (options.input, "the input")):
            source = "/dev/stdin" if given == "-" else given
            if source is not None and options.output != "-" and is_same_file(options.output, source):
                raise UsageError(f"{options.output} is {what} itself, which would be lost; give --output another file")
    if options.runs is not None and action != "bench":
        raise UsageError("--runs is an option of --bench; give both, or leave it out")
    if options.json and action == "serve":
        raise UsageError("--serve takes no --json; leave it out, its answers are JSON")
    if options.runs is not None and options.runs < 1:
        raise UsageError(f"--runs {options.runs} is too small; give at least 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seed-run",
        description="Look into a seed, check it, assemble it, run it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action=_Show, help="show this help message and exit")
    add("seed", nargs="?", metavar="model.seed", help="the seed; - reads it from a pipe")
    questions.add_files(parser)
    add("--apply", metavar="SEED", action="append", default=[], help="assemble SEED on top of model.seed, its base")
    add("--input", metavar="FILE", help="run the model on x.npz, x.npy, or - for stdin")
    add("--output", metavar="FILE", help="write the outputs to y.npz, or - for stdout; without it, show them")
    add("--max-memory", metavar="SIZE", help="limit of the whole process, such as 64MB or 64MiB")
    add("--threads", metavar="N", help="threads of the model's run (default: one per core)")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--inspect", action="store_true", help="show what the seed holds and what it needs")
    actions.add_argument("--verify", action="store_true", help="check every digest, then the golden sample")
    actions.add_argument("--assemble", metavar="DIR", help="write the files of the model into DIR")
    actions.add_argument("--bench", action="store_true", help="time assembly, and runs on the input")
    actions.add_argument("--serve", metavar="ADDRESS", help="answer inference requests on a socket or a port")
    actions.add_argument("--fine-tune", metavar="DATA", help="train the model on labelled samples")
    tuning = parser.add_argument_group("fine-tuning")
    tuning.add_argument("--mode", metavar="MODE", help="auto, bn, head, small or full (default: auto)")
    tuning.add_argument("-o", dest="tuned", metavar="SEED", help="write what was learned, for --apply")
    tuning.add_argument("--steps", metavar="N", type=int, help="most steps of gradients (default: 120)")
    tuning.add_argument("--lr", metavar="RATE", type=float, help="rate of steps (default: by mode)")
    tuning.add_argument("--loss", metavar="LOSS", help="cross-entropy, squared-error or cosine (default: by labels)")
    tuning.add_argument("--optimizer", metavar="NAME", help="adam or sgd (default: adam)")
    tuning.add_argument("--rng-seed", metavar="N", type=int, help="decides what is held out (default: 0) or sampled")
    tuning.add_argument("--delta-size", metavar="SIZE", help="most bytes of -o (default: 4KB, or a tenth of the model)")
    tuning.add_argument("--time-limit", metavar="TIME", help="longest time, such as 10m; the best so far is kept")
    tuning.add_argument("--pixels", metavar="RANGE", help="0..1, -1..1, 0..255 or imagenet: what pictures become")
    questions.add_options(parser)
    prompts.add_options(parser)
    add("--runs", metavar="N", type=int, help="timed runs of --bench (default: 10 to 100, for some 10 s)")
    add("--no-cache", action="store_true", help="assemble in a temporary folder and remove it afterwards")
    add("--json", action="store_true", help="print the results as one JSON object")
    add("-q", "--quiet", action="store_true", help="no notes and no progress on stderr")
    add("--version", action=_Show, text=f"seed-run {__version__}\n", help="show the version and exit")
    return parser
