"""Places of this user's files: the XDG folders, and the store of a device.

Each function raises UsageError if its folder would be in the home folder of an account that has none.
"""

from __future__ import annotations

import os
from pathlib import Path

from seed_runtime.errors import UsageError


def config_home() -> Path:
    """Return $XDG_CONFIG_HOME/seed: settings, and the signers whose seeds are accepted."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def cache_home() -> Path:
    """Return $XDG_CACHE_HOME/seed: files that can be created again."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_home() -> Path:
    """Return $XDG_STATE_HOME/seed: what this machine remembers, such as the newest versions that it accepted."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def store_home() -> Path:
    """Return $SEED_HOME, else $XDG_DATA_HOME/seed: the models pushed to this device, and the runtime for them."""
    own = os.environ.get("SEED_HOME", "")
    return Path(own) if os.path.isabs(own) else _xdg("XDG_DATA_HOME", ".local/share")


def _xdg(variable: str, default: str) -> Path:
    # The XDG specification says to ignore values that aren't absolute paths.
    folder = os.environ.get(variable, "")
    if os.path.isabs(folder):
        return Path(folder) / "seed"
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME is set nor does the account have an entry in the user database
        raise UsageError(f"this account has no home folder; set HOME or {variable} to the path of a folder") from None
    return home / default / "seed"
