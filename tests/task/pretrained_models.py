"""Folders of tiny pretrained language models, and tasks on them."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from autoprune.task.huggingface import hf_causal_lm, hf_encoder
from autoprune.task.pretrained import ENCODERS
from autoprune.task.task import Task
from tests import language_models
from tests.language_models import VOCABULARY

SIZES = {"tokens": 24, "train": 8, "calibration": 4, "search": 6, "test": 4, "held_out": 2}
TEXTS = {"search": "descriptions", "test": "descriptions", "held_out": ["topics", "descriptions"]}


def causal(folder: Path, family: str = "llama") -> Task:
    return hf_causal_lm(model=str(model_folder(folder, family)), sources=TEXTS, sizes=SIZES, positions=6)


def encoding(folder: Path, family: str = "bert") -> Task:
    sizes = {**SIZES, "tokens": 32}
    return hf_encoder(model=str(model_folder(folder, family)), sources=TEXTS, sizes=sizes)


def word_tokenizer(folder: Path) -> Path:
    """One token for each of the words w0, w1, …: text and tokens are each other's."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


LETTERS = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ("<pad>", "<s>", "</s>")


def model_folder(folder: Path, family: str, **changes: Any) -> Path:
    """A folder as transformers saves it: a tiny model of the family, and a tokenizer of bytes."""
    settings = (language_models.CAUSAL | language_models.ENCODERS)[family]
    settings = {**settings, "vocab_size": len(SPECIAL) + len(LETTERS), "pad_token_id": 0, **changes}
    config = transformers.AutoConfig.for_model(family, **settings)
    auto = transformers.AutoModel if family in ENCODERS else transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto.from_config(config).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *LETTERS))}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return folder


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder
