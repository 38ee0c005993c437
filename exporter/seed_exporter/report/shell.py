"""What all pages share: the document around their sections, which needs nothing but itself."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

_NAMESPACE: Final = ' xmlns="http://www.w3.org/2000/svg"'

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">{head}
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: light-dark(#1a1d21, #e8e6e1); --soft: light-dark(#6b7280, #9aa0a8);
  --line: light-dark(#e3e5e8, #33373d); --bar: #2f8f6b; --was: light-dark(#c9ced6, #4a5058); }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #15171a);
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.05rem; margin: 2.25rem 0 .5rem; }}
p.sub, td.soft, caption {{ color: var(--soft); }} svg {{ max-width: 100%; height: auto; }}
.row {{ display: grid; grid-template-columns: 7rem 1fr 9rem; gap: .75rem; align-items: center; margin: .3rem 0; }}
.row i {{ display: block; height: 1.1rem; border-radius: 3px; background: var(--bar); min-width: 2px; }}
.row i.was {{ background: var(--was); }} .row b {{ font-weight: 500; text-align: right; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 500; color: var(--soft); }} td:first-child {{ min-width: 10rem; overflow-wrap: anywhere; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
td.plan {{ white-space: nowrap; }}
td.bar {{ min-width: 5rem; }} td.bar i {{ display: block; height: .7rem; border-radius: 2px; background: var(--bar);
  min-width: 1px; }} td.bar i.damage {{ background: #c4703f; }}
.scroll {{ overflow-x: auto; }}
</style>
<h1>{title}</h1><p class="sub">{subtitle}</p>
{sections}
</html>
"""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]], refresh: int = 0) -> str:
    """Put a page together from sections: a heading as text, and HTML. Sections without HTML are left out.

    Args:
        title: of the page, as text.
        subtitle: the line below, as text.
        sections: in their order.
        refresh: time after which a browser loads the page again [s]; 0 for never.
    """
    return _PAGE.format(
        head=f'<meta http-equiv="refresh" content="{refresh}">' if refresh else "",
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        sections="\n".join(f"<h2>{html.escape(heading)}</h2>{body}" for heading, body in sections if body),
    )


def inline(drawing: str) -> str:
    """Return an SVG for a place in a page; the namespace is for files of their own, and a page names no address."""
    return drawing.replace(_NAMESPACE, "", 1)
