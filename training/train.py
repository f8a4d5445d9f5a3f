"""Training: one visible loop around the learning part of a ResNet152.

films → cache → batches → loss → step → average → early stop → checkpoint … → bundle
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import ResNet

from clearfilm.config import Config, Training
from clearfilm.dicom.uids import IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import StorageError, TrainingError
from clearfilm.vision.bundle import load_bundle
from clearfilm.vision.network import build, choose_dtype
from training.cache import Store, decode
from training.checkpoint import Checkpoint, Epoch, Progress, flatten, latest, of_epoch, save, unflatten
from training.cohort import ABNORMAL, NORMAL, Cohort, describe
from training.data import Batches, Source, make_source
from training.films import Decoder
from training.finish import BUNDLE, Lineage, fewest_abnormal_patients, write_trained_bundle
from training.model import Frozen, Learner, Start, starting_weights
from training.probe import fit_probe
from training.processes import Team, joined
from training.progress import Silent, Watcher
from training.ranking import criterion
from training.run_folder import run_folder

CHECKPOINTS: Final = "checkpoints"
CACHE: Final = "training-cache"
_EVALUATION_BATCH = 32
# The moving average would otherwise remember the untrained weights for long: it begins as a short one.
_AVERAGE_RAMP = 10
_LEARNED_PARTS = ("train", "stop", "calibrate")


def train(
    cohort: Cohort,
    out: Path,
    config: Config,
    decoder: Decoder,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    begun: Callable[[], None] | None = None,
) -> Path | None:
    """Train on a cohort and write a model bundle.

    Parameters
    ----------
    cohort : Cohort
    out : pathlib.Path
        Run folder: ``checkpoints/``, `run.json` and, at the end, ``bundle/``. With several processes all see it.
    config : Config
        Sections `training` and `worker` (device, precision, threads); decoded films go below the data folder.
    decoder : Decoder
    resume : bool
        Go on with the run in `out`. It ends with the same weights as one that was never interrupted.
    watcher : Watcher, optional
    begun : callable, optional
        Called once, by the first of several processes, when the run's folder is locked and there is work to do.

    Returns
    -------
    pathlib.Path or None
        The bundle; None in all but the first of several processes.

    Raises
    ------
    TrainingError
        If the cohort cannot be learned from, the run is another one, the loss is not finite, or a device is lost.
    BundleError
        If the starting weights are damaged.
    StorageError
        If the disk refused; the last checkpoint is whole.
    """
    check_labels(cohort)
    with joined(config.worker.device) as team:
        watcher = watcher if watcher is not None and team.is_first else Silent()
        _configure(config, team)
        with run_folder(cohort, out, config.training, team, resume=resume):
            bundle = out / BUNDLE
            if bundle.is_dir():
                watcher.say(f"the run is finished: bundle {load_bundle(bundle).digest[:12]}")
                return bundle if team.is_first else None
            if begun is not None and team.is_first:
                begun()
            with _named_device_faults(out):
                return _Run(cohort, out, config, decoder, team, watcher).run()


def check_labels(cohort: Cohort) -> None:
    """Refuse a cohort that nothing can be learned from or calibrated on. Raises TrainingError with the counts."""
    counts = {part: cohort.counts().get(part, {NORMAL: 0, ABNORMAL: 0}) for part in _LEARNED_PARTS}
    missing = [
        f"{part} has {row[NORMAL]} normal and {row[ABNORMAL]} abnormal"
        for part, row in counts.items()
        if not (row[NORMAL] and row[ABNORMAL])
    ]
    if missing:
        raise TrainingError(
            f"the cohort needs films of both labels in train, stop and calibrate, but {'; '.join(missing)} films: "
            f"add films (left out so far: {describe(cohort.manifest.excluded)})"
        )


@dataclass(eq=False)
class _State:
    """What changes while a run goes on."""

    network: ResNet
    learner: Learner
    learning: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    names: list[str]  # of the optimizer's parameters
    progress: Progress


class _Run:
    """One run, from films to bundle."""

    def __init__(
        self, cohort: Cohort, out: Path, config: Config, decoder: Decoder, team: Team, watcher: Watcher
    ) -> None:
        self.cohort, self.out, self.settings, self.decoder = cohort, out, config.training, decoder
        self.team, self.watcher, self.config = team, watcher, config
        self.cache = config.data_folder / CACHE
        self.precision = choose_dtype(config.worker.precision, team.device)
        self.labels = np.array([film.abnormal for film in cohort.films], dtype=np.float32)
        self.weight = self._label_weight()

    def run(self) -> Path | None:
        """All steps."""
        self._warn()
        store = self._first_on_each_machine(
            lambda watcher: decode(self.cohort, self.settings.edge, self.cache, self.decoder, watcher)
        )
        start = self._start(store)
        if start.split_key not in (None, self.cohort.manifest.split_key):
            self.watcher.say(
                f"warning: the patients of {start.origin} were split with another key: it may have learned from test "
                "patients of this cohort, and figures will flatter"
            )
        frozen = Frozen(start, self.settings, self.team.device, self.precision)
        source = self._first_on_each_machine(
            lambda watcher: make_source(
                self.cohort, store, start, frozen, self.settings, self.team.device, self.cache, watcher
            )
        )
        state = self._prepare(start, source)
        self._learn(state, source)
        if not self.team.is_first:
            return None
        return self._finish(state, start, store)

    # Before the loop

    def _warn(self) -> None:
        if self.settings.init == "random":
            self.watcher.say("warning: random starting weights need many thousands of films")
        if self.cohort.manifest.shared_patients:
            self.watcher.say(
                f"warning: {self.cohort.manifest.shared_patients} patients are in several parts: figures will flatter"
            )
        films = [self.cohort.films[place] for place in self.cohort.of("calibrate")]
        patients = len({film.patient for film in films if film.abnormal})
        for sensitivity in self.settings.sensitivities:
            needed = fewest_abnormal_patients(sensitivity, self.settings.confidence)
            if patients >= needed:
                return
            self.watcher.say(
                f"warning: {patients} abnormal patients to calibrate on; {needed} are needed to guarantee "
                f"{sensitivity:.1%} sensitivity"
            )
        self.watcher.say(
            'warning: no operating point can be fitted: the bundle will never say "no significant finding"'
        )

    def _first_on_each_machine(self, work: Any) -> Any:
        """Fill the cache once a machine; the others find it filled."""
        result = work(self.watcher) if self.team.local_rank == 0 else None
        self.team.wait()
        return result if self.team.local_rank == 0 else work(Silent())

    def _start(self, store: Store) -> Start:
        sample = store.wide[:: max(1, len(store.wide) // 256)] / np.float32(255)
        mean, std = round(float(sample.mean()), 4), round(float(sample.std()), 4)
        return starting_weights(self.settings.init, seed=self.settings.seed, mean=mean, std=max(std, 1e-3))

    def _prepare(self, start: Start, source: Source) -> _State:
        torch.manual_seed(self.settings.seed)
        network = build({name: tensor.clone() for name, tensor in start.weights.items()})
        learner = Learner(network, self.settings, self.precision).to(self.team.device)
        learning = learner.learning(network)
        optimizer, names = make_optimizer(learning, self.settings)
        found = latest(self.out / CHECKPOINTS)
        state = _State(network, learner, learning, {}, optimizer, names, Progress())
        if found is not None:
            _restore(state, found)
            self.watcher.say(f"resumed after epoch {found.progress.done}")
        elif self.settings.linear_probe:
            places = self.cohort.of("train")
            pooled = self._pooled(learner, source, places)
            fit_probe(network.fc, pooled, self.labels[places], self.settings.probe_strength)
        if not state.average:
            state.average = {name: tensor.detach().clone() for name, tensor in learning.items()}
        return state

    def _pooled(self, learner: Learner, source: Source, places: list[int]) -> NDArray[np.float32]:
        learner.eval()
        groups = [places[at : at + _EVALUATION_BATCH] for at in range(0, len(places), _EVALUATION_BATCH)]
        with torch.no_grad():
            parts = [learner.pooled(source.to_learner(source.plain(group))).cpu().numpy() for group in groups]
        return np.concatenate(parts)

    def _label_weight(self) -> float:
        """Weight of an abnormal film in the loss; 1 unless one label is rare."""
        labels = self.labels[self.cohort.of("train")]
        abnormal = float(labels.mean())
        if max(abnormal, 1 - abnormal) <= self.settings.balance_above:
            return 1.0
        return (1 - abnormal) / abnormal

    # The loop

    def _learn(self, state: _State, source: Source) -> None:
        batches = Batches(self.cohort.of("train"), self.labels, source, self.settings, self.team.rank, self.team.world)
        shared: nn.Module = state.learner
        if self.team.world > 1:
            shared = DistributedDataParallel(state.learner)
        board = _board(self.out) if self.settings.tensorboard and self.team.is_first else None
        ended = time.monotonic()
        while not self._is_over(state.progress):
            number = state.progress.done + 1
            began = ended  # the checkpoint of the epoch before counts as time outside the network
            loss, busy, films = self._pass(number, state, shared, batches, source)
            scored = time.monotonic()
            auc, part, value = self._score(state, source)
            busy += time.monotonic() - scored
            ended = time.monotonic()
            seconds = ended - began
            epoch = Epoch(
                number=number,
                loss=loss,
                auc=auc,
                partial_auc=part,
                criterion=value,
                films_per_second=films / seconds,
                seconds=seconds,
                outside_network=1 - busy / seconds,
            )
            state.progress = Progress(step=state.progress.step + batches.steps, epochs=(*state.progress.epochs, epoch))
            self._tell(state.progress, board)
            if self.team.is_first:
                save(self.out / CHECKPOINTS, _checkpoint(state))
            self.team.wait()

    def _is_over(self, progress: Progress) -> bool:
        best = progress.best
        stale = progress.done - best.number if best else 0
        return progress.done >= self.settings.epochs or stale >= self.settings.patience

    def _pass(
        self, number: int, state: _State, shared: nn.Module, batches: Batches, source: Source
    ) -> tuple[float, float, int]:
        """One pass over the training films: mean loss, seconds inside the network, films."""
        torch.manual_seed(
            int(np.random.SeedSequence((self.settings.seed, number, self.team.rank)).generate_state(1)[0])
        )
        state.learner.train()
        self.watcher.begin(f"epoch {number} of at most {self.settings.epochs}", batches.steps)
        total, busy, began = 0.0, 0.0, time.monotonic()
        for step, micro_batches in enumerate(batches.epoch(number)):
            started = time.monotonic()
            _set_rates(state.optimizer, state.progress.step + step, batches.steps, self.settings)
            state.optimizer.zero_grad()
            for place, batch in enumerate(micro_batches):
                last = place == len(micro_batches) - 1
                # Gradients are exchanged once a step.
                with nullcontext() if last or self.team.world == 1 else shared.no_sync():  # type: ignore[operator]
                    total += self._accumulate(shared, source, batch.inputs, batch.targets, batches.batch_size)
            norm = nn.utils.clip_grad_norm_(state.learner.parameters(), self.settings.clip)
            if not math.isfinite(norm):
                raise TrainingError(
                    f"the loss is not finite in epoch {number}, step {step + 1} of {batches.steps} "
                    f"({batches.batch_size} films): lower training.learning_rate or set worker.precision=fp32; "
                    f"--resume goes on from epoch {number - 1}"
                )
            state.optimizer.step()
            _move_average(state, state.progress.step + step, self.settings.average_decay)
            busy += time.monotonic() - started
            films = (step + 1) * batches.batch_size
            rate = films / (time.monotonic() - began)
            self.watcher.advance(f"loss {total * self.team.world / (step + 1):.4f}, {rate:.1f} films/s")
        sums = self.team.add(torch.tensor([total], dtype=torch.float64, device=self.team.device))
        return float(sums) / batches.steps, busy, batches.steps * batches.batch_size

    def _accumulate(self, shared: nn.Module, source: Source, inputs: Tensor, targets: Tensor, films: int) -> float:
        """Add the gradient of one micro-batch; its share of the step's loss."""
        wanted = targets.to(self.team.device)
        logits = shared(source.to_learner(inputs))
        weights = 1 + (self.weight - 1) * wanted
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="sum")
        share = losses / films
        # Several processes average their gradients, which are sums here.
        (share * self.team.world).backward()
        return share.item()

    def _score(self, state: _State, source: Source) -> tuple[float, float, float]:
        """AUC, partial area and criterion of the averaged weights on the stop patients."""
        places = self.cohort.of("stop")
        with _weights_of(state.learning, state.average):
            logits = self._logits(state.learner, source, places)
        if not np.isfinite(logits).all():
            raise TrainingError(f"{int((~np.isfinite(logits)).sum())} of {len(logits)} stop films have no finite score")
        return criterion(self.labels[places], logits)

    def _logits(self, learner: Learner, source: Source, places: list[int]) -> NDArray[np.float64]:
        """Each process does its share."""
        learner.eval()
        logits = torch.zeros(len(places), dtype=torch.float64, device=self.team.device)
        own = range(self.team.rank, len(places), self.team.world)
        with torch.no_grad():
            for at in range(0, len(own), _EVALUATION_BATCH):
                chosen = list(own[at : at + _EVALUATION_BATCH])
                inputs = source.to_learner(source.plain([places[place] for place in chosen]))
                logits[chosen] = learner(inputs).double()
        return self.team.add(logits).cpu().numpy()

    def _tell(self, progress: Progress, board: Any) -> None:
        epoch, best = progress.epochs[-1], progress.best
        assert best is not None
        left = epoch.seconds * (self.settings.epochs - progress.done)
        self.watcher.say(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, AUC {epoch.auc:.4f}, specificity at 95-100 % sensitivity "
            f"{epoch.partial_auc:.4f}, {epoch.films_per_second:.1f} films/s, {epoch.outside_network:.1%} outside the "
            f"network, best is epoch {best.number}, at most {left / 60:.0f} min left"
        )
        if board is not None:
            for name in ("loss", "auc", "partial_auc", "films_per_second"):
                board.add_scalar(name, getattr(epoch, name), epoch.number)

    # After the loop

    def _finish(self, state: _State, start: Start, store: Store) -> Path:
        best = state.progress.best
        assert best is not None
        weights = {**start.weights, **of_epoch(self.out / CHECKPOINTS, best.number).average}
        lineage = Lineage(
            origin=start.origin,
            mean=start.mean,
            std=start.std,
            epochs=state.progress.done,
            best=best.number,
            code_version=IMPLEMENTATION_VERSION_NAME,
            when=datetime.now(UTC),
        )
        bundle = self.out / BUNDLE
        write_trained_bundle(
            bundle, self.cohort, store, weights, self.settings, lineage, self.team.device, self.precision, self.watcher
        )
        return bundle


