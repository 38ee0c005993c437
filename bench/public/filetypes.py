"""Provide files of known type from Debian packages, labelled by extension.

Source packages are split between calibration and test; nothing of the running system is read,
so the set is the same everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from .base import check_split, shuffled
from .fetch import debian

# Per split, `name=version`; none of them was replaced by a security update.
PACKAGES = {
    "test": (
        "python3-sympy=1.11.1-1",
        "tcllib=1.21+dfsg-1",
        "node-typescript=4.8.4+ds1-2",
        "iso-codes=4.15.0-1",
        "libjs-jquery-ui=1.13.2+dfsg-1",
        "golang-github-spf13-cobra-dev=1.6.1-1",
        "librust-syn-dev=1.0.107-1",
        "cmake-data=3.25.1-1",
        "adwaita-icon-theme=43-1",
        "fonts-font-awesome=5.0.10+really4.7.0~dfsg-4.1",
        "lilypond-data=2.24.1-2",
        "oxygen-sounds=4:5.27.5-2",
        "ruby-sass=3.7.4-5",
        "r-cran-ggplot2=3.4.1+dfsg-1",
        "php-doctrine-orm=2.14.1+dfsg-1",
        "fpc-source-3.2.2=3.2.2+dfsg-20",
        "maxima-src=5.46.0-11",
        "texlive-latex-recommended=2022.20230122-3",
        "fonts-liberation=1:1.07.4-11",
        "libgoogle-gson-java=2.10-1",
        "lua-penlight=1.13.1-3",
        "gcompris-qt-data=3.1-2",
    ),
    "calib": (
        "python3-networkx=2.8.8-1",
        "tklib=0.8~20230222-1",
        "node-d3=5.16.0-10",
        "node-vue=2.6.14+dfsg-5",
        "php-monolog=2.9.1-1",
        "ruby-mustache=1.1.1-2",
        "golang-github-spf13-viper-dev=1.10.1-1",
        "librust-regex-dev=1.7.1-1",
        "extra-cmake-modules=5.103.0-1",
        "gnome-icon-theme=3.12.0-5",
        "fonts-mathjax=2.7.9+dfsg-1",
        "sound-theme-freedesktop=0.8-2",
        "sbcl-source=2:2.2.9-1",
        "elpa-magit=3.3.0-2",
        "texlive-pictures=2022.20230122-3",
        "fonts-lmodern=2.005-1",
        "freepats=20060219-4",
        "blends-doc=0.7.5",
        "docbook-xsl=1.79.2+dfsg-2",
        "libcommons-io-java=2.11.0-2",
    ),
}

# Extension to the model's label. Extensions that mean several things (.m, .inc, .txt) are left out.
LABELS = {
    "asm": "asm", "awk": "awk", "bib": "bib", "bmp": "bmp", "c": "c", "cc": "cpp", "cls": "latex",
    "cmake": "cmake", "cpp": "cpp", "css": "css", "csv": "csv", "cxx": "cpp", "diff": "diff",
    "el": "lisp", "f": "fortran", "f90": "fortran", "flac": "flac", "gif": "gif", "go": "go",
    "gz": "gzip", "htm": "html", "html": "html", "ico": "ico", "jar": "jar", "java": "java",
    "jpeg": "jpeg", "jpg": "jpeg", "js": "javascript", "json": "json", "lisp": "lisp",
    "lua": "lua", "m4": "m4", "md": "markdown", "mid": "midi", "ml": "ocaml",
    "mp3": "mp3", "oga": "ogg", "ogg": "ogg", "otf": "otf", "pas": "pascal", "patch": "diff",
    "pdf": "pdf", "php": "php", "pl": "perl", "pm": "perl", "png": "png", "po": "po",
    "pp": "pascal", "ps": "postscript", "py": "python", "qml": "qml", "r": "r", "rb": "ruby",
    "rs": "rust", "rst": "rst", "scss": "scss", "sh": "shell", "sql": "sql", "sty": "latex",
    "svg": "svg", "tcl": "tcl", "tex": "latex", "toml": "toml", "ts": "typescript", "ttf": "ttf",
    "vue": "vue", "wav": "wav", "webp": "webp", "woff": "woff", "woff2": "woff2", "xml": "xml",
    "xsl": "xml", "yaml": "yaml", "yml": "yaml", "zip": "zip",
}  # fmt: skip

# No label may dominate the mean: at most this many files of one label and one package.
PER_PACKAGE = 40
SMALLEST = 16  # [B]


def fetch_all(cache: Path) -> None:
    """Fetch every package of both splits."""
    for packages in PACKAGES.values():
        for package in packages:
            debian(cache, *package.split("=", 1))


def labelled_files(cache: Path, known: set[str], split: str) -> list[tuple[Path, str]]:
    """Return (path, label) in a fixed shuffled order, for labels in `known` only."""
    check_split(split)
    found: dict[str, tuple[Path, str]] = {}
    for package in PACKAGES[split]:
        name, version = package.split("=", 1)
        root = debian(cache, name, version) / "usr"
        groups: dict[str, list[str]] = defaultdict(list)
        for path in root.rglob("*"):
            label = LABELS.get(path.suffix[1:].lower())
            if label not in known or path.is_symlink() or not path.is_file():
                continue
            if path.stat().st_size >= SMALLEST:
                groups[label].append(str(path.relative_to(root)))
        for label, files in groups.items():
            for file in shuffled(files, name)[:PER_PACKAGE]:
                found[f"{name}/{file}"] = (root / file, label)
    return [found[key] for key in shuffled(list(found), split)]
