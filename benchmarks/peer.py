"""The same distillation by torchdistill: tensors in memory, no loader processes, the loop of its own examples."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pairs import BATCH, CE, FEATURES, KL
from stillhouse.contract.spec import Training

LOGITS = {"module_path": ".", "io": "output"}


class LookedUp(nn.Module):
    """A teacher for torchdistill that answers at no cost, from ready soft labels."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any rows: what is measured is the framework, not what the student learns."""
        return self.logits[: len(inputs)]


def run(student: nn.Module, teacher: nn.Module, data: Mapping[str, Tensor], epochs: int, feature: str = "") -> None:
    """Train with soft labels, or with a term on layers where one is named."""
    box = _box(student, teacher, data, epochs, feature)
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for inputs, labels, extra in box.train_data_loader:
            box.pre_forward_process()
            loss = box.forward_process(inputs, labels, supp_dict=extra)
            box.post_forward_process(loss=loss)
        box.post_epoch_process()


def _box(
    student: nn.Module, teacher: nn.Module, data: Mapping[str, Tensor], epochs: int, feature: str
) -> Any:  # noqa: ANN401 - untyped peer
    from torchdistill.core.distillation import get_distillation_box  # noqa: PLC0415 - not every loop needs the peer

    chosen = Training().optimizer
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}},
        "kwargs": {"batch_size": BATCH, "num_workers": 0, "drop_last": False},
    }
    hooks = {"forward_hook": {"output": FEATURES[feature].paths}} if feature else {}
    terms = {feature: _feature(feature), "ce": _cross_entropy()} if feature else {"kd": _soft_labels()}
    config = {
        "num_epochs": epochs,
        "train_data_loader": loader,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False, **hooks},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True, **hooks},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }
    dataset = torch.utils.data.TensorDataset(data["inputs"], data["labels"])
    return get_distillation_box(
        teacher, student, {"train": dataset}, config, torch.device("cpu"), None, distributed=False, lr_factor=1
    )


def _soft_labels() -> dict[str, Any]:
    return {"weight": 1.0, "criterion": {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": LOGITS["module_path"], "student_module_io": LOGITS["io"],
            "teacher_module_path": LOGITS["module_path"], "teacher_module_io": LOGITS["io"],
            "temperature": KL.temperature, "alpha": CE.weight, "beta": KL.weight, "reduction": "batchmean",
        },
    }}


def _cross_entropy() -> dict[str, Any]:
    wrapper = {"input": LOGITS | {"is_from_teacher": False}, "target": {"uses_label": True}}
    return {
        "weight": CE.weight,
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": wrapper},
    }


def _feature(name: str) -> dict[str, Any]:
    """The term with its sum as the engine's mean over pairs."""
    weight, paths, arguments = FEATURES[name]
    if name == "at":
        layers = {path: {model: {"io": "output", "path": path} for model in ("teacher", "student")} for path in paths}
        criterion = {"key": "ATLoss", "kwargs": {"at_pairs": layers, "mode": "code"}}
        return {"weight": weight / len(paths), "criterion": criterion}
    places = {"student_output_path": paths[0], "teacher_output_path": paths[0]}
    if name == "sp":
        return {"weight": weight, "criterion": {"key": "SPKDLoss", "kwargs": places | {"reduction": "batchmean"}}}
    factors = {"dist_factor": arguments["distance_weight"], "angle_factor": arguments["angle_weight"]}
    return {"weight": weight, "criterion": {"key": "RKDLoss", "kwargs": places | factors | {"reduction": "mean"}}}
