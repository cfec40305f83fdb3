"""What routers hand to experts, and what experts make of it: scores of whole experts and of their neurons."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.importance.layer_inputs import batches
from autoprune.structure.edit import evaluating
from autoprune.structure.families import FAMILIES, Experts, model_type
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Forward, Role

ExpertScore = Literal["outputs", "tokens"]


@torch.no_grad()
def expert_scores(
    model: nn.Module, structure: Structure, role: Role, *, forward: Forward, batch_size: int, by: ExpertScore
) -> dict[str, Tensor]:
    """Group of experts, or of their neurons → the score of each unit [units].

    An expert scores the root mean square, over tokens, of what it adds to the layer's outputs, zero where a token is
    handed to others; or the share of tokens that are handed to it. A neuron scores what the neurons of its number add
    in all experts, as if they were uncorrelated.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
        batch_size: Samples in one forward pass, at least 1.
        by: What whole experts are scored by.
    """
    family = FAMILIES.get(model_type(model) or "")
    names = family.experts if family is not None else None
    if names is None:
        return {}
    groups = {group.name: module for group in structure.groups if (module := _module_of(group, names))}
    uses = {module: _Use(model.get_submodule(module), names) for module in dict.fromkeys(groups.values())}
    with evaluating(model), _listening(model, {name: use.note for name, use in uses.items()}):
        for inputs, _ in batches(role, batch_size) if uses else ():
            forward(model, inputs)
    granularity = {group.name: group.granularity for group in structure.groups}
    return {
        name: uses[module].of_experts(by) if granularity[name] == "expert" else uses[module].of_neurons()
        for name, module in groups.items()
    }


class _Use:
    """Sums over the tokens that one layer of experts was handed."""

    def __init__(self, module: nn.Module, names: Experts) -> None:
        self.module, self.inputs = module, module.get_parameter(names.inputs)
        self.output = module.get_parameter(names.output)
        experts, _, neurons = self.output.shape
        self.tokens, self.handed = 0, torch.zeros(experts)
        self.energies, self.neurons = torch.zeros(experts), torch.zeros(experts, neurons)

    def note(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> None:
        """hidden [T, H]; chosen, weights [T, k]: which experts each token is handed to, and how much they count."""
        self.tokens += len(hidden)
        for expert in chosen.unique().tolist():
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (hidden[token] @ self.inputs[expert].T).chunk(2, dim=-1)
            active = (self.module.act_fn(gate) * up * weights[token, slot, None]).float()  # type: ignore[operator]
            matrix = self.output[expert].float()
            self.handed[expert] += len(token)
            self.energies[expert] += (active @ matrix.T).square().sum().cpu()
            self.neurons[expert] += (active.square().sum(dim=0) * matrix.square().sum(dim=0)).cpu()

    def of_experts(self, by: ExpertScore) -> Tensor:
        return self.handed / self.tokens if by == "tokens" else (self.energies / self.tokens).sqrt()

    def of_neurons(self) -> Tensor:
        return (self.neurons.sum(dim=0) / self.tokens).sqrt()


def _module_of(group: Group, names: Experts) -> str | None:
    """The module of the experts that are the group's units, or that have them."""
    modules = [m.layer for m in group.members if m.axis.partition("/")[0] == names.output]
    return modules[0] if modules else None


@contextmanager
def _listening(model: nn.Module, notes: dict[str, Callable[..., None]]) -> Iterator[None]:
    def heard(note: Callable[..., None]) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            note(*arguments, *named.values())

        return hook

    with ExitStack() as hooks:
        for name, note in notes.items():
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(heard(note), with_kwargs=True))
        yield
