from __future__ import annotations

from anyport.graph.derivations import Folded, Norm
from anyport.graph.deriving import Weights
from anyport.graph.foldsites import FoldSite, fold_sites
from tests.graph.exports import shared


def test_layers_before_a_norm_are_found_and_lone_norms_are_not() -> None:
    program = shared("folding").captured.program
    sites = list(fold_sites(program, Weights.of(program).nodes))
    assert [(site.weight, site.bias, site.norm.variance, site.axis) for site in sites] == [
        ("conv.weight", "conv.bias", "norm.running_var", 0),
        ("up.weight", "up.bias", "up_norm.running_var", 1),
    ]


def test_a_site_says_what_its_tensors_may_become() -> None:
    norm = Norm(None, None, "m", "v", 1e-5)
    site = FoldSite("w", None, norm, 0)
    assert site.bias_rule() == Folded("bias", None, norm)
    assert [rule.transposed for rule in site.weight_rules()] == [False, True]
