import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.repair.least_squares import LeastSquares, Reconstruction, reconstruct
from autoprune.structure.axes import AxisSlices, Kept
from autoprune.structure.edit import Ranking
from autoprune.structure.graph import find_structure
from autoprune.task.task import Role, plain_forward
from tests.models import CLASSES, PRUNABLE, Network, random_plan, random_ranking

ALL_ROWS = 1 << 40


@dataclass
class Case:
    """A network, a random ranking of its units and what restores its readers."""

    network: Network
    ridge: float = 1e-3
    rows: int = ALL_ROWS
    samples: int = 24
    centred: frozenset[str] = frozenset()
    seed: int = 0

    def __post_init__(self) -> None:
        self.model, self.structure = self.network.model(), self.network.structure()
        self.ranking: Ranking = random_ranking(self.structure, seed=3)
        self.role = self.network.role(self.samples)
        self.found = self.solved()

    def solved(self) -> Reconstruction:
        return reconstruct(
            self.model,
            self.structure,
            self.ranking,
            self.role,
            forward=plain_forward,
            settings=LeastSquares(ridge=self.ridge, rows=self.rows),
            centred=self.centred,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def layer(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def groups_of(self, layer: str) -> list[str]:
        return [g.name for g in self.structure.groups if any((m.layer, m.axis) == (layer, "in") for m in g.members)]

    def entries(self, layer: str, kept: Kept) -> Tensor:
        """The dense entries that are kept, in the order of their places."""
        axis = AxisSlices(self.structure, layer, "in")
        return axis.order(self.ranking)[axis.entries(kept)]

    def only(self, group: str, units: int) -> tuple[int, ...]:
        return tuple(units if g.name == group else g.units for g in self.structure.groups)


def input_rows(case: Case, name: str) -> Tensor:
    """[convolution groups, rows, columns], by way of torch's own unfold."""
    layer, rows = case.layer(name), []

    def record(layer: nn.Module, arguments: tuple[Tensor]) -> None:
        (x,) = arguments
        if isinstance(layer, nn.Linear):
            rows.append(x.reshape(1, -1, x.shape[-1]))
            return
        padding = layer.padding
        if layer.padding_mode != "zeros":
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), (0,) * len(padding)
        kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
        if isinstance(layer, nn.Conv1d):
            x, kernel, dilation, padding, stride = (
                x[:, :, None],
                (1, *kernel),
                (1, *dilation),
                (0, *padding),
                (1, *stride),
            )
        patches = F.unfold(x, kernel, dilation, padding, stride)
        rows.append(patches.transpose(1, 2).flatten(0, 1).unflatten(1, (layer.groups, -1)).transpose(0, 1))

    hook = layer.register_forward_pre_hook(record)
    with torch.no_grad():
        case.model(case.role.inputs)
    hook.remove()
    return torch.cat(rows, dim=1).double()


def system(case: Case, name: str) -> tuple[Tensor, Tensor]:
    """Rows A and targets A Wᵀ per convolution group; ridge as rows √λ I, intercept as a last column of ones."""
    X, layer = input_rows(case, name), case.layer(name)
    W = layer.weight.detach().double().reshape(len(X), -1, X.shape[-1])
    intercept = layer.bias is not None or name in case.centred
    spread = X.var(dim=1, correction=0) if intercept else X.square().mean(dim=1)
    penalty = (case.ridge * spread.mean(dim=1)).sqrt()[:, None, None] * torch.eye(X.shape[-1]).double()
    A = torch.cat([X / X.shape[1] ** 0.5, penalty], dim=1)
    if intercept:
        ones = torch.cat([torch.full((X.shape[1],), X.shape[1] ** -0.5), torch.zeros(X.shape[-1])]).double()
        A = torch.cat([A, ones[None, :, None].expand(len(A), -1, 1)], dim=2)
        W = torch.cat([W, torch.zeros_like(W[:, :, :1])], dim=2)
    return A, A @ W.mT


def by_lstsq(case: Case, name: str, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [outputs, entries, *kernel], the change of the bias [outputs], and the squared residual."""
    A, Y = system(case, name)
    layer = case.layer(name)
    kernel = layer.weight[0, 0].numel()
    columns = (case.entries(name, kept)[:, None] * kernel + torch.arange(kernel)).flatten()
    read = torch.cat([columns, torch.arange(layer.weight[0].numel(), A.shape[-1])])
    V = torch.linalg.lstsq(A[:, :, read], Y, driver="gelsd").solution
    weight = V[:, : len(columns)].mT.reshape(len(layer.weight), -1, *layer.weight.shape[2:])
    change = V[:, len(columns) :].sum(dim=1).flatten()
    return weight, change, (A[:, :, read] @ V - Y).square().sum()


def energy(case: Case, name: str) -> Tensor:
    """What is left of the targets when nothing is read but the intercept."""
    A, Y = system(case, name)
    ones = A[:, :, case.layer(name).weight[0].numel() :]
    return (Y - ones @ (ones.mT @ Y)).square().sum()


def assert_equals_lstsq(case: Case, name: str, kept: Kept, *, rtol: float = 1e-4) -> None:
    weight, change, _ = by_lstsq(case, name, kept)
    scale = case.layer(name).weight.detach().abs().max().item()
    torch.testing.assert_close(case.found.weight(name, kept).double(), weight, rtol=rtol, atol=rtol * scale)
    bias, dense = case.found.bias(name, kept), case.layer(name).bias
    assert (bias is None) == (dense is None)
    if bias is not None and dense is not None:
        torch.testing.assert_close(bias.double(), dense.detach() + change, rtol=rtol, atol=rtol * scale)


def before(layer: nn.Module, *, channels: int, dims: int) -> Network:
    """Mixed channels, a nonlinearity, then the layer."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]

    def build() -> nn.Module:
        torch.nn.init.normal_(layer.weight, std=0.3)
        outputs = layer.weight.shape[0]
        return nn.Sequential(conv(3, channels, 1), nn.Tanh(), layer, nn.ReLU(), conv(outputs, CLASSES, 1))

    return Network(build, (3, *(9, 7, 5)[:dims]))


def linear(*, bias: bool) -> Network:
    return Network(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES, bias=bias)), (6,))


