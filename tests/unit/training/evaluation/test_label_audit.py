"""The audit of the labels, read from a file."""

import json
from pathlib import Path

import pytest

from clearfilm.errors import TrainingError
from training.evaluation.label_audit import from_file


def test_output_of_the_audit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95}
    path.write_text(
        json.dumps({"reports": 200, "precision": estimate, "recall": None, "kappa": estimate, "disagreements": ["7"]})
    )
    found = from_file(path)
    assert (found.reports, found.recall, found.source) == (200, None, "audit.json")
    assert found.precision is not None
    assert found.precision.low == 0.8


@pytest.mark.parametrize("content", ["", "{}", "report_id,findings\n1,x\n", '{"reports": 0}'])
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "audit.csv"
    path.write_text(content)
    with pytest.raises(TrainingError, match="reports audit"):
        from_file(path)
    with pytest.raises(TrainingError, match="reports audit"):
        from_file(tmp_path / "missing.json")
