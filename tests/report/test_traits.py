from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import PartEntry, open_bundle
from anyport.errors import BundleError, UsageError
from anyport.report.traits import kind_of, traits_of
from tests.house import tree
from tests.report.listing import Subject
from tests.report.test_graphlines import static
from tests.runtime.networks import Words

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        ({"Conv": 53, "Gemm": 1}, "cnn"),
        ({"Conv": 20, "Softmax": 1, "MatMul": 2}, "cnn"),
        ({"Conv": 1, "MatMul": 72, "Softmax": 12}, "transformer"),
        ({"Gather": 1, "MatMul": 24, "Attention": 4}, "transformer"),
        ({"LSTM": 2, "Gemm": 1}, "recurrent"),
        ({"Gemm": 3, "Relu": 2}, "dense"),
        ({"Mul": 1}, "dense"),
    ],
)
def test_operators_tell_the_kind(operators: dict[str, int], kind: str) -> None:
    assert kind_of(operators) == kind


def test_the_bundle_that_ships() -> None:
    with open_bundle(tree.PACKAGE / "demo" / "digits.port") as bundle:
        traits = traits_of(bundle)
        entry = bundle.manifest.variants["fp32"].graphs["network"]
    assert (traits.kind, traits.variant, traits.opset) == ("cnn", "fp32", 20)
    assert traits.operators == entry.operators
    assert traits.n_parameters == entry.n_parameters
    assert entry.n_parameters * 4 < traits.size_bytes < entry.n_parameters * 5
    assert traits.fix == {"batch": 1}
    assert not traits.has_cache
    assert traits.largest_bytes < traits.size_bytes


def test_fixed_axes_need_no_sizes(tmp_path: Path) -> None:
    with static(2).open(tmp_path) as bundle:
        assert traits_of(bundle).fix == {}


def test_a_cache_goes_in_and_comes_out(tmp_path: Path) -> None:
    part = PartEntry(
        {"pixel_values": "float32[batch, 1, 2, 2]"}, {"logits": "float32[batch, 4]"}, {"batch": "1..64"}
    )
    both = PartEntry(
        part.inputs | {"past_key": "float32[2]"}, part.outputs | {"present_key": "float32[2]"}, part.dims
    )
    one = PartEntry(part.inputs | {"past_key": "float32[2]"}, part.outputs, part.dims)
    for place, (entry, expected) in enumerate([(part, False), (one, False), (both, True)]):
        (tmp_path / str(place)).mkdir()
        words = replace(Words(), task=None, settings={}, part=entry)
        path = Subject(words=words, sizes=())
        with path.open(tmp_path / str(place)) as bundle:
            assert traits_of(bundle).has_cache is expected


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as bundle:
        with pytest.raises(UsageError, match="no variant 'int4'"):
            traits_of(bundle, "int4")
        bundle.graph_file("network").path.write_bytes(b"junk" * 100)
        with pytest.raises(BundleError):
            traits_of(bundle)
