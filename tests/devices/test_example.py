"""examples/push_to_fleet.py on two devices of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices.support.sshd import MakeDevice
from tests.test_examples import printed


@pytest.mark.slow
def test_the_example_pushes_two_versions_and_rolls_back(make_device: MakeDevice, tmp_path: Path) -> None:
    devices = [make_device(), make_device()]
    names = [device.alias for device in devices]
    output = printed("push_to_fleet", tmp_path, *names, SEED_SSH_CONFIG=str(devices[0].config))
    commands = [line.split()[2] for line in output.splitlines() if line.startswith("$ ")]
    assert commands == ["push", "run", "push", "rollback", "status"]
    assert f"{names[0]} answered: classes [" in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for name in names:
        assert any(line.startswith(f"{name} classifier pushed") for line in lines)
