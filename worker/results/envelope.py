"""What all result objects have in common: identity, equipment, references, and the encoded file."""

import struct
from collections.abc import Iterable
from typing import Final, cast

from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, result_uid
from worker.results.model import Film, StudyConclusion
from worker.results.source import CHARACTER_SET, character_set, copied
from worker.results.words import plain, short

SOFTWARE_NAME: Final = "Clearfilm"
# PS3.3 C.7.1.1, C.7.2.1, C.7.2.2: who and which study. Type 2 must be there, if need be empty.
_IDENTITY: Final = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDsSequence",
    "PatientAge",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
)
_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_ACQUISITION_EQUIPMENT: Final = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def common_attributes(conclusion: StudyConclusion, film: Film) -> Dataset:
    """Patient, study, equipment and SOP Common attributes of a result.

    Parameters
    ----------
    conclusion : StudyConclusion
    film : Film
        The film whose patient and study attributes are taken over.

    Returns
    -------
    pydicom.Dataset
        Without Specific Character Set, which `encode` writes, and without SOP and series UIDs.
    """
    ds = copied(film.source, _IDENTITY)
    for keyword in _TYPE_2:
        if keyword not in ds:
            setattr(ds, keyword, "")
    day, time = date_and_time(conclusion)
    ds.InstanceCreationDate, ds.InstanceCreationTime = day, time
    ds.SeriesDate, ds.SeriesTime = day, time
    ds.ContentDate, ds.ContentTime = day, time
    _set_equipment(ds, conclusion)
    ds.ContributingEquipmentSequence = [*_acquisition_equipment(film), _processing_equipment(conclusion)]
    return ds


def date_and_time(conclusion: StudyConclusion) -> tuple[str, str]:
    """Local date (DA) and time (TM) of the conclusion."""
    return conclusion.concluded_at.strftime("%Y%m%d"), conclusion.concluded_at.strftime("%H%M%S.%f")


def code_item(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """One item of a Referenced SOP Sequence (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def device_uid(conclusion: StudyConclusion) -> str:
    """UID of the algorithm: another model, another UID."""
    return result_uid("device", [], conclusion.bundle_digest or conclusion.node.ae_title, "", 0)


def serial_number(conclusion: StudyConclusion) -> str:
    """Device Serial Number: the beginning of the bundle's digest, or the node's title without a model."""
    return conclusion.bundle_digest[:16] or conclusion.node.ae_title


def model_name(conclusion: StudyConclusion) -> str:
    """Manufacturer's Model Name of the device that gives the answer."""
    return short(conclusion.model.name) if conclusion.model else SOFTWARE_NAME


def encode(ds: Dataset, source: Dataset, last_element: Iterable[bytes | memoryview]) -> bytes:
    """Write a result as a DICOM file.

    Parameters
    ----------
    ds : pydicom.Dataset
        All elements but Specific Character Set and the last; our own text in ASCII.
    source : pydicom.Dataset
        Header that the copied text came from, which decides on Specific Character Set.
    last_element : iterable of bytes
        The element with the highest tag, encoded in Explicit VR Little Endian, in pieces: pixels need
        not be copied on the way, nor a content tree encoded anew for each object.

    Returns
    -------
    bytes
        PS3.10 file in Explicit VR Little Endian; a function of the arguments alone.
    """
    file_meta = FileMetaDataset()
    file_meta.FileMetaInformationVersion = b"\0\1"
    file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    head = DicomBytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, file_meta)
    # (0008,0005) is the lowest tag that results have. It is written apart: pydicom must not apply it to
    # raw text, nor stumble over terms that it does not know.
    character_set_element = _character_set_element(character_set(source))
    return b"".join([head.getvalue(), character_set_element, encode_dataset(ds), *last_element])


def encode_dataset(ds: Dataset) -> bytes:
    """Elements of `ds`, decoded or raw, in Explicit VR Little Endian."""
    _mark_as_encoded(ds)
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def _mark_as_encoded(ds: Dataset) -> None:
    # Otherwise pydicom would decode raw text to encode it again, and look for ambiguous VRs at each level.
    ds.set_original_encoding(False, True, default_encoding)
    for element in ds.values():
        if element.VR == "SQ":
            for item in cast(Iterable[Dataset], element.value):
                _mark_as_encoded(item)


def _character_set_element(value: bytes) -> bytes:
    if not value:
        return b""
    padded = value + b" " * (len(value) % 2)
    return struct.pack("<HH2sH", CHARACTER_SET.group, CHARACTER_SET.element, b"CS", len(padded)) + padded


def _set_equipment(ds: Dataset, conclusion: StudyConclusion) -> None:
    # PS3.3 C.7.5.1 and C.7.5.2 (Enhanced General Equipment): the first four are type 1.
    node, model = conclusion.node, conclusion.model
    ds.Manufacturer = short(node.manufacturer)
    ds.ManufacturerModelName = model_name(conclusion)
    ds.DeviceSerialNumber = serial_number(conclusion)
    versions = [node.software_version, *([model.version] if model else [])]
    ds.SoftwareVersions = [short(version) for version in versions]
    # The copied character set may not hold this name, and a name with question marks is worse than none.
    if node.institution_name and plain(node.institution_name) == node.institution_name:
        ds.InstitutionName = short(node.institution_name)


def _acquisition_equipment(film: Film) -> list[Dataset]:
    item = copied(film.source, _ACQUISITION_EQUIPMENT)
    manufacturer = item.get_item("Manufacturer") if "Manufacturer" in item else None
    # PS3.3 C.12.1: Manufacturer is type 1 in an item.
    if manufacturer is None or not manufacturer.value.strip(b" \0"):
        return []
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.AcquisitionEquipment)]
    return [item]


def _processing_equipment(conclusion: StudyConclusion) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.ProcessingEquipment)]
    _set_equipment(item, conclusion)
    item.DeviceUID = device_uid(conclusion)
    item.ContributionDateTime = conclusion.concluded_at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = "Triage of chest radiographs by an AI algorithm; not for diagnostic use"
    return item
