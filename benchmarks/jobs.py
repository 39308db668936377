"""Real jobs of the local service, and what they took."""

import time
from dataclasses import dataclass

from stillhouse import Client
from stillhouse.contract.report import Report
from stillhouse.contract.spec import JobSpec


@dataclass(frozen=True)
class Done:
    """A job that succeeded."""

    report: Report
    seconds: float  # from POST /jobs until its end was seen

    @property
    def training_seconds(self) -> float:
        """The distilling phase: steps, logging, progress and evaluations."""
        return self.report.phase_seconds["distilling"]

    @property
    def label_seconds(self) -> float:
        """The phase that has soft labels made or looked up."""
        return self.report.phase_seconds.get("soft_labels", 0.0)

    @property
    def speed(self) -> float:
        """Samples per second of the distilling phase."""
        return self.report.num_train_samples_seen / self.training_seconds

    @property
    def speed_with_labels(self) -> float:
        """Samples per second of labelling and distilling together."""
        return self.report.num_train_samples_seen / (self.training_seconds + self.label_seconds)


def run_job(client: Client, spec: JobSpec) -> Done:
    """Submit the job and wait for it."""
    began = time.perf_counter()
    job = client.submit(spec)
    state = job.wait()
    seconds = time.perf_counter() - began
    assert state.has_succeeded, state.error
    return Done(job.report(), seconds)


def empty_label_store(client: Client) -> None:
    """Delete every soft label that is stored."""
    for artifact in list(client.artifacts(kind="soft_labels")):
        client.delete_artifact(artifact.id)
