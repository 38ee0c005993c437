"""`seed-export`: a model in, a seed out."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from seed_runtime import files
from seed_runtime.budget import parse_size
from seed_runtime.errors import GoalNotMetError, SeedError, UsageError
from seed_runtime.version import __version__

RESERVED = ("compare", "batch", "zoo")

try:
    import click
except ModuleNotFoundError:  # the device's install
    sys.exit("seed-export: this needs the exporter's packages; install them: pip install 'seed-runtime[export]'")

_EPILOG = """\b
Examples:
  seed-export model.onnx -o model.seed
  seed-export model.onnx -o model.seed --target 8x --report report.html
  seed-export model.onnx -o exact.seed --method lossless
\b
Then, on the device:
  seed-run model.seed --input x.npz --max-memory 128MB
\b
Exit codes: 0 ok, 1 internal error, 2 usage, 3 data can't be used, 12 model can't be taken,
13 no disk space, 15 goal not met (the best so far was written), 130 interrupted,
129 and 143 ended by SIGHUP and SIGTERM.
"""


class _Ratio(click.ParamType):
    name = "ratio"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            ratio = float(str(value).lower().removesuffix("x"))
        except ValueError:
            ratio = 0.0
        if not 1 <= ratio < 1e6:
            self.fail(f"{value!r} is not a ratio; write it like 20x", param, ctx)
        return ratio


class _Size(click.ParamType):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(value)
        except SeedError as error:
            self.fail(str(error), param, ctx)


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The seed; MODEL's name with .seed if left out.",
)
@click.option("--target", type=_Ratio(), help="Ratio to reach, such as 20x: source weights over the whole file.")
@click.option("--size", type=_Size(), help="Largest size of the file, such as 160KB.")
@click.option(
    "--method",
    type=click.Choice(["grid", "lossless", "moments"]),
    default="grid",
    show_default=True,
    help="grid: quantized and entropy-coded; lossless: every bit; moments: the published method, to compare.",
)
@click.option(
    "--calib",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Real inputs (.npz, one array per input) to compare outputs on.",
)
@click.option("--model-id", help="Name that stays the same over versions; the file's name if left out.")
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
    help="Write a page (HTML) that shows where the bytes went.",
)
@click.option("--jobs", type=click.IntRange(1), default=None, help="Threads; all cores if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.version_option(__version__, prog_name="seed-export")
def command(model: str, output: Path | None, as_json: bool, quiet: bool, report: Path | None, **chosen: Any) -> None:
    """Turn MODEL (.onnx, .pt2) into a seed: its graph, and its weights as entropy-coded streams.

    The default is at least 4 times smaller than fp32. The seed is assembled again with the device's own decoder and
    compared with the original before it replaces anything.
    """
    if model in RESERVED:
        raise UsageError(f"'{model}' is reserved for a command that is not there yet; a file of that name is ./{model}")
    if not Path(model).name:
        raise UsageError(f"{model!r} is no file; give a .onnx or .pt2 file")
    if chosen["target"] and chosen["size"]:
        raise UsageError("--target and --size say the same thing twice; give one of them")
    if chosen["method"] == "lossless" and (chosen["target"] or chosen["size"]):
        raise UsageError("--method lossless has the size it has; leave out --target and --size")
    from seed_exporter import report as reports
    from seed_exporter.export import Options, check_apart, export
    from seed_exporter.progress import Bar

    chosen["jobs"] = chosen["jobs"] or Options().jobs
    path = output or Path(Path(model).name).with_suffix(".seed")
    if report is not None:
        files.check(report)
        check_apart(report, "--report", model, chosen["calib"], chosen["sign"])
        if files.same(report, path):
            raise UsageError(f"--report and -o both name {path}; give the report another name, such as report.html")
    with Bar(quiet or as_json) as bar:
        result = export(model, output=path, options=Options(**chosen), progress=bar.step)
    if report is not None:
        reports.write(report, result)
    click.echo(json.dumps(result.as_json()) if as_json else reports.text(result))
    if not result.goal_met:
        wanted = f"{chosen['target']:g}x" if chosen["target"] else f"{chosen['size']:,} bytes"
        raise GoalNotMetError(
            f"{wanted} was not reached: {result.bytes:,} bytes, {result.ratio:.2f}x is the best so far and was "
            f"written to {result.path}; ask for less, or give the model fewer parameters"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code; after SIGTERM and SIGHUP with 143 and 129, all tidied up."""
    with _signals() as stopped:
        code = _code(arguments)
    # Extension modules turn what interrupts their import into an ImportError.
    sys.exit(stopped[0] if stopped else code)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Turn a termination and a hangup into SystemExit, once: nothing interrupts the tidying up.

    Gives the list that the exit code will stand in.
    """
    stopped: list[int] = []
    numbers: list[int] = [signal.SIGTERM, signal.SIGHUP]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in (*numbers, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        stopped.append(128 + number)
        raise SystemExit(128 + number)

    before: dict[int, Any] = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
    # Only the main thread may; what was ignored, as under nohup, stays ignored.
    with contextlib.suppress(ValueError):
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)


def _code(arguments: list[str] | None) -> int:
    try:
        command.main(arguments, prog_name="seed-export", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("seed-export: interrupted, nothing was written", file=sys.stderr)
        return 130
    except SeedError as error:
        print(f"seed-export: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(
                f"seed-export: {problem}; free some, write elsewhere with -o, or let TMPDIR name a larger folder "
                f"than {tempfile.gettempdir()}",
                file=sys.stderr,
            )
            return 13
        print(f"seed-export: {problem}; check the path and its permissions", file=sys.stderr)
        return 2
    except Exception as error:
        if os.environ.get("SEED_DEBUG"):
            traceback.print_exc()
        print(f"seed-export: internal error: {error!r}; run again with SEED_DEBUG=1 and report it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
