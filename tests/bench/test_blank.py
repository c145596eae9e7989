from __future__ import annotations

import msgspec

from anyport.bench.blank import Blank


def test_a_blank_says_why_to_programs_too() -> None:
    assert msgspec.to_builtins(Blank("no batch")) == {"why": "no batch"}
