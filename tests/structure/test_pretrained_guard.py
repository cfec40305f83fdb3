"""A pruned model of a hub writes what transformers loads to the same outputs, or raises; all else saves as before."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from autoprune.export.network import load_network, save_network
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from tests.language_models import TINY


def pruned(
    family: str, *, kinds: tuple[str, ...], removed: int = 1, last_only: bool = False
) -> tuple[nn.Module, nn.Module]:
    """The dense network, and one from which every group lost that many of its levels' steps."""
    task = TINY[family]()
    structure = find_structure(task.model, task.example_input, prune=kinds)
    kept = [group.levels[-1 - removed] for group in structure.groups]
    if last_only:
        kept[:-1] = structure.units[:-1]
    ranking = {
        group.name: torch.arange(group.units)
        if not group.compared
        else torch.arange(group.units, dtype=torch.int16).repeat(
            task.model.get_parameter(f"{group.compared[0].layer}.weight").shape[0],
            task.model.get_parameter(f"{group.compared[0].layer}.weight").shape[1] // group.units,
        )
        for group in structure.groups
    }
    return task.model, shrink(task.model, structure, structure.plan(np.array(kept)), ranking)


@pytest.mark.parametrize(
    ("family", "kinds"), [("llama", ("attention",)), ("gpt2", ("heads",)), ("bert", ("heads",)), ("llama", ("keys:4",))]
)
def test_a_network_without_a_configuration_raises(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    dense, small = pruned(family, kinds=kinds)
    for part in [small, copy.deepcopy(small), pickle.loads(pickle.dumps(small))]:
        for save in (part.save_pretrained, part.push_to_hub):
            with pytest.raises(NotImplementedError, match=r"no configuration.*autoprune\.load"):
                save(tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
    assert isinstance(small, type(dense))
    assert repr(type(small)) == repr(type(dense))
    dense.save_pretrained(tmp_path / "dense")  # type: ignore[operator]
    assert (tmp_path / "dense" / "config.json").is_file(), "the dense network saves as before"


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("llama", ("heads", "neurons")),
        ("smollm3", ("blocks",)),
        ("gemma2", ("heads", "neurons")),
        ("mixtral", ("heads", "neurons", "experts")),
        ("qwen3_moe", ("neurons", "experts")),
        ("qwen3_moe", ("blocks",)),
        ("gpt2", ("neurons",)),
        ("gpt2", ("weights",)),
        ("bert", ("neurons",)),
    ],
)
def test_a_pruned_network_saves_what_transformers_loads(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    task, (_, small) = TINY[family](), pruned(family, kinds=kinds, last_only=kinds == ("blocks",))
    auto = transformers.AutoModelForCausalLM if hasattr(small, "lm_head") else transformers.AutoModel
    save_network(small, tmp_path / "saved", architecture=task.architecture)
    for index, network in enumerate([small, load_network(tmp_path / "saved"), pickle.loads(pickle.dumps(small))]):
        network.save_pretrained(tmp_path / f"{index}")
        again = auto.from_pretrained(tmp_path / f"{index}", attn_implementation=small.config._attn_implementation)  # type: ignore[union-attr]
        with torch.inference_mode():
            outputs, expected = (n.eval()(task.example_input)[0] for n in (again, small))
        assert torch.equal(outputs, expected)


@pytest.mark.parametrize(("kinds", "removed"), [(("heads", "neurons"), 0), (("weights",), 1)])
def test_a_network_of_the_dense_shapes_saves_as_before(kinds: tuple[str, ...], removed: int, tmp_path: Path) -> None:
    dense, same_shapes = pruned("llama", kinds=kinds, removed=removed)
    same_shapes.save_pretrained(tmp_path)  # type: ignore[operator]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in same_shapes.state_dict().items())
    assert type(same_shapes) is type(dense)


def test_other_networks_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    structure = find_structure(model, torch.zeros(1, 4))
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    small = shrink(model, structure, structure.plan(np.array([3])), ranking)
    assert type(small) is nn.Sequential
