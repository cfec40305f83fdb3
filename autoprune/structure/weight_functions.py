"""Functions that multiply by parameters, or by views of them: the axes along which they read and write."""

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Call = tuple[
    Callable[..., Any], tuple[Any, ...], dict[str, Any], int | None
]  # function, further arguments, which output

Factors = tuple[tuple[Tensor, int], ...]  # each with the dimension that is summed over

TRANSPOSES: tuple[Any, ...] = (Tensor.T.__get__, Tensor.mT.__get__)  # type: ignore[attr-defined]
VIEWS = frozenset(
    {Tensor.t, torch.t, Tensor.transpose, torch.transpose, Tensor.permute, torch.permute, Tensor.swapaxes,
     Tensor.movedim, Tensor.__getitem__, Tensor.chunk, torch.chunk, Tensor.split, torch.split, Tensor.unbind,
     torch.unbind, Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.unflatten,
     Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze, Tensor.expand, Tensor.narrow, torch.narrow,
     Tensor.select, torch.select, Tensor.index_select, torch.index_select, Tensor.__iter__, *TRANSPOSES}
)  # fmt: skip
SAME = frozenset({Tensor.contiguous, Tensor.to, Tensor.float, Tensor.clone, torch.clone, Tensor.type_as})
SCALED = frozenset({Tensor.mul, torch.mul, Tensor.div, torch.div, Tensor.__mul__, Tensor.__rmul__, Tensor.__truediv__})
MATRIX_PRODUCTS = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm}
)
ADDED_PRODUCTS = frozenset({torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm})
SUMS = frozenset({torch.sum, Tensor.sum, torch.norm, Tensor.norm, torch.linalg.vector_norm, torch.linalg.norm})
MEANS = frozenset(
    {torch.mean, Tensor.mean, torch.amax, Tensor.amax, torch.amin, Tensor.amin, torch.max, Tensor.max, torch.min,
     Tensor.min, torch.logsumexp, Tensor.logsumexp}
)  # fmt: skip  # of fewer units they are others, though all that is left is the same
CONVOLVING = frozenset({F.conv1d, F.conv2d, F.conv3d})
TRANSPOSING = frozenset({F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d})


@dataclass(frozen=True, slots=True)
class Operands:
    """A product of activations and a weight: along which dimensions of the three something is summed and written."""

    x: Tensor
    """Activations."""
    weight: Tensor
    """What they are multiplied with."""
    bias: Tensor | None
    """What is added; None: nothing."""
    read: tuple[int, int]
    """A dimension of x, and that of the weight which runs beside it."""
    written: tuple[int, int]
    """A dimension of what is returned, and that of the weight."""


@dataclass(frozen=True, slots=True)
class Along:
    """A dimension of a weight that runs along one dimension of a parameter, or along a part of it."""

    owner: tuple[str, str]
    """The module, and the parameter's name there."""
    dim: int
    """The parameter's dimension."""
    size: int
    """Of the parameter's dimension."""
    entries: Tensor
    """Which of these stand there, [size of the weight's dimension]."""


