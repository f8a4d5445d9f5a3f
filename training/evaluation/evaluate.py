"""From films and a bundle to `report.json` and `report.html`: both there, or neither."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clearfilm.config import Config
from clearfilm.dicom.uids import IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import StorageError, TrainingError
from clearfilm.evaluation import REPORT, AtSensitivity, Group, Identity, Miss, OperatingFigures, PerClass, Summary
from clearfilm.files import fsync_folder, write_durably
from clearfilm.vision.bundle import Bundle
from clearfilm.vision.network import choose_device, choose_dtype
from training.cache import Store, decode
from training.evaluation import delong, groups, headline, intervals, measures, shortcuts
from training.evaluation.comparison import Duel, compare
from training.evaluation.findings import Findings, Leakage, Opponent, TurnedAway
from training.evaluation.gallery import Gallery, gather
from training.evaluation.groups import KEYS, Sample
from training.evaluation.label_audit import LabelAudit
from training.evaluation.material import Material, is_held_back, learned_from
from training.evaluation.page import render
from training.evaluation.queueing import Traffic, simulate
from training.evaluation.reading import Answers, Reader
from training.evaluation.sanity import MOST_FILMS, MOST_PLANTED, Examination, examine
from training.evaluation.severity import ORDER, Grader, Severity
from training.films import Decoder
from training.finish import DEMONSTRATION_FILMS
from training.labels.audit import Estimate
from training.labels.labeller import from_config
from training.progress import Silent, Watcher
from training.ranking import area
from training.train import CACHE

PAGE: Final = "report.html"
_UNDEFINED_SHARE: Final = Estimate(0.0, 0.0, 1.0)
_UNDEFINED_SLOPE: Final = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Options:
    """What is evaluated beside the bundle itself."""

    against: Bundle | None = None
    no_opponent: str = "no other model was named"
    random_split: tuple[Bundle, Material] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    audit: LabelAudit | None = None
    planted: bool = True
    bootstrap_samples: int = intervals.REPLICATES


def evaluate(
    bundle: Bundle,
    material: Material,
    out: Path,
    config: Config,
    decoder: Decoder,
    *,
    options: Options | None = None,
    watcher: Watcher | None = None,
) -> Summary:
    """Evaluate a bundle and write the report.

    Parameters
    ----------
    bundle : Bundle
    material : Material
    out : pathlib.Path
        New folder, or an empty one; whole or absent after a crash.
    config : Config
        Sections `worker`, `heatmap` and `reports`; decoded films are kept below its data folder.
    decoder : Decoder
    options : Options, optional
    watcher : Watcher, optional

    Returns
    -------
    Summary
        What `report.json` begins with.

    Raises
    ------
    TrainingError
        If films are missing or altered, `out` exists, or the random split is none.
    BundleError
        If the weights do not fit.
    StorageError
        If the disk refused.
    """
    check_free(out)
    options = options or Options()
    if options.random_split is not None:
        _check_schemes(material, options.random_split[1])
    evaluation = _Evaluation(bundle, material, config, decoder, options, watcher or Silent())
    findings, gallery = evaluation.run()
    content = {**findings.summary.model_dump(mode="json"), "details": findings.details()}
    write_report(out, content, render(findings, gallery))
    return findings.summary


def check_free(out: Path) -> None:
    """Refuse a folder with something in it. Raises TrainingError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists already; choose another folder for the report")


def _check_schemes(ours: Material, random: Material) -> None:
    if random.scheme != "paper" or ours.scheme != "patient":
        raise TrainingError(
            "what leakage adds is measured with a model of a cohort built with --paper-split beside this one of a "
            f"cohort split by patient; these are split by {random.scheme} and {ours.scheme}"
        )


