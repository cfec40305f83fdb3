"""Trained Hugging Face models in folders: checked before anything long, then loaded."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn

from autoprune.task.placement import DTYPES, Placement
from autoprune.task.text import Tokenizer

CAUSAL = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "granite",
    "starcoder2", "mixtral", "qwen3_moe", "gpt2",
)  # fmt: skip
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # whose positions start behind the padding token's
ENCODERS = ("bert", *OFFSET_POSITIONS, "electra", "distilbert")
WITH_POOLER = ("bert", *OFFSET_POSITIONS)  # a layer behind the first token, which mean-pooled embeddings don't use

EAGER = ("gemma2",)  # whose scores are capped, which PyTorch's fused attention cannot do

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A folder with a supported model and its tokenizer, checked and not loaded.

    >>> pretrained = Pretrained.check(Path("SmolLM2-135M"), CAUSAL)
    >>> model, tokenizer = pretrained.model(), pretrained.tokenizer()
    """

    folder: Path
    """Where the files are."""
    family: str
    """Its `model_type`."""
    config: str
    """Its configuration as JSON text."""
    placement: Placement
    """Where, and in which precision, it will be loaded."""

    @classmethod
    def check(cls, folder: Path, families: Sequence[str], *, placement: Placement | None = None) -> "Pretrained":
        """What lies in the folder.

        Raises ValueError where it has no configuration, no tokenizer or another architecture, or the device is not
        there, and MemoryError where a search on its model needs more memory than that has.

        Args:
            folder: Where the files lie.
            families: Model types that are supported.
            placement: Where the model is loaded to, and in which precision; None: to the processor, in float32.
        """
        transformers = library()
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.json, so it is no folder of a Hugging Face model")
        settings = json.loads(path.read_text(encoding="utf-8"))
        family = str(settings.get("model_type"))
        _refuse_unsupported(family, families, folder)
        if settings.get("quantization_config"):
            raise ValueError(f"{folder} is a quantised model, whose weights can't be pruned; take the original one")
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise ValueError(
                f"{folder} has no tokenizer (one of {', '.join(TOKENIZER_FILES)}), without which no text can be read; "
                "save the model's own there with tokenizer.save_pretrained"
            )
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        pretrained = cls(folder, family, config.to_json_string(), placement or Placement())
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in built(pretrained.config).parameters())
        pretrained.placement.check_memory(parameters, f"the model in {folder}")
        return pretrained

    def model(self) -> nn.Module:
        """The trained model where it was placed, in eval mode. No code from the folder runs, and no pickle is read.

        Raises ValueError where weights are missing or damaged.
        """
        if not list(self.folder.glob("*.safetensors")):
            raise ValueError(f"{self.folder} has no weights as safetensors, and no others are read; save them as that")
        with quiet(), _said_of(self.folder):
            model, loading = _auto(self.family).from_pretrained(
                self.folder,
                dtype=DTYPES[self.placement.precision],
                attn_implementation=_attention(self.family),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **_options(self.family),
            )
        missing = [str(key) for key in (*sorted(loading["missing_keys"]), *loading["mismatched_keys"])]
        if missing:
            raise ValueError(
                f"the weights in {self.folder} lack {len(missing)} of its {self.family} model's, e.g. {missing[0]}"
            )
        for part in model.modules():
            if hasattr(part, "name_or_path"):
                part.name_or_path = ""  # where it lay on this machine is no part of what it is
        align_neurons(model)
        return linearised(model).eval().to(self.placement.torch_device)

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        transformers = library()
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=False, local_files_only=True
            )
        return cast(Tokenizer, tokenizer)

    def check_tokens(self, largest: int) -> None:
        """Raises ValueError where the tokenizer's largest token is none of the model's."""
        if largest >= self._number("vocab_size"):
            raise ValueError(
                f"the tokenizer in {self.folder} gives the token {largest}, but its model knows "
                f"{self._number('vocab_size')} tokens: they don't belong together"
            )

    def check_length(self, tokens: int) -> None:
        """Raises ValueError where samples of so many tokens are longer than the model can read."""
        longest = self._number("max_position_embeddings", "n_positions")
        if self.family in OFFSET_POSITIONS:
            longest -= self._number("pad_token_id") + 1
        if tokens > longest:
            raise ValueError(
                f"samples of {tokens} tokens are longer than the {longest} that the model in {self.folder} can read; "
                f"give e.g. task.sizes={{tokens: {longest}}}"
            )

    def _number(self, *names: str) -> int:
        settings = json.loads(self.config)
        return next(int(settings[name]) for name in names if name in settings)


