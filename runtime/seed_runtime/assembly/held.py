"""An assembled model that is held for as long as it is used: from the cache, or from a temporary folder."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from seed_runtime.assembly.cache import ModelCache, is_synced
from seed_runtime.format.header import Header
from seed_runtime.system.scratch import scratch_folder

Notice = Callable[[str], None]
"""Callback for notices: gets a line for the user where work goes on otherwise than planned."""
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})
"""Errors of a cache that can't be written to."""


@contextlib.contextmanager
def held_model(
    digest: bytes,
    header: Header,
    cache: ModelCache,
    assemble: Callable[[Path], None],
    notice: Notice,
    is_intact: Callable[[Path], bool] | None = None,
    *,
    sync_beside: bool = False,
) -> Iterator[Path]:
    """Give the folder of an assembled model in the cache, or a temporary one where the cache can't be written to.

    Args:
        digest: the seed's digest.
        header: the seed's header.
        cache: where.
        assemble: fills an empty folder with the model.
        notice: gets what the user should know.
        is_intact: asked about a copy that was there before; one that was altered is assembled again.
        sync_beside: as for `ModelCache.hold`.
    """
    made = altered = False

    def make(folder: Path) -> None:
        nonlocal made
        if altered:
            notice("the assembled copy in the cache was altered; assembling it again")
        assemble(folder)
        made = True

    def on_wait() -> None:
        notice("another process is using this seed's folder in the cache; waiting for it")

    def is_good(folder: Path) -> bool:
        nonlocal altered
        altered = is_intact is not None and not is_intact(folder)
        return not altered

    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(
                cache.hold(digest, header, make, on_wait, is_good if is_intact else None, sync_beside=sync_beside)
            )
        except OSError as error:
            if error.errno not in _UNWRITABLE or made:
                raise
            # Nobody removes models from a folder that can't be written to: no lock is needed.
            folder = cache.root / digest.hex()
            if not is_synced(folder, header) or not is_good(folder):
                notice(f"{cache.root} can't be written to; assembling in a temporary folder")
                folder = stack.enter_context(scratch_folder())
                make(folder)
        yield folder
