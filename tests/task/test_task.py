from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from autoprune.task.default_metrics import DefaultLoss, DefaultMetric
from autoprune.task.outputs import OutputKind
from autoprune.task.task import Role, Roles, Task, accuracy, first_outputs
from tests.models import PRUNABLE

NETWORK = PRUNABLE["plain"]


def role(seed: int, samples: int = 6) -> Role:
    return NETWORK.role(samples, seed=seed)


def roles() -> Roles:
    return Roles(role(1), role(2), role(3), role(4))


def test_accuracy_counts_the_right_answers() -> None:
    outputs = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, -5.0], [0.0, 3.0]])
    assert accuracy(outputs, torch.tensor([0, 1, 1, 1])) == 0.75


@pytest.mark.parametrize("name", ["train", "calibration", "search", "test"])
def test_an_empty_role_is_named(name: str) -> None:
    parts = dict(roles().items())
    parts[name] = parts[name][:0]
    with pytest.raises(ValueError, match=f"data role '{name}' is empty; every role needs at least one sample"):
        Roles(**parts)


def test_overlapping_roles_are_named_with_a_sample() -> None:
    samples = role(1)
    with pytest.raises(ValueError, match=f"'train' and 'test' share 1 samples, e.g. {samples.ids[0]}; .* disjoint"):
        Roles(samples, role(2), role(3), Role(*_joined(role(4), samples[:1])))


def test_overlap_goes_by_ids_where_there_are_any() -> None:
    inputs, targets = role(1).inputs, role(1).targets
    named = [Role(inputs, targets, tuple(f"{part}:{i}" for i in range(6))) for part in "abcd"]
    Roles(*named)  # the same pixels under other names are other samples
    with pytest.raises(ValueError, match=r"'search' and 'test' share 6 samples, e.g. c:0"):
        Roles(*named[:3], Role(role(4).inputs, role(4).targets, named[2].ids))


def test_a_sample_may_come_twice_in_one_role() -> None:
    Roles(Role(*_joined(role(1), role(1))), role(2), role(3), role(4))


def test_without_ids_a_sample_is_known_by_its_content() -> None:
    assert role(1).ids == role(1).ids
    assert len(set(role(1).ids + role(2).ids)) == 12
    assert role(1)[2:4].ids == role(1).ids[2:4]


@pytest.mark.parametrize("targets", [5, 7])
def test_every_input_needs_a_target(targets: int) -> None:
    with pytest.raises(ValueError, match=rf"6 inputs.*{targets} targets"):
        Role(torch.zeros(6, 2), torch.zeros(targets))


def test_every_input_needs_an_id() -> None:
    with pytest.raises(ValueError, match="a role has 6 inputs but 2 ids"):
        Role(torch.zeros(6, 2), torch.zeros(6), ("a", "b"))


@pytest.mark.parametrize("change", ["input", "target", "id", "order", "fewer"])
def test_the_digest_changes_with_any_sample(change: str) -> None:
    samples = role(1)
    inputs, targets, ids = samples.inputs.clone(), samples.targets.clone(), list(samples.ids)
    match change:
        case "input":
            inputs[3, 0, 0, 0] += 1e-6
        case "target":
            targets[3] = (targets[3] + 1) % 5
        case "id":
            ids[3] = "another"
        case "order":
            inputs, targets, ids = inputs.flip(0), targets.flip(0), ids[::-1]
        case "fewer":
            inputs, targets, ids = inputs[:5], targets[:5], ids[:5]
    assert Role(inputs, targets, tuple(ids)).digest != samples.digest


