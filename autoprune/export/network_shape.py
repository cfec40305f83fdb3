"""The shape of a pruned network in JSON: what has to be changed of the dense network before it holds the weights."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from autoprune.structure.families import FAMILIES, SIZES, Experts, model_type
from autoprune.structure.groups import CONFIG, HEADS, Axis
from autoprune.structure.layer_types import CONVOLUTIONS, is_sliceable, tensor_axes
from autoprune.structure.literal_sizes import changed_literals, literal_sizes, set_literal_size
from autoprune.structure.narrowed_input import WITHHELD, withheld_of, withhold
from autoprune.structure.sliced_attention import SlicedAttention, slice_attention, slice_encoders

PLAIN = (*CONVOLUTIONS, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.PReLU)  # whose tensors follow from their widths
WIDTHS = (
    "in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_parameters",
)  # fmt: skip
NUMBERS = (
    "in_channels", "out_channels", "groups", "num_features", "embedding_dim", "input_size", "hidden_size",
    "num_channels", "num_groups", "normalized_shape", "nf", "nx",
)  # fmt: skip

Shapes = dict[str, dict[str, int]]  # layer → its width attributes


def layer_widths(network: nn.Module) -> Shapes:
    """The width attributes of every plain layer, and what a transformer's attentions know."""
    widths = {}
    for name, layer in network.named_modules():
        attributes = WIDTHS if _is_plain(name, layer, network) else SIZES if model_type(network) in FAMILIES else ()
        sizes = {attribute: layer.__dict__[attribute] for attribute in attributes if attribute in layer.__dict__}
        if sizes:
            widths[name] = sizes
    return widths


def other_shapes(network: nn.Module) -> dict[str, Any]:
    """What `layer_widths` does not tell: nothing for networks of plain layers, of known transformers their experts.

    numbers: module → its whole numbers that pruning may lower. tensors: the shapes of tensors that belong to no plain
    layer. sliced: attentions that are no longer PyTorch's own.
    """
    if (family := FAMILIES.get(model_type(network) or "")) is not None:
        return {} if family.experts is None else _of_experts(network, family.experts)
    modules = dict(network.named_modules())
    numbers = {name: own for name, module in modules.items() if (own := _numbers(name, module, network))}
    tensors = {name: list(tensor.shape) for name, tensor in _other_tensors(network).items()}
    sliced = [name for name, module in modules.items() if isinstance(module, SlicedAttention)]
    seldom = {"withheld": withheld_of(network), "literals": changed_literals(network)}
    beside = {key: own for key, own in seldom.items() if own}
    record = {"numbers": numbers, "tensors": tensors, "sliced": sliced, **beside}
    return record if tensors or numbers or beside else {}


def _of_experts(network: nn.Module, names: Experts) -> dict[str, Any]:
    parts = (f".{names.module}", f".{names.router}")
    modules = {name: module for name, module in network.named_modules() if name.endswith(parts)}
    keys = ("num_experts", "intermediate_dim")
    numbers = {name: {key: vars(m)[key] for key in keys if key in vars(m)} for name, m in modules.items()}
    tensors = {f"{name}.{key}": list(p.shape) for name, m in modules.items() for key, p in m.named_parameters()}
    return {"numbers": numbers, "tensors": tensors, "sliced": []}


def resize(network: nn.Module, layers: Mapping[str, Mapping[str, int]]) -> None:
    """Gives every plain layer of the dense `network` its new widths, in place; resized tensors hold nothing yet.

    Raises ValueError where `layers` are not those of the network, or a width is not in [1, the dense width].

    Args:
        network: The network.
        layers: Layer → its width attributes.
    """
    dense = layer_widths(network)
    if layers.keys() != dense.keys():
        raise ValueError(f"its layers differ: {some(layers.keys() ^ dense.keys())} in one of the two only")
    for name, sizes in layers.items():
        if sizes.keys() != dense[name].keys():
            raise ValueError(f"layer {name!r} needs the widths {list(dense[name])}, got {list(sizes)}")
        for attribute, size in sizes.items():
            if type(size) is not int or not 1 <= size <= dense[name][attribute]:
                raise ValueError(
                    f"{attribute} of layer {name!r} must be in [1, {dense[name][attribute]}], got {size!r}"
                )
        layer = network.get_submodule(name)
        for attribute, size in sizes.items():
            setattr(layer, attribute, size)
        for axis, size in (_axis_sizes(layer) if isinstance(layer, PLAIN) else {}).items():
            for tensor_axis in tensor_axes(layer, axis):
                shape = [*tensor_axis.tensor.shape]
                shape[tensor_axis.dim] = size
                _empty(tensor_axis.tensor, shape)


