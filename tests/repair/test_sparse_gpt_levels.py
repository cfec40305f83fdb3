import pickle
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.importance.gram import inverse_factor
from autoprune.repair.sparse_gpt_levels import FACTOR, SparseGPT, SparseGPTLevels, solve, sparse_gpt_levels
from autoprune.repair.weight_levels import SUFFIX
from autoprune.structure.groups import Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.task import Role, Task
from tests.language_models import TINY

SETTINGS = SparseGPT(damping=0.01, block=16, cap_bytes=10**7)
UP, DOWN = "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"


def problem(outputs: int, inputs: int, seed: int, *, rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [outputs, inputs], the damped Gram matrix of correlated inputs, and its inverse factor; float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = (torch.randn(rows, inputs, generator=generator) @ mixing).double()
    weight = torch.randn(outputs, inputs, generator=generator).double()
    gram = x.T @ x / rows
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(inputs)
    return weight, damped, inverse_factor(gram, damping=0.01)


def error(change: Tensor, gram: Tensor) -> Tensor:
    """What the outputs lose, squared, for each row."""
    return ((change @ gram) * change).sum(dim=1)


def masked_error(weight: Tensor, gram: Tensor, *, size: int, kept: int) -> float:
    """With the best by |w|·‖x‖ left as they are."""
    scores = (weight.abs() * gram.diagonal().sqrt()).unflatten(1, (-1, size))
    places = scores.argsort(dim=2, descending=True).argsort(dim=2).flatten(1)
    return error(weight * (places >= kept), gram).sum().item()


CASES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 2, 4, 8]), st.integers(0, 9999))


@given(CASES, st.integers(1, 20), st.data())
def test_every_comparison_keeps_exactly_as_many_as_it_should(
    case: tuple[int, int, int, int], block: int, data: st.DataObject
) -> None:
    outputs, comparisons, size, seed = case
    weight, _, factor = problem(outputs, comparisons * size, seed)
    kept = data.draw(st.integers(0, size))
    found = solve(weight, factor, size=size, kept=kept, block=block)
    assert found.shape == weight.shape
    assert ((found.unflatten(1, (-1, size)) != 0).sum(dim=2) == kept).all()
    if kept == size:
        torch.testing.assert_close(found, weight)


@given(st.integers(0, 9999), st.integers(1, 9), st.integers(1, 10), st.sampled_from([2, 5, 10]))
def test_it_is_the_oracle_that_solves_again_for_every_weight(seed: int, kept: int, block: int, size: int) -> None:
    """The same walk, with the later weights of each row by least squares at each step, and no factor."""
    weight, gram, factor = problem(3, 10, seed)
    kept = min(kept, size)
    found = solve(weight, factor, size=size, kept=kept, block=block)
    for row, start in zip(found, weight, strict=True):
        torch.testing.assert_close(row, oracle(start, gram, size=size, kept=kept, block=block), rtol=1e-6, atol=1e-8)


def oracle(start: Tensor, gram: Tensor, *, size: int, kept: int, block: int) -> Tensor:
    inputs, current, stays = len(start), start.clone(), set[int]()
    for j in range(inputs):
        begin = j // size * size
        end = begin + size
        choose = j == begin or (size > block and (j - begin) % block == 0)
        if choose:
            costs = {i: (current[i].item() ** 2) / torch.linalg.inv(gram[i:, i:])[0, 0].item() for i in range(j, end)}
            quota = kept - len([i for i in stays if i >= begin])
            best = sorted(costs, key=lambda i: -costs[i])[:quota]
            upto = min(end, j + block) if size > block else end
            chosen = {i for i in best if i < upto}
            stays = {i for i in stays if i < j} | chosen
        if j not in stays:
            current[j] = 0
        if j + 1 < inputs:  # the later ones make up for all that is settled
            settled = (current - start)[: j + 1]
            current[j + 1 :] = start[j + 1 :] - torch.linalg.solve(
                gram[j + 1 :, j + 1 :], gram[j + 1 :, : j + 1] @ settled
            )
    return current


@given(st.integers(0, 9999), st.integers(6, 11))
def test_better_than_a_mask(seed: int, kept: int) -> None:
    """From half of the weights on, and of several matrices together: it is greedy, so of one it is not always so."""
    errors, masked = [], []
    for weight, gram, factor in (problem(16, 12, 6 * seed + index) for index in range(6)):
        for size, left, block in ((12, kept, 3), (4, 2, 8)):
            errors.append(error(solve(weight, factor, size=size, kept=left, block=block) - weight, gram).sum())
            masked.append(masked_error(weight, gram, size=size, kept=left))
    assert sum(errors) < sum(masked)


def test_close_to_the_best_of_all_choices() -> None:
    """Of one row, against every mask with its least-squares weights."""
    ratios = []
    for seed in range(20):
        weight, gram, factor = problem(1, 8, seed)
        found = error(solve(weight, factor, size=8, kept=4, block=1) - weight, gram).item()
        best = min(restored_error(weight[0], gram, kept) for kept in combinations(range(8), 4))
        assert found >= best - 1e-9
        ratios.append(found / best)
    assert sorted(ratios)[10] < 2.5


