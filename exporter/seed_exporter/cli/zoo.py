"""`seed-export zoo`: which public models there are recipes for."""

from __future__ import annotations

import click

from seed_exporter.zoo.recipe import Recipe
from seed_exporter.zoo.registry import RECIPES
from seed_runtime.cli import terminal
from seed_runtime.errors import UsageError
from seed_runtime.units import size_text

_EPILOG = """\b
Examples:
  seed-export zoo
  seed-export zoo:magika -o magika.seed
  seed-run magika.seed README.md
\b
zoo:NAME takes all options of an export. Without --target, --size and --quality it has the recipe's own goal,
and ends with 15 where the seed misses the size that the list names.
Wheels are downloaded by pip into the user's cache, with the digests that the list shows by --json.
Exit codes: 0 ok, 2 usage.
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("names", nargs=-1, metavar="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List public models of which `seed-export zoo:NAME` makes ready seeds, with what stands before and behind them."""
    if names:
        raise UsageError(f"seed-export zoo lists what there is; to make a seed: seed-export zoo:{names[0]}")
    if as_json:
        terminal.print_json({"recipes": [recipe.as_json() for recipe in RECIPES.values()]})
        return
    width = max(map(len, RECIPES))
    for recipe in RECIPES.values():
        click.echo(f"{recipe.name:{width}}  {recipe.about}")
        click.echo(f"{'':{width}}  {_details(recipe)}")
    click.echo("\nMake a seed of one: seed-export zoo:NAME")


def _details(recipe: Recipe) -> str:
    parts = [
        f"at most {size_text(recipe.goal.size)}, {recipe.goal.ratio:g} times smaller",
        f"{recipe.license.spdx}, {recipe.license.holder}",
        f"{recipe.download_bytes / 1e6:.1f} MB from {', '.join(wheel.pin for wheel in recipe.wheels)}",
    ]
    if recipe.needs:
        parts.append(f"needs {', '.join(recipe.needs)}")
    if recipe.extras:
        parts.append(f"seed-run needs seed-runtime[{','.join(recipe.extras)}]")
    return "; ".join(parts)
