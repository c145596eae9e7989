from __future__ import annotations

import pytest

from anyport.report.advice import ONE_OF_EACH
from anyport.report.rules_devices import DEVICE_RULES as RULES
from tests.report import kinds


@pytest.mark.parametrize("topic", ONE_OF_EACH)
def test_every_target_has_a_choice_for_every_bundle(topic: str) -> None:
    choices = [rule for rule in RULES if rule.topic == topic]
    for target in {target for rule in choices for target in rule.targets}:
        for traits in kinds.EVERY:
            assert any(target in rule.targets and rule.applies(traits) for rule in choices), (
                target,
                traits.name,
            )


def test_no_choice_hides_behind_one_that_always_applies() -> None:
    for target in {target for rule in RULES for target in rule.targets}:
        for topic in ONE_OF_EACH:
            own = [rule for rule in RULES if rule.topic == topic and target in rule.targets]
            assert all(not all(rule.applies(t) for t in kinds.EVERY) for rule in own[:-1])
