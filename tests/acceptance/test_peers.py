"""Somebody else's PACS: Orthanc and dcmtk take the results, and a PACS that is killed loses nothing."""

import subprocess
from pathlib import Path

import pytest

from bench.peers import free_port, running_orthanc
from tests.acceptance.films import fresh_film, sample
from tests.acceptance.nodes import Node, await_condition
from tests.integration.conftest import missing

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(240)]


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dcmtk"
    folder.mkdir()
    return folder


def test_orthanc_keeps_and_commits_to_every_result_once_although_it_is_killed(tmp_path: Path) -> None:
    port, node_port, folder = free_port(), free_port(), tmp_path / "orthanc"
    node = Node(tmp_path / "node", port, settings={"node.port": node_port})
    # Orthanc reports on an association that it opens itself.
    settings = {"DicomPort": port, "DicomModalities": {"clearfilm": ["CLEARFILM", "127.0.0.1", node_port]}}
    films = [fresh_film(tmp_path, sample("cr-mass")) for _ in range(3)]
    with running_orthanc(folder, "PACS", **settings) as orthanc:
        node.start()
        try:
            node.send_until_stored(films[0][0])
            await_condition(lambda: orthanc.instances() == 2, 60, "first study at Orthanc")
            await_condition(lambda: _deliveries(node).get("committed") == 2, 60, "first study committed")
            for path, _ in films[1:]:
                node.send_until_stored(path)
            orthanc.process.kill()
            orthanc.process.wait()
            with running_orthanc(folder, "PACS", **settings) as again:
                await_condition(lambda: again.instances() == 6, 120, "all results at the restarted Orthanc")
                await_condition(node.is_done, 60, "all jobs ended")
                await_condition(lambda: _deliveries(node) == {"committed": 6, "not_chosen": 6}, 90, "all committed")
                for _, study in films:
                    series = again.series(study)
                    assert sorted(entry["Modality"] for entry in series) == ["OT", "SR"]
                    assert all(len(entry["Instances"]) == 1 for entry in series)
        finally:
            assert node.stop() == 0


def test_dcmtk_takes_results_and_falls_back_to_an_older_report_class(tmp_path: Path, results_folder: Path) -> None:
    """dcmtk's storescp knows Comprehensive 3D SR; a profile without it gets Comprehensive SR."""
    profile = tmp_path / "storescp.cfg"
    profile.write_text(PROFILE, encoding="ascii")
    port = free_port()
    try:
        receiver = subprocess.Popen(
            ["storescp", "-xf", profile, "Default", "-od", results_folder, "+uf", "-aet", "PACS", str(port)]
        )
    except FileNotFoundError:
        missing("dcmtk")
    node = Node(tmp_path / "node", port)
    try:
        node.start()
        film, _ = fresh_film(tmp_path, sample("cr-mass"))
        node.send_until_stored(film)
        await_condition(lambda: len(list(results_folder.iterdir())) == 2, 60, "two objects at storescp")
        await_condition(node.is_done, 60, "all jobs ended")
        dumps = [
            subprocess.run(["dcmdump", "+P", "0008,0016", path], capture_output=True, text=True, check=True).stdout
            for path in results_folder.iterdir()
        ]
        assert sum("SecondaryCaptureImageStorage" in dump for dump in dumps) == 1
        assert sum("ComprehensiveSRStorage" in dump for dump in dumps) == 1
    finally:
        receiver.kill()
        receiver.wait()
        assert node.stop() == 0


def _deliveries(node: Node) -> dict[str, int]:
    return dict(node.counts()["deliveries"]["pacs"])


PROFILE = """
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Results]
PresentationContext1 = VerificationSOPClass\\Uncompressed
PresentationContext2 = SecondaryCaptureImageStorage\\Uncompressed
PresentationContext3 = ComprehensiveSRStorage\\Uncompressed
[[Profiles]]
[Default]
PresentationContexts = Results
"""
