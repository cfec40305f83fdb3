"""The shipped architectures: plain `nn.Module`s, trained by `scripts/train_zoo`.

Each is a function of numbers and strings only, so that an exported network can be rebuilt from JSON.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resnet20(*, width: int = 16, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """A CIFAR-style ResNet-20 (He et al., arXiv 1512.03385) with projection shortcuts: every stream can be pruned.

    Args:
        width: Channels of the first stage.
        in_channels: Channels of the images.
        classes: Classes, at least 2.
    """
    return Stages(BasicBlock, width=width, in_channels=in_channels, classes=classes)


def plain20(*, width: int = 16, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """ResNet-20 without its skip connections: every convolution is a group of its own.

    Args:
        width: Channels of the first stage.
        in_channels: Channels of the images.
        classes: Classes, at least 2.
    """
    return Stages(PlainBlock, width=width, in_channels=in_channels, classes=classes)


def mobilenet_v1(*, width_multiplier: float = 0.5, in_channels: int = 1, classes: int = 10) -> nn.Module:
    """MobileNetV1 (Howard et al., arXiv 1704.04861) with a stride-1 stem, for small images.

    Args:
        width_multiplier: What all widths are multiplied by.
        in_channels: Channels of the images.
        classes: Classes, at least 2.
    """
    return MobileNetV1(width_multiplier=width_multiplier, in_channels=in_channels, classes=classes)


def digits_net(*, width: int = 16, classes: int = 10) -> nn.Module:
    """A tiny network for 8×8 images with one of each coupling: residual, depthwise, concatenated, flattened.

    Args:
        width: Channels of the first stage.
        classes: Classes, at least 2.
    """
    return DigitsNet(width=width, classes=classes)


class PlainBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)))


class BasicBlock(PlainBlock):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Stages(nn.Module):
    """Stem, three stages of three blocks (width, 2×, 4×), global average pool, classifier."""

    def __init__(self, block: type[PlainBlock], *, width: int, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(*(block(width, width, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(block(width, 2 * width, 2), *(block(2 * width, 2 * width, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(block(2 * width, 4 * width, 2), *(block(4 * width, 4 * width, 1) for _ in range(2)))
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class SeparableBlock(nn.Module):
    """Depthwise 3×3 then pointwise 1×1, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class MobileNetV1(nn.Module):
    def __init__(self, *, width_multiplier: float, in_channels: int, classes: int) -> None:
        super().__init__()
        widths = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        widths += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
        inputs = int(32 * width_multiplier)
        self.conv1 = nn.Conv2d(in_channels, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        blocks = []
        for base, stride in widths:
            outputs = int(base * width_multiplier)
            blocks.append(SeparableBlock(inputs, outputs, stride))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class DigitsNet(nn.Module):
    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.block = BasicBlock(width, width, 1)
        self.separable = SeparableBlock(width, 2 * width, 2)
        self.branch = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.merge = nn.Conv2d(3 * width, 2 * width, 1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.hidden = nn.Linear(2 * width * 4, 2 * width)
        self.output = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.bn1(self.conv1(x))))
        x = torch.cat([self.separable(x), F.relu(self.branch(x))], dim=1)
        x = F.max_pool2d(F.relu(self.bn2(self.merge(x))), 2)
        return self.output(F.relu(self.hidden(torch.flatten(x, 1))))  # type: ignore[no-any-return]