class Weights:
    """Parameters, and what was made of them by moving entries only.

    Args:
        owners: id of a parameter → (module, name).
        last: Parameters with several dimensions that may be units, of which the last one is taken, not the first.
    """

    def __init__(self, owners: Mapping[int, tuple[str, str]], last: Collection[tuple[str, str]]) -> None:
        self._owners, self._last = owners, last
        self.undecided: dict[tuple[str, str], bool] = {}
        """Parameters of which several dimensions might be units (experts or neurons, heads or features), and whether
        these are written there, rather than read."""
        self._views: dict[int, tuple[Tensor, Tensor, tuple[Call, ...]]] = {}  # id → it, its parameter, how it was made
        # id of a view → the parameters that it was multiplied by entry by entry, and what was done to each since
        self._times: dict[int, tuple[tuple[Tensor, tuple[Call, ...]], ...]] = {}

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._owners or id(tensor) in self._views

    def note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Any:
        """Remembers what is a view of a parameter; returns the result.

        Args:
            func: The function that was called.
            args: What it was called with, by position.
            kwargs: What it was called with, by name.
            result: What it returned, one tensor or several.
        """
        masked = func in SCALED and len(args) == 2 and args[1] in self and _is_of_shape(result, args[0])
        if not args or args[0] not in self or not (func in VIEWS or func in SAME or masked or _is_scaled(func, args)):
            return result
        _, parameter, calls = self._views.get(id(args[0]), (None, args[0], ()))
        moved = func in VIEWS
        times = self._times.get(id(args[0]), ())
        if masked:
            _, other, own = self._views.get(id(args[1]), (None, args[1], ()))
            times = (*times, (other, (*own, (Tensor.expand, tuple(result.shape), {}, None))))
        several = not isinstance(result, Tensor)
        parts = list(result) if several else [result]
        for index, part in enumerate(parts):
            call: Call = (func, tuple(args[1:]), dict(kwargs), index if several else None)
            self._views[id(part)] = part, parameter, (*calls, call) if moved else calls
            self._times[id(part)] = tuple((other, (*own, call) if moved else own) for other, own in times)
        return iter(parts) if func == Tensor.__iter__ else result

    def chosen(self, weight: Tensor, dims: Sequence[str], *, written: bool) -> str:
        """One of several dimensions of a weight that are read, or written, together.

        Args:
            weight: A parameter, or a view of one.
            dims: The dimensions, at least one.
            written: Whether they are written, rather than read.
        """
        _, parameter, _ = self._views.get(id(weight), (None, weight, ()))
        owner = self._owners[id(parameter)]
        if len(dims) > 1:
            self.undecided[owner] = written or self.undecided.get(owner, False)
        return dims[-1 if owner in self._last else 0]

    def along(self, weight: Tensor, dim: int) -> Along | None:
        """What runs along a dimension of the weight; None where it is not one dimension of one parameter.

        Args:
            weight: A parameter, or a view of one.
            dim: A dimension of it; fewer than 0 count from the last.
        """
        _, parameter, calls = self._views.get(id(weight), (None, weight, ()))
        return self._along(parameter, calls, dim % weight.ndim)

    def times(self, weight: Tensor, dim: int) -> Iterator[Along]:
        """What runs along a dimension of the weight of those parameters that it is the product of with its own.

        Args:
            weight: A parameter, or a view of one.
            dim: A dimension of it; fewer than 0 count from the last.
        """
        for parameter, calls in self._times.get(id(weight), ()):
            along = self._along(parameter, calls, dim % weight.ndim)
            if along is not None:
                yield along

    def _along(self, parameter: Tensor, calls: Sequence[Call], dim: int) -> Along | None:
        owner = self._owners[id(parameter)]
        if not calls:
            return Along(owner, dim, parameter.shape[dim], torch.arange(parameter.shape[dim]))
        numbers = torch.arange(parameter.numel()).view(parameter.shape)
        for func, args, kwargs, index in calls:
            numbers = func(numbers, *args, **kwargs)
            numbers = (numbers if index is None else list(numbers)[index]).contiguous()  # as copies in between are
        rows = numbers.movedim(dim, 0).flatten(1)
        strides = [math.prod(parameter.shape[d + 1 :]) for d in range(parameter.ndim)]
        for own, (stride, size) in enumerate(zip(strides, parameter.shape, strict=True)):
            entries = rows // stride % size
            if len(entries[:, 0].unique()) > 1 and bool((entries == entries[:, :1]).all()):
                return Along(owner, own, size, entries[:, 0])
        return None


def operands_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], weights: Weights) -> Operands | None:
    """The operands of a product of activations and a weight; None where the call is none.

    Args:
        func: The function.
        args: What it is called with.
        kwargs: What it is called with by name.
        weights: The parameters, and views of them.
    """
    for operands in _products(func, args, kwargs, weights):
        if operands.weight in weights and operands.x not in weights and operands.x.requires_grad:
            return operands
    return None


def factors_of(func: Any, args: Sequence[Any], weights: Weights) -> Factors | None:
    """The two activations of a matrix product, each with the dimension that is summed over; None for other calls.

    Args:
        func: The function.
        args: What it is called with, by position.
        weights: The parameters, and views of them, which are no activations.
    """
    if func not in MATRIX_PRODUCTS or len(args) != 2 or any(factor in weights for factor in args):
        return None
    first, second = args
    if min(first.ndim, second.ndim) < 2 or not (first.requires_grad and second.requires_grad):
        return None
    return (first, first.ndim - 1), (second, second.ndim - 2)


def sum_factors(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, graph: bool = True) -> Factors | None:
    """The activations that a sum, a mean or a maximum is taken of, with its one dimension; None for other calls.

    Args:
        func: The function.
        args: What it is called with, by position.
        kwargs: What it is called with, by name.
        graph: Whether only activations with derivatives count.
    """
    if not (func in SUMS or func in MEANS) or not args or not isinstance(args[0], Tensor):
        return None
    if graph and not args[0].requires_grad:
        return None
    position = 2 if func in SUMS - {torch.sum, Tensor.sum} else 1
    dim = kwargs.get("dim", args[position] if len(args) > position else None)
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    if len(dims) != 1 or type(dims[0]) is not int or args[0].ndim < 2:
        return None
    return ((args[0], dims[0]),)