def restored_error(weight: Tensor, gram: Tensor, kept: tuple[int, ...]) -> float:
    stays = list(kept)
    gone = [i for i in range(len(weight)) if i not in kept]
    change = torch.zeros_like(weight)
    change[gone] = -weight[gone]
    change[stays] = torch.linalg.solve(gram[stays][:, stays], gram[stays][:, gone] @ weight[gone])
    return error(change[None], gram).item()


def test_independent_inputs_leave_nothing_to_make_up() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([1.0, 9.0, 4.0, 0.0, 25.0, 16.0])
    factor = inverse_factor(scales.diag().double(), damping=0.01).float()
    found = solve(weight, factor, size=6, kept=3, block=2)
    costs = weight.square() * (scales + (scales > 0) * 0.01 * scales.mean())
    stays = costs.argsort(dim=1, descending=True).argsort(dim=1) < 3
    assert torch.equal(found, weight * stays)


# Of a network -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> Task:
    return TINY["llama"]()


def structure_of(task: Task, kind: str) -> Structure:
    return transformer_structure(task.model, task.example_input, prune=(kind,))


def levels_of(
    task: Task, folder: Path, *, kind: str = "weights", settings: SparseGPT = SETTINGS, role: Role | None = None
) -> SparseGPTLevels:
    structure = structure_of(task, kind)
    role = task.data.calibration if role is None else role
    return sparse_gpt_levels(task.model, structure, role, forward=task.forward, settings=settings, folder=folder)


@pytest.mark.parametrize("family", ["llama", "gpt2", "distilbert"])
@pytest.mark.parametrize("kind", ["weights", "2:4"])
def test_every_matrix_has_its_levels(family: str, kind: str, tmp_path: Path) -> None:
    task = TINY[family]()
    levels = levels_of(task, tmp_path, kind=kind)
    for group in structure_of(task, kind).groups:
        weight = task.model.get_submodule(group.name).get_parameter("weight")
        assert levels(group.name, group.units).data_ptr() == weight.data_ptr()
        kept = group.units // 2
        found = levels(group.name, kept)
        assert found.dtype == torch.float32
        assert ((found.unflatten(1, (-1, group.units)) != 0).sum(dim=2) == kept).all()


def test_layers_lose_less_than_by_a_mask(task: Task, tmp_path: Path) -> None:
    levels = levels_of(task, tmp_path)
    for layer in (UP, DOWN):
        heard: list[Tensor] = []
        module = task.model.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        hook = module.register_forward_pre_hook(lambda _, arguments, heard=heard: heard.append(arguments[0]))
        with torch.no_grad():
            task.forward(task.model, task.data.calibration.inputs)
        hook.remove()
        x = heard[0].flatten(0, 1).double()
        weight = module.weight.detach().double()
        kept = module.in_features // 2
        lost = error(levels(layer, kept) - weight, x.T @ x).sum().item()
        assert lost < 0.8 * masked_error(weight, x.T @ x, size=module.in_features, kept=kept)


def test_the_next_process_runs_no_samples_and_solves_nothing(task: Task, tmp_path: Path) -> None:
    levels = levels_of(task, tmp_path)
    found = levels(UP, 9)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name.endswith(FACTOR)}
    assert len(files) == 4 * 3  # of queries to values, output, gate and up, down
    path = next(tmp_path.rglob(f"{UP}-9{SUFFIX}"))
    inode = path.stat().st_ino
    again = levels_of(task, tmp_path)
    assert torch.equal(again(UP, 9), found)
    assert path.stat().st_ino == inode
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_levels_can_be_sent_to_another_process(task: Task, tmp_path: Path) -> None:
    levels = levels_of(task, tmp_path)
    sent = pickle.loads(pickle.dumps(levels))
    assert torch.equal(sent(UP, 9), levels(UP, 9))
    assert torch.equal(sent(DOWN, 48), levels(DOWN, 48))


def test_other_samples_settings_or_code_have_files_of_their_own(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels_of(task, tmp_path)
    levels_of(task, tmp_path, role=task.data.calibration[:12])
    levels_of(task, tmp_path, settings=SparseGPT(damping=0.1, block=16, cap_bytes=10**7))
    levels_of(task, tmp_path, settings=SparseGPT(damping=0.01, block=16, cap_bytes=5))  # decides about no numbers
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr("autoprune.repair.sparse_gpt_levels.code_digest", lambda: "edited")
    levels_of(task, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_damaged_factors_are_made_again(task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = levels_of(task, tmp_path)(UP, 9).clone()
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-7])
    assert torch.equal(levels_of(task, tmp_path)(UP, 9), found)
    assert caplog.text.count("is damaged") == 4 * 3 + 1


def test_a_factor_that_goes_missing_is_an_error_that_says_what_to_do(task: Task, tmp_path: Path) -> None:
    levels = levels_of(task, tmp_path)
    for path in tmp_path.rglob(f"*{FACTOR}"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"made of the inputs of '{UP}', is gone; start again"):
        levels(UP, 9)
