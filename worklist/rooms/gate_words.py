"""Titles of the promotion gates, for the catalogue; a test holds them against `clearfilm.promotion`."""

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
