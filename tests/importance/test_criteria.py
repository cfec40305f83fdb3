"""The contract that every criterion keeps on every network, then what is particular to each."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from autoprune.importance.activation import activation
from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.bn_scale import bn_scale
from autoprune.importance.criterion import CriterionInputs, Importance, Scores, rank, scored
from autoprune.importance.fpgm import fpgm
from autoprune.importance.magnitude import magnitude
from autoprune.importance.random_scores import random
from autoprune.importance.taylor import taylor
from autoprune.structure.edit import masked
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.structure.layer_types import tensor_axes
from autoprune.task.task import Forward, Loss, Role, plain_forward
from tests.models import PRUNABLE, Network

l1 = partial(magnitude, order=1, read=False)
CRITERIA: dict[str, Importance] = {
    "l1": l1,
    "l2": partial(magnitude, order=2, read=False),
    "l1_read": partial(magnitude, order=1, read=True),
    "taylor": partial(taylor, batch_size=8),
    "bn_scale": partial(bn_scale, otherwise=l1),
    "activation": partial(activation, order=1, batch_size=16),
    "rms_activation": partial(activation, order=2, batch_size=16),
    "activation_norm": partial(activation_norm, batch_size=16),
    "fpgm": fpgm,
    "random": random,
}


SAME = {"wanda": "activation_norm", "expert_tokens": "activation_norm"}  # of networks without experts


@pytest.fixture(params=CRITERIA)
def criterion(request: pytest.FixtureRequest) -> Importance:
    return CRITERIA[request.param]


def scores_of(criterion: Importance, model: nn.Module, structure: Structure, role: Role, *, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return scored(criterion, CriterionInputs(model, structure, role, F.cross_entropy, plain_forward, generator))


def test_every_unit_gets_the_same_finite_score_from_the_same_seed_and_the_network_stays_as_it_was(
    criterion: Importance, network: Network
) -> None:
    """Whatever its modes are, and whichever parameters can be trained."""
    model, structure = network.model(), network.structure()
    scores = scores_of(criterion, model, structure, network.role())
    model.train()
    next(model.modules()).training = False
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    again = scores_of(criterion, model, structure, network.role())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert list(scores) == list(structure.names)
    for group in structure.groups:
        values = scores[group.name]
        assert torch.equal(values, again[group.name])
        assert values.shape == (group.units,)
        assert values.dtype == torch.float32
        assert not values.requires_grad
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
        assert values.unique().numel() > 1, "a criterion that cannot tell units apart is none"


def test_a_failure_leaves_the_network_as_it_was(criterion: Importance) -> None:
    """Samples that do not fit, for the criteria that look at samples."""
    network = PRUNABLE["residual"]
    model = network.model().train()
    structure = network.structure()
    wrong = Role(torch.zeros(4, 9, 8, 8), torch.zeros(4, dtype=torch.long))
    try:
        scores_of(criterion, model, structure, wrong)
    except RuntimeError:
        assert all(module.training for module in model.modules())
        assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
def test_moving_units_moves_their_scores(name: str, network: Network) -> None:
    """A network with its channels in another order computes the same; its scores come in that order."""
    model, inputs = network.model(), network.inputs(4)
    structure = network.structure()
    generator = torch.Generator().manual_seed(9)
    orders = {group.name: torch.randperm(group.units, generator=generator) for group in structure.groups}
    moved = permuted(model, structure, orders)
    assert torch.allclose(moved(inputs), model(inputs), atol=1e-5)
    scores = scores_of(CRITERIA[name], model, structure, network.role())
    after = scores_of(CRITERIA[name], moved, structure, network.role())
    for group, order in orders.items():
        torch.testing.assert_close(after[group], scores[group][order], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name not in ("random", "fpgm")])
def test_a_unit_that_is_not_there_scores_nothing(name: str, network: Network) -> None:
    model = network.model()
    structure = network.structure()
    ranking = {group.name: torch.arange(group.units).roll(-1) for group in structure.groups}  # unit 0 is the last
    plan = structure.plan(structure.units - 1)
    with masked(model, structure, plan, ranking):
        scores = scores_of(CRITERIA[name], model, structure, network.role())
    for group in structure.groups:
        assert scores[group.name][0] == 0, group.name


@pytest.mark.parametrize(
    "name",
    ["l1", "l2", "taylor", "activation", "activation_norm", "wanda", "expert_tokens", "fpgm", "bn_scale", "random"],
)
def test_yaml_criteria_are_the_criteria(name: str) -> None:
    """What conf/importance says composes into something that scores."""
    folder = Path(__file__).parents[2] / "conf" / "importance"
    with initialize_config_dir(str(folder), version_base=None):
        criterion = instantiate(compose(name), _convert_="all")
    network = PRUNABLE["residual"]
    structure = network.structure()
    scores = scores_of(criterion, network.model(), structure, network.role())
    expected = scores_of(CRITERIA[SAME.get(name, name)], network.model(), structure, network.role())
    assert list(scores) == list(structure.names)
    if name != "taylor":  # whose batches differ
        assert all(torch.allclose(scores[group], expected[group], rtol=1e-4) for group in structure.names)


def test_every_yaml_file_is_tested() -> None:
    folder = Path(__file__).parents[2] / "conf" / "importance"
    elsewhere = {"sparse_gpt", "default"}  # test_single_weights.py, as it scores no units; test_default_criterion.py
    assert {path.stem for path in folder.iterdir()} <= {*CRITERIA, *SAME} | elsewhere


# What each one measures, on networks whose answer is known ----------------------------------------------------------


@pytest.fixture
def residual() -> tuple[nn.Module, Structure, Role]:
    network = PRUNABLE["residual"]
    model = network.model()
    return model, network.structure(), network.role()


@pytest.mark.parametrize("order", [1, 2])
def test_magnitude_adds_the_norms_of_a_streams_writers(residual: tuple[nn.Module, Structure, Role], order: int) -> None:
    model, structure, role = residual
    scores = scores_of(partial(magnitude, order=order, read=False), model, structure, role)
    norms = [w.flatten(1).norm(p=order, dim=1) for w in (model.conv1.weight, model.conv3.weight)]
    torch.testing.assert_close(scores["conv1"], (norms[0] + norms[1]).detach())


def test_magnitude_can_count_the_readers(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    scores = scores_of(partial(magnitude, order=1, read=True), model, structure, role)
    expected = model.conv2.weight.abs().sum((1, 2, 3)) + model.conv3.weight.abs().sum((0, 2, 3))
    torch.testing.assert_close(scores["conv2"], expected.detach())


def test_fpgm_scores_near_copies_lowest(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    with torch.no_grad():
        model.conv2.weight[:3] = model.conv2.weight[:3].mean(0)
    lowest = scores_of(fpgm, model, structure, role)["conv2"].argsort()[:3]
    assert set(lowest.tolist()) == {0, 1, 2}


def test_fpgm_is_the_sum_of_distances(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    filters = model.conv2.weight.detach().flatten(1)
    expected = torch.stack([sum((one - other).norm() for other in filters) for one in filters])
    torch.testing.assert_close(scores_of(fpgm, model, structure, role)["conv2"], expected)


def test_bn_scale_is_the_size_of_the_scale(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    with torch.no_grad():
        model.bn2.weight.neg_()
    scores = scores_of(partial(bn_scale, otherwise=None), model, structure, role)
    torch.testing.assert_close(scores["conv2"], model.bn2.weight.detach().abs())
    torch.testing.assert_close(scores["conv1"], (model.bn1.weight.abs() + model.bn3.weight.abs()).detach())


def test_bn_scale_names_the_groups_it_cannot_score() -> None:
    network = PRUNABLE["digits_net"]
    structure = network.structure()
    with pytest.raises(ValueError, match=r"\['branch', 'hidden'\].*task.keep"):
        scores_of(partial(bn_scale, otherwise=None), network.model(), structure, network.role())


def test_bn_scale_needs_scales() -> None:
    network = PRUNABLE["bn_without_affine"]
    structure = network.structure()
    with pytest.raises(ValueError, match=r"\['0'\] have none"):
        scores_of(partial(bn_scale, otherwise=None), network.model(), structure, network.role())


def test_bn_scale_leaves_other_groups_to_the_criterion_it_is_given() -> None:
    network = PRUNABLE["digits_net"]
    model = network.model()
    structure = network.structure()
    scores = scores_of(partial(bn_scale, otherwise=l1), model, structure, network.role())
    torch.testing.assert_close(scores["hidden"], model.hidden.weight.abs().sum(1).detach())
    torch.testing.assert_close(scores["merge"], model.bn2.weight.abs().detach())


@pytest.mark.parametrize("batch_size", [5, 24])
def test_activation_is_the_mean_behind_the_relu(residual: tuple[nn.Module, Structure, Role], batch_size: int) -> None:
    """However the samples are cut into batches."""
    model, structure, role = residual
    with torch.no_grad():
        stream = F.relu(model.bn1(model.conv1(role.inputs)))
        inner = F.relu(model.bn2(model.conv2(stream)))
    expected = inner.abs().mean((0, 2, 3))
    scores = scores_of(partial(activation, order=1, batch_size=batch_size), model, structure, role)
    torch.testing.assert_close(scores["conv2"], expected)
    squares = scores_of(partial(activation, order=2, batch_size=batch_size), model, structure, role)
    torch.testing.assert_close(squares["conv2"], inner.square().mean((0, 2, 3)).sqrt())


def test_activation_norm_is_what_an_input_makes_of_the_outputs(residual: tuple[nn.Module, Structure, Role]) -> None:
    """rms of the channel × norm of all weights that read it, one reader after the other."""
    model, structure, role = residual
    with torch.no_grad():
        stream = F.relu(model.bn1(model.conv1(role.inputs)))
        inner = F.relu(model.bn2(model.conv2(stream)))
    expected = inner.square().mean((0, 2, 3)).sqrt() * model.conv3.weight.square().sum((0, 2, 3)).sqrt()
    scores = scores_of(partial(activation_norm, batch_size=7), model, structure, role)
    torch.testing.assert_close(scores["conv2"], expected.detach())


def test_activation_norm_of_grouped_convolutions_adds_up_energies() -> None:
    network = PRUNABLE["grouped"]
    model, role = network.model(), network.role()
    heard: list[Tensor] = []
    hook = model.conv2.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].detach()))
    model(role.inputs)
    hook.remove()
    squares = heard[0].square().mean((0, 2, 3)).view(4, 3)  # four convolution groups of three channels
    weights = model.conv2.weight.detach().square().sum((2, 3)).view(4, 4, 3).sum(1)
    scores = scores_of(partial(activation_norm, batch_size=8), model, network.structure(), role)
    torch.testing.assert_close(scores["conv1"], (squares * weights).sum(0).sqrt())


def test_activation_reads_grouped_convolutions_by_unit() -> None:
    network = PRUNABLE["grouped"]
    model, role = network.model(), network.role()
    structure = network.structure()
    heard: list[Tensor] = []
    hook = model.conv2.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].detach()))
    model(role.inputs)
    hook.remove()
    expected = heard[0].mean((0, 2, 3)).view(4, 3).mean(0)  # four convolution groups of three channels
    scores = scores_of(partial(activation, order=1, batch_size=8), model, structure, role)
    torch.testing.assert_close(scores["conv1"], expected)


def test_taylor_predicts_what_removing_a_little_of_a_unit_costs(network: Network) -> None:
    """(d loss / d gate)², with the gate by finite differences in float64 on every layer that reads the unit."""
    model, role = network.model().double(), network.role(6)
    role = Role(role.inputs.double(), role.targets)
    structure = find_structure(model, role.inputs[:1])
    scores = scores_of(partial(taylor, batch_size=6), model, structure, role)
    step = 1e-6
    for group in structure.groups:
        losses = []
        for gate in (1 + step, 1 - step):
            with gated(model, structure, group.name, unit=1, gate=gate):
                losses.append(F.cross_entropy(model(role.inputs), role.targets).item())
        slope = (losses[0] - losses[1]) / (2 * step)
        assert scores[group.name][1].item() == pytest.approx(slope**2, rel=1e-4, abs=1e-12)


def test_taylor_averages_over_batches(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    parts = [scores_of(partial(taylor, batch_size=16), model, structure, part) for part in (role[:16], role[16:])]
    whole = scores_of(partial(taylor, batch_size=16), model, structure, role)
    for name in structure.names:
        torch.testing.assert_close(whole[name], parts[0][name] * 16 / 24 + parts[1][name] * 8 / 24)


def test_random_scores_follow_the_seed_only(residual: tuple[nn.Module, Structure, Role]) -> None:
    model, structure, role = residual
    one, other = (scores_of(random, model, structure, role, seed=seed) for seed in (0, 1))
    assert not torch.equal(one["conv1"], other["conv1"])


@pytest.mark.parametrize("criterion", [partial(magnitude, read=False), partial(activation, batch_size=8)])
@pytest.mark.parametrize("order", [0, -1])
def test_orders_are_positive(
    residual: tuple[nn.Module, Structure, Role], criterion: partial[Scores], order: float
) -> None:
    with pytest.raises(ValueError, match=f"order must be above 0, got {order}"):
        scores_of(partial(criterion, order=order), *residual)


def test_a_criterion_of_version_0_1_is_called_as_it_was(residual: tuple[nn.Module, Structure, Role]) -> None:
    def spread(
        model: nn.Module,
        structure: Structure,
        role: Role,
        *,
        loss: Loss,
        forward: Forward,
        generator: Generator,
        power: float,
    ) -> Scores:
        assert len(forward(model, role.inputs)) == len(role.inputs)
        return {group.name: torch.rand(group.units, generator=generator) * power for group in structure.groups}

    scores = scores_of(partial(spread, power=2), *residual)  # type: ignore[arg-type]
    assert rank(scores, residual[1], criterion="spread").keys() == set(residual[1].names)


def permuted(model: nn.Module, structure: Structure, orders: dict[str, Tensor]) -> nn.Module:
    """The same function with each group's units in another order: new unit i is old unit orders[i]."""
    moved = copy.deepcopy(model)
    sources: dict[tuple[str, str], Tensor] = {}
    for group in structure.groups:
        for member in group.members:
            positions = torch.from_numpy(member.positions)
            source = sources.setdefault((member.layer, member.axis), torch.arange(member.size))
            source[positions.flatten()] = positions[orders[group.name]].flatten()
    with torch.no_grad():
        for (name, axis), source in sources.items():
            for place in tensor_axes(moved.get_submodule(name), axis):
                place.tensor.copy_(place.tensor.index_select(place.dim, place.rows(source)))
    return moved


@contextmanager
def gated(model: nn.Module, structure: Structure, name: str, *, unit: int, gate: float) -> Iterator[None]:
    """Everything that reads a unit reads it multiplied by the gate."""
    group = next(group for group in structure.groups if group.name == name)
    read = [(model.get_submodule(m.layer).weight, m.positions[unit]) for m in group.members if m.axis == "in"]
    saved = [weight.detach().clone() for weight, _ in read]
    with torch.no_grad():
        for weight, entries in read:
            weight[:, torch.from_numpy(entries)] *= gate
        yield
        for (weight, _), values in zip(read, saved, strict=True):
            weight.copy_(values)
