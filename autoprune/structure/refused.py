"""Networks that cannot be taken apart as they are, and what to do about it."""

import torch
from torch import nn
from torch.nn.utils import parametrize

QUANTIZED = (
    "torch.ao.nn.quantized", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.q", "torch.ao.nn.quantizable",
    "torch.ao.nn.sparse.quantized", "torchao.", "bitsandbytes.",
)  # fmt: skip


def refuse_wrapped(model: nn.Module) -> None:
    """Raises ValueError for scripted, compiled and quantized networks, whose layers are not what one sees."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"its module {name!r}" if name else "this network"
            raise ValueError(
                f"{where} is a TorchScript module (torch.jit.script or trace), which cannot be made smaller; pass the "
                "nn.Module that it was made from, and script the pruned network afterwards"
            )
        if type(module).__module__.startswith(QUANTIZED) or isinstance(module, torch.ao.quantization.FakeQuantizeBase):
            raise ValueError(
                f"{f'its module {name!r}' if name else 'this network'} is quantized, or prepared for it (a "
                f"{type(module).__name__}); pass the network in floating point, and quantize the pruned one"
            )
        if hasattr(module, "_orig_mod"):
            raise ValueError(
                f"{f'its module {name!r}' if name else 'this network'} is compiled (torch.compile); pass the module "
                "inside, model._orig_mod, and compile the pruned network afterwards"
            )


def computed_weights(model: nn.Module) -> dict[str, str]:
    """Layers whose weight is computed from others at every call, each with the line of code that ends it."""
    computations = {name: _computation(module) for name, module in model.named_modules()}
    return {
        name: f"its weight is computed at every call ({kind}), so nothing can be taken from it; make it an ordinary "
        f"weight first: for m in model.modules(): {line}"
        for name, (kind, line) in computations.items()
        if kind
    }


def _computation(module: nn.Module) -> tuple[str, str]:
    if parametrize.is_parametrized(module):
        parametrizations = module.parametrizations
        kinds = {type(p).__name__.strip("_") for chain in parametrizations.values() for p in chain}  # type: ignore[operator]
        return (
            f"parametrization {', '.join(sorted(kinds))}",
            "[torch.nn.utils.parametrize.remove_parametrizations(m, key) for key in "
            "list(getattr(m, 'parametrizations', []))]",
        )
    for hook in module._forward_pre_hooks.values():
        match type(hook).__name__:
            case "WeightNorm":
                each = "hasattr(m, 'weight_g') and torch.nn.utils.remove_weight_norm(m)"
                return "weight_norm", each
            case "SpectralNorm":
                each = "hasattr(m, 'weight_orig') and torch.nn.utils.remove_spectral_norm(m)"
                return "spectral_norm", each
        key = getattr(hook, "_tensor_name", None)
        if key is not None and hasattr(hook, "apply_mask"):
            each = f"hasattr(m, '{key}_mask') and torch.nn.utils.prune.remove(m, '{key}')"
            return "torch.nn.utils.prune masks", each
    return "", ""
