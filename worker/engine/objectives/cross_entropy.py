"""Cross-entropy with the true labels."""

from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def cross_entropy(views: Views, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(student)[label], mean over labelled items, in nats; 0 where no item has a label.

    Labels (N, C) are shares of classes: the mean over them by their shares.
    """
    student, labels = wide(views.student), views.known_labels
    labels = labels.to(student.dtype) if labels.is_floating_point() else labels
    if views.mask is None:
        return functional.cross_entropy(student, labels, label_smoothing=label_smoothing)
    return views.mean_of_labelled(
        functional.cross_entropy(student, labels, label_smoothing=label_smoothing, reduction="none")
    )
