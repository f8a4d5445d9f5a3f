"""The aim on real reports (see docs/labels.md)."""

import csv
from pathlib import Path

from training.labels.lexicon import load
from training.labels.rules import label_report


def test_no_finding_on_real_reports_is_precise_and_frequent(shared: Path) -> None:
    lexicon = load()
    with (shared / "data" / "reports" / "openi_reports.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["mesh_major"] != "No Indexing"]
    called = [
        row for row in rows if label_report(row["findings"], row["impression"], lexicon=lexicon).label == "no_finding"
    ]
    right = sum(row["label_mesh"] == "normal" for row in called)
    assert right / len(called) >= 0.95
    assert right / sum(row["label_mesh"] == "normal" for row in rows) >= 0.80
