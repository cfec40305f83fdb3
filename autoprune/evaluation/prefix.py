"""Prefix activations: what the dense network computes before the first pruned layer is computed once and recalled."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.structure.axes import Kept
from autoprune.structure.skipped_modules import patched_forward
from autoprune.task.samples import Samples, number_of, rows
from autoprune.task.task import Forward, outputs_of, plain_forward

MEMORY_BYTES = 512 * 2**20  # of activations that are kept
WORTH = 0.25  # of the samples' activations have to fit, or none are kept


class CachedPrefix:
    """Lets the layers that run before the first pruned one return what they returned in the dense network.

    It needs no trace of the network: its layers are known to run in the order in which they ran before, and what stands
    between them runs as ever. Layers that run several times, or behind one that does, are not recalled. A network that
    writes into its layers' outputs is noticed, and nothing is recalled. Of a network with `stages` (a transformer's
    blocks) those are recalled whole.
    """

    def __init__(
        self, ordered: OrderedNetwork, dense: Kept, batches: Sequence[Samples], forward: Forward = plain_forward
    ) -> None:
        self._ordered, self._dense, self._batches, self._forward = ordered, dense, batches, forward
        self._layers = dict(ordered.network.named_modules())
        if ordered.stages:
            self._watched = set(ordered.stages)
        else:
            holding = {name for name, layer in self._layers.items() if layer.__dict__.get("weight") is not None}
            self._watched = holding | ordered.touched.keys()
        self._cache: dict[int, dict[str, Tensor]] = {}
        self._bytes, self._bytes_per_sample = 0, 0
        self._batch_size = number_of(batches[0])
        self._order = self._usable_order()

    def length(self, kept: Kept) -> int:
        """How many layers run before the first one that the plan changes."""
        pruned = {index for index, (k, units) in enumerate(zip(kept, self._dense, strict=True)) if k < units}
        for index, name in enumerate(self._order):
            if self._ordered.touched.get(name, frozenset()) & pruned:
                return index
        return len(self._order)

    @contextmanager
    def recalled(self, kept: Kept, batch: int) -> Iterator[None]:
        """The first layers return what they returned for this batch in the dense network, while the context is open.

        Args:
            kept: Units that each group keeps [groups].
            batch: The batch's index.
        """
        length = self.length(kept)
        outputs = self._outputs(batch, kept) if length else None
        if outputs is None or list(outputs)[:length] != self._order[:length]:  # data may choose other layers
            yield
            return
        with patched_forward({self._layers[name]: _Recall(outputs[name]) for name in self._order[:length]}):
            yield

    def _outputs(self, batch: int, kept: Kept) -> dict[str, Tensor] | None:
        """None where they would not fit into memory."""
        if batch not in self._cache:
            if self._bytes + self._bytes_per_sample * self._batch_size > MEMORY_BYTES:
                return None
            self._cache[batch] = self._ran(self._batches[batch])
            self._ordered.at(kept)
            self._bytes += _nbytes(self._cache[batch])
        return self._cache[batch]

    def _ran(self, inputs: Samples, *, copied: bool = False) -> dict[str, Tensor]:
        """What every layer of the dense network returns, in the order in which they run.

        copied: as it is when the layer returns it, whatever is written into it later.
        """
        network = self._ordered.at(self._dense)
        outputs: dict[str, object] = {}
        runs: dict[str, int] = {}

        def note(name: str, _: nn.Module, __: object, output: object) -> None:
            runs[name] = runs.get(name, 0) + 1
            outputs[name] = output.clone() if copied and isinstance(output, Tensor) else output

        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                if name in self._watched:
                    hooks.enter_context(layer.register_forward_hook(partial(note, name)))
            outputs_of(network, inputs, self._forward)
        single: dict[str, Tensor] = {}
        for name, output in outputs.items():
            if runs[name] > 1 or not isinstance(output, Tensor):
                break
            single[name] = output
        return single

    def _least_bytes(self, few: Samples) -> float:
        """What a sample takes of the watched layers' outputs, none of which is kept; those handed on count nothing."""
        taken = 0

        def note(layer: nn.Module, arguments: tuple[object, ...], output: object) -> None:
            nonlocal taken
            if isinstance(output, Tensor) and all(output is not argument for argument in arguments):
                taken += output.nbytes

        with ExitStack() as hooks:
            for name in self._watched & self._layers.keys():
                hooks.enter_context(self._layers[name].register_forward_hook(note))
            outputs_of(self._ordered.at(self._dense), few, self._forward)
        return taken / number_of(few)

    def _usable_order(self) -> list[str]:
        """The layers that can be recalled, in order; none where a recalled output does not survive a forward pass."""
        few = rows(self._batches[0], slice(0, 2))
        if WORTH * len(self._batches) * self._batch_size * self._least_bytes(few) > MEMORY_BYTES:
            return []
        outputs, copies = self._ran(few), self._ran(few, copied=True)
        self._bytes_per_sample = -(-_nbytes(outputs) // number_of(few))
        with patched_forward({self._layers[name]: _Recall(output) for name, output in outputs.items()}):
            outputs_of(self._ordered.network, few, self._forward)
        intact = all(torch.equal(outputs[name], copies[name]) for name in outputs)
        return list(outputs) if intact else []


def _nbytes(outputs: dict[str, Tensor]) -> int:
    return sum({id(output): output.nbytes for output in outputs.values()}.values())  # a folded layer hands on its input


class _Recall:
    """A layer's forward that returns what is known."""

    def __init__(self, output: Tensor) -> None:
        self.output = output

    def __call__(self, *_: object, **__: object) -> Tensor:
        return self.output
