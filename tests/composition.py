"""Configurations as the command line composes them."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from autoprune.cli import conf_dir


def composed(*overrides: str, name: str = "config") -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        config = compose(name, overrides=list(overrides))
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}
