"""The rules of the house that no single module can break or keep: packaging, imports, documents."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import seed_runtime.errors
from tests.support.project import ROOT, own_files, relative, run_checked

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SOURCES = {
    "seed_runtime": ROOT / "runtime" / "seed_runtime",
    "seed_exporter": ROOT / "exporter" / "seed_exporter",
    "seed_devices": ROOT / "devices" / "seed_devices",
}
# Written out, since a folder that nobody ships is not missed by comparing the wheel with pyproject.toml.
FOLDERS = {
    "seed_runtime",
    "seed_runtime/agent",
    "seed_runtime/agent/protocol",
    "seed_runtime/agent/service",
    "seed_runtime/agent/store",
    "seed_runtime/assembly",
    "seed_runtime/backends",
    "seed_runtime/cli",
    "seed_runtime/codecs",
    "seed_runtime/codecs/encode",
    "seed_runtime/data",
    "seed_runtime/device",
    "seed_runtime/format",
    "seed_runtime/format/parts",
    "seed_runtime/format/sections",
    "seed_runtime/memory",
    "seed_runtime/processing",
    "seed_runtime/processing/generation",
    "seed_runtime/serve",
    "seed_runtime/skeletons",
    "seed_runtime/system",
    "seed_runtime/trust",
    "seed_runtime/tune",
    "seed_exporter",
    "seed_exporter/archive",
    "seed_exporter/batch",
    "seed_exporter/build",
    "seed_exporter/calibrate",
    "seed_exporter/cli",
    "seed_exporter/codecs",
    "seed_exporter/comparison",
    "seed_exporter/evaluate",
    "seed_exporter/gradients",
    "seed_exporter/gradients/rules",
    "seed_exporter/graph",
    "seed_exporter/heal",
    "seed_exporter/heal/ops",
    "seed_exporter/loaders",
    "seed_exporter/peers",
    "seed_exporter/processing",
    "seed_exporter/quantize",
    "seed_exporter/quantize/methods",
    "seed_exporter/quantize/rounding",
    "seed_exporter/report",
    "seed_exporter/shrink",
    "seed_exporter/shrink/rules",
    "seed_exporter/skeletons",
    "seed_exporter/stages",
    "seed_exporter/targets",
    "seed_exporter/training",
    "seed_exporter/tuning",
    "seed_exporter/zoo",
    "seed_devices",
    "seed_devices/cli",
    "seed_devices/fleet",
    "seed_devices/profiles",
    "seed_devices/push",
    "seed_devices/remote",
    "seed_devices/ssh",
}
SHIPPED = {".py", ".toml", ".typed"}
MODULES = sorted(path for folder in SOURCES.values() for path in folder.rglob("*.py"))

# What declares CUDA builds of torch: installed without its dependencies, as its peer's file says.
BY_HAND = {"nncodec"}
# The import name where it is not the distribution's name.
IMPORTED_AS = {"pillow": "PIL", "protobuf": "google"}


# What is installed


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.split("/", 1)[1] for name in archive.namelist() if ".dist-info/" in name}
    written = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*")
        if path.suffix in SHIPPED
    }
    assert held == written
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_no_folder_is_misspelt(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folders = {str(Path(name).parent) for name in archive.namelist() if ".dist-info/" not in name}
    assert folders == FOLDERS
    for package, source in SOURCES.items():
        beside = {path.name for path in source.parent.iterdir() if path.name[:1] not in "._"}
        assert beside == {package}


def test_the_wheel_has_the_version_of_the_runtime(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == seed_runtime.__version__


def test_the_runtime_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "seed_runtime/py.typed" in archive.namelist()


def test_the_wheel_installs_the_three_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    assert dict(re.findall(r"^(seed-\w+) = (\S+)$", text, re.MULTILINE)) == {
        "seed-export": "seed_exporter.cli:main",
        "seed-run": "seed_runtime.cli:main",
        "seed-deploy": "seed_devices.cli:main",
    }


def test_the_base_install_is_numpy_and_onnx_runtime() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == {"numpy", "onnxruntime"}


def test_nothing_but_the_torch_extra_asks_for_torch() -> None:
    asking = {
        extra
        for extra, lines in PROJECT["optional-dependencies"].items()
        if "torch" in {Requirement(line).name for line in lines}
    }
    assert asking == {"torch"}


def test_the_lean_install_runs_every_command_up_to_its_help(lean_python: Path) -> None:
    held = {
        canonicalize_name(line.split("==")[0])
        for line in run_checked([str(lean_python), "-m", "pip", "list", "--format=freeze"]).split()
    }
    assert held.isdisjoint({"onnx", "torch", "click", "joblib", "tqdm", "platformdirs"})
    assert "--help" in run_checked([str(lean_python.with_name("seed-run")), "--help"])
    assert "--help" in run_checked([str(lean_python.with_name("seed-deploy")), "--help"])


# What imports what

IMPORT_ALL = """
import importlib, pkgutil, sys
before = set(sys.modules)
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
exec(sys.argv[2])
# Cython leaves entries that are no modules: they have no spec.
new = [name for name in set(sys.modules) - before if getattr(sys.modules[name], "__spec__", None)]
print(*sorted({name.partition(".")[0] for name in new}))
"""


def imported_by(package: str, then: str = "") -> set[str]:
    """Top-level modules beyond the standard library that importing all of `package`, and the code `then`, bring."""
    # -I: neither the folder nor the environment of the test changes what can be imported.
    printed = run_checked([sys.executable, "-I", "-c", IMPORT_ALL, package, then])
    return set(printed.split()) - sys.stdlib_module_names


def test_all_of_the_runtime_imports_only_the_standard_library_and_numpy() -> None:
    assert imported_by("seed_runtime") == {"seed_runtime", "numpy"}


def test_importing_a_backend_imports_no_library_and_loading_it_that_one_alone() -> None:
    assert "onnxruntime" not in imported_by("seed_runtime")
    loaded = imported_by("seed_runtime", "from seed_runtime import backends; backends.get().load()")
    assert loaded == {"seed_runtime", "numpy", "onnxruntime"}


def test_exporting_an_onnx_file_needs_no_torch() -> None:
    script = (
        "import sys, importlib.util\n"
        "for name in ('torch', 'onnxscript'): sys.modules[name] = None\n"
        "import seed_exporter\n"
        "if importlib.util.find_spec('seed_exporter.cli'): import seed_exporter.cli\n"
        "seed_exporter.export\n"
    )
    run_checked([sys.executable, "-I", "-c", script])


def test_seed_export_heeds_signals_before_it_imports_large_packages() -> None:
    script = "import sys, seed_exporter.cli; sys.exit(bool({'numpy', 'onnx', 'joblib'} & sys.modules.keys()))"
    run_checked([sys.executable, "-I", "-c", script])


def test_the_devices_need_no_exporter() -> None:
    assert imported_by("seed_devices") <= {"seed_devices", "seed_runtime", "numpy", "click", "platformdirs"}


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def top_level_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("seed_runtime", ["pictures", "text"]),
        ("seed_exporter", ["cluster", "compare", "export", "tflite", "torch", "zoo"]),
        ("seed_devices", ["deploy"]),
    ],
)
def test_what_a_package_imports_is_declared(package: str, extras: list[str]) -> None:
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    names = [Requirement(line).name for line in lines]
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names} | set(SOURCES)
    imported = set().union(*(top_level_imports(path) for path in SOURCES[package].rglob("*.py")))
    assert imported - sys.stdlib_module_names - BY_HAND <= declared


def imported_modules(path: Path) -> set[str]:
    """The dotted names that a file imports, within functions as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_tests_of_the_runtime_need_no_exporter() -> None:
    seen: set[Path] = set()
    left = sorted((ROOT / "tests" / "runtime").rglob("*.py"))
    while left:
        path = left.pop()
        seen.add(path)
        names = imported_modules(path)
        assert not [name for name in names if name.split(".")[0] == "seed_exporter"], relative(path)
        # What a test imports from other folders of the tests must not need it either.
        files = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("tests.")}
        left += sorted(file for file in files - seen if file.is_file())


