"""Studies with real films, taken in and concluded by the node's own code; only the network is left out."""

import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from sqlalchemy import select

from clearfilm.config import Config
from clearfilm.dicom import decoding
from clearfilm.files import sha256
from db import intake, registry
from db.intake import ReceivedFilm, StudyAttributes
from db.models import Analysis, Instance, InstanceState, Study
from db.session import Database
from tests import bundle_factories
from tests.integration.test_conclude import await_condition
from worker.conclude import Concluder
from worker.leases import Leases
from worker.store import FilmMap, Store

SAMPLES = Path(__file__).resolve().parent.parent.parent.parent / "samples"


def hill(peak: float = 9.0, at: tuple[int, int] = (4, 2)) -> NDArray[np.float32]:
    """A 7 × 7 map with evidence around one cell."""
    rows, columns = np.mgrid[:7, :7]
    return (-2 + (peak + 2) * np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 1.6)).astype(np.float32)


def attributes_of(ds: pydicom.Dataset) -> StudyAttributes:
    """As the listener takes them over."""

    def text(keyword: str) -> str | None:
        return str(ds.get(keyword) or "") or None

    return StudyAttributes(
        study_instance_uid=str(ds.StudyInstanceUID),
        patient_name=text("PatientName"),
        patient_id=text("PatientID"),
        patient_birth_date=text("PatientBirthDate"),
        patient_sex=text("PatientSex"),
        accession_number=text("AccessionNumber"),
        study_date=text("StudyDate"),
        study_time=text("StudyTime"),
        study_description=text("StudyDescription"),
        patient_age=text("PatientAge"),
    )


@dataclass
class Archive:
    """A node's database and data folder."""

    database: Database
    config: Config

    def activate_model(self) -> None:
        """The bundle that reads everything."""
        folder = self.config.data_folder / "bundle"
        digest = bundle_factories.write(folder)
        point = {"threshold": 0.3, "sensitivity": 0.9}
        with self.database.begin() as session:
            now = self.database.now(session)
            registry.register(
                session, digest=digest, name="Test model", version="1", path=str(folder), operating_point=point, now=now
            )
            registry.start(session, digest, actor="test", now=now)

    def receive(self, source: Path, *, study_uid: str | None = None, **attributes: object) -> tuple[int, int]:
        """Take a film in, under UIDs of its own; numbers of study and film."""
        store = Store(self.config.data_folder)
        ds = pydicom.dcmread(source)
        ds.StudyInstanceUID = study_uid or generate_uid()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        path = store._write("films", ".dcm", b"")
        ds.save_as(store.path(path), enforce_file_format=True)
        film = ReceivedFilm(
            study=attributes_of(ds),
            sop_instance_uid=str(ds.SOPInstanceUID),
            sop_class_uid=str(ds.SOPClassUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            digest=sha256(store.path(path)),
            size=store.path(path).stat().st_size,
            path=path,
            sender="room 1",
            calling_ae_title="XR_ROOM1",
        )
        with self.database.begin() as session:
            intake.record(session, film, now=self.database.now(session), quiet=timedelta(0))
            found = session.scalars(select(Instance).order_by(Instance.id.desc()).limit(1)).first()
            assert found is not None
            return found.study_id, found.id

    def read(self, film_id: int, score: float, evidence: NDArray[np.float32] | None = None) -> None:
        """What the analysis leaves."""
        store = Store(self.config.data_folder)
        with self.database.begin() as session:
            film = session.get_one(Instance, film_id)
            model = registry.active(session)
            assert model is not None
            prepared = decoding.prepare(pydicom.dcmread(store.path(film.path)), 224)
            film.state = InstanceState.ANALYSED
            session.add(
                Analysis(
                    instance_id=film_id,
                    model_id=model.id,
                    score=score,
                    logit=0.0,
                    above=score >= 0.3,
                    map_path=store.write_map(FilmMap(hill() if evidence is None else evidence, prepared.display)),
                    preprocessing_id="x",
                    device="cpu",
                    facts={},
                    created_at=self.database.now(session),
                )
            )

    def give_up(self, film_id: int, reason: str) -> None:
        """A film that gets no score."""
        with self.database.begin() as session:
            film = session.get_one(Instance, film_id)
            film.state, film.reason = InstanceState.NOT_ANALYSED, reason

    def conclude(self, study_id: int, revision: int = 1) -> None:
        """Run the worker's loop until this answer is there."""
        stop = threading.Event()
        with Leases(self.database) as leases:
            concluder = Concluder(self.config, self.database, Store(self.config.data_folder), leases)
            thread = threading.Thread(target=concluder.run, args=(stop,))
            thread.start()
            try:
                await_condition(lambda: self.study(study_id).revision >= revision)
            finally:
                stop.set()
                thread.join(timeout=30)

    def study(self, study_id: int) -> Study:
        with self.database.read() as session:
            return session.get_one(Study, study_id)

    def add(self, name: str, score: float, **attributes: object) -> tuple[int, int]:
        """A concluded study of one sample film."""
        study_id, film_id = self.receive(SAMPLES / name, **attributes)
        self.read(film_id, score)
        self.conclude(study_id)
        return study_id, film_id


def write_film(path: Path, picture: NDArray[np.uint8], rows: int, columns: int) -> Path:
    """A large uncompressed film of 16 bits, made from a picture, with noise in the low bits as detectors have."""
    ds = pydicom.dcmread(SAMPLES / "07-dx-effusion.dcm")
    large = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_CUBIC).astype(np.float32) * 250
    noise = np.random.default_rng(0).normal(0, 60, large.shape)
    stored = np.clip(large + noise + 400, 0, 65535).astype("<u2")
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = rows, columns, 16, 16, 15
    ds.PixelRepresentation, ds.WindowCenter, ds.WindowWidth = 0, 33000, 60000
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    ds["PixelData"].is_undefined_length = False
    ds.save_as(path, enforce_file_format=True)
    return path
