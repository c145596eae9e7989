"""Laws over a table: every target and every kind of bundle."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from anyport.cli.verbs import VERBS
from anyport.compress.methods import candidates
from anyport.errors import UsageError
from anyport.report import TARGETS, Advice, Basis, Traits, advise
from anyport.report.advice import ONE_OF_EACH
from tests.report import kinds

if TYPE_CHECKING:
    import click

EVERYTHING = [(target, traits) for target in TARGETS for traits in kinds.EVERY]
IDS = [f"{target}-{traits.name.removesuffix('.port')}" for target, traits in EVERYTHING]
every = pytest.mark.parametrize(("target", "traits"), EVERYTHING, ids=IDS)


def said(advice: Advice) -> str:
    return " ".join(one.text for one in advice.statements)


@every
def test_one_runtime_one_format_one_precision(target: str, traits: Traits) -> None:
    topics = [one.topic for one in advise(traits, target).statements]
    assert tuple(topics[:3]) == ONE_OF_EACH
    assert not set(topics[3:]) & set(ONE_OF_EACH)
    assert "cost" in topics or "limit" in topics or "trap" in topics


@every
def test_every_statement_says_where_it_is_known_from(target: str, traits: Traits) -> None:
    for one in advise(traits, target).statements:
        assert one.source
        assert "{" not in one.text + one.source
        if one.basis is Basis.ELSEWHERE:
            assert re.search(r"https://[\w.]+/\S+", one.source)
        if one.basis is Basis.MEASURED:
            assert re.search(r"\d+\.\d+|ResNet|encoder", one.source)


@every
def test_every_command_is_one_that_this_version_understands(target: str, traits: Traits) -> None:
    commands = advise(traits, target).commands
    assert commands
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert (program, verb in VERBS) == ("anyport", True)
        read: click.Command = import_module(VERBS[verb].module).command
        # raises for an option, or the lack of one; as in the group, for click remembers the names of --help
        read.make_context(verb, words, help_option_names=["-h", "--help"])


@every
def test_every_method_is_one_that_this_version_writes(target: str, traits: Traits) -> None:
    words = shlex.split(advise(traits, target).commands[0])
    methods = [method for option, method in pairwise(words) if option == "--compress"]
    assert all(candidates(method, traits.operators) for method in methods)
    assert ("--calibrate" in words) is bool(methods)


@every
def test_the_command_that_built_the_bundle_is_kept(target: str, traits: Traits) -> None:
    words = shlex.split(advise(traits, target).commands[0])
    assert words[2] == shlex.split(traits.command)[2]
    assert words.count("-o") == 1
    assert words[-1] != traits.name
    assert "--force" not in words
    assert ("--input" in words) is ("--input" in traits.command)


@every
def test_text_and_json_hold_every_statement(target: str, traits: Traits) -> None:
    advice = advise(traits, target)
    text, record = advice.text(), advice.to_json()
    assert len(record["statements"]) == len(advice.statements)
    for one in advice.statements:
        assert one.text in text
        assert one.source in text
        assert f"[{one.basis.value}: " in text
    assert all(command in text for command in record["commands"])


@pytest.mark.parametrize("target", TARGETS)
def test_different_bundles_get_different_advice(target: str) -> None:
    by_bundle = {said(advise(traits, target)) for traits in kinds.EVERY}
    assert len(by_bundle) >= 5
    assert len({advise(kinds.CNN, other).commands for other in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", ["android", "iphone"])
def test_phones_want_fixed_axes(target: str) -> None:
    build = shlex.split(advise(kinds.TEXT, target).commands[0])
    assert build[build.index("--fix") + 1] == "batch=1,sequence=64"
    assert advise(kinds.STATIC, target).commands[0].count("--fix") == 1  # the user's own


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"android", "iphone"}))
def test_others_keep_dynamic_axes(target: str) -> None:
    assert "--fix" not in advise(kinds.TEXT, target).commands[0]


def test_convolutions_are_static_and_the_others_dynamic() -> None:
    for target in ("android", "browser", "server-cpu", "windows-pc"):
        assert "--compress int8-static" in advise(kinds.CNN, target).commands[0]
        for traits in (kinds.TEXT, kinds.DECODER, kinds.RECURRENT, kinds.DENSE):
            assert "--compress int8-dynamic" in advise(traits, target).commands[0]


def test_the_flavour_flips_between_server_browser_and_phone() -> None:
    methods = {}
    for target in ("android", "browser", "server-cpu"):
        words = shlex.split(advise(kinds.CNN, target).commands[0])
        methods[target] = words[words.index("--compress") + 1]
    assert methods == {
        "android": "int8-static:s8s8",
        "browser": "int8-static:u8u8",
        "server-cpu": "int8-static",
    }


def test_the_browser_has_its_limits() -> None:
    assert "none as it is" in advise(kinds.HUGE, "browser").choice("runtime").text
    assert "5.0 GB" in advise(kinds.HUGE, "browser").choice("runtime").text
    assert "WebAssembly first" in advise(kinds.LARGE, "browser").choice("runtime").text
    assert "more than the 2 GB" in said(advise(kinds.LARGE, "browser"))
    assert "WebGPU's buffers 256 MiB" in said(advise(kinds.LARGE, "browser"))
    for limit in ("more than the 2 GB", "256 MiB", "every visitor downloads"):
        assert limit not in said(advise(kinds.DENSE, "browser"))


def test_traps_are_told_to_those_who_have_them() -> None:
    android = advise(kinds.TEXT, "android")
    assert "MNN ignores the axes" in said(android)
    assert "IsNaN" in said(android)
    assert "--opset 17" in android.commands[0]
    plain = advise(kinds.CNN, "android")
    assert "MNN ignores" not in said(plain)
    assert "--opset" not in plain.commands[0]


def test_one_token_at_a_time_is_another_matter() -> None:
    assert "3.5x faster for one token" in advise(kinds.DECODER, "server-cpu").choice("precision").text
    assert "one token" not in advise(kinds.TEXT, "server-cpu").choice("precision").text


def test_operators_of_ones_own_are_told_everywhere() -> None:
    for target in TARGETS:
        assert "operators of the domain own" in said(advise(kinds.STRANGE, target))
        assert "If, Loop or Scan" in said(advise(kinds.STRANGE, target))


def test_what_nobody_measured_says_so() -> None:
    assert advise(kinds.RECURRENT, "server-cpu").choice("precision").basis is Basis.UNTRIED
    assert advise(kinds.CNN, "nvidia").choice("precision").basis is Basis.UNTRIED


def test_a_bundle_of_an_unknown_command_names_a_source_to_fill_in() -> None:
    for command in ("", "python make.py", "anyport build"):
        build = advise(replace(kinds.CNN, command=command), "browser").commands[0]
        assert build.startswith("anyport build SOURCE --simplify auto")


def test_a_target_that_is_not_known() -> None:
    with pytest.raises(UsageError) as caught:
        advise(kinds.CNN, "nvida")
    assert caught.value.what == "there is no target 'nvida' (did you mean 'nvidia'?)"
