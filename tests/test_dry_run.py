import json
import subprocess
from pathlib import Path

import pytest
import torch

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.structure.transformer import transformer_structure
from autoprune.task.huggingface import causal_lm
from experiments.scaling.command import DOCUMENT, MEASURED, NAME, PRESETS, UNMEASURED, figures, known, main
from experiments.scaling.estimate import Estimate, SearchSize, estimate, meta_model

pytest.importorskip("transformers")

ROOT = Path(__file__).parent.parent
SMALL = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
SHORT = SearchSize(tokens=16, judged=4, windows=2, calibration=3, evaluations=10, round_to=1)


@pytest.fixture(scope="module")
def wide() -> Estimate:
    """Llama-2-7B with 3 of its 32 blocks."""
    return estimate(PRESETS["llama-7b"] | {"num_hidden_layers": 3}, SearchSize())


def test_counts_are_those_of_the_formulas(wide: Estimate) -> None:
    hidden, inner, tokens, vocabulary = 4096, 11008, 2048, 32000
    block = 4 * hidden**2 + 3 * hidden * inner
    assert wide.params == 3 * (block + 2 * hidden) + 2 * vocabulary * hidden + hidden
    assert wide.dense_macs == 3 * (block * tokens + 2 * tokens**2 * hidden) + hidden * vocabulary * 128
    assert wide.cache == 2 * 3 * hidden * 2
    assert wide.groups == 2 * 3
    assert wide.weights == 2 * wide.params


def test_the_plan_meets_its_budget_and_nearly_fills_it(wide: Estimate) -> None:
    everywhere = 4096 * 32000 * (2048 - 128)  # the budget counts logits at every position
    share = (wide.plan_macs + everywhere) / (wide.dense_macs + everywhere)
    assert 0.495 < share <= 0.5
    assert wide.plan_params < 0.65 * wide.params
    assert wide.plan_cache < 0.5 * wide.cache


def test_wide_layers_are_not_repaired(wide: Estimate) -> None:
    assert (wide.solved, wide.readers) == (3, 6), "11,008 inputs are more than least squares solve for"
    assert wide.all_factors > wide.factors


def test_the_meta_model_is_the_real_one() -> None:
    real, found = causal_lm(json.dumps(SMALL)), estimate(SMALL, SHORT)
    assert found.params == sum(parameter.numel() for parameter in real.parameters())
    meta = meta_model(SMALL, tokens=16)
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert all(parameter.is_meta for parameter in meta.parameters())


def test_memory_and_work_by_hand() -> None:
    found = estimate(SMALL, SHORT)
    matrices = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)  # q and o, k and v, the three of the FFN
    assert found.ordered == 2 * matrices
    assert found.ranking == 2 * matrices
    assert found.database == 7 * 2 * matrices
    assert found.dense_outputs == 2 * 4 * 97 * 2
    assert (found.solved, found.readers) == (6, 6)
    assert found.factors == found.all_factors == 3 * 4 * (32**2 + 2 * 32 * 32 + 48**2 + 2 * 32 * 48)
    assert found.search_tokens == 10 * 2 * 16
    assert found.search_flops == 2 * found.plan_macs * 2 * 10
    assert found.preparing_flops == 2 * found.dense_macs * (2 + 3)
    assert found.cache == 2 * 3 * 2 * 8 * 2


