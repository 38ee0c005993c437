"""Tell English prose from markup, tables, code and other languages. Pure: text in, paragraphs out."""

from __future__ import annotations

import gzip
import html
import re
import zlib

ENDINGS = (".html", ".htm", ".xhtml", ".xml", ".txt", ".rst", ".md", ".texi")
# Indices, sources, changelogs, licences (the same in every package), and other languages.
SKIPPED = re.compile(
    r"genindex|_modules/|_source\.html|-source|search|/_static/|changelog|copyright|/news|licen[sc]e|copying|"
    r"objects\.inv|/(fr|de|es|ja|ru|zh|it|pl|pt|ko|nl|cs|sv|da|tr|uk|hu)[_/-]",
    re.IGNORECASE,
)
LARGEST_PAGE = 3_000_000  # [B]
SHORTEST, LONGEST = 60, 8000  # of a paragraph [characters]
LETTERS, COMMON = 0.66, 0.16  # least share of letters among characters, and of common words among words

_DROPPED = re.compile(r"<(script|style|pre|svg|math|code)\b.*?</\1>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_BLOCKS = re.compile(r"</?(p|div|li|h\d|tr|br|td|dd|dt|table|ul|ol|section|para|title)\b[^>]*>", re.IGNORECASE)
_TAGS = re.compile(r"<[^>]+>")
_COMMON = re.compile(r"\b(the|of|to|and|is|in|that|a|for|this|it|be|with|as|are|or|by)\b", re.IGNORECASE)


def is_page(path: str, size: int) -> bool:
    """Return whether a file of a package may hold prose."""
    name = path.lower().removesuffix(".gz")
    return size <= LARGEST_PAGE and name.endswith(ENDINGS) and not SKIPPED.search(path)


def paragraphs(path: str, data: bytes) -> list[str]:
    """Return a page's paragraphs of English, each on one line, in their order."""
    if path.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return []
    text = data.decode("utf-8", "ignore")
    if path.lower().removesuffix(".gz").endswith(("ml", "htm")):
        text = html.unescape(_TAGS.sub(" ", _BLOCKS.sub("\n\n", _DROPPED.sub(" ", text))))
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in found if is_prose(paragraph)]


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph is English prose."""
    if not SHORTEST <= len(paragraph) <= LONGEST:
        return False
    letters = sum(map(str.isalpha, paragraph))
    words = paragraph.count(" ") + 1
    return letters >= LETTERS * len(paragraph) and len(_COMMON.findall(paragraph)) >= COMMON * words


def stem(package: str) -> str:
    """Return what packages of one source have in common: the name without versions and `-doc`."""
    return re.sub(r"[-.]?\d[\d.]*", "", package).removesuffix("-doc").removesuffix("-dev")
