"""A real browser without a screen, which looks at pages that a server of this machine gives.

`python -m tests.support.browser FOLDER PICTURE.png` takes a picture of the first page of the site in FOLDER.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""Commands under which Chromium is installed."""


def browser() -> str | None:
    """Return the path of the browser, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def look(program: str, *arguments: str) -> str:
    """Run the browser without a screen, with a profile of its own; return what it prints."""
    # Hosts that don't resolve: a page that asks another machine for something gets nothing, and the test sees it.
    closed = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [
                program,
                "--headless",
                "--no-sandbox",  # which a container doesn't allow, and root neither; the pages are our own
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                closed,
                f"--user-data-dir={profile}",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a port of this machine while the block runs; gives the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def main(folder: str, picture: str) -> int:
    """Take a picture of the first page of a site."""
    program = browser()
    if program is None:
        print("no Chromium here; on Debian and Ubuntu: apt install chromium", file=sys.stderr)
        return 1
    with served(Path(folder)) as address:
        look(program, "--window-size=1280,1640", f"--screenshot={Path(picture).resolve()}", f"{address}index.html")
    print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
