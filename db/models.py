"""The tables. States are stored by value with a CHECK; times are aware UTC; the database keeps promises."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from clearfilm.policy.rules import Level
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite numbers only INTEGER primary keys by itself.
Id = BigInteger().with_variant(Integer(), "sqlite")


_OPEN_CONCLUSION = text("kind = 'conclude' AND state = 'queued'")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; naive values are refused, since nobody knows which zone they meant."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON()}  # noqa: RUF012 - SQLAlchemy's form


class StudyState(enum.StrEnum):
    """Where a study is; what a user sees is derived from this and its films."""

    OPEN = "open"  # films may still come, or analyses are under way
    CONCLUDED = "concluded"
    FAILED = "failed"  # no conclusion could be built


class Reading(enum.StrEnum):
    """How far readers have got with a study, as far as the node knows."""

    OPENED = "opened"
    AGREED = "agreed"
    DISAGREED = "disagreed"
    REPORTED = "reported"  # a report that is not preliminary


class Outstanding(enum.StrEnum):
    """What is still to be done for a study after its conclusion, or instead of it."""

    WAITING = "waiting"  # results of the latest revision are to be sent
    FAILED = "failed"  # no conclusion, or work has failed and was not done since


class InstanceState(enum.StrEnum):
    """The way of one film."""

    QUEUED = "queued"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"


class JobKind(enum.StrEnum):
    """What a job does: `analyse` one film, `conclude` a study, `deliver` a revision to a destination."""

    ANALYSE = "analyse"
    CONCLUDE = "conclude"
    DELIVER = "deliver"


class JobState(enum.StrEnum):
    """A job ends in DONE or FAILED; everything else is still to be done."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ResultKind(enum.StrEnum):
    """What a result object is."""

    SECONDARY_CAPTURE = "sc"
    REPORT = "sr"


class DeliveryState(enum.StrEnum):
    """One result at one destination. COMMITTED: the destination took responsibility for it (PS3.4 J)."""

    WAITING = "waiting"
    SENT = "sent"
    COMMITTED = "committed"
    FAILED = "failed"
    SUPERSEDED = "superseded"  # a newer revision was concluded before this one was sent
    NOT_CHOSEN = "not_chosen"  # another IOD of the same report was negotiated


class ModelState(enum.StrEnum):
    """Life of a bundle at this node; exactly one is ACTIVE."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    ACTIVE = "active"
    RETIRED = "retired"


def states(kind: type[enum.StrEnum]) -> Enum:
    """A text column with a CHECK on the values."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=kind.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


