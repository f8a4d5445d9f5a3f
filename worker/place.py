"""Ask the triage policy about a study that is being concluded: gather what counts, keep nothing but new devices."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydicom import Dataset

from clearfilm.config import Config
from clearfilm.dicom.header import FilmHeader, from_dataset
from clearfilm.dicom.request import request_of
from clearfilm.errors import NotAnalysable
from clearfilm.keys import installation_key
from clearfilm.policy.blind import KEY_FILE, in_share
from clearfilm.policy.rules import Facts, Placement, place
from clearfilm.triage import Decision
from db import policies, queue
from db.models import ModelBundle, Study
from db.policies import DeviceIdentity
from db.session import Database
from worker.gate import youngest_age
from worker.results.model import Film

_WANTED = frozenset(
    {
        *("patient_age", "patient_birth_date", "study_date", "acquisition_date", "content_date"),
        *("manufacturer", "manufacturer_model_name", "device_serial_number", "station_name"),
        *("requested_procedure_priority", "study_priority_id"),
    }
)


@dataclass(frozen=True)
class Ruling:
    """What the policy says, and by which of its steps and which model; a change of either makes it void."""

    placement: Placement
    step_id: int | None
    model_id: int | None


class Placer:
    """Places studies by the policy.

    Parameters
    ----------
    config : Config
        Section `policy`; the key of the blind share is in the data folder.
    database : Database
        Of this process.
    """

    def __init__(self, config: Config, database: Database) -> None:
        self._policy = config.policy
        self._folder = config.data_folder
        self._database = database

    def place(
        self,
        study: Study,
        films: Sequence[Film],
        decision: Decision,
        model: ModelBundle | None,
        origins: Iterable[tuple[str, Dataset]],
    ) -> Ruling:
        """The ruling on one study.

        Parameters
        ----------
        study : Study
        films : sequence of Film
            Those that made the decision.
        decision : Decision
        model : ModelBundle or None
            The active one; every film that has a score was read by it.
        origins : iterable of (str, pydicom.Dataset)
            Sender and header of every film received.

        Returns
        -------
        Ruling

        Raises
        ------
        StartupError, StorageError
            If the key of the blind share cannot be read or made.
        """
        key = installation_key(self._folder / KEY_FILE)
        received = [(sender, header, from_dataset(header, _WANTED)) for sender, header in origins]
        devices = {_device(sender, attributes) for sender, _, attributes in received}
        requests = [request_of(header) for _, header, _ in received]
        with self._database.begin() as session:
            now = self._database.now(session)
            stage = policies.begin(session, self._policy, now=now)
            facts = Facts(
                decision=decision,
                films=len(films),
                films_below=sum(film.analysed and not film.above for film in films) if _decides(model) else 0,
                waiting_since=study.first_received_at,
                # Of each film: the study keeps the highest one, by which an unknown one is no higher than none.
                ordered_priorities=(study.ordered_priority or "", *(_ordered(one) for _, _, one in received)),
                ordered_urgent=study.priority > queue.PRIORITY_ROUTINE,
                location="\n".join(request.location for request in requests),
                descriptions="\n".join([study.study_description or "", *(one.descriptions for one in requests)]),
                request="\n".join(request.reasons for request in requests),
                age_years=_youngest([attributes for _, _, attributes in received], now),
                prior_labels=policies.prior_labels(session, study),
                new_devices=policies.notice_devices(session, devices, self._policy, now=now),
                in_blind_share=now - study.first_received_at < timedelta(days=self._policy.blind_days)
                and policies.is_measured(session, now=now)
                and in_share(study.study_instance_uid, key, self._policy.blind_share),
            )
            placement = place(facts, self._policy, stage.standing.stage, now=now)
            return Ruling(placement, stage.step_id, model.id if model else None)


def _decides(model: ModelBundle | None) -> bool:
    return model is not None and model.operating_point is not None


def _ordered(film: FilmHeader) -> str:
    return film.requested_procedure_priority or film.study_priority_id


def _device(sender: str, attributes: FilmHeader) -> DeviceIdentity:
    return DeviceIdentity(
        sender=sender,
        manufacturer=attributes.manufacturer,
        model=attributes.manufacturer_model_name,
        serial=attributes.device_serial_number or attributes.station_name,
    )


def _youngest(films: Sequence[FilmHeader], now: datetime) -> float | None:
    """The youngest age that any film allows; None if one of them states none that can be read."""
    ages: list[float] = []
    for film in films:
        try:
            age = youngest_age(film, today=now.astimezone(UTC).date())
        except NotAnalysable:
            return None
        if age is not None:
            ages.append(age)
    return min(ages, default=None)
