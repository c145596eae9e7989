"""Finding a source from the words of a user: every refusal has its text, and projects do not mix."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anyport.errors import SourceError, UsageError
from anyport.source import SourceRequest, find_model, load_function, load_module, load_value
from tests.source.parts import signature

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = """
import torch
from layers import width

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, width())

    def forward(self, x):
        return self.linear(x)

def load():
    return Net().eval()

def broken():
    return {}["weights"]  # LINE

def number():
    return 3

def late():
    from layers import width
    return torch.nn.Linear(8, width()).eval()

def samples():
    import numpy
    yield {"x": numpy.ones((2, 8), numpy.float32)}
"""


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    assert sys.path == path, "the search path is as it was"
    for name in set(sys.modules) - set(modules):
        if "layers" in name or name in {"model", "broken", "nets", "table"}:
            del sys.modules[name]


def project(folder: Path, width: int) -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    (folder / "layers.py").write_text(f"def width():\n    return {width}\n", encoding="utf-8")
    return folder


@pytest.fixture(name="digits")
def _digits(tmp_path: Path) -> Path:
    return project(tmp_path / "digits", 8)


def width_of(module: nn.Module) -> int:
    answer: torch.Tensor = module(torch.ones(1, 8))
    return answer.shape[1]


def test_a_file_with_its_siblings(digits: Path) -> None:
    assert width_of(load_module("model.py:load", digits)) == 8
    assert width_of(load_module("digits/model.py:load", digits.parent)) == 8
    assert width_of(load_module(f"{digits}/model.py:load", Path("elsewhere"))) == 8


def test_a_sibling_may_be_imported_late(digits: Path) -> None:
    """A function's own imports find what the file's imports find."""
    sys.modules.pop("layers", None)
    (digits / "model.py").write_text(MODEL.replace("\nfrom layers import width", ""), encoding="utf-8")
    assert width_of(load_module("digits/model.py:late", digits.parent)) == 8


@pytest.mark.parametrize("as_package", [False, True])
def test_two_projects_in_one_process(tmp_path: Path, as_package: bool) -> None:
    folders = [project(tmp_path / f"project{n}", n) for n in (5, 6)]
    if as_package:
        for folder in folders:
            (folder / "layers").mkdir()
            (folder / "layers" / "parts.py").write_bytes((folder / "layers.py").read_bytes())
            (folder / "layers" / "__init__.py").write_text("from layers.parts import width\n")
            (folder / "layers.py").unlink()
    widths = [width_of(load_module("model.py:load", folder)) for folder in (*folders, *folders)]
    assert widths == [5, 6, 5, 6]


def test_two_projects_that_are_packages(tmp_path: Path) -> None:
    for n in (5, 6):
        package = project(tmp_path / f"p{n}", n) / "nets"
        package.mkdir()
        (package / "__init__.py").touch()
        text = MODEL.replace("from layers", "from nets.layers")
        (package / "model.py").write_text(text, encoding="utf-8")
        (package.parent / "layers.py").rename(package / "layers.py")
    widths = [width_of(load_module("nets.model:load", tmp_path / f"p{n}")) for n in (5, 6, 5)]
    assert widths == [5, 6, 5]


def test_modules_of_others_are_not_forgotten(digits: Path) -> None:
    (digits / "json.py").write_text("raise RuntimeError", encoding="utf-8")
    (digits / "numpy.py").write_text("raise RuntimeError", encoding="utf-8")
    load_module("model.py:load", digits)
    assert sys.modules["json"] is json
    assert sys.modules["numpy"] is np


def test_a_table_of_a_file(digits: Path) -> None:
    (digits / "table.py").write_text("from layers import width\nOPS = {'a': width()}\n", encoding="utf-8")
    assert load_value("table.py:OPS", digits, "table") == {"a": 8}
    for text, message in (
        ("table.py:OSP", "'table.py' has no table 'OSP' (did you mean 'OPS'?)"),
        ("table.py", "'table.py' names no table"),
    ):
        with pytest.raises(SourceError) as caught:
            load_value(text, digits, "table")
        assert caught.value.what == message


WRONG = [
    ("nothing.py:load", "there is no file 'nothing.py'\n  where: digits\n  do:    give file.py:function"),
    ("model.py:laod", "'model.py' has no function 'laod' (did you mean 'load'?)"),
    (
        "model.py:broken",
        (
            "'model.py:broken' fails: KeyError: 'weights'\n  where: model.py:17: "
            'return {}["weights"]  # LINE'
        ),
    ),
    (
        "model.py:number",
        (
            "'model.py:number' returns a int, not a torch.nn.Module\n"
            "  do:    return the module itself, in eval mode"
        ),
    ),
    (
        "raises.py:load",
        (
            "'raises.py' cannot be imported: RuntimeError: no luck\n  where: raises.py:2: "
            'raise RuntimeError("no luck")'
        ),
    ),
    ("wrong.py:load", "'wrong.py' cannot be imported: SyntaxError: "),
    (
        "needs.py:load",
        "'needs.py' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
    ),
    ("no_such_package.net:load", "'no_such_package.net' cannot be imported: ModuleNotFoundError: "),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_cannot_be_loaded(digits: Path, text: str, message: str) -> None:
    (digits / "raises.py").write_text('\nraise RuntimeError("no luck")\n', encoding="utf-8")
    (digits / "wrong.py").write_text("def load(:\n", encoding="utf-8")
    (digits / "needs.py").write_text("import no_such_package\n", encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(message)) as caught:
        load_module(text, digits)
    assert str(digits) not in str(caught.value)


def test_a_class_is_a_function_too(digits: Path) -> None:
    assert isinstance(load_module("model.py:Net", digits), nn.Module)


def test_a_function_becomes_a_model_of_one_part(digits: Path) -> None:
    request = SourceRequest(
        f"{digits}/model.py:load", Path(), signature(), {"mode": "fast"}, f"{digits}/model.py:samples"
    )
    model = find_model(request)
    (part,) = model.parts
    assert (model.name, model.source, model.task) == ("model", "model.py:load", None)
    assert (part.name, part.signature, part.arguments) == ("network", signature(), {"mode": "fast"})
    assert part.given is not None
    for _ in range(2):  # made anew at each call
        assert [list(case) for case in part.given()] == [["x"]]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            SourceRequest("model.py:load", Path()),
            "the inputs and outputs of 'model.py:load' are not declared",
        ),
        (
            SourceRequest("model.py:load", Path(), signature(), cases="cases.py"),
            "cases 'cases.py' is no function\n  do:    write file.py:function",
        ),
    ],
)
def test_what_is_not_said(digits: Path, request_: SourceRequest, message: str) -> None:
    request_ = SourceRequest(request_.text, digits, request_.signature, cases=request_.cases)
    with pytest.raises(UsageError, match=re.escape(message)):
        find_model(request_)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            None,
            (
                "'checkpoint' has no config.json that names its architecture\n"
                "  do:    give a checkpoint folder, a Hugging Face id, or file.py:function"
            ),
        ),
        ("{", "'checkpoint' has no config.json that names its architecture"),
        ("{}", "'checkpoint' has no config.json that names its architecture"),
        ('{"architectures": []}', "'checkpoint' has no config.json that names its architecture"),
        (
            '{"architectures": ["WhisperModel"]}',
            (
                "no recipe knows the architecture 'WhisperModel' "
                "(known: BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering, "
                "QwenImageEditPipeline, QwenImageEditPlusPipeline, ResNetForImageClassification)\n"
                "  do:    give a function that returns the module"
            ),
        ),
        (
            '{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}',
            "'checkpoint' has no weights: neither model.safetensors nor another file that is known",
        ),
    ],
)
def test_checkpoints_that_no_recipe_loads(tmp_path: Path, config: str | None, message: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(message)):
        find_model(SourceRequest("checkpoint", tmp_path))


@pytest.mark.parametrize("name", ["no folder, no id", "../../etc", "a//b"])
def test_what_is_neither_folder_nor_id(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        find_model(SourceRequest(name, tmp_path))
    assert str(caught.value).startswith(f"'{name}' is no folder here and no file.py:function, and the Hug")


def test_the_hub_is_named_when_it_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", os.fspath(tmp_path))
    with pytest.raises(SourceError, match="'example/no-such-model' is no folder here and no file.py:functi"):
        find_model(SourceRequest("example/no-such-model", tmp_path))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("model.py:load", "a LoRA is merged into checkpoints alone"),
        ("checkpoint", "no LoRA can be merged into 'checkpoint'"),
    ],
)
def test_a_lora_where_none_can_be_merged(digits: Path, source: str, text: str) -> None:
    (digits / "checkpoint").mkdir()
    config = '{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}'
    (digits / "checkpoint" / "config.json").write_text(config, encoding="utf-8")
    save_file({"weight": torch.zeros(1)}, digits / "checkpoint" / "model.safetensors")
    with pytest.raises(UsageError) as caught:
        find_model(SourceRequest(source, digits, signature(), adapters=("a.safetensors",)))
    assert caught.value.what == text


def test_a_function_is_returned_uncalled(digits: Path) -> None:
    assert load_function("model.py:number", digits)() == 3
