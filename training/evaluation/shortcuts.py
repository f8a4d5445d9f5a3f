"""What can be told without looking at the lungs. A model that is hardly better has learned the collection, not disease.

J. R. Zech et al., PLoS Medicine 2018; A. J. DeGrave et al., Nature Machine Intelligence 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from training.cohort import Film
from training.evaluation.chest import lung_fields
from training.evaluation.groups import Sample
from training.ranking import area

THUMBNAIL_EDGE: Final = 32
# Enough for a thousand weights.
MOST_LEARNED_FROM: Final = 4000
# Reading them takes as long as reading the films themselves.
MOST_BLACKED_OUT: Final = 1000
_FOLDS: Final = 5
_METADATA_STRENGTH, _THUMBNAIL_STRENGTH = 1.0, 1e-3
_Features = NDArray[Any]


def metadata(films: Sequence[Film]) -> NDArray[np.float64]:
    """View, sex and age as numbers: shape ``(n, 7)``; age is on a scale of decades around 50."""
    ages = np.array([(int(film.age) - 50) / 10 if film.age else 0.0 for film in films])
    columns = [
        *(np.array([film.view == view for film in films]) for view in ("PA", "AP")),
        *(np.array([film.sex == sex for film in films]) for sex in ("F", "M")),
        np.array([not film.age for film in films]),
        ages,
        ages**2,
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A film at a size at which nobody could see a finding: shape ``(1024,)``."""
    small = cv2.resize(picture, (THUMBNAIL_EDGE, THUMBNAIL_EDGE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32).ravel()


def without_lungs(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A film with the lungs black; what is left is the rest of the chest, devices, marks and exposure."""
    return np.where(lung_fields(picture), np.uint8(0), picture)


def evenly(number: int, most: int) -> list[int]:
    """At most so many of a number of places, spread over all of them."""
    return [int(place) for place in np.linspace(0, number - 1, min(most, number)).round()]


def metadata_area(test: Sample, train: Sample | None) -> float | None:
    """AUC of view, sex and age alone, see `learned_area`."""
    known = None if train is None else (metadata(train.films), train.labels)
    return learned_area(test, metadata(test.films), known, _METADATA_STRENGTH)


def thumbnail_area(
    test: Sample, pictures: NDArray[np.float32], known: tuple[NDArray[np.float32], NDArray[np.float32]] | None
) -> float | None:
    """AUC of a logistic regression on thumbnails alone, see `learned_area`."""
    return learned_area(test, pictures, known, _THUMBNAIL_STRENGTH)


def learned_area(
    test: Sample, features: _Features, known: tuple[_Features, NDArray[np.float32]] | None, strength: float
) -> float | None:
    """AUC of a logistic regression.

    Parameters
    ----------
    test : Sample
    features : numpy.ndarray
        Of its films, shape ``(n, k)``.
    known : tuple or None
        Features and labels of the training patients. None, or labels of one kind only: the regression is
        cross-validated on the test films, by patient.
    strength : float
        Inverse of the L2 penalty, on standardised features.

    Returns
    -------
    float or None
        None if there are fewer patients of a label than folds.
    """
    if known is not None and 0 < known[1].sum() < len(known[1]):
        fitted = _regression(strength).fit(*known)
        return area(test.labels, fitted.decision_function(features))
    patients = np.array(test.patients)
    if min(len(set(patients[test.labels == label])) for label in (0, 1)) < _FOLDS:
        return None
    scores = cross_val_predict(
        _regression(strength),
        features,
        test.labels,
        groups=patients,
        cv=GroupKFold(_FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    return area(test.labels, scores[:, 1])


def _regression(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
