"""Networks that cannot be taken apart as they are, and what to do about it."""

import torch
from torch import nn
from torch.nn.utils import parametrize


def refuse_wrapped(model: nn.Module) -> None:
    """Raises ValueError for scripted and compiled networks, whose layers are not the modules that one sees."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"its module {name!r}" if name else "this network"
            raise ValueError(
                f"{where} is a TorchScript module (torch.jit.script or trace), which cannot be made smaller; pass the "
                "nn.Module that it was made from, and script the pruned network afterwards"
            )
        if hasattr(module, "_orig_mod"):
            raise ValueError(
                f"{f'its module {name!r}' if name else 'this network'} is compiled (torch.compile); pass the module "
                "inside, model._orig_mod, and compile the pruned network afterwards"
            )


def refuse_computed_weights(model: nn.Module) -> None:
    """Raises ValueError where a layer's weight is computed from others at every call, with the line that ends it."""
    for name, module in model.named_modules():
        kind, line = _computation(module)
        if kind:
            raise ValueError(
                f"the weight of {name or 'the network'!r} is computed at every call ({kind}), so nothing can be taken "
                f"from it; make it an ordinary weight first: {line}"
            )


def _computation(module: nn.Module) -> tuple[str, str]:
    if parametrize.is_parametrized(module):
        parametrizations = module.parametrizations
        kinds = {type(p).__name__.strip("_") for chain in parametrizations.values() for p in chain}  # type: ignore[operator]
        return (
            f"parametrization {', '.join(sorted(kinds))}",
            "for m in model.modules(): [torch.nn.utils.parametrize.remove_parametrizations(m, key) for key in "
            "list(getattr(m, 'parametrizations', []))]",
        )
    for hook in module._forward_pre_hooks.values():
        match type(hook).__name__:
            case "WeightNorm":
                each = "hasattr(m, 'weight_g') and torch.nn.utils.remove_weight_norm(m)"
                return "weight_norm", f"for m in model.modules(): {each}"
            case "SpectralNorm":
                each = "hasattr(m, 'weight_orig') and torch.nn.utils.remove_spectral_norm(m)"
                return "spectral_norm", f"for m in model.modules(): {each}"
        key = getattr(hook, "_tensor_name", None)
        if key is not None and hasattr(hook, "apply_mask"):
            each = f"hasattr(m, '{key}_mask') and torch.nn.utils.prune.remove(m, '{key}')"
            return "torch.nn.utils.prune masks", f"for m in model.modules(): {each}"
    if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
        return "LoRA", "model = model.merge_and_unload()"
    return "", ""
