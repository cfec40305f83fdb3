"""Least-squares repair in closed form: the weights that best restore a layer's outputs from any number of its units."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.model import FloatArray
from autoprune.importance.unit_weights import is_plain_reader
from autoprune.machine_cache import release_freed_memory
from autoprune.ranges import Count, FiniteNonNegative, check_fields
from autoprune.repair import solver_passes as memory
from autoprune.repair.moments import input_moments
from autoprune.stored_tensor import LARGE_BYTES, StoredTensor, TensorFile
from autoprune.structure.axes import AxisSlices, Kept
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Forward, Role, plain_forward

Keep = Callable[[Tensor], Tensor | StoredTensor]  # in memory, or in a file
STRIPS, STRIP = 8, 256  # of a triangular matrix, which is kept in so many strips of at least so many rows


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """How the weights of layers that read pruned units are refitted."""

    ridge: FiniteNonNegative
    """How strongly weights are held to their old values, relative to the inputs' mean variance."""
    rows: Count
    """The most rows (samples × positions) per layer that its Gram matrix is made of."""

    def __post_init__(self) -> None:
        check_fields(self, "repair.least_squares")


class Reconstruction:
    """For every layer that reads prunable units: the weights that best restore its outputs from those that are kept.

    A layer's inputs are rows X (a column per entry and kernel element) with the Gram matrix G = XᵀX/rows + λI. Of all
    V that read only the kept columns, the one handed out is that for which (V − W) G (V − W)ᵀ is smallest: the mean
    squared error of the outputs, plus λ times the distance to the dense weights W. All units give W itself. Where the
    layer has a bias, or a constant offset does not matter, X is centred: the best bias for V is then a formula.

    With G = LLᵀ in ranked order and M = L⁻¹, the best V from the first m columns is (WL)[:, :m] M[:m, :m], because
    the leading block of M is the inverse of L's, and column i of WL holds the energy that the i-th column explains.

    layers: those that can be restored. untouched: the other readers, each with the reason. too_large: those of them
    that would take too much memory. A tensor that is returned may be the dense weights themselves, so clone one before
    changing it.
    """

    def __init__(
        self, readers: Mapping[str, "_Reader"], untouched: Mapping[str, str], too_large: Sequence[str] = ()
    ) -> None:
        self.layers, self.untouched, self.too_large = tuple(readers), dict(untouched), tuple(too_large)
        self._readers = dict(readers)

    def weight(self, layer: str, kept: Kept) -> Tensor:
        """The layer's restored weights [outputs, kept entries, *kernel] for a plan's kept units, float32.

        Entries are in the order of an ordered network's slices, outputs in the layer's own and whole.

        Args:
            layer: The layer's qualified name.
            kept: Units that each group keeps [groups].
        """
        return self._reader(layer).restored(kept)

    def bias(self, layer: str, kept: Kept) -> Tensor | None:
        """The bias [outputs] that goes with `weight`, float32; None where the layer has none.

        Args:
            layer: The layer's qualified name.
            kept: Units that each group keeps [groups].
        """
        return self.tensors(layer, kept).get("bias")

    def tensors(self, layer: str, kept: Kept) -> dict[str, Tensor]:
        """`weight`, and `bias` where the layer has one, by name; solved for once.

        Args:
            layer: The layer's qualified name.
            kept: Units that each group keeps [groups].
        """
        reader, weight = self._reader(layer), self.weight(layer, kept)
        return {"weight": weight} | ({} if reader.bias is None else {"bias": reader.bias + reader.offset(kept, weight)})

    def all_widths(self, layer: str) -> Iterator[tuple[int, Tensor]]:
        """`weight` for 1, 2, … all units, each made from the last one; a tensor is valid until the next.

        Raises ValueError where several groups share the layer's inputs, so that widths do not form one sequence.
        """
        reader = self._reader(layer)
        if not isinstance(reader.solver, _Nested):
            raise ValueError(
                f"{len(reader.axis.members)} groups share the inputs of {layer!r}; ask `weight` for a plan"
            )
        return ((k, reader.shaped(columns)) for k, columns in reader.solver.widths())

    def error(self, layer: str, group: str) -> FloatArray:
        """How much of the outputs' energy is lost with only the group's first k units, [units + 1], never rising in k.

        A fraction: 1 without any inputs, 0 with all; the layer's inputs from elsewhere stay whole. The energy is about
        the mean where the inputs are centred. The ridge is counted in: this is what the weights make smallest.

        Args:
            layer: A layer that is restored.
            group: A group that it reads.
        """
        errors = self._reader(layer).errors
        if group not in errors:
            raise KeyError(f"{layer!r} does not read group {group!r}; it reads {sorted(errors)}")
        return errors[group]

    def reads(self, layer: str, group: str) -> bool:
        """Returns whether the layer is restored from the group's units.

        Args:
            layer: Its name.
            group: The group's name.
        """
        return layer in self._readers and group in self._readers[layer].errors

    def group_error(self, group: str) -> FloatArray:
        """The mean of `error` over the group's readers, [units + 1]."""
        errors = [reader.errors[group] for reader in self._readers.values() if group in reader.errors]
        if not errors:
            raise KeyError(f"no layer that reads group {group!r} is restored; untouched: {self.untouched}")
        mean: FloatArray = np.mean(errors, axis=0)
        return mean

    def _reader(self, layer: str) -> "_Reader":
        if layer not in self._readers:
            reason = self.untouched.get(layer, f"those that are: {list(self.layers)}")
            raise KeyError(f"the inputs of {layer!r} are not restored; {reason}")
        return self._readers[layer]


