"""A second opinion on the rules: a classifier on character n-grams, learnt from their labels and cross-fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

from clearfilm.errors import ClearfilmError
from training.labels.lexicon import normalise
from training.labels.rules import Value

FOLDS = 5
_SEED = 20_190_900


@dataclass(frozen=True)
class LabelledText:
    """A report with the label of the rules."""

    report_id: str
    findings: str
    impression: str
    label: str


@dataclass(frozen=True)
class Opinion:
    """What the classifier makes of a report that it did not learn from."""

    report: LabelledText
    finding_probability: float

    @property
    def disagrees(self) -> bool:
        """Whether it would have decided otherwise; on `indeterminate` it gives an opinion only."""
        other = Value.FINDING if self.finding_probability >= 0.5 else Value.NO_FINDING
        return self.report.label != Value.INDETERMINATE and self.report.label != other

    @property
    def certainty(self) -> float:
        """0: a toss-up; 1: certain."""
        return abs(self.finding_probability - 0.5) * 2


def opinions(texts: Sequence[LabelledText]) -> list[Opinion]:
    """Cross-fitted opinions on all reports.

    Character 1- to 4-grams weighted by TF-IDF, logistic regression; equal texts stay in one fold, since reports repeat.

    Parameters
    ----------
    texts : sequence of LabelledText
        Those labelled `indeterminate` are not learnt from.

    Returns
    -------
    list of Opinion
        In the order of `texts`.

    Raises
    ------
    ClearfilmError
        If a class has too few different texts, or scikit-learn is missing.
    """
    try:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise ClearfilmError("this needs the package scikit-learn: pip install 'clearfilm[reports]'") from error
    documents = [_document(text) for text in texts]
    known = np.array([text.label != Value.INDETERMINATE for text in texts], dtype=bool)
    finding = np.array([text.label == Value.FINDING for text in texts], dtype=bool)
    for value in (True, False):
        different = {document for document, k, f in zip(documents, known, finding, strict=True) if k and f == value}
        if len(different) < FOLDS:
            name = Value.FINDING if value else Value.NO_FINDING
            raise ClearfilmError(f"only {len(different)} different texts are labelled {name}; {FOLDS} are needed")
    numbers = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    groups = np.array([numbers[document] for document in documents])
    # Folds keep the balance of finding against the rest; what is indeterminate is only predicted.
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED).split(documents, finding, groups)
    probability = np.full(len(texts), np.nan)
    for fitted, held_back in folds:
        fitted = fitted[known[fitted]]
        vectoriser = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True, max_features=200_000
        )
        learnt = vectoriser.fit_transform([documents[number] for number in fitted])
        model = LogisticRegression(C=10, max_iter=2000).fit(learnt, finding[fitted])
        seen = vectoriser.transform([documents[number] for number in held_back])
        probability[held_back] = model.predict_proba(seen)[:, 1]
    return [Opinion(text, float(value)) for text, value in zip(texts, probability, strict=True)]


def _document(text: LabelledText) -> str:
    return " ".join(normalise(f"{text.findings} \n {text.impression}").lower().split())