def resize_others(network: nn.Module, shapes: Mapping[str, Any]) -> None:
    """Gives the rest of the dense network its shapes and numbers, in place, as `other_shapes` told them.

    Args:
        network: The network.
        shapes: What `other_shapes` said.

    Raises:
        ValueError: They are not those of the network, or one is larger than the dense network's.
    """
    if not shapes:
        return
    if shapes.keys() - {"withheld", "literals"} != {"numbers", "tensors", "sliced"}:
        raise ValueError(f"its other shapes are numbers, tensors and sliced, got {some(shapes.keys())}")
    for name in shapes["sliced"]:
        if not isinstance(dict(network.named_modules()).get(name), nn.MultiheadAttention | SlicedAttention):
            raise ValueError(f"{name!r} is no nn.MultiheadAttention")
        slice_attention(network, name)
    slice_encoders(network)
    dense = {"numbers": {}, "tensors": {}} | other_shapes(network)
    for kind in ("numbers", "tensors"):
        if shapes[kind].keys() != dense[kind].keys():
            raise ValueError(
                f"its {kind} differ: {some(shapes[kind].keys() ^ dense[kind].keys())} in one of the two only"
            )
    modules = dict(network.named_modules())
    for name, entries in shapes.get("withheld", {}).items():
        if type(entries) is not int or entries < 1 or name not in modules:
            raise ValueError(f"{entries!r} inputs are withheld from {name!r}, which must be some, and a module of it")
        withhold(modules[name], entries)
    for name, sizes in shapes.get("literals", {}).items():
        own = {str(number): number for number in literal_sizes(modules[name])} if name in modules else {}
        for number, size in sizes.items():
            if number not in own:
                raise ValueError(f"the code of {name!r} has no number {number}, as that of the network that was saved")
            _check(f"what stands for {number} in the code of {name!r}", size, own[number])
            set_literal_size(modules[name], own[number], size)
    for name, numbers in shapes["numbers"].items():
        module, own = network.get_submodule(name), dense["numbers"][name]
        if numbers.keys() != own.keys():
            raise ValueError(f"module {name!r} needs the numbers {list(own)}, got {list(numbers)}")
        for key, value in numbers.items():
            if value != own[key] or type(value) is not type(own[key]):
                _check(f"{key} of module {name!r}", value, own[key])
                holder, name = cast(Any, module), key.removeprefix(f"{CONFIG}.")
                if name != key:
                    holder = module.config = copy.copy(holder.config)
                container = type(getattr(holder, name))
                setattr(holder, name, container(value) if isinstance(value, list) else value)
    tensors = _other_tensors(network)
    for name, shape in shapes["tensors"].items():
        if shape != dense["tensors"][name]:
            _check(f"the shape of {name!r}", shape, dense["tensors"][name])
            _empty(tensors[name], shape)


def some(names: Collection[str]) -> str:
    """The first three, and how many others there are."""
    others = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return f"{sorted(names)[:3]}{others}"


def _check(what: str, value: object, dense: int | list[int]) -> None:
    values, most = (value, dense) if isinstance(dense, list) else ([value], [dense])
    if (
        not isinstance(values, list)
        or len(values) != len(most)
        or not all(type(v) is int and 1 <= v <= m for v, m in zip(values, most, strict=True))
    ):
        raise ValueError(f"{what} must be in [1, {dense}], got {value!r}")


def _empty(tensor: Tensor, shape: Sequence[int]) -> None:
    tensor.data = tensor.data.new_empty(shape)  # through .data, so that tied weights stay tied


def _is_plain(name: str, layer: nn.Module, network: nn.Module) -> bool:
    """Not what is in an attention, which reads its sizes from its tensors."""
    parent = network.get_submodule(name.rpartition(".")[0]) if name else None
    return isinstance(layer, PLAIN) and not isinstance(parent, nn.MultiheadAttention | SlicedAttention)


def _numbers(name: str, module: nn.Module, network: nn.Module) -> dict[str, int | list[int]]:
    if _is_plain(name, module, network):
        return {}
    own = vars(module)
    if is_sliceable(module) or type(module).__module__.startswith("torch.nn"):
        sizes = {key: own[key] for key in NUMBERS if key in own and is_sliceable(module)}
        if isinstance(module, nn.Unflatten):
            sizes["unflattened_size"] = own["unflattened_size"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()}
    public = {key: value for key, value in own.items() if not key.startswith("_") and key != WITHHELD}
    if module is not network:  # a module's own copy of the configuration may know of fewer heads
        public |= {f"{CONFIG}.{k}": v for k, v in getattr(own.get(CONFIG), "__dict__", {}).items() if HEADS in k}
    numbers: dict[str, int | list[int]] = {k: v for k, v in public.items() if type(v) is int and v > 0}
    for key, value in public.items():
        if type(value) in (list, tuple) and value and all(type(v) is int and v > 0 for v in value):
            numbers[key] = list(value)
    return numbers


def _other_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in network.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
        and not _is_plain(parent := name.rpartition(".")[0], network.get_submodule(parent), network)
    }


def _axis_sizes(layer: nn.Module) -> dict[Axis, int]:
    if isinstance(layer, CONVOLUTIONS):
        if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
            raise ValueError(
                f"{layer.groups} convolution groups do not divide {layer.in_channels} and {layer.out_channels} channels"
            )
        return {"out": layer.out_channels, "in": layer.in_channels // layer.groups}
    if isinstance(layer, nn.Linear):
        return {"out": layer.out_features, "in": layer.in_features}
    return {"out": layer.num_parameters if isinstance(layer, nn.PReLU) else int(layer.num_features)}  # type: ignore[arg-type]
