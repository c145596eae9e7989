"""Advice for a target: which runtime, format and precision, why, what it costs, and the commands for it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyport.bundle.disk import size_text
from anyport.errors import UsageError, did_you_mean
from anyport.report.rules import reduces_by_input
from anyport.report.rules_devices import DEVICE_RULES
from anyport.report.rules_machines import MACHINE_RULES
from anyport.report.traits import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.report.rules import Basis, Rule
    from anyport.report.traits import Traits

TARGETS: Final = ("android", "browser", "iphone", "jetson", "nvidia", "server-cpu", "windows-pc")
RULES: Final[tuple[Rule, ...]] = (*MACHINE_RULES, *DEVICE_RULES)
ONE_OF_EACH: Final = ("runtime", "format", "precision")  # the choices; the other topics are remarks
_STATIC_TARGETS: Final = frozenset({"android", "iphone"})
_REPLACED: Final = frozenset(
    {"-o", "--out", "--simplify", "--compress", "--fix", "--opset", "--prefer", "--calibrate"}
)
_FORMS: Final[Mapping[str, str]] = {
    "android": "android",
    "browser": "web",
    "iphone": "iphone",
    "jetson": "jetson",
    "nvidia": "nvidia",
    "server-cpu": "cpu",
    "windows-pc": "windows",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that is said.

    Attributes:
        topic: ``runtime``, ``format``, ``precision``, ``cost``, ``limit`` or ``trap``.
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
    return Advice(traits.name, target, _about(traits), statements, commands_for(traits, target))


def _words(traits: Traits) -> dict[str, str]:
    return {
        "size": size_text(traits.size_bytes),
        "largest": size_text(traits.largest_bytes),
        "kind": KINDS[traits.kind],
        "axes": ", ".join(traits.fix),
        "fix": _fix(traits),
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


def _fix(traits: Traits) -> str:
    return ",".join(f"{name}={size}" for name, size in traits.fix.items())


def commands_for(traits: Traits, target: str) -> tuple[str, ...]:
    """Return the commands that make and check what is advised, as they exist in this version."""
    output = f"{traits.name.removesuffix('.port').removesuffix('.zip')}-{_FORMS[target]}.port"
    words = [*_build_words(traits.command), "--simplify", "auto", *_METHODS[target](traits)]
    if target in _STATIC_TARGETS and traits.fix:
        words += ["--fix", _fix(traits)]
    if target == "android" and reduces_by_input(traits):
        words += ["--opset", "17"]
    build = shlex.join([*words, "-o", output])
    return (build, *(one.format(output=output) for one in _CHECKS[target]))


def _build_words(command: str) -> list[str]:
    """Return the command that built the bundle, without what the advice says anew."""
    words = shlex.split(command)
    if words[:2] != ["anyport", "build"]:
        return ["anyport", "build", "SOURCE"]
    kept: list[str] = []
    skipped = False
    for word in words:
        name, equals, _ = word.partition("=")
        if skipped:
            skipped = False
        elif name in _REPLACED:
            skipped = not equals
        elif word != "--force":
            kept.append(word)
    return kept if len(kept) > 2 else [*kept, "SOURCE"]  # noqa: PLR2004  (the verb alone)


def _static(flavour: str) -> Callable[[Traits], list[str]]:
    """Return the words for INT8: static of this flavour for what convolves, dynamic for the others."""
    samples = ["--calibrate", "calibrate.py:samples"]
    return lambda traits: (
        ["--compress", f"int8-static{flavour}", *samples]
        if traits.kind == "cnn"
        else ["--compress", "int8-dynamic"]
    )


def _smaller(flavour: str) -> Callable[[Traits], list[str]]:
    chosen = _static(flavour)
    # the speed that is measured here is not the target's: what is asked for is the smaller file
    return lambda traits: [*chosen(traits), "--prefer", "size"]


def _fp16(_traits: Traits) -> list[str]:
    return ["--compress", "fp16", "--prefer", "size"]


_METHODS: Final[Mapping[str, Callable[[Traits], list[str]]]] = {
    "android": _smaller(":s8s8"),
    "browser": _smaller(":u8u8"),
    "iphone": lambda _traits: [],
    "jetson": _fp16,
    "nvidia": _fp16,
    "server-cpu": _static(""),
    "windows-pc": _static(""),
}
_MEASURE: Final = "anyport bench {output} --threads 1,2"
_CHECK: Final = "anyport verify {output} --checklist"
_CHECKS: Final[Mapping[str, tuple[str, ...]]] = {
    "android": (_CHECK,),
    "browser": (_CHECK,),
    "iphone": (_CHECK,),
    "jetson": (f"{_CHECK} --provider tensorrt",),
    "nvidia": (f"{_CHECK} --provider cuda",),
    "server-cpu": (_MEASURE, f"{_CHECK} --threads 2 --memory-limit 2GB"),
    "windows-pc": (_MEASURE, f"{_CHECK} --threads 2 --memory-limit 2GB"),
}
