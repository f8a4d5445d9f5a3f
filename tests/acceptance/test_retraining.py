"""From an empty node to a decision by a model of its own, and back: films, reports, cohort, run, report, signatures."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from bench.training import film as dx_film
from cli import test_pacs
from tests.acceptance.nodes import REPOSITORY, Node
from tests.cohort_factories import KEY, patients_of
from training.split import KEY_FILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENTS = {"train": 24, "stop": 8, "calibrate": 12, "test": 12}
CLEAR = "两肺心膈未见异常。"
FINDING = "右下肺炎症，建议治疗后复查。"
COLUMNS = {"accession_number": "检查号", "impression": "诊断意见"}
SETTINGS = {
    "worker.threads": 1,
    "training.edge": 96,
    "training.epochs": 2,
    "training.batch_size": 8,
    "training.train": "head",
    "training.sensitivities": [0.5],
}


class Site:
    """A node with its archive, and the commands of its administrators."""

    def __init__(self, folder: Path, pacs_folder: Path, port: int) -> None:
        self.folder, self.pacs_folder = folder, pacs_folder
        # The reference model does not know these opacities: the policy would rightly step down and withhold results.
        self.node = Node(folder / "node", port, {"policy.target_miss_rate": 0.99, "policy.blind_share": 0})
        self.films = folder / "films"

    def run(self, *arguments: str, expected: int = 0) -> str:
        """What a command prints."""
        outcome = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments, "--config", str(self.node.config_path)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert outcome.returncode == expected, outcome.stdout + outcome.stderr[-3000:]
        return outcome.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def film(self, picture: Path, patient: str, accession: str, *, abnormal: bool = False) -> tuple[Path, str]:
        """A real clear film as DX, with a large opacity if asked for; its path and Study Instance UID."""
        grey = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        if abnormal:
            grey = with_opacity(grey)
        ds = dx_film(grey.astype("uint16") * 16)
        ds.PatientID, ds.PatientName, ds.AccessionNumber, ds.StudyDate = patient, "Test^Patient", accession, "20260102"
        ds.StudyInstanceUID = generate_uid()
        path = self.films / f"{accession}.dcm"
        path.parent.mkdir(exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
        return path, str(ds.StudyInstanceUID)

    def bundle_of(self, study: str) -> str:
        """Digest of the bundle that the study's report in the PACS names."""
        objects = [pydicom.dcmread(path) for path in (self.pacs_folder / study).glob("*.dcm")]
        (report,) = [ds for ds in objects if ds.Modality == "SR"]
        texts = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
        (digest,) = {text.removeprefix("bundle_sha256=") for text in texts if text.startswith("bundle_sha256=")}
        return digest

    def decided_by(self, picture: Path, patient: str, accession: str) -> str:
        """Send one more film; the bundle that its report in the PACS names."""
        path, study = self.film(picture, patient, accession)
        self.node.send_until_stored(path)
        self.node.await_done()
        return self.bundle_of(study)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pacs_folder = tmp_path_factory.mktemp("pacs")
    with test_pacs.running(pacs_folder, "PACS", "127.0.0.1", 0) as (_, port):
        site = Site(tmp_path_factory.mktemp("site"), pacs_folder, port)
        site.node.start()
        try:
            yield site
        finally:
            assert site.node.stop() == 0


def clear_films(cxr: Path) -> Iterator[Path]:
    """Frontal films without a finding, in the order of the table."""
    with (cxr / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return (cxr / row["file"] for row in rows if row["label"] == "normal" and row["view"] == "PA")


def with_opacity(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """So plain that few films are enough to learn it."""
    rows, columns = grey.shape
    opacity = np.zeros((rows, columns), np.float32)
    cv2.circle(opacity, (columns // 3, rows // 2), columns // 7, 130, -1)
    soft = cv2.GaussianBlur(opacity, (0, 0), columns / 40)
    return np.clip(grey + soft, 0, 255).astype(np.uint8)


def fill_archive(site: Site, cxr: Path) -> Path:
    """Send films of every part of the split and write their reports; the table of reports."""
    pictures = clear_films(cxr)
    reports = site.folder / "reports.csv"
    with reports.open("w", encoding="gb18030", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["检查号", "诊断意见"])
        for part, count in PATIENTS.items():
            for number, patient in enumerate(patients_of(part, count)):
                abnormal = number % 2 == 1
                path, _ = site.film(next(pictures), patient, f"A-{patient}", abnormal=abnormal)
                site.node.send_until_stored(path)
                writer.writerow([f"A-{patient}", FINDING if abnormal else CLEAR])
    site.node.await_done(180)
    return reports


def test_a_site_retrains_promotes_and_rolls_back(site: Site, shared: Path) -> None:
    cxr, work = shared / "data" / "cxr", site.folder
    (site.node.data / KEY_FILE).write_bytes(KEY)
    reports = fill_archive(site, cxr)
    (first,) = site.json("model", "list")
    assert first["state"] == "active"

    mapping = [f"--mapping={name}={column}" for name, column in COLUMNS.items()]
    assert f"{sum(PATIENTS.values())} added" in site.run("reports", "import", str(reports), *mapping)
    site.run("cohort", "build", "--out", str(work / "cohort"))
    manifest = json.loads((work / "cohort" / "manifest.json").read_bytes())
    assert {part: row["patients"] for part, row in manifest["counts"].items()} == PATIENTS

    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    site.run("train", "--cohort", str(work / "cohort"), "--out", str(work / "run"), *settings)
    bundle = str(work / "run" / "bundle")
    site.run("evaluate", "--bundle", bundle, "--cohort", str(work / "cohort"), "--out", str(work / "report"))
    report = json.loads((work / "report" / "report.json").read_bytes())
    assert report["n"] == PATIENTS["test"]
    assert report["demonstration"] is True

    site.run("model", "add", bundle, "--evaluation", str(work / "report"), "--run", str(work / "run"))
    digest = report["identity"]["bundle_digest"]
    refused = site.run("model", "promote", digest, "--user", "li", "--reason", "better", expected=1)
    refused = site.run("model", "promote", digest, "--user", "li", "--reason", "better", expected=1)
    assert "not signed" in refused
    failed = [gate["name"] for gate in site.json("model", "show", digest)["promotion"]["gates"] if not gate["passed"]]
    waivers = [f"--waive={name}=a test of the procedure" for name in failed]
    site.run("model", "promote", digest, "--user", "li", "--reason", "a test", *waivers)
    site.run("model", "promote", digest, "--user", "li", "--reason", "a test", *waivers, expected=1)
    left_over = clear_films(cxr)
    assert site.decided_by(next(left_over), "X1", "X1") == first["digest"]

    site.run("model", "promote", digest, "--user", "wang", *waivers)
    assert site.decided_by(next(left_over), "X2", "X2") == digest

    site.run("model", "rollback")
    assert site.decided_by(next(left_over), "X3", "X3") == first["digest"]
    assert {row["digest"]: row["state"] for row in site.json("model", "list")} == {
        first["digest"]: "active",
        digest: "retired",
    }
