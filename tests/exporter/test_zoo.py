"""`seed-export zoo` and `zoo:NAME`: recipes, their wheels, licenses, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import seed_runtime
from seed_exporter.zoo import fetch, registry
from seed_exporter.zoo.prepare import prepare
from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel
from seed_runtime.errors import UsageError
from seed_runtime.format.preamble import MAGIC
from tests.exporter.support.command import Ran, refused
from tests.support.described_models import COLORS, color_description, color_model

pytestmark = pytest.mark.usefixtures("without_measured_memory", "own_cache")

ROOT = Path(__file__).parents[2]
FILE = "colors-1.0-py3-none-any.whl"
Pip = Callable[..., Any]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seed" / "zoo"


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    """Return a wheel that holds a model and its labels."""
    path = tmp_path / FILE
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("colors/model.onnx", color_model().SerializeToString())
        archive.writestr("colors/labels.txt", "\n".join(COLORS))
    return path.read_bytes()


@pytest.fixture
def colors(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Put a recipe of this wheel into the registry, the only one."""
    pinned = Wheel("colors", "1.0", FILE, hashlib.sha256(wheel).hexdigest(), len(wheel))

    def make(sources: Sources) -> Made:
        model = onnx.load_model_from_string(sources.read(pinned, "colors/model.onnx"))
        return Made(model, color_description(), {"labels.txt": sources.read(pinned, "colors/labels.txt")})

    terms, goal = License("MIT", "A. Painter"), Goal(1 << 20, 0.001)
    recipe = Recipe("colors", "names a color", "photo.png", terms, (pinned,), make, goal, {"method": "lossless"})
    monkeypatch.setattr(registry, "RECIPES", {"colors": recipe})
    return recipe


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pip], list[list[str]]]:
    """Give a function that puts another one in pip's place, and returns the commands that it is called with."""

    def replace(stand_in: Pip) -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **options: Any) -> Any:
            commands.append(command)
            return stand_in(Path(command[command.index("--dest") + 1]))

        fake = types.SimpleNamespace(
            run=run, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
        )  # fmt: skip
        monkeypatch.setattr(fetch, "subprocess", fake)
        return commands

    return replace


def giving(data: bytes) -> Pip:
    """Return a pip that downloads these bytes."""

    def run(folder: Path) -> Any:
        (folder / FILE).write_bytes(data)
        return subprocess.CompletedProcess([], 0, "", "")

    return run


def failing(stderr: str) -> Pip:
    return lambda folder: subprocess.CompletedProcess([], 1, "", stderr)


def test_the_list_has_what_one_decides_by(capfd: pytest.CaptureFixture[str]) -> None:
    text = Ran(capfd, "zoo").out
    for recipe in registry.RECIPES.values():
        assert recipe.name in text
        assert recipe.about in text
        assert recipe.wheels[0].pin in text
        assert f"{recipe.license.spdx}, {recipe.license.holder}" in text
        assert f"{recipe.goal.ratio:g} times smaller" in text


def test_programs_get_one_object(capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capfd, "zoo", "--json")
    assert ran.code == 0
    recipes = json.loads(ran.out)["recipes"]
    assert [each["name"] for each in recipes] == list(registry.RECIPES)
    magika = next(each for each in recipes if each["name"] == "magika")
    assert (magika["license"], magika["needs"]) == ("Apache-2.0", [])
    assert magika["packages"][0]["pin"].startswith("magika==")
    assert magika["download_bytes"] == magika["packages"][0]["bytes"] > 1e6


@pytest.mark.parametrize("recipe", registry.RECIPES.values(), ids=registry.RECIPES)
def test_every_recipe_is_pinned_to_bytes_that_all_machines_can_fetch(recipe: Recipe) -> None:
    for wheel in recipe.wheels:
        assert len(bytes.fromhex(wheel.sha256)) == 32
        assert wheel.file.startswith(f"{wheel.project.replace('-', '_')}-{wheel.version}-")
        assert wheel.choice[0] == "--platform"