class Study(Base):
    """A study with patient and request attributes as received with its first film."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True, comment="(0020,000D) UI")
    patient_name: Mapped[str | None] = mapped_column(Text, comment="(0010,0010) PN, decoded for display")
    patient_id: Mapped[str | None] = mapped_column(Text, index=True, comment="(0010,0020) LO")
    patient_birth_date: Mapped[str | None] = mapped_column(Text, comment="(0010,0030) DA as received")
    patient_sex: Mapped[str | None] = mapped_column(Text, comment="(0010,0040) CS")
    accession_number: Mapped[str | None] = mapped_column(Text, index=True, comment="(0008,0050) SH")
    study_date: Mapped[str | None] = mapped_column(Text, comment="(0008,0020) DA as received")
    study_time: Mapped[str | None] = mapped_column(Text, comment="(0008,0030) TM as received")
    study_description: Mapped[str | None] = mapped_column(Text, comment="(0008,1030) LO")
    ordered_priority: Mapped[str | None] = mapped_column(Text, comment="(0040,1003) SH")
    priority: Mapped[int] = mapped_column(default=0, comment="0 routine, 1 high, 2 STAT; jobs inherit it")
    state: Mapped[StudyState] = mapped_column(states(StudyState), default=StudyState.OPEN)
    revision: Mapped[int] = mapped_column(default=0, comment="number of conclusions so far")
    decision: Mapped[Decision | None] = mapped_column(states(Decision))
    reason: Mapped[str | None] = mapped_column(Text, comment="why not analysed, or why failed")
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime]
    concluded_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None] = mapped_column(comment="when a result was last sent")
    # What the list of studies shows, filters and sorts by.
    search: Mapped[str] = mapped_column(Text, server_default="", comment="clearfilm.names.search_key")
    age_years: Mapped[float | None] = mapped_column(comment="at the examination")
    sender: Mapped[str | None] = mapped_column(String(64), comment="of the first film; name in the configuration")
    location: Mapped[str | None] = mapped_column(Text, comment="(0038,0300) LO, (0008,1040) LO or (0032,1033) LO")
    reading: Mapped[Reading | None] = mapped_column(states(Reading), comment="since the last film came")
    read_at: Mapped[datetime | None] = mapped_column(comment="reported, agreed or disagreed: waits no more")
    withheld: Mapped[bool] = mapped_column(
        default=False, server_default=false(), comment="as its placement: readers see no answer before the report"
    )
    lowered_until: Mapped[datetime | None] = mapped_column(
        comment="read later until then by its placement; a time that is over: its longest wait was reached"
    )
    # The database itself keeps it, whoever changes jobs, deliveries or the study: see migration 0010. Never written
    # from here; an object that was read before such a change does not have it.
    outstanding: Mapped[Outstanding | None] = mapped_column(states(Outstanding), comment="kept by triggers")


# Filters and orders of the list are answered from here, without a look at the wide rows.
Index(
    "ix_studies_list",
    Study.first_received_at,
    Study.read_at,
    Study.state,
    Study.concluded_at,
    Study.delivered_at,
    Study.decision,
    Study.priority,
    Study.reading,
    Study.withheld,
    Study.lowered_until,
    Study.sender,
    Study.patient_sex,
    Study.age_years,
    Study.location,
    Study.outstanding,
)
# Little is outstanding at any time.
Index(
    "ix_studies_outstanding",
    Study.outstanding,
    Study.first_received_at,
    sqlite_where=text("outstanding IS NOT NULL"),
    postgresql_where=text("outstanding IS NOT NULL"),
)


class Instance(Base):
    """A received object; identity is the SOP Instance UID with the digest of the data set."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "digest"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), comment="(0008,0018) UI")
    sop_class_uid: Mapped[str] = mapped_column(String(64), comment="(0008,0016) UI")
    series_instance_uid: Mapped[str | None] = mapped_column(String(64), comment="(0020,000E) UI")
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64), comment="(0002,0010) UI")
    digest: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the data set as received")
    size: Mapped[int] = mapped_column(BigInteger, comment="bytes of the data set")
    path: Mapped[str] = mapped_column(Text, unique=True, comment="relative to the data folder")
    sender: Mapped[str] = mapped_column(String(64), comment="name in the configuration")
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = mapped_column(index=True)
    conflict: Mapped[bool] = mapped_column(default=False, comment="same UID came with other bytes")
    state: Mapped[InstanceState] = mapped_column(states(InstanceState), default=InstanceState.QUEUED)
    reason: Mapped[str | None] = mapped_column(Text, comment="why not analysed, or why failed")
    view_position: Mapped[str | None] = mapped_column(Text, comment="(0018,5101) CS")


class Job(Base):
    """A piece of work. One table serves all three kinds."""

    __tablename__ = "jobs"
    __table_args__ = (
        # One open conclusion a study: a further film moves it, instead of adding another one.
        Index(
            "uq_jobs_open_conclusion",
            "study_id",
            unique=True,
            sqlite_where=_OPEN_CONCLUSION,
            postgresql_where=_OPEN_CONCLUSION,
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[JobKind] = mapped_column(states(JobKind))
    state: Mapped[JobState] = mapped_column(states(JobState), default=JobState.QUEUED)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), index=True)
    destination: Mapped[str] = mapped_column(String(64), default="", comment="deliver: name in the configuration")
    revision: Mapped[int | None] = mapped_column(comment="deliver: of the study's conclusion")
    priority: Mapped[int] = mapped_column(default=0)
    run_after: Mapped[datetime]
    created_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0, comment="claims without an orderly end")
    retries: Mapped[int] = mapped_column(default=0, comment="orderly postponements since the job was made")
    token: Mapped[int] = mapped_column(default=0, comment="fencing token: grows with each claim")
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(index=True)


