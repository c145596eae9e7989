from __future__ import annotations

import pytest

from anyport.report.advice import RULES, TARGETS
from anyport.report.rules import (
    Basis,
    Rule,
    above,
    always,
    has_cache,
    having,
    is_cnn,
    is_free,
    is_transformer,
)
from tests.report import kinds

TOPICS = {"cost", "format", "limit", "precision", "runtime", "trap"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.text[:40])
def test_every_rule_is_of_known_targets_and_topics_and_holds_for_somebody(rule: Rule) -> None:
    assert set(rule.targets) <= set(TARGETS)
    assert rule.topic in TOPICS
    assert any(rule.applies(traits) for traits in kinds.EVERY)
    assert not rule.text.endswith(".")


@pytest.mark.parametrize("basis", Basis)
def test_every_basis_is_used(basis: Basis) -> None:
    assert any(rule.basis is basis for rule in RULES)


def test_the_conditions() -> None:
    assert always(kinds.CNN)
    assert is_cnn(kinds.CNN)
    assert not is_cnn(kinds.TEXT)
    assert is_transformer(kinds.TEXT)
    assert has_cache(kinds.DECODER)
    assert not has_cache(kinds.TEXT)
    assert is_free(kinds.CNN)
    assert not is_free(kinds.STATIC)
    assert above(10**9)(kinds.LARGE)
    assert not above(10**9)(kinds.CNN)
    assert having("GRU")(kinds.RECURRENT)
    assert not having("GRU", "LSTM")(kinds.CNN)
