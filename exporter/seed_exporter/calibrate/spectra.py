"""The principal components of matrices, which the published method keeps some of."""

from __future__ import annotations

from typing import Final

from joblib import Parallel, delayed

from seed_exporter.calibrate.statistic import Statistic, Subject
from seed_exporter.calibrate.weight_scales import root_mean_square
from seed_exporter.codecs.moments import Spectrum, centred_spectrum
from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Weight


def _measure(subject: Subject) -> dict[str, Spectrum]:
    def of(weight: Weight) -> Spectrum | None:
        return centred_spectrum(as_float32(weight)) if root_mean_square(weight) else None

    least = matrix_min(subject.graph)
    weights = [weight for weight in subject.graph.weights.values() if kind_of(weight, least) is Kind.MATRIX]
    found = Parallel(n_jobs=subject.jobs, prefer="threads")(delayed(of)(weight) for weight in weights)
    return {weight.name: each for weight, each in zip(weights, found, strict=True) if each is not None}


SPECTRA: Final = Statistic("the principal components of matrices", _measure)
"""Singular values and vectors of each matrix without its mean row; none of one that has no scale. They take as much
memory as the matrices."""