@pytest.mark.parametrize("address", [("192.0.2.1", 9), ("2001:db8::1", 9), ("example.org", 80)])
def test_the_network_is_closed_to_tests(address: tuple[str, int]) -> None:
    with pytest.raises(pytest.fail.Exception, match="offline"):
        socket.create_connection(address, timeout=1)


def test_a_server_of_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


# What a module looks like


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_begins_with_its_contract(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = not path.name.startswith("_") or path.name == "__main__.py"
    assert not (public or tree.body) or ast.get_docstring(tree), "begin with a docstring: the contract"


def test_a_file_past_400_lines_says_why_at_the_top() -> None:
    silent = []
    for path in own_files():
        if path.suffix == ".py" and len(lines := path.read_text().splitlines()) > 400:
            top = " ".join(lines[:40])
            if not re.search(r"[Ll]ong(er than 400 lines)? because|past 400 lines", top):
                silent.append(f"{relative(path)}: {len(lines)} lines")
    assert not silent, "split by concern, or say at the top: Longer than 400 lines because ..."


def test_no_file_names_a_place_on_the_machine_it_was_made_on() -> None:
    # [h]ome: so that this file passes its own test. An ONNX exporter likes to leave such paths in
    # what it writes, so files of all kinds are read.
    # pi is the user of the devices that tests make, and an image has folders of its own.
    homes = rb"(?<![\w.~])/(?:[h]ome|[U]sers)/(?!pi\b)\w"
    folders = rb"(?<![\w.])/(?:[w]ork|[f]arm|[r]oot|[o]pt)/"
    registry = rb"--(?:extra-)?[i]ndex-url|--[t]rusted-host"
    found = [
        f"{relative(path)}: {match.group().decode()}"
        for path in own_files()
        if path.name != "Dockerfile.arm64"
        for match in re.finditer(b"|".join([homes, folders, registry]), path.read_bytes())
    ]
    assert not found


def test_an_error_survives_the_way_out_of_a_worker_process() -> None:
    import pickle

    error = seed_runtime.errors.FormatError("chunk 7", "it is cut")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.exit_code) == (str(error), 10)


# Which Pythons there are wheels for


@pytest.mark.slow
@pytest.mark.network
def test_the_pythons_that_the_base_install_has_wheels_for_are_admitted_and_listed(tmp_path: Path) -> None:
    dry_run = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--dry-run"]
    dry_run += ["--ignore-installed", "--only-binary=:all:", "--target", str(tmp_path / "none")]
    installable = []
    for minor in range(11, 20):
        done = subprocess.run(
            [*dry_run, f"--python-version=3.{minor}", *PROJECT["dependencies"]],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            installable.append(f"3.{minor}")
        elif not re.search("No matching distribution|ResolutionImpossible", done.stdout + done.stderr):
            pytest.fail(f"the package index did not answer: {done.stderr}")
        else:
            break
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert set(listed) <= set(installable)
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(version) for version in installable)
    newer = sorted(set(installable) - set(listed))
    assert not newer, "newer Pythons have wheels: list them as classifiers, try the newest in .github/workflows/ci.yml"
