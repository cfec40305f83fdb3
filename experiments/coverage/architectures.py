"""Small architectures of many kinds, with an input for each: what people bring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.coverage.blocks import (
    Attention,
    Branches,
    ConvNeXt,
    CrossStage,
    Dense,
    Encoder,
    Experts,
    FrozenBatchNorm2d,
    Ghost,
    Llama,
    MaskedLinear,
    NonLocal,
    Residual,
    SelectiveKernel,
    Shuffle,
    ShuffledGroups,
    SpatialGate,
    SqueezeExcite,
    StandardConv,
    UpdatedLinear,
    cbr,
    head,
)
from experiments.coverage.models import (
    Aspp,
    Auxiliary,
    Cells,
    Crnn,
    Decoder,
    Diffusion,
    Fourier,
    GraphConv,
    Interactions,
    Mixer,
    Multimodal,
    OwnParameters,
    PointNet,
    Pyramid,
    S,
    Siamese,
    SplitSizes,
    Swin,
    Tagger,
    Tied,
    TorchEncoder,
    Translator,
    UNet,
    Views,
    ViT,
    WaveNet,
    bottleneck,
    inverted,
    mha,
    upsampled,
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a network is built, and what it is called with."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]


def image(size: int = 16, channels: int = 3) -> Callable[[], Tensor]:
    return lambda: torch.randn(1, channels, size, size)


def tokens(length: int = 12) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, 50, (1, length))


OWN: Mapping[str, Architecture] = {
    "lenet": Architecture(
        lambda: S(
            nn.Conv2d(3, 6, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(216, 24),
            nn.Tanh(),
            nn.Linear(24, 4),
        ),
        image(),
    ),
    "vgg": Architecture(
        lambda: S(
            cbr(3, 12),
            cbr(12, 12),
            nn.MaxPool2d(2),
            cbr(12, 16),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 24),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(24, 4),
        ),
        image(),
    ),
    "resnet": Architecture(
        lambda: S(
            cbr(3, 12),
            Residual(S(cbr(12, 12), nn.Conv2d(12, 12, 3, padding=1))),
            nn.ReLU(),
            bottleneck(12, 8, 20),
            head(20),
        ),
        image(),
    ),
    "preactivation resnet": Architecture(
        lambda: S(
            nn.Conv2d(3, 12, 3, padding=1),
            Residual(S(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1))),
            nn.BatchNorm2d(12),
            head(12),
        ),
        image(),
    ),
    "resnext": Architecture(
        lambda: S(cbr(3, 16), bottleneck(16, 16, 24, groups=4), bottleneck(24, 24, 24, groups=4), head(24)), image()
    ),
    "se-resnet": Architecture(lambda: S(cbr(3, 16), bottleneck(16, 8, 16, extra=SqueezeExcite), head(16)), image()),
    "cbam": Architecture(lambda: S(cbr(3, 16), SqueezeExcite(16), SpatialGate(), cbr(16, 12), head(12)), image()),
    "sknet": Architecture(lambda: S(cbr(3, 12), SelectiveKernel(12), cbr(12, 12), head(12)), image()),
    "nonlocal": Architecture(lambda: S(cbr(3, 16), NonLocal(16), cbr(16, 12), head(12)), image()),
    "densenet": Architecture(
        lambda: S(
            cbr(3, 12),
            Dense(12, 8),
            Dense(20, 8),
            nn.BatchNorm2d(28),
            nn.ReLU(),
            nn.Conv2d(28, 14, 1),
            nn.AvgPool2d(2),
            Dense(14, 8),
            head(22),
        ),
        image(),
    ),
    "mobilenet v1": Architecture(
        lambda: S(cbr(3, 12), cbr(12, 12, groups=12), cbr(12, 20, 1), cbr(20, 20, groups=20), cbr(20, 24, 1), head(24)),
        image(),
    ),
    "mobilenet v2": Architecture(
        lambda: S(cbr(3, 12), inverted(12, 12), inverted(12, 16), inverted(16, 16), head(16)), image()
    ),
    "mobilenet v3": Architecture(
        lambda: S(cbr(3, 12), inverted(12, 12, se=True), inverted(12, 16, se=True), head(16)), image()
    ),
    "channel multiplier": Architecture(
        lambda: S(cbr(3, 8), nn.Conv2d(8, 16, 3, groups=8), nn.ReLU(), cbr(16, 12, 1), head(12)), image()
    ),
    "shufflenet v1": Architecture(
        lambda: S(cbr(3, 24), ShuffledGroups(24, 3), ShuffledGroups(24, 3), head(24)), image()
    ),
    "shufflenet v2": Architecture(lambda: S(cbr(3, 16), Shuffle(16), Shuffle(16), head(16)), image()),
    "ghostnet": Architecture(lambda: S(cbr(3, 12), Ghost(12, 16), Ghost(16, 24), head(24)), image()),
    "squeezenet": Architecture(
        lambda: S(
            cbr(3, 16),
            cbr(16, 8, 1),
            Branches(cbr(8, 12, 1), cbr(8, 12)),
            cbr(24, 8, 1),
            Branches(cbr(8, 12, 1), cbr(8, 12)),
            head(24),
        ),
        image(),
    ),
    "inception": Architecture(
        lambda: S(
            cbr(3, 16),
            Branches(cbr(16, 8, 1), S(cbr(16, 8, 1), cbr(8, 12)), S(nn.MaxPool2d(3, 1, 1), cbr(16, 6, 1))),
            cbr(26, 16),
            head(16),
        ),
        image(),
    ),
    "nested concatenation": Architecture(
        lambda: S(cbr(3, 8), Branches(Branches(cbr(8, 6), Dense(8, 4)), cbr(8, 6)), cbr(24, 12), head(12)), image()
    ),
    "csp": Architecture(lambda: S(cbr(3, 12), CrossStage(12, 16), CrossStage(16, 16), head(16)), image()),
    "convnext": Architecture(lambda: S(nn.Conv2d(3, 12, 2, stride=2), ConvNeXt(12), ConvNeXt(12), head(12)), image()),
    "weight standardisation": Architecture(
        lambda: S(StandardConv(3, 12, 3), nn.ReLU(), StandardConv(12, 16, 3), nn.ReLU(), cbr(16, 12), head(12)), image()
    ),
    "frozen batchnorm": Architecture(
        lambda: S(
            nn.Conv2d(3, 12, 3),
            FrozenBatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3),
            FrozenBatchNorm2d(16),
            nn.ReLU(),
            head(16),
        ),
        image(),
    ),
    "auxiliary head": Architecture(Auxiliary, image()),
    "pyramid": Architecture(Pyramid, image()),
    "aspp": Architecture(Aspp, image()),
    "unet": Architecture(lambda: UNet(nn.BatchNorm2d, upsampled), image()),
    "unet, transposed": Architecture(
        lambda: UNet(nn.BatchNorm2d, lambda a, b: nn.ConvTranspose2d(a, b, 2, stride=2)), image()
    ),
    "unet, groupnorm": Architecture(lambda: UNet(lambda c: nn.GroupNorm(4, c), upsampled), image()),
    "unet, instancenorm": Architecture(lambda: UNet(lambda c: nn.InstanceNorm2d(c, affine=True), upsampled), image()),
    "diffusion": Architecture(Diffusion, lambda: (torch.randn(1, 3, 8, 8), torch.randn(1, 8))),
    "super-resolution": Architecture(
        lambda: S(
            nn.Conv2d(3, 12, 3, padding=1),
            Residual(S(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1))),
            nn.Conv2d(12, 48, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(12, 3, 3, padding=1),
        ),
        image(),
    ),
    "generator": Architecture(
        lambda: S(
            nn.Linear(10, 64),
            nn.ReLU(),
            nn.Unflatten(1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 12, 4, 2, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 3, 4, 2, 1),
            nn.Tanh(),
        ),
        lambda: torch.randn(1, 10),
    ),
    "siamese": Architecture(Siamese, lambda: (torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16))),
    "multimodal": Architecture(
        Multimodal,
        lambda: {"image": torch.randn(1, 3, 8, 8), "table": torch.randn(1, 5), "text": torch.randint(0, 50, (1, 6))},
    ),
    "interactions": Architecture(Interactions, lambda: (torch.randint(0, 50, (1, 2)), torch.randn(1, 4))),
    "graph convolution": Architecture(GraphConv, lambda: (torch.randn(1, 7, 5), torch.rand(1, 7, 7))),
    "tied autoencoder": Architecture(Tied, lambda: torch.randn(1, 12)),
    "mlp": Architecture(
        lambda: S(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.PReLU(24), nn.Linear(24, 4)),
        lambda: torch.randn(1, 12),
    ),
    "masked weights": Architecture(
        lambda: S(MaskedLinear(12, 20), nn.ReLU(), MaskedLinear(20, 16), nn.ReLU(), MaskedLinear(16, 4)),
        lambda: torch.randn(1, 12),
    ),
    "low-rank updates": Architecture(
        lambda: S(UpdatedLinear(12, 20), nn.ReLU(), UpdatedLinear(20, 16), nn.ReLU(), UpdatedLinear(16, 4)),
        lambda: torch.randn(1, 12),
    ),
    "decoder of images": Architecture(
        lambda: S(
            *(nn.Linear(6, 384), nn.ReLU(), nn.Unflatten(1, (24, 4, 4))),
            *(nn.ConvTranspose2d(24, 12, 2, 2), nn.ReLU(), nn.Conv2d(12, 3, 1)),
        ),
        lambda: torch.randn(1, 6),
    ),
    "gated mlp": Architecture(
        lambda: S(nn.Linear(12, 32), nn.GLU(), nn.Linear(16, 32), nn.GLU(), nn.Linear(16, 4)),
        lambda: torch.randn(1, 12),
    ),
    "written-out view": Architecture(Views, image()),
    "crnn": Architecture(Crnn, image(8, 1)),
    "lstm tagger": Architecture(Tagger, tokens()),
    "gru tagger": Architecture(lambda: Tagger(nn.GRU), tokens()),
    "gru cells": Architecture(Cells, lambda: torch.randn(1, 5, 6)),
    "tcn": Architecture(
        lambda: S(
            nn.Conv1d(4, 16, 3, padding=1),
            nn.ReLU(),
            Residual(S(nn.Conv1d(16, 16, 3, padding=2, dilation=2), nn.ReLU())),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        ),
        lambda: torch.randn(1, 4, 20),
    ),
    "wavenet": Architecture(WaveNet, lambda: torch.randn(1, 1, 20)),
    "video": Architecture(
        lambda: S(
            nn.Conv3d(3, 12, 3, padding=1),
            nn.BatchNorm3d(12),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(12, 16, (1, 3, 3)),
            nn.ReLU(),
            nn.Conv3d(16, 12, (3, 1, 1), padding=(1, 0, 0)),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        ),
        lambda: torch.randn(1, 3, 4, 12, 12),
    ),
    "volume transposed": Architecture(
        lambda: S(
            nn.Conv3d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose3d(8, 6, 2, stride=2),
            nn.ReLU(),
            nn.Conv3d(6, 1, 1),
        ),
        lambda: torch.randn(1, 1, 4, 4, 4),
    ),
    "vocoder": Architecture(
        lambda: S(
            nn.Conv1d(8, 16, 3, padding=1),
            nn.LeakyReLU(),
            nn.ConvTranspose1d(16, 12, 4, 2, 1),
            nn.LeakyReLU(),
            nn.Conv1d(12, 1, 3, padding=1),
            nn.Tanh(),
        ),
        lambda: torch.randn(1, 8, 12),
    ),
    "pointnet": Architecture(PointNet, lambda: torch.randn(1, 3, 20)),
    "mixer": Architecture(Mixer, image()),
    "fourier mixing": Architecture(Fourier, lambda: torch.randn(1, 8, 6)),
    "vit": Architecture(lambda: ViT(Encoder(32, 4), Encoder(32, 4)), image()),
    "vit, layerscale": Architecture(
        lambda: ViT(Encoder(32, 4, scale=1e-5), Encoder(32, 4, scale=1e-5), outputs=2), image()
    ),
    "vit, multiheadattention": Architecture(lambda: ViT(mha(32, 4), mha(32, 4)), image()),
    "swin": Architecture(Swin, image()),
    "torch encoder": Architecture(lambda: TorchEncoder(True), lambda: torch.randn(1, 7, 6)),
    "torch encoder, samples second": Architecture(lambda: TorchEncoder(False), lambda: torch.randn(1, 7, 6)),
    "translator": Architecture(Translator, lambda: (torch.randint(0, 50, (1, 6)), torch.randint(0, 50, (1, 5)))),
    "decoder": Architecture(lambda: Decoder(Llama(32, 4, 2), Llama(32, 4, 2)), tokens()),
    "decoder with experts": Architecture(lambda: Decoder(Llama(32, 4, 4), Experts(32, 3)), tokens()),
    "list of split sizes": Architecture(SplitSizes, image()),
    "parameters of one's own": Architecture(OwnParameters, tokens()),
    "attention without norm": Architecture(
        lambda: S(nn.Linear(6, 24), Residual(Attention(24, 3)), nn.Linear(24, 4)), lambda: torch.randn(1, 5, 6)
    ),
}
