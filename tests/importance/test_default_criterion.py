"""The default criterion is the one that suits the kind of network."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from autoprune.cli import conf_dir
from autoprune.structure.graph import find_structure
from autoprune.task.task import Task
from tests.language_models import TINY
from tests.tasks import scored_task, tiny_task


@pytest.mark.parametrize(("task", "same"), [(TINY["llama"], "activation_norm"), (lambda: tiny_task("plain"), "l1")])
def test_it_scores_as_the_one_that_suits(task: object, same: str) -> None:
    made = task()  # type: ignore[operator]
    assert isinstance(made, Task)
    structure = find_structure(made.model, made.example_input)
    scores = []
    for name in ("default", same):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            settings = compose("config", overrides=[f"importance={name}"]).importance
        scores.append(scored_task(instantiate(settings, _convert_="all"), made, structure))
    assert all(torch.equal(scores[0][group], scores[1][group]) for group in structure.names)
