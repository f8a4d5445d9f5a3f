"""A row of the list in words: what the page, the wall, the file and the printer show of a study."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from clearfilm.names import person_name
from clearfilm.triage import Decision
from db.listed import ListedStudy, Step
from db.listing import Finding, Progress, Rank, Readers, Viewpoint
from db.models import Reading
from worklist.list_query import write_key
from worklist.reasons import reason_words
from worklist.templates import N_

Say = Callable[..., str]

LEVELS: Final[Mapping[Rank, str]] = {
    Rank.STAT: N_("STAT"),
    Rank.HIGH: N_("Urgent"),
    Rank.LIMIT: N_("At its limit"),
    Rank.USUAL: N_("Usual"),
    Rank.LATER: N_("Later"),
}
FINDINGS: Final[Mapping[Finding, str]] = {
    Finding.SIGNIFICANT_FINDING: N_("significant finding"),
    Finding.NO_SIGNIFICANT_FINDING: N_("no significant finding"),
    Finding.NOT_ANALYSED: N_("not analysed"),
    Finding.NONE: N_("no answer yet"),
}
PROGRESS: Final[Mapping[Progress, str]] = {
    Progress.OPEN: N_("on its way"),
    Progress.CONCLUDED: N_("concluded"),
    Progress.DELIVERED: N_("delivered"),
    Progress.FAILED: N_("failed"),
}
READERS: Final[Mapping[Readers, str]] = {
    Readers.UNREAD: N_("unread"),
    Readers.OPENED: N_("opened"),
    Readers.AGREED: N_("agreed"),
    Readers.DISAGREED: N_("disagreed"),
    Readers.REPORTED: N_("reported"),
}
STEPS: Final[Mapping[Step, str]] = {
    Step.QUEUED: N_("queued"),
    Step.ANALYSED: N_("analysed"),
    Step.NOT_ANALYSED: N_("not analysed"),
    Step.CONCLUDED: N_("concluded"),
    Step.DELIVERED: N_("delivered"),
    Step.FAILED: N_("failed"),
}
SEXES: Final[Mapping[str, str]] = {"F": N_("female"), "M": N_("male"), "O": N_("other or unknown")}
_CHIPS: Final[Mapping[Rank, str]] = {Rank.LIMIT: "limit", Rank.STAT: "urgent", Rank.HIGH: "high", Rank.LATER: "later"}
_FINDING_STYLES: Final[Mapping[Decision, str]] = {
    Decision.SIGNIFICANT_FINDING: "finding",
    Decision.NO_SIGNIFICANT_FINDING: "clear",
    Decision.NOT_ANALYSED: "not-analysed",
}


@dataclass(frozen=True)
class Line:
    """A study as text. Texts of others are as received: templates show them with `shown` and isolate them."""

    study: ListedStudy
    key: str  # where the list goes on after it
    order: str  # comparable parts of its place: level, time, row
    level: str
    chip: str  # style of the level's chip
    level_reason: str
    ideographic: str
    alphabetic: str
    age: str
    sex: str
    finding: str
    finding_style: str
    finding_reason: str
    states: tuple[str, ...]
    state_style: str
    wait: str
    limit_minutes: float  # the wait's bar is full then


def line(study: ListedStudy, viewpoint: Viewpoint, limit: timedelta, say: Say) -> Line:
    """Put a study into the viewer's words.

    Parameters
    ----------
    study : ListedStudy
    viewpoint : Viewpoint
    limit : datetime.timedelta
        The longest wait of the policy.
    say : callable
        Translates a sentence.
    """
    name = person_name(study.patient_name)
    own_limit = study.returns_at - study.received_at if study.returns_at else limit
    return Line(
        study=study,
        key=write_key(study.key),
        order=f"{int(study.rank)} {study.received_at.isoformat()} {study.study_id}",
        level=say(LEVELS[study.rank]),
        chip=_CHIPS.get(study.rank, "usual"),
        level_reason=_level_reason(study, viewpoint, say),
        ideographic=name.ideographic,
        alphabetic=name.alphabetic,
        age=age_words(study.age_years, say),
        sex=study.sex if study.sex in ("F", "M") else "",
        finding=say(FINDINGS[Finding(study.decision.value)] if study.decision else FINDINGS[Finding.NONE]),
        finding_style=_FINDING_STYLES[study.decision] if study.decision else "none",
        finding_reason=reason_words(say, study.reason) if study.decision is Decision.NOT_ANALYSED else "",
        states=_states(study, say),
        state_style="failed" if study.step is Step.FAILED else "",
        wait=wait_words(_wait(study, viewpoint), say),
        limit_minutes=own_limit.total_seconds() / 60,
    )


def wait_words(wait: timedelta, say: Say) -> str:
    """A wait as people say it: minutes, then hours, then days. The page counts on in the same words."""
    minutes = max(0, int(wait.total_seconds() // 60))
    if minutes < 120:
        return say("{n} min", n=minutes)
    if minutes < 48 * 60:
        return say("{h} h {m}", h=minutes // 60, m=f"{minutes % 60:02d}")
    return say("{n} days", n=minutes // 1440)


def age_words(years: float | None, say: Say) -> str:
    """Years, or months and days of small children."""
    if years is None:
        return ""
    if years >= 2:
        return say("{n} y", n=int(years))
    months = int(years * 12)
    return say("{n} mo", n=months) if months >= 1 else say("{n} d", n=round(years * 365.25))


def initials(study: ListedStudy) -> str:
    """First letters of a name, for walls."""
    name = person_name(study.patient_name)
    if name.ideographic:
        return name.ideographic[:1] + "**"
    return " ".join(f"{part[0]}." for part in name.alphabetic.split()[:3])


def _wait(study: ListedStudy, viewpoint: Viewpoint) -> timedelta:
    return (study.read_at or viewpoint.now) - study.received_at


def _level_reason(study: ListedStudy, viewpoint: Viewpoint, say: Say) -> str:
    if study.rank is Rank.LIMIT:
        return say("waited {wait}", wait=wait_words(_wait(study, viewpoint), say))
    if study.returns_at is not None and study.waits:
        return say("back in {wait}", wait=wait_words(study.returns_at - viewpoint.now, say))
    if study.flagged and study.rank is Rank.USUAL:
        return say("may be read later")
    return ""


def _states(study: ListedStudy, say: Say) -> tuple[str, ...]:
    said = [STEPS[study.step], _reading(study)]
    return tuple(say(word) for word in said if word)


def _reading(study: ListedStudy) -> str:
    """Where its readers have got to. Whether a verdict agrees with an answer that is not shown is not told."""
    if study.reading is Reading.OPENED and study.read_at is not None:
        return N_("judged")
    if study.contradicted and study.reading is not Reading.REPORTED:
        return N_("readers disagree")
    return READERS[Readers(study.reading.value)] if isinstance(study.reading, Reading) else ""


def csv_heads(say: Say) -> list[str]:
    """Names of the columns of the file."""
    heads = (
        *(N_("Priority"), N_("Reason"), N_("Waited, minutes"), N_("Name"), N_("Patient ID"), N_("Accession number")),
        *(N_("Sex"), N_("Age, years"), N_("View"), N_("Place"), N_("Sender"), N_("Finding"), N_("Why"), N_("State")),
        *(N_("Read"), N_("Received"), N_("Study Instance UID")),
    )
    return [say(head) for head in heads]


def csv_values(shown: Line, viewpoint: Viewpoint, zone: Any, say: Say) -> list[object]:
    """One row of the file; times in the viewer's zone with their offset."""
    study = shown.study
    return [
        shown.level,
        shown.level_reason,
        int(_wait(study, viewpoint).total_seconds() // 60),
        study.patient_name,
        study.patient_id,
        study.accession_number,
        study.sex,
        "" if study.age_years is None else f"{study.age_years:g}",
        ", ".join(study.views),
        study.location,
        study.sender,
        shown.finding,
        shown.finding_reason,
        say(STEPS[study.step]),
        say(_reading(study)) if study.reading else "",
        _local(study.received_at, zone),
        study.study_instance_uid,
    ]


def _local(moment: datetime, zone: Any) -> str:
    return moment.astimezone(zone).isoformat(timespec="seconds")
