"""Headers, films and conclusions for the tests of result objects."""

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from clearfilm.triage import Decision
from worker.results.model import BuiltObject, Film, ModelIdentity, NodeIdentity, StudyConclusion

MODEL = ModelIdentity(
    name="Clearfilm ResNet152",
    version="1.0.0",
    digest="ab" * 32,
    operating_threshold=0.32,
    evidence_threshold=2.0,
    note="demonstration, NIH films",
    preprocessing_id="percentile-stretch-1",
)
NODE = NodeIdentity("CLEARFILM", "Clearfilm", "Demo Hospital", "0.1.0")
CONCLUDED_AT = datetime(2026, 1, 2, 10, 16, 30, 250000, tzinfo=timezone(timedelta(hours=8)))


def header(*, raw: Mapping[str, bytes] | None = None, **attributes: Any) -> Dataset:
    """A film's header as the reader gives it; None leaves an attribute out, `raw` sets bytes."""
    ds = Dataset()
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = "2.25.111"
    ds.StudyInstanceUID = "2.25.222"
    ds.SeriesInstanceUID = "2.25.333"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P-0001"
    ds.PatientBirthDate = "19600101"
    ds.PatientSex = "F"
    ds.PatientAge = "065Y"
    ds.AccessionNumber = "ACC0001"
    ds.StudyID = "S1"
    ds.StudyDate = "20260102"
    ds.StudyTime = "101500"
    ds.StudyDescription = "Chest PA"
    ds.ReferringPhysicianName = "Roe^Richard"
    ds.Manufacturer = "Acme"
    ds.ManufacturerModelName = "XR 1"
    ds.Modality = "CR"
    ds.ViewPosition = "PA"
    ds.PatientOrientation = ["L", "F"]
    ds.ImagerPixelSpacing = [0.15, 0.15]
    ds.Rows = 2048
    ds.Columns = 2500
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.RequestedProcedureDescription = "XR chest"
    request.ScheduledProcedureStepID = "SPS1"
    ds.RequestAttributesSequence = [request]
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return with_raw(reread(ds), raw or {})


def dx_header(**attributes: Any) -> Dataset:
    """A header of a DX image For Presentation."""
    iod = DigitalXRayImageStorageForPresentation
    return header(SOPClassUID=iod, SOPInstanceUID="2.25.112", Modality="DX", **attributes)


def with_raw(ds: Dataset, raw: Mapping[str, bytes]) -> Dataset:
    """Set elements to undecoded bytes, padded to even length."""
    for keyword, value in raw.items():
        tag, vr = Tag(keyword), dictionary_VR(keyword)
        padded = value + b" " * (len(value) % 2)
        ds[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)
    return ds


def reread(ds: Dataset, syntax: str = ExplicitVRLittleEndian, replacing: tuple[bytes, bytes] = (b"", b"")) -> Dataset:
    """Through a file, so that the elements are raw as in a received film; bytes in it may be replaced."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    content = buffer.getvalue().replace(*replacing) if replacing[0] else buffer.getvalue()
    return pydicom.dcmread(io.BytesIO(content))


def evidence(peak: float = 9.0, at: tuple[int, int] = (3, 5)) -> NDArray[np.float32]:
    """A 7 × 7 map, -2 log-odds but for one hill."""
    rows, columns = np.mgrid[:7, :7]
    distance = (rows - at[0]) ** 2 + (columns - at[1]) ** 2
    return (-2 + (peak + 2) * np.exp(-distance / 1.6)).astype(np.float32)


def picture(rows: int = 800, columns: int = 900) -> NDArray[np.uint8]:
    """A smooth grey picture."""
    return np.add.outer(np.linspace(20, 110, rows), np.linspace(0, 110, columns)).astype(np.uint8)


def film(source: Dataset | None = None, digest: str = "a" * 64, **changes: Any) -> Film:
    """An analysed film below the operating point."""
    plain = Film(
        source if source is not None else header(),
        digest,
        score=0.07,
        evidence=evidence(peak=-1),
        display=picture(),
    )
    return replace(plain, **changes)


def film_above(source: Dataset | None = None, digest: str = "a" * 64, **changes: Any) -> Film:
    """An analysed film above the operating point, with one region."""
    return film(source, digest, **{"score": 0.87, "evidence": evidence(), "above": True, **changes})


def film_not_analysed(source: Dataset | None = None, digest: str = "c" * 64) -> Film:
    """A film that the gate turned down."""
    return Film(source if source is not None else header(), digest, reason="lateral view")


def conclusion(*films: Film, decision: Decision, **changes: Any) -> StudyConclusion:
    """The first revision of a study with these films; one without findings is tagged."""
    is_clear = decision is Decision.NO_SIGNIFICANT_FINDING
    plain = StudyConclusion(
        films, decision, "reason in plain words", MODEL, 1, CONCLUDED_AT, NODE, suggests_later=is_clear
    )
    return replace(plain, **changes)


def opened(built: BuiltObject) -> Dataset:
    """A result as a reader sees it."""
    return pydicom.dcmread(io.BytesIO(built.content))
