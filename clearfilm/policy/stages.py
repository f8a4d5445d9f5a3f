"""The stages of the policy at a site, and who may change them: up by two people, down by one, or by the alarm."""

import enum
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from clearfilm.errors import PolicyError

SIGNATURE_LIFETIME: Final = timedelta(days=14)
"""After this time a first signature no longer counts."""


class Stage(enum.StrEnum):
    """How far a site lets the policy go, in ascending order."""

    OFF = "off"
    SHADOW = "shadow"
    SUPERVISED = "supervised"
    ACTIVE = "active"

    @property
    def rank(self) -> int:
        """0 to 3."""
        return list(Stage).index(self)

    @property
    def shows(self) -> bool:
        """Whether readers see answers and tags."""
        return self in (Stage.SUPERVISED, Stage.ACTIVE)

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self]


_WORDS: Final = {
    Stage.OFF: "nothing is tagged, no result is sent",
    Stage.SHADOW: "studies are tagged silently: nobody sees it, no result is sent",
    Stage.SUPERVISED: "results and tags are shown, the order of the list stays",
    Stage.ACTIVE: "tagged studies are read later",
}


@dataclass(frozen=True)
class Signature:
    """Somebody's consent."""

    user: str
    reason: str
    at: datetime  # aware UTC
    system_user: str = ""  # account that ran the command, where it was given on the command line


@dataclass(frozen=True)
class Proposal:
    """A step up that one person has signed."""

    stage: Stage
    signature: Signature


@dataclass(frozen=True)
class Standing:
    """The stage in force, and the step up that waits for a second signature."""

    stage: Stage
    proposal: Proposal | None = None


def step(standing: Standing, wanted: Stage, signature: Signature, *, alarm: str | None = None) -> Standing:
    """Go to another stage, or sign the way there.

    Parameters
    ----------
    standing : Standing
    wanted : Stage
    signature : Signature
        Of the person who asks now.
    alarm : str, optional
        Why the policy may not show anything at present.

    Returns
    -------
    Standing
        A step down is made at once. A step up, to the next stage only, is made by the second of two
        people; after the first one it is a proposal.

    Raises
    ------
    PolicyError
        If nothing would change, a stage would be left out on the way up, or the alarm stands.
    """
    signed = _checked(signature)
    if wanted is standing.stage:
        raise PolicyError(f"the stage is {wanted} already")
    if wanted.rank < standing.stage.rank:
        return Standing(wanted)
    if wanted.rank > standing.stage.rank + 1:
        following = list(Stage)[standing.stage.rank + 1]
        raise PolicyError(f"from {standing.stage} the next stage is {following}; none is left out on the way up")
    if alarm and wanted.shows:
        raise PolicyError(f"the alarm stands: {alarm}")
    proposal = standing.proposal
    if proposal and proposal.stage is wanted and counts_with(proposal.signature, signed):
        return Standing(wanted)
    return Standing(standing.stage, Proposal(wanted, signed))


def withdraw(standing: Standing, proposed: Stage, signature: Signature) -> Standing:
    """Take a step up back that one person has signed; whoever it was, one person suffices.

    Parameters
    ----------
    standing : Standing
    proposed : Stage
        The stage that was signed for; another one may have been proposed meanwhile.
    signature : Signature
        Of the person who asks now.

    Returns
    -------
    Standing
        The same stage without a proposal.

    Raises
    ------
    PolicyError
        If no such step waits for a second signature.
    """
    _checked(signature)
    if standing.proposal is None or standing.proposal.stage is not proposed:
        raise PolicyError(f"no step to {proposed} waits for a second signature")
    return Standing(standing.stage)


def counts_with(first: Signature | None, second: Signature) -> bool:
    """Whether two signatures are of two people, and the first is recent enough."""
    return (
        first is not None
        and _name(first.user) != _name(second.user)
        and timedelta(0) <= second.at - first.at <= SIGNATURE_LIFETIME
    )


def _checked(signature: Signature) -> Signature:
    if not _name(signature.user) or not signature.reason.strip():
        raise PolicyError("a user and a reason are needed")
    return signature


def _name(user: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", user).split()).casefold()
