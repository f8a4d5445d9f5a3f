"""What the node writes down in English is told in the viewer's language; texts of others stay as they are."""

import re
from functools import partial

import pytest

from clearfilm.evaluation import Summary
from clearfilm.model_settings import Promotion
from clearfilm.promotion import Evidence, gates
from tests.hostile import STRINGS
from tests.report_factories import report
from worklist.reasons import reason_words
from worklist.rooms.gate_words import figure_words, step_words
from worklist.templates import Templates

CHINESE = partial(Templates().translate, "zh")
DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "2 of 3 films not analysed: body part is not the chest; view LL",
            "3 张胶片中 2 张未分析：部位不是胸部; 投照位 LL",
        ),
        ("analysis failed: cancelled by ann", "分析失败：被 ann 取消"),
        ("PACS@10.0.0.1:104 answered 0xA700", "PACS@10.0.0.1:104 应答了 0xA700"),
        ("", ""),
        (None, ""),
    ],
)
def test_reasons_are_told_in_chinese(reason: str | None, words: str) -> None:
    assert reason_words(CHINESE, reason) == words


@pytest.mark.parametrize("text", STRINGS)
def test_texts_of_others_stay_as_they_are(text: str) -> None:
    for words in (reason_words, figure_words, step_words):
        assert words(CHINESE, text) == text
    assert text in reason_words(CHINESE, f"unexpected {text}")


def of_one(*, demonstration: bool) -> Summary:
    """An evaluation on one film, with one critical one and one group."""
    content = report(DIGEST, DIGEST, n=1, demonstration=demonstration)
    content["comparison"] |= {"critical": 1, "groups": 1}
    return Summary.model_validate(content)


@pytest.mark.parametrize(
    "summary",
    [None, Summary.model_validate(report(DIGEST, DIGEST)), of_one(demonstration=True), of_one(demonstration=False)],
    ids=["none", "many", "one, demonstration", "one"],
)
def test_what_gates_measure_and_want_is_chinese(summary: Summary | None) -> None:
    measured = summary is not None
    evidence = Evidence(
        digest=DIGEST,
        fault=None,
        has_operating_point=measured,
        summary=summary,
        evaluation_digest=DIGEST if measured else None,
        active_digest=DIGEST,
        shadow=None,
    )
    texts = [text for gate in gates(evidence, Promotion()) for text in (gate.measured, gate.wanted)]
    english = [text for text in texts if re.search("[a-z]{2}", figure_words(CHINESE, text).replace("a" * 12, ""))]
    assert english == []
    assert [text for text in texts if re.search(r"\b1 \w*( \w+)?s\b", text)] == []
