"""Wide residual networks (Zagoruyko, Komodakis: Wide residual networks, 2016)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from stillhouse.contract.spec import Wrn
from stillhouse.models.residual import check_is_image, conv1x1, conv3x3, initialize

STEM = 16
STAGES = (16, 32, 64)  # times the widen factor


class WrnNetwork(nn.Module):
    """Normalised images (N, channels, height, width) -> logits (N, num_classes)."""

    def __init__(self, architecture: Wrn, *, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        check_is_image("wrn", input_shape)
        widths = [STEM, *(width * architecture.widen_factor for width in STAGES)]
        self.conv1 = conv3x3(input_shape[0], STEM)
        self.block1, self.block2, self.block3 = (
            WrnStage(*pair, architecture, stride=1 if number == 0 else 2)
            for number, pair in enumerate(pairwise(widths))
        )
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialize(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, height, width)."""
        features = self.block3(self.block2(self.block1(self.conv1(inputs))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(features))).flatten(1))
        return logits


class WrnStage(nn.Module):
    """Blocks of one width. Their container is called `layer`, as in the checkpoints that people have."""

    def __init__(self, width_in: int, width_out: int, architecture: Wrn, *, stride: int) -> None:
        super().__init__()
        num_blocks = (architecture.depth - 4) // 6
        self.layer = nn.Sequential(
            WrnBlock(width_in, width_out, stride, architecture.dropout),
            *(WrnBlock(width_out, width_out, 1, architecture.dropout) for _ in range(num_blocks - 1)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of features."""
        features: Tensor = self.layer(inputs)
        return features


class WrnBlock(nn.Module):
    """Two convolutions, each after normalisation and activation, and a shortcut around them."""

    def __init__(self, width_in: int, width_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(width_in, width_out, stride)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(width_out, width_out)
        is_plain = stride == 1 and width_in == width_out
        self.convShortcut = None if is_plain else conv1x1(width_in, width_out, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (N, width_out, height / stride, width / stride) of (N, width_in, height, width)."""
        activated = self.relu1(self.bn1(inputs))
        features = self.dropout(self.relu2(self.bn2(self.conv1(activated))))
        # A projection reads what was activated, a plain shortcut what was not.
        shortcut = inputs if self.convShortcut is None else self.convShortcut(activated)
        outputs: Tensor = self.conv2(features) + shortcut
        return outputs


def describe_wrn(architecture: Wrn, *, input_shape: Sequence[int], num_classes: int) -> str:
    """In short: `wrn-40-2 3-16-32-64-128-10`: channels of the input, the stem and the stages, and the classes."""
    widths = [input_shape[0], STEM, *(width * architecture.widen_factor for width in STAGES), num_classes]
    return f"wrn-{architecture.depth}-{architecture.widen_factor} " + "-".join(str(width) for width in widths)
