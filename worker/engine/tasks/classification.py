"""One label per sample: which classes there are, and whether the labels are among them."""

from stillhouse.contract.failures import InvalidSpecError, LabelOutOfRangeError, SingleClassError
from stillhouse.contract.spec import JobSpec
from worker.engine.data import Dataset

MAX_CLASSES = 1_000_000


def given_num_classes(spec: JobSpec) -> int | None:
    """The number of classes that the data section tells."""
    return spec.data.num_classes or (len(spec.data.label_names) if spec.data.label_names else None)


def infer_num_classes(dataset: Dataset) -> int:
    """One more than the largest label of any split."""
    labels = [samples.labels for samples in dataset.given().values() if samples.labels is not None]
    largest = max((int(of_split.max()) for of_split in labels), default=1)
    return min(max(largest + 1, 2), MAX_CLASSES)


def check_labels(dataset: Dataset, num_classes: int) -> None:
    """Raise LabelOutOfRangeError with the first offending sample, or SingleClassError."""
    for name, samples in dataset.given().items():
        labels = samples.labels
        if labels is None:
            continue
        outside = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(outside):
            first = int(outside[0])
            raise LabelOutOfRangeError(
                f"label {int(labels[first])} of sample {first} is not the number of a class; "
                f"{num_classes} classes are numbered 0 to {num_classes - 1}",
                param=f"/data/{name}",
            )
    trained_on = dataset.train.labels
    if trained_on is not None and bool((trained_on == trained_on[0]).all()):
        raise SingleClassError(
            f"all training labels are {int(trained_on[0])}, so there is nothing to learn", param="/data/train"
        )


def name_labels(spec: JobSpec, num_classes: int) -> list[str]:
    """A name for each class: the spec's, else its number."""
    if spec.data.label_names is None:
        return [str(number) for number in range(num_classes)]
    if len(spec.data.label_names) != num_classes:
        raise InvalidSpecError(
            f"label_names has {len(spec.data.label_names)} names for {num_classes} classes", param="/data/label_names"
        )
    return list(spec.data.label_names)
