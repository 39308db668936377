import pytest
import torch
from torch import nn

from stillhouse.contract.failures import InputShapeMismatchError
from stillhouse.contract.spec import Architecture, Cnn, Mlp
from stillhouse.models import build, count_parameters, describe


@pytest.mark.parametrize(
    ("architecture", "input_shape", "num_parameters", "described"),
    [
        (Mlp(), [1, 28, 28], 784 * 64 + 64 + 64 * 10 + 10, "mlp 784-64-10"),
        (Mlp(hidden=[]), [4], 4 * 10 + 10, "mlp 4-10"),
        (Mlp(hidden=[8, 5], batch_norm=True), [3], 3 * 8 + 16 + 8 * 5 + 10 + 5 * 10 + 10, "mlp 3-8-5-10"),
        (Cnn(), [1, 28, 28], 9 * 16 + 32 + 9 * 16 * 32 + 64 + 32 * 10 + 10, "cnn 1-16-32-10"),
        (
            Cnn(channels=[4], blocks_per_stage=2, batch_norm=False, hidden=6), [3, 5, 5],
            3 * 9 * 4 + 4 + 4 * 9 * 4 + 4 + 4 * 6 + 6 + 6 * 10 + 10, "cnn 3-4-6-10 x2",
        ),
        (Cnn(channels=[2] * 8), [1, 9, 9], 18 + 7 * 36 + 8 * 4 + 2 * 10 + 10, "cnn 1-2-2-2-2-2-2-2-2-10"),
    ],
)
def test_a_family_has_the_size_and_the_shape_of_its_spec(
    architecture: Architecture, input_shape: list[int], num_parameters: int, described: str
) -> None:
    model = build(architecture, input_shape=input_shape, num_classes=10)
    assert model(torch.zeros(2, *input_shape)).shape == (2, 10)
    assert count_parameters(model) == num_parameters
    assert describe(architecture, input_shape, 10) == described


@pytest.mark.parametrize("architecture", [Mlp(dropout=0.5, activation="gelu"), Cnn(dropout=0.5, activation="silu")])
def test_dropout_and_activation_are_those_of_the_spec(architecture: Mlp | Cnn) -> None:
    layers = list(build(architecture, input_shape=[1, 8, 8], num_classes=3).modules())
    wanted = {"gelu": nn.GELU, "silu": nn.SiLU}[architecture.activation]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5]
    assert any(isinstance(layer, wanted) for layer in layers)
    assert not any(isinstance(layer, nn.ReLU) for layer in layers)


def test_a_cnn_refuses_a_table() -> None:
    with pytest.raises(InputShapeMismatchError, match=r"\[784\]"):
        build(Cnn(), input_shape=[784], num_classes=10)
