"""What benchmarks of fine-tuning compare: other faces judge than those that tuned, and goals follow from peaks."""

from __future__ import annotations

import numpy as np

from bench import finetune_memory, personalise


def test_pictures_that_judge_a_family_are_of_other_faces_than_its_samples() -> None:
    faces = np.broadcast_to(np.arange(1, 5, dtype=np.float32)[:, None, None, None], (4, 20, 24, 24))
    for draw in range(4):
        samples, judged = personalise._drawn(personalise.Domain("package", "family", faces), draw)
        assert samples[0].shape == (100, 1, 24, 24)
        assert judged[0].shape == (360, 1, 24, 24)
        assert not set(samples[0].ravel()) & set(judged[0].ravel())
        assert np.bincount(samples[1]).tolist() == [personalise.SAMPLES] * 20
        assert np.bincount(judged[1]).tolist() == [2 * personalise.JUDGED] * 20


def test_a_peak_is_compared_with_its_limit_and_with_each_peer() -> None:
    peaks = {"peak": 90.0, "mnn": 160.0, "torch": 200.0, "mnn_few": 100.0, "torch_few": 120.0}
    row = {"title": "a network", "mode": "head", "limit": 100, "micro": 4, "refused": 14, **peaks}
    goals = [goal.as_json() for goal in finetune_memory._goals(row)]
    assert [(goal["value"], goal["met"]) for goal in goals] == [
        (90.0, True),
        (0.5625, True),
        (0.45, False),
        (1.0, True),
    ]
    (line,) = finetune_memory.table({"rows": [row]})[2:]
    assert line.startswith("| a network | `head` | 100 MB | **90.0 MB** | 4 | 160 MB (0.56) | 200 MB (0.45) |")
