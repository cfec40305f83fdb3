"""Loading: from folders that were written here, by transformers itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from autoprune.cli.session import sentence_of
from autoprune.identity import identity_of
from autoprune.task import placement
from autoprune.task.placement import Placement
from autoprune.task.pretrained import CAUSAL, ENCODERS, Pretrained, built
from tests import language_models
from tests.commands import run_python
from tests.language_models import TINY, config_text
from tests.task.pretrained_models import LETTERS, edited, model_folder


@pytest.mark.parametrize("family", CAUSAL + ENCODERS)
def test_a_folder_is_loaded_as_transformers_does(family: str, tmp_path: Path) -> None:
    found = Pretrained.check(model_folder(tmp_path, family), [family])
    auto = transformers.AutoModel if family in ENCODERS else transformers.AutoModelForCausalLM
    ours, theirs = found.model(), auto.from_pretrained(tmp_path).eval()
    tokens = torch.randint(3, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(input_ids=tokens)[0], theirs(input_ids=tokens)[0])
    assert not ours.training
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert ours.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")
    assert not any(isinstance(layer, Conv1D) for layer in ours.modules())
    assert found.tokenizer()("ab", add_special_tokens=False)["input_ids"] == [3 + LETTERS.index(x) for x in "ab"]


@pytest.mark.parametrize("family", CAUSAL + ENCODERS)
def test_the_dense_shape_is_built_from_the_configuration_alone(family: str, tmp_path: Path) -> None:
    found = Pretrained.check(model_folder(tmp_path, family), [family])
    assert str(tmp_path) not in found.config
    loaded, shape = found.model(), built(found.config)
    shape.load_state_dict(loaded.state_dict())
    tied = [len({id(p) for _, p in m.named_parameters(remove_duplicate=False)}) for m in (loaded, shape)]
    assert tied[0] == tied[1]
    tokens = torch.arange(3, 15).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(loaded(input_ids=tokens)[0], shape(input_ids=tokens)[0])
    assert identity_of(loaded) == identity_of(Pretrained.check(tmp_path, [family]).model())


def test_a_model_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    folders = [model_folder(tmp_path / name, "llama") for name in ("here", "there")]
    first, second = (identity_of(Pretrained.check(folder, CAUSAL).model()) for folder in folders)
    assert first == second


def test_building_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    built(config_text("llama", language_models.CAUSAL["llama"]))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gpt2_in_linear_layers_is_gpt2() -> None:
    ours = TINY["gpt2"]().model
    with torch.random.fork_rng(devices=[]):
        theirs = transformers.AutoModelForCausalLM.from_config(ours.config).eval()
    weights = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for name, layer in theirs.named_modules():
        if isinstance(layer, Conv1D):
            weights[f"{name}.weight"] = weights[f"{name}.weight"].T
            assert isinstance(ours.get_submodule(name), nn.Linear)
    theirs.load_state_dict(weights)
    tokens = torch.arange(3, 19).unsqueeze(0)
    with torch.inference_mode():
        torch.testing.assert_close(ours(input_ids=tokens).logits, theirs(input_ids=tokens).logits)
    assert ours.lm_head.weight is ours.transformer.wte.weight


def test_another_architecture_is_an_error(tmp_path: Path) -> None:
    folder = edited(model_folder(tmp_path, "llama"), model_type="mamba")
    with pytest.raises(
        ValueError, match=r"architecture 'mamba', which isn't supported here; these are: llama, .*gpt2$"
    ):
        Pretrained.check(folder, CAUSAL)
    folder = edited(folder, model_type="bert")
    with pytest.raises(ValueError, match=r"architecture 'bert'.*; task=hf_encoder takes it$"):
        Pretrained.check(folder, CAUSAL)
    with pytest.raises(ValueError, match="the architecture 'mamba'"):
        built('{"model_type": "mamba"}')


def test_code_in_the_folder_never_runs(tmp_path: Path) -> None:
    folder = edited(model_folder(tmp_path, "llama"), auto_map={"AutoModelForCausalLM": "evil.Evil"})
    (folder / "evil.py").write_text("raise SystemExit('run')")
    assert type(Pretrained.check(folder, CAUSAL).model()) is transformers.LlamaForCausalLM


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "llama")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights as safetensors, and no others are read"):
        Pretrained.check(folder, CAUSAL).model()


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = edited(model_folder(tmp_path, "llama"), num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"9 of.*e.g. model.layers.3"):
        Pretrained.check(folder, CAUSAL).model()
    with pytest.raises(ValueError, match="damaged or another model's"):
        Pretrained.check(edited(folder, num_hidden_layers=3, intermediate_size=50), CAUSAL).model()


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "llama")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged or another model's"):
        Pretrained.check(folder, CAUSAL).model()


def test_a_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "llama")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer .* with tokenizer.save_pretrained"):
        Pretrained.check(folder, CAUSAL)


def test_another_models_tokenizer_is_an_error(tmp_path: Path) -> None:
    found = Pretrained.check(model_folder(tmp_path, "llama", vocab_size=100), CAUSAL)
    found.check_tokens(99)
    with pytest.raises(ValueError, match="gives the token 100, but its model knows 100 tokens"):
        found.check_tokens(100)


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config.json"):
        Pretrained.check(tmp_path, CAUSAL)


def test_quantised_weights_are_an_error(tmp_path: Path) -> None:
    folder = edited(model_folder(tmp_path, "llama"), quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match="quantised"):
        Pretrained.check(folder, CAUSAL)


def test_a_model_too_big_for_the_memory_is_an_error_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path, "llama")
    parameters = sum(parameter.numel() for parameter in Pretrained.check(folder, CAUSAL).model().parameters())
    exact = 16 * parameters / 1e9
    Pretrained.check(folder, CAUSAL, placement=Placement(memory_gb=exact))
    half = Placement(dtype="bfloat16", memory_gb=exact / 2)
    Pretrained.check(folder, CAUSAL, placement=half)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MemoryError, match=r"4 bytes \(float32\).*about.*GB \(4.*weights\).*task.dtype=bf"):
        Pretrained.check(folder, CAUSAL, placement=Placement(memory_gb=exact * 0.99))
    with pytest.raises(MemoryError, match=r"of 2 bytes \(bfloat16\)"):
        Pretrained.check(folder, CAUSAL, placement=replace(half, memory_gb=exact * 0.49))
    with pytest.raises(MemoryError, match=r"task\.memory_gb=1 or more") as refused:
        Pretrained.check(folder, CAUSAL, placement=Placement(memory_gb=exact / 2))
    assert sentence_of(refused.value).startswith("the model in ")
    Pretrained.check(folder, CAUSAL, placement=Placement(memory_gb=1))  # as it says
    huge = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    edited(folder, num_key_value_heads=8, head_dim=128, **huge)
    with pytest.raises(MemoryError, match=r"needs about 1,[01]\d\d.*cpu has .*task\.memory_gb=1[01]\d\d or more"):
        Pretrained.check(folder, CAUSAL)  # 70 billion parameters, without 280 GB of them
    monkeypatch.setattr(placement, "memory_of", lambda _: 600 * 10**9)
    Pretrained.check(folder, CAUSAL, placement=Placement(dtype="bfloat16"))  # 552 GB
    with pytest.raises(MemoryError, match=r"cpu has 600\.0 GB"):
        Pretrained.check(folder, CAUSAL)


@pytest.mark.parametrize(("family", "longest"), [("llama", 32), ("gpt2", 32), ("roberta", 31), ("bert", 32)])
def test_samples_have_to_fit_the_models_positions(family: str, longest: int, tmp_path: Path) -> None:
    found = Pretrained.check(model_folder(tmp_path, family), [family])
    found.check_length(longest)
    with torch.inference_mode():
        found.model()(input_ids=torch.full((1, longest), 5))
    with pytest.raises(ValueError, match=rf"{longest + 1} tokens.*the {longest}.*tokens: {longest}"):
        found.check_length(longest + 1)


def test_nothing_is_printed_and_settings_are_restored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as reports

    model_folder(tmp_path, "bert")
    before = reports.is_progress_bar_enabled(), reports.get_verbosity()
    capfd.readouterr()
    Pretrained.check(tmp_path, ENCODERS).model()
    assert capfd.readouterr() == ("", "")
    assert (reports.is_progress_bar_enabled(), reports.get_verbosity()) == before


def test_without_transformers_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        "from autoprune.task.pretrained import built\n"
        "try: built('{}')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert "pip install 'autoprune[llm]'" in run_python(program).stdout