def test_hours_follow_the_assumptions() -> None:
    found = estimate(SMALL, SHORT)
    slow = SearchSize(utilisation=0.2, flops=1e12)
    assert found.hours(slow) == pytest.approx((found.search_flops + found.preparing_flops) / 0.2e12 / 3600)
    assert found.hours(SearchSize(utilisation=0.4, flops=1e12)) == pytest.approx(found.hours(slow) / 2)


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "bert", "distilbert"])
def test_any_supported_configuration_is_counted(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"vocab_size": 97, "max_position_embeddings": 64}
    names = {"gpt2": ("n_embd", "n_head", "n_layer"), "distilbert": ("dim", "n_heads", "n_layers")}
    hidden, heads, layers = names.get(family, ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    config = tmp_path / "config.json"
    extra = {"num_key_value_heads": 2, "head_dim": 8} if family == "qwen3" else {}
    config.write_text(json.dumps({"model_type": family, hidden: 32, heads: 4, layers: 2, **sizes, **extra}))
    main([str(config), "--tokens", "16", "--judged", "4", "--round-to", "1"])
    printed = capsys.readouterr().out
    assert "groups (heads, neurons)" in printed
    cached = next(line for line in printed.splitlines() if line.startswith("bytes of keys and values"))
    expected = {"gpt2": 2 * 2 * 32 * 2, "qwen3": 2 * 2 * 16 * 2}.get(family, 0)
    assert cached.split()[-1] == f"{expected}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json"], "neither one of"),
        (["{config}", "--tokens", "128", "--judged", "4"], "windows of 128 tokens are longer than the model's 64"),
        (["{config}", "--tokens", "16", "--judged", "17"], "judged must be between 1 and the window's 16 tokens"),
        (["{config}", "--tokens", "16", "--judged", "4", "--budget", "macs:0.01"], "feasible budgets lie between"),
        (["{other}"], "model_type is 'mamba'; supported are"),
        (["{list}"], "holds a list, not the object"),
        ([], "give a model"),
        (["llama-7b", "--write"], "give a model"),
    ],
)
def test_what_cannot_be_run_is_said(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"config": SMALL, "other": {"model_type": "mamba"}, "list": [1]}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stopped:
        main([a.format(**{name: tmp_path / f"{name}.json" for name in files}) for a in arguments])
    assert stopped.value.code
    assert message in capsys.readouterr().err


def test_measured_numbers_enter_and_missing_ones_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, measured = tmp_path / "config.json", tmp_path / "per_token.json"
    config.write_text(json.dumps(SMALL))
    main([str(config), "--tokens", "16", "--judged", "4", "--round-to", "1", "--measured", str(measured)])
    assert capsys.readouterr().out.count(UNMEASURED) == 4
    measured.write_text(json.dumps({"evaluator_over_forward": 1.25, "judged_share": 0.5, "machine": "one"}))
    main([str(config), "--tokens", "16", "--judged", "4", "--round-to", "1", "--measured", str(measured)])
    printed = capsys.readouterr().out
    assert "1.25" in printed
    assert printed.count(UNMEASURED) == 1


@pytest.mark.slow
def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    command = [str(ROOT / "scripts" / "dry_run"), str(config), "--tokens", "16", "--judged", "4", "--round-to", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "GPU hours" in done.stdout


@pytest.mark.slow
def test_the_document_holds_what_the_dry_run_says_of_the_models_as_published() -> None:
    """The smallest is estimated again; of the largest, what is published stands there."""
    between = DOCUMENT.read_text().partition(f"<!-- {NAME} -->")[2].partition(f"<!-- /{NAME} -->")[0]
    names, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in between.strip().splitlines()]
    documented = {
        name: {row[0]: row[column] for row in rows[1:]} for column, name in enumerate(names) if column
    }  # fmt: skip
    assert list(documented) == list(PRESETS)
    found = estimate(PRESETS["llama-7b"], SearchSize())
    assert documented["llama-7b"] == figures(found, SearchSize(), known(MEASURED))
    assert (found.params, found.cache) == (6_738_415_616, 2 * 32 * 32 * 128 * 2)
    largest = documented["llama-70b"]
    assert largest["params"] == f"{68_976_648_192:,}"
    assert largest["bytes of keys and values per token"] == f"{2 * 80 * 8 * 128 * 2:,}"  # 8 key heads for 64 of queries


def test_hooks_that_move_activations_survive_slicing() -> None:
    accelerate = pytest.importorskip("accelerate")
    tokens = torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(0))
    outputs = []
    for dispatched in (False, True):
        torch.manual_seed(0)
        model = causal_lm(json.dumps(SMALL))
        structure = transformer_structure(model, tokens[:1])
        if dispatched:
            places = dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
            places |= dict.fromkeys(structure.stages, "cpu")
            model = accelerate.dispatch_model(model, places, main_device="cpu", force_hooks=True)
            assert hasattr(model.model.layers[0], "_hf_hook")
        ranking = {group.name: torch.arange(group.units).flip(0) for group in structure.groups}
        network = OrderedNetwork(model, structure, ranking).at(tuple(group.levels[0] for group in structure.groups))
        with torch.no_grad():
            outputs.append(network(input_ids=tokens, use_cache=False).logits)
    assert torch.equal(*outputs)
