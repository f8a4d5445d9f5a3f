from dataclasses import replace

import numpy as np
import pytest
import torch

from clearfilm.config import Heatmap, Worker
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.engine import Engine
from clearfilm.vision.network import choose_dtype

FP32 = Worker(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, FP32, Heatmap())


def changed(bundle: Bundle, **update: object) -> Bundle:
    return replace(bundle, description=bundle.description.model_copy(update=update))


def test_evidence_adds_up_to_the_logit(engine: Engine, films: np.ndarray) -> None:
    for reading in engine.run(films):
        assert reading.evidence.dtype == np.float32
        assert reading.evidence.mean(dtype=np.float64) + engine.bias == pytest.approx(reading.logit, abs=1e-5)
        assert reading.score == pytest.approx(1 / (1 + np.exp(-reading.logit)))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_result_of_a_film_does_not_depend_on_its_batch(
    bundle: Bundle, films: np.ndarray, precision: str, tolerance: float
) -> None:
    engine = Engine(bundle, Worker(device="cpu", precision=precision, batch_size=8), Heatmap())
    together = engine.run(np.concatenate([films, films[::-1]]))
    for film, first, second in zip(films, together[:3], together[:2:-1], strict=True):
        alone = engine.run(film[None])[0]
        for other in (first, second):
            assert other.logit == pytest.approx(alone.logit, abs=tolerance)
            assert other.distance == pytest.approx(alone.distance, abs=tolerance)


def test_more_films_than_the_batch_size_come_back_in_order(bundle: Bundle, engine: Engine, films: np.ndarray) -> None:
    small = Engine(bundle, FP32.model_copy(update={"batch_size": 2}), Heatmap())
    expected = [reading.logit for reading in engine.run(films)]
    assert [reading.logit for reading in small.run(films)] == pytest.approx(expected, abs=1e-4)
    assert small.run(films[:0]) == []


def test_film_below_the_threshold_is_below_and_one_at_it_is_not(
    bundle: Bundle, engine: Engine, films: np.ndarray
) -> None:
    point = bundle.description.operating_point
    assert point is not None
    score = engine.run(films[:1])[0].score
    for threshold, below in ((score, False), (float(np.nextafter(score, 1)), True)):
        moved = changed(bundle, operating_point=point.model_copy(update={"threshold": threshold}))
        assert Engine(moved, FP32, Heatmap()).run(films[:1])[0].below_operating_point is below


def test_bundle_without_operating_point_never_says_below(bundle: Bundle, films: np.ndarray) -> None:
    without = changed(bundle, operating_point=None)
    assert not any(r.below_operating_point for r in Engine(without, FP32, Heatmap()).run(films))


def test_film_far_from_the_known_ones_is_unusual(bundle: Bundle, engine: Engine, films: np.ndarray) -> None:
    distance = engine.run(films[:1])[0].distance
    for threshold, unusual in ((distance * 1.01, False), (distance * 0.99, True)):
        gate = bundle.description.feature_gate.model_copy(update={"threshold": threshold})
        reading = Engine(changed(bundle, feature_gate=gate), FP32, Heatmap()).run(films[:1])[0]
        assert reading.unusual is unusual


def test_films_of_another_size_or_type_are_refused(engine: Engine, films: np.ndarray) -> None:
    for wrong in (films[:, :-1], films.astype(np.float32), films[0]):
        with pytest.raises(ValueError, match="films must be"):
            engine.run(wrong)


def test_description_names_what_computes(engine: Engine) -> None:
    assert "cpu" in engine.describe()
    assert "fp32" in engine.describe()
    assert torch.__version__ in engine.describe()


def test_configured_precision_is_taken_and_auto_is_one_of_them() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("fp32", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
