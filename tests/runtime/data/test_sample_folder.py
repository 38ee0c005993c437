"""Folders of samples: no sample gets the label of another one, also where files change while they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.data.sample_files import open_samples
from seed_runtime.data.spool import Spool
from seed_runtime.errors import InputError

SPEC = TensorSpec("x", "float32", ("n", 4))
X = np.arange(24, dtype=np.int16).reshape(6, 4)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return what sets what is done after all headers were read, before anything is copied."""

    def set_to(change: Callable[[], object]) -> None:
        monkeypatch.setattr(Spool, "require_space", lambda self, size: change())

    return set_to


def test_parts_whose_labels_are_those_of_other_parts_are_refused_though_their_sums_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", x=X[:2], labels=np.arange(3))
    np.savez(tmp_path / "2.npz", x=X[2:], labels=np.arange(3))
    with pytest.raises(InputError, match=r"1.npz holds different numbers"), open_samples(str(tmp_path), [SPEC]):
        pass


@pytest.mark.parametrize("arrays", [{"x": X[:3], "labels": np.arange(3)}, {"x": X[:2], "other": np.arange(2)}])
def test_a_part_that_changes_while_the_folder_is_read_is_noticed(
    arrays: dict[str, np.ndarray], tmp_path: Path, between
) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", x=X[:2], labels=np.arange(2))
    between(lambda: np.savez(tmp_path / "1.npz", **arrays))
    with pytest.raises(InputError, match=r"1.npz was changed.*again"), open_samples(str(tmp_path), [SPEC]):
        pass


def test_a_file_of_a_class_that_grows_while_another_one_shrinks_is_noticed(tmp_path: Path, between) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", X[:2])

    def change() -> None:
        np.save(tmp_path / "a" / "1.npy", X[:1])
        np.save(tmp_path / "b" / "1.npy", X[:3])

    between(change)
    with pytest.raises(InputError, match=r"1.npy was changed.*again"), open_samples(str(tmp_path), [SPEC]):
        pass


def test_a_file_that_is_removed_while_the_folder_is_read_is_named(tmp_path: Path, between) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.npy", X[:2])
    between((tmp_path / "a" / "1.npy").unlink)
    with pytest.raises(InputError, match=r"1.npy: No such file"), open_samples(str(tmp_path), [SPEC]):
        pass
