"""Make the sample films: real NIH films with fictional patients, in the kinds of DICOM that hospitals send.

    python samples/make.py --cxr FOLDER

FOLDER holds NIH's ChestX-ray14 films as 512 px JPEG (``nih/00000398_000.jpg`` …) and ``cohort.csv`` and
``paediatric.csv`` with their published labels. Same input, same bytes: UIDs are UUIDv5 of the names below.
"""

from __future__ import annotations

import argparse
import csv
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import jpeg_ls  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

FOLDER = Path(__file__).resolve().parent
NAMESPACE = uuid.UUID("0b6f1d1c-6f4e-5c43-9d0b-3a5f3f0e7a11")
EDGE = 512
# Typical of the detectors of the time; NIH published films as squares, stretched.
DETECTOR_SPACING_MM = 0.143
CR, DX = "CR", "DX"
TABLE_START, TABLE_END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Name:
    """A fictional patient's name and its Specific Character Set."""

    text: str
    character_set: str


@dataclass(frozen=True)
class Sample:
    """One file to make.

    Parameters
    ----------
    name : str
        File name without suffix; also what its UIDs are derived from.
    source : str
        NIH film, e.g. "00000398_000"; "paediatric/…" for a child; empty for a film without a picture.
    modality : str
        CR or DX.
    patient : Name
    syntax : str
        Transfer syntax UID.
    bits : int
        Bits Stored; above 8 they are held in 16.
    voi : str
        "none", "window", "sigmoid", "table" or "rescale" (window after a rescale).
    inverse : bool
        MONOCHROME1 instead of MONOCHROME2.
    study : str
        Films of one study share it; by default the file name.
    series : str
        Series Description; empty: from the view.
    for_processing, square_grid, urgent : bool
        DX For Processing; NIH's square with non-square pixels; requested as STAT.
    expected : str
        What the node makes of it, for the table in the README.
    """

    name: str
    source: str
    modality: str
    patient: Name
    syntax: str
    bits: int
    voi: str = "window"
    inverse: bool = False
    study: str = ""
    series: str = ""
    for_processing: bool = False
    square_grid: bool = False
    urgent: bool = False
    expected: str = "decision"


CHINESE = Name("Wang^Xiaohe=王^小河", "GB18030")
LATIN = Name("Müller^Jörg", "ISO_IR 100")
CHINESE_UTF8 = Name("Li^Qingshan=李^青山", "ISO_IR 192")
JAPANESE = Name("Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87")
KOREAN = Name("Hong^Gildong=洪^吉洞=홍^길동", "\\ISO 2022 IR 149")
CYRILLIC = Name("Петров^Иван", "ISO_IR 144")
ARABIC = Name("سلمى^ليلى", "ISO_IR 127")
FRENCH = Name("Lefèvre^André", "ISO_IR 100")
SPANISH = Name("Núñez^María José", "ISO_IR 192")


def plain(text: str) -> Name:
    """A name in the default character repertoire."""
    return Name(text, "")


SAMPLES = (
    Sample("01-cr-chinese", "00017936_000", CR, CHINESE, ExplicitVRLittleEndian, 8, "none"),
    Sample("02-cr-latin", "00000679_000", CR, LATIN, ImplicitVRLittleEndian, 10, inverse=True),
    Sample("03-dx-table", "00024028_000", DX, plain("Demo^David"), JPEGLosslessSV1, 12, "table"),
    Sample("04-dx-inverse", "00014161_000", DX, CHINESE_UTF8, JPEG2000Lossless, 12, inverse=True),
    Sample("05-cr-stat", "00000468_036", CR, KOREAN, JPEGLosslessSV1, 16, "rescale", urgent=True),
    Sample("06-cr-mass", "00004840_000", CR, JAPANESE, ExplicitVRLittleEndian, 8, "none"),
    Sample("07-dx-effusion", "00014250_000", DX, FRENCH, JPEGLosslessSV1, 12, study="07-dx"),
    Sample("08-cr-portable", "00000344_002", CR, CYRILLIC, JPEGLSLossless, 12, inverse=True),
    Sample("09-dx-cardiomegaly", "00003015_000", DX, SPANISH, JPEG2000Lossless, 14, "sigmoid"),
    Sample("10-cr-pneumothorax", "00005067_000", CR, plain("Demo^Greta"), RLELossless, 8, "none"),
    Sample("11-cr-oedema", "00000459_044", CR, ARABIC, JPEGLosslessSV1, 12),
    Sample("12-two-films-a", "00000398_000", CR, plain("Demo^Irene"), JPEGLosslessSV1, 12, study="12-two-films"),
    Sample("13-two-films-b", "00000398_002", CR, plain("Demo^Irene"), JPEGLosslessSV1, 12, study="12-two-films"),
    Sample("14-cr-square-grid", "00003849_000", CR, plain("Demo^Jonas"), ImplicitVRLittleEndian, 8, square_grid=True),
    Sample(
        "15-child",
        "paediatric/00001754_000",
        CR,
        plain("Demo^Kim"),
        JPEG2000Lossless,
        8,
        expected="not analysed: patient under 18",
    ),
    Sample(
        "16-unusable",
        "",
        CR,
        plain("Demo^Lena"),
        RLELossless,
        12,
        series="Chest PA",
        expected="not analysed: pixel values are constant",
    ),
    Sample(
        "17-dx-for-processing",
        "00014250_000",
        DX,
        FRENCH,
        JPEGLosslessSV1,
        14,
        "none",
        study="07-dx",
        for_processing=True,
        expected="not analysed: For Processing image",
    ),
)


