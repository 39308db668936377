"""Cross-entropy with true labels of which any number may hold."""

from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def binary_cross_entropy(views: Views, *, positive_weight: float = 1.0) -> Tensor:
    """-(w y log q + (1 - y) log(1 - q)), q = sigmoid(student), sum over labels, mean over labelled items; in nats."""
    student = wide(views.student)
    labels = views.known_labels.to(student.dtype)
    held = positive_weight * labels * functional.logsigmoid(student)
    return views.mean_of_labelled(-(held + (1 - labels) * functional.logsigmoid(-student)).sum(dim=1))
