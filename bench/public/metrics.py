"""Measure how far a candidate's outputs lie from the original's."""

from __future__ import annotations

from typing import Any

import numpy as np

# Smaller probabilities are rounding noise of fp32 softmax, which would dominate the mean.
FLOOR = 1e-7


def summary(original: dict[str, Any], candidate: dict[str, Any], **measures: float) -> dict[str, Any]:
    """Return both metrics beside the measures of distance."""
    return {
        "metric": original["metric"],
        "better": original["better"],
        "original": original["value"],
        "candidate": candidate["value"],
        "n": original["n"],
        **{name: float(value) for name, value in measures.items()},
    }


def paired(original: dict[str, Any], candidate: dict[str, Any], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one output of both scores as float32; ValueError where the shapes differ."""
    a, b = original["outputs"][key], candidate["outputs"][key]
    if a.shape != b.shape:
        raise ValueError(f"{key}: {a.shape} against {b.shape}; score both on the same samples")
    return a.astype(np.float32), b.astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean cosine between rows (last axis)."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.mean(np.sum(a * b, axis=-1) / np.maximum(norms, FLOOR)))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of rows whose largest entry is the same one."""
    return float(np.mean(a.argmax(axis=-1) == b.argmax(axis=-1)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities along the last axis."""
    raised: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    raised /= raised.sum(axis=-1, keepdims=True)
    return raised


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Return the mean of KL(p || q) over rows of probabilities [nat]."""
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return float(np.mean(np.sum(p * np.log(p / q), axis=-1)))


def kl_bernoulli(p: np.ndarray, q: np.ndarray) -> float:
    """Return the mean KL between yes/no probabilities, entry by entry [nat]."""
    p, q = np.clip(p, FLOOR, 1 - FLOOR), np.clip(q, FLOOR, 1 - FLOOR)
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return intersection over union of two masks; 1 where both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0
