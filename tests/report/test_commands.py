"""Commands that would have failed, one by one."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from anyport.report import TARGETS, advise
from anyport.report.commands import commands_for
from tests.report import kinds


def built(command: str, target: str = "server-cpu", **words: object) -> list[str]:
    traits = replace(kinds.CNN, fix={}, command=command, **words)  # type: ignore[arg-type]
    return shlex.split(commands_for(traits, target).lines[0])


def test_every_method_has_samples_and_the_users_own_words_stay() -> None:
    words = built("anyport build m.py:f --compress int8-dynamic --calibrate=mine.py:batches -odigits.port")
    assert words[3:] == [
        *("--simplify", "auto", "--compress", "int8-dynamic", "--compress", "int8-static"),
        *("--calibrate", "mine.py:batches", "-o", "resnet-cpu.port"),
    ]
    advice = advise(kinds.TEXT, "server-cpu")
    assert "--calibrate calibrate.py:samples" in advice.commands[0]
    assert "calibrate.py:samples stands for a function of yours" in advice.text()
    assert "--calibrate" not in built("anyport build m.py:f", calibrated=True)  # anyport.toml has samples


@pytest.mark.parametrize("target", TARGETS)
def test_fp16_is_for_its_size(target: str) -> None:
    words = built("anyport build m.py:f --compress fp16", target)
    assert words[words.index("--prefer") + 1] == "size"


@pytest.mark.parametrize("target", TARGETS)
def test_operators_of_a_library_get_no_command_that_cannot_load_it(target: str) -> None:
    for command, library in ((" --library libown.so", "libown.so"), ("", "FILE")):
        traits = replace(kinds.STRANGE, command=f"anyport build m.py:f --simplify auto{command}")
        advice = advise(traits, target)
        assert not {"--simplify", "--compress", "bench"} & set(" ".join(advice.commands).split())
        assert all(f"--library {library}" in line for line in advice.commands)
        assert "cannot load one" in advice.text()


def test_a_reweighted_bundle_says_so() -> None:
    command = "anyport reweight old.port w.safetensors -o new.port"
    advice = advise(replace(kinds.CNN, command=command), "browser")
    assert advice.commands[0].startswith("anyport build SOURCE ")
    assert "the bundle was reweighted" in advice.text()


@pytest.mark.parametrize("name", ["a b.port", "-x.port", "it's.port", "$HOME.port.zip", "{x}.port"])
def test_every_name_is_quoted(name: str) -> None:
    lines = [shlex.split(line) for line in commands_for(replace(kinds.CNN, name=name), "server-cpu").lines]
    output = lines[0][lines[0].index("-o") + 1]
    assert output.removeprefix("./") == f"{name.removesuffix('.zip').removesuffix('.port')}-cpu.port"
    assert not output.startswith("-")
    assert all(words[2] == output for words in lines[1:])


def test_an_unbalanced_quote_is_no_traceback() -> None:
    assert built("anyport build 'm.py")[:3] == ["anyport", "build", "SOURCE"]
