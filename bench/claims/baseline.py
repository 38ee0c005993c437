"""The control that a text teacher has to beat: TF-IDF of words and pairs with a linear classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .data.files import read_text


def accuracy(data: Path) -> dict[str, float]:
    """Return the share of held-out descriptions whose section is found, and the number of features."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    train, held = (json.loads(read_text(data / f"sections-{side}.json.xz")) for side in ("train", "held"))
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    features = vectors.fit_transform(train["text"])
    line = LinearSVC(C=0.3, random_state=0).fit(features, train["label"])
    right = line.predict(vectors.transform(held["text"])) == np.array(held["label"])
    return {"held": float(right.mean()), "n": len(right), "features": features.shape[1]}
