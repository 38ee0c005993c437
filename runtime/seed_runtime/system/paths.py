"""Where things are kept for this user: the XDG folders, and the store of a device.

UsageError where a folder is beneath a home that this account doesn't have.
"""

from __future__ import annotations

import os
from pathlib import Path

from seed_runtime.errors import UsageError


def config_home() -> Path:
    """$XDG_CONFIG_HOME/seed: settings, and the signers whose seeds are accepted."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def cache_home() -> Path:
    """$XDG_CACHE_HOME/seed: what can be made again."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_home() -> Path:
    """$XDG_STATE_HOME/seed: what this machine has learnt, such as the newest versions that it accepted."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def store_home() -> Path:
    """$SEED_HOME, else $XDG_DATA_HOME/seed: the models that were pushed to this device, and the runtime for them."""
    own = os.environ.get("SEED_HOME", "")
    return Path(own) if os.path.isabs(own) else _xdg("XDG_DATA_HOME", ".local/share")


def _xdg(variable: str, default: str) -> Path:
    # The XDG specification: what is no absolute path is to be ignored.
    folder = os.environ.get(variable, "")
    if os.path.isabs(folder):
        return Path(folder) / "seed"
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry in the list of accounts
        raise UsageError(f"this account has no home folder; set HOME or {variable} to the path of a folder") from None
    return home / default / "seed"
