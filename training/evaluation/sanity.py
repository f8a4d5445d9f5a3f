"""Whether a bundle's maps follow its weights and the picture.

Three questions. Do maps change when the weights are drawn at random (J. Adebayo et al., Sanity checks for saliency
maps, NeurIPS 2018)? Does the evidence lie in the chest? Do score and map find opacities whose place is known?
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torchvision.models import ResNet

from clearfilm.evaluation import Sanity
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.network import as_tensor, build, convert, fold, forward, stages
from clearfilm.vision.placing import CENTRE
from training.evaluation.chest import Mask, find_chest
from training.evaluation.pointing import Films, Found, Maps, sweep
from training.progress import Silent, Watcher, watched

# What makes a bundle pass. Maps of unrelated networks lie near 0, on a few films up to 0.2.
HIGHEST_SIMILARITY: Final = 0.3
# Evidence spread evenly lies outside as much as the film does; the maps are to be better than that.
HIGHEST_OUTSIDE: Final = 0.9  # of the share of the film outside the chest

# Enough for two digits; about a minute on two cores.
MOST_FILMS: Final = 40
MOST_PLANTED: Final = 24
SIZES: Final = (0.04, 0.08, 0.12, 0.16)
CONTRASTS: Final = (0.1, 0.2, 0.3, 0.4)
DRAWS: Final = 5
_BATCH: Final = 16
# Drawn at random one after the other, from the logit backwards.
_BLOCKS: Final = ("layer4.2", "layer4.1", "layer4.0")
_WINDOW: Final = 3  # cells
_LUMINANCE, _STRUCTURE = 0.01**2, 0.03**2  # of SSIM, for values from 0 to 1


@dataclass(frozen=True)
class Randomised:
    """Maps before and after a part of the weights was drawn at random; means over films and draws.

    Parameters
    ----------
    part : str
        "head", or the first of the blocks that were drawn with everything after it.
    similarity : float
        Structural similarity (Z. Wang et al., IEEE Transactions on Image Processing 2004) in windows of 3 x 3 cells,
        maps stretched to 0 to 1: 1 is the same map, 0 none.
    rank_correlation : float
        Spearman's, over the cells.
    rank_correlation_size : float
        Mean of its absolute value: a map that is only turned into its negative gives 1 here.
    """

    part: str
    similarity: float
    rank_correlation: float
    rank_correlation_size: float


@dataclass(frozen=True)
class Outside:
    """Where positive evidence lies.

    Parameters
    ----------
    evidence : float
        Share of positive evidence outside the chest, mean over films.
    film : float
        Share of the film outside the chest, mean over the same films: what evenly spread evidence would give.
    films : int
        With positive evidence and a lung that was found.
    without_evidence, without_lungs : int
        Films left out.
    fell_back : int
        Of `films`, those where one lung was not found and the other's mirror image stands in.
    """

    evidence: float
    film: float
    films: int
    without_evidence: int
    without_lungs: int
    fell_back: int


@dataclass(frozen=True)
class Examination:
    """Everything about a bundle's maps."""

    summary: Sanity
    randomised: tuple[Randomised, ...]
    """Head first, then more and more of the last stage; the last one counts."""
    outside: Outside
    planted: tuple[Found, ...]
    """All sizes with all contrasts; empty without clear films."""