def main() -> None:
    """Write the films and the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cxr", type=Path, required=True, help="folder with cohort.csv and nih/")
    folder = parser.parse_args().cxr
    published = read_published(folder)
    for sample in SAMPLES:
        ds = make(sample, folder, published)
        dcmwrite(FOLDER / f"{sample.name}.dcm", ds, enforce_file_format=True)
    write_table(published)


def read_published(folder: Path) -> dict[str, dict[str, str]]:
    """NIH's labels by film."""
    rows = {}
    for name in ("cohort.csv", "paediatric.csv"):
        with (folder / name).open(encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                rows[row["file"].removesuffix(".jpg").removeprefix("nih/")] = row
    return rows


def make(sample: Sample, folder: Path, published_all: dict[str, dict[str, str]]) -> Dataset:
    """Build one data set with its file meta information."""
    published = published_all.get(sample.source, {})
    # NIH's two films of one patient were taken years apart; the demonstration has them in one study.
    first = next(other for other in SAMPLES if study_of(other) == study_of(sample))
    ds = Dataset()
    if sample.patient.character_set:
        ds.SpecificCharacterSet = sample.patient.character_set
    add_patient(ds, sample, published_all.get(first.source, {}))
    add_study(ds, sample)
    add_series(ds, sample, published)
    picture, spacing_mm = read_picture(sample, folder, published)
    add_image(ds, sample, published)
    (add_dx if sample.modality == DX else add_cr)(ds, sample, published, spacing_mm)
    add_pixels(ds, sample, picture)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(sample.syntax)
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return ds


def uid(*parts: str) -> str:
    """A UID that is always the same for the same names (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '|'.join(parts)).int}"


def study_of(sample: Sample) -> str:
    """Name of the study that a sample belongs to."""
    return sample.study or sample.name


def number_of(sample: Sample) -> str:
    """Number of the first sample of a study: in IDs and times."""
    return study_of(sample)[:2]


def add_patient(ds: Dataset, sample: Sample, published: dict[str, str]) -> None:
    """A fictional patient with the published sex and age."""
    age = int(published.get("age") or 40)
    ds.PatientName = sample.patient.text
    ds.PatientID = f"DEMO-{number_of(sample)}"
    ds.PatientBirthDate = f"{2026 - age}0101"
    ds.PatientSex = published.get("sex", "F")
    ds.PatientAge = f"{age:03d}Y"


def add_study(ds: Dataset, sample: Sample) -> None:
    """Study and request."""
    ds.StudyInstanceUID = uid("study", study_of(sample))
    ds.StudyDate = ds.ContentDate = ds.AcquisitionDate = ds.SeriesDate = "20260112"
    ds.StudyTime = ds.ContentTime = ds.AcquisitionTime = ds.SeriesTime = f"08{number_of(sample)}00"
    ds.ReferringPhysicianName = "Demo^Referrer"
    ds.StudyID = f"S{number_of(sample)}"
    ds.AccessionNumber = f"DEMO-A{number_of(sample)}"
    ds.StudyDescription = "Chest radiograph"
    if sample.urgent:
        ds.RequestedProcedurePriority = "STAT"


def add_series(ds: Dataset, sample: Sample, published: dict[str, str]) -> None:
    """Series and equipment."""
    view = published.get("view", "PA")
    ds.Modality = sample.modality
    ds.SeriesInstanceUID = uid("series", sample.name)
    ds.SeriesNumber = 2 if sample.for_processing else 1
    ds.SeriesDescription = sample.series or ("Chest AP portable" if view == "AP" else f"Chest {view}")
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = view
    ds.Manufacturer = "NIH ChestX-ray14, made into DICOM"
    ds.ManufacturerModelName = "Clearfilm sample"
    ds.InstitutionName = "Demo hospital"
    ds.StationName = f"DEMO-{sample.modality}"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"


def add_image(ds: Dataset, sample: Sample, published: dict[str, str]) -> None:
    """What both kinds of image have."""
    ds.SOPInstanceUID = uid("instance", sample.name)
    ds.InstanceNumber = 2 if sample.name.startswith("13") else 1
    ds.ImageType = ["DERIVED", "PRIMARY", ""] if sample.modality == DX else ["DERIVED", "PRIMARY"]
    ds.PatientOrientation = ["L", "F"]
    ds.AcquisitionNumber = 1
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "01" if sample.source else "00"
    if sample.source:
        ds.LossyImageCompressionRatio = 10
        ds.LossyImageCompressionMethod = "ISO_10918_1"
        ds.DerivationDescription = "8 bit JPEG, reduced to 512 pixels"
        ds.ImageComments = f"NIH Clinical Center, ChestX-ray14, {Path(sample.source).name}.png; fictional patient"


def add_cr(ds: Dataset, sample: Sample, published: dict[str, str], spacing_mm: tuple[float, float]) -> None:
    """PS3.3 A.2."""
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.ImagerPixelSpacing = [f"{value:.4f}" for value in spacing_mm]
    ds.KVP = "110"
    ds.PlateType = "demo"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def add_dx(ds: Dataset, sample: Sample, published: dict[str, str], spacing_mm: tuple[float, float]) -> None:
    """PS3.3 A.26."""
    kind: tuple[str, str] = (DigitalXRayImageStorageForPresentation, "FOR PRESENTATION")
    if sample.for_processing:
        kind = (DigitalXRayImageStorageForProcessing, "FOR PROCESSING")
    ds.SOPClassUID, ds.PresentationIntentType = kind
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [code("51185008", "SCT", "Chest")]
    projection = ("399348003", "antero-posterior") if published["view"] == "AP" else ("272479007", "postero-anterior")
    ds.ViewCodeSequence = [code(projection[0], "SCT", projection[1])]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.AcquisitionContextSequence = []
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if sample.inverse else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape = "INVERSE" if sample.inverse else "IDENTITY"
    ds.DetectorType = "SCINTILLATOR"
    ds.ImagerPixelSpacing = [f"{value:.4f}" for value in spacing_mm]
    ds.PositionerType = "NONE"
    ds.PatientPosition = ""
    ds.AcquisitionDeviceProcessingDescription = "sample"


def read_picture(
    sample: Sample, folder: Path, published: dict[str, str]
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The film as grey values 0 to 1, and its spacing (rows, columns) in mm."""
    if not sample.source:
        return np.full((EDGE, EDGE), 0.25), (0.7, 0.7)
    file = folder / published["file"]
    grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert grey is not None, file
    width, height = int(published["width_orig"]), int(published["height_orig"])
    columns, rows = EDGE, EDGE
    if not sample.square_grid:
        columns, rows = round(EDGE * min(1, width / height)), round(EDGE * min(1, height / width))
        grey = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    spacing_mm = (DETECTOR_SPACING_MM * height / rows, DETECTOR_SPACING_MM * width / columns)
    return np.asarray(grey / 255.0, dtype=np.float64), spacing_mm


def add_pixels(ds: Dataset, sample: Sample, picture: NDArray[np.float64]) -> None:
    """Stored values, their look-up tables and the compression."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if sample.inverse else "MONOCHROME2"
    ds.Rows, ds.Columns = picture.shape
    ds.BitsAllocated = 8 if sample.bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = sample.bits, sample.bits - 1, 0
    top = (1 << sample.bits) - 1
    grey = 1 - picture if sample.inverse else picture
    # A detector does not use its whole range: from 10 to 85 % here, where a window says so.
    low, high = (0.0, 1.0) if sample.voi == "none" else (0.1 * top, 0.85 * top)
    stored = grey * top if sample.voi == "none" else low + grey * (high - low)
    stored = np.rint(stored).astype(f"<u{ds.BitsAllocated // 8}")
    add_voi(ds, sample, low, high)
    if sample.syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        data = stored.tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
    else:
        ds.PixelData = encapsulate([ENCODERS[sample.syntax](stored, sample.bits)])
        ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 or ds["PixelData"].is_undefined_length else "OW"


def add_voi(ds: Dataset, sample: Sample, low: float, high: float) -> None:
    """Window or table that brings the used range to the whole grey scale."""
    if sample.voi == "rescale":
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "0.5", "-1000", "US"
        low, high = low * 0.5 - 1000, high * 0.5 - 1000
    if sample.voi in ("window", "rescale", "sigmoid"):
        ds.WindowCenter, ds.WindowWidth = f"{(low + high) / 2:.1f}", f"{high - low:.1f}"
        ds.WindowCenterWidthExplanation = "NORMAL"
    if sample.voi == "sigmoid":
        ds.VOILUTFunction = "SIGMOID"
    if sample.voi == "table":
        first, count = int(low), int(high - low) + 1
        item = Dataset()
        item.LUTDescriptor = [count, first, 12]
        item.LUTExplanation = "NORMAL"
        item.LUTData = np.rint(np.linspace(0, 4095, count)).astype("<u2").tobytes()
        item["LUTData"].VR = "OW"
        ds.VOILUTSequence = [item]
    if sample.for_processing or sample.voi != "none" or sample.modality == CR:
        return
    ds.WindowCenter, ds.WindowWidth = str(1 << (sample.bits - 1)), str(1 << sample.bits)


def encode_jpeg_lossless(stored: NDArray[Any], bits: int) -> bytes:
    """Process 14, first-order prediction (PS3.5 10.6)."""
    return bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=bits))


def encode_j2k(stored: NDArray[Any], bits: int) -> bytes:
    """Reversible JPEG 2000 codestream."""
    return bytes(encode_array(stored, bits_stored=bits, photometric_interpretation=2))


def encode_jpeg_ls(stored: NDArray[Any], bits: int) -> bytes:
    """JPEG-LS without loss."""
    return bytes(jpeg_ls.encode_array(stored))


def encode_rle(stored: NDArray[Any], bits: int) -> bytes:
    """PS3.5 Annex G."""
    return bytes(
        RLELosslessEncoder.encode(
            stored,
            rows=stored.shape[0],
            columns=stored.shape[1],
            samples_per_pixel=1,
            bits_allocated=8 * stored.itemsize,
            bits_stored=bits,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
        )
    )


ENCODERS: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    JPEGLosslessSV1: encode_jpeg_lossless,
    JPEG2000Lossless: encode_j2k,
    JPEGLSLossless: encode_jpeg_ls,
    RLELossless: encode_rle,
}
SYNTAX_NAMES: dict[str, str] = {
    ExplicitVRLittleEndian: "explicit little endian",
    ImplicitVRLittleEndian: "implicit little endian",
    JPEGLosslessSV1: "JPEG lossless",
    JPEG2000Lossless: "JPEG 2000 lossless",
    JPEGLSLossless: "JPEG-LS lossless",
    RLELossless: "RLE",
}


def write_table(published: dict[str, dict[str, str]]) -> None:
    """Replace the table in the README."""
    lines = ["| file | NIH film and label | kind | pixels | expected |", "| --- | --- | --- | --- | --- |"]
    for sample in SAMPLES:
        row = published.get(sample.source, {"findings": "no film", "view": "PA"})
        findings = row["findings"].replace("|", ", ")
        photometric = "MONOCHROME1" if sample.inverse else "MONOCHROME2"
        charset = sample.patient.character_set.lstrip("\\") or "ASCII"
        lines.append(
            f"| {sample.name} | {Path(sample.source).name or '-'}: {findings} | {sample.modality} {row['view']}, "
            f"{charset} | {sample.bits} bit {photometric}, {sample.voi}, {SYNTAX_NAMES[sample.syntax]} | "
            f"{sample.expected} |"
        )
    readme = FOLDER / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    table = "\n".join([TABLE_START, *lines, TABLE_END])
    readme.write_text(before + table + after, encoding="utf-8")


if __name__ == "__main__":
    main()
