"""Figures of the audit and the second opinion."""

import pytest

from clearfilm.errors import ClearfilmError
from training.labels import audit
from training.labels.second_opinion import LabelledText, opinions


def test_precision_and_recall_are_those_of_no_finding() -> None:
    rules = {"a": "no_finding", "b": "no_finding", "c": "indeterminate", "d": "finding"}
    reader = {"a": "no_finding", "b": "finding", "c": "no_finding", "d": "finding"}
    found = audit.score(rules, reader)
    assert found.precision
    assert found.recall
    assert (found.precision.value, found.recall.value) == (0.5, 0.5)
    assert found.disagreements == ("b", "c")


def test_interval_of_a_share_is_the_exact_binomial_one() -> None:
    found = audit.share(914, 1018)  # the paper's recall
    assert found
    assert (round(found.low, 3), round(found.high, 3)) == (0.878, 0.916)
    none_of_ten = audit.share(0, 10)
    assert none_of_ten
    assert none_of_ten.low == 0
    assert round(none_of_ten.high, 3) == 0.308
    assert audit.share(0, 0) is None


def test_kappa_is_one_for_agreement_and_zero_for_chance() -> None:
    assert audit.kappa([("a", "a"), ("b", "b")]) == 1
    assert audit.kappa([("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]) == 0
    assert audit.kappa([("a", "a")]) is None


def test_a_sample_is_repeatable_and_no_larger_than_there_are_reports() -> None:
    assert audit.sample(range(100), 5, 1) == audit.sample(range(100), 5, 1)
    with pytest.raises(ClearfilmError, match="only 3"):
        audit.sample(range(3), 5, 1)


def test_a_wrong_label_is_disputed() -> None:
    normal = [
        "lungs are clear",
        "clear lungs today",
        "both lungs clear",
        "heart and lungs clear",
        "clear chest, clear lungs",
        "lungs quite clear",
    ]
    abnormal = [
        "large effusion",
        "effusion on the left",
        "effusion right base",
        "new effusion",
        "small effusion seen",
        "effusions bilaterally",
    ]
    texts = [LabelledText(f"n{place}", text, "", "no_finding") for place, text in enumerate(normal)]
    texts += [LabelledText(f"f{place}", text, "", "finding") for place, text in enumerate(abnormal)]
    texts.append(LabelledText("wrong", "left effusion and right effusion", "", "no_finding"))
    texts.append(LabelledText("open", "effusion", "", "indeterminate"))
    found = {one.report.report_id: one for one in opinions(texts)}
    assert found["wrong"].disagrees
    assert not found["open"].disagrees
    assert found["open"].finding_probability > 0.5


def test_a_second_opinion_needs_both_classes() -> None:
    with pytest.raises(ClearfilmError, match="are needed"):
        opinions([LabelledText("1", "clear", "", "no_finding")])
