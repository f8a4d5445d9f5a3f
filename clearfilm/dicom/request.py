"""What a film's header tells of its request: place, kind of examination, reasons."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pydicom import Dataset

from clearfilm.dicom.header import text_of

MAXIMUM_TEXT: Final = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class RequestTexts:
    """What the request says of place, kind of examination and reason; each attribute on a line of its own."""

    location: str
    descriptions: str
    reasons: str


_KEYWORDS: Final = (
    (
        "CurrentPatientLocation",
        "PatientInstitutionResidence",
        "InstitutionalDepartmentName",
        "RequestingService",
        "ServiceEpisodeDescription",
    ),
    (
        "StudyDescription",
        "SeriesDescription",
        "ProtocolName",
        "PerformedProcedureStepDescription",
        "RequestedProcedureDescription",
        "ScheduledProcedureStepDescription",
    ),
    (
        "ReasonForTheRequestedProcedure",
        "ReasonForVisit",
        "ReasonForStudy",
        "AdmittingDiagnosesDescription",
        "AdditionalPatientHistory",
        "MedicalAlerts",
        "PatientComments",
        "StudyComments",
        "RequestedProcedureComments",
        "ImagingServiceRequestComments",
        "ReasonForTheImagingServiceRequest",
    ),
)


def request_of(ds: Dataset) -> RequestTexts:
    """What the request says, from a data set that has been read already; never raises.

    Parameters
    ----------
    ds : pydicom.Dataset
        With the items of its Request Attributes Sequence.

    Returns
    -------
    RequestTexts
    """
    return RequestTexts(*("\n".join(_all_texts(ds, keywords)) for keywords in _KEYWORDS))


def _all_texts(ds: Dataset, keywords: tuple[str, ...]) -> Iterator[str]:
    try:
        items = [ds, *(ds.get("RequestAttributesSequence") or ())]
    except Exception:  # noqa: BLE001 - pydicom raises exceptions of ten kinds on damaged data sets
        items = [ds]
    for item in items:
        for keyword in keywords:
            with suppress(Exception):
                if text := _CONTROL.sub(" ", text_of(item, keyword, ds)).strip()[:MAXIMUM_TEXT]:
                    yield text
