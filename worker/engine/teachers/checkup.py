"""Whether a teacher knows what it teaches; and if not, the likeliest reason."""

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Final

import torch
from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.spec import Normalization
from worker.engine.data import Part
from worker.engine.teachers.teacher import NetworkTeacher, Teacher

NUM_ASKED: Final = 1024
CHUNK: Final = 128
# A guess counts where it makes this share of the answers right, and twice as many as before.
CONVINCING: Final = 0.5
COLOURS: Final = 3
IMAGENET: Final = Normalization(scale=1 / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
BYTES: Final = Normalization(scale=1 / 255, mean=[0.0], std=[1.0])
CENTRED_BYTES: Final = Normalization(scale=1 / 255, mean=[0.5], std=[0.5])
AS_THEY_ARE: Final = Normalization(mean=[0.0], std=[1.0])


def check_up(teacher: Teacher, part: Part, own: Normalization, device: str) -> Iterator[Noted]:
    """A warning where the teacher is no better than always answering the most frequent class of the split.

    `own` is the student's normalisation. The teacher classifies; nothing is told of a split without labels.
    """
    known = part.ids if part.mask is None else part.ids[part.mask]
    if part.samples.labels is None or len(known) == 0:
        return
    ids = known[torch.linspace(0, len(known) - 1, min(NUM_ASKED, len(known))).long()]
    labels = part.samples.labels[ids]
    arranged, given = part.samples.arranged[ids].to(device), part.samples.said_softly(ids, teacher.num_outputs)
    outputs = _ask(teacher, arranged, given)
    accuracy = _accuracy(outputs, labels)
    chance = float(labels.bincount().max() / len(labels))
    if accuracy > chance + 2 * sqrt(chance * (1 - chance) / len(labels)):
        return
    guess = _guess(teacher, arranged, labels, outputs, own, max(CONVINCING, 2 * accuracy))
    yield Noted(
        level="warning", code="teacher_doubtful",
        message=f"The teacher is right on {accuracy:.1%} of {len(labels)} validation samples, and always answering the "
        f"most frequent class on {chance:.1%}. {guess}",
        data={"accuracy": accuracy, "most_frequent_class": chance},
    )


def _guess(
    teacher: Teacher, arranged: Tensor, labels: Tensor, outputs: Tensor, own: Normalization, convincing: float
) -> str:
    order = _class_order(outputs, labels)
    if _accuracy_in_order(outputs, labels, order) >= convincing:
        pairs = ", ".join(f"{number} is {meant}" for number, meant in list(enumerate(order.tolist()))[:10])
        return (
            "Its classes seem to be in another order than the labels (by its outputs: "
            f"{pairs}); check data.label_names and how the labels were numbered."
        )
    if isinstance(teacher, NetworkTeacher):
        tried = {what: _accuracy(answers, labels) for what, answers in _other_readings(teacher, own, arranged)}
        best = max(tried, key=tried.__getitem__)
        if tried[best] >= convincing:
            return f"It would be right on {tried[best]:.1%} {best}."
    return (
        "Another order of classes, the usual normalisations and another order of channels do not explain it; check "
        "that it was trained on data like these."
    )


def _other_readings(
    teacher: NetworkTeacher, own: Normalization, arranged: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """What the teacher would answer if it read the samples in another way, and in which."""
    readings = {
        "normalised as the student's inputs are": own, "on bytes scaled to 0 to 1": BYTES,
        "on bytes scaled to -1 to 1": CENTRED_BYTES, "on raw values": AS_THEY_ARE,
    }
    if arranged.shape[1] == COLOURS:
        yield (
            "with the colour channels in reverse order (BGR instead of RGB, or the other way round)",
            _ask(teacher, arranged.flip(1), None),
        )
        readings["with the mean and standard deviation of ImageNet"] = IMAGENET
    for what, normalization in readings.items():
        read = teacher.preprocessing.model_copy(update={"normalization": normalization})
        yield f"{what}; set teacher.normalization", _ask(replace(teacher, preprocessing=read), arranged, None)


def _class_order(outputs: Tensor, labels: Tensor) -> Tensor:
    """For each output (C,), the label that the samples have for which it is the largest, most often."""
    classes = max(outputs.shape[1], int(labels.max()) + 1)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts.index_put_((outputs.argmax(1), labels), torch.ones_like(labels), accumulate=True)
    return counts.argmax(1)


def _accuracy_in_order(outputs: Tensor, labels: Tensor, order: Tensor) -> float:
    """Of a one-to-one order; one that gives two outputs the same label explains nothing."""
    answered = outputs.argmax(1)
    used = order[answered.unique()]
    if len(used.unique()) < len(used) or len(used) < 2:  # noqa: PLR2004 - one class alone has no order
        return 0.0
    return float((order[answered] == labels).double().mean())


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).double().mean())


def _ask(teacher: Teacher, arranged: Tensor, given: Tensor | None) -> Tensor:
    """Outputs (N, C) on the CPU; the mean of an ensemble's."""
    parts = [
        teacher.answer(chunk, None if given is None else given[begin : begin + CHUNK])
        for begin, chunk in zip(range(0, len(arranged), CHUNK), arranged.split(CHUNK), strict=True)
    ]
    outputs = torch.cat(parts).cpu()
    return outputs.softmax(2).mean(1) if outputs.ndim > 2 else outputs  # noqa: PLR2004 - samples and outputs