class Analysis(Base):
    """One film read by one bundle."""

    __tablename__ = "analyses"
    __table_args__ = (UniqueConstraint("instance_id", "model_id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    score: Mapped[float] = mapped_column(comment="calibrated probability of a significant finding, 0 to 1")
    logit: Mapped[float] = mapped_column(comment="the same in log-odds")
    above: Mapped[bool] = mapped_column(comment="at or above the bundle's operating point")
    shadow: Mapped[bool] = mapped_column(
        default=False, server_default=false(), comment="read silently: never part of a conclusion"
    )
    map_path: Mapped[str | None] = mapped_column(Text, comment="relative to the data folder; none of a shadow")
    preprocessing_id: Mapped[str] = mapped_column(String(64))
    device: Mapped[str] = mapped_column(String(128))
    facts: Mapped[dict[str, Any]] = mapped_column(comment="decoder, sizes, feature distance")
    created_at: Mapped[datetime]


class Result(Base):
    """A DICOM object that we made; its bytes never change after the row exists."""

    __tablename__ = "results"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int]
    kind: Mapped[ResultKind] = mapped_column(states(ResultKind))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    position: Mapped[int] = mapped_column(comment="order of sending within the revision")
    path: Mapped[str] = mapped_column(Text, unique=True, comment="relative to the data folder")
    digest: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    decision: Mapped[Decision] = mapped_column(states(Decision))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    created_at: Mapped[datetime]


class Delivery(Base):
    """One result at one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_deliveries_uncommitted", "destination", "state"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"))
    destination: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[DeliveryState] = mapped_column(states(DeliveryState), default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    refusals: Mapped[int] = mapped_column(default=0, comment="permanent statuses so far; three fail it")
    dicom_status: Mapped[int | None] = mapped_column(comment="of the last answer (PS3.4 B.2.3)")
    last_error: Mapped[str | None] = mapped_column(Text)
    commitment_uid: Mapped[str | None] = mapped_column(String(64), index=True, comment="(0008,1195) UI of the request")
    commitment_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    committed_at: Mapped[datetime | None]


class ModelBundle(Base):
    """A bundle that this node knows."""

    __tablename__ = "models"
    __table_args__ = (
        Index(
            "uq_models_active",
            "state",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True, comment="of the bundle's manifest")
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    state: Mapped[ModelState] = mapped_column(states(ModelState))
    operating_point: Mapped[dict[str, Any] | None]
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(comment="its report.json, whole")
    evaluation_digest: Mapped[str | None] = mapped_column(String(64), comment="SHA-256 of that file")
    gates: Mapped[dict[str, Any] | None] = mapped_column(comment="promotion gates when they were last measured")
    shadow_since: Mapped[datetime | None] = mapped_column(comment="latest beginning of silent reading")
    shadow_note: Mapped[str | None] = mapped_column(Text, comment="why silent reading was switched off")
    added_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]


class Audit(Base):
    """What happened, in order; only ever appended to."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    event: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(128))
    study_id: Mapped[int | None] = mapped_column(index=True)
    instance_id: Mapped[int | None]
    detail: Mapped[dict[str, Any]]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)


# When each sender was heard last, and how it usually calls.
Index("ix_instances_sender", Instance.sender, Instance.received_at)
# What has failed is asked for often, and there is little of it.
for _column in (Instance.state, Study.state, Delivery.state):
    Index(
        f"ix_{_column.class_.__tablename__}_failed",
        _column.class_.id,
        sqlite_where=text("state = 'failed'"),
        postgresql_where=text("state = 'failed'"),
    )
# What is not as it should be: few rows, however long the node has run.
_FAILED_JOB = Job.state == JobState.FAILED.value
Index("ix_jobs_failed", Job.study_id, sqlite_where=_FAILED_JOB, postgresql_where=_FAILED_JOB)
_OPEN_DELIVERY = Delivery.state.in_([DeliveryState.WAITING.value, DeliveryState.FAILED.value])
Index("ix_deliveries_open", Delivery.result_id, sqlite_where=_OPEN_DELIVERY, postgresql_where=_OPEN_DELIVERY)

# Every open job of a kind in the order of claiming: the claim reads one entry, however many wait.
Index(
    "ix_jobs_claim",
    Job.kind,
    Job.destination,
    Job.priority.desc(),
    Job.run_after,
    Job.id,
    sqlite_where=Job.state == JobState.QUEUED.value,
    postgresql_where=Job.state == JobState.QUEUED.value,
)
Index(
    "ix_jobs_lease",
    Job.kind,
    Job.lease_until,
    sqlite_where=Job.state == JobState.RUNNING.value,
    postgresql_where=Job.state == JobState.RUNNING.value,
)


