"""Batches to train on: what is mixed with what, and how often inputs are seen. Skipped without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # torch takes seconds to import
torch = pytest.importorskip("torch", exc_type=ImportError)


def batches(feeds: Any, size: int, mixed: float, **keywords: Any) -> Iterator[dict[str, Any]]:
    from seed_exporter.heal.batches import Batches

    return iter(Batches(feeds, size, mixed, tensor=torch.from_numpy, device=torch.device("cpu"), **keywords))


def test_mixed_inputs_take_spans_of_tokens_and_their_mask_from_the_same_input() -> None:
    feeds = [
        {"ids": np.full((1, 50), index, np.int64), "mask": np.full((1, 50), index, np.int64)} for index in range(8)
    ]
    found = batches(feeds, 4, mixed=1.0)
    drawn = [next(found) for _ in range(6)]
    assert all((batch["ids"] == batch["mask"]).all() for batch in drawn)
    assert any(len(set(row)) == 2 for batch in drawn for row in batch["ids"].tolist())
    assert all(batch["ids"].shape == (4, 50) for batch in drawn)


def test_mixed_pictures_are_weighted_means_or_have_a_box_of_another_one_in_all_channels_and_no_label() -> None:
    feeds = [{"x": np.full((1, 3, 8, 8), index, np.float32), "labels": np.array([index])} for index in range(2)]
    found = batches(feeds, 64, mixed=1.0, unlabelled={"labels": -100}, full=True)
    batch = next(found)
    assert (batch["labels"] == -100).all()
    assert (batch["x"] == batch["x"][:, :1]).all()
    kinds = [len(set(picture.reshape(-1).tolist())) for picture in batch["x"].numpy()]
    assert set(kinds) == {1, 2}
    means = {float(picture.min()) for picture, kind in zip(batch["x"], kinds, strict=True) if kind == 1} - {0.0, 1.0}
    assert len(means) > 5
    assert all(0.1 <= mean <= 0.9 for mean in means)


def test_without_mixing_every_input_is_seen_before_batches_are_filled_up() -> None:
    feeds = [{"x": np.full((1, 2), index, np.float32)} for index in range(6)]
    found = batches(feeds, 4, mixed=0.0, full=True)
    assert {int(value) for _ in range(2) for value in next(found)["x"][:, 0]} == set(range(6))


def test_inputs_of_several_shapes_are_batched_with_their_like() -> None:
    feeds = [{"x": np.zeros((1, length), np.float32)} for length in (3, 5, 3, 5, 5)]
    found = batches(feeds, 8, mixed=1.0)
    assert sorted(tuple(next(found)["x"].shape) for _ in range(2)) == [(2, 3), (3, 5)]
    filled = batches(feeds, 8, mixed=1.0, full=True)
    assert sorted(tuple(next(filled)["x"].shape) for _ in range(2)) == [(8, 3), (8, 5)]


def test_a_batch_of_one_is_the_input_as_a_call_has_it() -> None:
    feeds = [{"x": np.full((4, 2), index, np.float32), "scale": np.array(2.0)} for index in range(3)]
    batch = next(batches(feeds, 1, mixed=0.0))
    assert (tuple(batch["x"].shape), tuple(batch["scale"].shape)) == ((4, 2), ())


def test_what_is_drawn_takes_the_place_of_inputs_and_is_mixed_as_they_are() -> None:
    def draw(count: int) -> dict[str, Any]:
        return {"x": torch.arange(float(count))[:, None].expand(count, 5), "labels": torch.zeros(count).long()}

    plain = next(batches([], 6, mixed=0.0, draw=draw))
    assert plain["x"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    mixed = next(batches([], 6, mixed=1.0, draw=draw, unlabelled={"labels": -100}))
    assert (mixed["labels"] == -100).all()
    assert (mixed["x"] != plain["x"]).any()
