"""The text of the reference model's card."""

from __future__ import annotations

from clearfilm.vision.base_weights import DISTRIBUTIONS, LICENCE, VERSION
from clearfilm.vision.bundle import Description

_CARD = """\
# {name} {version}

**{note}.** {intended_use}

| | |
| --- | --- |
| decides | "{clear}" or "{finding}" on an adult frontal chest radiograph |
| network | ResNet152 (He et al., CVPR 2016), one logit, {edge} x {edge} grey input, preprocessing `{preprocessing}` |
| trained here | last stage and linear layer; everything before comes from the base weights and is frozen |
| base weights | inflated 3-D ResNet-152 trained on CT, kernels summed over depth; {licence} |
| in packages | {packages}, version {base_version} |
| films | {films} |
| made | {created}, by `models/reference/build.py` |

## Films

| part | patients | normal films | abnormal films |
| --- | --- | --- | --- |
{parts}

Split by patient with a keyed hash. Left out as spoilt, except from the test: films marked in the cohort's quality
list as inverted, upside down, off centre or of suspect label. The number of epochs and the other settings were chosen
by cross-validation on the patients of train and stop; the network was then trained on both. Calibration and
thresholds come from the patients of calibrate only. The test patients were used for the figures below and nothing
else.

The films are a part of NIH ChestX-ray14, provided by the NIH Clinical Center; download page:
<https://nihcc.app.box.com/v/ChestXray-NIHCC>. X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers: *ChestX-ray8:
Hospital-scale chest X-ray database and benchmarks on weakly-supervised classification and localization of common
thorax diseases*, IEEE CVPR 2017. Labels were text-mined by NIH from reports, some are wrong.

## Figures

Test patients, 95 % intervals (AUC: bootstrap over patients; proportions: Clopper-Pearson).

| figure | value | interval | normal / abnormal films |
| --- | --- | --- | --- |
{metrics}

{crossed}

View, age, sex and brightness alone reach the AUC in the table without looking at the lungs: in this collection normal
and abnormal films were picked in different ways. Compare the model with that figure, not with 0.5, and look at the
figures per view. Share of abnormal films is that of the collection, so predictive values do not carry over.

## Operating point

{point}

## Map

Class activation map in calibrated log-odds, drawn from {evidence:.2f} per cell: at most 5 % of the normal calibration
films show a contour, and {contours:.0%} of the abnormal ones. 7 x 7 cells: where the network looked, not the outline of
a lesion.

## Unusual images

A film whose features lie farther than {gate:.4f} from those of the training films gets no score. The limit is
{margin} times the {quantile:.1%} quantile of films that the subspace was not fitted on; the factor was chosen so that
nearly all films of a foreign hospital pass (below). It turns away noise, photographs, other parts of the body,
inverted films and most films that lie on their side or upside down. It does not know left from right, and children's
films pass: the header must tell.

{external}

## Known limits

Small training set of one hospital, 8-bit films that NIH had windowed and stretched to squares. No severity grading,
no external test of the AUC. Tubes and devices can stand for disease. A finding that the NIH labels do not know
(fractures, calcifications) counts as normal in training.

Settings: {settings}
"""


def render_card(
    description: Description,
    settings: dict[str, float],
    crossed: dict[str, float] | None,
    external: dict[str, float] | None,
    contours: float,
    counts: list[tuple[str, int, int, int]],
) -> str:
    """Fill in the card.

    Parameters
    ----------
    description : Description
    settings : dict
        Training settings by name.
    crossed : dict or None
        Mean AUC of the cross-validation, by group.
    external : dict or None
        Films of another hospital: films, patients, share analysed, share of these above the operating point.
    contours : float
        Share of the abnormal calibration films that show a contour.
    counts : list of tuple
        Part, patients, normal and abnormal films.

    Returns
    -------
    str
        Markdown.
    """
    clear, finding = description.labels
    return _CARD.format(
        name=description.name,
        version=description.version,
        note=description.note[0].upper() + description.note[1:],
        intended_use=description.intended_use,
        clear=clear,
        finding=finding,
        edge=description.input_edge,
        preprocessing=description.preprocessing_id,
        packages=", ".join(f"`{name}`" for name in DISTRIBUTIONS),
        base_version=VERSION,
        licence=LICENCE,
        films=description.training_data.description,
        created=description.created,
        parts="\n".join("| {} | {} | {} | {} |".format(*row) for row in counts),
        metrics="\n".join(
            f"| {m.name} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.normal} / {m.abnormal} |"
            for m in description.metrics
        ),
        crossed=_crossed(crossed),
        point=_point(description),
        contours=contours,
        evidence=description.evidence_threshold,
        gate=description.feature_gate.threshold,
        margin=description.feature_gate.margin,
        quantile=description.feature_gate.quantile,
        external=_external(external),
        settings=", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items()),
    )


def _crossed(crossed: dict[str, float] | None) -> str:
    if crossed is None:
        return "No cross-validation was run for this card."
    return (
        "Five-fold cross-validation by patient on train and stop, one run each, mean of the folds: "
        f"AUC {crossed['all']:.3f} (PA {crossed['PA']:.3f}, AP {crossed['AP']:.3f})."
    )


def _point(description: Description) -> str:
    point = description.operating_point
    if point is None:
        return 'None: too few abnormal calibration patients. The model never says "no significant finding".'
    return (
        f"Probability {point.threshold:.4f}. Exact binomial rule on {point.abnormal_patients} abnormal calibration "
        f"patients, one film each, {point.misses} of them below: with {point.confidence:.0%} confidence at least "
        f"{point.sensitivity:.0%} of abnormal patients like these are found. That is a demonstration's guarantee: a "
        "99 % one needs 299 abnormal patients or more."
    )


def _external(external: dict[str, float] | None) -> str:
    if external is None:
        return "Not tried on films of another hospital."
    return (
        f"Hannover Medical School, {external['films']:.0f} films of {external['patients']:.0f} patients with COVID-19 "
        "(ml-workgroup/covid-19-image-repository, CC BY 3.0): "
        f"{external['analysed']:.1%} pass, {external['above']:.1%} of these are at or above the operating point "
        "(labels are per patient; some of these films may well be clear)."
    )
