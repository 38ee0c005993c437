"""The docs site: each page has its line, each command its help, and a browser shows the first page by itself."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bench import front
from tests.support.browser import browser, look, served
from tests.support.project import ROOT, own_files, relative, skip_or_fail

NAV = re.compile(r"^ +- (?:[^:#\n]+: )?([\w./-]+\.md)$", re.MULTILINE)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("mkdocs", reason="the docs site needs pip install 'seed-runtime[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_each_page_has_one_line_in_the_navigation(hooks: ModuleType) -> None:
    listed = NAV.findall((ROOT / "mkdocs.yml").read_text())
    pages = {relative(path).removeprefix("docs/") for path in own_files() if relative(path).startswith("docs/")}
    pages = {page for page in pages if page.endswith(".md") and not page.startswith("adr/0")}
    assert sorted(listed) == sorted(pages | set(hooks.ROOT_PAGES) | {f"cli/{name}.md" for name in hooks.MODULES})


def test_each_command_has_its_help_in_the_reference(hooks: ModuleType) -> None:
    words = hooks.command_words()
    assert {"", "batch", "compare", "archive", "archive DIR add"} <= set(words["seed-export"])
    assert {"", "push", "status", "rollback"} <= set(words["seed-deploy"])
    assert hooks.help_of("seed-export", "archive DIR prune").startswith("Usage: seed-export archive DIR prune")


@pytest.mark.parametrize(
    ("uri", "written", "shown"),
    [
        ("deltas.md", "[SPEC](../SPEC.md#codecs)", "[SPEC](SPEC.md#codecs)"),
        ("adr/0024-x.md", "[S](../../SECURITY.md)", "[S](../SECURITY.md)"),
        ("CONTRIBUTING.md", "[ADR](docs/adr/README.md)", "[ADR](adr/README.md)"),
        ("CONTRIBUTING.md", "[fragments](changelog.d/README.md)", "fragments"),
        ("deltas.md", "[there](https://example.org/x)", "[there](https://example.org/x)"),
        ("deltas.md", "[nowhere](absent.md)", "[nowhere](absent.md)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, uri: str, written: str, shown: str
) -> None:
    class Page:
        class file:  # noqa: N801  as MkDocs calls it
            src_uri = uri

    class Pages:
        def get_file_from_path(self, path: str) -> bool:
            return (ROOT / "docs" / path).is_file()

    monkeypatch.setattr(hooks, "repository_url", lambda: None)
    assert hooks.on_page_markdown(written, Page, None, Pages()) == shown
    if shown == "fragments":
        monkeypatch.setattr(hooks, "repository_url", lambda: "https://example.net/seed")
        shown = "[fragments](https://example.net/seed/blob/HEAD/changelog.d/README.md)"
        assert hooks.on_page_markdown(written, Page, None, Pages()) == shown


def test_the_chart_of_sizes_is_that_of_the_published_records() -> None:
    assert front.drawn() == front.CHART.read_text(), "draw it again: python -m bench.front"


@pytest.mark.slow
def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    # Links may lead elsewhere; scripts, styles, fonts and pictures may not.
    loaded = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc="?https?:|<link[^>]*\shref="?https?:|url\(["']?https?:""")
    found = [path.name for path in (*site.rglob("*.html"), *site.rglob("*.css")) if loaded.search(path.read_text())]
    assert not found


@pytest.mark.slow
def test_a_browser_shows_the_first_page_with_its_pictures_and_its_search(site: Path, tmp_path: Path) -> None:
    program = browser()
    if program is None:
        skip_or_fail("no Chromium here (Debian's package chromium)")
    picture = tmp_path / "first.png"
    with served(site) as address:
        page = look(program, "--virtual-time-budget=10000", "--dump-dom", f"{address}index.html")
        look(program, "--window-size=1280,1640", f"--screenshot={picture}", f"{address}index.html")
    assert "<title>seed-runtime</title>" in page
    assert {"front/way.svg", "front/size.svg"} <= set(re.findall(r'<img[^>]* src="([^"]+)"', page))
    assert 'data-md-component="search"' in page
    # A page that the style sheet didn't reach is white but for text, and a fraction of this.
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 60_000
