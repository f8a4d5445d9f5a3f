"""Plots as SVG text for the page. The only place that imports matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clearfilm.evaluation import Group
from training.evaluation import intervals, measures
from training.evaluation.measures import Confusion
from training.evaluation.queueing import POLICIES, Wait

# Told apart with every kind of colour blindness, and in grey by their lightness.
ABNORMAL, NORMAL, QUIET, INK = "#c4561a", "#2f6d9c", "#8a939c", "#1d252c"
_PAPER_POINT: Final = (1 - 0.8804, 0.8978)
# matplotlib's stubs take a mapping from their own list of names only.
_STYLE: Final[Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#b5bcc3",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#55606a",
    "ytick.color": "#55606a",
    "legend.frameon": False,
    "svg.fonttype": "none",  # names of devices in any script; the browser has the fonts
    "text.parse_math": False,
    "svg.hashsalt": "clearfilm",
}


class _Canvas:
    """One plot and what becomes of it."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.axes: Axes = self.figure.subplots()
        self.svg = ""


@contextmanager
def _canvas(title: str, width: float = 4.6, height: float = 4.1) -> Iterator[_Canvas]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = _Canvas(width, height)
        yield canvas
        stream = io.StringIO()
        canvas.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg ") :]
    canvas.svg = text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def roc(
    labels: NDArray[np.float32], scores: NDArray[np.float64], point: Confusion | None, other: NDArray[Any] | None
) -> str:
    """ROC curve with the paper's operating point, the bundle's own, and the curve of another bundle."""
    with _canvas("ROC curve") as canvas:
        axes = canvas.axes
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
        if other is not None:
            curve = measures.roc(labels, other)
            axes.plot(curve[:, 0], curve[:, 1], color=QUIET, linewidth=1.4, label="compared model")
        curve = measures.roc(labels, scores)
        axes.plot(curve[:, 0], curve[:, 1], color=INK, linewidth=1.8, label="this model")
        axes.plot(*_PAPER_POINT, "D", color=NORMAL, markersize=6, label="Zhang 2019 at 0.5")
        if point is not None:
            specificity, sensitivity = point.recall
            axes.plot(1 - specificity, sensitivity, "o", color=ABNORMAL, markersize=7, label="operating point")
        axes.set(xlabel="share of normal films called finding", ylabel="sensitivity", xlim=(-0.01, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right")
    return canvas.svg


def precision_recall(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> str:
    """Precision against recall of "finding"."""
    with _canvas("Precision-recall curve") as canvas:
        curve = measures.precision_recall(labels, scores)
        share = float(labels.mean(dtype=np.float64))
        canvas.axes.axhline(share, color=QUIET, linewidth=0.8, linestyle=":")
        canvas.axes.annotate("share of abnormal films", (0.02, share + 0.012), color="#55606a", fontsize=8.5)
        canvas.axes.plot(curve[:, 0], curve[:, 1], color=INK, linewidth=1.8)
        canvas.axes.set(xlabel='recall of "finding"', ylabel='precision of "finding"', xlim=(0, 1.01), ylim=(0, 1.02))
    return canvas.svg


def reliability(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> str:
    """Share of abnormal films against score, in bins of as many films each with exact intervals."""
    with _canvas("Reliability plot") as canvas:
        axes = canvas.axes
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
        for one in measures.reliability(labels, scores):
            low, high = intervals.exact(round(one.share * one.films), one.films)
            axes.plot([one.score, one.score], [low, high], color=QUIET, linewidth=1.2)
            axes.plot(one.score, one.share, "o", color=INK, markersize=4.5)
        axes.set(xlabel="score", ylabel="share of abnormal films", xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
    return canvas.svg


def scores(labels: NDArray[np.float32], values: NDArray[np.float64], threshold: float | None) -> str:
    """Scores of normal and abnormal films; normal ones point downwards."""
    with _canvas("Distribution of scores", 9.4, 2.9) as canvas:
        axes, edges = canvas.axes, np.linspace(0, 1, 51)
        for label, sign, colour, name in ((1, 1, ABNORMAL, "abnormal"), (0, -1, NORMAL, "normal")):
            counts, _ = np.histogram(values[labels == label], edges)
            axes.bar(edges[:-1], sign * counts, np.diff(edges), align="edge", color=colour, label=name)
        axes.axhline(0, color=INK, linewidth=0.8)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label="operating point")
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set(xlabel="score", ylabel="films", xlim=(0, 1))
        axes.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.18))
    return canvas.svg


def groups(rows: Sequence[tuple[str, Group]], overall: float) -> str:
    """AUC of each group with its interval, and the line of all films."""
    known = [
        (name, group.auc, group.auc_interval)
        for name, group in rows
        if group.auc is not None and group.auc_interval is not None
    ]
    with _canvas("AUC of each group", 9.4, 0.9 + 0.27 * len(known)) as canvas:
        axes = canvas.axes
        axes.axvline(overall, color=QUIET, linewidth=1, linestyle=":")
        for place, (_, value, (low, high)) in enumerate(reversed(known)):
            axes.plot([low, high], [place, place], color=QUIET, linewidth=1.4)
            axes.plot(value, place, "o", color=INK, markersize=4.5)
        axes.set_yticks(range(len(known)), [name for name, _, _ in reversed(known)])
        axes.set(xlabel="AUC, 95 % interval; dotted: all films", ylim=(-0.6, len(known) - 0.4))
        axes.set_xlim(max(0.0, min([0.5, *(low for _, _, (low, _) in known)]) - 0.02), 1.01)
    return canvas.svg


def waiting(waits: Sequence[Wait]) -> str:
    """Mean wait of each class of studies under each policy."""
    shown = ("abnormal", "cleared normal", "missed abnormal")
    colours = (QUIET, NORMAL, ABNORMAL)
    with _canvas("Mean waiting time", 9.4, 3.1) as canvas:
        axes = canvas.axes
        for offset, (policy, colour) in enumerate(zip(POLICIES, colours, strict=True)):
            means = [next(w.mean for w in waits if (w.policy, w.studies) == (policy, name)) for name in shown]
            places = np.arange(len(shown)) + 0.26 * (offset - 1)
            bars = axes.bar(places, np.nan_to_num(means), 0.24, color=colour, label=policy)
            axes.bar_label(bars, [f"{mean:.0f}" if np.isfinite(mean) else "none" for mean in means], fontsize=8.5)
        axes.set_xticks(range(len(shown)), shown)
        axes.set(ylabel="mean wait, minutes")
        axes.margins(y=0.16)
        axes.legend(loc="upper left")
        axes.grid(visible=False, axis="x")
    return canvas.svg
