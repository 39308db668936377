"""Residual networks for small images (He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2015)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from stillhouse.contract.spec import Resnet
from stillhouse.models.residual import check_is_image, conv1x1, conv3x3, initialize


class ResnetNetwork(nn.Module):
    """Normalised images (N, channels, height, width) -> logits (N, num_classes)."""

    def __init__(self, architecture: Resnet, *, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        check_is_image("resnet", input_shape)
        stem = architecture.stem or architecture.channels[0]
        self.conv1 = conv3x3(input_shape[0], stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        widths = [stem, *architecture.channels]
        num_blocks = (architecture.depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = (
            _stage(*pair, num_blocks, stride=1 if number == 0 else 2) for number, pair in enumerate(pairwise(widths))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialize(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, height, width)."""
        features = self.relu(self.bn1(self.conv1(inputs)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


class ResnetBlock(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(width_in, width_out, stride)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width_out, width_out)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.downsample = (
            None if stride == 1 and width_in == width_out
            else nn.Sequential(conv1x1(width_in, width_out, stride), nn.BatchNorm2d(width_out))
        )
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (N, width_out, height / stride, width / stride) of (N, width_in, height, width)."""
        features = self.relu1(self.bn1(self.conv1(inputs)))
        features = self.bn2(self.conv2(features))
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        outputs: Tensor = self.relu2(features + shortcut)
        return outputs


def _stage(width_in: int, width_out: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    blocks = [ResnetBlock(width_in, width_out, stride)]
    blocks += [ResnetBlock(width_out, width_out, 1) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


def describe_resnet(architecture: Resnet, *, input_shape: Sequence[int], num_classes: int) -> str:
    """In short: `resnet20 1-16-16-32-64-10`: channels of the input, the stem and the stages, and the classes."""
    stem = architecture.stem or architecture.channels[0]
    widths = [input_shape[0], stem, *architecture.channels, num_classes]
    return f"resnet{architecture.depth} " + "-".join(str(width) for width in widths)
