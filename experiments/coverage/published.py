"""Published architectures at toy sizes, from transformers' configurations."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import nn

from experiments.coverage.architectures import Architecture, image, tokens

TEXT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PICTURE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
STAGES: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}


def of(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        made = getattr(transformers, config)(**settings)
        network: nn.Module = getattr(transformers, model)(made)
        return network

    return build


def text(model: str, config: str, **settings: Any) -> Architecture:
    return Architecture(of(model, config, **{**TEXT, **settings}), tokens(10))


def picture(model: str, config: str, size: int = 32, **settings: Any) -> Architecture:
    return Architecture(of(model, config, **settings), image(size))


WHISPER = of(
    "WhisperModel", "WhisperConfig", vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=1,
    encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
    max_source_positions=20, num_mel_bins=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip

PUBLISHED: Mapping[str, Architecture] = {
    "ResNet": picture("ResNetForImageClassification", "ResNetConfig", **STAGES),
    "RegNet": picture("RegNetForImageClassification", "RegNetConfig", **STAGES, groups_width=8),
    "ConvNeXt V2": picture(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]
    ),
    "MobileNetV2": picture("MobileNetV2ForImageClassification", "MobileNetV2Config", 64, depth_multiplier=0.35),
    "EfficientNet": picture(
        "EfficientNetForImageClassification",
        "EfficientNetConfig",
        64,
        width_coefficient=0.25,
        depth_coefficient=0.3,
        hidden_dim=320,
    ),
    "BiT": picture(
        "BitForImageClassification",
        "BitConfig",
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 1, 1],
        num_groups=4,
    ),
    "PoolFormer": picture(
        "PoolFormerForImageClassification", "PoolFormerConfig", 64, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]
    ),
    "ViT": picture("ViTForImageClassification", "ViTConfig", **PICTURE),
    "DeiT": picture("DeiTForImageClassificationWithTeacher", "DeiTConfig", **PICTURE),
    "DINOv2": picture(
        "Dinov2ForImageClassification", "Dinov2Config", **{k: v for k, v in PICTURE.items() if k != "intermediate_size"}
    ),
    "BEiT": picture(
        "BeitForImageClassification",
        "BeitConfig",
        **PICTURE,
        use_relative_position_bias=True,
        layer_scale_init_value=0.1,
    ),
    "Swin": picture(
        "SwinForImageClassification",
        "SwinConfig",
        64,
        image_size=64,
        embed_dim=16,
        depths=[1, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "Swin V2": picture(
        "Swinv2ForImageClassification",
        "Swinv2Config",
        64,
        image_size=64,
        embed_dim=16,
        depths=[1, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "SegFormer": picture(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        64,
        num_encoder_blocks=4,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
    ),
    "MobileViT": picture(
        "MobileViTForImageClassification",
        "MobileViTConfig",
        64,
        image_size=64,
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 12, 16, 24, 32, 40, 80],
    ),
    "PVT": picture(
        "PvtForImageClassification",
        "PvtConfig",
        64,
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
    ),
    "LeViT": picture(
        "LevitForImageClassification",
        "LevitConfig",
        64,
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "CLIP vision": picture("CLIPVisionModelWithProjection", "CLIPVisionConfig", **PICTURE, projection_dim=16),
    "OPT": text("OPTForCausalLM", "OPTConfig", ffn_dim=48, word_embed_proj_dim=32),
    "BLOOM": text("BloomForCausalLM", "BloomConfig", n_layer=2, n_head=4),
    "GPT-NeoX": text("GPTNeoXForCausalLM", "GPTNeoXConfig"),
    "Gemma 2": text("Gemma2ForCausalLM", "Gemma2Config", num_key_value_heads=2, head_dim=8),
    "Phi-3": text("Phi3ForCausalLM", "Phi3Config", num_key_value_heads=2),
    "Falcon": text("FalconForCausalLM", "FalconConfig", num_kv_heads=4, ffn_hidden_size=48),
    "StarCoder2": text("Starcoder2ForCausalLM", "Starcoder2Config", num_key_value_heads=2),
    "OLMo 2": text("Olmo2ForCausalLM", "Olmo2Config", num_key_value_heads=4),
    "Mixtral": text("MixtralForCausalLM", "MixtralConfig", num_key_value_heads=2, num_local_experts=3),
    "ALBERT": text("AlbertForSequenceClassification", "AlbertConfig", embedding_size=16),
    "ELECTRA": text("ElectraForSequenceClassification", "ElectraConfig", embedding_size=16),
    "MPNet": text("MPNetForSequenceClassification", "MPNetConfig"),
    "DeBERTa V2": text(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", relative_attention=True, pos_att_type=["c2p", "p2c"]
    ),
    "ModernBERT": text("ModernBertForSequenceClassification", "ModernBertConfig", cls_token_id=1, sep_token_id=2),
    "T5 encoder": Architecture(
        of("T5EncoderModel", "T5Config", vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
        tokens(10),
    ),
    "T5": Architecture(
        of(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=99,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        ),
        lambda: {"input_ids": torch.randint(3, 99, (1, 8)), "decoder_input_ids": torch.randint(3, 99, (1, 6))},
    ),
    "Whisper encoder": Architecture(lambda: WHISPER().get_submodule("encoder"), lambda: torch.randn(1, 8, 40)),
    "wav2vec 2": Architecture(
        of(
            "Wav2Vec2ForCTC",
            "Wav2Vec2Config",
            vocab_size=32,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            pad_token_id=0,
        ),
        lambda: torch.randn(1, 600),
    ),
    "Mamba": Architecture(
        of(
            "MambaForCausalLM",
            "MambaConfig",
            vocab_size=99,
            hidden_size=32,
            state_size=8,
            num_hidden_layers=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        tokens(10),
    ),
}