class _Evaluation:
    """One evaluation, from films to findings."""

    def __init__(
        self,
        bundle: Bundle,
        material: Material,
        config: Config,
        decoder: Decoder,
        options: Options,
        watcher: Watcher,
    ) -> None:
        self.bundle = bundle
        self.material = material
        self.config = config
        self.decoder = decoder
        self.options = options
        self.watcher = watcher
        films = material.cohort.films
        self.sample = Sample.of([films[place] for place in material.test])
        grader = Grader(from_config(config.reports))
        self.severities: list[Severity | None] = [
            grader.grade(film.tags) if film.abnormal else None for film in self.sample.films
        ]

    def run(self) -> tuple[Findings, Gallery]:
        """All steps."""
        test, edge = self.material.test, self.bundle.description.input_edge
        store = self._decoded(self.material, edge)
        reader = Reader(self.bundle, self.config)
        answers = reader.read(test, store.film, "reading the test films", self.watcher)
        temporal = self._temporal(reader, store)
        blacked_out = self._blacked_out(reader, store)
        opponent = self._opponent(answers, store)
        leakage = self._leakage(answers)
        examination = self._examination(store)
        self.watcher.begin("bootstrap over patients", 1)
        estimates = headline.estimate(self.sample, answers.scores, count=self.options.bootstrap_samples)
        self.watcher.advance()
        areas, fitted_on = self._shortcuts(store)
        areas |= blacked_out
        traffic = self.options.traffic
        share = float(self.sample.labels.mean(dtype=np.float64))
        findings = Findings(
            summary=self._summary(
                answers, estimates, areas, temporal, opponent.duel if opponent else None, examination
            ),
            bundle=self.bundle.description,
            sample=self.sample,
            answers=answers,
            estimates=estimates,
            turned_away=self._turned_away(answers),
            temporal=temporal,
            excluded=self.material.excluded,
            learned_from=learned_from(self.material, self.bundle.description.training_data),
            reader=reader.describe(),
            regressions_from=fitted_on,
            blacked_out=min(len(test), shortcuts.MOST_BLACKED_OUT),
            bootstrap_samples=self.options.bootstrap_samples,
            delong_interval=delong.interval(self.sample.labels, answers.scores),
            opponent=opponent,
            no_opponent=self.options.no_opponent,
            leakage=leakage,
            traffic=traffic,
            prevalence=share if traffic.prevalence is None else traffic.prevalence,
            waits=tuple(simulate(self.sample, answers, traffic)),
            audit=self.options.audit,
            examination=examination,
        )
        gallery = gather(findings, self.severities, lambda row: store.film(test[row]))
        return findings, gallery

    def _decoded(self, material: Material, edge: int) -> Store:
        return decode(material.cohort, edge, self.config.data_folder / CACHE, self.decoder, self.watcher)

    def _temporal(self, reader: Reader, store: Store) -> Group | None:
        places = self.material.temporal
        if not places:
            return None
        answers = reader.read(places, store.film, "reading the newest films", self.watcher)
        return groups.measure(Sample.of([self.material.cohort.films[place] for place in places]), answers)

    def _blacked_out(self, reader: Reader, store: Store) -> dict[str, float]:
        """AUC of the bundle itself on films without lungs; empty if the chosen films have one label only."""
        rows = shortcuts.evenly(len(self.sample), shortcuts.MOST_BLACKED_OUT)
        labels = self.sample.labels[rows]
        if not 0 < labels.sum() < len(labels):
            return {}
        answers = reader.read(
            [self.material.test[row] for row in rows],
            lambda place: shortcuts.without_lungs(store.film(place)),
            "reading the films with the lungs blacked out",
            self.watcher,
        )
        return {"lungs_blacked_out": area(labels, answers.scores)}

    def _examination(self, store: Store) -> Examination:
        """Whether the maps follow picture and weights; on some of the films, and opacities planted in normal ones."""
        normal = np.flatnonzero(self.sample.labels == 0)
        clear = [int(normal[row]) for row in shortcuts.evenly(len(normal), MOST_PLANTED)]
        # Normal films stand in their order, so that the even choice of films has both labels.
        rows = sorted({*shortcuts.evenly(len(self.sample), MOST_FILMS), *clear})
        worker = self.config.worker
        device = choose_device(worker.device)
        return examine(
            self.bundle,
            np.stack([store.film(self.material.test[row]) for row in rows]),
            np.isin(rows, clear) if self.options.planted else np.zeros(len(rows), np.bool_),
            device=device,
            dtype=choose_dtype(worker.precision, device),
            watcher=self.watcher,
        )

    def _opponent(self, ours: Answers, store: Store) -> Opponent | None:
        other = self.options.against
        if other is None:
            return None
        edge = other.description.input_edge
        films = store if edge == store.edge else self._decoded(self.material, edge)
        theirs = Reader(other, self.config).read(
            self.material.test, films.film, "reading the test films with the other model", self.watcher
        )
        name = f"{other.description.name} {other.description.version}"
        duel = compare(self.sample, ours, theirs, self.severities, other.digest)
        return Opponent(name, other.description, duel, theirs)

    def _leakage(self, ours: Answers) -> Leakage | None:
        if self.options.random_split is None:
            return None
        bundle, material = self.options.random_split
        store = self._decoded(material, bundle.description.input_edge)
        sample = Sample.of([material.cohort.films[place] for place in material.test])
        theirs = Reader(bundle, self.config).read(
            material.test, store.film, "reading the films of the random split", self.watcher
        )
        difference = delong.unpaired(sample.labels, theirs.scores, self.sample.labels, ours.scores)
        group = groups.measure(sample, theirs)
        assert group.auc is not None
        assert group.auc_interval is not None
        return Leakage(
            bundle_digest=bundle.digest,
            cohort_digest=material.digest,
            shared_patients=material.cohort.manifest.shared_patients,
            n=len(sample),
            auc=group.auc,
            auc_interval=group.auc_interval,
            difference=difference,
        )

    def _shortcuts(self, store: Store) -> tuple[dict[str, float], str]:
        """AUCs without lungs, and what they were learned from."""
        cohort, test = self.material.cohort, self.material.test
        train = cohort.of("train")
        # Spread over all of them: films stand in the order of their names, often the abnormal ones first.
        learned = [train[place] for place in shortcuts.evenly(len(train), shortcuts.MOST_LEARNED_FROM)]
        known = Sample.of([cohort.films[place] for place in learned]) if learned else None
        self.watcher.begin("tests for shortcuts", 2)
        found = {"metadata": shortcuts.metadata_area(self.sample, known)}
        self.watcher.advance()

        def thumbnails(places: Sequence[int]) -> NDArray[np.float32]:
            return np.stack([shortcuts.thumbnail(store.film(place)) for place in places])

        pictures = (thumbnails(learned), known.labels) if known is not None else None
        found["thumbnail"] = shortcuts.thumbnail_area(self.sample, thumbnails(test), pictures)
        self.watcher.advance()
        fitted_on = f"{len(learned)} films of the training patients" if learned else "these films, cross-validated"
        return {name: area for name, area in found.items() if area is not None}, fitted_on

    def _turned_away(self, answers: Answers) -> TurnedAway:
        usual = ~answers.unusual
        abnormal = int(self.sample.labels[~usual].sum())
        without = groups.measure(self.sample.only(usual), answers.only(usual))
        number = int((~usual).sum())
        return TurnedAway(number, number - abnormal, abnormal, without)

    def _summary(
        self,
        answers: Answers,
        estimates: dict[str, Estimate],
        areas: dict[str, float],
        temporal: Group | None,
        duel: Duel | None,
        examination: Examination,
    ) -> Summary:
        sample, material = self.sample, self.material
        by_key = {key: groups.by_key(sample, answers, key) for key in KEYS}
        if temporal is not None:
            by_key["part"] = {"test": groups.measure(sample, answers), "temporal": temporal}
        description = self.bundle.description
        slope = headline.defined(estimates["calibration_slope"], _UNDEFINED_SLOPE)
        return Summary(
            demonstration=len(sample) < DEMONSTRATION_FILMS,
            created=datetime.now(UTC),
            identity=Identity(
                bundle_digest=self.bundle.digest,
                bundle_name=description.name,
                bundle_version=description.version,
                cohort_digest=material.digest,
                scheme=material.scheme,
                held_back=is_held_back(material, description.training_data),
                code_version=IMPLEMENTATION_VERSION_NAME,
            ),
            n=len(sample),
            normal=len(sample) - sample.abnormal,
            abnormal=sample.abnormal,
            patients=len(set(sample.patients)),
            auc=estimates["auc"].value,
            auc_interval=_interval(estimates["auc"]),
            by_view=by_key.pop("view"),
            groups=by_key,
            precision=_per_class(estimates, "precision"),
            recall=_per_class(estimates, "recall"),
            f1=_per_class(estimates, "f1"),
            specificity_at_sensitivity={
                wanted: AtSensitivity(
                    threshold=measures.threshold_for(sample.labels, answers.scores, float(wanted)),
                    specificity=estimates[f"specificity_at_{wanted}"].value,
                    interval=_interval(estimates[f"specificity_at_{wanted}"]),
                )
                for wanted in headline.SENSITIVITIES
            },
            brier=estimates["brier"].value,
            brier_interval=_interval(estimates["brier"]),
            ece=estimates["ece"].value,
            ece_interval=_interval(estimates["ece"]),
            calibration_slope=slope.value,
            calibration_slope_interval=_interval(slope),
            operating_point=self._operating_figures(answers),
            misses=self._misses(answers),
            shortcuts=areas,
            comparison=None if duel is None else duel.comparison,
            # Without a film that shows lungs and evidence nothing was measured.
            sanity=examination.summary if examination.outside.films else None,
        )

    def _operating_figures(self, answers: Answers) -> OperatingFigures | None:
        point = self.bundle.description.operating_point
        if point is None:
            return None
        table = measures.confusion(self.sample.labels, answers.scores, point.threshold)
        specificity, sensitivity = table.recall
        critical = np.array([severity == "critical" for severity in self.severities])
        below, abnormal, patients = answers.below, self.sample.labels == 1, np.array(self.sample.patients)

        def counts(hits: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> tuple[float, float]:
            return intervals.effective(hits[chosen], patients[chosen].tolist())

        return OperatingFigures(
            threshold=point.threshold,
            guaranteed_sensitivity=point.sensitivity,
            confidence=point.confidence,
            sensitivity=sensitivity,
            sensitivity_interval=intervals.exact(*counts(~below, abnormal)),
            specificity=specificity,
            specificity_interval=intervals.exact(*counts(below, ~abnormal)),
            missed=table.missed,
            missed_critical=int(below[critical].sum()),
            missed_critical_upper=intervals.upper_bound(*counts(below, critical)),
        )

    def _misses(self, answers: Answers) -> tuple[Miss, ...]:
        found = [
            Miss(film=film.sha256, severity=severity, tags=film.tags, score=score, turned_away=unusual)
            for film, severity, score, unusual, below in zip(
                self.sample.films, self.severities, answers.scores, answers.unusual, answers.below, strict=True
            )
            if below and severity is not None
        ]
        return tuple(sorted(found, key=lambda miss: (ORDER.index(miss.severity), miss.score)))


def _interval(found: Estimate) -> tuple[float, float]:
    return found.low, found.high


def _per_class(estimates: dict[str, Estimate], name: str) -> PerClass:
    clear, finding = (
        headline.defined(estimates[f"{name}_{label}"], _UNDEFINED_SHARE) for label in ("no_finding", "finding")
    )
    return PerClass(
        no_finding=clear.value,
        finding=finding.value,
        no_finding_interval=_interval(clear),
        finding_interval=_interval(finding),
    )


def write_report(out: Path, content: Mapping[str, Any], page: str) -> None:
    """Write both files, whole or not at all. Raises StorageError."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}")
    try:
        write_durably(temporary / REPORT, [(json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()])
        write_durably(temporary / PAGE, [page.encode()])
        temporary.rename(out)  # replaces an empty folder
        fsync_folder(out.parent)
    except OSError as error:
        raise StorageError(f"cannot write the report {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
