import numpy as np
import pytest
import torch

from clearfilm.errors import BundleError
from clearfilm.vision.network import as_tensor, build, fold, forward

CPU = torch.device("cpu")


def copy(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in weights.items()}


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.485, 0.226)])
def test_folded_network_gives_what_the_plain_one_gives(
    weights: dict[str, torch.Tensor], films: np.ndarray, mean: float, std: float
) -> None:
    plain, folded = build(copy(weights)), fold(build(copy(weights)), mean=mean, std=std)
    with torch.inference_mode():
        expected = plain((torch.from_numpy(films)[:, None] / 255 - mean) / std)[:, 0]
        got = forward(folded, as_tensor(films, mean=mean, device=CPU, dtype=torch.float32)).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_mean_of_the_map_and_the_bias_make_the_logit(weights: dict[str, torch.Tensor], films: np.ndarray) -> None:
    network = build(copy(weights))
    with torch.inference_mode():
        result = forward(network, torch.from_numpy(films)[:, None] / 255)
    assert result.maps.shape == (3, 2, 2)
    assert result.features.shape == (3, 2048)
    torch.testing.assert_close(result.maps.mean(dim=(1, 2)) + network.fc.bias, result.logits)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_of_another_network_are_refused(weights: dict[str, torch.Tensor], change: str) -> None:
    wrong = dict(weights)
    if change == "missing":
        del wrong["fc.bias"]
    elif change == "unknown":
        wrong["head.weight"] = torch.zeros(1)
    else:
        wrong["fc.weight"] = torch.zeros(2, 2048)
    with pytest.raises(BundleError):
        build(wrong)
