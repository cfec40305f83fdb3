"""Hugging Face models as tasks: SmolLM2 and MiniLM as packages bring them, and any supported one by name or folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from autoprune.ranges import Count, DeviceName, Positive
from autoprune.task.folders import folder_of, minilm_folder, smollm2_folder
from autoprune.task.language import AnswerForward, CausalForward, EncoderForward, embeddings, token_accuracy, token_loss
from autoprune.task.language_measures import EncoderMeasures, LanguageMeasures
from autoprune.task.pairs import pair_data
from autoprune.task.placement import Dtype, Placement
from autoprune.task.pretrained import CAUSAL, ENCODERS, Pretrained, built
from autoprune.task.roles import on_device
from autoprune.task.samples import leaves, rows
from autoprune.task.task import Architecture, Task
from autoprune.task.text import Sizes, Sources, TextOrTexts, causal_data

SUPPORTED = CAUSAL + ENCODERS  # values of `model_type`
CAUSAL_SIZES = Sizes(tokens=128, train=512, calibration=64, search=96, test=64, held_out=32)
ENCODER_SIZES = Sizes(tokens=48, train=256, calibration=64, search=256, test=256, held_out=32)
PRUNE = ("heads", "neurons")
PROMPTS = ("The lighthouse keeper had not spoken to anyone for", "The best way to learn a new language is")
NEW_TOKENS = 40  # that a report shows of each prompt's continuation
BATCH = 128  # samples that are embedded at a time

TextsOfRoles = Mapping[str, TextOrTexts]


def smollm2(
    *,
    sources: TextsOfRoles | None = None,
    sizes: Mapping[str, int] | None = None,
    positions: Count = 32,
    device: DeviceName | None = None,
    dtype: Dtype | None = None,
    memory_gb: Positive | None = None,
) -> Task:
    """SmolLM2-135M-Instruct (Llama: 30 blocks, 9 query and 3 key-value heads), judged on next tokens.

    Args:
        sources: What differs from `Sources.offline()` and CAUSAL_SIZES.
        sizes: What differs from `Sources.offline()` and CAUSAL_SIZES.
        positions: Of each window, that are judged.
        device: What networks compute on: cpu, cuda, or cuda:N; None: cpu.
        dtype: Of the weights, float32 or bfloat16; None: float32.
        memory_gb: 10⁹ bytes that a search may need; None: what the device has.

    Raises:
        ModuleNotFoundError: The package with its weights isn't installed.
    """
    placement = Placement(device, dtype, memory_gb)
    return _causal("smollm2", smollm2_folder(), placement, sources=sources, sizes=sizes, positions=positions)


def minilm(
    *,
    sources: TextsOfRoles | None = None,
    sizes: Mapping[str, int] | None = None,
    device: DeviceName | None = None,
    dtype: Dtype | None = None,
    memory_gb: Positive | None = None,
) -> Task:
    """all-MiniLM-L6-v2 (BERT: 6 blocks, 12 heads), judged on finding passages by their other halves.

    Args:
        sources: What differs from `Sources.offline()` and ENCODER_SIZES.
        sizes: What differs from `Sources.offline()` and ENCODER_SIZES.
        device: What networks compute on: cpu, cuda, or cuda:N; None: cpu.
        dtype: Of the weights, float32 or bfloat16; None: float32.
        memory_gb: 10⁹ bytes that a search may need; None: what the device has.

    Raises:
        ModuleNotFoundError: The package with its weights isn't installed.
    """
    placement = Placement(device, dtype, memory_gb)
    return _encoder("minilm", minilm_folder(), placement, sources=sources, sizes=sizes)


def hf_causal_lm(
    *,
    model: str | None,
    sources: TextsOfRoles | None = None,
    sizes: Mapping[str, int] | None = None,
    positions: Count = 32,
    device: DeviceName | None = None,
    dtype: Dtype | None = None,
    memory_gb: Positive | None = None,
) -> Task:
    """A causal language model by its folder or its name on the Hugging Face hub; the rest as for `smollm2`.

    Args:
        model: A folder, or a name on the Hugging Face Hub.
        sources: Texts that differ from the default ones; None: none.
        sizes: Sizes that differ from the default ones; None: none.
        positions: Of each window, that are judged.
        device: What networks compute on: cpu, cuda, or cuda:N; None: cpu.
        dtype: Of the weights, float32 or bfloat16; None: float32.
        memory_gb: 10⁹ bytes that a search may need; None: what the device has.
    """
    placement = Placement(device, dtype, memory_gb)
    name, folder = _fetched(model, CAUSAL, placement)
    return _causal(name, folder, placement, sources=sources, sizes=sizes, positions=positions)


def hf_encoder(
    *,
    model: str | None,
    sources: TextsOfRoles | None = None,
    sizes: Mapping[str, int] | None = None,
    device: DeviceName | None = None,
    dtype: Dtype | None = None,
    memory_gb: Positive | None = None,
) -> Task:
    """An encoder by its folder or its name on the Hugging Face hub; the rest as for `minilm`.

    Args:
        model: A folder, or a name on the Hugging Face Hub.
        sources: Texts that differ from the default ones; None: none.
        sizes: Sizes that differ from the default ones; None: none.
        device: What networks compute on: cpu, cuda, or cuda:N; None: cpu.
        dtype: Of the weights, float32 or bfloat16; None: float32.
        memory_gb: 10⁹ bytes that a search may need; None: what the device has.
    """
    placement = Placement(device, dtype, memory_gb)
    name, folder = _fetched(model, ENCODERS, placement)
    return _encoder(name, folder, placement, sources=sources, sizes=sizes)


def causal_lm(config: str) -> nn.Module:
    """A causal language model with random weights from its configuration as JSON text: no download, no remote code."""
    return built(config)


def encoder(config: str) -> nn.Module:
    """An encoder without a pooling layer, with random weights, from its configuration as JSON text."""
    return built(config)


def _fetched(model: str | None, families: Sequence[str], placement: Placement) -> tuple[str, Path]:
    """The model's name, and the folder of its weights, which are fetched when the rest was found to be in order."""
    if not model:
        raise ValueError("this task is of any model: say of which by task.model=FOLDER or its name on the hub")
    Pretrained.check(folder_of(model, weights=False), families, placement=placement)
    folder = folder_of(model, weights=True)
    return (folder.resolve().name if Path(model).is_dir() else Path(model).name), folder


