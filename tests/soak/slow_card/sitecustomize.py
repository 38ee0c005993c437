"""A slow card: whatever touches a device's models, its incoming seeds or its cache waits first.

Python imports this by itself where its folder is on PYTHONPATH. Each phase of a push is then long enough to be hit in,
and a hit falls between any two of the things that the phase does to the disk.
"""

import os
import sys
import time

DELAY_S = 0.015
EVENTS = ("open", "os.", "shutil.")
# Not all of the store: the runtime lies there as well, and importing it is not what is to be hit.
FOLDERS = tuple(
    os.path.join(os.environ[home], name)
    for home, name in (("SEED_HOME", "models"), ("SEED_HOME", "incoming"), ("XDG_CACHE_HOME", ""))
    if home in os.environ
)


def wait(event: str, arguments: tuple[object, ...]) -> None:
    if event.startswith(EVENTS) and arguments and str(arguments[0]).startswith(FOLDERS):
        time.sleep(DELAY_S)


if FOLDERS:
    sys.addaudithook(wait)
