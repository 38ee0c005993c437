"""A tenth of the soak on a device of this machine: after each kill or cut of a push, it must answer, and rightly.

SEED_SOAK_KILLS and SEED_SOAK_CUTS set other counts; `make soak` runs all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.kills import Tally, loopback

pytestmark = [pytest.mark.slow, pytest.mark.network]

# Read when this is imported: tests see no SEED_ variables.
KILLS = int(os.environ.get("SEED_SOAK_KILLS", "7"))
CUTS = int(os.environ.get("SEED_SOAK_CUTS", "3"))
RNG_SEED = 1


def test_after_a_kill_of_either_side_or_a_cut_of_the_link_the_device_answers_rightly(tmp_path: Path) -> None:
    tally = Tally()
    loopback(KILLS, CUTS, RNG_SEED, tally, tmp_path / "loopback")
    print(f"\n{tally.table()}")
    assert not tally.wrong
    assert tally.kills().total() == KILLS
    assert sum(tally.hits.get("link", {}).values()) == CUTS
