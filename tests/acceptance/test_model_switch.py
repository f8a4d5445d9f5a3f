"""A running node changes its model without a restart: shadow, two signatures, rollback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearfilm.evaluation import REPORT
from clearfilm.vision.bundle import FeatureGate
from tests import bundle_factories
from tests.acceptance.films import fresh_film, sample
from tests.acceptance.nodes import Node, await_condition
from tests.integration.commands import clearfilm
from tests.report_factories import report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
WAIVED = [
    argument
    for name in ("shadow-days", "shadow-studies", "shadow-abnormal", "shadow-share")
    for argument in ("--waive", f"{name}=a test")
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two small bundles that read every film: folder to digest, in order."""
    folder = tmp_path_factory.mktemp("bundles")
    weights = bundle_factories.random_weights()
    gate = FeatureGate(threshold=1e9, quantile=0.995, margin=1.0)
    described = {
        name: bundle_factories.description(name).model_copy(update={"input_edge": 64, "feature_gate": gate})
        for name in ("first", "second")
    }
    return {
        str(folder / name): bundle_factories.write_network(folder / name, weights, description)
        for name, description in described.items()
    }


@pytest.fixture
def node(tmp_path: Path, pacs: int, bundles: dict[str, str]) -> Iterator[Node]:
    node = Node(tmp_path / "node", pacs, settings={"model.bundle": next(iter(bundles))})
    node.start()
    yield node
    assert node.stop() == 0


def told(node: Node, *arguments: str) -> Any:
    outcome = clearfilm(node.config_path, *arguments, "--json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout)


def answered(node: Node, folder: Path, revision: int = 1, **attributes: str) -> tuple[str, str]:
    """The study of a film that is sent now, and the bundle that has read all of its films for the answer."""
    film, study = fresh_film(folder, sample("cr-mass"), **attributes)
    node.send_until_stored(film)

    def is_concluded() -> bool:
        found = node.study(study)
        return found is not None and (found["state"], found["revision"]) == ("concluded", revision)

    await_condition(is_concluded, 90, "the study is concluded")
    found = told(node, "model", "lineage", study)
    assert [film["analysis"] is not None for film in found["films"]] == [True] * revision
    return study, found["model"]["digest"]


def test_running_worker_follows_promotion_and_rollback(node: Node, tmp_path: Path, bundles: dict[str, str]) -> None:
    (_, first), (folder, second) = bundles.items()
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / REPORT).write_text(json.dumps(report(second, first)))
    told(node, "model", "add", folder, "--evaluation", str(evaluation))
    told(node, "model", "shadow", second)
    worker = node.children("worker")[0].pid

    study, digest = answered(node, tmp_path)
    assert digest == first
    await_condition(lambda: node.counts()["shadows"][0]["films"] == 1, 90, "the shadow has read the film")
    for user in ("Anna", "Bo"):
        told(node, "model", "promote", second[:12], "--user", user, "--reason", "better", *WAIVED)
    assert node.counts()["model"]["digest"] == second
    assert answered(node, tmp_path)[1] == second
    # What was read silently is read again before it counts.
    assert answered(node, tmp_path, 2, StudyInstanceUID=study) == (study, second)
    told(node, "model", "rollback", "--user", "Anna", "--reason", "misses")
    assert answered(node, tmp_path)[1] == first
    decided = told(node, "model", "reconclude", second[:12])["studies"]
    assert decided == 2

    def is_first_again() -> bool:
        return bool(told(node, "model", "lineage", study)["model"]["digest"] == first)

    await_condition(is_first_again, 90, "the rolled-back bundle's study is answered again")
    assert node.study(study)["revision"] == 3  # type: ignore[index]
    assert node.children("worker")[0].pid == worker