def test_the_digest_is_that_of_the_samples() -> None:
    samples = role(1)
    assert Role(samples.inputs.clone(), samples.targets.clone(), samples.ids).digest == samples.digest
    strided = Role(samples.inputs.contiguous(memory_format=torch.channels_last), samples.targets, samples.ids)
    assert strided.digest == samples.digest  # however they lie in memory
    assert set(roles().digests) == {"train", "calibration", "search", "test"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_samples_of_any_type_have_ids_and_a_digest(dtype: torch.dtype) -> None:
    samples = Role(torch.arange(6).remainder(2).view(6, 1).to(dtype), torch.zeros(6))
    assert len(set(samples.ids)) == 2
    assert len(samples.digest) == 16


class Squares(Dataset[tuple[Tensor, int]]):
    """Pairs of a tensor and a plain number, as torchvision gives them."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((2,), float(index)), index**2


def test_a_dataset_becomes_a_role() -> None:
    samples = Role.from_dataset(Squares())
    assert samples.inputs[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert samples.targets.tolist() == [0, 1, 4, 9, 16]
    assert len(Role.from_dataset(Squares(), limit=2)) == 2
    assert len(Role.from_dataset(Squares(), limit=9)) == 5


def test_a_role_of_no_samples_is_not_loaded() -> None:
    with pytest.raises(ValueError, match="needs at least one sample; the dataset has 5 and the limit is 0"):
        Role.from_dataset(Squares(), limit=0)
    with pytest.raises(ValueError, match="the dataset has 0 and the limit is None"):
        Role.from_dataset(TensorDataset(torch.zeros(0, 2), torch.zeros(0)))


def test_a_task_puts_its_model_in_eval_mode() -> None:
    task = Task(NETWORK.model().train(), NETWORK.inputs(), roles())
    assert not any(module.training for module in task.model.modules())


@pytest.mark.parametrize("keep", [{"0", "conv7"}, frozenset({"conv7"}), ["conv7"]])
def test_keeping_an_unknown_layer_names_the_layers(keep: object) -> None:
    with pytest.raises(ValueError, match=r"task.keep.*\['conv7'\].*\['0', '4', '9'\]"):
        Task(NETWORK.model(), NETWORK.inputs(), roles(), keep=keep)  # type: ignore[arg-type]


def test_keeping_more_adds_to_what_is_kept() -> None:
    task = Task(NETWORK.model(), NETWORK.inputs(), roles(), keep=frozenset({"0"}))
    assert task.keeping(frozenset({"4"})).keep == {"0", "4"}
    with pytest.raises(ValueError, match="conv7"):
        task.keeping(frozenset({"conv7"}))


def test_samples_have_the_example_inputs_shape() -> None:
    odd = Role(torch.zeros(2, 3, 9, 9), torch.zeros(2))
    with pytest.raises(ValueError, match=r"'search'.*\(3, 9, 9\).*\(3, 8, 8\)"):
        Task(NETWORK.model(), NETWORK.inputs(), Roles(role(1), role(2), odd, role(4)))


def test_other_data_is_checked_as_well() -> None:
    task = Task(NETWORK.model(), NETWORK.inputs(), roles())
    other = Roles(*(Role(torch.full((2, 3, 9, 9), float(i)), torch.zeros(2)) for i in range(4)))
    with pytest.raises(ValueError, match=r"have shape \(3, 9, 9\)"):
        task.with_data(other)


def test_the_first_tensor_is_judged() -> None:
    logits, other = torch.ones(2), torch.zeros(3)
    for outputs in (logits, (logits, other), [[logits], other], {"logits": logits, "hidden": (other,)}):
        assert first_outputs(outputs) is logits
    with pytest.raises(TypeError, match=r"\['loss'\]"):
        first_outputs({"loss": 3})


def _joined(*parts: Role) -> tuple[Tensor, Tensor]:
    return torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts])


def pile(**settings: object) -> Roles:
    return Roles.split(torch.randn(40, 3), torch.arange(40) % 4, **settings)  # type: ignore[arg-type]


class Returns(nn.Module):
    """A model that returns whatever it is given to return."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer, self.linear = answer, nn.Linear(3, 4)

    def forward(self, x: Tensor) -> object:
        return self.answer(self.linear(x)) if callable(self.answer) else self.answer


WRONG: dict[str, tuple[Callable[[], Task], str]] = {
    "returns None": (lambda: Task(Returns(None), torch.zeros(1, 3), pile()), "the model returns None; a tensor"),
    "returns one row": (
        lambda: Task(Returns(lambda x: x[:1]), torch.zeros(1, 3), pile()), r"shape \[1, 4\] for 4 samples.*first axis",
    ),
    "samples second": (
        lambda: Task(Returns(lambda x: x[:, :3].T), torch.zeros(1, 3), pile()), r"stand on the second.*x\)\.transpose",
    ),
    "example without samples' axis": (
        lambda: Task(nn.Linear(3, 4), torch.zeros(3), pile()), r"have shape \(3,\), but the example input has \(\)",
    ),
    "a text as example": (
        lambda: Task(nn.Linear(3, 4), "three numbers", pile()), "task.example_input is a tensor .* got str",
    ),
    "another structure": (
        lambda: Task(nn.Linear(3, 4), (torch.zeros(1, 3),), pile()), r"have shape \(3,\), but the example input has",
    ),
    "another width": (
        lambda: Task(nn.Linear(5, 4), torch.zeros(1, 3), pile()), "does not run on samples of role .*RuntimeError",
    ),
    "labels out of range": (
        lambda: Task(nn.Linear(3, 3), torch.zeros(1, 3), pile()), "has the label 3, but .* classes are 0 to 2",
    ),
    "the same under cross-entropy": (
        lambda: Task(nn.Linear(3, 3), torch.zeros(1, 3), pile(), loss=F.cross_entropy), "has the label 3",
    ),
    "a loss of another number of arguments": (
        lambda: Task(nn.Linear(3, 4), torch.zeros(1, 3), pile(), loss=lambda o: o.log_softmax(1).mean()),
        "task.loss can't be computed .* TypeError",
    ),
    "a metric of nothing": (
        lambda: Task(Returns(lambda x: (x, x)), torch.zeros(1, 3), pile(), metric=lambda o, t: o["a"]),
        "task.metric can't be computed",
    ),
    "an unknown kind": (lambda: Task(nn.Linear(3, 4), torch.zeros(1, 3), pile(), kind="labels"), "kind must be clas"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_together_is_one_sentence(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_labels_that_the_loss_leaves_out_are_no_mistake() -> None:
    Task(nn.Linear(3, 3), torch.zeros(1, 3), pile(), loss=nn.CrossEntropyLoss(ignore_index=3))
    roles = Roles.split(torch.randn(40, 3), torch.where(torch.arange(40) % 4 == 3, -100, torch.arange(40) % 4))
    assert Task(nn.Linear(3, 3), torch.zeros(1, 3), roles).loss is F.cross_entropy


def test_metric_and_loss_read_all_outputs_or_the_first() -> None:
    model = Returns(lambda x: {"logits": x, "size": x[:, :1]})
    inputs, targets = torch.randn(6, 3), torch.arange(6) % 4
    outputs = model(inputs)
    expected = F.cross_entropy(outputs["logits"], targets)  # type: ignore[index]
    for loss in (F.cross_entropy, lambda o, y: F.cross_entropy(o["logits"], y) + 0 * o["size"].sum(), None):
        task = Task(model, torch.zeros(1, 3), pile(), loss=loss)  # type: ignore[arg-type]
        torch.testing.assert_close(task.loss(outputs, targets), expected)
        assert task.metric(outputs, targets) == accuracy(outputs["logits"], targets)  # type: ignore[index]
        assert task.keeping(frozenset()).loss is task.loss, "what was settled stays"


@pytest.mark.parametrize(
    ("kind", "outputs", "targets", "value", "loss"),
    [
        ("classification", torch.eye(4), torch.tensor([0, 1, 2, 0]), 0.75, None),
        ("segmentation", torch.eye(4).view(1, 4, 2, 2), torch.tensor([[[0, 0], [255, 3]]]), 2 / 3, None),
        ("multilabel", torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 1]), 0.5, None),
        ("regression", torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 4.0]), 0.5, 2.0),
        ("embedding", torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 0.5**0.5, 1 - 0.5**0.5),
    ],
)
def test_known_values_of_what_is_measured_by_default(
    kind: str, outputs: Tensor, targets: Tensor, value: float, loss: float | None
) -> None:
    meaning = OutputKind(kind, classes=4)  # type: ignore[arg-type]
    assert DefaultMetric(meaning)(outputs, targets) == pytest.approx(value)
    if loss is not None:
        assert DefaultLoss((meaning,))(outputs, targets).item() == pytest.approx(loss)


