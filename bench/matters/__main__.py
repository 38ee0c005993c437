"""`python -m bench.matters`: measure a topic, or draw docs/what-matters.md from what was measured."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import measure

from . import page, records

DATA_ERROR = 3  # exit code: data or a module are missing


def main(arguments: list[str] | None = None) -> int:
    """Measure the topics that are named, and draw the page."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.matters",
        description="Measure what matters for the size of seeds, and draw docs/what-matters.md from the records.",
        epilog="the characters come from `python -m bench.claims.data glyphs --out DIR`, "
        "the public models from `python -m bench.public prepare all`",
    )
    parser.add_argument("--run", nargs="+", choices=page.MEASURED, default=[], metavar="TOPIC",
                        help=f"measure: {', '.join(page.MEASURED)}")  # fmt: skip
    parser.add_argument("--render", action="store_true", help="draw the page and its charts")
    parser.add_argument("--data", type=Path, default=Path("build/claims"), help="folder of the characters")
    parser.add_argument("--quick", action="store_true", help="small settings, no record: shows that everything works")
    options = parser.parse_args(arguments)
    if not options.run and not options.render:
        parser.error("give --run TOPIC, --render or both")
    for topic in options.run:
        measure.say(f"== {topic}")
        start = time.perf_counter()
        try:
            found = page.TOPICS[topic].run(options.quick, options.data)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            print(f"error: {topic}: {error}; python -m bench.matters --help says what is needed", file=sys.stderr)
            return DATA_ERROR
        if options.quick:
            print("\n".join(page.TOPICS[topic].section(records.load() | {topic: found})))
        else:
            records.keep(topic, found, time.perf_counter() - start)
    if options.render:
        for path in page.write():
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