@torch.no_grad()
def reconstruct(  # noqa: PLR0913 - keyword-only settings
    model: nn.Module,
    structure: Structure,
    ranking: Ranking,
    role: Role,
    *,
    settings: LeastSquares,
    centred: frozenset[str],
    generator: torch.Generator,
    forward: Forward = plain_forward,
    only_errors: bool = False,
) -> Reconstruction:
    """Solves for all readers' weights at all widths, from the dense network's activations on the calibration role.

    What would take too much memory at once takes several passes over the samples, the narrow layers first.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        ranking: Each group's units, most important first.
        role: The samples that are read.
        settings: The ridge, and how many rows are read.
        centred: Layers whose outputs may shift by a constant, because a BatchNorm that is measured again follows them.
        generator: Draws all that is random here.
        forward: (network, inputs) → outputs: how the network is called.
        only_errors: Nobody asks for weights: what they take is neither computed nor kept.

    Raises:
        ValueError: Inputs hold NaN or infinity, or depend on one another and the ridge is 0.
    """
    unknown = sorted(centred - {layer.name for layer in structure.layers})
    if unknown:
        raise ValueError(f"centred names {unknown}, but the layers that run are {[x.name for x in structure.layers]}")
    passes, untouched, too_large = _solvable(model, structure)
    large = memory.KEPT * sum(entries for own in passes for entries in own.values()) > LARGE_BYTES
    keep: Keep | None = None if only_errors else TensorFile().write if large else lambda tensor: tensor
    readers: dict[str, _Reader] = {}
    for names in passes:
        moments = input_moments(
            model, structure, role, names=tuple(names), rows=settings.rows, forward=forward, generator=generator
        )
        readers_of = Counter(map(id, moments.values()))
        for name in names:
            layer, sums = model.get_submodule(name), moments.pop(name)
            readers_of[id(sums)] -= 1
            if sums.drawn == 0:
                untouched[name] = "no calibration sample reaches it"
                continue
            is_centred = name in centred or getattr(layer, "bias", None) is not None
            last = not readers_of[id(sums)]
            *gram, mean = sums.gram(name, centred=is_centred, ridge=settings.ridge, last=last)
            del sums
            axis = AxisSlices(structure, name, "in")
            readers[name] = _Reader(axis, layer, axis.order(ranking), structure.names, gram=gram, mean=mean, keep=keep)
            release_freed_memory()
    in_order = {name: readers[name] for name in _readers_of(structure) if name in readers}
    return Reconstruction(in_order, untouched, too_large)


def _readers_of(structure: Structure) -> list[str]:
    """The layers that read what some group takes from."""
    return list(dict.fromkeys(m.layer for group in structure.groups for m in group.members if m.axis == "in"))