class ReportSource(enum.StrEnum):
    """How a report came in."""

    CSV = "csv"
    HL7 = "hl7"
    SR = "sr"


class ReportStatus(enum.StrEnum):
    """How far the radiologist had got. A correction is FINAL and later than what it corrects."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    ADDENDUM = "addendum"


class Report(Base):
    """A radiologist's report as received. Of one study's reports one is current: it has no `superseded_by`."""

    __tablename__ = "reports"
    __table_args__ = (Index("ix_reports_waiting", "study_id", "superseded_by"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True, comment="of identity, status, time and text")
    source: Mapped[ReportSource] = mapped_column(states(ReportSource))
    status: Mapped[ReportStatus] = mapped_column(states(ReportStatus))
    accession_number: Mapped[str | None] = mapped_column(Text, index=True)
    study_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    patient_id: Mapped[str | None] = mapped_column(Text, index=True)
    findings: Mapped[str] = mapped_column(Text)
    impression: Mapped[str] = mapped_column(Text)
    language: Mapped[str] = mapped_column(String(8), comment="zh, en or mixed")
    reported_at: Mapped[datetime | None] = mapped_column(comment="as the report tells")
    received_at: Mapped[datetime]
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id", ondelete="SET NULL"))
    superseded_by: Mapped[int | None] = mapped_column(ForeignKey("reports.id", ondelete="SET NULL"), index=True)
    label: Mapped[str | None] = mapped_column(String(16), index=True, comment="of the current report, with its addenda")
    rule: Mapped[str | None] = mapped_column(String(32))
    span: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[list[str] | None] = mapped_column(JSON())
    lexicon_version: Mapped[str | None] = mapped_column(String(64))


class ReportAudit(Base):
    """What a human reader says of a report, blind to its label."""

    __tablename__ = "report_audits"
    __table_args__ = (UniqueConstraint("report_id", "reader"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("reports.id", ondelete="CASCADE"))
    reader: Mapped[str] = mapped_column(String(128))
    label: Mapped[str] = mapped_column(String(16))
    recorded_at: Mapped[datetime]


_CURRENT_PLACEMENT = text("superseded_at IS NULL")
_WAITING_PLACEMENT = text("superseded_at IS NULL AND level = 'later'")


class StudyPlacement(Base):
    """Where a study stood, why, and what decided it; the one that is not superseded counts."""

    __tablename__ = "placements"
    __table_args__ = (
        Index(
            "uq_placements_current",
            "study_id",
            unique=True,
            sqlite_where=_CURRENT_PLACEMENT,
            postgresql_where=_CURRENT_PLACEMENT,
        ),
        Index(
            "ix_placements_waiting",
            "returns_at",
            sqlite_where=_WAITING_PLACEMENT,
            postgresql_where=_WAITING_PLACEMENT,
        ),
        Index(
            "ix_placements_blind",
            "study_id",
            sqlite_where=text("superseded_at IS NULL AND blind = 1"),
            postgresql_where=text("superseded_at IS NULL AND blind"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int] = mapped_column(comment="of the conclusion")
    level: Mapped[Level] = mapped_column(states(Level))
    tagged: Mapped[bool] = mapped_column(comment="clear, and no guard speaks against it")
    shown: Mapped[bool] = mapped_column(comment="readers see the tag")
    blind: Mapped[bool] = mapped_column(comment="tagged, but in the blind share")
    withheld: Mapped[bool] = mapped_column(comment="readers see no answer before the report")
    returns_at: Mapped[datetime | None] = mapped_column(comment="later only: back at its place at the latest")
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON(), comment="rule and words for this study")
    stage: Mapped[Stage] = mapped_column(states(Stage))
    policy_version: Mapped[str] = mapped_column(String(64), comment="of rules and settings")
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"), index=True)
    bundle_digest: Mapped[str | None] = mapped_column(String(64))
    operating_point: Mapped[float | None] = mapped_column(comment="probability")
    decided_at: Mapped[datetime] = mapped_column(index=True)
    superseded_at: Mapped[datetime | None]
