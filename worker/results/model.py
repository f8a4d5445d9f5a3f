"""What the builders of result objects take and give. Values only: no file, no clock, no database."""

import enum
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from clearfilm.triage import Decision


@dataclass(frozen=True)
class ModelIdentity:
    """The model bundle that judged the films."""

    name: str  # ASCII, at most 64 characters (VR LO), as are version and note
    version: str
    digest: str  # of the bundle, hexadecimal
    operating_threshold: float  # probability from which a film has a significant finding
    evidence_threshold: float  # log-odds of one cell of the map from which it is drawn
    note: str  # origin and standing of the model, shown in every result
    preprocessing_id: str


@dataclass(frozen=True)
class NodeIdentity:
    """The node that makes the results."""

    ae_title: str
    manufacturer: str
    institution_name: str | None
    software_version: str


@dataclass(frozen=True, eq=False)
class Film:
    """One film of the study and what became of it.

    Score, evidence and picture are there together, or the film was not analysed and `reason` says why.
    """

    source: Dataset  # header as read from the stored file; identifying text not touched, so that bytes stay
    digest: str  # SHA-256 of the data set as received, hexadecimal
    score: float | None = None  # probability of a significant finding, 0 to 1
    evidence: NDArray[np.float32] | None = None  # (h, w), log-odds; of what `display` shows from edge to edge
    display: NDArray[np.uint8] | None = None  # (rows, columns), 0 black; square pixels
    above: bool = False  # score at or above the operating point; decided by the caller, once
    reason: str | None = None  # plain words, shown after "not analysed: "

    @property
    def analysed(self) -> bool:
        """Whether there is a score and a picture."""
        return self.score is not None and self.evidence is not None and self.display is not None


@dataclass(frozen=True)
class Predecessor:
    """An earlier report about the same study (PS3.3 C.17.2, Predecessor Documents Sequence)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True)
class PersonalCorrection:
    """A person has replaced the answer of the algorithm."""

    person: str  # name for logging in
    at: datetime  # aware
    answer: Decision  # of the algorithm
    reason: str  # of the algorithm, in plain words


@dataclass(frozen=True, eq=False)
class StudyConclusion:
    """Everything that one revision of a study's results says."""

    films: tuple[Film, ...]  # at least one; patient and study are taken from the first
    decision: Decision
    reason: str  # plain words: why this decision
    model: ModelIdentity | None  # None only if no film could be judged
    revision: int  # from 1
    concluded_at: datetime  # aware; its local date and time are written and shown
    node: NodeIdentity
    predecessors: tuple[Predecessor, ...] = ()
    correction: PersonalCorrection | None = None  # then `decision` is the person's
    suggests_later: bool = False  # the policy tagged it, and readers may see that

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of all films: the inputs that name the results."""
        return tuple(film.digest for film in self.films)

    @property
    def bundle_digest(self) -> str:
        """Digest of the model bundle; empty without one."""
        return self.model.digest if self.model else ""


class Kind(enum.StrEnum):
    """The two kinds of results."""

    SECONDARY_CAPTURE = "sc"
    STRUCTURED_REPORT = "sr"


@dataclass(frozen=True)
class BuiltObject:
    """A finished DICOM file (PS3.10, preamble of zeros)."""

    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
    source_digest: str | None = None  # of the film that a Secondary Capture shows
