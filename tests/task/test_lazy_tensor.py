"""Samples that are read when they are used are the samples, whatever is done with them; and no more of them is read."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.stored_tensor import TensorFile
from autoprune.task import lazy_tensor, roles, samples
from autoprune.task.lazy_tensor import LazyTensor
from autoprune.task.roles import Role, Roles
from autoprune.task.task import Task

WHOLE = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensor, "LOADED_BYTES", 0)
    monkeypatch.setattr(samples, "COPIED_BYTES", 0)


class Counting:
    """Rows of a tensor, and how many at a time were read."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape, self.dtype, self.read = tensor, tensor.shape, tensor.dtype, list[int]()

    def take(self, which: Any) -> Tensor:
        self.read.append(len(which))
        return self.tensor[torch.from_numpy(which)]


def sources(folder: Path) -> list[Any]:
    np.save(folder / "x.npy", WHOLE.numpy())
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    return [WHOLE, mapped, np.load(folder / "x.npy", mmap_mode="c"), TensorFile().write(WHOLE), Counting(WHOLE)]


DONE: list[Callable[[Tensor], Any]] = [
    lambda x: x[3], lambda x: x[-1], lambda x: x[2:5], lambda x: x[::-2 + 4], lambda x: x[1, 2], lambda x: x[:, 0],
    lambda x: x[..., 0], lambda x: x[[4, 0, 4]], lambda x: x[torch.tensor([5, 1])], lambda x: x[torch.arange(12) > 6],
    lambda x: x[-3:, 1:], lambda x: x[torch.tensor([5, 1])][1:], lambda x: x + 1, lambda x: 1 - x, lambda x: x.sum(),
    lambda x: torch.cat([x, x]), lambda x: F.conv1d(x, torch.ones(2, 3, 2)), lambda x: x.contiguous().view(-1),
    lambda x: torch.from_numpy(x.numpy()), lambda x: x.to("cpu"), lambda x: x.double(), lambda x: x.isfinite().all(),
    lambda x: torch.stack(list(x)), lambda x: x.split(5)[1], lambda x: x.clone().mul_(2), lambda x: copy.deepcopy(x),
    lambda x: pickle.loads(pickle.dumps(x)), lambda x: torch.zeros(12, 3, 4).copy_(x), lambda x: nn.Linear(4, 1)(x) * 0,
]  # fmt: skip


def test_they_are_the_samples(tmp_path: Path) -> None:
    for source in sources(tmp_path):
        lazy = LazyTensor.of(source)
        assert (lazy.shape, lazy.dtype, lazy.nbytes, len(lazy), lazy.ndim) == ((12, 3, 4), torch.float32, 576, 12, 3)
        for number, function in enumerate(DONE):
            assert torch.equal(function(lazy), function(WHOLE)), number
        with torch.inference_mode():
            assert torch.equal(lazy[2:7] * 2, WHOLE[2:7] * 2)
        assert torch.equal(lazy.converted(torch.float64)[2:], WHOLE[2:].double())


def test_only_what_is_used_is_read() -> None:
    source = Counting(WHOLE)
    lazy = LazyTensor.of(source)
    chosen = lazy[torch.tensor([5, 1, 7, 2])][1:]
    assert isinstance(chosen, LazyTensor)
    assert (len(chosen), chosen.device.type, chosen.is_floating_point()) == (3, "cpu", True)
    assert source.read == []
    assert torch.equal(chosen[0], WHOLE[1])
    assert [part.shape[0] for part in samples.cut(lazy, 5)] == [5, 5, 2]
    assert source.read == [1, 5, 5, 2]


def test_nothing_is_written_into_them() -> None:
    lazy = LazyTensor.of(WHOLE.clone())
    for write in (lambda: lazy.add_(1), lambda: lazy.__setitem__(0, 1), lambda: lazy.zero_()):
        with pytest.raises(TypeError, match=r"clone\(\)"):
            write()
    assert torch.equal(lazy, WHOLE)


def test_few_rows_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensor, "LOADED_BYTES", WHOLE[:3].nbytes)
    lazy = LazyTensor.of(WHOLE)
    assert isinstance(lazy[:4], LazyTensor)
    assert not isinstance(lazy[:3], LazyTensor)


class Pairs(torch.utils.data.Dataset[Any]):
    """(image, class) pairs, and which of them were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(WHOLE)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return WHOLE[index], index % 3


def test_a_data_set_is_read_once_and_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "LOADED", 5)
    data = Pairs()
    role = Role.from_dataset(data)
    assert sorted(data.read)[1:] == list(range(12)), "the first one tells how large they are"
    assert isinstance(role.inputs, LazyTensor)
    assert torch.equal(role.inputs, WHOLE)
    assert role.targets.tolist() == [index % 3 for index in range(12)]
    monkeypatch.setattr(samples, "COPIED_BYTES", 2**30)
    in_memory = Role.from_dataset(Pairs())
    assert not isinstance(in_memory.inputs, LazyTensor)
    assert (in_memory.ids, in_memory.digest) == (role.ids, role.digest)
    assert torch.equal(Role.from_dataset(Pairs(), limit=7).inputs, WHOLE[:7])
    assert Role.from_dataset(torch.utils.data.DataLoader(Pairs(), 4)).digest == role.digest
    batches: Any = iter([(WHOLE[:8], torch.arange(8)), (WHOLE[8:], torch.arange(4))])
    assert torch.equal(Role.from_dataset(batches).inputs, WHOLE)


def test_samples_of_different_shapes_are_named() -> None:
    batches: Any = iter([(torch.zeros(2, 3, width), torch.zeros(2)) for width in (4, 5)])
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        Role.from_dataset(batches)


def test_roles_of_mapped_files_are_no_copies(tmp_path: Path) -> None:
    images = torch.randn(40, 3, 4)
    np.save(tmp_path / "x.npy", images.numpy())
    torch.save(images, tmp_path / "x.pt")
    forms = [
        images, np.load(tmp_path / "x.npy", mmap_mode="r"), torch.load(tmp_path / "x.pt", mmap=True),
        images.half(), images.numpy(),
    ]  # fmt: skip
    dealt = [Roles.split(form, torch.arange(40) % 4) for form in forms]
    for data in dealt:
        assert all(isinstance(role.inputs, LazyTensor) for _, role in data.items())
    assert dealt[1].digests == dealt[2].digests == dealt[4].digests == dealt[0].digests
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    tasks = [Task(model, data.train.inputs[:1], data) for data in dealt]
    assert all(type(task.example_input) is Tensor for task in tasks)
    assert tasks[3].data.search.inputs.dtype == torch.float32
    assert torch.equal(tasks[1].data.search.inputs, tasks[0].data.search.inputs)
