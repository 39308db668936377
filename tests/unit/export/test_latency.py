from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from worker.engine.export import measure_latency
from worker.engine.export.latency import MIN_RUNS, NUM_WARMUP_RUNS


class Recorder(nn.Module):
    def __init__(self, name: str, calls: list[tuple[str, bool, int, int]]) -> None:
        super().__init__()
        self.name = name
        self.calls = calls

    def __deepcopy__(self, memo: object) -> "Recorder":
        return Recorder(self.name, self.calls)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append((self.name, self.training, len(inputs), torch.get_num_threads()))
        return inputs


def test_models_take_turns_in_eval_mode_after_a_warm_up() -> None:
    calls: list[tuple[str, bool, int, int]] = []
    threads = torch.get_num_threads()
    models = {name: Recorder(name, calls) for name in ("teacher", "student", "control")}
    latencies = measure_latency(models, torch.zeros(1, 3), num_runs=5)
    assert calls == [(name, False, 1, 1) for _ in range(NUM_WARMUP_RUNS + 5) for name in models]
    assert list(latencies) == list(models)
    assert {(each.num_runs, each.threads, each.batch_size) for each in latencies.values()} == {(5, 1, 1)}
    assert all(0 < each.p50_ms <= each.p95_ms for each in latencies.values())
    assert models["teacher"].training  # copies were measured
    assert torch.get_num_threads() == threads


def test_what_is_no_module_takes_its_turn() -> None:
    calls: list[tuple[str, bool, int, int]] = []
    other = Recorder("teacher", calls).eval()
    latencies = measure_latency(
        {"student": Recorder("student", calls)}, torch.zeros(1, 3), num_runs=2,
        passes={"teacher": lambda: other(torch.zeros(1, 3))},
    )
    assert [name for name, *_ in calls[-4:]] == ["student", "teacher", "student", "teacher"]
    assert list(latencies) == ["student", "teacher"]


def test_quantiles_and_the_bound_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.export.latency.perf_counter_ns", make_clock(step=10**9))
    latency = measure_latency({"student": nn.Identity()}, torch.zeros(1, 3), num_runs=1000, max_seconds=3)["student"]
    assert latency.num_runs == MIN_RUNS
    assert (latency.p50_ms, latency.p95_ms) == (1000, 1000)


def make_clock(step: int) -> Callable[[], int]:
    time = 0

    def tick() -> int:
        nonlocal time
        time += step
        return time

    return tick
