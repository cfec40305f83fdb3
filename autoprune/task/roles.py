"""A task's data: samples in four disjoint roles, given one by one or dealt from one pile."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from autoprune.ranges import check_fields
from autoprune.task.samples import (
    Samples,
    as_tensors,
    chosen,
    converted,
    cut,
    leaves,
    mapped,
    number_of,
    samples_within,
)
from autoprune.task.spooled import spooled

SHARES = {"train": 0.5, "calibration": 0.1, "search": 0.25, "test": 0.15}
TARGET_KEYS = ("labels", "label", "targets", "target", "y")  # of samples that are mappings
FEWEST = 5  # samples that four roles can be made of: search needs two, to hold one out
NARROW = (torch.int8, torch.int16, torch.int32, torch.uint8)
LOADED = 512  # samples of a data set that are put together at once


class ContentIds(tuple[str, ...]):
    """Ids that may stand twice, as they are hashes of what the samples are."""


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """Samples that serve one purpose.

    Arrays and tensors that are mapped from files (`np.load(…, mmap_mode="r")`, `torch.load(…, mmap=True)`) stay there.

    Raises TypeError where something is no tensor, and ValueError where numbers of samples differ or an id comes twice.

    >>> len(Role(torch.zeros(6, 3, 8, 8), torch.arange(6)))
    6
    >>> Role((torch.zeros(6, 3, 8, 8), torch.ones(6, 5))).targets is None  # two inputs, no targets
    True
    """

    inputs: Samples
    """What the network reads: a tensor [N, ...], a tuple of its positional or a mapping of its keyword arguments."""
    targets: Samples = None
    """What metric and loss compare outputs with: tensors [N, ...]; None where nothing needs any."""
    ids: tuple[str, ...] = ()
    """One for each sample, unique within its source; without any, a sample is identified by a hash of its inputs."""

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            object.__setattr__(self, name, _checked(getattr(self, name), name))
        if self.targets is not None and number_of(self.targets) != len(self):
            raise ValueError(f"a role has {len(self)} inputs but {number_of(self.targets)} targets")
        if not self.ids:
            object.__setattr__(self, "ids", ContentIds(_content_ids(self.inputs)))
        if len(self.ids) != len(self):
            raise ValueError(f"a role has {len(self)} inputs but {len(self.ids)} ids")
        if not isinstance(self.ids, ContentIds) and len(set(self.ids)) < len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise ValueError(f"the id {twice!r} stands for several samples of a role; give each one of its own")

    def __len__(self) -> int:
        return number_of(self.inputs)

    @classmethod
    def from_dataset(cls, dataset: "Dataset[Any] | DataLoader[Any]", *, limit: int | None = None) -> "Role":
        """Reads a data set's samples once; into memory, or where they are large, into a temporary file.

        Args:
            dataset: Of (input, target) pairs, of inputs alone, of (input, input, ..., target), or of mappings whose
                targets are called labels, label, targets, target or y; or a DataLoader of such batches. Of another
                iterator, tensors that are equally long are taken for batches, everything else for samples.
            limit: Of samples; None loads all.
        """
        samples = spooled(map(_divided, _batches(dataset, limit)))
        if samples is None:
            size = len(dataset) if hasattr(dataset, "__len__") else 0
            raise ValueError(f"a role needs at least one sample; the dataset has {size} and the limit is {limit}")
        return cls(*chosen(samples, slice(0, limit)))

    def __getitem__(self, which: slice | Tensor) -> "Role":
        places = which.tolist() if isinstance(which, Tensor) and which.ndim else which
        if not isinstance(places, slice | list):
            raise TypeError(f"some samples of a role are role[0:1], a slice, or role[rows], a tensor; got {which!r}")
        ids = self.ids[places] if isinstance(places, slice) else [self.ids[index] for index in places]
        return Role(chosen(self.inputs, which), chosen(self.targets, which), ContentIds(ids))

    def to(self, device: torch.device) -> "Role":
        inputs, targets = (mapped(part, lambda x: x.to(device)) for part in (self.inputs, self.targets))
        return Role(inputs, targets, ContentIds(self.ids))

    def with_targets(self, targets: Samples) -> "Role":
        """The same samples with other targets."""
        return Role(self.inputs, targets, ContentIds(self.ids))

    @property
    def device(self) -> torch.device:
        return leaves(self.inputs)[0].device

    @property
    def digest(self) -> str:
        """A hash of ids, inputs and targets: the same samples in the same order, whatever machine."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        for tensor in (*leaves(self.inputs), *leaves(self.targets)):
            for part in cut(tensor, samples_within(tensor, len(tensor))):
                digest.update(_bytes(part).data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Roles:
    """Four disjoint roles. Raises ValueError where one is empty or two share a sample."""

    train: Role
    """Recovery after pruning sees it."""
    calibration: Role
    """Scores of units and repairs are computed from it."""
    search: Role
    """Rewards are computed from a part of it, and a plan is chosen by the rest."""
    test: Role
    """Reports are made of it, and nothing else."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        seen: dict[str, str] = {}
        for name, role in self.items():
            if not len(role):
                raise ValueError(f"data role {name!r} is empty; every role needs at least one sample")
            shared = [i for i in role.ids if seen.get(i, name) != name]
            if shared:
                raise ValueError(
                    f"data roles {seen[shared[0]]!r} and {name!r} share {len(shared)} samples, e.g. {shared[0]}; "
                    "the four roles must be disjoint, or rewards would see what reports are made of. If these are "
                    "different samples of equal content, give ids: Role(inputs, targets, ids=...); Roles.split keeps "
                    "equal ones in one role"
                )
            seen |= dict.fromkeys(role.ids, name)

    def items(self) -> Iterator[tuple[str, Role]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self))

    @property
    def digests(self) -> dict[str, str]:
        return {name: role.digest for name, role in self.items()}

    @classmethod
    def split(
        cls,
        data: "Role | Dataset[Any] | DataLoader[Any] | Samples",
        targets: Samples = None,
        *,
        shares: Mapping[str, float] = SHARES,
        ids: Sequence[str] = (),
        seed: int = 0,
    ) -> "Roles":
        """Deals one pile of samples into the four roles.

        A sample's role follows from a hash of its id and the seed, so the same pile in any order is dealt the same way.
        Where targets are labels every role gets its share of each class. Samples of equal content stay together.

        Args:
            data: a data set, a DataLoader, an iterator (as `Role.from_dataset` reads it), a Role, (inputs, targets), or
                inputs alone, as `Role.inputs` may be.
            targets: Where `data` are inputs, what `Role.targets` may be.
            shares: Of each role, in (0, 1), or numbers of samples; what is left over is in none.
            ids: One for each sample, unique; without any, samples are identified by their content.
            seed: Deals anew.

        Raises:
            ValueError: There are too few samples, or shares come to more than all of them.

        >>> roles = Roles.split(torch.randn(100, 4), torch.arange(100) % 2)
        >>> {name: len(role) for name, role in roles.items()}
        {'train': 50, 'calibration': 10, 'search': 25, 'test': 15}
        """
        if isinstance(data, Tensor | np.ndarray) or targets is not None:
            data = Role(data, targets, tuple(ids))
        elif isinstance(data, tuple | list | Mapping):
            data = Role(*_divided(data), tuple(ids))
        elif not isinstance(data, Role):
            data = Role.from_dataset(data)
        pile = Role(data.inputs, data.targets, tuple(ids)) if ids else data
        if len(pile) < FEWEST:
            raise ValueError(f"four roles need at least {FEWEST} samples, got {len(pile)}")
        stops = _stops(shares, len(pile))
        order = _dealt(pile, seed)
        weights = np.cumsum([len(members) for members in order])
        parts, start = {}, 0
        for name, stop in stops.items():
            end = int(np.searchsorted(weights, stop - 0.5)) + 1  # whole units of equal samples
            parts[name] = pile[torch.tensor([row for members in order[start:end] for row in members], dtype=torch.long)]
            start = max(start, end)
        return cls(**parts)


def on_device(roles: Roles, device: torch.device) -> Roles:
    """Returns the same roles with their samples on the device.

    Args:
        roles: Whose samples lie anywhere.
        device: Where networks compute.
    """
    return Roles(**{name: role.to(device) for name, role in roles.items()})


def _stops(shares: Mapping[str, float], number: int) -> dict[str, int]:
    """Where each role ends when `number` samples lie in a row."""
    names = list(SHARES)
    if sorted(shares) != sorted(names):
        raise ValueError(f"shares needs one number for each of {names}, got {dict(shares)}")
    counts = all(float(share).is_integer() and share >= 1 for share in shares.values())
    if not counts and not all(0 < share < 1 for share in shares.values()):
        raise ValueError(f"shares are all in (0, 1) or all whole numbers of samples, got {dict(shares)}")
    ends = np.cumsum([shares[name] * (1 if counts else number) for name in names])
    if ends[-1] > number * (1 + 1e-9):
        raise ValueError(f"shares {dict(shares)} come to more than the {number} samples that there are")
    fewest = np.arange(1, 5) + np.array([0, 0, 1, 1])
    stops = np.maximum(np.round(ends).astype(int), fewest)
    stops = np.minimum(stops, number - np.array([4, 3, 1, 0]))
    return dict(zip(names, stops.tolist(), strict=True))


def _dealt(pile: Role, seed: int) -> list[list[int]]:
    """Rows of equal samples together, in an order whose every stretch has its share of each class."""
    units: dict[str, list[int]] = {}
    for row, name in enumerate(pile.ids):
        units.setdefault(name, []).append(row)
    drawn = {name: int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()) for name in units}
    labels = _labels(pile)
    by_class: dict[int, list[str]] = {}
    for name, members in units.items():
        by_class.setdefault(0 if labels is None else labels[members[0]], []).append(name)
    position = {
        name: (rank + drawn[name] / 2**64) / len(names)
        for names in by_class.values()
        for rank, name in enumerate(sorted(names, key=drawn.__getitem__))
    }
    return [units[name] for name in sorted(units, key=lambda name: (position[name], drawn[name]))]


def _labels(pile: Role) -> list[int] | None:
    """The class of each sample, where targets are classes: few different whole numbers, one for each sample."""
    targets = pile.targets
    if not isinstance(targets, Tensor) or targets[0].numel() != 1:
        return None
    flat = targets.flatten()
    if flat.is_floating_point() and not bool((flat == flat.round()).all()):
        return None
    labels: list[int] = flat.long().tolist()
    return labels if len(set(labels)) <= max(2, len(labels) // 4) else None


def _batches(dataset: Any, limit: int | None) -> Iterator[Samples]:
    """Batches of samples, in the data set's own order where it has one."""
    if isinstance(dataset, DataLoader):
        collate, source = dataset.collate_fn, dataset.dataset
    else:
        collate, source = default_collate, dataset
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        size = len(source) if limit is None else min(len(source), limit)
        plain = collate is default_collate and size  # others may bring the samples of a batch to one shape
        step = samples_within(_collated(collate, [source[0]]), LOADED) if plain else LOADED
        for start in range(0, size, step):
            yield _collated(collate, [source[i] for i in range(start, min(start + step, size))])
        return
    if not isinstance(source, Iterable):
        raise TypeError(f"data are tensors, a data set or a DataLoader, got {type(source).__name__}")
    if isinstance(dataset, DataLoader):
        batches: Iterable[Samples] = dataset
    else:
        items = iter(dataset)
        first = list(itertools.islice(items, 1))
        whole = itertools.chain(first, items)
        in_batches = bool(first) and not isinstance(dataset, IterableDataset) and _is_batch(first[0])
        batches = whole if in_batches else DataLoader(_Items(whole), batch_size=LOADED)
    read = 0
    for batch in batches:
        if limit is not None and read >= limit:
            return
        read += number_of(batch)
        yield batch


def _collated(collate: Callable[[list[Any]], Samples], samples: list[Any]) -> Samples:
    try:
        return collate(samples)
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        raise ValueError(
            f"samples of different shapes cannot be put together ({str(error).splitlines()[0]}); give a DataLoader "
            "with a collate_fn that pads them all to one shape"
        ) from error


class _Items(IterableDataset[Any]):
    """What an iterator gives, once."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self._items


def _is_batch(item: Samples) -> bool:
    """Whether what an iterator gives is samples, rather than one: all of it are tensors, equally long."""
    parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, tuple | list) else [item]
    return all(isinstance(part, Tensor) and part.ndim for part in parts) and len({len(part) for part in parts}) == 1


def _divided(batch: Samples) -> tuple[Samples, Samples]:
    """(inputs, targets) of a batch."""
    if isinstance(batch, Mapping):
        key = next((key for key in TARGET_KEYS if key in batch), None)
        return {name: value for name, value in batch.items() if name != key}, None if key is None else batch[key]
    if isinstance(batch, tuple | list):
        match list(batch):
            case [inputs]:
                return inputs, None
            case [inputs, targets]:
                return inputs, targets
            case [*inputs, targets]:
                return tuple(inputs), targets
    return batch, None


def _checked(samples: Samples, name: str) -> Samples:
    """Lists as tuples; refuses what is no tensor."""
    if samples is None and name == "targets":
        return None
    samples = as_tensors(samples)
    if name == "targets":  # losses read whole numbers as int64
        samples = mapped(samples, lambda tensor: converted(tensor, torch.int64) if tensor.dtype in NARROW else tensor)
    if isinstance(samples, list):
        samples = tuple(samples)
    parts = samples.values() if isinstance(samples, Mapping) else samples if isinstance(samples, tuple) else [samples]
    for part in parts:
        if isinstance(part, Tensor | tuple | list | Mapping) and leaves(part):
            continue
        raise TypeError(f"{name} of a role are tensors, got {type(part).__name__}; torch.tensor(x) makes one")
    if any(not tensor.ndim for tensor in leaves(samples)):
        raise ValueError(f"{name} of a role have one first axis, of samples; a tensor without axes has none")
    number_of(samples)
    return samples


def _content_ids(inputs: Samples) -> Iterator[str]:
    for batch in cut(leaves(inputs), samples_within(inputs, number_of(inputs))):
        for parts in zip(*map(_bytes, batch), strict=True):
            digest = hashlib.blake2b(digest_size=12)
            for row in parts:
                digest.update(row.data)
            yield digest.hexdigest()


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of every sample, [N, bytes]; NumPy lacks some of PyTorch's types, such as bfloat16."""
    return tensor.detach().cpu().contiguous().unsqueeze(-1).flatten(1).view(torch.uint8).numpy()
