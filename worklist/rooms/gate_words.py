"""What promotion gates and the policy say, for the catalogue; a test holds it against `clearfilm.promotion`."""

from typing import Final

from worklist.recorded import Recorded, Say
from worklist.templates import N_

TITLES = (
    N_("files of the bundle"),
    N_("fitted operating point"),
    N_("evaluation of this very bundle"),
    N_("test patients kept out of training"),
    N_("enough test films to quote figures"),
    N_("sensitivity at the operating point, lower end"),
    N_("expected calibration error"),
    N_("slope of the calibration"),
    N_("AUC without looking at the lungs"),
    N_("maps follow picture and weights"),
    N_("compared with the active model on the same films"),
    N_("AUC against the active model, lower end"),
    N_("specificity against the active model, lower end"),
    N_("critical films that the active model finds and this one misses"),
    N_("largest fall of sensitivity in a group"),
    N_("days of silent reading"),
    N_("studies read silently"),
    N_("of these, with a finding by their report"),
    N_("share of studies below the operating point"),
)
# The policy's rules, as `clearfilm.policy.rules` words them.
RULES = (
    N_("A film has a significant finding, was not analysed, or was not read by the active model."),
    N_("It was ordered STAT, urgent, high or as soon as possible."),
    N_("Its order has a priority that is not one of `policy.routine_orders`; none at all is routine."),
    N_("Ward, department, requesting service or description holds a word of `policy.guarded_locations`."),
    N_("Request or description holds a word of `policy.red_flags`."),
    N_("The patient is under 18."),
    N_("No film states the patient's age or birth date."),
    N_("The patient has an earlier report whose label is not `no_finding`, or that has no label yet."),
    N_("A device that took one of its films is not released yet."),
)
# What gates measured and want.
_FIGURES: Final = Recorded(
    N_("unaltered"),
    N_("kept out"),
    N_("it may have learned from them"),
    N_("a cohort split by patient, with the key of the training"),
    N_("there"),
    N_("none: too few abnormal calibration patients"),
    N_("not evaluated"),
    N_("not compared with the active model"),
    N_("not measured"),
    N_("never read silently"),
    N_("there is no active model"),
    N_("nothing"),
    N_("no demonstration data"),
    N_("the evaluation's sanity check passes"),
    N_("0; look at each one before you waive this"),
    N_("metadata"),
    N_("thumbnail"),
    N_("lungs blacked out"),
    N_("of bundle {digest}"),
    N_("{n} of {all} critical films"),
    N_("{n} of 1 critical film"),
    N_("{loss} in {n} groups"),
    N_("{loss} in 1 group"),
    N_("{n} films, demonstration data"),
    N_("1 film, demonstration data"),
    N_("{n} films"),
    N_("1 film"),
    N_("at least {value}"),
    N_("at most {value}"),
    N_("above {value}"),
    N_("compared with {digest}"),
    N_("{share} outside the chest, similarity to random weights {value}"),
    N_("within {share} of the evaluation's forecast"),
    N_("{share}, no forecast"),
    N_("{share}, forecast {forecast}"),
    N_("{n} of {all} with a report"),
    N_("{value} ({reason})"),
    N_("{low} to {high}"),
)
# Reasons that the node itself gives for a step of the policy.
_STEPS: Final = Recorded(
    N_("configuration"),
    N_("schedule"),
    N_("policy.stage at the first start"),
    N_("studies read without an answer"),
    N_("all studies"),
    N_("alarm: {reason}"),
    N_("{missed} of {findings} with a finding were tagged among {reason}: more than {low}, the target is {target}"),
)


def figure_words(say: Say, text: str) -> str:
    """What a gate measured or wants, in the viewer's language."""
    return _FIGURES.words(say, text)


def step_words(say: Say, text: str | None) -> str:
    """Why the policy took a step or gives alarm; what people wrote stays as it is."""
    return _STEPS.words(say, text)
