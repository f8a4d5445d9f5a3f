"""Evaluations for tests: one that passes every gate."""

from datetime import UTC, datetime
from typing import Any

from clearfilm.evaluation import Summary


def report(bundle_digest: str, against: str | None = None, **changes: Any) -> dict[str, Any]:
    """Content of a `report.json` about a bundle, compared with another one."""
    interval = (0.95, 0.97)
    per_class = {
        "no_finding": 0.9,
        "finding": 0.9,
        "no_finding_interval": (0.88, 0.92),
        "finding_interval": (0.88, 0.92),
    }
    values: dict[str, Any] = {
        "demonstration": False,
        "created": datetime(2026, 3, 1, tzinfo=UTC),
        "identity": {
            "bundle_digest": bundle_digest,
            "bundle_name": "Test model",
            "bundle_version": "1",
            "cohort_digest": "c" * 64,
            "scheme": "patient",
            "held_back": True,
            "code_version": "CLEARFILM_0.1.0",
        },
        "n": 4000,
        "normal": 2000,
        "abnormal": 2000,
        "patients": 3900,
        "auc": 0.96,
        "auc_interval": interval,
        "by_view": {},
        "groups": {},
        "precision": per_class,
        "recall": per_class,
        "f1": per_class,
        "specificity_at_sensitivity": {},
        "brier": 0.1,
        "brier_interval": (0.09, 0.11),
        "ece": 0.02,
        "ece_interval": (0.01, 0.03),
        "calibration_slope": 1.0,
        "calibration_slope_interval": (0.9, 1.1),
        "operating_point": {
            "threshold": 0.3,
            "guaranteed_sensitivity": 0.99,
            "confidence": 0.95,
            "sensitivity": 0.996,
            "sensitivity_interval": (0.991, 0.998),
            "specificity": 0.5,
            "specificity_interval": (0.47, 0.53),
            "missed": 8,
            "missed_critical": 0,
            "missed_critical_upper": 0.01,
        },
        "misses": [],
        "shortcuts": {"metadata": 0.7, "thumbnail": 0.72, "lungs_blacked_out": 0.6},
        "comparison": {
            "bundle_digest": against,
            "auc_difference": 0.01,
            "auc_interval": (0.002, 0.018),
            "auc_interval_by_patient": (0.001, 0.019),
            "p_value": 0.01,
            "specificity_difference": 0.02,
            "specificity_interval": (-0.01, 0.05),
            "new_critical_misses": [],
            "critical": 200,
            "largest_group_loss": 0.0,
            "groups": 9,
        }
        if against
        else None,
        "sanity": {"outside_chest": 0.1, "randomised_similarity": 0.05, "passed": True},
    }
    return Summary.model_validate({**values, **changes}).model_dump(mode="json")
