"""A teacher that does not know what it teaches is told, with the likeliest reason."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stillhouse.contract.events import Noted
from stillhouse.contract.spec import Mlp, Normalization
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.data import Part, Samples
from worker.engine.teachers import NetworkTeacher
from worker.engine.teachers.checkup import AS_THEY_ARE, BYTES, check_up

CLASSES = 4
OWN = Normalization(scale=1 / 255, mean=[0.3], std=[0.2])


def part() -> Part:
    """Colour images of 2x2 whose red brightness tells the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % CLASSES
    images = torch.randint(0, 256, (200, 3, 2, 2), generator=generator)
    images[:, 0] = torch.randint(0, 20, (200, 2, 2), generator=generator) + 60 * labels[:, None, None]
    images = images.to(torch.uint8)
    return Part("validation", Samples(images, images, labels), torch.arange(200), "given")


class Brightness(nn.Module):
    """Tells the class by the brightness of the red channel, 0 to 1."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, images: Tensor) -> Tensor:
        levels = (torch.arange(CLASSES) * 60 + 10) / 255
        closeness = -(images[:, 0].mean(dim=(1, 2))[:, None] - levels).abs()
        return closeness[:, self.order]  # type: ignore[index]


def teacher(order: list[int] | None = None, normalization: Normalization = BYTES) -> NetworkTeacher:
    read = Preprocessing(input_shape=(3, 2, 2), layout="chw", dtype="uint8", normalization=normalization)
    architecture = Mlp(num_classes=CLASSES, input_shape=[3, 2, 2])
    return NetworkTeacher(Brightness(order or list(range(CLASSES))), architecture, read)


def told(of: NetworkTeacher, samples: Part | None = None) -> list[Noted]:
    return list(check_up(of, samples or part(), OWN, "cpu"))


def test_a_teacher_that_knows_is_not_doubted() -> None:
    assert told(teacher()) == []


def test_another_order_of_classes_is_guessed() -> None:
    (note,) = told(teacher([1, 2, 3, 0]))
    assert (note.level, note.code) == ("warning", "teacher_doubtful")
    assert "0 is 1, 1 is 2, 2 is 3, 3 is 0" in note.message
    assert "right on 0.0%" in note.message
    assert "25.0%" in note.message


@pytest.mark.parametrize("wrong", [AS_THEY_ARE, Normalization(scale=10.0, mean=[0.0], std=[1.0])])
def test_another_normalization_is_guessed(wrong: Normalization) -> None:
    (note,) = told(teacher(normalization=wrong))
    assert "on bytes scaled to 0 to 1; set teacher.normalization" in note.message


def test_another_order_of_channels_is_guessed() -> None:
    samples = part()
    turned = samples.samples.arranged.flip(1)
    (note,) = told(teacher(), replace(samples, samples=replace(samples.samples, arranged=turned)))
    assert "right on 100.0% with the colour channels in reverse order" in note.message


def test_what_cannot_be_explained_is_said_so() -> None:
    samples = part()
    random = torch.randint(0, CLASSES, (200,), generator=torch.Generator().manual_seed(2))
    (note,) = told(teacher(), replace(samples, samples=replace(samples.samples, labels=random)))
    assert "do not explain it" in note.message


def test_nothing_is_told_without_labels() -> None:
    samples = part()
    assert told(teacher([1, 2, 3, 0]), replace(samples, samples=replace(samples.samples, labels=None))) == []