def classified(dtype: torch.dtype) -> Task:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    return Task(network, inputs[:1], Roles.split(inputs, torch.arange(60) % 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_is_taken_as_float32_and_that_is_said(dtype: torch.dtype) -> None:
    task = classified(dtype)
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    assert {role.inputs.dtype for _, role in task.data.items()} == {torch.float32} == {task.example_input.dtype}
    assert f"its {str(dtype)[6:]} weights are taken as float32" in task.describe()
    assert "float32" not in classified(torch.float32).describe()


class Sampling(nn.Module):
    """As a variational autoencoder: what it returns is drawn anew every time."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.decode = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)
        return self.decode(mean + torch.randn_like(mean))


def test_a_network_that_draws_random_numbers_draws_the_same_ones_where_it_is_judged() -> None:
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    task = Task(Sampling(), inputs[:1], Roles.split(inputs), kind="regression")
    state = torch.get_rng_state()
    assert torch.equal(task.forward(task.model, inputs), task.forward(task.model, inputs))
    assert torch.equal(torch.get_rng_state(), state)  # of whoever else draws
    task.model.train()
    assert not torch.equal(task.forward(task.model, inputs), task.forward(task.model, inputs))
    assert "it draws random numbers, the same ones every time" in task.describe()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_loss_is_a_mean_over_samples(reduction: str) -> None:
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    loss = nn.CrossEntropyLoss(reduction=reduction)
    task = Task(nn.Linear(6, 3), inputs[:1], Roles.split(inputs, torch.arange(60) % 3), loss=loss)
    outputs, targets = torch.randn(7, 3), torch.arange(7) % 3
    assert task.loss(outputs, targets).item() == pytest.approx(F.cross_entropy(outputs, targets).item())


@dataclass
class Answer:
    logits: Tensor
    boxes: Tensor


class Answering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits, self.boxes = nn.Linear(6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.logits(x), self.boxes(x))


def test_a_dataclass_of_outputs_is_a_container() -> None:
    inputs = torch.randn(60, 6)
    task = Task(Answering(), inputs[:1], Roles.split(inputs, torch.arange(60) % 3))
    assert [(kind.name, kind.kind) for kind in task.outputs] == [("logits", "classification"), ("boxes", "regression")]
    assert torch.equal(task.tensors(task.forward(task.model, inputs))["boxes"], task.model.boxes(inputs))


def test_complex_outputs_are_compared_by_both_of_their_parts() -> None:
    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1j

    inputs = torch.randn(60, 6)
    task = Task(Turned(6, 4), inputs[:1], Roles.split(inputs), kind="regression")
    (values,) = task.tensors(task.forward(task.model, inputs)).values()
    assert values.shape == (60, 4, 2)
    assert torch.equal(values[..., 1], F.linear(inputs, *task.model.parameters()))


def test_numbers_that_are_no_distributions_say_nothing_of_classes() -> None:
    """A mixture's logits beside a single number for each sample: no accuracy is made of these."""
    inputs = torch.randn(60, 6)
    loss = lambda o, y: -(o.log_softmax(1)[:, 0] * y[:, 0]).mean()  # noqa: E731
    task = Task(nn.Linear(6, 3), inputs[:1], Roles.split(inputs, inputs[:, :1]), loss=loss, kind="classification")
    assert not task.measured
    assert "no metric follows from its targets" in task.describe()


def test_layers_of_a_wrapped_network_go_by_either_name() -> None:
    network = NETWORK.model()
    layer = next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    for name in (layer, f"module.{layer}"):
        task = Task(nn.DataParallel(network), NETWORK.inputs(), roles(), keep={name})  # type: ignore[arg-type]
        assert task.keep == {layer}


def test_samples_with_a_history_lose_it() -> None:
    traced = Role((role(1).inputs * torch.ones((), requires_grad=True)), role(1).targets)
    task = Task(NETWORK.model(), traced.inputs[:1], Roles(traced, role(2), role(3), role(4)))
    assert not task.example_input.requires_grad
    assert not task.data.train.inputs.requires_grad