def make_optimizer(learning: Mapping[str, Tensor], settings: Training) -> tuple[torch.optim.AdamW, list[str]]:
    """AdamW with its groups: stages and head have their own rates, batch norm and biases do not decay.

    Returns
    -------
    optimizer : torch.optim.AdamW
        Each group has its rate under "full" too.
    names : list of str
        Of the parameters, in the optimizer's order.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    for name, tensor in learning.items():
        if isinstance(tensor, nn.Parameter):
            rate = settings.head_learning_rate if name.startswith("fc.") else settings.learning_rate
            decay = settings.weight_decay if tensor.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(name)
    optimizer = torch.optim.AdamW(
        [
            {"params": [learning[name] for name in names], "lr": rate, "full": rate, "weight_decay": decay}
            for (rate, decay), names in groups.items()
        ],
        fused=True,
    )
    return optimizer, [name for names in groups.values() for name in names]


def rate_factor(step: int, steps_per_epoch: int, settings: Training) -> float:
    """Share of the full learning rate: a linear rise, then half a cosine down to 0 at the last epoch's end."""
    total = settings.epochs * steps_per_epoch
    warm_up = min(settings.warm_up_epochs * steps_per_epoch, total / 2)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (1 + math.cos(math.pi * (step - warm_up) / max(1.0, total - warm_up))) / 2


