"""A module that is shown a part of its input, while its layers read all of it."""

import copy
import pickle

import torch
from torch import nn

from autoprune.structure.narrowed_input import NarrowedInput, withheld_of, withhold
from experiments.coverage.attentions import SplitAttention


def half_of(dense: SplitAttention) -> SplitAttention:
    """The attention without its last two of four heads, cut by hand."""
    small = copy.deepcopy(dense)
    rows = torch.cat([torch.arange(12) + 24 * part for part in range(3)])
    small.c_attn.weight.data, small.c_attn.bias.data = dense.c_attn.weight[rows], dense.c_attn.bias[rows]
    small.c_proj.weight.data = dense.c_proj.weight[:, :12]
    small.n_head, small.n_embd = 2, 12
    withhold(small, 12)
    return small


def test_layers_read_what_the_module_is_not_shown() -> None:
    torch.manual_seed(0)
    dense, x = SplitAttention(24, 4), torch.randn(2, 5, 24)
    small = half_of(dense)
    with torch.no_grad():
        dense.c_proj.weight[:, 12:] = 0
        assert torch.allclose(small(x), dense(x), atol=1e-6)
        for again in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), nn.Sequential(small)):
            assert torch.equal(again(x), small(x))
    assert isinstance(small, SplitAttention)
    assert "forward" not in vars(small.c_attn)


def test_a_module_that_is_shown_everything_is_what_it_was() -> None:
    dense = SplitAttention(24, 4)
    withhold(dense, 12)
    withhold(dense, -6)
    assert withheld_of(nn.Sequential(dense)) == {"0": 6}
    withhold(dense, -6)
    assert type(dense) is SplitAttention
    assert not isinstance(dense, NarrowedInput)
    assert withheld_of(nn.Sequential(dense)) == {}
