"""`seed-export compare MODEL`: what other software makes of a model, beside its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seed_exporter.quantize.effort import DEFAULT
from seed_runtime.cli import terminal
from seed_runtime.errors import UsageError

_EPILOG = """\b
Examples:
  seed-export compare model.onnx --calib calib.npz
  seed-export compare model.onnx --calib calib.npz --metric kl --report compare.html
\b
Peers that aren't installed are listed with the command that installs them.
Exit codes: 0 ok, 2 usage, 3 data can't be used, 12 model can't be taken, 130 interrupted (what was measured is shown).
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("model")
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    help="Real inputs (.npz, one array per input): most to calibrate on, the others to judge. Generated if left out.",
)
@click.option(
    "--metric",
    metavar="METRIC",
    help="How damage is measured: kl, cosine, agreement, relative, labels, or module:function.  "
    "[default: by the outputs]",
)
@click.option(
    "--effort", type=click.IntRange(1, 9), default=DEFAULT, show_default=True, help="Work for fewer bytes of the seeds."
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page (HTML) with the frontier."
)
@click.option("--jobs", type=click.IntRange(1), default=None, help="Threads; all cores if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(model: str, report: Path | None, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Compare seeds of MODEL at several sizes with what peers make of it: NNCodec, ONNX Runtime, NNCF, xz.

    All are judged on the same inputs, which none of them was calibrated on where there are enough. Bytes are those of
    the whole file, with the graph; what has no entropy coder is compressed by xz -9e.
    """
    if not Path(model).name:
        raise UsageError(f"{model!r} is no file; give a .onnx or .pt2 file")
    # Later than the command line: its faults and its help need no ONNX.
    from seed_exporter.comparison.run import compare_with_peers
    from seed_exporter.output_files import check_report
    from seed_exporter.progress import ProgressBar
    from seed_exporter.report import comparison as reports
    from seed_exporter.results import Options

    if report is not None:
        check_report(report)
    chosen["jobs"] = chosen["jobs"] or Options().jobs
    comparison = reports.Comparison(Path(model).stem, chosen["metric"] or "auto")
    try:
        with ProgressBar(quiet or as_json) as bar:
            compare_with_peers(Path(model), Options(**chosen), comparison, bar.update)
    finally:
        # What is measured when this is interrupted is right, and may have taken long.
        if comparison.rows:
            if as_json:
                terminal.print_json(comparison.as_json())
            else:
                click.echo("\n".join(reports.lines(comparison)))
            if report is not None:
                reports.write_page(report, comparison)
