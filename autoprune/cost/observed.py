"""What a network costs, counted from what runs: every product of its forward pass, and each of its tensors once."""

import math
from collections import Counter
from collections.abc import Iterable, Set

import numpy as np
from torch import nn

from autoprune.cost.combined import WeightedSum
from autoprune.cost.model import CostModel, ProductCost, QuadraticCost
from autoprune.cost.probing import MISSING, Copies, Copy, SizeFunction, probe
from autoprune.cost.recording import Forward, Product, Shape
from autoprune.cost.unit_tables import pair_tables
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import IntArray, Structure, holds
from autoprune.task.pretrained import CAUSAL
from autoprune.task.samples import Samples
from autoprune.task.task import plain_forward

MILLIJOULES = 1e-9  # of a picojoule
# operators that are not products of two matrices
OTHER_KINDS = (
    "convolution",
    "_convolution",
    "convolution_overrideable",
    "mkldnn_rnn_layer",
    "_cudnn_rnn",
    "miopen_rnn",
)
Key = tuple[str, ...]


class NetworkCosts:
    """The costs of one network under every plan, each counted exactly, in integers.

    The network runs a few times, for one sample: as it is, and as copies that are narrower, which tell how every size
    depends on what groups keep (cost/probing.py). Where it can, it runs on the meta device, where nothing is computed.

    Args:
        model: The dense network.
        structure: Its groups.
        example_input: A batch that it runs on.
        forward: (network, inputs) → outputs.

    >>> NetworkCosts(task.model, structure, task.example_input, forward=task.forward).macs()(structure.units)
    """

    def __init__(
        self, model: nn.Module, structure: Structure, example_input: Samples, *, forward: Forward = plain_forward
    ) -> None:
        self.structure, self._kind = structure, model_type(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._names = {name: names[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        copies = Copies(model, structure, example_input, forward=forward, shapes_only=True)
        dense = copies(structure.units)
        modules = {product.module for product in dense.recording.products}
        numbers, extra = _numbers(dense, modules), dict[Key, None]()

        def fitted(keys: Iterable[Key]) -> dict[Key, list[SizeFunction | None]]:
            chosen = {key: numbers[key] for key in keys}

            def sizes_of(kept: IntArray) -> IntArray:
                seen = _numbers(copies(kept), modules)
                extra.update(dict.fromkeys(key for key in seen if key not in numbers))
                missing = {key: (MISSING,) * len(sizes) for key, sizes in chosen.items()}
                same = {key: seen[key] for key, sizes in chosen.items() if len(seen.get(key, ())) == len(sizes)}
                return np.array([size for sizes in (missing | same).values() for size in sizes], np.int64)

            functions = iter(probe(structure, sizes_of, optional=True))
            return {key: [next(functions) for _ in sizes] for key, sizes in chosen.items()}

        functions = fitted(key for key in numbers if key[0] != "module")
        unknown = {key: None for key, own in functions.items() if None in own}
        self._sizes = {
            key: [f or SizeFunction(size) for f, size in zip(own, numbers[key], strict=True)]
            for key, own in functions.items()
        }
        self._products = dict(zip(_keys(dense.recording.products, modules), dense.recording.products, strict=True))
        self._multiplied = {name: None for product in self._products.values() for name in product.weights}
        patterned = {pattern.module for group in structure.groups for pattern in group.patterns}
        differing = {
            key[2]: None for key in (*unknown, *extra) if key[0] == "product" and key[2] in modules - patterned
        }
        for key, own in (fitted(("module", "", module) for module in differing) if differing else {}).items():
            together = [function for function in own if function is not None]
            if len(together) == len(own):
                self._take_together(key[2], together)
                unknown = {other: None for other in unknown if other[2:3] != key[2:]}
                extra = {other: None for other in extra if other[2:3] != key[2:]}
        silent = [
            layer.name
            for layer in structure.layers
            if layer.kind in ("conv", "linear") and layer.name not in modules
            if self._names.get(f"{layer.name}.weight", "") not in {*self._multiplied, ""}
        ]
        idle = [", ".join(silent)] if silent else []
        self.uncounted = (
            *(
                f"multiply–accumulates of {operator}, which runs {count} times, are not counted: autoprune has no rule "
                "for this operator"
                for operator, count in dense.recording.uncounted.items()
            ),
            *(f"{names} are not counted: the first sample of the example input does not run them" for names in idle),
            *dict.fromkeys(
                f"{_words(key)} is counted as in the dense network: its size does not follow from what groups keep"
                for key in unknown
            ),
            *dict.fromkeys(f"{_words(key)} is not counted: only narrower copies have it" for key in extra),
        )
        """What could not be counted, a sentence each."""

    def _take_together(self, module: str, sizes: list[SizeFunction]) -> None:
        """Counts a module's products as one: narrower copies compute them in other parts than the dense network."""
        own = {key: product for key, product in self._products.items() if key[2] == module}
        weights = dict.fromkeys(name for product in own.values() for name in product.weights)
        together = ("product", "module", module)
        self._products = {key: product for key, product in self._products.items() if key not in own}
        self._products[together], self._sizes[together] = Product(module, "module", (), (), tuple(weights)), sizes

    def macs(self) -> CostModel:
        """Multiply–accumulates of everything that runs, for one sample; 1 MAC = 2 FLOPs.

        Of matrices that lose single weights, those that are left: what it would take on hardware that skips zeros. An
        attention takes the square of its tokens, and of fewer blocks of keys their share (cost/unit_tables.py): what it
        would take in a kernel that skips blocks.
        """
        return self._cost(
            "macs", "MACs", ((self._of(key, p.module, p.weights, slice(-1)), 1) for key, p in self._products.items())
        )

    def params(self) -> CostModel:
        """Parameters that are not zero, each tensor once, however many layers share it."""
        return self._cost("params", "parameters", ((self._tensor(key), 1) for key in self._keys("parameter")))

    def weights(self) -> CostModel:
        """Weights of the matrices and kernels that some group takes from, no biases: what papers on sparsity count."""
        matrices = (self._tensor(key) for key in self._keys("parameter") if self._is_matrix(key))
        return self._cost("weights", "weights", ((size, 1) for size in matrices if size.tables))

    def parameter_bytes(self) -> CostModel:
        """Bytes of all that is saved at fp32: parameters, and buffers such as BatchNorm's statistics."""
        return self._stored("bytes", of_matrices=4, of_others=4)

    def weight_bytes(self, *, bytes_per_weight: int) -> CostModel:
        """The same where matrices and kernels take so many bytes a weight, and all else stays at fp32."""
        return self._stored("weight_bytes", of_matrices=bytes_per_weight, of_others=4)

    def stored_bits(self, *, bits_per_entry: int, buffers: Set[str] = frozenset(), without: Set[str]) -> CostModel:
        """Bits of all that is saved but some tensors.

        Args:
            bits_per_entry: Of a parameter's, at least 1.
            buffers: Which take as many; others take 32.
            without: Parameters that are left out, each by the first of its names.
        """
        parameters = [key for key in self._keys("parameter") if key[1] not in without]
        tensors = [(key, bits_per_entry) for key in parameters]
        tensors += [(key, bits_per_entry if key[1] in buffers else 32) for key in self._keys("buffer")]
        return self._cost("stored_bits", "bits", ((self._tensor(key), bits) for key, bits in tensors))

    def entries(self, parameter: str) -> SizeFunction:
        """A parameter's entries that are not removed.

        Args:
            parameter: The first of its names.
        """
        return self._tensor(("parameter", parameter))

    def bytes_moved(self, *, weight_bytes: int, activation_bytes: int) -> CostModel:
        """Bytes between memory and arithmetic for one sample: weights are read once, outputs written and read once.

        Those of the operators that multiply with weights; what follows them element by element is fused into them.
        What caches save, what attentions hold between scores and mixing, and what a residual stream is read once more,
        is left out.

        Args:
            weight_bytes: Of a weight or bias.
            activation_bytes: Of an output's element.
        """
        weights = ((self._tensor(key), weight_bytes) for key in self._keys("parameter") if key[1] in self._multiplied)
        written = (
            (self._of(key, product.module, ("",), slice(-1, None)), 2 * activation_bytes)
            for key, product in self._products.items()
        )
        return self._cost("bytes_moved", "bytes", (*weights, *written))

    def energy(
        self, *, pj_per_mac: float, pj_per_byte: float, weight_bytes: int = 4, activation_bytes: int = 4
    ) -> WeightedSum:
        """Millijoules for one sample: those of its multiply–accumulates and of its bytes moved.

        Args:
            pj_per_mac: Picojoules, at least 0.
            pj_per_byte: Picojoules, at least 0.
            weight_bytes: Of a weight or bias.
            activation_bytes: Of an output's element.
        """
        for name, value in (("pj_per_mac", pj_per_mac), ("pj_per_byte", pj_per_byte)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be an energy in picojoules, at least 0, got {value}")
        moved = self.bytes_moved(weight_bytes=weight_bytes, activation_bytes=activation_bytes)
        weights = (MILLIJOULES * pj_per_mac, MILLIJOULES * pj_per_byte)
        return WeightedSum("energy", "mJ", (self.macs(), moved), weights)

    def kv_cache(self, *, context: int, element_bytes: int) -> CostModel:
        """Bytes of a decoder's keys and values: 2 · key heads kept · their width · attentions that are there.

        Fewer blocks of keys (`keys`) do not make it smaller, nor do windows of sliding attentions.

        Args:
            context: Tokens of the text, at least 1.
            element_bytes: Of a key's or value's element.

        Raises:
            ValueError: The model keeps no such cache.
        """
        kind = self._kind
        if kind not in CAUSAL:
            raise ValueError(f"only decoders keep keys and values, of the types {list(CAUSAL)}; this one is {kind!r}")
        if context < 1:
            raise ValueError(f"the cache is of at least one token, got context={context}")
        query, *others = FAMILIES[kind].projections
        terms = []
        for key in self._keys("parameter"):
            layer, _, part = key[1].rpartition(".")
            if part == "weight" and layer.endswith(tuple(f".{name}" for name in others or (query,))):
                written = self._of(key, layer, ("",), slice(1))
                # where one projection writes queries, keys and values, two thirds of its outputs are kept
                scale = written.scale if others else written.scale * 2 // 3
                terms.append((SizeFunction(scale, written.tables), context * element_bytes))
        return self._cost("kv_cache", "bytes", terms)

    def axis(self, parameter: str, axis: int) -> IntArray:
        """The size of a parameter's axis, affine in the kept units: [groups + 1], the last entry constant.

        Args:
            parameter: Its qualified name, or one of them where layers share it.
            axis: The index of the axis.

        Raises:
            ValueError: It is computed from others, or there is none of that name.
        """
        if parameter not in self._names:
            raise ValueError(f"{parameter} is no parameter of the network, or is computed from others")
        return self._sizes["parameter", self._names[parameter]][axis].affine(len(self.structure.groups))

    def _stored(self, name: str, *, of_matrices: int, of_others: int) -> CostModel:
        tensors = (*self._keys("parameter"), *self._keys("buffer"))
        return self._cost(
            name, "bytes", ((self._tensor(key), of_matrices if self._is_matrix(key) else of_others) for key in tensors)
        )

    def _keys(self, kind: str) -> list[Key]:
        return [key for key in self._sizes if key[0] == kind]

    def _is_matrix(self, key: Key) -> bool:
        return key[1] in self._multiplied and len(self._sizes[key]) > 1

    def _tensor(self, key: Key) -> SizeFunction:
        return self._of(key, key[1].rpartition(".")[0], (key[1],), slice(None))

    def _of(self, key: Key, module: str, weights: tuple[str, ...], sizes: slice) -> SizeFunction:
        """The product of some of a key's sizes, and what groups do to it beside making tensors smaller.

        It is there only where no group passes its module over. Groups of single weights leave their share of a matrix,
        and groups of key blocks their share of an attention's pairs of tokens.
        """
        size = math.prod(self._sizes[key][sizes], start=SizeFunction(1))
        for index, group in enumerate(self.structure.groups):
            whole = [1 for skip in group.skips if holds(skip.module, module)][:1]
            whole += [matrix.size for matrix in group.compared if f"{matrix.layer}.weight" in weights]
            whole += [pattern.tokens**2 for pattern in group.patterns if pattern.module == module and not weights]
            for divisor in whole:
                table = np.eye(1, len(self.structure.groups) + 1, index, dtype=np.int64)[0]
                size = SizeFunction(size.scale // divisor, (*size.tables, tuple(table.tolist())))
        return size

    def _cost(self, name: str, unit: str, sizes: Iterable[tuple[SizeFunction, int]]) -> CostModel:
        """Σ weight · size over pairs of them; it is quadratic where no size has more than two tables."""
        terms = Counter[tuple[tuple[int, ...], ...]]({(): 0})
        for size, weight in sizes:
            terms[tuple(sorted(size.tables, reverse=True))] += weight * size.scale
        groups = len(self.structure.groups)
        patterned = {index for index, group in enumerate(self.structure.groups) if group.patterns}
        used = {index for term in terms for table in term for index in np.flatnonzero(table[:-1])}
        tables = pair_tables(self.structure) if used & patterned else None
        one, most = (*[0] * groups, 1), max(2, *map(len, terms))
        factors = np.array([[*term, *[one] * (most - len(term))] for term in terms], np.int64)
        weights = np.array(list(terms.values()), np.int64)
        if most > 2:
            return ProductCost(name, unit, factors, weights, tables)
        return QuadraticCost.bilinear(name, unit, factors[:, 0], factors[:, 1], weights, tables=tables)


def _numbers(copy: Copy, modules: Set[str]) -> dict[Key, Shape]:
    """Sizes by key: of products, with the elements that those with weights write; of modules; of tensors."""
    products = copy.recording.products
    numbers: dict[Key, Shape] = {
        key: (*product.sizes, math.prod(product.output) if product.output and product.weights else 0)
        for key, product in zip(_keys(products, modules), products, strict=True)
    }
    for key in list(numbers):
        *sizes, written = numbers[key]
        macs, outputs = numbers.get(("module", "", key[2]), (0, 0))
        numbers["module", "", key[2]] = (macs + math.prod(sizes), outputs + written)
    numbers |= {("parameter", name): shape for name, shape in copy.parameters.items()}
    return numbers | {("buffer", name): shape for name, shape in copy.buffers.items()}


def _keys(products: Iterable[Product], modules: Set[str]) -> list[Key]:
    """What each product is called in every copy: its kind, its module, and which of these it is.

    A copy may compute in another way what the dense network does, such as an attention in parts. So matrix products are
    of one kind, and a module that runs no product in the dense network is taken for the one around it that does.
    """
    ran = Counter[Key]()
    keys: list[Key] = []
    for product in products:
        module = product.module
        while module and module not in modules:
            module = module.rpartition(".")[0]
        kind = product.operator if product.operator in OTHER_KINDS else "matrix product"
        own = ("product", kind, module)
        keys.append((*own, str(ran[own])))
        ran[own] += 1
    return keys


def _words(key: Key) -> str:
    return f"{key[1]} of {key[2] or 'the network itself'}" if key[0] == "product" else f"the {key[0]} {key[1]}"
