"""Advice for a target: which runtime, format and precision, why, what it costs, and the commands for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyport.bundle.disk import size_text
from anyport.errors import UsageError, did_you_mean
from anyport.report.commands import commands_for, fix_text
from anyport.report.rules import BUNDLE, Basis
from anyport.report.rules_devices import DEVICE_RULES
from anyport.report.rules_machines import MACHINE_RULES
from anyport.report.traits import KINDS

if TYPE_CHECKING:
    from anyport.report.rules import Rule
    from anyport.report.traits import Traits

TARGETS: Final = ("android", "browser", "iphone", "jetson", "nvidia", "server-cpu", "windows-pc")
RULES: Final[tuple[Rule, ...]] = (*MACHINE_RULES, *DEVICE_RULES)
ONE_OF_EACH: Final = ("runtime", "format", "precision")  # the choices; the other topics are remarks


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that is said.

    Attributes:
        topic: ``runtime``, ``format``, ``precision``, ``cost``, ``limit``, ``trap`` or ``command``.
        text: What is said.
        basis: Where it is known from.
        source: A link, or the machine and versions of a measurement.
    """

    topic: str
    text: str
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What is advised.

    Attributes:
        bundle: The name of the bundle.
        target: One of `TARGETS`.
        about: One line about the bundle.
        statements: Choices first, then remarks.
        commands: To be run, in order.
    """

    bundle: str
    target: str
    about: str
    statements: tuple[Statement, ...]
    commands: tuple[str, ...]

    def choice(self, topic: str) -> Statement:
        """Return what was chosen as runtime, format or precision."""
        return next(one for one in self.statements if one.topic == topic)

    def text(self) -> str:
        """Return it for people."""
        rows = [f"{self.bundle} for {self.target}: {self.about}"]
        for one in self.statements:
            rows += [f"  {one.topic:<9}   {one.text}", f"  {'':<9}   [{one.basis.value}: {one.source}]"]
        return "\n".join([*rows, "  commands", *(f"    {command}" for command in self.commands)])

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "bundle": self.bundle,
            "target": self.target,
            "about": self.about,
            "statements": [
                {"topic": one.topic, "text": one.text, "basis": one.basis.value, "source": one.source}
                for one in self.statements
            ],
            "commands": list(self.commands),
        }


def advise(traits: Traits, target: str) -> Advice:
    """Say where and in which form a bundle should run.

    Example::

        with open_bundle("digits.port") as bundle:
            print(advise(traits_of(bundle), "browser").text())

    Args:
        traits: What was read of the bundle.
        target: One of `TARGETS`.

    Raises:
        UsageError: There is no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target '{target}'{did_you_mean(target, TARGETS)}")
    words = _words(traits)
    fitting = [rule for rule in RULES if target in rule.targets and rule.applies(traits)]
    choices = [next(rule for rule in fitting if rule.topic == topic) for topic in ONE_OF_EACH]
    remarks = [rule for rule in fitting if rule.topic not in ONE_OF_EACH]
    statements = tuple(
        Statement(rule.topic, rule.text.format_map(words), rule.basis, rule.source.format_map(words))
        for rule in (*choices, *remarks)
    )
    written = commands_for(traits, target)
    notes = tuple(Statement("command", note, Basis.BUNDLE, BUNDLE) for note in written.notes)
    return Advice(traits.name, target, _about(traits), (*statements, *notes), written.lines)


def _words(traits: Traits) -> dict[str, str]:
    return {
        "size": size_text(traits.size_bytes),
        "largest": size_text(traits.largest_bytes),
        "kind": KINDS[traits.kind],
        "axes": ", ".join(traits.fix),
        "fix": fix_text(traits),
        "opset": str(traits.opset),
        "domains": ", ".join(traits.domains),
        "name": traits.name,
    }


def _about(traits: Traits) -> str:
    free = f"dynamic axes {', '.join(traits.fix)}" if traits.fix else "every axis fixed"
    cached = ", run once for each token" if traits.has_cache else ""
    millions = traits.n_parameters / 1e6
    return (
        f"{KINDS[traits.kind]} of {millions:.3g} M parameters, {size_text(traits.size_bytes)} as "
        f"{traits.variant}, opset {traits.opset}, {free}{cached}"
    )
