"""Metrics of damage: what they measure, what they leave out, and what a user's own may do wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from seed_exporter.evaluate.damage import error_rate, is_probabilities, metric_of
from seed_runtime.errors import InputError, UsageError

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(6, 5)).astype(np.float32)
MOVED = LOGITS + RNG.normal(0, 0.1, LOGITS.shape).astype(np.float32)


def softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)


def damage(word: str, a: np.ndarray, b: np.ndarray) -> float:
    return metric_of(word).damage([{"y": a}], [{"y": b}])


@pytest.mark.parametrize("word", ["auto", "kl", "cosine", "agreement", "relative"])
@pytest.mark.parametrize("values", [LOGITS, softmax(LOGITS)])
def test_equal_outputs_have_no_damage(word: str, values: np.ndarray) -> None:
    assert damage(word, values, values.copy()) == pytest.approx(0, abs=1e-12)


def test_kl_is_the_same_of_logits_and_of_their_probabilities() -> None:
    p, q = softmax(LOGITS).astype(np.float64), softmax(MOVED).astype(np.float64)
    wanted = np.mean(np.sum(p * np.log(p / q), axis=-1))
    assert damage("kl", LOGITS, MOVED) == pytest.approx(wanted, rel=1e-4)
    assert damage("kl", softmax(LOGITS), softmax(MOVED)) == pytest.approx(wanted, rel=1e-4)


def test_cosine_is_the_mean_over_rows_whatever_their_lengths() -> None:
    a = np.array([[1, 0], [100, 0]], np.float32)
    b = np.array([[0, 1], [100, 0]], np.float32)
    assert damage("cosine", a, b) == pytest.approx(0.5)


def test_rows_of_nearly_nothing_have_no_direction() -> None:
    a = np.array([[1, 1], [0, 0]], np.float32)
    b = np.array([[1, 1], [1e-5, -1e-5]], np.float32)
    assert damage("cosine", a, b) == pytest.approx(0, abs=1e-9)
    assert damage("cosine", a, b * 1e4) > 0.3


def test_agreement_is_the_share_of_rows_with_another_largest_score() -> None:
    a = np.eye(4, dtype=np.float32)
    assert damage("agreement", a, a[[0, 1, 3, 2]]) == 0.5


def test_auto_takes_kl_of_probabilities_cosine_of_rows_and_squares_of_the_rest() -> None:
    assert damage("auto", softmax(LOGITS), softmax(MOVED)) == damage("kl", softmax(LOGITS), softmax(MOVED))
    assert damage("auto", LOGITS, MOVED) == damage("cosine", LOGITS, MOVED)
    assert damage("auto", LOGITS[:, 0], MOVED[:, 0]) == damage("relative", LOGITS[:, 0], MOVED[:, 0])
    assert damage("auto", np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.01)


def test_of_several_outputs_the_worst_counts_and_indices_only_alone() -> None:
    a = {"y": LOGITS, "z": LOGITS, "index": np.arange(6)}
    b = {"y": LOGITS, "z": MOVED, "index": np.arange(6)[::-1]}
    assert metric_of("auto").damage([a], [b]) == damage("cosine", LOGITS, MOVED)
    assert metric_of("auto").damage([{"index": a["index"]}], [{"index": b["index"]}]) > 0.1


def test_outputs_that_noise_decides_are_left_out() -> None:
    calls = [{"y": LOGITS, "noise": LOGITS}], [{"y": MOVED, "noise": -LOGITS[:2]}]
    assert metric_of("cosine", noisy={"noise"}).damage(*calls) == damage("cosine", LOGITS, MOVED)
    assert metric_of("cosine").damage(*calls) == np.inf


@pytest.mark.parametrize("word", ["auto", "kl", "cosine", "agreement"])
def test_another_nan_or_infinity_is_infinite_damage_and_the_same_is_none(word: str) -> None:
    odd = LOGITS.copy()
    odd[0, 0], odd[1, 1] = np.nan, -np.inf
    assert damage(word, LOGITS, odd) == damage(word, odd, LOGITS) == np.inf
    assert damage(word, odd, odd.copy()) == pytest.approx(0, abs=1e-12)


def test_one_mask_of_the_lowest_float_hides_no_error() -> None:
    a, b = LOGITS.copy(), MOVED.copy()
    a[:, 4] = b[:, 4] = np.finfo(np.float32).min
    assert damage("cosine", a, b) == pytest.approx(damage("cosine", LOGITS[:, :4], MOVED[:, :4]), rel=1e-6)


def test_rows_that_sum_to_one_are_probabilities() -> None:
    assert is_probabilities([softmax(LOGITS)])
    assert is_probabilities([softmax(LOGITS).astype(np.float16)])
    assert not is_probabilities([softmax(LOGITS) - 0.01])
    assert not is_probabilities([LOGITS / LOGITS.sum(axis=-1, keepdims=True)])
    assert not is_probabilities([np.ones((4, 1), np.float32)])


def test_a_metric_of_rows_says_so_where_there_are_none() -> None:
    with pytest.raises(InputError, match="--metric relative"):
        damage("kl", LOGITS[:, 0], MOVED[:, 0])


def test_labels_give_the_tasks_error_rate() -> None:
    right = LOGITS.argmax(axis=-1)
    wrong = np.where(np.arange(6) < 2, (right + 1) % 5, right)
    assert error_rate(right, [{"y": LOGITS[:2]}, {"y": LOGITS[2:]}]) == 0
    assert error_rate(wrong, [{"y": LOGITS}]) == pytest.approx(2 / 6)
    assert error_rate(right[:3], [{"y": LOGITS}]) is None
    assert error_rate(right.astype(np.float32), [{"y": LOGITS}]) is None


def test_by_labels_damage_is_what_more_is_wrong_than_of_the_original() -> None:
    right = LOGITS.argmax(axis=-1)
    worse = LOGITS.copy()
    worse[:2] = -worse[:2]
    by_labels = metric_of("labels", labels=right)
    assert by_labels.damage([{"y": LOGITS}], [{"y": worse}]) == pytest.approx(2 / 6)
    assert by_labels.damage([{"y": worse}], [{"y": LOGITS}]) == 0
    with pytest.raises(InputError, match=r"save an array 'labels' beside the inputs of --calib"):
        metric_of("labels").damage([{"y": LOGITS}], [{"y": LOGITS}])
    with pytest.raises(InputError, match="an integer for each row of scores"):
        metric_of("labels", labels=right[:3]).damage([{"y": LOGITS}], [{"y": LOGITS}])


def test_texts_are_equal_or_not() -> None:
    a, b = np.array(["a", "b"], object), np.array(["a", "c"], object)
    assert damage("auto", a, b) == damage("agreement", a, b) == 0.5


def write_metric(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(body))


def test_a_users_function_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_metric(
        tmp_path,
        "my_metric_ok",
        """
        def largest(inputs, original, candidate):
            assert inputs[0]["x"] == 7
            return max(abs(a["y"] - b["y"]).max() for a, b in zip(original, candidate))
        """,
    )
    metric = metric_of("my_metric_ok:largest")
    found = metric.damage([{"y": LOGITS}], [{"y": LOGITS + 1}], [{"x": np.array(7)}])
    assert (metric.name, found) == ("my_metric_ok:largest", pytest.approx(1))


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("throws", "def f(i, a, b):\n    return 1 / 0", r"throws.py, line 2, `return 1 / 0`: ZeroDivisionError"),
        (
            "ends",
            "def f(i, a, b):\n    raise SystemExit(5)",
            r"ends.py, line 2, `raise SystemExit\(5\)`: SystemExit: 5",
        ),
        ("text", "def f(i, a, b):\n    return 'much'", "ValueError.*returns a number"),
        ("none", "def f(i, a, b):\n    return None", "TypeError"),
        ("nan", "def f(i, a, b):\n    return float('nan')", "returned NaN"),
    ],
)
def test_a_users_function_that_fails_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_metric(tmp_path, f"metric_{name}", body)
    with pytest.raises(InputError, match=said):
        metric_of(f"metric_{name}:f").damage([{"y": LOGITS}], [{"y": LOGITS}])


@pytest.mark.parametrize(
    ("word", "body", "said"),
    [
        ("metric_missing:f", None, "No module named 'metric_missing'"),
        ("metric_empty:f", "", "has no attribute 'f'"),
        ("metric_number:f", "f = 1", "f is no function"),
        ("metric_broken:f", "def f(:\n", "SyntaxError"),
        ("metric_raises:f", "raise RuntimeError('no GPU')", "metric_raises.py, line 1.*no GPU"),
    ],
)
def test_a_users_module_that_cant_be_used_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, body: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if body is not None:
        write_metric(tmp_path, word.partition(":")[0], body)
    with pytest.raises(InputError, match=said):
        metric_of(word)


def test_an_unknown_word_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="kl, cosine, agreement, relative, labels, or module:function"):
        metric_of("psnr")
