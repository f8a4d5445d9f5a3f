"""The evaluation report of a small network on small films, from the command line to the browser."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner, Result

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.errors import BundleError, StorageError, TrainingError, UsageError
from clearfilm.evaluation import REPORT, Summary
from clearfilm.vision.bundle import (
    CARD,
    DESCRIPTION,
    FEATURES,
    MANIFEST,
    WEIGHTS,
    Bundle,
    Calibration,
    OperatingPoint,
    as_file,
    dump_description,
    load_bundle,
    write_bundle,
)
from clearfilm.vision.engine import Engine, Reading
from clearfilm.vision.unusual import fit_subspace
from cli.main import app
from tests.bundle_factories import description
from tests.cohort_factories import KEY, NoDecoder, small_cohort, write_films
from training.cohort import Cohort
from training.evaluation.evaluate import PAGE, Options, evaluate, write_report
from training.evaluation.material import Material, from_cohort, from_folder, is_held_back, learned_from
from training.films import prepare_picture
from training.model import starting_weights
from training.progress import Silent
from training.split import KEY_FILE

EDGE = 64
FEW = Options(bootstrap_samples=50, planted=False)
HOSTILE = "<script>alert(1)</script> $x$ 设备"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "config.yaml").write_text(json.dumps({"data_folder": "data", "worker": {"device": "cpu", "threads": 1}}))
    (folder / "data").mkdir()
    (folder / "data" / KEY_FILE).write_bytes(KEY)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return configuration.load(folder / "config.yaml")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return small_cohort(folder / "small", train=12, others=16)


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    """An untrained network; its operating point lies in the middle of its scores."""
    return write_network(folder / "bundle", seed=0)


@pytest.fixture(scope="module")
def other(folder: Path) -> Bundle:
    return write_network(folder / "other", seed=1)


def write_network(folder: Path, seed: int) -> Bundle:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    weights = starting_weights("random", seed=seed, mean=0.4, std=0.2).weights
    for name, tensor in weights.items():
        if name.endswith("bn3.weight"):
            tensor.fill_(0.2)  # keeps the sum of fifty untrained blocks small
    torch.nn.init.normal_(weights["fc.weight"], std=0.05, generator=torch.Generator().manual_seed(seed))
    described = description(str(seed)).model_copy(
        update={
            "input_edge": EDGE,
            "evidence_threshold": 0.1,
            "calibration": Calibration(slope=3, intercept=0, films=9),
        }
    )
    rng = np.random.default_rng(0)
    write_bundle(
        folder,
        {
            WEIGHTS: as_file(weights),
            FEATURES: as_file(fit_subspace(rng.random((20, 2048), dtype=np.float32), 4)),
            DESCRIPTION: dump_description(described),
            CARD: b"# Random\n",
        },
    )
    return load_bundle(folder)


def altered(bundle: Bundle, **changes: object) -> Bundle:
    """The same weights with another description, without writing 230 MB again."""
    return replace(bundle, description=bundle.description.model_copy(update=changes))


def at_median(bundle: Bundle, material: Material, config: Config) -> Bundle:
    """With an operating point that half of the test films are below."""
    scores = [reading.score for reading in read(bundle, material, config)]
    point = OperatingPoint(
        threshold=float(np.median(scores)), sensitivity=0.2, confidence=0.9, abnormal_patients=9, misses=0
    )
    return altered(bundle, operating_point=point)


def read(bundle: Bundle, material: Material, config: Config) -> list[Reading]:
    films = [material.cohort.films[place] for place in material.test]
    pictures = [prepare_picture(material.cohort.path(film), EDGE).network_input for film in films]
    return Engine(bundle, config.worker, config.heatmap).run(np.stack(pictures))


@pytest.fixture(scope="module")
def material(cohort: Cohort) -> Material:
    return from_cohort(cohort)


@pytest.fixture(scope="module")
def report(folder: Path, bundle: Bundle, other: Bundle, material: Material, config: Config) -> Path:
    """A report with everything in it, devices with a hostile name among it."""
    films = tuple(
        replace(film, device=HOSTILE if place % 2 else "B", tags="critical")
        for place, film in enumerate(material.cohort.films)
    )
    films = tuple(replace(film, part="temporal") if film.part == "stop" else film for film in films)
    hostile = replace(material, cohort=replace(material.cohort, films=films))
    out = folder / "report"
    evaluate(
        at_median(bundle, material, config),
        hostile,
        out,
        config,
        NoDecoder(),
        options=replace(FEW, against=other),
    )
    return out


def test_summary_says_what_the_workers_engine_says(
    report: Path, bundle: Bundle, material: Material, config: Config
) -> None:
    summary = Summary.model_validate_json((report / REPORT).read_bytes())
    readings = read(bundle, material, config)
    scores = [reading.score for reading in readings]
    labels = [material.cohort.films[place].abnormal for place in material.test]
    assert summary.n == len(labels) == 16
    assert summary.auc == pytest.approx(roc_auc_score(labels, scores))
    assert summary.auc_interval[0] <= summary.auc <= summary.auc_interval[1]
    assert summary.brier == pytest.approx(float(np.mean((np.array(scores) - labels) ** 2)))
    point = summary.operating_point
    assert point is not None
    below = np.array(scores) < np.median(scores)
    missed = {material.cohort.films[place].sha256 for place, low in zip(material.test, below, strict=True) if low} & {
        film.sha256 for film in material.cohort.films if film.abnormal
    }
    assert {miss.film for miss in summary.misses} == missed
    assert point.missed == point.missed_critical == len(missed)
    assert list(summary.specificity_at_sensitivity) == ["0.95", "0.98", "0.99", "0.995"]
    assert summary.shortcuts.keys() == {"metadata", "thumbnail", "lungs_blacked_out"}
    assert summary.demonstration
    assert summary.identity.cohort_digest == material.digest
    assert summary.groups["part"]["temporal"].n == 16


def test_patients_that_were_learned_from_are_never_evaluated(report: Path, material: Material) -> None:
    content = json.loads((report / REPORT).read_text())
    assert content["n"] + content["details"]["temporal"]["n"] == 32
    assert content["patients"] == 16


@pytest.mark.parametrize(
    ("scheme", "trained", "held_back"),
    [
        ("patient", {"digest": None}, True),
        ("patient", {"split_key": None}, False),
        ("patient", {"split_key": "the same"}, True),
        ("patient", {"split_key": "another"}, False),
        ("paper", {"digest": None}, False),
        ("none", {"digest": None, "split_key": "the same"}, False),
    ],
)
def test_only_patients_that_no_training_can_have_met_count_as_held_back(
    material: Material, bundle: Bundle, scheme: Literal["patient", "paper", "none"], trained: dict[str, str | None],
    held_back: bool,
) -> None:  # fmt: skip
    manifest = material.cohort.manifest
    data = bundle.description.training_data.model_copy(
        update={
            "digest": material.digest if "digest" in trained else "f" * 64,
            "split_key": manifest.split_key if trained.get("split_key") == "the same" else trained.get("split_key"),
        }
    )
    found = replace(material, scheme=scheme)
    assert is_held_back(found, data) == held_back
    assert ("held back from it" in learned_from(found, data)) == held_back


def test_report_of_foreign_films_does_not_claim_that_they_were_held_back(report: Path) -> None:
    content = json.loads((report / REPORT).read_text())
    assert content["identity"]["held_back"] is False
    assert "it may have learned from these test patients" in (report / PAGE).read_text(encoding="utf-8")


def test_films_turned_away_are_counted_and_shown(report: Path) -> None:
    content = json.loads((report / REPORT).read_text())
    away = content["details"]["turned_away"]
    assert away["n"] + away["without"]["n"] == content["n"]
    page = (report / PAGE).read_text(encoding="utf-8")
    assert f"{away['n']} films ({away['normal']} normal" in page


def test_page_tells_that_the_data_are_few_and_names_no_file_or_patient(report: Path, material: Material) -> None:
    page = (report / PAGE).read_text(encoding="utf-8")
    assert "Demonstration data" in page
    assert HOSTILE not in page
    assert not any(film.file in page or film.patient in page for film in material.cohort.films)


@pytest.mark.parametrize(
    "heading",
    [
        "Beside the published study",
        "Missed films",
        "Groups of patients",
        "Is a score a probability?",
        "Does it look at the lungs?",
        "Waiting times",
        "Against another model",
        "Where the network looked",
    ],
)
def test_every_section_is_there_though_films_are_few(report: Path, heading: str) -> None:
    assert f">{heading}</h2>" in (report / PAGE).read_text(encoding="utf-8")


@pytest.mark.peer
def test_page_opens_from_disk_without_complaint_or_request(report: Path, chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto((report / PAGE).as_uri())
    assert page.locator("h1").inner_text() == "Evaluation report"
    assert [text for text in complaints if not text.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    pictures = page.locator("img")
    assert pictures.count() > 0
    assert all(page.evaluate("Array.from(document.images, image => image.naturalWidth > 0)"))
    assert page.locator("figure svg").count() == 6
    assert HOSTILE in page.locator("#groups ~ table").first.inner_text()
    page.close()


def test_opponent_is_read_on_the_same_films_at_its_own_threshold(
    report: Path, bundle: Bundle, other: Bundle, material: Material, config: Config
) -> None:
    summary = Summary.model_validate_json((report / REPORT).read_bytes())
    assert summary.comparison is not None
    labels = [material.cohort.films[place].abnormal for place in material.test]
    ours, theirs = (
        roc_auc_score(labels, [reading.score for reading in read(one, material, config)]) for one in (bundle, other)
    )
    assert summary.comparison.bundle_digest == other.digest
    assert summary.comparison.auc_difference == pytest.approx(ours - theirs)


def test_command_evaluates_a_folder_and_prints_the_figures(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    table = write_films(tmp_path / "films", {"test": 8, "train": 4})
    (tmp_path / "films" / "broken.png").write_bytes(b"no picture")
    with table.open("a", newline="") as stream:
        csv.writer(stream).writerows(
            [["broken.png", "P1", "normal", "PA", "F", "50"], ["missing.png", "P2", "normal", "PA", "F", "50"]]
        )
    out = tmp_path / "out"
    arguments = ["--folder", str(table.parent), "--csv", str(table), "--out", str(out)]
    outcome = run(folder, bundle, *arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "12 films of 12 patients: 6 normal, 6 abnormal" in outcome.output
    assert "demonstration data" in outcome.output
    content = json.loads((out / REPORT).read_text())
    assert content["identity"]["scheme"] == "none"
    assert len(content["details"]["maps"]["planted_opacities"]) == 16
    assert content["details"]["excluded"] == {"the file is missing": 1, "the file is not a picture": 1}
    again = run(folder, bundle, *arguments)
    assert isinstance(again.exception, TrainingError)
    assert "exists already" in str(again.exception)


def run(folder: Path, bundle: Bundle, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["evaluate", "--bundle", str(bundle.folder), "--config", str(folder / "config.yaml"), *arguments]
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("2026-11-02T08:15:00\nsoon\n", "line 2: is no time"),
        ("2026-11-02T08:15:00\n", "two times or more"),
        ("2026-11-02T08:15:00\n2026-11-02T08:15:00+01:00\n", "all with a zone or all without"),
    ],
)
def test_bad_arrivals_are_named_before_anything_is_read(
    folder: Path, bundle: Bundle, cohort: Cohort, tmp_path: Path, content: str, fault: str
) -> None:
    (tmp_path / "arrivals.txt").write_text(content)
    arguments = ["--cohort", str(cohort.folder), "--arrivals", str(tmp_path / "arrivals.txt")]
    outcome = run(folder, bundle, *arguments, "--out", str(tmp_path / "out"))
    assert isinstance(outcome.exception, TrainingError)
    assert fault in str(outcome.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--folder", "x"],
        ["--cohort", "x", "--folder", "y", "--csv", "z"],
        ["--cohort", "x", "--random-split-bundle", "y"],
    ],
)
def test_arguments_that_do_not_go_together_are_wrong_usage(
    folder: Path, bundle: Bundle, tmp_path: Path, arguments: list[str]
) -> None:
    outcome = run(folder, bundle, "--out", str(tmp_path / "out"), *arguments)
    assert isinstance(outcome.exception, UsageError)


def test_films_of_one_label_are_refused_with_counts(config: Config, tmp_path: Path) -> None:
    table = write_films(tmp_path / "films", {"test": 4})
    table.write_text(table.read_text().replace(",normal,", ",abnormal,"))
    with pytest.raises(TrainingError, match=r"0 normal and 4 abnormal films .*add films of the other label"):
        from_folder(table.parent, table, NoDecoder(), key=KEY, unknown_age="analyse", watcher=Silent())


def test_bundle_of_another_preprocessing_is_refused(
    folder: Path, bundle: Bundle, cohort: Cohort, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    content = dump_description(bundle.description.model_copy(update={"preprocessing_hash": "0" * 64}))
    for name in (WEIGHTS, FEATURES, CARD):
        (foreign / name).hardlink_to(bundle.folder / name)
    (foreign / DESCRIPTION).write_bytes(content)
    recorded = json.loads((bundle.folder / MANIFEST).read_bytes())
    recorded["files"][DESCRIPTION] = hashlib.sha256(content).hexdigest()
    (foreign / MANIFEST).write_bytes(json.dumps(recorded, sort_keys=True, separators=(",", ":")).encode())
    outcome = run(folder, replace(bundle, folder=foreign), "--cohort", str(cohort.folder), "--out", str(tmp_path / "o"))
    assert isinstance(outcome.exception, BundleError)
    assert "preprocessing" in str(outcome.exception)
    assert not (tmp_path / "o").exists()


def test_films_that_are_gone_are_refused_with_counts(
    bundle: Bundle, config: Config, cohort: Cohort, tmp_path: Path
) -> None:
    fresh = config.model_copy(update={"data_folder": tmp_path / "elsewhere"})
    moved = replace(cohort, root=tmp_path)
    with pytest.raises(TrainingError, match="of 12 films are not what they were"):
        evaluate(bundle, from_cohort(moved), tmp_path / "out", fresh, NoDecoder(), options=FEW)
    assert not (tmp_path / "out").exists()


def test_random_split_must_be_one(bundle: Bundle, material: Material, config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--paper-split"):
        evaluate(
            bundle,
            material,
            tmp_path / "out",
            config,
            NoDecoder(),
            options=replace(FEW, random_split=(bundle, material)),
        )


def test_leakage_is_the_difference_of_the_two_and_no_operating_point_is_shown_as_such(
    bundle: Bundle, other: Bundle, material: Material, config: Config, tmp_path: Path
) -> None:
    undecided = altered(bundle, operating_point=None)
    options = replace(FEW, random_split=(other, replace(material, scheme="paper")))
    summary = evaluate(undecided, material, tmp_path / "out", config, NoDecoder(), options=options)
    assert summary.operating_point is None
    assert summary.misses == ()
    assert "it can never say" in (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    found = json.loads((tmp_path / "out" / REPORT).read_text())["details"]["random_split"]
    assert found["difference"]["value"] == pytest.approx(found["auc"] - summary.auc)


def test_full_disk_leaves_no_report(tmp_path: Path) -> None:
    too_long = "a" * 300
    with pytest.raises(StorageError):
        write_report(tmp_path / too_long, {}, "")
    assert list(tmp_path.iterdir()) == []
