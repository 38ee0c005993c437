"""`python -m bench`: measure against goals and peers. Results go to bench/results, with --publish to docs/ as well."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from bench import measure, publish

NAMES = (
    "decode", "contexts", "two_cores", "memory", "export_time", "shrink", "lossless", "quality", "deploy", "updates",
    "transfer", "identity", "small_streams", "overhead", "assembly", "torch_outputs", "cold_start", "tflite",
)  # fmt: skip
LONG = (
    "size", "rules", "checkpoints", "archive", "versions", "finetune_memory", "personalise", "tuned_export", "lora",
    "gradients", "targets", "zoo", "generation",
)  # fmt: skip
"""Benchmarks that take long, up to hours, and are run by their names only."""
DATA_ERROR = 3  # exit code: the models or a module are missing


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that are named. Goals that aren't met are printed and don't change the exit code."""
    options = _parser().parse_args(arguments)
    names = NAMES if "all" in options.names or not options.names else tuple(dict.fromkeys(options.names))
    if options.publish and options.quick:
        print("error: --quick measures less than the page says; publish a whole run", file=sys.stderr)
        return 2
    results = {}
    for name in names:
        measure.say(f"== {name}")
        before, start = measure.load(), time.perf_counter()
        try:
            module = importlib.import_module(f"bench.{name}")
            figures = module.run(quick=options.quick)
        except ModuleNotFoundError as error:
            measure.say(f"error: the module {error.name} is missing; run make bench, which installs what is needed")
            return DATA_ERROR
        except FileNotFoundError as error:
            measure.say(f"error: {error}; the first lines of bench/{name}.py say what it needs")
            return DATA_ERROR
        result = {
            "benchmark": name,
            "quick": options.quick,
            "machine": measure.machine(),
            "seconds": round(time.perf_counter() - start, 1),
            "load_before": before,
            "load_after": measure.load(),
            "figures": figures,
        }
        results[name] = result
        publish.keep(name, result)
        if options.publish:
            publish.publish(name, module, result)
        if not options.json:
            measure.note("")
            print("\n".join([*module.table(figures), *publish.goal_lines(result), ""]), flush=True)
    if options.json:
        print(json.dumps(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure speed, memory, size and quality beside peers and goals.",
        epilog="The public models come from `python -m bench.public`; the peers are installed by `make bench`.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        choices=["all", *NAMES, *LONG, []],
        metavar="NAME",
        help=f"all (default), {', '.join(NAMES)}; alone: {', '.join(LONG)}",
    )
    parser.add_argument("--quick", action="store_true", help="small settings: shows that everything works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--publish", action="store_true", help="write tables and charts into docs/ as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
