"""The words that the console translates are those that the gates and the policy use."""

from clearfilm.model_settings import Promotion
from clearfilm.policy.rules import GUARDS
from clearfilm.promotion import Evidence, gates
from worklist.rooms.gate_words import RULES, TITLES


def test_every_gate_and_rule_can_be_translated() -> None:
    evidence = Evidence(
        digest="a" * 64,
        fault=None,
        has_operating_point=True,
        summary=None,
        evaluation_digest=None,
        active_digest="b" * 64,
        shadow=None,
    )
    assert tuple(gate.title for gate in gates(evidence, Promotion())) == TITLES
    assert tuple(guard.words for guard in GUARDS) == RULES