def flattened() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(20, CLASSES))


LAYERS = {
    "linear": (linear(bias=True), "2"),
    "linear without bias": (linear(bias=False), "2"),
    "flattened": (Network(flattened), "4"),
    "1×1": (before(nn.Conv2d(6, 7, 1, bias=False), channels=6, dims=2), "2"),
    "3×3 stride 2": (before(nn.Conv2d(6, 7, 3, stride=2, padding=1), channels=6, dims=2), "2"),
    "asymmetric, dilated": (
        before(nn.Conv2d(6, 4, (3, 2), dilation=(2, 1), padding=(2, 0), stride=(1, 2), bias=False), channels=6, dims=2),
        "2",
    ),
    "circular": (before(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), channels=4, dims=2), "2"),
    "grouped": (before(nn.Conv2d(8, 6, 3, padding=1, groups=2), channels=8, dims=2), "2"),
    "grouped in pairs": (before(nn.Conv2d(12, 6, 1, groups=3, bias=False), channels=12, dims=2), "2"),
    "conv1d": (before(nn.Conv1d(6, 7, 3, stride=2, padding=1), channels=6, dims=1), "2"),
}


@pytest.mark.parametrize("ridge", [0, 0.03])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_one_lstsq_per_width(name: str, ridge: float) -> None:
    network, layer = LAYERS[name]
    case = Case(network, ridge=ridge, samples=150)
    (group,) = case.groups_of(layer)
    for units in range(1, len(case.found.error(layer, group))):
        assert_equals_lstsq(case, layer, case.only(group, units))


def test_equals_lstsq_for_every_reader_of_every_network(network: Network) -> None:
    case = Case(network, ridge=1e-2)
    assert not case.found.untouched
    assert set(case.found.layers) == {m.layer for g in case.structure.groups for m in g.members if m.axis == "in"}
    for seed in range(2):
        for layer in case.found.layers:
            assert_equals_lstsq(case, layer, random_plan(case.structure, seed=seed).kept)


@pytest.mark.parametrize("ridge", [0, 0.03])
def test_inputs_that_several_groups_share(ridge: float) -> None:
    case = Case(PRUNABLE["dense"], ridge=ridge, samples=60)
    assert len(case.groups_of("fc")) == 3
    for seed in range(6):
        assert_equals_lstsq(case, "fc", random_plan(case.structure, seed=seed).kept)
    with pytest.raises(ValueError, match="groups share the inputs of 'fc'"):
        case.found.all_widths("fc")


