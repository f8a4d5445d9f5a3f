"""Secondary Capture Image (PS3.3 A.8.1): what the algorithm saw in each analysed film."""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from clearfilm.dicom.uids import result_uid
from worker.results.envelope import (
    code_item,
    common_attributes,
    date_and_time,
    encode,
    model_name,
    reference,
)
from worker.results.model import BuiltObject, Film, Kind, StudyConclusion
from worker.results.overlay import draw
from worker.results.source import copied, is_lossy, values

SERIES_NUMBER: Final = 901
SERIES_DESCRIPTION: Final = "AI CXR triage: Grad-CAM heatmap, not for diagnosis"
# PS3.16 CID 217 Visual Explanation: DICOM has a code for Grad-CAM itself.
GRAD_CAM: Final = Code("130403", "DCM", "Gradient-weighted class activation")
_FRONTAL_VIEWS: Final = frozenset({"PA", "AP"})


def build_secondary_captures(conclusion: StudyConclusion) -> tuple[BuiltObject, ...]:
    """Build one Secondary Capture for each analysed film.

    Parameters
    ----------
    conclusion : StudyConclusion

    Returns
    -------
    tuple of BuiltObject
        In the order of the films, all in one series; empty if none was analysed. The same conclusion
        gives the same bytes.
    """
    return tuple(_build(conclusion, index) for index, film in enumerate(conclusion.films) if film.analysed)


def patient_orientation(source: Dataset) -> list[str]:
    """Patient Orientation (PS3.3 C.7.6.1.1.1): as stated, else as a frontal view implies, else empty."""
    stated = values(source, "PatientOrientation")
    if len(stated) == 2 and all(stated):
        return stated
    return ["L", "F"] if _FRONTAL_VIEWS.intersection(values(source, "ViewPosition")) else []


def _build(conclusion: StudyConclusion, index: int) -> BuiltObject:
    film, pixels = conclusion.films[index], draw(conclusion, index)
    iod = SecondaryCaptureImageStorage
    ds = common_attributes(conclusion, film)
    ds.SOPClassUID = iod
    ds.SOPInstanceUID = result_uid("instance", [film.digest], conclusion.bundle_digest, iod, conclusion.revision)
    ds.SeriesInstanceUID = result_uid("series", conclusion.digests, conclusion.bundle_digest, iod, conclusion.revision)
    ds.SeriesNumber = SERIES_NUMBER
    ds.SeriesDescription = SERIES_DESCRIPTION
    ds.InstanceNumber = index + 1
    ds.Modality = "OT"
    ds.BodyPartExamined = "CHEST"
    _set_secondary_capture(ds, conclusion)
    _set_derivation(ds, film)
    _set_image(ds, pixels)
    return BuiltObject(
        kind=Kind.SECONDARY_CAPTURE,
        sop_class_uid=iod,
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content=encode(ds, film.source, _pixel_data(pixels)),
        source_digest=film.digest,
    )


def _set_secondary_capture(ds: Dataset, conclusion: StudyConclusion) -> None:
    ds.ConversionType = "WSD"  # PS3.3 C.8.6.1: made by a workstation
    ds.SecondaryCaptureDeviceManufacturer = ds.Manufacturer
    ds.SecondaryCaptureDeviceManufacturerModelName = model_name(conclusion)
    ds.SecondaryCaptureDeviceSoftwareVersions = ds.SoftwareVersions
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = date_and_time(conclusion)


def _set_derivation(ds: Dataset, film: Film) -> None:
    source = film.source
    ds.update(copied(source, ["RequestAttributesSequence"]))
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.DerivationDescription = "8-bit film with Grad-CAM contours by an AI algorithm; not for diagnostic use"
    ds.DerivationCodeSequence = [code_item(GRAD_CAM)]
    origin = reference(source.SOPClassUID, source.SOPInstanceUID)
    origin.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    # Scaled, with strips above and below: a place in this image is another place in the film.
    origin.SpatialLocationsPreserved = "NO"
    ds.SourceImageSequence = [origin]
    ds.PatientOrientation = patient_orientation(source)
    ds.ImageComments = "AI output with Grad-CAM heatmap. Not for diagnostic use."
    ds.BurnedInAnnotation = "YES"
    ds.RecognizableVisualFeatures = "NO"
    ds.LossyImageCompression = "01" if is_lossy(source) else "00"
    if is_lossy(source):
        ds.update(copied(source, ["LossyImageCompressionRatio", "LossyImageCompressionMethod"]))


def _set_image(ds: Dataset, pixels: NDArray[np.uint8]) -> None:
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = 8
    ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0


def _pixel_data(pixels: NDArray[np.uint8]) -> tuple[bytes | memoryview, ...]:
    padding = b"\0" * (pixels.nbytes % 2)
    head = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, pixels.nbytes + len(padding))
    return head, pixels.data, padding
