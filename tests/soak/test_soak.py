"""A tenth of the soak: pushes that are killed and cut, after each of which the device must answer, and rightly.

SEED_SOAK_KILLS, SEED_SOAK_MACHINE_KILLS (of them) and SEED_SOAK_CUTS set other counts; `make soak` runs all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.support.arm64 import UnavailableError, turn
from tests.interop.support.machine_image import image
from tests.soak.kills import Tally, board, loopback

pytestmark = [pytest.mark.slow, pytest.mark.network]

# Asked for here: tests see no SEED_ variables.
KILLS = int(os.environ.get("SEED_SOAK_KILLS", "10"))
MACHINE_KILLS = min(KILLS, int(os.environ.get("SEED_SOAK_MACHINE_KILLS", "3")))
CUTS = int(os.environ.get("SEED_SOAK_CUTS", "3"))
SEED = 1


def test_after_a_kill_of_either_side_or_a_cut_of_the_link_the_device_answers_rightly(tmp_path: Path) -> None:
    tally = Tally()
    loopback(KILLS - MACHINE_KILLS, CUTS, SEED, tally, tmp_path / "loopback")
    print(f"\n{tally.table()}")
    assert not tally.wrong
    assert tally.kills().total() == KILLS - MACHINE_KILLS
    assert sum(tally.hits.get("link", {}).values()) == CUTS


@pytest.mark.skipif(not MACHINE_KILLS, reason="SEED_SOAK_MACHINE_KILLS is 0")
def test_after_a_cut_of_the_machines_power_it_answers_rightly(tmp_path: Path) -> None:
    try:
        with turn():
            image()
    except UnavailableError as error:
        pytest.skip(f"no arm64 machine here: {error}")
    tally = Tally()
    board(MACHINE_KILLS, SEED, tally, tmp_path / "board")
    print(f"\n{tally.table()}")
    assert not tally.wrong
    assert tally.kills().total() == MACHINE_KILLS
