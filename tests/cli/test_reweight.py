from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file

from anyport.build import build
from anyport.source import load_value
from tests.build.building import ZOO, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

SOURCE = f"{ZOO / 'zoo.py'}:scores_and_choice"


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and other weights for it."""
    folder = tmp_path_factory.mktemp("reweight")
    build(plan_for("scores_and_choice", folder / "old.port"), silent)
    state = load_value("zoo.py:scores_and_choice", ZOO)().state_dict()
    save_file({name: tensor * 1.5 for name, tensor in state.items()}, folder / "new.safetensors")
    return folder


def test_weights_are_swapped_and_it_says_that_nothing_was_proven(shell: Shell, made: Path) -> None:
    found = shell("reweight", made / "old.port", made / "new.safetensors", "-o", made / "a.port")
    assert (found.code, found.err) == (0, "")
    lines = [line.split() for line in found.out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["weights", "new.safetensors"],
        ["warning", "unproven:"],
        ["bundle", "a.port"],
    ]
    assert shell("verify", made / "a.port").code == 1


def test_against_pytorch_it_is_proven(shell: Shell, made: Path) -> None:
    words = (
        made / "old.port",
        made / "new.safetensors",
        "-o",
        made / "b.port",
        "--against",
        SOURCE,
        "--json",
    )
    record = shell("reweight", *words, "--version", "3.0.0", "--max-cases", 12).record
    assert (record["version"], record["proven"], record["dropped"]) == ("3.0.0", True, [])
    assert [verdict["status"] for verdict in record["verdicts"]] == ["PASS"]
    assert shell("verify", made / "b.port").code == 0


def test_a_wrong_tensor_ends_with_1_and_its_name(shell: Shell, made: Path) -> None:
    state = load_file(made / "new.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, made / "wrapped.safetensors")
    found = shell("reweight", made / "old.port", made / "wrapped.safetensors", "-o", made / "c.port")
    assert found.code == 1
    assert found.err.startswith(
        "CheckpointError: 'wrapped.safetensors' does not fit: 'layers.0.bias' (float32[32]) is missing "
        "(did you mean 'module.layers.0.bias'?), and 7 more\n"
    )
    assert "every name begins with 'module.', which torch.nn.DataParallel puts there" in found.err
    assert not (made / "c.port").exists()


def test_another_source_is_refused_without_a_list_of_all_names(shell: Shell, made: Path) -> None:
    (made / "other.py").write_text(
        "from torch import nn\n\ndef load():\n    return nn.Sequential(nn.Linear(64, 10))\n", encoding="utf-8"
    )
    words = (made / "old.port", made / "new.safetensors", "-o", made / "o.port")
    found = shell("reweight", *words, "--against", f"{made / 'other.py'}:load")
    assert found.code == 1
    assert "another model than the bundle's" in found.err
    assert "known:" not in found.err
