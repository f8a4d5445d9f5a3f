"""A database with rows in every table, and chosen texts in every column that holds text of others."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import JSON, Enum, String
from sqlalchemy.orm import Session

from clearfilm.policy.rules import Level
from clearfilm.policy.stages import Stage as PolicyStage
from clearfilm.triage import Decision
from clearfilm.vision.bundle import CARD, DESCRIPTION, FEATURES, WEIGHTS, Metric, dump_description, write_bundle
from db import accounts, associations, governance, operations, peer_checks, policy_tables, processes, readings
from db import audit as trail
from db import models as tables
from db.accounts import Role
from db.alerts import Alert, AlertKind
from db.associations import Outcome
from db.models import Base, DeliveryState, InstanceState, JobKind, JobState, ModelState, ResultKind, StudyState
from db.switches import Stage, Switch
from db.verdicts import Verdict
from db.views import SavedView
from tests import bundle_factories
from tests.report_factories import report as evaluation

# Columns of text that nobody outside can choose: why.
_DIGEST, _UID, _OURS = "a digest that we compute", "checked as a UID before it is kept", "one of our own words"
NOT_CHOSEN = {
    "audit.hash": _DIGEST,
    "audit.previous_hash": _DIGEST,
    "deliveries.commitment_uid": _UID,
    "failed_logins.key": _DIGEST,
    "instances.digest": _DIGEST,
    "instances.sop_class_uid": _UID,
    "instances.sop_instance_uid": _UID,
    "instances.series_instance_uid": _UID,
    "instances.transfer_syntax_uid": _UID,
    "known_browsers.token_hash": _DIGEST,
    "logins.token_hash": _DIGEST,
    "model_signatures.gates_digest": _DIGEST,
    "models.digest": _DIGEST,
    "models.evaluation_digest": _DIGEST,
    "models.operating_point": "numbers of a checked bundle",
    "one_time_tokens.token_hash": _DIGEST,
    "peer_checks.kind": _OURS,
    "placements.bundle_digest": _DIGEST,
    "policy_steps.proposed": _OURS,
    "reports.digest": _DIGEST,
    "reports.study_instance_uid": _UID,
    "results.digest": _DIGEST,
    "results.sop_class_uid": _UID,
    "results.sop_instance_uid": _UID,
    "results.series_instance_uid": _UID,
    "results.transfer_syntax_uid": _UID,
    "studies.study_instance_uid": _UID,
    "totals.labels": "names of metrics, as text for programs",
    "totals.name": "names of metrics, as text for programs",
    "training_runs.bundle_digest": _DIGEST,
    "training_runs.cohort_digest": _DIGEST,
    "users.password_hash": _DIGEST,
    "users.settings": "a language, a theme and a zone that are checked",
    "verdicts.token": "random; checked",
}


# The answers of so many destinations are shown whole, one each.
DESTINATIONS = 24


def chosen_columns() -> set[str]:
    """All columns that hold text of others, as `table.column`."""
    return {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, String | JSON) and not isinstance(column.type, Enum)
    } - set(NOT_CHOSEN)


def _unique() -> str:
    return f"2.25.{secrets.randbits(100)}"


@dataclass
class Filler:
    """Makes rows; of each table as many as there are texts, where the table allows it.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        The caller commits.
    texts : sequence of str
        Row by row they stand in all columns that hold text of others.
    folder : pathlib.Path
        For bundles of models.
    now : datetime
    """

    session: Session
    texts: Sequence[str]
    folder: Path
    now: datetime

    def __post_init__(self) -> None:
        self.filled: set[str] = set()

    def row(self, table: type[Base], text: str, **values: Any) -> Any:
        """Add a row: the text where nothing else is said."""
        for column in table.__table__.columns:
            name = f"{table.__tablename__}.{column.name}"
            attribute = "user" if name == "model_signatures.signed_by" else column.name
            if name in chosen_columns():
                self.filled.add(name)
                if attribute not in values:
                    values[attribute] = {text: text} if isinstance(column.type, JSON) else text
        row = table(**values)
        self.session.add(row)
        self.session.flush()
        return row

    def fill(self, *, studies: bool = True) -> None:
        """Every table; or all but those of studies."""
        self._accounts()
        self._models()
        for position, text in enumerate(self.texts):
            self._console(position, text)
            if studies:
                self._study(position, text)
        for stage, text in zip(Stage, self.texts, strict=False):
            self.row(Switch, text, stage=stage, since=self.now)

    def _accounts(self) -> None:
        for text in self.texts:
            user = self.row(accounts.User, text, role=Role.READER, password_hash=None, created_at=self.now, settings={})
            login = {"user_id": user.id, "token_hash": secrets.token_hex(32), "created_at": self.now}
            self.row(accounts.Login, text, seen_at=self.now, **login)
            self.row(
                SavedView, text, user_id=user.id, query=f"q={quote(text[:100], errors='replace')}", shared=True,
                created_at=self.now,
            )  # fmt: skip
        self.users = [user.id for user in self.session.query(accounts.User).all()]

    def _models(self) -> None:
        """Bundles that are there, with the texts in their descriptions, and rows of bundles that are gone."""
        self.bundles: list[int] = []
        for position, text in enumerate(self.texts):
            folder = self.folder / str(position)
            digest = self._bundle(folder, text)
            state = [ModelState.ACTIVE, ModelState.SHADOW, ModelState.CANDIDATE, ModelState.RETIRED][min(position, 3)]
            row = self.row(
                tables.ModelBundle, text, digest=digest, path=str(folder) if position % 4 < 3 else f"{text} {position}",
                state=state if position < 3 or position % 2 else ModelState.CANDIDATE,
                operating_point={"threshold": 0.3, "sensitivity": 0.95}, evaluation=self._evaluation(digest, text),
                evaluation_digest=f"{position:064x}", added_at=self.now, shadow_since=self.now,
            )  # fmt: skip
            self.bundles.append(row.id)
            self.row(governance.Activation, text, model_id=row.id, activated_at=self.now)
            self.row(
                governance.Signature, text, model_id=row.id, kind=governance.SignatureKind.PROMOTION,
                gates_digest="0" * 64, signed_at=self.now,
            )  # fmt: skip
            self.row(
                governance.TrainingRun, text, folder=f"{text} {position}", cohort_digest="0" * 64, bundle_digest=digest,
                started_at=self.now, outcome=list(governance.RunOutcome)[position % 4],
            )  # fmt: skip

    def _bundle(self, folder: Path, text: str) -> str:
        # Descriptions hold plain ASCII only.
        text = "".join(letter for letter in text if " " <= letter <= "~" and letter != "\\")[:64] or "none"
        metric = Metric(name=text, value=0.9, low=0.8, high=0.95, normal=10, abnormal=10)
        described = bundle_factories.description("1").model_copy(
            update={"name": text, "version": text, "note": text, "intended_use": text, "metrics": (metric,)}
        )
        files = {
            DESCRIPTION: dump_description(described),
            CARD: folder.name.encode(),
            WEIGHTS: b"",
            FEATURES: b"",
        }
        return write_bundle(folder, files)

    def _evaluation(self, digest: str, text: str) -> dict[str, Any]:
        content = evaluation(digest, "0" * 64)
        content["identity"] |= {"bundle_name": text, "bundle_version": text, "code_version": text, "scheme": text}
        content["comparison"]["new_critical_misses"] = [text]
        return content

    def _console(self, position: int, text: str) -> None:
        now = self.now
        outcome = list(Outcome)[position % 3]
        self.row(
            associations.AssociationEntry, text, outcome=outcome, times=2, stored=1, refused=1, first_at=now,
            last_at=now,
        )  # fmt: skip
        self.row(associations.TrustedSender, text, added_at=now)
        kind = list(AlertKind)[position % len(AlertKind)]
        facts = dict.fromkeys(("hours", "missed", "minutes", "count", "error", "free", "mark", "days", "reason"), text)
        over = {"closed_at": now} if position % 3 == 0 else {}
        seen = {"acknowledged_at": now} if position % 3 == 1 else {"acknowledged_by": None}
        self.row(Alert, text, kind=kind, facts=facts, opened_at=now - timedelta(hours=1), **over, **seen)
        self.row(
            policy_tables.Device, text, first_seen_at=now, signed_at=now, released_at=now if position % 2 else None
        )  # fmt: skip
        self.row(
            policy_tables.PolicyStep, text, at=now, stage=PolicyStage.SUPERVISED,
            proposed="active" if position == len(self.texts) - 1 else None,
        )  # fmt: skip
        # The newest is shown whole, of the earlier ones the message.
        context = {"name": text, "uid": text, "transfer_syntaxes": [text]}
        self.row(
            peer_checks.PeerCheck, text, destination=f"pacs-{position % DESTINATIONS}", kind="rehearsal", good=False,
            at=now, detail={"contexts": [context], "report": text, "commitment": True},
        )  # fmt: skip
        self.row(processes.Process, text, owner=f"{position}{text}", started_at=now, seen_at=now)
        # Newer than what the walk itself leaves in the trail.
        trail.record(self.session, text, actor=text, now=now, **{text: text, "value": [text, {text: text}]})
        self.filled |= {"audit.event", "audit.actor", "audit.detail"}

    def _study(self, position: int, text: str) -> None:
        now, decision = self.now, list(Decision)[position % 3]
        state = StudyState.FAILED if position % 7 == 6 else StudyState.CONCLUDED
        study = self.row(
            tables.Study, text, study_instance_uid=_unique(), state=state, decision=decision, revision=1,
            patient_id=text, priority=position % 3, first_received_at=now, last_received_at=now, concluded_at=now,
        )  # fmt: skip
        # Another study of the patient, which the case names.
        self.row(
            tables.Study, text, study_instance_uid=_unique(), state=StudyState.CONCLUDED, revision=1, patient_id=text,
            decision=Decision.NOT_ANALYSED, first_received_at=now - timedelta(days=400), last_received_at=now,
            concluded_at=now,
        )  # fmt: skip
        for film_state in (InstanceState.NOT_ANALYSED, InstanceState.FAILED, InstanceState.ANALYSED):
            film = self.row(
                tables.Instance, text, study_id=study.id, sop_instance_uid=_unique(), sop_class_uid=_unique(),
                series_instance_uid=_unique(), transfer_syntax_uid=_unique(), digest=secrets.token_hex(32), size=1,
                path=f"films/{secrets.token_hex(8)}", received_at=now, state=film_state, conflict=True,
            )  # fmt: skip
        self.row(
            tables.Analysis, text, instance_id=film.id, model_id=self.bundles[0], score=0.5, logit=0.0, above=True,
            map_path=None, created_at=now,
        )  # fmt: skip
        self._jobs(study, film, text)
        self._results(study, text, decision)
        self.row(
            tables.StudyPlacement, text, study_id=study.id, revision=1, level=Level.LATER, tagged=True, shown=True,
            blind=False, withheld=False, returns_at=now + timedelta(hours=1), reasons=[{"rule": text, "words": text}],
            stage=PolicyStage.SUPERVISED, model_id=self.bundles[0], bundle_digest="0" * 64, decided_at=now,
        )  # fmt: skip
        self.row(readings.Opening, text, study_id=study.id, user_id=self.users[-1], opened_at=now)
        report = self.row(
            tables.Report, text, digest=secrets.token_hex(32), source=tables.ReportSource.HL7, tags=[text],
            status=tables.ReportStatus.FINAL, study_instance_uid=None, received_at=now, study_id=study.id,
        )  # fmt: skip
        self.row(tables.ReportAudit, text, report_id=report.id, recorded_at=now)
        self.row(
            Verdict, text, study_id=study.id, revision=1, answer=decision, user_id=self._user(position), agrees=False,
            blind=False, corrects=True, token=secrets.token_hex(16), at=now,
        )  # fmt: skip
        trail.record(self.session, "case shown", actor=text, now=now, study_id=study.id)

    def _user(self, position: int) -> int:
        """The user whose name is the row's text."""
        return self.users[-len(self.texts) + position]

    def _jobs(self, study: Any, film: Any, text: str) -> None:
        states = itertools.product((JobKind.ANALYSE, JobKind.DELIVER), JobState)
        for kind, state in states:
            job = self.row(
                tables.Job, text, kind=kind, state=state, study_id=study.id, instance_id=film.id, revision=1,
                run_after=self.now, created_at=self.now, finished_at=self.now if state is JobState.DONE else None,
            )  # fmt: skip
        self.row(operations.Cancellation, text, job_id=job.id, at=self.now, due_at=self.now + timedelta(hours=1))

    def _results(self, study: Any, text: str, decision: Decision) -> None:
        for position, kind in enumerate(ResultKind):
            result = self.row(
                tables.Result, text, study_id=study.id, revision=1, kind=kind, sop_class_uid=_unique(),
                sop_instance_uid=_unique(), series_instance_uid=_unique(), transfer_syntax_uid=_unique(),
                position=position, path=f"results/{secrets.token_hex(8)}", digest=secrets.token_hex(32),
                decision=decision, model_id=self.bundles[0], created_at=self.now,
            )  # fmt: skip
            for destination, state in ((text, DeliveryState.FAILED), (f"{text} ", DeliveryState.COMMITTED)):
                self.row(
                    tables.Delivery, text, result_id=result.id, destination=destination, state=state,
                    dicom_status=0xA700, created_at=self.now, sent_at=self.now, committed_at=self.now,
                    commitment_uid=None,
                )  # fmt: skip
