"""The configuration as the command line composes it, and its parts as objects."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from autoprune.cli import conf_dir
from autoprune.cli.parts import part_of as part_of


def composed(*overrides: str, job: str = "config") -> dict[str, Any]:
    """Of the main job, or of the one whose file in conf is named."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(job, list(overrides))
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return settings
