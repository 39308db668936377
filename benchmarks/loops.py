"""What the engine is measured against: the same work by hand, and by torchdistill. Run in a process of its own.

`python -m benchmarks.loops PAIR KIND FOLDER EPOCHS THREADS FORMAT` prints samples per second of the training loop;
with 0 epochs it prints the threads and the memory format that are fastest for it.
The folder holds `train.safetensors` with `inputs` (normalised, float32), `labels` and `teacher` (logits), and the
teacher's own file.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import peer
from benchmarks.pairs import BATCH, CE, FEATURES, KL, adamw, student, teacher
from stillhouse.contract.spec import Training

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
WARM_UP_SAMPLES = 1280

Data = Mapping[str, Tensor]
# Data and number of epochs.
Loop = Callable[[Data, int], None]


def shuffled(count: int, epochs: int) -> Iterator[Tensor]:
    """Indices of batches, in a new order each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count).split(BATCH)


def taught(logits: Tensor, labels: Tensor, soft: Tensor) -> Tensor:
    """The job's default objective, written plainly."""
    kl = functional.kl_div(
        functional.log_softmax(logits / KL.temperature, dim=1),
        functional.log_softmax(soft / KL.temperature, dim=1),
        log_target=True, reduction="batchmean",
    )
    return kl * KL.temperature**2 * KL.weight + functional.cross_entropy(logits, labels) * CE.weight


def alone(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    """The student without a teacher."""
    return functional.cross_entropy(logits, labels)


def bare_loop(model: nn.Module, loss_of: Callable[..., Tensor], data: Data, epochs: int) -> None:
    """A hand-written loop on ready tensors: the limit."""
    steps = adamw(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        steps, max_lr=Training().optimizer.learning_rate, total_steps=epochs * -(-len(data["labels"]) // BATCH)
    )
    for batch in shuffled(len(data["labels"]), epochs):
        loss = loss_of(model(data["inputs"][batch]), data["labels"][batch], data["teacher"][batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
        schedule.step()


def loader_loop(model: nn.Module, master: nn.Module, data: Data, epochs: int) -> None:
    """The loop of a tutorial: a DataLoader over tensors in memory, and a teacher that answers every batch."""
    steps = adamw(model)
    for _ in range(epochs):
        loader = DataLoader(TensorDataset(data["inputs"], data["labels"]), batch_size=BATCH, shuffle=True)
        for inputs, labels in loader:
            with torch.no_grad():
                soft = master(inputs)
            loss = taught(model(inputs), labels, soft)
            steps.zero_grad()
            loss.backward()
            steps.step()


def loop(pair: str, kind: str, folder: Path, memory_format: str) -> Loop:
    """A loop by its name."""
    def placed(model: nn.Module) -> nn.Module:
        return model.to(memory_format=MEMORY_FORMATS[memory_format])

    if kind in {"bare_loop", "student_alone"}:
        return lambda data, epochs: bare_loop(
            placed(student(pair)), taught if kind == "bare_loop" else alone, data, epochs
        )
    if kind == "loader_loop":
        return lambda data, epochs: loader_loop(placed(student(pair)), placed(teacher(folder)), data, epochs)
    if kind == "torchdistill_contiguous":  # as it comes, for its settings are searched in this format only
        return loop(pair, "torchdistill", folder, memory_format)
    if kind == "torchdistill_free_teacher":
        return lambda data, epochs: peer.run(placed(student(pair)), peer.LookedUp(data["teacher"]), data, epochs)
    feature = kind.removeprefix("torchdistill").removeprefix("_")
    assert not feature or feature in FEATURES, kind
    return lambda data, epochs: peer.run(placed(student(pair)), placed(teacher(folder)), data, epochs, feature)


def measure(run: Loop, data: Data, epochs: int) -> float:
    """Samples per second, after a short run to warm up."""
    run({name: tensor[:WARM_UP_SAMPLES] for name, tensor in data.items()}, 1)
    began = time.perf_counter()
    run(data, epochs)
    return epochs * len(data["labels"]) / (time.perf_counter() - began)


def fastest(loop_in: Callable[[str], Loop], data: Data, formats: Sequence[str]) -> tuple[int, str]:
    """One thread or all, and which memory format of these: whatever is fastest for the loop."""
    few = {name: tensor[:WARM_UP_SAMPLES] for name, tensor in data.items()}

    def speed(setting: tuple[int, str]) -> float:
        torch.set_num_threads(setting[0])
        return measure(loop_in(setting[1]), few, 1)

    return max(((threads, name) for threads in {1, os.cpu_count() or 1} for name in formats), key=speed)


def main(pair: str, kind: str, folder: Path, epochs: int, threads: int, memory_format: str) -> None:
    """Print what was asked for."""
    torch.set_num_threads(threads)
    data = load_file(folder / "train.safetensors")
    if epochs:
        print(measure(loop(pair, kind, folder, memory_format), data, epochs))
    else:
        formats = ["contiguous"] if kind.endswith("contiguous") else list(MEMORY_FORMATS)
        print(*fastest(partial(loop, pair, kind, folder), data, formats))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
