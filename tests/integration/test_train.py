"""Training with the real command on a small run: resumed after kill -9, repeatable, shared by two processes."""

import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.errors import ConfigurationError, StorageError, TrainingError
from clearfilm.vision.bundle import WEIGHTS, as_file, load_bundle
from cli.train import override
from db import schema
from db.session import Database
from tests.cohort_factories import NoDecoder, small_cohort
from tests.integration.commands import clearfilm
from training.cohort import Cohort, load
from training.model import starting_weights
from training.progress import Silent
from training.train import train

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "edge": 64,
    "epochs": 3,
    "batch_size": 4,
    "micro_batch": 2,
    "cached_variants": 2,
    "dropout": 0.2,
    "learning_rate": 1e-4,
    "sensitivities": [0.2],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort, starting weights and configuration of all tests here."""
    folder = tmp_path_factory.mktemp("training")
    small_cohort(folder)
    torch.set_num_threads(1)
    weights = starting_weights("random", seed=0, mean=0.4, std=0.2).weights
    for name, tensor in weights.items():
        if name.endswith("bn3.weight"):
            tensor.fill_(0.2)  # keeps the sum of fifty untrained blocks small
    (folder / "start.safetensors").write_bytes(as_file(weights))
    values = {**SETTINGS, "init": str(folder / "start.safetensors")}
    (folder / "config.yaml").write_text(
        json.dumps({"data_folder": "data", "worker": {"device": "cpu", "threads": 1}, "training": values})
    )
    with closing(Database(f"sqlite:///{folder}/data/clearfilm.sqlite")) as database:
        schema.prepare(database)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return configuration.load(folder / "config.yaml")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return load(folder / "cohort")


@pytest.fixture(scope="module")
def finished(folder: Path, config: Config, cohort: Cohort) -> Path:
    """A run that nothing interrupted."""
    bundle = train(cohort, folder / "whole", config, NoDecoder())
    assert bundle is not None
    return bundle


def command(folder: Path, out: Path, *arguments: str) -> list[str]:
    return [
        "-m", "cli.main", "train", "--cohort", str(folder / "cohort"), "--out", str(out),
        "--config", str(folder / "config.yaml"), *arguments,
    ]  # fmt: skip


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def until(condition: Iterator[bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not next(condition):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exists(path: Path) -> Iterator[bool]:
    while True:
        yield path.exists()


def recorded(folder: Path, run: Path) -> dict[str, Any]:
    """What the node remembers of a run."""
    outcome = clearfilm(folder / "config.yaml", "model", "runs", "--json")
    found: dict[str, Any] = next(told for told in json.loads(outcome.stdout) if told["folder"] == str(run))
    return found


def weights_of(bundle: Path) -> dict[str, torch.Tensor]:
    return load_file(bundle / WEIGHTS)


def same(one: Path, other: Path) -> bool:
    left, right = weights_of(one), weights_of(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_bundle_is_whole_and_tells_where_it_comes_from(finished: Path, cohort: Cohort) -> None:
    described = load_bundle(finished).description
    assert described.training_data.digest == cohort.digest
    assert described.training_data.films == {"train": 8, "stop": 4, "calibrate": 4, "test": 4}
    assert described.training_data.split_key == cohort.manifest.split_key
    assert described.operating_point is not None
    assert described.operating_point.abnormal_patients == 2
    assert described.note == "demonstration data"


def test_two_runs_with_one_seed_are_identical_to_the_bit(
    finished: Path, folder: Path, config: Config, cohort: Cohort
) -> None:
    again = train(cohort, folder / "again", config, NoDecoder())
    assert again is not None
    assert same(finished, again)
    other = train(cohort, folder / "other", override(config, ["training.seed=1"]), NoDecoder())
    assert other is not None
    assert not same(finished, other)


@pytest.mark.parametrize("place", ["between steps", "middle-of-file", "fsynced-before-rename"])
def test_killed_run_goes_on_as_if_nothing_had_happened(
    finished: Path, folder: Path, tmp_path: Path, place: str
) -> None:
    run, orders = tmp_path / "run", tmp_path / "orders"
    orders.mkdir()
    process = start(command(folder, run), CLEARFILM_CRASH_FOLDER=str(orders))
    until(exists(run / "checkpoints" / "epoch-0001"), process)
    if place == "between steps":
        process.kill()
    else:
        (orders / place).touch()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "bundle").exists()
    assert recorded(folder, run)["outcome"] == "died"
    output = finish(start(command(folder, run, "--resume", "--user", "Anna")))
    told = recorded(folder, run)
    assert (told["outcome"], told["started_by"]) == ("finished", getpass.getuser())
    assert told["bundle_digest"] == load_bundle(run / "bundle").digest
    assert told["cohort"]["rules"]["normal"] == {"the table's own label": {"films": 10, "reports": 0}}
    assert "resumed after epoch" in output
    assert same(finished, run / "bundle")
    assert load_bundle(run / "bundle").description.operating_point is not None


def test_killed_run_is_not_started_over_without_being_asked(finished: Path, config: Config, cohort: Cohort) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        train(cohort, finished.parent, config, NoDecoder())


def test_place_that_is_no_folder_is_named(config: Config, cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(StorageError, match="cannot write below"):
        train(cohort, tmp_path / "run", config, NoDecoder())


def test_resuming_a_finished_run_changes_nothing(finished: Path, config: Config, cohort: Cohort) -> None:
    digest = load_bundle(finished).digest
    assert train(cohort, finished.parent, config, NoDecoder(), resume=True) == finished
    assert load_bundle(finished).digest == digest


def test_resume_with_other_settings_is_refused_by_name(finished: Path, config: Config, cohort: Cohort) -> None:
    changed = override(config, ["training.learning_rate=0.1", "training.epochs=9"])
    with pytest.raises(TrainingError, match=r"training\.epochs, training\.learning_rate"):
        train(cohort, finished.parent, changed, NoDecoder(), resume=True)


def test_two_processes_learn_what_one_learns_by_accumulation(folder: Path, tmp_path: Path) -> None:
    options = ["--set", "training.epochs=1", "--set", "training.dropout=0", "--set", "worker.precision=fp32"]
    finish(start(command(folder, tmp_path / "one", *options)))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = command(folder, tmp_path / "two", *options)
    finish(start([*launcher, *arguments]))
    one, two, before = (
        weights_of(tmp_path / "one" / "bundle"),
        weights_of(tmp_path / "two" / "bundle"),
        starting_weights(str(folder / "start.safetensors"), seed=0, mean=0, std=1).weights,
    )
    name = "layer4.2.conv2.weight"
    moved = (one[name] - before[name]).abs().mean()
    assert moved > 0
    assert (one[name] - two[name]).abs().mean() < 0.01 * moved


def test_disk_that_takes_no_more_leaves_no_bundle_and_the_run_goes_on(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # Room for the checkpoints' files, not for the bundle's weights.
    limited = f"ulimit -f 200000; exec {sys.executable} {shlex.join(command(folder, run))}"
    failed = subprocess.run(["bash", "-c", limited], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert failed.returncode == 1
    assert failed.stderr.startswith("clearfilm: cannot write")
    assert "Traceback" not in failed.stderr
    assert not (run / "bundle").exists()
    finish(start(command(folder, run, "--resume")))
    assert same(finished, run / "bundle")


def test_loss_that_is_no_number_is_named(folder: Path, config: Config, cohort: Cohort, tmp_path: Path) -> None:
    broken = load_file(folder / "start.safetensors")
    broken["layer4.0.conv1.weight"][0, 0] = torch.nan
    (tmp_path / "broken.safetensors").write_bytes(as_file(broken))
    changed = override(config, [f"training.init={tmp_path / 'broken.safetensors'}", "training.linear_probe=false"])
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, step 1 of 2 \(4 films\)"):
        train(cohort, tmp_path / "run", changed, NoDecoder())
    assert not (tmp_path / "run" / "bundle").exists()


def test_labels_of_one_class_only_are_refused_with_counts(config: Config, tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c")
    films = tuple(replace(film, label="normal") if film.part == "stop" else film for film in cohort.films)
    with pytest.raises(TrainingError, match="stop has 4 normal and 0 abnormal"):
        train(replace(cohort, films=films), tmp_path / "run", config, NoDecoder())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda_device_is_named(config: Config, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no CUDA device"):
        train(cohort, tmp_path / "run", override(config, ["worker.device=cuda"]), NoDecoder())


def test_unknown_settings_are_refused_all_at_once(config: Config) -> None:
    with pytest.raises(ConfigurationError) as caught:
        override(config, ["training.epoch=3", "node.port=1", "training.epochs=0"])
    assert all(part in str(caught.value) for part in ("training.epoch=3", "node.port", "training.epochs: "))


def test_films_are_augmented_anew_without_cached_maps(config: Config, cohort: Cohort, tmp_path: Path) -> None:
    changed = override(config, ["training.cached_variants=0", "training.epochs=1"])
    bundle = train(cohort, tmp_path / "run", changed, NoDecoder())
    assert bundle is not None
    assert np.isfinite(load_bundle(bundle).description.calibration.slope)


def test_start_from_a_bundle_of_another_split_is_told(
    finished: Path, config: Config, cohort: Cohort, tmp_path: Path
) -> None:
    class Listening(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    said: list[str] = []
    changed = override(config, [f"training.init={finished}", "training.epochs=1"])
    for name, key in (("same", cohort.manifest.split_key), ("other", "another key")):
        said.clear()
        manifest = cohort.manifest.model_copy(update={"split_key": key})
        assert train(replace(cohort, manifest=manifest), tmp_path / name, changed, NoDecoder(), watcher=Listening())
        assert any("split with another key" in line for line in said) == (name == "other")


def test_retraining_goes_on_after_its_training_and_ends_with_a_candidate(finished: Path, folder: Path) -> None:
    place = folder / "data" / "retraining" / "2026-03-01-020000"
    shutil.copytree(folder / "cohort", place / "cohort")
    shutil.copytree(finished.parent, place / "run")
    arguments = ["-m", "cli.main", "retrain", "--resume", "--user", "Anna", "--config", str(folder / "config.yaml")]
    output = finish(start(arguments))
    assert "training\n" not in output
    digest = load_bundle(finished).digest
    assert json.loads((place / "outcome.json").read_text()) == {"outcome": "candidate", "bundle": digest}
    shown = clearfilm(folder / "config.yaml", "model", "show", digest, "--json")
    told = json.loads(shown.stdout)
    assert told["state"] == "candidate"
    assert told["evaluation"]["demonstration"] is True
    assert told["lineage"]["run"]["cohort"]["films"] == 20
    assert "films" in told["promotion"]["blocking"]
