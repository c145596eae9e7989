from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anyport.build import BuildPlan, BuildSettings, describe, locate
from anyport.errors import UsageError
from anyport.verify import Gates

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_cases": 0}, "max_cases and max_case_bytes must be 1 or more"),
        ({"max_case_bytes": 0}, "max_cases and max_case_bytes must be 1 or more"),
        (
            {"allow": frozenset({"anything"})},
            "--allow 'anything' is not one of failed, inconclusive, unproven-task",
        ),
    ],
)
def test_settings_that_cannot_be_met_are_refused_before_anything_is_loaded(
    given: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        BuildSettings(**given)
    assert caught.value.what == text


def test_a_target_is_a_project_its_file_or_a_source(tmp_path: Path) -> None:
    description, folder = locate(str(EXAMPLE))
    assert description is not None
    assert (description.model.name, folder) == ("digits", EXAMPLE)
    assert locate(str(EXAMPLE / "anyport.toml")) == (description, EXAMPLE)
    assert locate("model.py:load") == (None, Path())
    assert locate("microsoft/resnet-18") == (None, Path())
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == (None, Path())


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        locate(str(tmp_path))
    assert caught.value.what.endswith("has neither an anyport.toml nor the config.json of a checkpoint")


def test_a_folder_of_diffusers_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    assert locate(str(tmp_path)) == (None, Path())


@pytest.mark.parametrize("given", ["a.safetensors:0.5", ["a.safetensors:0.5"]])
def test_loras_reach_the_source(given: str | list[str]) -> None:
    description = describe({"model": {"source": "Tiny-Edit", "lora": given}}, "test")
    plan = BuildPlan(description, Path("here"), Path("m.port"), BuildSettings())
    assert plan.request.adapters == ("a.safetensors:0.5",)
    assert "lora      a.safetensors:0.5" in str(plan).splitlines()


def test_a_plan_says_where_16_bits_are_widened() -> None:
    for storage, line in (
        ("float32", "export    opset 20, weights of 16 bits widened to float32"),
        ("as-is", "export    opset 20"),
    ):
        words = {"model": {"source": "m.py:load"}, "build": {"storage": storage}}
        plan = BuildPlan(describe(words, "test"), Path("here"), Path("m.port"), BuildSettings())
        assert line in str(plan).splitlines()


def test_a_plan_prints_what_it_will_do() -> None:
    words = {
        "model": {"source": "m.py:load"},
        "inputs": {"x": "float32[n, 3]"},
        "outputs": {"y": "float32[n]"},
        "dims": {"n": "1..4"},
        "cases": {"function": "cases.py:samples"},
        "arguments": {"mode": "fast"},
        "build": {
            "fix": {"n": 2},
            "custom_ops": "table.py:OPS",
            "simplify": "auto",
            "compress": ["int8", "fp16"],
        },
    }
    plan = BuildPlan(
        describe(words, "test"),
        Path("here"),
        Path("out/m.port"),
        BuildSettings(force=True, gates=Gates(atol=1)),
    )
    assert str(plan).splitlines() == [
        "source    m.py:load",
        "export    opset 20",
        "          input  x = float32[n, 3]",
        "          output y = float32[n]",
        "          dim    n = 1..4",
        "          fix    n = 2",
        "          custom operators of table.py:OPS",
        "verify    at most 40 cases of 64 MiB, more where many inputs need them",
        "simplify  auto",
        "compress  int8",
        "compress  fp16",
        "write     m.port  (an existing one is replaced)",
    ]
    assert plan.request.cases == "cases.py:samples"
    assert plan.request.arguments == {"mode": "fast"}
