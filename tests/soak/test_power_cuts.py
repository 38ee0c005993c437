"""A tenth of the soak on the emulated machine: after each cut of its power during a push, it must answer, and rightly.

SEED_SOAK_MACHINE_KILLS sets another count; `make soak` runs all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.support.arm64 import UnavailableError
from tests.interop.support.installed import installed_machine
from tests.interop.support.machine_image import image
from tests.soak.kills import Tally, board
from tests.support.project import skip_or_fail
from tests.support.shared import SharedFolder

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

# Read when this is imported: tests see no SEED_ variables.
KILLS = int(os.environ.get("SEED_SOAK_MACHINE_KILLS", "3"))
RNG_SEED = 1


@pytest.mark.skipif(not KILLS, reason="SEED_SOAK_MACHINE_KILLS is 0")
def test_after_a_cut_of_the_machines_power_it_answers_rightly(shared_folder: SharedFolder, tmp_path: Path) -> None:
    try:
        parts = image()
    except UnavailableError as error:
        skip_or_fail(f"no arm64 machine here: {error}")
    tally = Tally()
    board(KILLS, RNG_SEED, tally, tmp_path / "board", installed_machine(shared_folder, parts).state)
    print(f"\n{tally.table()}")
    assert not tally.wrong
    assert tally.kills().total() == KILLS
