"""How grave a miss is."""

import pytest

from clearfilm.config import Reports
from training.evaluation.severity import Grader
from training.labels.labeller import from_config


@pytest.mark.parametrize(
    ("tags", "severity"),
    [
        ("critical|minor", "critical"),
        ("significant|device", "finding"),
        ("urgent", "finding"),
        ("device|minor|quality", "device"),
        ("minor", "minor"),
        ("", "finding"),
        ("quality", "finding"),
        ("Pneumothorax", "critical"),
        ("Infiltration|Pneumothorax", "critical"),
        ("Pleural_Thickening", "finding"),
        ("a word that no lexicon has|device", "finding"),
    ],
)
def test_worst_tag_or_finding_decides(tags: str, severity: str) -> None:
    assert Grader(from_config(Reports())).grade(tags) == severity
