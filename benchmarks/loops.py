"""What the engine is measured against: the same work by hand, and by torchdistill. Run in a process of its own.

`python -m benchmarks.loops KIND FOLDER EPOCHS THREADS` prints samples per second of the training loop.
The folder holds `train.safetensors` with `inputs` (normalised, float32), `labels` and `teacher` (logits).
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.spec import CrossEntropy, Kl, Training
from stillhouse.models import load_checkpoint

BATCH = 128
KL = Kl()
CE = CrossEntropy(weight=0.5)


def student() -> nn.Sequential:
    """784-64-10, as the job's student."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    """The job's default optimiser."""
    chosen = Training().optimizer
    assert chosen.kind == "adamw"
    return torch.optim.AdamW(
        model.parameters(), lr=chosen.learning_rate, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon,
        weight_decay=chosen.weight_decay, fused=True,
    )


def shuffled(count: int, epochs: int) -> Iterator[Tensor]:
    """Indices of full batches, in a new order each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count).split(BATCH)


def taught(model: nn.Module, inputs: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """The job's default objective, written plainly."""
    logits = model(inputs)
    soft = functional.kl_div(
        functional.log_softmax(logits / KL.temperature, dim=1),
        functional.log_softmax(teacher / KL.temperature, dim=1),
        log_target=True, reduction="batchmean",
    )
    return soft * KL.temperature**2 * KL.weight + functional.cross_entropy(logits, labels) * CE.weight


def alone(model: nn.Module, inputs: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    """The student without a teacher."""
    return functional.cross_entropy(model(inputs), labels)


def bare_loop(loss_of: Callable[..., Tensor], data: dict[str, Tensor], epochs: int) -> None:
    """A hand-written loop on ready tensors: the limit."""
    model = student()
    steps = optimiser(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        steps, max_lr=Training().optimizer.learning_rate, total_steps=epochs * -(-len(data["labels"]) // BATCH)
    )
    for batch in shuffled(len(data["labels"]), epochs):
        loss = loss_of(model, data["inputs"][batch], data["labels"][batch], data["teacher"][batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
        schedule.step()


class LookedUp(nn.Module):
    """A teacher for torchdistill that answers at no cost, from ready soft labels."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any rows: what is measured is the framework, not what the student learns."""
        return self.logits[: len(inputs)]


def torchdistill_box(data: dict[str, Tensor], epochs: int, teacher: nn.Module) -> Any:  # noqa: ANN401 - untyped peer
    """The same distillation as a torchdistill configuration: tensors in memory, no loader processes."""
    from torchdistill.core.distillation import get_distillation_box  # noqa: PLC0415 - only this kind needs the peer

    chosen = Training().optimizer
    logits = {"module_path": ".", "io": "output"}
    kd = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": logits["module_path"], "student_module_io": logits["io"],
            "teacher_module_path": logits["module_path"], "teacher_module_io": logits["io"],
            "temperature": KL.temperature, "alpha": CE.weight, "beta": KL.weight, "reduction": "batchmean",
        },
    }
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}},
        "kwargs": {"batch_size": BATCH, "num_workers": 0, "drop_last": False},
    }
    config = {
        "num_epochs": epochs,
        "train_data_loader": loader,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }
    dataset = torch.utils.data.TensorDataset(data["inputs"], data["labels"])
    return get_distillation_box(
        teacher, student(), {"train": dataset}, config, torch.device("cpu"), None, distributed=False, lr_factor=1
    )


def run_torchdistill(data: dict[str, Tensor], epochs: int, teacher: nn.Module) -> None:
    """The loop of torchdistill's own examples."""
    box = torchdistill_box(data, epochs, teacher)
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for inputs, labels, extra in box.train_data_loader:
            box.pre_forward_process()
            loss = box.forward_process(inputs, labels, supp_dict=extra)
            box.post_forward_process(loss=loss)
        box.post_epoch_process()


def measure(kind: str, folder: Path, epochs: int) -> float:
    """Samples per second of one kind of loop, after a short one to warm up."""
    loops: dict[str, Callable[[dict[str, Tensor], int], None]] = {
        "bare_loop": lambda data, epochs: bare_loop(taught, data, epochs),
        "student_alone": lambda data, epochs: bare_loop(alone, data, epochs),
        "torchdistill": lambda data, epochs: run_torchdistill(
            data, epochs, load_checkpoint(folder / "teacher.safetensors").model.eval()
        ),
        "torchdistill_free_teacher": lambda data, epochs: run_torchdistill(data, epochs, LookedUp(data["teacher"])),
    }
    data = load_file(folder / "train.safetensors")
    loops[kind]({name: tensor[:4096] for name, tensor in data.items()}, 1)
    began = time.perf_counter()
    loops[kind](data, epochs)
    return epochs * len(data["labels"]) / (time.perf_counter() - began)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    print(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