def _products(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], weights: Weights) -> Iterator[Operands]:
    """The operands, with either of the two factors taken for the weight."""
    if func is F.linear or func in CONVOLVING or func in TRANSPOSING:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        x, weight, bias = named["input"], named["weight"], named.get("bias")
        groups = kwargs.get("groups", args[6] if len(args) > 6 and func in CONVOLVING else 1)
        dim = -1 if func is F.linear else 1 - weight.ndim
        if func in TRANSPOSING:
            groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
        into, out = (0, 1) if func in TRANSPOSING else (1, 0)
        if groups == 1:
            yield Operands(x, weight, bias, (dim, into), (dim, out))
    elif func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
        yield from _contractions(args[0].replace(" ", ""), args[1], args[2], weights)
    elif func in MATRIX_PRODUCTS or func in ADDED_PRODUCTS:
        bias = args[0] if func in ADDED_PRODUCTS else None
        first, second = args[-2:] if len(args) > 1 else (args[0], next(iter(kwargs.values())))
        if first.ndim > 1 and second.ndim > 1:
            yield Operands(first, second, bias, (-1, -2), (-1, -1))
            yield Operands(second, first, bias, (-2, -1), (-2, -2))
        elif second.ndim > 1:
            yield Operands(first, second, bias, (-1, -2), (-1, -1))


def _contractions(equation: str, first: Tensor, second: Tensor, weights: Weights) -> Iterator[Operands]:
    """An einsum of two: of several letters that are summed over, or written, one is taken."""
    inputs, arrow, output = equation.partition("->")
    letters = inputs.split(",")
    if not arrow or "." in equation or len(letters) != 2:
        return
    for (x, of_x), (weight, of_weight) in (
        ((first, letters[0]), (second, letters[1])),
        ((second, letters[1]), (first, letters[0])),
    ):
        read = [letter for letter in of_weight if letter in of_x and letter not in output]
        written = [letter for letter in of_weight if letter in output and letter not in of_x]
        if read and written and weight in weights:
            into, out = weights.chosen(weight, read, written=False), weights.chosen(weight, written, written=True)
            places = (of_x.index(into), of_weight.index(into)), (output.index(out), of_weight.index(out))
            yield Operands(x, weight, None, *places)


def in_pairs(equation: str, operands: Sequence[Tensor], weights: Weights) -> Tensor:
    """What an einsum of more than two returns, by einsums of two: weights first meet activations that they sum over.

    Args:
        equation: Its letters.
        operands: One for each of the equation's inputs.
        weights: The parameters, and views of them.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    left = list(zip(inputs.split(","), operands, strict=True))
    if not arrow or "." in equation or any(len(set(letters)) < len(letters) for letters, _ in left):
        return torch.einsum(equation, *operands)

    def kept(first: int, second: int) -> str:
        """The letters of a pair that others read, or the output has."""
        others = output + "".join(letters for at, (letters, _) in enumerate(left) if at not in (first, second))
        return "".join(letter for letter in dict.fromkeys(left[first][0] + left[second][0]) if letter in others)

    def rank(pair: tuple[int, int]) -> tuple[bool, int]:
        (letters, one), (others, other) = left[pair[0]], left[pair[1]]
        summed = (set(letters) & set(others)) - set(kept(*pair))
        return not (summed and (one in weights) != (other in weights)), len(kept(*pair))

    while len(left) > 2:
        first, second = min(itertools.combinations(range(len(left)), 2), key=rank)
        (letters, one), (others, other) = left[first], left[second]
        made = kept(first, second)
        product = torch.einsum(f"{letters},{others}->{made}", one, other)
        left = [own for at, own in enumerate(left) if at not in (first, second)] + [(made, product)]
    (letters, one), (others, other) = left
    return torch.einsum(f"{letters},{others}->{output}", one, other)


def _is_of_shape(result: Any, other: Any) -> bool:
    return isinstance(result, Tensor) and isinstance(other, Tensor) and result.shape == other.shape


def _is_scaled(func: Any, args: Sequence[Any]) -> bool:
    """Whether a tensor is multiplied by one number."""
    return func in SCALED and len(args) == 2 and not (isinstance(args[1], Tensor) and args[1].numel() > 1)
