"""What monitoring reads: open, honest, and without anything about patients."""

import re
from contextlib import ExitStack, closing

import httpx2
from sqlalchemy import update

from clearfilm import metrics
from db.processes import SILENT_AFTER, Heartbeat, Process
from db.session import Database
from tests.integration.worklist.conftest import Site
from worklist.rooms.health import NEEDED


def values(text: str, name: str) -> dict[str, float]:
    """Labels, as they are written, to values of one metric."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is missing in:\n{text}"
    return {labels: float(value) for labels, value in found}


def test_process_that_answers_is_alive(site: Site) -> None:
    assert httpx2.get(f"{site.url}/livez").text == "ok\n"


def test_node_is_ready_while_each_kind_of_process_lives(site: Site) -> None:
    answer = httpx2.get(f"{site.url}/readyz")
    assert (answer.status_code, "worker: failed" in answer.text) == (503, True)
    with ExitStack() as stack:
        # One process of this test plays all of them: the rows differ by their owner.
        for kind in NEEDED:
            heartbeat = Heartbeat(site.database, kind)
            heartbeat._owner = f"another machine:1:{kind}"
            stack.enter_context(heartbeat)
        answer = httpx2.get(f"{site.url}/readyz")
        assert set(answer.text.splitlines()) == {f"{name}: ok" for name in ("database", "disk", *NEEDED)}
        with site.database.begin() as session:
            now = site.database.now(session)
            session.execute(update(Process).where(Process.kind == "worker").values(seen_at=now - 2 * SILENT_AFTER))
        assert "worker: failed" in httpx2.get(f"{site.url}/readyz").text
    assert httpx2.get(f"{site.url}/readyz").status_code == 503


def test_counts_of_all_processes_are_added_up_and_survive_them(site: Site) -> None:
    before = values(httpx2.get(f"{site.url}/metrics").text, "clearfilm_inference_seconds_count")[""]
    for _ in range(2):
        with closing(Database(site.config.database_url)) as other, Heartbeat(other, "worker"):
            metrics.INFERENCE.observe(0.3)
            metrics.SENDS.labels("pacs", "stored").inc()
    text = httpx2.get(f"{site.url}/metrics").text
    assert values(text, "clearfilm_inference_seconds_count")[""] == before + 2
    assert values(text, "clearfilm_inference_seconds_bucket")['le="0.2"'] == before
    assert values(text, "clearfilm_pacs_sends_total")['outcome="stored",peer="pacs"'] == 2
    assert values(text, "clearfilm_disk_free_bytes")[""] > 0


def test_metrics_are_not_given_to_other_machines(site: Site) -> None:
    through_a_proxy = {"x-forwarded-for": "192.0.2.7"}
    assert httpx2.get(f"{site.url}/metrics", headers=through_a_proxy).status_code == 403
