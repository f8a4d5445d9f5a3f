"""Labels by rules against the headings of the Open-i reports, under the wide and the strict rule.

python bench/labels.py REPORTS.csv [--out FILE]

REPORTS.csv: report_id, findings, impression, mesh_major, label_mesh. Reports headed just "No Indexing" are left out.
The two halves are by a hash of the report's number: the rules were written on the first, the second only measured.
"""

import argparse
import csv
import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from training.labels import lexicon as lexicons
from training.labels.audit import share
from training.labels.labeller import Labeller
from training.labels.rules import RuleSet, Value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("reports", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with arguments.reports.open(encoding="utf-8", newline="") as stream:
        reports = [row for row in csv.DictReader(stream) if row["mesh_major"] != "No Indexing"]
    halves = {
        "first half": [row for row in reports if not second_half(row)],
        "second half": [row for row in reports if second_half(row)],
    }
    first_texts = {text(row) for row in halves["first half"]}
    halves["second half, new texts"] = [row for row in halves["second half"] if text(row) not in first_texts]
    words = lexicons.load()
    figures: dict[str, Any] = {"lexicon": words.version}
    for rule_set in get_args(RuleSet):
        labeller = Labeller(words, rule_set)
        for name, rows in {"all": reports, **halves}.items():
            figures[f"{rule_set}, {name}"] = measured(rows, labeller)
    print(f"lexicon {words.version}")
    print(f"{'':32} {'reports':>7} {'precision':>22} {'recall':>22} {'indeterminate':>13} {'per second':>10}")
    for name, row in figures.items():
        if name != "lexicon":
            print(
                f"{name:32} {row['reports']:>7} {shown(row['precision']):>22} {shown(row['recall']):>22} "
                f"{row['labels'].get('indeterminate', 0):>13} {row['per_second']:>10.0f}"
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measured(rows: list[dict[str, str]], labeller: Labeller) -> dict[str, Any]:
    """Precision and recall of "no finding" with their 95 % intervals."""
    start = time.perf_counter()
    labels = [labeller.label(row["findings"], row["impression"]) for row in rows]
    seconds = time.perf_counter() - start
    normal = [row["label_mesh"] == "normal" for row in rows]
    called = [label.label == Value.NO_FINDING for label in labels]
    both = sum(one and other for one, other in zip(normal, called, strict=True))
    precision, recall = share(both, sum(called)), share(both, sum(normal))
    return {
        "reports": len(rows),
        "precision": vars(precision) if precision else None,
        "recall": vars(recall) if recall else None,
        "labels": dict(Counter(label.label.value for label in labels)),
        "rules": dict(Counter(f"{label.label.value}: {label.rule}" for label in labels)),
        "per_second": len(rows) / seconds,
    }


def shown(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})"


def second_half(row: dict[str, str]) -> bool:
    return bool(hashlib.sha256(row["report_id"].encode()).digest()[0] % 2)


def text(row: dict[str, str]) -> tuple[str, str]:
    return row["findings"], row["impression"]


if __name__ == "__main__":
    main()
