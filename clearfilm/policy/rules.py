"""The rules themselves, as a table, and the place of a study by them.

A study is tagged for later only if it is clear and no guard speaks against it. What the tag does is a matter
of the stage. Nothing here knows of a database or a clock.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from clearfilm.counts import counted
from clearfilm.policy.settings import Policy
from clearfilm.policy.stages import Stage
from clearfilm.policy.words import first_found, normalise
from clearfilm.triage import Decision

ADULT_AGE_YEARS: Final = 18
NO_FINDING: Final = "no_finding"
"""The label of a prior report that speaks for nothing."""


class Level(enum.StrEnum):
    """What the list sorts by, before time. In each level the study that has waited longest comes first."""

    PRIORITY = "priority"  # a human ordered it so
    USUAL = "usual"
    LATER = "later"

    @property
    def rank(self) -> int:
        """0 is read first."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Facts:
    """Everything about a study that counts."""

    decision: Decision
    films: int
    films_below: int  # analysed by the active bundle, and below its operating point
    waiting_since: datetime  # aware; reception of its first film
    ordered_priorities: tuple[str, ...] = ()  # of its films, as received; an empty one says nothing
    ordered_urgent: bool = False  # STAT, urgent and the like, by any of its films
    location: str = ""  # ward, department, requesting service
    descriptions: str = ""  # of study, series and procedure
    request: str = ""  # reasons, history, diagnoses and comments
    age_years: float | None = None  # the youngest that the films allow; None: not stated
    prior_labels: tuple[str, ...] = ()  # of the patient's other reports; "unlabelled" where there is none
    new_devices: tuple[str, ...] = ()  # that took a film of it, and are not released
    in_blind_share: bool = False


@dataclass(frozen=True)
class Reason:
    """Why a study is where it is: the rule, and words for this study."""

    rule: str
    words: str
    subject: str = ""  # what spoke: the word that was found, the devices; as received or configured


@dataclass(frozen=True)
class Placement:
    """Where a study stands, and why."""

    level: Level
    tagged: bool  # clear, and no guard speaks against it; also while nobody sees it
    shown: bool  # readers see the tag
    blind: bool  # tagged, but kept in the blind share, now or once
    withheld: bool  # readers see no answer at all: stage off or shadow, or blind
    returns_at: datetime | None  # LATER only: when it is back at its usual place at the latest
    reasons: tuple[Reason, ...]
    stage: Stage
    policy_version: str

    @property
    def suggests_later(self) -> bool:
        """Whether results say that the study may be read later; not once its longest wait is over."""
        return self.shown and (self.level is Level.LATER or self.stage is not Stage.ACTIVE)


@dataclass(frozen=True)
class Rule:
    """One line of the policy."""

    id: str
    words: str  # for everybody, as in docs/triage-policy.md


@dataclass(frozen=True)
class Guard(Rule):
    """A rule that keeps a study from being tagged."""

    speaks: Callable[[Facts, Policy], str | None]  # words for the study, or None
    subject: Callable[[Facts, Policy], str | None] = lambda facts, policy: None


def _not_clear(facts: Facts, policy: Policy) -> str | None:
    if facts.decision is not Decision.NO_SIGNIFICANT_FINDING:
        return facts.decision.words
    if facts.films < 1 or facts.films_below != facts.films:
        unread = facts.films - facts.films_below
        return f"{unread} of {counted(facts.films, 'film')} not read as clear by the active model"
    return None


def _ordered_urgent(facts: Facts, policy: Policy) -> str | None:
    return "ordered with priority" if facts.ordered_urgent else None


def _ordered_unknown(facts: Facts, policy: Policy) -> str | None:
    routine = {"", *map(normalise, policy.routine_orders)}
    if facts.ordered_urgent or all(normalise(ordered) in routine for ordered in facts.ordered_priorities):
        return None
    return "the order's priority is not known to mean routine"


def _place_word(facts: Facts, policy: Policy) -> str | None:
    return first_found(f"{facts.location}\n{facts.descriptions}", policy.guarded_locations)


def _guarded_location(facts: Facts, policy: Policy) -> str | None:
    word = _place_word(facts, policy)
    return f'place or kind of examination: "{word}"' if word else None


def _warning_word(facts: Facts, policy: Policy) -> str | None:
    word = first_found(f"{facts.request}\n{facts.descriptions}", policy.red_flags)
    return word.removesuffix("*") if word else None


def _red_flag(facts: Facts, policy: Policy) -> str | None:
    word = _warning_word(facts, policy)
    return f'the request says "{word}"' if word else None