def examine(
    bundle: Bundle,
    films: Films,
    clear: NDArray[np.bool_],
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Examination:
    """Examine a bundle's maps.

    Parameters
    ----------
    bundle : Bundle
        Verified by `clearfilm.vision.bundle.load_bundle`.
    films : numpy.ndarray
        uint8, shape ``(n, edge, edge)``, as from `clearfilm.dicom.pixels.network_input`, which the network did not
        learn from. Of many an even choice is taken, so that the time is bounded.
    clear : numpy.ndarray
        bool, shape ``(n,)``: films without finding, which opacities can be planted in.
    device, dtype
        Where and in which number type the network computes.
    seed : int
        Of weights and places drawn at random.
    watcher : Watcher, optional

    Returns
    -------
    Examination
    """
    described = bundle.description
    network = fold(build(bundle.weights()), mean=described.input_mean, std=described.input_std)
    network = convert(network, device=device, dtype=dtype)
    return examine_network(network, described.input_mean, films, clear, seed=seed, watcher=watcher)


def examine_network(
    network: ResNet,
    mean: float,
    films: Films,
    clear: NDArray[np.bool_],
    *,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Examination:
    """As `examine`, for a network from `clearfilm.vision.network.fold` on its device.

    Parameters
    ----------
    network : torchvision.models.ResNet
        Is not changed.
    mean : float
        As in `clearfilm.vision.network.fold`.
    films, clear, seed, watcher
        As in `examine`.
    """
    watcher = watcher or Silent()
    reader = _Network(network, mean)
    chosen = _evenly(films, MOST_FILMS)
    thirds = reader.third_stage(chosen)
    maps = reader.maps_of(thirds)
    randomised = tuple(_randomise(reader, thirds, maps, seed, watcher))
    outside = evidence_outside(maps, chosen)
    kinds = list(product(SIZES, CONTRASTS))
    planted = sweep(reader.read, _evenly(films[clear], MOST_PLANTED), kinds, seed, watcher) if clear.any() else ()
    similarity = randomised[-1].similarity
    return Examination(
        summary=Sanity(
            outside_chest=outside.evidence,
            randomised_similarity=similarity,
            passed=passes(similarity, outside),
        ),
        randomised=randomised,
        outside=outside,
        planted=planted,
    )


def passes(similarity: float, outside: Outside) -> bool:
    """Whether maps change with the weights and lie in the chest more than by chance; not if nothing was measured."""
    return outside.films > 0 and similarity <= HIGHEST_SIMILARITY and outside.evidence <= HIGHEST_OUTSIDE * outside.film


def _evenly(films: Films, most: int) -> Films:
    return films[np.linspace(0, len(films) - 1, min(most, len(films))).round().astype(np.int64)]


class _Network:
    """A folded network, whose last stage can be run alone."""

    def __init__(self, network: ResNet, mean: float) -> None:
        self.network, self._mean = network, mean
        self._like = network.conv1.weight

    def _tensors(self, films: Films) -> Iterator[Tensor]:
        for at in range(0, len(films), _BATCH):
            yield as_tensor(films[at : at + _BATCH], mean=self._mean, device=self._like.device, dtype=self._like.dtype)

    @torch.inference_mode()
    def read(self, films: Films) -> tuple[NDArray[np.float64], Maps]:
        """Logits and maps, not calibrated: see `training.evaluation.pointing.Reader`."""
        results = [forward(self.network, films_of_batch) for films_of_batch in self._tensors(films)]
        logits = torch.cat([one.logits for one in results]).double().cpu().numpy()
        return logits, torch.cat([one.maps for one in results]).cpu().numpy()

    @torch.inference_mode()
    def third_stage(self, films: Films) -> list[Tensor]:
        """What the last stage starts from, by batches."""
        return [stages(self.network, films_of_batch) for films_of_batch in self._tensors(films)]

    @torch.inference_mode()
    def maps_of(self, thirds: Sequence[Tensor], last: nn.Module | None = None, head: Tensor | None = None) -> Maps:
        """Maps by the network's own last stage and head, or by others."""
        last = self.network.layer4 if last is None else last
        head = self.network.fc.weight[0].float() if head is None else head
        maps = [torch.einsum("fcij,c->fij", last(third).float(), head) for third in thirds]
        return torch.cat(maps).cpu().numpy()


def _randomise(
    reader: _Network, thirds: Sequence[Tensor], maps: Maps, seed: int, watcher: Watcher
) -> Iterator[Randomised]:
    parts = ("head", *_BLOCKS)
    for count, part in enumerate(watched(parts, "drawing weights at random", len(parts), watcher)):
        drawn = []
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(seed * DRAWS + draw)
            head = _drawn(reader.network.fc.weight[0].float(), generator)
            last = copy.deepcopy(reader.network.layer4)
            for name in _BLOCKS[:count]:
                for parameter in last.get_submodule(name.partition(".")[2]).parameters():
                    parameter.data = _drawn(parameter.data, generator)
            drawn.append(reader.maps_of(thirds, last, head))
        pairs = [(one, other) for after in drawn for one, other in zip(maps, after, strict=True)]
        correlations = np.array([rank_correlation(one, other) for one, other in pairs])
        yield Randomised(
            part=part,
            similarity=float(np.mean([structural_similarity(one, other) for one, other in pairs])),
            rank_correlation=float(correlations.mean()),
            rank_correlation_size=float(np.abs(correlations).mean()),
        )


def _drawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Normally distributed about 0, as large as the tensor's own values; of the same memory format."""
    size = tensor.float().square().mean().sqrt().item()
    values = torch.empty(tensor.shape).normal_(0, 1, generator=generator) * size
    return torch.empty_like(tensor).copy_(values)


def structural_similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """SSIM of two maps of a shape, each stretched to 0 to 1: 1 for the same map; a constant map has no structure."""
    a, b = _stretched(one), _stretched(other)
    side = min(_WINDOW, *a.shape)
    windows = [
        np.lib.stride_tricks.sliding_window_view(stretched, (side, side)).reshape(-1, side * side)
        for stretched in (a, b)
    ]
    means = [part.mean(axis=1) for part in windows]
    spreads = [part.var(axis=1) for part in windows]
    together = (windows[0] * windows[1]).mean(axis=1) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + _LUMINANCE) / (means[0] ** 2 + means[1] ** 2 + _LUMINANCE)
    structure = (2 * together + _STRUCTURE) / (spreads[0] + spreads[1] + _STRUCTURE)
    return float(np.mean(luminance * structure))


def _stretched(values: NDArray[np.float32]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values.astype(np.float64) - low) / (high - low) if high > low else np.zeros(values.shape)


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's correlation of two maps over their cells; 0 if one of them is constant."""
    ranks = [rankdata(values.ravel()) - (values.size + 1) / 2 for values in (one, other)]
    lengths = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / lengths if lengths else 0.0


def evidence_outside(maps: Maps, films: Films) -> Outside:
    """Share of positive evidence outside the chest.

    Parameters
    ----------
    maps : numpy.ndarray
        Shape ``(n, h, w)``; above 0 is evidence for a finding. A cell on the chest's edge counts by the area around
        the middle of what it looks at.
    films : numpy.ndarray
        uint8, shape ``(n, edge, edge)``.

    Returns
    -------
    Outside
    """
    shares, areas, fell_back, without_evidence, without_lungs = [], [], 0, 0, 0
    for cells, film in zip(np.maximum(maps, 0), films, strict=True):
        found = find_chest(film)
        if not any(found.found):
            without_lungs += 1
        elif not cells.any():
            without_evidence += 1
        else:
            inside = _cell_means(found.chest, cells.shape)
            shares.append(float((cells * (1 - inside)).sum() / cells.sum()))
            areas.append(1 - float(inside.mean()))
            fell_back += found.fell_back
    return Outside(
        evidence=float(np.mean(shares)) if shares else 0.0,
        film=float(np.mean(areas)) if areas else 0.0,
        films=len(shares),
        without_evidence=without_evidence,
        without_lungs=without_lungs,
        fell_back=fell_back,
    )


def _cell_means(mask: Mask, cells: tuple[int, int]) -> NDArray[np.float32]:
    """The share of a mask around the middle of what each cell looks at; beyond the film's edges it goes on."""
    rows, columns = mask.shape
    top, left = (round((0.5 - CENTRE) * size / number) for size, number in zip((rows, columns), cells, strict=True))
    moved = cv2.copyMakeBorder(mask.astype(np.float32), top, 0, left, 0, cv2.BORDER_REPLICATE)[:rows, :columns]
    return np.asarray(cv2.resize(moved, cells[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)