def _set_rates(optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, settings: Training) -> None:
    factor = rate_factor(step, steps_per_epoch, settings)
    for group in optimizer.param_groups:
        group["lr"] = group["full"] * factor


def _move_average(state: _State, step: int, decay: float) -> None:
    weight = 1 - min(decay, (step + 1) / (step + _AVERAGE_RAMP))
    with torch.no_grad():
        for name, mean in state.average.items():
            mean.lerp_(state.learning[name], weight)


@contextmanager
def _weights_of(learning: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in the network for a while."""
    kept = {name: tensor.detach().clone() for name, tensor in learning.items()}
    _copy_into(learning, others)
    try:
        yield
    finally:
        _copy_into(learning, kept)


def _copy_into(learning: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in learning.items():
            tensor.copy_(others[name])


def _checkpoint(state: _State) -> Checkpoint:
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments = {
        name: {key: value.detach().cpu().contiguous() for key, value in state.optimizer.state[parameter].items()}
        for name, parameter in zip(state.names, parameters, strict=True)
    }
    return Checkpoint(
        progress=state.progress,
        weights={name: tensor.detach().cpu().contiguous() for name, tensor in state.learning.items()},
        average={name: tensor.detach().cpu().contiguous() for name, tensor in state.average.items()},
        optimizer=flatten(moments),
    )


def _restore(state: _State, found: Checkpoint) -> None:
    if found.weights.keys() != state.learning.keys():
        raise TrainingError("the checkpoint has other weights than the run: training.train was changed")
    _copy_into(state.learning, found.weights)
    state.average = {name: found.average[name].to(tensor.device) for name, tensor in state.learning.items()}
    moments = unflatten(found.optimizer)
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(state.names, parameters, strict=True):
        # AdamW keeps its step counter on the CPU.
        state.optimizer.state[parameter] = {
            key: value if key == "step" else _like(value, parameter) for key, value in moments[name].items()
        }
    state.progress = found.progress


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """With the parameter's memory format, so that a resumed run adds in the same order."""
    return torch.empty_like(parameter).copy_(value)


def _configure(config: Config, team: Team) -> None:
    threads = config.worker.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, threads // (team.world if team.device.type == "cpu" else 1)))
    # The tiny weights of the base network otherwise run several times slower.
    torch.set_flush_denormal(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism asks for on CUDA
    torch.use_deterministic_algorithms(True, warn_only=True)
    # For finding faults only, and slow.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def _named_device_faults(out: Path) -> Iterator[None]:
    """Errors of torch and of the disk in words that tell what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError("the device has too little memory: lower training.micro_batch, then --resume") from error
    except OSError as error:
        raise StorageError(f"cannot write below {out}: {error.strerror}; make room, then --resume") from error
    except RuntimeError as error:
        if "CUDA" not in str(error) and "NCCL" not in str(error):
            raise
        raise TrainingError(f"a CUDA device was lost; when it is back, go on with --resume in {out}") from error


def _board(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("training.tensorboard needs a package: pip install tensorboard") from error
    return SummaryWriter(str(out / "tensorboard"))
