"""What killed runs of `seed-run` left in its scratch folders is removed by whatever command comes next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.seed_run import COMMAND


@pytest.mark.parametrize("words", [["--inspect"], ["--verify"], ["--assemble", "out"]], ids=lambda words: words[0])
def test_every_command_sweeps_the_cache_and_the_system_s_folder(
    words: list[str], seed: Path, own_folders: Path, tmp_path: Path
) -> None:
    cache, temporary = own_folders / "cache" / "seed", tmp_path / "tmp"
    for parent in (cache, temporary):
        (parent / "seed-scratch-0badcafe" / "sub").mkdir(parents=True)
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run([*COMMAND, str(seed), *words], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert not list(cache.glob("seed-scratch-*"))
    assert list(temporary.iterdir()) == []


def test_a_run_that_is_killed_while_it_assembles_leaves_nothing_for_long(
    seed: Path, own_folders: Path, tmp_path: Path
) -> None:
    cache = own_folders / "cache" / "seed"
    script = (
        "import os, signal, sys\n"
        "from seed_runtime import cli\n"
        "from seed_runtime.assembly import assemble\n"
        "from seed_runtime import seed\n"
        "seed.assemble_into = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, str(seed), "--verify", "--no-cache"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert len(list(cache.glob("seed-scratch-*"))) == 1
    subprocess.run([*COMMAND, str(seed), "--inspect"], capture_output=True, check=True)
    assert not list(cache.glob("seed-scratch-*"))
