"""masked ≡ shrunk ≡ sliced ≡ reloaded ≡ ONNX, for each shipped network, and for random plans of each criterion."""

from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate

from autoprune.cli import conf_dir
from autoprune.device.onnx_runtime import onnx_call
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.export.network import load_network, save_network
from autoprune.export.onnx import export_onnx
from autoprune.importance.criterion import CriterionInputs, rank, scored
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.task.shipped import SHIPPED, shipped_task
from tests.models import random_plan

TOLERANCE = 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith("table_")])
def test_every_form_of_a_pruned_network_computes_the_same(name: str, tmp_path: Path) -> None:
    task = shipped_task(name)
    structure = find_structure(task.model, task.example_input)
    inputs, calibration = task.data.search.inputs[:8], task.data.calibration[:100]
    seed = 0
    for path in sorted((conf_dir() / "importance").glob("*.yaml")):
        settings = yaml.safe_load(path.read_text())
        if path.stem in ("sparse_gpt", "default"):  # of single weights, which these networks don't lose; l1 for these
            continue
        if path.stem == "bn_scale":  # groups without a BatchNorm need a criterion of their own
            settings["otherwise"] = yaml.safe_load((conf_dir() / "importance" / "l1.yaml").read_text())
        criterion = instantiate(settings, _convert_="all")
        generator = torch.Generator().manual_seed(0)
        given = CriterionInputs(task.model, structure, calibration, task.loss, task.forward, generator)
        scores = scored(criterion, given)
        ranking = rank(scores, structure, criterion=path.stem)
        ordered = OrderedNetwork(task.model, structure, ranking)
        plan, seed = random_plan(structure, seed=seed), seed + 1  # another of every criterion
        small = shrink(task.model, structure, plan, ranking)
        save_network(small, tmp_path / "network", architecture=task.architecture)
        export_onnx(small, task.example_input, tmp_path / "network.onnx")
        with torch.no_grad():
            with masked(task.model, structure, plan, ranking):
                expected = task.model(inputs)
            outputs = {
                "shrunk": small(inputs),
                "sliced": ordered.at(plan.kept)(inputs),
                "reloaded": load_network(tmp_path / "network")(inputs),
                "onnx": torch.from_numpy(onnx_call(tmp_path / "network.onnx", inputs)()[0]),
            }
        worst = {form: (output - expected).abs().max().item() for form, output in outputs.items()}
        print(f"{name}, {path.stem}, max |difference| to masked:", worst)
        assert max(worst.values()) <= TOLERANCE, (path.stem, worst)
