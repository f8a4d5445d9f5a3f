"""How far the labels themselves can be trusted: the blind audit of reports, see `training.labels.audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session

from clearfilm.errors import TrainingError
from db import reports
from training.labels import audit
from training.labels.audit import Estimate


@dataclass(frozen=True)
class LabelAudit:
    """Labels of the rules against a human reader. Precision and recall are those of "no finding"."""

    source: str
    reports: int
    precision: Estimate | None
    recall: Estimate | None
    kappa: Estimate | None


class _Estimate(BaseModel):
    value: float
    low: float
    high: float

    def plain(self) -> Estimate:
        return Estimate(self.value, self.low, self.high)


class _File(BaseModel):
    """What `clearfilm reports audit --score FILE --json` prints."""

    model_config = ConfigDict(extra="ignore")

    reports: int = Field(ge=1)
    precision: _Estimate | None
    recall: _Estimate | None
    kappa: _Estimate | None


def from_file(path: Path) -> LabelAudit:
    """An audit that `clearfilm reports audit --json` has printed into a file. Raises TrainingError."""
    try:
        found = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(
            f"{path} is not what `clearfilm reports audit --score FILE --json` prints: write its output into a file"
        ) from error
    precision, recall, kappa = (one.plain() if one else None for one in (found.precision, found.recall, found.kappa))
    return LabelAudit(path.name, found.reports, precision, recall, kappa)


def from_database(session: Session) -> LabelAudit | None:
    """The audits that the node keeps; None if there is none yet. Of several readers of a report the last counts."""
    rows = reports.audited(session)
    if not rows:
        return None
    found = audit.score(
        {str(report): rule for report, rule, _ in rows}, {str(report): reader for report, _, reader in rows}
    )
    return LabelAudit("this node's reports", found.reports, found.precision, found.recall, found.kappa)
