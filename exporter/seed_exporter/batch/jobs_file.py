"""Read files of jobs: TOML with `[defaults]` and `[[job]]` tables, whose keys are the options of seed-export.

A file of jobs holds no code: its values are texts, numbers and truth values, nothing in it is expanded or run, and a
metric that names a Python function is refused.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from seed_runtime.errors import UsageError

_TABLES: Final = ("defaults", "job")
_NOT_OURS: Final = frozenset({"help", "jobs", "json", "quiet", "version"})
"""Options of seed-export that the batch decides for all jobs."""
_GOALS: Final = frozenset({"quality", "size", "target"})
"""Options of which a job has one: its own takes the place of all of them in the defaults."""
_WRITTEN: Final = ("output", "report")
"""Options that name files which an export writes."""


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        model: the model's file, an absolute path.
        values: the other options by their long names, paths made absolute.
        inputs: the values that are paths of files which an export reads, by the options' names.
    """

    model: Path
    values: Mapping[str, str]
    inputs: Mapping[str, Path]

    @property
    def output(self) -> Path:
        """The seed."""
        return Path(self.values["output"])

    @property
    def written(self) -> list[Path]:
        """The files that this job writes."""
        return [Path(self.values[name]) for name in _WRITTEN if name in self.values]

    @property
    def arguments(self) -> list[str]:
        """The command line of seed-export."""
        flags = [(f"--{name.replace('_', '-')}", value) for name, value in self.values.items()]
        return [*(f"{flag}={value}" if value else flag for flag, value in flags), "--", str(self.model)]


def read(path: Path, command: click.Command) -> list[Job]:
    """Read a file of jobs, and check each as the command line of an export would be.

    Args:
        path: the file; paths in it are relative to its folder.
        command: `seed-export MODEL`, whose options are the keys.

    Raises:
        UsageError: it can't be read, or is wrong at a place that the message names.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}; correct it there") from None
    _check_keys(found, _TABLES, str(path), "table")
    defaults, tables = found.get("defaults", {}), found.get("job", [])
    if not isinstance(defaults, dict) or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise UsageError(f"{path}: [defaults] is one table and [[job]] begins each job; write them so")
    if not tables:
        raise UsageError(f"{path} has no job; begin each with a line [[job]]")
    options = {
        name: param
        for param in command.params
        for name in [_long_name(param)]
        if name and name not in _NOT_OURS and (isinstance(param, click.Option) or name == "model")
    }
    _check_keys(defaults, options, f"{path}, [defaults]", "option")
    folder = Path(os.path.abspath(path)).parent
    jobs = []
    for number, table in enumerate(tables, 1):
        place = f"{path}, job {number}"
        _check_keys(table, options, place, "option")
        kept = {name: value for name, value in defaults.items() if name not in _GOALS or not _GOALS & table.keys()}
        job = _job({**kept, **table}, options, folder, place)
        try:
            command.make_context("seed-export", job.arguments)
        except click.ClickException as error:
            raise UsageError(f"{place}: {error.format_message().rstrip('.')}; correct it there") from None
        jobs.append(job)
    _check_written(jobs, path)
    return jobs


def _job(values: Mapping[str, Any], options: Mapping[str, click.Parameter], folder: Path, place: str) -> Job:
    texts, inputs = {}, {}
    for name, value in values.items():
        if (text := _text(value, options[name], f"{place}, {name}")) is None:
            continue
        if name == "model" or isinstance(options[name].type, click.Path):
            text = os.path.normpath(folder / text)
            if name not in _WRITTEN:
                inputs[name] = Path(text)
        texts[name] = text
    if (model := inputs.pop("model", None)) is None:
        raise UsageError(f'{place} names no model; add a line such as model = "model.onnx"')
    if ":" in texts.get("metric", ""):
        raise UsageError(
            f"{place}: a file of jobs can't name Python code; choose one of the built-in metrics, or export this model "
            f"alone: seed-export {model} --metric {texts['metric']}"
        )
    del texts["model"]
    texts.setdefault("output", str(folder / model.with_suffix(".seed").name))
    return Job(model, texts, inputs)


def _text(value: Any, param: click.Parameter, place: str) -> str | None:
    """Return a value as the command line has it, "" for a flag that is set, and None for one that isn't."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{place}: {value!r} is neither true nor false; write one of them")
        return "" if value else None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "" or "\0" in str(value):
        raise UsageError(f"{place}: {value!r} is neither a text nor a number; write what the option takes")
    return str(value)


def _long_name(param: click.Parameter) -> str | None:
    """Return the key of a parameter in a file of jobs: its long name without dashes before it."""
    names = [name for name in param.opts if name.startswith("--")] or [param.name]
    return (names[0] or "").removeprefix("--").replace("-", "_") or None


def _check_keys(found: Iterable[str], known: Iterable[str], place: str, kind: str) -> None:
    known = list(known)
    for key in found:
        if key in _NOT_OURS and kind == "option":
            raise UsageError(f"{place}: {key} is decided for all jobs at once; see: seed-export batch --help")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0) or known
            raise UsageError(f"{place}: no {kind} is called {key!r}; the nearest one is {near[0]}")


def _check_written(jobs: list[Job], path: Path) -> None:
    """Refuse jobs that would write one file twice, or what another one reads."""
    read = {os.path.realpath(each) for job in jobs for each in [job.model, *job.inputs.values()]}
    writers: dict[str, int] = {}
    for number, job in enumerate(jobs, 1):
        for written in job.written:
            real = os.path.realpath(written)
            if real in writers:
                raise UsageError(
                    f"{path}: jobs {writers[real]} and {number} both write {written}; give one of them another output"
                )
            if real in read:
                raise UsageError(f"{path}, job {number}: {written} is read by a job; name another output")
            writers[real] = number
