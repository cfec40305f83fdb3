import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.importance.gram import add_products, input_grams, inverse_factor, symmetric
from autoprune.importance.layer_inputs import TOKENS, batches, first_readers
from autoprune.task.task import Role, plain_forward
from tests.language_models import TINY

QKV, OUTPUT, FFN, DOWN = (
    [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"],
    "model.layers.0.self_attn.o_proj",
    ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"],
    "model.layers.0.mlp.down_proj",
)


def test_layers_that_read_one_tensor_share_an_ear() -> None:
    task = TINY["llama"]()
    names = [*QKV, OUTPUT, *FFN, DOWN]
    first = first_readers(task.model, names, task.data.calibration, forward=task.forward)
    assert list(first) == names
    assert first == {**dict.fromkeys(QKV, QKV[0]), OUTPUT: OUTPUT, **dict.fromkeys(FFN, FFN[0]), DOWN: DOWN}


class Readers(nn.Module):
    """`a` and `b` read one tensor, which is edited in place before `c` reads it; `d` runs twice, `e` never."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcde":
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        y = self.a(x) + self.b(x) + self.d(x)
        return self.c(F.relu_(x.sub_(1))) + self.d(y)


def test_only_the_very_same_values_are_shared() -> None:
    role = Role(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6))
    first = first_readers(Readers(), tuple("abcde"), role, forward=plain_forward)
    assert first == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "e"}


def test_grams_are_mean_outer_products_over_all_batches() -> None:
    model = Readers().eval()
    role = Role(torch.randn(150, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(150))
    grams = input_grams(model, ("a", "b", "c"), role, forward=plain_forward)
    shifted = (role.inputs + 1).double()
    torch.testing.assert_close(grams["a"], shifted.T @ shifted / 150, rtol=1e-6, atol=1e-6)
    assert grams["a"] is grams["b"]
    positive = role.inputs.relu().double()
    torch.testing.assert_close(grams["c"], positive.T @ positive / 150, rtol=1e-6, atol=1e-6)


def test_broken_inputs_are_named() -> None:
    role = Role(torch.full((3, 4), torch.nan), torch.zeros(3), ("a", "b", "c"))
    with pytest.raises(ValueError, match="the inputs of 'a' hold NaN"):
        input_grams(Readers().eval(), ("a",), role, forward=plain_forward)


@pytest.mark.parametrize("columns", [1, 255, 256, 600])
def test_products_by_strips_are_products(columns: int) -> None:
    rows = torch.randn(2, 30, columns, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(2, columns, columns, dtype=torch.float64)
    add_products(total, rows)
    add_products(total, rows)
    exact = 2 * rows.double().mT @ rows.double()
    torch.testing.assert_close(symmetric(total), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(symmetric(total), symmetric(total).mT)


@given(st.integers(1, 7), st.integers(1, 9), st.sampled_from([1e-3, 0.1]), st.integers(0, 999))
def test_the_inverse_factor_is_one(columns: int, rows: int, damping: float, seed: int) -> None:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()
    gram = x.T @ x / rows
    factor = inverse_factor(gram, damping=damping)
    damped = gram + damping * gram.diagonal().mean() * torch.eye(columns)
    assert torch.equal(factor, factor.triu())
    assert (factor.diagonal() > 0).all()
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-6, atol=1e-6)


def test_inputs_that_are_always_zero_cost_next_to_nothing() -> None:
    gram = torch.diag(torch.tensor([2.0, 0.0, 1.0])).double()
    costs = inverse_factor(gram, damping=0.01).diagonal() ** -2
    torch.testing.assert_close(costs[[0, 2]], torch.tensor([2.01, 1.01]).double())
    assert 0 < costs[1] < 1e-12
    assert torch.equal(inverse_factor(torch.zeros(3, 3).double(), damping=0.01), torch.eye(3).double())


@pytest.mark.parametrize(("tokens", "size"), [(TOKENS // 4, 4), (TOKENS, 1), (2 * TOKENS, 1), (2, 10)])
def test_windows_of_tokens_go_by_tokens(tokens: int, size: int) -> None:
    windows = Role(torch.zeros(10, tokens, dtype=torch.long), torch.arange(10), tuple("abcdefghij"))
    parts = list(batches(windows, 64))
    assert next(len(inputs) for inputs, _ in parts) == size
    assert torch.cat([targets for _, targets in parts]).tolist() == list(range(10))
    images = Role(torch.zeros(10, tokens), torch.arange(10), tuple("abcdefghij"))
    assert [len(inputs) for inputs, _ in batches(images, 7)] == [7, 3]