def _solvable(model: nn.Module, structure: Structure) -> tuple[list[dict[str, int]], dict[str, str], list[str]]:
    """The layers of each pass over the samples, each with the entries of its Gram matrices; the others, each with the
    reason; and those that are too large."""
    entries: dict[str, int] = {}
    untouched: dict[str, str] = {}
    for name in _readers_of(structure):
        layer = model.get_submodule(name)
        if not is_plain_reader(layer):
            untouched[name] = f"a {type(layer).__name__} does not multiply what it reads by a matrix of real numbers"
            continue
        columns = layer.get_parameter("weight")[0].numel()
        if columns > memory.MOST_COLUMNS:
            untouched[name] = f"its {columns} input columns are more than the {memory.MOST_COLUMNS} that are solved for"
            continue
        entries[name] = getattr(layer, "groups", 1) * columns**2
    too_large = [name for name in untouched if "input columns" in untouched[name]]
    limit = memory.memory_limit(sum(parameter.nbytes for parameter in model.parameters()))
    passes, left_out = memory.solver_passes(entries, limit=limit)
    for name in left_out:
        untouched[name] = f"all that is solved for would take more than {limit / 2**20:.0f} MiB of memory"
    solvable = [{name: entries[name] for name in entries if name in each} for each in passes]
    return solvable, untouched, too_large + left_out


class _Reader:
    """One layer with its inputs in ranked order.

    A place is an entry of the ordered axis, a column is one kernel element of it. weight [outputs, places, *kernel],
    mean of the inputs [convolution groups, columns]. errors: group → [units + 1].
    """

    def __init__(
        self,
        axis: AxisSlices,
        layer: nn.Module,
        order: Tensor,
        names: tuple[str, ...],
        *,
        gram: list[Tensor],
        mean: Tensor,
        keep: Keep | None,
    ) -> None:
        """gram holds one matrix, which is taken out of it: nobody else needs it. keep: None keeps errors alone."""
        weight, bias = layer.get_parameter("weight").detach(), getattr(layer, "bias", None)
        kernel, columns = _kernel(layer), _columns(order, _kernel(layer)).to(weight.device)
        self.axis, self.dense, self.order = axis, weight, order.to(weight.device)
        self.bias = None if bias is None else bias.detach().float().clone()
        self.mean = mean[:, columns].float()
        flat = self.weight.reshape(len(gram[0]), -1, gram[0].shape[-1]).double()
        alone = len(axis.members) == 1
        direct = _Direct(_taken(gram[0], columns), flat, axis, kernel) if keep is not None and not alone else None
        held = gram if alone else [gram.pop()] * len(axis.members)
        nested = [
            _Nested(held, columns, flat, index, positions, kernel, keep=keep if alone else None)
            for index, positions in axis.members
        ]
        self.errors = {names[solver.group]: solver.errors for solver in nested}
        self.solver: _Nested | _Direct | None = nested[0] if alone and keep is not None else direct

    @property
    def weight(self) -> Tensor:
        """The dense weights, inputs in ranked order; not kept, as they are the network's."""
        return self.dense[:, self.order].float()

    def restored(self, kept: Kept) -> Tensor:
        if len(self.axis.entries(kept)) == self.axis.size:
            return self.weight  # the solution, without its rounding
        if self.solver is None:
            raise ValueError("only errors were asked for, so that no weights are restored")
        return self.shaped(self.solver.solve(kept)).contiguous()

    def offset(self, kept: Kept, weight: Tensor) -> Tensor:
        """What the mean outputs lose with this weight, [outputs]."""
        lost = self.weight
        lost[:, self.axis.entries(kept).to(lost.device)] -= weight
        return (lost.view(len(self.mean), -1, self.mean.shape[1]) @ self.mean[:, :, None]).flatten()

    def shaped(self, solution: Tensor) -> Tensor:
        """[convolution groups, outputs of each, columns] → [outputs, places, *kernel]"""
        return solution.reshape(len(self.dense), -1, *self.dense.shape[2:])