@pytest.mark.parametrize("recipe", registry.RECIPES.values(), ids=registry.RECIPES)
def test_what_a_recipe_needs_has_a_command_that_installs_it(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for module in recipe.needs:
        with pytest.raises(UsageError, match=f"needs {module}; install it: pip install 'seed-runtime") as caught:
            prepare(Recipe(**{**vars(recipe), "needs": (module,)}), tmp_path, lambda line: None)
        named = str(caught.value).partition("[")[2].partition("]")[0].split(",")
        assert set(named) <= project["optional-dependencies"].keys()
    assert set(recipe.extras) <= project["optional-dependencies"].keys()


def test_a_wheel_is_chosen_by_its_tags_whatever_the_machine() -> None:
    def choice(file: str) -> list[str]:
        return Wheel("x", "1", file, "", 0).choice

    assert choice("x-1-py2.py3-none-any.whl") == ["--platform", "any"]
    assert choice("x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl") == [
        "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64",
        "--python-version", "311", "--implementation", "cp", "--abi", "cp311",
    ]  # fmt: skip


def test_an_unknown_name_gets_the_closest_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert "did you mean zoo:magika?" in refused(capfd, 2, "zoo:Magik")
    assert "seed-export zoo" in refused(capfd, 2, "zoo:")
    assert "seed-export zoo:magika" in refused(capfd, 2, "zoo", "magika")


def test_a_recipe_makes_a_seed_with_its_processing_and_its_license(
    colors: Recipe, wheel: bytes, pip: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip(giving(wheel))
    monkeypatch.chdir(tmp_path)
    ran = Ran(capfd, "zoo:colors")
    assert ran.code == 0, ran.err
    assert "MIT, A. Painter" in ran.err
    assert "downloading colors==1.0" in ran.err
    seed = seed_runtime.open(tmp_path / "colors.seed")
    processing = seed.processing()
    assert processing is not None
    assert (processing.media, list(processing.attachments)) == (("picture",), ["labels.txt"])
    assert seed.header.model.model_id == "colors"
    metadata = json.loads(inspected(tmp_path / "colors.seed"))["metadata"]
    assert (metadata["license"], metadata["license_holder"]) == ("MIT", "A. Painter")
    assert "/colors/1.0/" in metadata["source"]
    assert {"--no-deps", "--only-binary=:all:", "colors==1.0"} <= set(commands[0])
    assert Ran(capfd, "zoo:colors", "-q").code == 0
    assert len(commands) == 1, "it was in the cache"


def test_the_license_of_a_tflite_model_is_in_its_processing(
    colors: Recipe, wheel: bytes, pip: Any, tmp_path: Path
) -> None:
    pip(giving(wheel))
    recipe = Recipe(**{**vars(colors), "make": lambda sources: Made(b"TFL3", {"inputs": []})})
    prepared = prepare(recipe, tmp_path, lambda line: None)
    assert (prepared.model.name, prepared.model.read_bytes()) == ("colors.tflite", b"TFL3")
    description = json.loads(prepared.options["processing"].read_text())
    assert description["about"]["license"] == "MIT"
    assert "/colors/1.0/" in description["about"]["source"]


@pytest.mark.parametrize(
    ("goal", "missed"),
    [
        (Goal(100, 0.001), "bytes, and this recipe is built to at most 100"),
        (Goal(1 << 20, 50.0), "times smaller than the weights, and this recipe is built to 50"),
    ],
)
def test_a_seed_that_misses_the_goal_of_its_recipe_is_written_and_said(
    goal: Goal, missed: str, colors: Recipe, wheel: bytes, pip: Any, tmp_path: Path, capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pip(giving(wheel))
    monkeypatch.setattr(registry, "RECIPES", {"colors": Recipe(**{**vars(colors), "goal": goal})})
    ran = Ran(capfd, "zoo:colors", "-o", tmp_path / "out.seed")
    assert ran.code == 15
    assert f"zoo:colors: the seed {'has' if goal.ratio < 1 else 'is'}" in ran.err
    assert missed in ran.err
    assert (tmp_path / "out.seed").exists()
    # Who asks for something else judges by that.
    assert Ran(capfd, "zoo:colors", "-o", tmp_path / "own.seed", "--effort", "1").code == 0


def inspected(seed: Path) -> str:
    from tests.support.seed_run import seed_run

    return seed_run(seed, "--inspect", "--json").stdout.decode()


def test_options_of_the_user_come_before_those_of_the_recipe(
    colors: Recipe, wheel: bytes, pip: Any, tmp_path: Path, capfd: Any
) -> None:
    pip(giving(wheel))
    output = tmp_path / "mine.seed"
    ran = Ran(capfd, "zoo:colors", "-o", output, "--method", "lossless", "--processing", "none", "--model-id", "mine")
    assert ran.code == 0, ran.err
    seed = seed_runtime.open(output)
    assert (seed.processing(), seed.header.model.model_id) == (None, "mine")


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("ERROR: no index\nERROR: No matching distribution found for colors==1.0\n", "No matching distribution found"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("", "pip ended with 1"),
    ],
)
def test_without_network_or_pip_the_next_step_is_named_and_nothing_is_left(
    stderr: str, reason: str, colors: Recipe, pip: Any, own_cache: Path, tmp_path: Path, capfd: Any
) -> None:
    pip(failing(stderr))
    error = refused(capfd, 20, "zoo:colors", "-o", tmp_path / "out.seed", "-q")
    assert reason in error
    assert "pip download colors==1.0" in error
    assert str(own_cache / FILE) in error
    assert list(own_cache.iterdir()) == []
    assert not (tmp_path / "out.seed").exists()


def test_a_download_that_never_ends_is_given_up(colors: Recipe, pip: Any, tmp_path: Path, capfd: Any) -> None:
    def hang(folder: Path) -> Any:
        raise subprocess.TimeoutExpired("pip", 1)

    pip(hang)
    assert "it took longer than" in refused(capfd, 20, "zoo:colors", "-o", tmp_path / "out.seed", "-q")


ENDLESS_PIP = """
import sys
with open(sys.argv[sys.argv.index("--dest") + 1] + "/{file}", "wb") as file:
    try:
        for _ in range(64):
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        sys.exit(f"ERROR: {{error.strerror}}")
"""


def stand_in(folder: Path, code: str) -> Path:
    """Write a package `pip` that runs this code, and return the folder that it is in."""
    (folder / "pip").mkdir(parents=True)
    (folder / "pip" / "__main__.py").write_text(code)
    (folder / "pip" / "__init__.py").touch()
    return folder


def test_a_download_is_cut_off_at_the_size_of_the_wheel(
    colors: Recipe, own_cache: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stand_in(tmp_path / "packages", ENDLESS_PIP.format(file=FILE))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert "File too large" in refused(capfd, 20, "zoo:colors", "-o", tmp_path / "out.seed", "-q")
    assert list(own_cache.iterdir()) == []


def test_a_folder_called_pip_where_the_user_is_is_not_executed(
    colors: Recipe, own_cache: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    monkeypatch.chdir(stand_in(tmp_path / "here", f"open({str(mark)!r}, 'w')"))
    # Of tests themselves, it may name the current folder.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # The real one finds no index there.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refused(capfd, 20, "zoo:colors", "-o", tmp_path / "out.seed", "-q")
    assert not mark.exists()


def test_a_disk_that_is_too_full_is_named_before_the_download(
    colors: Recipe, pip: Any, own_cache: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip(failing(""))
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=100))
    error = refused(capfd, 13, "zoo:colors", "-o", tmp_path / "out.seed", "-q")
    assert f"{own_cache}: {2 * colors.download_bytes:,} bytes are needed and 100 are free" in error
    assert commands == []


def test_other_bytes_than_the_pinned_ones_are_refused(
    colors: Recipe, wheel: bytes, pip: Any, own_cache: Path, tmp_path: Path, capfd: Any
) -> None:
    older = tmp_path / "out.seed"
    older.write_bytes(MAGIC + b"an older seed")
    pip(giving(wheel + b"!"))
    error = refused(capfd, 10, "zoo:colors", "-o", older, "-q")
    assert f"sha256 {colors.wheels[0].sha256[:12]} is expected" in error
    assert list(own_cache.iterdir()) == []
    assert older.read_bytes() == MAGIC + b"an older seed"


def test_a_wheel_that_was_copied_into_the_cache_needs_no_network_and_a_damaged_one_is_replaced(
    colors: Recipe, wheel: bytes, pip: Any, own_cache: Path, tmp_path: Path, capfd: Any
) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / FILE).write_bytes(wheel)
    commands = pip(giving(wheel))
    assert Ran(capfd, "zoo:colors", "-o", tmp_path / "out.seed", "-q").code == 0
    assert commands == []
    (own_cache / FILE).write_bytes(wheel[:-1])
    assert Ran(capfd, "zoo:colors", "-o", tmp_path / "out.seed", "-q").code == 0
    assert len(commands) == 1
    assert (own_cache / FILE).read_bytes() == wheel


def test_a_package_that_a_recipe_needs_is_named_before_any_download(
    colors: Recipe, pip: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip(failing(""))
    needy = Recipe(**{**vars(colors), "needs": ("torch",)})
    monkeypatch.setattr(registry, "RECIPES", {"colors": needy})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'seed-runtime[export,torch]'" in refused(capfd, 2, "zoo:colors", "-o", tmp_path / "out.seed")
    assert commands == []


def test_an_output_that_can_not_be_is_refused_before_any_download(
    colors: Recipe, pip: Any, tmp_path: Path, capfd: Any
) -> None:
    commands = pip(failing(""))
    assert f"mkdir -p {tmp_path / 'none'}" in refused(capfd, 2, "zoo:colors", "-o", tmp_path / "none" / "x.seed")
    assert commands == []
