"""`seed-export archive DIR`: thousands of checkpoints of one model in one folder."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seed_exporter.cli.values import Ratio, Size
from seed_runtime.cli.terminal import one_line, print_json, table
from seed_runtime.errors import DamagedArchiveError, SeedError, UsageError
from seed_runtime.limits import CHAIN_MAX

if TYPE_CHECKING:
    from tqdm import tqdm

    from seed_exporter.archive import Added, Archive
    from seed_exporter.archive.links import Link
    from seed_exporter.graph.model import Graph

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_EPILOG = """\b
Examples:
  seed-export archive runs/a add checkpoints/*.safetensors --missing
  seed-export archive runs/a list
  seed-export archive runs/a restore step-4000 -o step-4000.safetensors
  seed-export archive runs/a verify
  seed-export archive runs/a prune --every 10 --last 20
\b
Each command has a --help of its own: seed-export archive DIR add --help
\b
Exit codes: 0 ok, 2 usage or another process writes, 3 data can't be used, 10 a checkpoint is damaged,
12 a file can't be read as a checkpoint, 13 no disk space, 130 interrupted (what is in the archive is whole).
"""
_CHAIN = click.option(
    "--chain",
    type=click.IntRange(0, CHAIN_MAX),
    default=16,
    show_default=True,
    help="Most seeds between a checkpoint and its key seed: restoring one decodes as many.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress.")


@click.group(epilog=_EPILOG, context_settings=_SETTINGS, options_metavar="", subcommand_metavar="COMMAND ...")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def command(context: click.Context, folder: Path) -> None:
    """Keep checkpoints of one model in the folder DIR, each as what differs from an earlier one.

    Checkpoints are kept bit for bit, unless a size or a quality is asked for. Every seed in DIR/seeds is a file that
    seed-run takes; an index that is lost is made again. A kill at any point loses nothing that is there.
    """
    context.obj = folder


@command.command(context_settings=_SETTINGS)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--name", help="Name of the one checkpoint that is given; its file's name without the ending if left out."
)
@click.option("--missing", is_flag=True, help="Leave out those that are in the archive, by their names.")
@click.option(
    "--compare/--no-compare",
    default=True,
    help="With --missing, compare the tensors of those that are left out with the archive's, and refuse others.",
)
@click.option("--tensors-of", metavar="KEY", help="Archive only what a .pt file holds under this key, such as model.")
@_CHAIN
@click.option("--target", type=Ratio(), help="Quantize to this ratio, such as 20x, in place of keeping every bit.")
@click.option("--size", type=Size(), help="Quantize to this size, such as 160KB.")
@click.option("--quality", type=float, help="Quantize to the smallest seed of this quality, such as 0.99.")
@click.option("--calib", type=click.Path(path_type=Path), help="Real inputs (.npz) to quantize by.")
@click.option("--jobs", type=click.IntRange(1), default=None, help="Threads; all cores if left out.")
@_JSON
@_QUIET
@click.pass_obj
def add(
    folder: Path, /, files: Sequence[Path], name: str | None, missing: bool, compare: bool, tensors_of: str | None,
    chain: int, jobs: int | None, as_json: bool, quiet: bool, **goals: Any,
) -> None:  # fmt: skip
    """Add checkpoints, in the order in which they are given: .onnx, .pt2, .safetensors, or .pt with a state dict.

    Each becomes a key seed, or what differs from the nearest one of the last two.

    Of an ONNX file an archive keeps what ONNX Runtime computes with: equal tensors are one, those that nothing reads
    are left out, and small ones (below 64 bytes) have other names. Tensors alone are kept all, by their names.
    """
    # Later than the command line: its faults and its help need no ONNX.
    from seed_exporter.archive import Archive
    from seed_exporter.archive import checkpoints as formats
    from seed_exporter.archive.links import is_archive
    from seed_exporter.results import Options

    if name is not None and len(files) > 1:
        raise UsageError("--name is for one checkpoint; leave it out, and each is named as its file")
    own = [name or path.stem for path in files]
    for path, other in zip(files, own, strict=True):
        if (first := files[own.index(other)]) is not path:
            raise UsageError(f"{first} and {path} would both be named {other}; add one by itself, with --name")
    quantized = any(goals[goal] is not None for goal in ("target", "size", "quality"))
    if goals["calib"] is not None and not quantized:
        raise UsageError("--calib is for checkpoints that are quantized; add --target, --size or --quality")
    options = Options(**goals) if jobs is None else Options(**goals, jobs=jobs)
    if quantized and (alone := next(filter(formats.has_tensors_alone, files), None)) is not None:
        raise UsageError(
            f"{alone} holds tensors without a graph, which are kept bit for bit; leave out --target, --size and "
            f"--quality, or add the model as .onnx"
        )
    loaded: dict[Path, Graph] = {}
    if not is_archive(folder):
        # What can't be read makes no folder.
        loaded[files[0]] = formats.load(files[0], tensors_of)
    added: list[Added] = []
    skipped: list[str] = []
    archive = Archive.create(folder)

    def show(**more: str) -> None:
        print_json({"added": [_added(each) for each in added], "skipped": skipped, **_totals(archive), **more})

    try:
        with archive.writing(), _bar(len(files), "add", quiet or as_json) as bar:
            for path, each in zip(files, own, strict=True):
                if missing and archive.chains.named(each):
                    archive.find(each)
                    if compare and not quantized:
                        archive.check_same(each, formats.load(path, tensors_of))
                    skipped.append(each)
                elif quantized:
                    added.append(archive.add_quantized(each, path, options, chain=chain))
                else:
                    archive.check_name(each)
                    graph = loaded.pop(path, None) or formats.load(path, tensors_of)
                    added.append(archive.add(each, graph, chain=chain, jobs=options.jobs))
                if not as_json:
                    done = skipped and skipped[-1] == each
                    click.echo(f"{one_line(each)}  skipped, it is in the archive" if done else _line(added[-1]))
                bar.update()
    except (SeedError, OSError) as error:
        if as_json and added:
            show(error=str(error))
        raise
    if as_json:
        show()


@command.command("list", context_settings=_SETTINGS)
@_JSON
@click.pass_obj
def list_(folder: Path, as_json: bool) -> None:
    """List the checkpoints: name, bytes, and how many seeds each is on top of."""
    from seed_exporter.archive import Archive
    from seed_exporter.report.text import size

    archive = Archive(folder, indexed=True)
    found, broken = archive.checkpoints, archive.chains.broken
    if as_json:
        print_json(
            {
                "checkpoints": [_row(archive, link) for link in found],
                "broken": [link.name for link in broken],
                "damaged": archive.chains.damaged,
                **_totals(archive),
            }
        )
    else:
        names = [archive.base_name(link) or "key seed" for link in found]
        rows = [[one_line(a.name), size(a.bytes), str(a.depth), one_line(b)] for a, b in zip(found, names, strict=True)]
        rows += [
            [one_line(link.name), size(link.bytes), str(link.depth), "a seed below it is missing"] for link in broken
        ]
        totals = _totals(archive)
        click.echo("\n".join(table([["checkpoint", "size", "depth", "on top of"], *rows], right=(1, 2))))
        for file in archive.chains.damaged:
            click.echo(f"{file} is damaged")
        click.echo(f"{len(found)} checkpoints, {size(totals['bytes'])} of {size(totals['weights_bytes'])} of weights")


@command.command(context_settings=_SETTINGS)
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file.")
@_JSON
@click.pass_obj
def restore(folder: Path, name: str, output: Path, as_json: bool) -> None:
    """Write the checkpoint NAME as a file: .onnx, or .safetensors, .pt where it has no graph."""
    from seed_exporter.archive import Archive

    start, archive = time.perf_counter(), Archive(folder)
    size = archive.restore(name, output)
    seconds = time.perf_counter() - start
    if as_json:
        print_json({"name": name, "output": str(output), "weights_bytes": size, "seconds": seconds})
    else:
        click.echo(f"{one_line(name)}: {size:,} bytes of weights in {output}, {seconds:.1f} s")


@command.command(context_settings=_SETTINGS)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_JSON
@_QUIET
@click.pass_obj
def verify(folder: Path, names: Sequence[str], as_json: bool, quiet: bool) -> None:
    """Decode all checkpoints, or those that are named, and compare all digests."""
    from seed_exporter.archive import Archive

    archive = Archive(folder)
    count = len(names) or len(archive.checkpoints)
    with _bar(count, "verify", quiet or as_json) as bar:
        faults = archive.verify(names, lambda done, total: bar.update() and None)
    if as_json:
        print_json({"checked": count, "faults": [{"name": name, "fault": fault} for name, fault in faults]})
    else:
        for name, fault in faults:
            click.echo(f"{one_line(name)}: {fault}")
        if not faults:
            click.echo(f"{count} checkpoints are whole")
    if faults:
        raise DamagedArchiveError(str(folder), [name for name, _ in faults])


@command.command(context_settings=_SETTINGS)
@click.option("--every", type=click.IntRange(1), help="Keep every Nth that was added, the first one included.")
@click.option("--last", type=click.IntRange(1), help="Keep the last N.")
@click.option("--keep", multiple=True, metavar="NAME", help="Keep this one as well; may be repeated.")
@_CHAIN
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@_JSON
@click.pass_obj
def prune(
    folder: Path, every: int | None, last: int | None, keep: Sequence[str], chain: int, dry_run: bool, as_json: bool
) -> None:
    """Remove checkpoints but those that a rule keeps; what is kept gives the same weights as before.

    Rules add up: --every 10 --last 20 keeps both. Applied again, they remove nothing that they kept.
    """
    from seed_exporter.archive import Archive
    from seed_exporter.report.text import size

    if every is None and last is None:
        raise UsageError("say what to keep: --every N, --last N, or both")
    archive = Archive(folder)
    for name in keep:
        archive.find(name)

    def chosen(found: list[Link]) -> list[Link]:
        recent = {link.number for link in found[-last:]} if last else set()
        return [
            link
            for link in found
            if link.number in recent or link.name in keep or (every and not (link.number - 1) % every)
        ]

    # A dry run takes no lock and removes nothing that a killed writer left.
    with contextlib.nullcontext() if dry_run else archive.writing():
        pruned = archive.prune(chosen, chain=chain, dry=dry_run)
    if as_json:
        print_json({
            "removed": pruned.removed, "recoded": pruned.recoded, "held": pruned.held, "before": pruned.before,
            "after": pruned.after, "dry_run": dry_run,
        })  # fmt: skip
    elif dry_run:
        click.echo("\n".join([*map(one_line, pruned.removed), f"{len(pruned.removed)} checkpoints would be removed"]))
    else:
        click.echo(
            f"{len(pruned.removed)} checkpoints removed, {len(pruned.recoded)} coded again, "
            f"{pruned.held} seeds stay for others: {size(pruned.before)} are {size(pruned.after)} now"
        )


def _bar(total: int, what: str, quiet: bool) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, leave=False, file=sys.stderr, disable=quiet or not sys.stderr.isatty())


def _line(made: Added) -> str:
    from seed_exporter.report.text import size

    where = "key seed" if made.base is None else f"on {one_line(made.base)}"
    ratio = made.source_bytes / made.link.bytes
    tensors = "" if made.tensors is None else f"{made.tensors} tensors  "
    return f"{one_line(made.link.name)}  {tensors}{size(made.link.bytes)}  {ratio:.2f}x  {made.seconds:.2f} s  {where}"


def _added(made: Added) -> dict[str, Any]:
    return {
        "name": made.link.name, "number": made.link.number, "bytes": made.link.bytes, "base": made.base,
        "depth": made.link.depth, "weights_bytes": made.source_bytes, "tensors": made.tensors,
        "seconds": round(made.seconds, 3),
    }  # fmt: skip


def _row(archive: Archive, link: Link) -> dict[str, Any]:
    return {
        "name": link.name, "number": link.number, "bytes": link.bytes, "base": archive.base_name(link),
        "depth": link.depth, "digest": link.digest, "weights_bytes": link.weights_bytes,
    }  # fmt: skip


def _totals(archive: Archive) -> dict[str, int]:
    weights = sum(link.weights_bytes for link in archive.checkpoints)
    return {"count": len(archive.checkpoints), "bytes": archive.bytes, "weights_bytes": weights}
