"""Every file of the DICOM zoo through scan, gate and decoder, compared with what was decided for it.

Outcomes: "unreadable" (no DICOM file: our sender skips it, a peer cannot send it), "not offered" (its
transfer syntax is not accepted), "refused: …" (C-STORE failure), "not analysed: …" (stored, no decision),
"prepared" (goes to the network).

The cases that the zoo marks `policy:` and those that it calls "accept" and we do not take:

* test4 (BodyPartExamined RIBCAGE) and test5 (Modality CT) hold the same chest film as test1 under the same
  SOP Instance UID. A header that contradicts the picture is not corrected: no decision.
* deflated and big endian copies of chest films: these transfer syntaxes are not accepted at all, so the
  sender has to convert; it always can, since implicit VR little endian is mandatory (PS3.5 10.1).
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble

from clearfilm.config import Config, Worker
from clearfilm.dicom.codecs import accepted_transfer_syntaxes
from clearfilm.dicom.header import parse, scan
from clearfilm.errors import NotAnalysable, RefusedObject
from worker.decoder import DecoderPool
from worker.gate import judge_header

OUTCOMES = {
    "AIHCND_C2_Star__test1.dcm": "prepared",
    "AIHCND_C2_Star__test3.dcm": "prepared",
    "AIHCND_C2_Star__test4.dcm": "not analysed: body part RIBCAGE",
    "AIHCND_C2_Star__test5.dcm": "not analysed: modality CT",
    "DICOMSamples__CT_JPEG70.dcm": "not analysed: not a radiograph",
    "DICOMSamples__OT_Implicit_Little_Headless.dcm": "unreadable",
    "ami__j2k.dcm": "not analysed: not a radiograph",
    "cornerstoneWAD__CTImage_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm": "not offered",
    "cornerstoneWAD__CTImage_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm": "not analysed: not a radiograph",
    "cornerstoneWAD__CTImage_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm": "not analysed: not a radiograph",
    "cornerstoneWAD__CTImage_JPEGProcess6_1.2.840.10008.1.2.4.53.dcm": "not offered",
    "covid-chest-im__sample.dcm": "not analysed: modality OT",
    "dcm4che__3gb-bulk-data-truncated": "refused: a length leads outside the data set",
    "dcm4che__YBR_422.dcm": "not analysed: not a radiograph",
    "dcm4che__cplx_p02.dcm": "not analysed: modality OT",
    "dcm4che__test16signed.dcm": "not analysed: modality OT",
    "dcmjs__no-meta-length-test.dcm": "not analysed: not a radiograph",
    "deid__deid.dicom": "unreadable",
    "derived__850819-truncated.dcm": "refused: a length leads outside the data set",
    "derived__mono1-10-chest-deflated.dcm": "not offered",
    "derived__mono1-10-chest-j2k-lossless.dcm": "prepared",
    "derived__mono1-10-chest-rle.dcm": "prepared",
    "derived__nih2-black.dcm": "not analysed: pixel values are constant",
    "derived__nih2-no-pixeldata.dcm": "not analysed: no pixel data",
    "derived__nih2-no-rows.dcm": "not analysed: Rows is missing or damaged",
    "derived__nih2-truncated-raw.dcm": "refused: a length leads outside the data set",
    "derived__nih61-big-endian.dcm": "not offered",
    "derived__nih61-rle.dcm": "prepared",
    "dicognito__CT_small_deflated.dcm": "not offered",
    "dicognito__bad.dcm": "refused: SOP Class UID is missing",
    "dicognito__burned_in_yes.dcm": "not analysed: modality NM",
    "dicom-test-fil__CT1_J2KR": "not analysed: not a radiograph",
    "dicom-test-fil__CT1_JLSL": "not analysed: not a radiograph",
    "dicom-test-fil__CT1_RLE": "not analysed: not a radiograph",
    "dicom-test-fil__MG1_J2KI": "not analysed: modality RG",
    "dicom-test-fil__RG2_J2KI": "not analysed: body part HIP",
    "dicom-test-fil__SC1_JPLY": "not analysed: modality CT",
    "dicom-test-fil__VL6_J2KI": "not analysed: modality OT",
    "dicom-test-fil__XA1_J2KI": "not analysed: modality XA",
    "dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.70.dcm": "not analysed: not a radiograph",
    "dicomParser__report_dfl": "not offered",
    "dicom__1.dcm": "not analysed: not a radiograph",
    "dwv__DICOMDIR": "refused: SOP Class UID is missing",
    "dwv__gdcm-CR-MONO1-10-chest.dcm": "prepared",
    "dwv__sr-ellipse.dcm": "not analysed: not a radiograph",
    "fo-dicom__CR-ModalitySequenceLUT.dcm": "not analysed: body part is not stated",
    "fo-dicom__GH1376.dcm": "not analysed: not a radiograph",
    "fo-dicom__GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "not offered",
    "fo-dicom__GH223.dcm": "refused: Study Instance UID is missing",
    "fo-dicom__JPEGwithIcon.dcm": "not analysed: modality XC",
    "fo-dicom__OutOfBoundsOverlay.dcm": "not analysed: not a radiograph",
    "healthcare-dic__example-mg.dcm": "not analysed: modality MG",
    "highdicom__dx_image.dcm": "not analysed: patient under 18",
    "highdicom__sm_image.dcm": "not analysed: not a radiograph",
    "highdicom__sr_document.dcm": "not analysed: not a radiograph",
    "orthanc-tests__Issue196.dcm": "refused: Study Instance UID is missing",
    "orthanc-tests__Issue56-NoPixelData.dcm": "not analysed: not a human patient",
    "orthanc-tests__SCSRUSS": "not analysed: modality OT",
    "pydicom-data__HTJ2KLossless_08_RGB.dcm": "not offered",
    "pydicom-data__JLSL_16_15_1_1F.dcm": "refused: Study Instance UID is missing",
    "pydicom-data__JPGLosslessP14SV1_1s_1f_8b.dcm": "not analysed: not a radiograph",
    "pydicom-data__MR2_J2KI.dcm": "not analysed: not a radiograph",
    "pydicom-data__RG1_J2KI.dcm": "prepared",
    "pydicom-data__RG3_J2KR.dcm": "not analysed: patient under 18",
    "pydicom-data__US1_J2KI.dcm": "not analysed: not a radiograph",
    "pydicom-data__explicit_VR-UN.dcm": "not analysed: not a radiograph",
    "pydicom-data__parametric_map_float.dcm": "not analysed: not a radiograph",
    "pydicom-data__vlut_04.dcm": "not analysed: modality OT",
    "pydicom__6154": "not analysed: body part CSPINE",
    "pydicom__CT_small.dcm": "not analysed: not a radiograph",
    "pydicom__ExplVR_BigEnd.dcm": "not offered",
    "pydicom__ExplVR_BigEndNoMeta.dcm": "unreadable",
    "pydicom__JPEG-lossy.dcm": "not analysed: modality NM",
    "pydicom__JPEG2000-embedded-sequence-delimiter.dcm": "not analysed: modality NM",
    "pydicom__JPEG2000.dcm": "not analysed: modality NM",
    "pydicom__MR_small.dcm": "not analysed: not a radiograph",
    "pydicom__MR_small_RLE.dcm": "not analysed: not a radiograph",
    "pydicom__MR_small_expb.dcm": "not offered",
    "pydicom__MR_truncated.dcm": "refused: a length leads outside the data set",
    "pydicom__SC_rgb_rle_2frame.dcm": "not analysed: modality OT",
    "pydicom__SC_rgb_small_odd.dcm": "not analysed: modality OT",
    "pydicom__UN_sequence.dcm": "refused: SOP Class UID is missing",
    "pydicom__badVR.dcm": "not analysed: not a radiograph",
    "pydicom__chrJapMulti.dcm": "not analysed: no pixel data",
    "pydicom__examples_palette.dcm": "not analysed: not a radiograph",
    "pydicom__fall.dcm": "refused: Study Instance UID is missing",
    "pydicom__liver_1frame.dcm": "not analysed: not a radiograph",
    "pydicom__meta_missing_tsyntax.dcm": "unreadable",
    "pydicom__no_meta_group_length.dcm": "refused: SOP Class UID is missing",
    "pydicom__reportsi.dcm": "not analysed: not a radiograph",
    "pydicom__rtdose.dcm": "not analysed: not a radiograph",
    "pydicom__rtplan.dcm": "not analysed: not a radiograph",
    "pydicom__waveform_ecg.dcm": "not analysed: not a radiograph",
    "torchxrayvisio__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": "prepared",
    "visual-nlp-wor__DICOM_PDF_Deid_Deidentification_0.dcm": "not analysed: not a radiograph",
    "visual-nlp-wor__John_Stiles.dcm": "refused: SOP Class UID is missing",
    "visual-nlp-wor__MultiframeTest.dcm": "not analysed: modality OT",
    "visual-nlp-wor__example_input_2.dcm": "not analysed: For Processing image",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(Config(worker=Worker(decoders=2))) as pool:
        yield pool


def outcome(path: Path, pool: DecoderPool) -> str:
    try:
        data, transfer_syntax = read_data_set(path)
    except (InvalidDicomError, AttributeError, OSError):
        return "unreadable"
    if transfer_syntax not in accepted_transfer_syntaxes():
        return "not offered"
    try:
        scanned = scan(data, transfer_syntax)
        judge_header(parse(data[: scanned.header_bytes], transfer_syntax), today=datetime.now(UTC).date())
        pool.submit(path).result(timeout=60)
    except RefusedObject as error:
        return f"refused: {error.reason}"
    except NotAnalysable as error:
        return f"not analysed: {error.reason}"
    return "prepared"


def read_data_set(path: Path) -> tuple[memoryview, str]:
    with path.open("rb") as stream:
        read_preamble(stream, force=False)
        transfer_syntax = _read_file_meta_info(stream).TransferSyntaxUID
        return memoryview(stream.read()), transfer_syntax


def test_every_file_of_the_zoo_ends_as_decided(shared: Path, pool: DecoderPool) -> None:
    folder = shared / "data" / "dicom-zoo"
    found = {path.name: outcome(path, pool) for path in sorted((folder / "files").iterdir())}
    assert found == OUTCOMES


def test_only_adult_frontal_chest_films_of_the_zoo_are_prepared(shared: Path, pool: DecoderPool) -> None:
    folder = shared / "data" / "dicom-zoo"
    with (folder / "zoo.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    prepared = {row["file"] for row in rows if outcome(folder / row["file"], pool) == "prepared"}
    syntaxes = accepted_transfer_syntaxes()
    wanted = {r["file"] for r in rows if r["expected"] == "accept" and r["transfer_syntax"] in syntaxes}
    assert prepared == wanted
