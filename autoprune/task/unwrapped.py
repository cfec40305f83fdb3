"""The network inside of what trains it on several devices or compiles it."""

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the network itself, where it is in an nn.DataParallel or DistributedDataParallel, or was compiled."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # what torch.compile returns
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def unwrapped_names(model: nn.Module, names: frozenset[str]) -> frozenset[str]:
    """Returns the names as the network inside has them, where they were those of a wrapped network.

    Args:
        model: What the names are of.
        names: Of its modules.
    """
    while unwrapped(model) is not model:
        prefix = next(name for name, _ in model.named_children()) + "."
        names = frozenset(name.removeprefix(prefix) for name in names)
        model = next(model.children())
    return names
