"""The commands that make and check what is advised: those of the build that made the bundle, changed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.report.rules import reduces_by_input

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.report.traits import Traits

_STATIC_TARGETS: Final = frozenset({"android", "iphone"})
_FLAGS: Final = frozenset({"--force", "--json", "--dry-run"})
_SHORT: Final = "-o"
_FORMS: Final[Mapping[str, str]] = {
    "android": "android",
    "browser": "web",
    "iphone": "iphone",
    "jetson": "jetson",
    "nvidia": "nvidia",
    "server-cpu": "cpu",
    "windows-pc": "windows",
}
_SIMPLIFY: Final = (("--simplify", "auto"),)
_NO_COMMAND: Final = (
    "the bundle does not say how it was built: SOURCE, and --input and --dim, are yours to fill in"
)
_REWEIGHTED: Final = (
    "the bundle was reweighted, and its command names no source: SOURCE, which must load the new weights, and"
    " --input and --dim of the first build are yours to fill in"
)
_SAMPLES: Final = (
    "calibrate.py:samples stands for a function of yours that yields inputs; a folder of pictures will do too"
)
_LIBRARY: Final = (
    "--library FILE is the library that has the operators; --simplify, --compress and `anyport bench` cannot"
    " load one, so none of them is here"
)

Option = tuple[str, str]  # its name and value


@dataclass(frozen=True, slots=True)
class Commands:
    """What is to be typed.

    Attributes:
        lines: In order.
        notes: What must be known to type them.
    """

    lines: tuple[str, ...]
    notes: tuple[str, ...]


def fix_text(traits: Traits) -> str:
    """Return the sizes for dynamic axes, ``batch=1,height=224``."""
    return ",".join(f"{name}={size}" for name, size in traits.fix.items())


def commands_for(traits: Traits, target: str) -> Commands:
    """Return the commands that make and check what is advised, as they exist in this version."""
    source, options, note = _recorded(traits.command)
    notes = [note] if note else []
    if traits.domains:
        libraries = _kept(options, "--library") or [("--library", "FILE")]
        options = [*_without(options, "--library", "--compress", "--calibrate", "--evaluate", "--max-drop",
                             "--metric", "--prefer", "--simplify"), *libraries]  # fmt: skip
        notes.append(_LIBRARY)
    else:
        libraries = []
        options = _smaller_form(traits, target, options)
        if ("--calibrate", "calibrate.py:samples") in options:
            notes.append(_SAMPLES)
    options += _graph_options(traits, target)
    output = _file_name(f"{traits.name.removesuffix('.zip').removesuffix('.port')}-{_FORMS[target]}.port")
    if target == "android" and reduces_by_input(traits):
        options = [*_without(options, "--opset"), ("--opset", "17")]
    build = ["anyport", "build", source, *_words(options), "-o", output]
    checks = [["anyport", *check.split()] for check in _CHECKS[target]]
    lines = [
        [*check[:2], output, *check[2:], *_words(libraries)]
        for check in checks
        if not (libraries and check[1] == "bench")
    ]
    return Commands(tuple(shlex.join(words) for words in [build, *lines]), tuple(notes))


def _recorded(command: str) -> tuple[str, list[Option], str]:
    """Return the source and the options of the command that built the bundle, and what it leaves open."""
    try:
        words = shlex.split(command)
    except ValueError:  # somebody's own words: a quote that nobody closed
        words = []
    if words[:2] == ["anyport", "reweight"]:
        return "SOURCE", [], _REWEIGHTED
    source, options = "", list[Option]()
    waiting = iter(words[2:] if words[:2] == ["anyport", "build"] else [])
    for word in waiting:
        name, equals, value = word.partition("=")
        if word == "--":
            source = _file_name(next(waiting, ""))
        elif name in _FLAGS:
            continue
        elif word.startswith("--"):
            options.append((name, value if equals else next(waiting, "")))
        elif word.startswith(_SHORT):
            if word == _SHORT:
                next(waiting, None)
        else:
            source = word
    options = _without(options, "--out")
    return (source, options, "") if source else ("SOURCE", options, _NO_COMMAND)


def _smaller_form(traits: Traits, target: str, options: list[Option]) -> list[Option]:
    """Return the options with the simplifiers, and with the advised methods beside the user's own."""
    advised = _METHODS[target](traits)
    methods = list(dict.fromkeys([*_kept(options, "--compress"), *(("--compress", one) for one in advised)]))
    samples = _kept(options, "--calibrate")
    if methods and not samples and not traits.calibrated:
        samples = [("--calibrate", "calibrate.py:samples")]
    # a speed that is measured here is not the target's, and fp16 is never faster on a CPU
    is_size = ("--prefer", "size") in options or (advised and target in _BY_SIZE)
    is_size = is_size or any(method.startswith("fp16") for _, method in methods)
    prefer = [("--prefer", "size")] if methods and is_size else []
    rest = _without(options, "--compress", "--calibrate", "--prefer", "--simplify")
    return [*rest, *_SIMPLIFY, *methods, *samples, *prefer]


def _graph_options(traits: Traits, target: str) -> list[Option]:
    return [("--fix", fix_text(traits))] if target in _STATIC_TARGETS and traits.fix else []


def _kept(options: list[Option], name: str) -> list[Option]:
    return [option for option in options if option[0] == name]


def _without(options: list[Option], *names: str) -> list[Option]:
    return [option for option in options if option[0] not in names]


def _words(options: list[Option]) -> list[str]:
    """Return options as they are typed; a value that looks like an option goes behind ``=``."""
    return [
        word
        for name, value in options
        for word in ([f"{name}={value}"] if value.startswith("-") else [name, value])
    ]


def _file_name(name: str) -> str:
    """Return a name that no program takes for an option."""
    return f"./{name}" if name.startswith("-") else name


def _int8(flavour: str) -> Callable[[Traits], tuple[str, ...]]:
    """Return INT8: static of this flavour for what convolves, dynamic for the others."""
    return lambda traits: (f"int8-static{flavour}",) if traits.kind == "cnn" else ("int8-dynamic",)


_BY_SIZE: Final = frozenset({"android", "browser", "jetson", "nvidia"})
_METHODS: Final[Mapping[str, Callable[[Traits], tuple[str, ...]]]] = {
    "android": _int8(":s8s8"),
    "browser": _int8(":u8u8"),
    "iphone": lambda _traits: (),
    "jetson": lambda _traits: ("fp16",),
    "nvidia": lambda _traits: ("fp16",),
    "server-cpu": _int8(""),
    "windows-pc": _int8(""),
}
_MEASURE: Final = "bench --threads 1,2"
_CHECK: Final = "verify --checklist"
_CHECKS: Final[Mapping[str, tuple[str, ...]]] = {
    "android": (_CHECK,),
    "browser": (_CHECK,),
    "iphone": (_CHECK,),
    "jetson": (f"{_CHECK} --provider tensorrt",),
    "nvidia": (f"{_CHECK} --provider cuda",),
    "server-cpu": (_MEASURE, f"{_CHECK} --threads 2 --max-memory 2GB"),
    "windows-pc": (_MEASURE, f"{_CHECK} --threads 2 --max-memory 2GB"),
}