class _Nested:
    """G = LLᵀ with one group's columns last, most important unit first: what is kept is a leading block of all three.

    strips: of L⁻¹ [convolution groups, columns, columns]. projected: WL [convolution groups, outputs of each, columns].
    """

    def __init__(
        self,
        gram: list[Tensor],
        order: Tensor,
        weight: Tensor,
        group: int,
        positions: IntArray,
        kernel: int,
        *,
        keep: Keep | None,
    ) -> None:
        """The last gram in dense order, which is taken, `order` its columns by rank, as `weight` has them; positions
        are places by rank."""
        own, stays = torch.from_numpy(positions).flatten(), torch.ones(gram[-1].shape[-1] // kernel, dtype=torch.bool)
        stays[own] = False
        matrix = gram.pop()
        self.group, self.kernel, self.places = group, kernel, torch.cat([stays.nonzero().flatten(), own])
        self.ends = (int(stays.sum()) + np.arange(len(positions) + 1) * positions.shape[1]) * kernel  # by kept units
        columns = _columns(self.places, kernel).to(matrix.device)
        lower = _taken(matrix, order[columns]).mT  # columns in order, as LAPACK wants them to work in the same memory
        del matrix
        torch.linalg.cholesky(lower, out=lower)
        projected = weight[:, :, columns] @ lower
        self.errors = self._errors(projected)
        if keep is not None:
            inverse = torch.zeros_like(lower, memory_format=torch.contiguous_format).mT
            inverse.diagonal(dim1=1, dim2=2).fill_(1)
            torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
            del lower
            size = inverse.shape[-1]
            step = max(STRIP, -(-size // STRIPS))
            self.projected = keep(projected.float())
            # what is above the diagonal is zero: strips of rows, each as long as its last row
            strips = (inverse[:, a : a + step, : a + step].float().contiguous() for a in range(0, size, step))
            self.strips = [keep(strip) for strip in strips]
            self.step, self.device = step, weight.device

    def solve(self, kept: Kept) -> Tensor:
        """[convolution groups, outputs of each, kept columns], columns by ascending place."""
        m = self.ends[kept[self.group]]
        projected = self._in_memory(self.projected)
        solution = projected.new_zeros(*projected.shape[:2], m)
        self._add_rows(solution, projected, 0, m)
        return self._ascending(solution)

    def _add_rows(self, solution: Tensor, projected: Tensor, start: int, stop: int) -> None:
        """Adds what the inverse's rows from start to stop make of the projected weights."""
        for index, strip in enumerate(self.strips):
            offset = index * self.step
            low, high = max(start, offset), min(stop, offset + self.step)
            if low < high:
                rows = self._in_memory(strip)[:, low - offset : high - offset, :high]
                solution[:, :, :high] += projected[:, :, low:high] @ rows

    def _in_memory(self, tensor: Tensor | StoredTensor) -> Tensor:
        return tensor.read().to(self.device) if isinstance(tensor, StoredTensor) else tensor

    def widths(self) -> Iterator[tuple[int, Tensor]]:
        """The solutions for 1, 2, … all units; each adds the outer products of its unit's columns to the last one."""
        projected = self._in_memory(self.projected)
        solution, done = torch.zeros_like(projected), 0
        for units, m in enumerate(self.ends[1:].tolist(), start=1):
            self._add_rows(solution, projected, done, m)
            done = m
            yield units, self._ascending(solution[:, :, :m])

    def _ascending(self, solution: Tensor) -> Tensor:
        places = self.places[: solution.shape[-1] // self.kernel]
        if bool((places.diff() > 0).all()):
            return solution
        return solution[:, :, _columns(places.argsort(), self.kernel).to(solution.device)]

    def _errors(self, projected: Tensor) -> FloatArray:
        """The share of the energy that columns behind the kept ones explain, [units + 1]."""
        energy = projected.square().sum(dim=(0, 1)).cpu().numpy()
        behind = np.append(energy[::-1].cumsum()[::-1], 0.0)
        errors: FloatArray = behind[self.ends] / (behind[0] or 1.0)  # weights of zero have nothing to lose
        return errors


class _Direct:
    """Inputs that several groups share: what is kept has no fixed order, so every choice is a system of its own."""

    def __init__(self, gram: Tensor, weight: Tensor, axis: AxisSlices, kernel: int) -> None:
        self.gram, self.axis, self.kernel = gram, axis, kernel
        self.target = gram @ weight.mT  # [convolution groups, columns, outputs of each]

    def solve(self, kept: Kept) -> Tensor:
        """[convolution groups, outputs of each, kept columns], columns by ascending place."""
        stays = _columns(self.axis.entries(kept), self.kernel).to(self.gram.device)
        lower = torch.linalg.cholesky(self.gram[:, stays][:, :, stays])
        return torch.cholesky_solve(self.target[:, stays], lower).mT.float()


def _taken(gram: Tensor, columns: Tensor) -> Tensor:
    """[convolution groups, columns, columns]: rows and columns in that order, in one copy."""
    return gram[:, columns[:, None], columns]


def _columns(places: Tensor, kernel: int) -> Tensor:
    return (places[:, None] * kernel + torch.arange(kernel)).flatten()


def _kernel(layer: nn.Module) -> int:
    return layer.get_parameter("weight")[0, 0].numel()
