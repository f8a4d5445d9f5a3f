"""The shipped model on real films."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfilm.config import Heatmap, Worker
from clearfilm.dicom.pixels import network_input
from clearfilm.vision.assemble import resolve_bundle
from clearfilm.vision.bundle import Bundle, load_bundle
from clearfilm.vision.engine import Engine

REFERENCE = Path(__file__).resolve().parents[2] / "models" / "reference"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(resolve_bundle(REFERENCE, tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, Worker(device="cpu"), Heatmap())


@pytest.fixture(scope="module")
def films(shared: Path, bundle: Bundle) -> np.ndarray:
    """Every fiftieth film of the cohort."""
    paths = sorted((shared / "data" / "cxr" / "nih").glob("*.jpg"))[::50]
    displays = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    return np.stack([network_input(display, bundle.description.input_edge) for display in displays])


def test_repository_part_is_small(bundle: Bundle) -> None:
    assert sum(path.stat().st_size for path in REFERENCE.iterdir() if path.is_file()) < 31e6
    assert bundle.description.note == "demonstration, NIH films"
    assert bundle.description.operating_point is not None


def test_real_films_are_usual_and_their_maps_explain_their_scores(engine: Engine, films: np.ndarray) -> None:
    readings = engine.run(films)
    assert not any(reading.unusual for reading in readings)
    for reading in readings:
        assert reading.evidence.shape == (7, 7)
        assert reading.evidence.mean(dtype=np.float64) + engine.bias == pytest.approx(reading.logit, abs=1e-4)


def test_precision_does_not_change_decisions_much(bundle: Bundle, films: np.ndarray) -> None:
    exact = Engine(bundle, Worker(device="cpu", precision="fp32"), Heatmap()).run(films[:8])
    rough = Engine(bundle, Worker(device="cpu", precision="bf16"), Heatmap()).run(films[:8])
    for first, second in zip(exact, rough, strict=True):
        assert second.score == pytest.approx(first.score, abs=0.03)


@pytest.mark.parametrize("what", ["noise", "smooth noise", "gradient", "black", "disc", "inverted film"])
def test_pictures_that_are_no_chest_film_are_unusual(engine: Engine, films: np.ndarray, what: str) -> None:
    edge = films.shape[1]
    rng = np.random.default_rng(0)
    pictures = {
        "noise": rng.integers(0, 256, (edge, edge)),
        "smooth noise": network_input(
            cv2.normalize(
                cv2.GaussianBlur(rng.normal(size=(edge, edge)), (0, 0), 16), None, 0, 255, cv2.NORM_MINMAX
            ).astype(np.uint8),
            edge,
        ),
        "gradient": np.tile(np.linspace(0, 255, edge), (edge, 1)),
        "black": np.zeros((edge, edge)),
        "disc": cv2.circle(np.zeros((edge, edge), np.uint8), (edge // 2, edge // 2), edge // 3, 255, -1),
        "inverted film": 255 - films[0],
    }
    assert engine.run(pictures[what].astype(np.uint8)[None])[0].unusual


def test_films_on_their_side_or_upside_down_are_mostly_unusual(engine: Engine, films: np.ndarray) -> None:
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(films, turns, axes=(1, 2)))
        assert np.mean([reading.unusual for reading in engine.run(turned)]) > 0.7