def _under_age(facts: Facts, policy: Policy) -> str | None:
    is_child = facts.age_years is not None and not facts.age_years >= ADULT_AGE_YEARS
    return f"patient under {ADULT_AGE_YEARS}" if is_child else None


def _age_unknown(facts: Facts, policy: Policy) -> str | None:
    return "the patient's age is not stated" if facts.age_years is None else None


def _prior_report(facts: Facts, policy: Policy) -> str | None:
    others = sum(label != NO_FINDING for label in facts.prior_labels)
    return earlier_reports(others) if others else None


def earlier_reports(number: int) -> str:
    """What keeps a study at its place whose patient has such reports, for people."""
    reports = counted(number, "earlier report")
    return f"{reports} that {'is' if number == 1 else 'are'} not without finding"


def _devices(facts: Facts, policy: Policy) -> str | None:
    return ", ".join(facts.new_devices) or None


def _new_device(facts: Facts, policy: Policy) -> str | None:
    return f"not released yet: {', '.join(facts.new_devices)}" if facts.new_devices else None


GUARDS: Final = (
    Guard(
        "not-clear",
        "A film has a significant finding, was not analysed, or was not read by the active model.",
        _not_clear,
    ),
    Guard("ordered-urgent", "It was ordered STAT, urgent, high or as soon as possible.", _ordered_urgent),
    Guard(
        "ordered-unknown",
        "Its order has a priority that is not one of `policy.routine_orders`; none at all is routine.",
        _ordered_unknown,
    ),
    Guard(
        "guarded-location",
        "Ward, department, requesting service or description holds a word of `policy.guarded_locations`.",
        _guarded_location,
        _place_word,
    ),
    Guard("red-flag", "Request or description holds a word of `policy.red_flags`.", _red_flag, _warning_word),
    Guard("under-age", "The patient is under 18.", _under_age),
    Guard("age-unknown", "No film states the patient's age or birth date.", _age_unknown),
    Guard(
        "prior-report",
        "The patient has an earlier report whose label is not `no_finding`, or that has no label yet.",
        _prior_report,
    ),
    Guard("new-device", "A device that took one of its films is not released yet.", _new_device, _devices),
)
CLEAR: Final = Rule("clear", "Every film is below the operating point, and no guard speaks against it: it is tagged.")
BLIND: Final = Rule("blind-share", "Drawn into the blind share: nobody is shown the answer before the report.")
BLIND_OVER: Final = Rule(
    "blind-over", "It was in the blind share for the longest time and got no report: its answer is shown."
)
MAXIMUM_WAIT: Final = Rule("maximum-wait", "It has waited for the longest time: it is back at its usual place.")
STEPPED_DOWN: Final = Rule("stepped-down", "The policy went down a stage: it is back at its usual place.")
DISAGREED: Final = Rule("disagreed", "A reader disagreed with the answer: it is back at its usual place.")
STAGES: Final = {stage: Rule(f"stage-{stage}", f"Stage {stage}: {stage.words}.") for stage in Stage}
RULES: Final[tuple[Rule, ...]] = (
    *GUARDS,
    CLEAR,
    BLIND,
    BLIND_OVER,
    MAXIMUM_WAIT,
    STEPPED_DOWN,
    DISAGREED,
    *STAGES.values(),
)


def place(facts: Facts, policy: Policy, stage: Stage, *, now: datetime) -> Placement:
    """The place of a study.

    Parameters
    ----------
    facts : Facts
    policy : Policy
        The settings.
    stage : Stage
        In force now.
    now : datetime
        Aware.

    Returns
    -------
    Placement
        LATER only if the stage is active, the study is clear, no guard speaks against it, it is not in the
        blind share, and it has not waited for its longest time yet.
    """
    spoken = _against(facts, policy)
    usual = Placement(
        level=Level.PRIORITY if facts.ordered_urgent else Level.USUAL,
        tagged=False,
        shown=False,
        blind=False,
        withheld=not stage.shows,
        returns_at=None,
        reasons=(*spoken, *_of_stage(stage)),
        stage=stage,
        policy_version=policy.version,
    )
    if spoken or stage is Stage.OFF:
        return usual
    tagged = replace(usual, tagged=True, reasons=(Reason(CLEAR.id, _count(facts)), *_of_stage(stage)))
    if not stage.shows:
        return tagged
    if facts.in_blind_share:
        blind = Reason(BLIND.id, "in the blind share: shown to nobody before the report")
        return replace(tagged, blind=True, withheld=True, reasons=(*tagged.reasons, blind))
    shown = replace(tagged, shown=True)
    if stage is not Stage.ACTIVE:
        return shown
    wait, place_name = longest_wait(facts, policy)
    later = replace(shown, level=Level.LATER, returns_at=facts.waiting_since + wait)
    words = f"at most {_minutes(wait)}{f' ({place_name})' if place_name else ''}"
    limit = Reason(MAXIMUM_WAIT.id, words, f"{wait.total_seconds() / 60:g}")
    return returned(replace(later, reasons=(*later.reasons, limit)), now=now)


