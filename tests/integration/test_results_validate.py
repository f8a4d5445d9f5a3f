"""Result objects judged by other people's programs: dicom3tools, DCMTK, PixelMed."""

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfilm.triage import Decision
from tests.result_factories import (
    CONCLUDED_AT,
    conclusion,
    dx_header,
    film,
    film_above,
    film_not_analysed,
    header,
)
from worker.results.model import BuiltObject, PersonalCorrection, Predecessor, StudyConclusion
from worker.results.overlay import draw
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports

pytestmark = pytest.mark.peer

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Device UID in Contributing Equipment is in the standard since 2022; dicom3tools of that year lacks it.
# Empty identity, taken over from an empty source, is legal but makes no DICOMDIR.
TOLERATED = ("Device UID", "Standard Extended SOP Class", "would be needed to build DICOMDIR")

CR, DX = header(), dx_header(SeriesInstanceUID="2.25.334")
BARE = header(
    **dict.fromkeys(
        [
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "PatientAge",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "StudyDescription",
            "ReferringPhysicianName",
            "Manufacturer",
            "Modality",
            "ViewPosition",
            "PatientOrientation",
            "ImagerPixelSpacing",
            "RequestAttributesSequence",
        ]
    )
)
LOSSY = header(LossyImageCompression="01", LossyImageCompressionRatio=12, LossyImageCompressionMethod="ISO_10918_1")
EARLIER = (Predecessor("1.2.840.10008.5.1.4.1.1.88.34", "2.25.801", "2.25.802", "2.25.222"),)
STUDIES = {
    "negative CR": conclusion(film(CR), decision=Decision.NO_SIGNIFICANT_FINDING),
    "positive DX": conclusion(film_above(DX), decision=Decision.SIGNIFICANT_FINDING),
    "not analysed CR": conclusion(film_not_analysed(CR), decision=Decision.NOT_ANALYSED, model=None),
    "three films": conclusion(
        film_above(DX), film(CR, "b" * 64), film_not_analysed(CR), decision=Decision.SIGNIFICANT_FINDING
    ),
    "negative DX": conclusion(film(DX), decision=Decision.NO_SIGNIFICANT_FINDING),
    "positive CR": conclusion(film_above(CR), decision=Decision.SIGNIFICANT_FINDING),
    "not analysed DX": conclusion(film_not_analysed(DX), decision=Decision.NOT_ANALYSED),
    "second revision": conclusion(film(CR), decision=Decision.NO_SIGNIFICANT_FINDING, revision=2, predecessors=EARLIER),
    "bare header": conclusion(film(BARE), decision=Decision.NO_SIGNIFICANT_FINDING),
    "corrected": conclusion(
        film(DX),
        decision=Decision.SIGNIFICANT_FINDING,
        revision=2,
        predecessors=EARLIER,
        correction=PersonalCorrection("li", CONCLUDED_AT, Decision.NO_SIGNIFICANT_FINDING, "1 film below"),
    ),
    "lossy film": conclusion(film(LOSSY), decision=Decision.NO_SIGNIFICANT_FINDING),
}
OF_EACH_OUTCOME = ("negative CR", "positive DX", "not analysed CR", "three films", "corrected")


def program(name: str) -> str:
    """Path of a program; without it the test is skipped, in CI it fails."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (packages: dcmtk dicom3tools libpixelmed-java default-jre-headless)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


def run(*command: str) -> str:
    """Run to the end; both outputs together."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    return done.stdout + done.stderr


def built(study: StudyConclusion) -> list[BuiltObject]:
    captures = build_secondary_captures(study)
    return [*captures, *build_reports(study, captures)]


def saved(each: BuiltObject, folder: Path) -> str:
    path = folder / f"{each.sop_instance_uid}.dcm"
    path.write_bytes(each.content)
    return str(path)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES.keys())
def test_dciodvfy_finds_no_error(study: StudyConclusion, tmp_path: Path) -> None:
    dciodvfy = program("dciodvfy")
    for each in built(study):
        remarks = [
            line
            for line in run(dciodvfy, saved(each, tmp_path)).splitlines()
            if line.startswith(("Error", "Warning", "Abort")) and not any(word in line for word in TOLERATED)
        ]
        assert remarks == []


@pytest.mark.parametrize("name", OF_EACH_OUTCOME)
def test_dsrdump_shows_the_answer(name: str, tmp_path: Path) -> None:
    study = STUDIES[name]
    for each in build_reports(study, build_secondary_captures(study)):
        shown = run(program("dsrdump"), "+Pl", saved(each, tmp_path))
        assert f"AI CXR triage: {study.decision.words.upper()}" in shown
        assert '"Level of Significance")=' in shown
        assert "PRELIMINARY" in shown
        assert "UNVERIFIED" in shown
        assert not [line for line in shown.splitlines() if line.startswith(("E:", "F:"))]


@pytest.mark.parametrize("name", ["negative CR", "positive DX"])
def test_dcm2pnm_shows_the_picture(name: str, tmp_path: Path) -> None:
    study = STUDIES[name]
    (capture,) = build_secondary_captures(study)
    shown = tmp_path / "shown.png"
    run(program("dcm2pnm"), "+on", saved(capture, tmp_path), str(shown))
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(shown)), cv2.COLOR_BGR2RGB), draw(study, 0))


@pytest.mark.parametrize(("name", "index"), [*zip(OF_EACH_OUTCOME, (0, 1, 2, 0, 0), strict=True)])
def test_pixelmed_finds_no_fault_in_the_content_tree(name: str, index: int, tmp_path: Path) -> None:
    java, study = program("java"), STUDIES[name]
    if not PIXELMED.is_file():
        program("pixelmed.jar")
    report = build_reports(study, build_secondary_captures(study))[index]
    # Its style sheet is larger than a modern JDK lets through by itself.
    limits = [f"-Djdk.xml.xpath{limit}=0" for limit in ("TotalOpLimit", "ExprGrpLimit", "ExprOpLimit")]
    command = [java, "-Xss16m", *limits, "-cp", str(PIXELMED), "com.pixelmed.validate.DicomSRValidator"]
    said = run(*command, saved(report, tmp_path))
    assert "Root Template Validation Complete" in said
    assert "IOD validation complete" in said
    assert "Error" not in said
    assert "Warning" not in said