def built(config: str) -> nn.Module:
    """A supported model with random weights from its configuration as JSON text: no download, no remote code."""
    transformers = library()
    settings: dict[str, Any] = json.loads(config)
    family = settings.pop("model_type", None)
    _refuse_unsupported(family, CAUSAL + ENCODERS, "the configuration")
    with torch.random.fork_rng(devices=[]):  # initial weights come from torch's global generator
        model = _auto(family).from_config(
            transformers.AutoConfig.for_model(family, **settings),
            dtype=torch.float32,
            attn_implementation=_attention(family),
            trust_remote_code=False,
            **_options(family),
        )
    return linearised(model).eval()


def linearised(model: nn.Module) -> nn.Module:
    """The model with GPT-2's `Conv1D` layers as the `nn.Linear` they are, weights transposed; outputs stay equal."""
    from transformers.pytorch_utils import Conv1D

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Conv1D):
            inputs, outputs = layer.weight.shape
            linear = nn.Linear(inputs, outputs, device="meta")
            linear.weight, linear.bias = nn.Parameter(layer.weight.detach().T.contiguous()), layer.bias
            model.set_submodule(name, linear)
    return model


@torch.no_grad()
def align_neurons(model: nn.Module) -> None:
    """The neurons of all experts stand in the order of their weights' norms, the largest first; outputs stay equal.

    Experts whose tensors are one lose the neurons of the same numbers, and which number a neuron has is chance.

    Args:
        model: A transformer; it is changed in place where it has such experts, as transformers keeps them.
    """
    for module in model.modules():
        if not getattr(module, "is_concatenated", False) or getattr(module, "is_transposed", True):
            continue
        inputs, output = module.get_parameter("gate_up_proj"), module.get_parameter("down_proj")
        both = inputs.unflatten(1, (2, -1))  # [experts, gates and what they multiply, neurons, hidden]
        order = (both.norm(dim=3).prod(dim=1) * output.norm(dim=1)).argsort(dim=1, descending=True, stable=True)
        inputs.copy_(both.gather(2, order[:, None, :, None].expand_as(both)).flatten(1, 2))
        output.copy_(output.gather(2, order[:, None].expand_as(output)))


def library() -> ModuleType:
    """Hugging Face's `transformers`, imported when it is needed: it is optional, and slow to import."""
    try:
        import transformers
    except ImportError as error:
        raise ModuleNotFoundError(
            "Hugging Face models need the extra `llm`: scripts/install llm, or pip install 'autoprune[llm]'"
        ) from error
    module: ModuleType = transformers
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports that transformers prints; what matters of them is checked."""
    from transformers.utils import logging as reports

    bars, verbosity = reports.is_progress_bar_enabled(), reports.get_verbosity()
    reports.disable_progress_bar()
    reports.set_verbosity_error()
    try:
        yield
    finally:
        reports.set_verbosity(verbosity)
        if bars:
            reports.enable_progress_bar()


@contextmanager
def _said_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"the weights in {folder} are damaged or another model's: {error}") from error


def _auto(family: str) -> Any:
    return library().AutoModel if family in ENCODERS else library().AutoModelForCausalLM


def _attention(family: str) -> str:
    return "eager" if family in EAGER else "sdpa"


def _options(family: str) -> dict[str, bool]:
    return {"add_pooling_layer": False} if family in WITH_POOLER else {}


def _refuse_unsupported(family: object, families: Sequence[str], where: object) -> None:
    if family in families:
        return
    tasks = {"hf_causal_lm": CAUSAL, "hf_encoder": ENCODERS}
    fitting = [f"; task={task} takes it" for task, families_of_task in tasks.items() if family in families_of_task]
    raise ValueError(
        f"{where} is of the architecture {family!r}, which isn't supported here; "
        f"these are: {', '.join(families)}{''.join(fitting)}"
    )