@pytest.mark.parametrize("name", LAYERS)
def test_centred_layers_do_not_pay_for_a_constant(name: str) -> None:
    network, layer = LAYERS[name]
    case = Case(network, ridge=1e-3, samples=60, centred=frozenset({layer}))
    (group,) = case.groups_of(layer)
    assert_equals_lstsq(case, layer, case.only(group, 2))


def test_three_dimensional_patches() -> None:
    layer = nn.Conv3d(5, 4, (3, 2, 1), stride=(2, 1, 1), padding=(1, 0, 0))
    network = before(layer, channels=5, dims=3)
    case = Case(network, ridge=0, samples=20)
    with torch.no_grad():
        inputs = torch.tanh(case.layer("0")(case.role.inputs))
        group, kept = "0", case.only("0", 3)
        weight, bias = case.found.weight("2", kept), case.found.bias("2", kept)
        restored = F.conv3d(inputs[:, case.entries("2", kept)], weight, bias, layer.stride, layer.padding)
        dense = case.layer("2")(inputs)
    residual, about_mean = (restored - dense).square().sum(), (dense - dense.mean((0, 2, 3, 4), keepdim=True)).square()
    assert (residual / about_mean.sum()).item() == pytest.approx(case.found.error("2", group)[3], rel=1e-3)


def test_all_units_give_the_dense_weights_exactly(network: Network) -> None:
    case = Case(network)
    dense = case.structure.dense.kept
    for name in case.found.layers:
        layer = case.layer(name)
        assert torch.equal(case.found.weight(name, dense), layer.weight[:, case.entries(name, dense)])
        assert layer.bias is None or torch.equal(case.found.bias(name, dense), layer.bias)


