"""What a bundle is worth and where it should run: the release list, and advice for a target.

Both read the bundle and run it with the base install alone. ``docs/report.md`` explains the list,
``docs/choosing.md`` the advice.
"""

from anyport.report.advice import TARGETS, Advice, Statement, advise
from anyport.report.checklist import LINES, Checklist, release_checklist
from anyport.report.line import Line, Mark
from anyport.report.rules import Basis
from anyport.report.runs import CheckSettings
from anyport.report.traits import Traits, traits_of

__all__ = [
    "LINES",
    "TARGETS",
    "Advice",
    "Basis",
    "CheckSettings",
    "Checklist",
    "Line",
    "Mark",
    "Statement",
    "Traits",
    "advise",
    "release_checklist",
    "traits_of",
]
