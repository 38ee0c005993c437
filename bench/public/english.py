"""English prose from Debian's documentation packages, tags stripped, paragraphs deduplicated."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from .base import check_split, shuffled
from .fetch import debian

# Per split, `name=version:pattern` of pages under /usr/share; no package stands in both.
SOURCES = {
    "test": (
        "debian-faq=11.1:doc/debian/FAQ/*.en.html",
        "debian-handbook=11.20220922:doc/debian-handbook/html/en-US/*.html",
        "debian-history=2.28:doc/debian-history/docs/*.en.html",
    ),
    "calib": (
        "harden-doc=3.19+nmu1:doc/harden-doc/html/en-US/*.html",
        "user-mode-linux-doc=20060501+repack0-1:doc/user-mode-linux-doc/html/*.html",
        "developers-reference=12.18:developers-reference/*.html",
    ),
}
SHORTEST = 80  # [characters]; shorter ones are menus and captions


def fetch_all(cache: Path) -> None:
    """Fetch the documentation packages of both splits."""
    for sources in SOURCES.values():
        for source in sources:
            debian(cache, *source.rsplit(":", 1)[0].split("=", 1))


def pages(cache: Path, split: str) -> list[str]:
    """Return the text of pages in a fixed shuffled order, paragraphs on lines of their own."""
    check_split(split)
    texts: dict[str, str] = {}
    seen: set[str] = set()
    for source in SOURCES[split]:
        package, pattern = source.rsplit(":", 1)
        root = debian(cache, *package.split("=", 1)) / "usr/share"
        for path in sorted(root.glob(pattern)):
            reader = _Paragraphs()
            reader.feed(path.read_text("utf-8", "replace"))
            fresh = [text for text in dict.fromkeys(reader.texts) if text not in seen]
            seen.update(fresh)
            if fresh:
                texts[str(path.relative_to(root))] = "\n".join(fresh)
    return [texts[name] for name in shuffled(list(texts), "english")]


class _Paragraphs(HTMLParser):
    """Collects the text of paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # DocBook's paragraphs are `<p>` or `<div class="para">`.
        if tag == "p" or (tag == "div" and dict(attrs).get("class") == "para"):
            self._close()
            self._open = []
        elif tag in {"div", "pre", "table", "ul", "ol", "dl", "h1", "h2", "h3"}:
            self._close()

    def handle_endtag(self, tag: str) -> None:
        if tag in {"p", "div"}:
            self._close()

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)

    def _close(self) -> None:
        text = " ".join("".join(self._open or []).split())
        if len(text) >= SHORTEST:
            self.texts.append(text)
        self._open = None