def test_entries_stand_in_the_order_of_the_slices(network: Network) -> None:
    """A ridge without end leaves the weights what they were, and so equal to the slices."""
    case = Case(network, ridge=1e9)
    ordered = OrderedNetwork(case.model, case.structure, case.ranking)
    touched = {(m.layer, m.axis) for g in case.structure.groups for m in g.members}
    for seed in range(4):
        plan = random_plan(case.structure, seed=seed)
        small = ordered.at(plan.kept)
        for name in case.found.layers:
            weight = case.found.weight(name, plan.kept)
            if (name, "out") in touched:
                out = AxisSlices(case.structure, name, "out")
                weight = weight[out.order(case.ranking)[out.entries(plan.kept)]]
            torch.testing.assert_close(weight, small.get_submodule(name).weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ridge", [0, 0.03])
@pytest.mark.parametrize("name", LAYERS)
def test_the_error_is_the_one_that_is_measured(name: str, ridge: float) -> None:
    network, layer = LAYERS[name]
    case = Case(network, ridge=ridge, samples=100)
    (group,) = case.groups_of(layer)
    error = case.found.error(layer, group)
    for units in range(1, len(error)):
        measured = by_lstsq(case, layer, case.only(group, units))[2] / energy(case, layer)
        assert error[units] == pytest.approx(measured.item(), rel=1e-6, abs=1e-9)


def test_the_error_falls_from_one_to_nothing(network: Network) -> None:
    case = Case(network)
    for group in case.structure.groups:
        errors = [
            case.found.error(layer, group.name) for layer in case.found.layers if group.name in case.groups_of(layer)
        ]
        for error in errors:
            assert error.shape == (group.units + 1,)
            assert (np.diff(error) <= 0).all()
            assert error[-1] == 0
        np.testing.assert_allclose(case.found.group_error(group.name), np.mean(errors, axis=0))
    for layer in case.found.layers:
        (group_name, *others) = case.groups_of(layer)
        start = case.found.error(layer, group_name)[0]
        assert start == 1 if not others else 0 < start < 1


def test_the_error_of_one_of_several_groups_has_the_others_whole() -> None:
    case = Case(PRUNABLE["dense"], ridge=1e-2)
    for group in case.groups_of("fc"):
        error = case.found.error("fc", group)
        for units in range(1, len(error)):
            measured = by_lstsq(case, "fc", case.only(group, units))[2] / energy(case, "fc")
            assert error[units] == pytest.approx(measured.item(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_all_widths_are_the_weights_one_after_the_other(name: str) -> None:
    network, layer = LAYERS[name]
    case = Case(network)
    (group,) = case.groups_of(layer)
    widths = [(units, weight.clone()) for units, weight in case.found.all_widths(layer)]
    assert [units for units, _ in widths] == list(range(1, len(case.found.error(layer, group))))
    for units, weight in widths:
        torch.testing.assert_close(weight, case.found.weight(layer, case.only(group, units)), rtol=1e-4, atol=1e-5)


@given(
    name=st.sampled_from(sorted(LAYERS)),
    seed=st.integers(0, 99),
    ridge=st.sampled_from([1e-6, 1e-3, 1.0]),
    data=st.data(),
)
def test_never_worse_than_unrepaired_weights(name: str, seed: int, ridge: float, data: st.DataObject) -> None:
    """By what is made smallest, and with a small ridge by the plain squared error too."""
    network, layer = LAYERS[name]
    case = Case(Network(lambda: network.model(seed=seed), network.shape), ridge=ridge, samples=20)
    (group,) = case.groups_of(layer)
    units = data.draw(st.integers(1, len(case.found.error(layer, group)) - 1))
    kept = case.only(group, units)
    A, Y = system(case, layer)
    dense = case.layer(layer).weight.detach()

    def residual(weight: Tensor, change: Tensor) -> tuple[float, float]:
        V = torch.zeros_like(dense)
        V[:, case.entries(layer, kept)] = weight
        V = V.double().reshape(len(A), -1, dense[0].numel())
        if A.shape[-1] > V.shape[-1]:
            V = torch.cat([V, change.double().reshape(len(A), -1, 1)], dim=2)
        squares = (A @ V.mT - Y).square().sum(dim=(0, 2))
        return squares.sum().item(), squares[: -dense[0].numel()].sum().item()

    bias, old = case.found.bias(layer, kept), case.layer(layer).bias
    change = torch.zeros(len(dense)) if bias is None or old is None else bias - old.detach()
    repaired = residual(case.found.weight(layer, kept), change)
    unrepaired = residual(dense[:, case.entries(layer, kept)], torch.zeros(len(dense)))
    slack = 1e-6 * energy(case, layer).item()
    assert repaired[0] <= unrepaired[0] + slack
    if ridge < 1e-5:
        assert repaired[1] <= unrepaired[1] + 1e-4 * energy(case, layer).item()


def silent_unit(value: float) -> Network:
    """Unit 4 is always `value`."""

    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        with torch.no_grad():
            model[0].weight[4], model[0].bias[4] = 0, value
        return model

    return Network(build, (6,))


@pytest.mark.parametrize("value", [0.0, 3.0, 1000.0])
def test_an_input_that_never_varies(value: float) -> None:
    case = Case(silent_unit(value), samples=80)
    for units in range(1, 9):
        assert torch.isfinite(case.found.weight("2", case.only("0", units))).all()
    with pytest.raises(ValueError, match=r"'2'.*ridge=0"):
        Case(silent_unit(value), ridge=0, samples=80)


def test_inputs_that_are_all_zero_leave_the_weights_alone() -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        nn.init.constant_(model[0].bias, -1e4)
        return model

    network = Network(build, (6,))
    case = Case(Network(network.model, (6,)))
    kept = case.only("0", 3)
    torch.testing.assert_close(case.found.weight("2", kept), case.layer("2").weight[:, case.entries("2", kept)])
    assert np.isfinite(case.found.error("2", "0")).all()


def test_too_few_rows_need_a_ridge() -> None:
    with pytest.raises(ValueError, match="depend on one another on 8 rows"):
        Case(linear(bias=True), ridge=0, rows=8)
    assert_is_finite(Case(linear(bias=True), ridge=1e-3, rows=8))


def assert_is_finite(case: Case) -> None:
    for layer in case.found.layers:
        assert torch.isfinite(case.found.weight(layer, random_plan(case.structure, seed=0).kept)).all()


def test_broken_inputs_are_named() -> None:
    case = Case(linear(bias=True))
    with torch.no_grad():
        case.layer("0").bias[0] = float("nan")
    with pytest.raises(ValueError, match="inputs of '2' hold NaN"):
        case.solved()


def test_the_generator_decides_which_rows_are_drawn() -> None:
    def weight(seed: int) -> Tensor:
        case = Case(PRUNABLE["plain"], rows=300, seed=seed)
        return case.found.weight("4", random_plan(case.structure, seed=0).kept)

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


def test_drawn_rows_approximate_all_rows() -> None:
    drawn, whole = (Case(PRUNABLE["plain"], rows=rows, samples=200) for rows in (2000, ALL_ROWS))
    for group in drawn.structure.names:
        np.testing.assert_allclose(drawn.found.group_error(group), whole.found.group_error(group), atol=0.05)


def test_the_network_is_left_as_it_was(network: Network) -> None:
    case = Case(network)
    for name, value in network.model().state_dict().items():
        assert torch.equal(case.model.state_dict()[name], value)
    assert not any(layer._forward_pre_hooks for layer in case.model.modules())
    weight = case.found.weight(case.found.layers[0], case.structure.dense.kept)
    assert not weight.requires_grad


def test_survives_pickling() -> None:
    case = Case(PRUNABLE["dense"])
    plans = [random_plan(case.structure, seed=seed).kept for seed in range(3)]
    weights = {(name, kept): case.found.weight(name, kept) for name in case.found.layers for kept in plans}
    loaded = pickle.loads(pickle.dumps(case.found))
    for (name, kept), weight in weights.items():
        assert torch.equal(loaded.weight(name, kept), weight)
        bias = case.found.bias(name, kept)
        assert bias is None or torch.equal(loaded.bias(name, kept), bias)
    for name in case.found.layers:
        for group in case.groups_of(name):
            assert np.array_equal(loaded.error(name, group), case.found.error(name, group))


def test_factors_are_kept_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Case(PRUNABLE["residual"])
    monkeypatch.setattr("autoprune.repair.least_squares.STRIP", 7)
    parts = Case(PRUNABLE["residual"])
    kept = tuple(max(1, units // 2) for units in whole.structure.units.tolist())
    for name in whole.found.layers:
        torch.testing.assert_close(parts.found.weight(name, kept), whole.found.weight(name, kept), rtol=1e-4, atol=1e-5)
        solver = parts.found._readers[name].solver
        strips = getattr(solver, "strips", None)
        if strips is not None:
            size = strips[-1].shape[-1]
            assert sum(strip[0].numel() for strip in strips) <= (0.6 * size + 7) * size
            assert len(strips) > 1


def test_a_layer_too_wide_to_solve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.repair.solver_passes.MOST_COLUMNS", 50)
    case = Case(PRUNABLE["plain"])
    assert case.found.layers == ("9",)
    assert case.found.untouched == {"4": "its 72 input columns are more than the 50 that are solved for"}
    with pytest.raises(KeyError, match="its 72 input columns"):
        case.found.weight("4", case.structure.dense.kept)
    with pytest.raises(KeyError, match="no layer that reads group '0'"):
        case.found.group_error("0")


def test_what_does_not_fit_into_memory_is_named_and_the_narrow_layers_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Case(PRUNABLE["residual"]).found
    columns = {n: Case(PRUNABLE["residual"]).model.get_submodule(n).weight[0].numel() for n in whole.layers}
    narrow, *others = sorted(columns, key=lambda name: columns[name])
    monkeypatch.setattr("autoprune.repair.solver_passes.MOST_BYTES", 20 * columns[narrow] ** 2)
    case = Case(PRUNABLE["residual"])
    assert case.found.layers == (narrow,)
    assert set(case.found.untouched) == set(others)
    assert all("MiB of memory" in reason for reason in case.found.untouched.values())


def test_names_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"centred names \['conv9'\]"):
        Case(PRUNABLE["residual"], centred=frozenset({"conv9"}))
    case = Case(PRUNABLE["residual"])
    with pytest.raises(KeyError, match="'conv1' are not restored; those that are"):
        case.found.bias("conv1", case.structure.dense.kept)
    with pytest.raises(KeyError, match=r"'fc'.*'conv2'"):
        case.found.error("fc", "conv2")


def test_layers_that_no_calibration_sample_reaches_are_left_and_named() -> None:
    """An expert that is never chosen."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.other = (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            chosen = x[:, 0] > 0
            y = x.new_zeros(len(x), 2)
            for rows, expert in ((chosen, self.first), (~chosen, self.other)):
                if rows.any():
                    y[rows] = expert(x[rows])
            return y

    both = torch.tensor([[1.0, 0.5, -1.0, 2.0], [-1.0, 1.0, 0.3, -0.4]])
    network = Experts().eval()
    structure = find_structure(network, both)
    positive = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).abs()
    generator = torch.Generator().manual_seed(0)
    found = reconstruct(
        network,
        structure,
        random_ranking(structure, seed=0),
        Role(positive),
        settings=LeastSquares(ridge=1e-3, rows=100),
        centred=frozenset(),
        generator=generator,
    )
    assert found.layers == ("first.2",)
    assert found.untouched["other.2"] == "no calibration sample reaches it"
