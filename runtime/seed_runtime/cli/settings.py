"""Settings: the flag, else the environment, else the user's config file.

    $XDG_CONFIG_HOME/seed/config.toml        # ~/.config where XDG_CONFIG_HOME is no absolute path
    max-memory = "64MB"                      # SEED_MAX_MEMORY
    threads = 2                              # SEED_THREADS
    cache-limit = "500MB"                    # SEED_CACHE_LIMIT

Keys of other commands may stand in the same file.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

from seed_runtime.errors import UsageError
from seed_runtime.system import paths

_SIZE_MAX: Final = 1 << 50
_THREADS_MAX: Final = 1024
_CONFIG_MAX: Final = 1 << 20


def max_memory(flag: str | None) -> int | None:
    """Return the limit of the process [B], None for none."""
    from seed_runtime.units import MEMORY_MIN, MEMORY_USUAL

    return _size("max-memory", flag, MEMORY_MIN, MEMORY_USUAL)


def threads(flag: str | None) -> int | None:
    """Return the threads of the backend, None for one per core."""
    value, where = _find("threads", flag)
    if value is None:
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _THREADS_MAX):
        raise UsageError(f"{where}: {text!r} is not a number of threads; give 1 to {_THREADS_MAX}")
    return int(text)


def cache_limit() -> int:
    """Return the limit of all assembled models in the cache together [B]."""
    from seed_runtime.assembly.cache import DEFAULT_LIMIT
    from seed_runtime.units import CACHE_MIN, CACHE_USUAL

    return _size("cache-limit", None, CACHE_MIN, CACHE_USUAL) or DEFAULT_LIMIT


def config_path() -> Path:
    """Return the user's config file, which need not exist."""
    return paths.config_home() / "config.toml"


def _size(key: str, flag: str | None, least: int, usual: int) -> int | None:
    from seed_runtime.units import parse_size

    value, where = _find(key, flag)
    if value is None:
        return None
    try:
        size = parse_size(value, least=least, usual=usual)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    if size > _SIZE_MAX:
        raise UsageError(f"{where}: {value} is more than any device has; give a smaller size, such as 64MB")
    return size


def _find(key: str, flag: str | None) -> tuple[Any, str]:
    """Return the setting that takes precedence, None for none, and where it was set."""
    variable = f"SEED_{key.upper().replace('-', '_')}"
    if flag is not None:
        return flag, f"--{key}"
    if text := os.environ.get(variable):
        return text, variable
    value = _config(config_path()).get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise UsageError(f'{config_path()}: {key} is {value!r}; write a number, or a size such as "64MB"')
    return value, f"{config_path()}: {key}"


@cache
def _config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; make it readable, or remove it") from None
    import tomllib  # only where there is something to read

    try:
        if len(data) > _CONFIG_MAX:
            raise ValueError(f"more than {_CONFIG_MAX:,} bytes")
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise UsageError(f"{path}: {error}; correct it, or remove it") from None