def _causal(
    name: str,
    folder: Path,
    placement: Placement,
    *,
    sources: TextsOfRoles | None,
    sizes: Mapping[str, int] | None,
    positions: int,
) -> Task:
    chosen, pretrained = CAUSAL_SIZES.changed(sizes), Pretrained.check(folder, CAUSAL, placement=placement)
    pretrained.check_length(chosen.tokens)
    texts = Sources.offline().changed(sources)
    data = causal_data(pretrained.tokenizer(), sources=texts, sizes=chosen, positions=positions)
    pretrained.check_tokens(max(int(leaves(role.inputs)[0].max()) for _, role in data.roles.items()))
    roles = on_device(data.roles, placement.torch_device)
    return Task(
        pretrained.model(),
        rows(roles.train.inputs, slice(0, 1)),
        roles,
        metric=token_accuracy,
        name=name,
        loss=token_loss,
        budget="params:0.75",
        architecture=Architecture("autoprune.task.huggingface.causal_lm", {"config": pretrained.config}),
        forward=AnswerForward() if data.positions is None else CausalForward(data.positions),
        kind="language",
        block=1,
        prune=PRUNE,
        measure=LanguageMeasures(folder, data.held_out, PROMPTS, NEW_TOKENS, judged=data.judged),
        tokenizer=folder,
        recovery_steps=0,
        onnx=False,
        dtype=placement.precision,
    )


def _encoder(
    name: str,
    folder: Path,
    placement: Placement,
    *,
    sources: TextsOfRoles | None,
    sizes: Mapping[str, int] | None,
) -> Task:
    chosen, pretrained = ENCODER_SIZES.changed(sizes), Pretrained.check(folder, ENCODERS, placement=placement)
    pretrained.check_length(chosen.tokens)
    data = pair_data(pretrained.tokenizer(), sources=Sources.offline().changed(sources), sizes=chosen)
    pretrained.check_tokens(max(int(role.inputs.max()) for _, role in data.roles.items()))
    model, device = pretrained.model(), placement.torch_device
    roles = on_device(data.roles, device)
    with torch.no_grad():
        bank = torch.cat([embeddings(model, batch.to(device), pad=data.pad) for batch in data.passages.split(BATCH)])
    forward = EncoderForward(bank, data.pad)
    held_out = [torch.cat([getattr(role, part) for role in data.held_out.values()]) for part in ("inputs", "targets")]
    return Task(
        model,
        roles.train.inputs[:1],
        roles,
        name=name,
        budget="params:0.85",
        architecture=Architecture("autoprune.task.huggingface.encoder", {"config": pretrained.config}),
        forward=forward,
        block=1,
        prune=PRUNE,
        measure=EncoderMeasures.of(model, forward, inputs=held_out[0], targets=held_out[1]),
        tokenizer=folder,
        recovery_steps=0,
        dtype=placement.precision,
    )
