import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import resnet152

from clearfilm.config import Heatmap, Worker
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.engine import Engine
from clearfilm.vision.network import build, forward

EXACT = ["GradCAM", "HiResCAM", "XGradCAM"]
RESCALED = ["GradCAMPlusPlus", "LayerCAM", "EigenCAM"]


def test_map_is_that_of_the_library_on_torchvisions_network(
    weights: dict[str, torch.Tensor], films: np.ndarray
) -> None:
    plain = resnet152(num_classes=1)
    three = {**weights, "conv1.weight": weights["conv1.weight"].expand(-1, 3, -1, -1) / 3}
    plain.load_state_dict(three, strict=False)
    inputs = torch.from_numpy(films)[:, None] / 255
    with GradCAM(model=plain, target_layers=[plain.layer4[-1]]) as cam:
        expected = cam(input_tensor=inputs.expand(-1, 3, -1, -1), targets=[ClassifierOutputTarget(0)] * len(films))
    with torch.inference_mode():
        maps = forward(build({key: tensor.clone() for key, tensor in weights.items()}), inputs).maps.numpy()
    ours = scale_cam_image(scale_cam_image(np.maximum(maps, 0), films.shape[:0:-1]))
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("method", EXACT)
def test_methods_in_log_odds_give_the_default_map(bundle: Bundle, films: np.ndarray, method: str) -> None:
    default = Engine(bundle, Worker(device="cpu", precision="fp32"), Heatmap()).run(films)
    other = Engine(bundle, Worker(device="cpu", precision="fp32"), Heatmap(method=method)).run(films)
    for expected, got in zip(default, other, strict=True):
        np.testing.assert_allclose(got.evidence, expected.evidence, atol=1e-4 * np.abs(expected.evidence).max())
        assert got.logit == expected.logit


@pytest.mark.parametrize("method", RESCALED)
def test_other_methods_peak_where_the_films_own_evidence_does(bundle: Bundle, films: np.ndarray, method: str) -> None:
    default = Engine(bundle, Worker(device="cpu", precision="fp32"), Heatmap()).run(films)
    engine = Engine(bundle, Worker(device="cpu", precision="fp32"), Heatmap(method=method))
    for expected, got in zip(default, engine.run(films), strict=True):
        assert got.evidence.shape == expected.evidence.shape
        assert got.evidence.min() >= 0
        peak = got.evidence.max()
        # A map without any positive value of its own stays empty.
        assert peak == 0 or peak == pytest.approx(max(0, expected.evidence.max()), rel=1e-4)
    assert [r.evidence.max() for r in engine.run(films)] == pytest.approx([r.evidence.max() for r in engine.run(films)])
