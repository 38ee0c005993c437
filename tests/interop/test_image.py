"""The image of Dockerfile.arm64, built under emulation: small, without rights or compiler, the same twice; it runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.version import __version__
from tests.exporter.support.exporting import layers, quick_export
from tests.interop.support.arm64 import UnavailableError, locked, wheelhouse
from tests.interop.support.containers import Engine, context
from tests.support.project import skip_or_fail

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

SIZE_MAX = 250_000_000  # [B] unpacked
IMAGE, AGAIN = "localhost/seed-run", "localhost/seed-run-again"
MEMORY = "128m"
HEALTH_TRIES = 60
ABSENT = ("sh", "bash", "cc", "gcc", "g++", "make", "ld", "pip", "apt-get", "sshd")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        with locked("containers.lock"):
            engine = Engine()
            engine.import_base()
            yield engine
    except UnavailableError as error:
        skip_or_fail(f"no arm64 image here: {error}")


@pytest.fixture(scope="module")
def sources(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what the image is built from, with wheels: the build has no index."""
    wheels = wheelhouse(extra=("hatchling",))
    return context(tmp_path_factory.mktemp("image") / "context", wheels)


@pytest.fixture(scope="module")
def digest(engine: Engine, sources: Path) -> str:
    """Build the image. Returns its digest."""
    return engine.build(sources, IMAGE, "--timestamp", "0")


@pytest.mark.usefixtures("digest")
def test_it_is_small_and_its_user_has_no_rights(engine: Engine) -> None:
    size = int(engine.inspect(IMAGE, "{{.Size}}"))
    print(f"the image: {size / 1e6:.0f} MB unpacked")
    assert size < SIZE_MAX
    assert engine.inspect(IMAGE, "{{.Architecture}} {{.Config.User}} {{.Config.Entrypoint}}") == (
        "arm64 65532:65532 [seed-run]"
    )


@pytest.mark.usefixtures("digest")
def test_it_is_for_arm64_and_holds_no_shell_no_compiler_no_pip_and_no_sshd(engine: Engine) -> None:
    program = f"import os, shutil; print(os.uname().machine, *filter(shutil.which, {ABSENT}))"
    found = engine.run(IMAGE, ["-c", program], "--entrypoint", "python")
    assert found.stdout.split() == ["aarch64"], found


def test_two_builds_have_one_digest(engine: Engine, sources: Path, digest: str, tmp_path: Path) -> None:
    # The same bytes at other times, as another clone has them.
    again = shutil.copytree(sources, tmp_path / "again", copy_function=shutil.copy)
    assert engine.build(again, AGAIN, "--timestamp", "0") == digest
    engine.remove(AGAIN)


@pytest.mark.usefixtures("digest")
def test_in_dockers_format_it_has_a_healthcheck_that_passes_once_a_seed_is_served(
    engine: Engine, sources: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    engine.build(sources, AGAIN, "--timestamp", "0", "--format", "docker")
    # OCI's format has no healthchecks; buildah writes a random host name into Docker's, so no digest repeats there.
    assert engine.inspect(AGAIN, "{{.RootFS.Layers}}") == engine.inspect(IMAGE, "{{.RootFS.Layers}}")
    quick_export(layers(rng, 16, 8), tmp_path / "model.seed")
    tmp_path.chmod(0o755)
    with engine.started(
        AGAIN, ["/data/model.seed", "--serve", ":8080"], "--read-only", "-v", f"{tmp_path}:/data:ro"
    ) as name:
        assert any(engine.healthy(name) for _ in range(HEALTH_TRIES))


@pytest.mark.usefixtures("digest")
def test_it_runs_a_seed_on_a_root_that_is_read_only_within_its_memory(
    engine: Engine, rng: np.random.Generator, tmp_path: Path
) -> None:
    seed, x = tmp_path / "model.seed", rng.standard_normal((3, 64)).astype(np.float32)
    quick_export(layers(rng, 64, 256, 16), seed)
    np.savez(tmp_path / "x.npz", x=x)
    tmp_path.chmod(0o755)
    options = ("--read-only", "--memory", MEMORY, "-v", f"{tmp_path}:/data:ro")
    assert engine.run(IMAGE, ["--version"], *options).stdout.split()[-1] == __version__
    verified = engine.run(IMAGE, ["/data/model.seed", "--verify", "--json"], *options)
    assert verified.returncode == 0, verified
    assert (json.loads(verified.stdout)["ok"], json.loads(verified.stdout)["golden"]) == (True, True)
    ran = engine.run(IMAGE, ["/data/model.seed", "--input", "/data/x.npz", "--json"], *options)
    assert ran.returncode == 0, ran


@pytest.mark.usefixtures("digest")
def test_a_seed_that_was_cut_is_refused_there_as_everywhere(
    engine: Engine, rng: np.random.Generator, tmp_path: Path
) -> None:
    seed = tmp_path / "model.seed"
    quick_export(layers(rng, 16, 8), seed)
    seed.write_bytes(seed.read_bytes()[:-1])
    tmp_path.chmod(0o755)
    refused = engine.run(IMAGE, ["/data/model.seed", "--verify"], "--read-only", "-v", f"{tmp_path}:/data:ro")
    assert refused.returncode == 10, refused