def returned(placement: Placement, *, now: datetime) -> Placement:
    """The placement as time has made it: back at its usual place if the longest wait is over."""
    if placement.returns_at is None or placement.returns_at > now:
        return placement
    reasons = tuple(reason for reason in placement.reasons if reason.rule != MAXIMUM_WAIT.id)
    over = Reason(MAXIMUM_WAIT.id, "has waited for the longest time: back at its usual place")
    return replace(placement, level=Level.USUAL, returns_at=None, reasons=(*reasons, over))


def unblinded(placement: Placement) -> Placement:
    """The placement after the blind share's longest time: the answer is shown, the study stays untagged in its place.

    It stays counted as blind, so that what readers said until then is known to have been said without the answer.
    """
    over = Reason(BLIND_OVER.id, "was in the blind share for the longest time and got no report")
    return replace(placement, withheld=False, reasons=(*placement.reasons, over))


def stepped_down(placement: Placement, stage: Stage) -> Placement:
    """The placement after the policy went down to a stage: what was to be read later is back at its place."""
    over = Reason(STEPPED_DOWN.id, f"the policy went down to the stage {stage}: back at its usual place")
    level = Level.USUAL if placement.level is Level.LATER else placement.level
    return replace(
        placement,
        level=level,
        returns_at=None,
        shown=placement.shown and stage.shows,
        reasons=(*placement.reasons, over),
        stage=stage,
    )


def disagreed(placement: Placement) -> Placement:
    """The placement after a reader disagreed with the answer: nothing is shown that a person denies.

    It stays counted as tagged, so that the miss rate knows what the policy did.
    """
    return replace(
        placement,
        level=Level.USUAL if placement.level is Level.LATER else placement.level,
        shown=False,
        returns_at=None,
        reasons=(
            *placement.reasons,
            Reason(DISAGREED.id, "a reader disagreed with the answer: back at its usual place"),
        ),
    )


def guarded(placement: Placement, rule: str, words: str, subject: str = "") -> Placement:
    """The placement after a guard spoke that could not speak before: by a report that came, a device withdrawn.

    It stays counted as tagged until the study is concluded again.
    """
    return replace(
        placement,
        level=Level.USUAL if placement.level is Level.LATER else placement.level,
        shown=False,
        returns_at=None,
        reasons=(*placement.reasons, Reason(rule, words, subject)),
    )


def longest_wait(facts: Facts, policy: Policy) -> tuple[timedelta, str]:
    """The longest wait of a study that is read later, and the name of the place that sets it, if one does."""
    places = f"{facts.location}\n{facts.descriptions}"
    fitting = [place for place in policy.locations if first_found(places, place.words)]
    if not fitting:
        return timedelta(minutes=policy.maximum_wait_minutes), ""
    shortest = min(fitting, key=lambda place: place.maximum_wait_minutes)
    return timedelta(minutes=shortest.maximum_wait_minutes), shortest.name


def _against(facts: Facts, policy: Policy) -> tuple[Reason, ...]:
    """What keeps the study at its place. What is not clear needs no further reason but a human's order."""
    spoken = [
        Reason(guard.id, words, guard.subject(facts, policy) or "")
        for guard in GUARDS
        if (words := guard.speaks(facts, policy)) is not None
    ]
    if any(reason.rule == "not-clear" for reason in spoken):
        spoken = [reason for reason in spoken if reason.rule in ("not-clear", "ordered-urgent")]
    return tuple(spoken)


def _of_stage(stage: Stage) -> tuple[Reason, ...]:
    return (Reason(STAGES[stage].id, stage.words),)


def _count(facts: Facts) -> str:
    films = "the only film is" if facts.films == 1 else f"all {facts.films} films are"
    return f"{films} below the operating point, and no rule speaks against reading it later"


def _minutes(wait: timedelta) -> str:
    return counted(wait.total_seconds() / 60, "minute")
