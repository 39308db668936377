"""The report, assembled from plain values."""

from collections.abc import Mapping, Sequence

from torch import nn

from stillhouse.contract.report import Curve, Latency, Report, Scores, Selection, SplitSize, Subject


def describe_subject(
    name: str,
    model: nn.Module,
    *,
    architecture: str,
    scores: Scores,
    final_scores: Scores | None = None,
    validation_scores: Scores | None = None,
    latency: Latency | None = None,
    selected_step: int | None = None,
    last_step: int | None = None,
    stopped_early: bool = False,
) -> Subject:
    """One model of the comparison (`teacher`, `student`, `control`); counts its parameters and its safetensors bytes."""
    raise NotImplementedError


def build_report(
    *,
    subjects: Sequence[Subject],
    task: str,
    evaluated_on: str,
    selection: Selection,
    splits: Sequence[SplitSize],
    label_names: Sequence[str],
    seed: int,
    curves: Sequence[Curve],
    phase_seconds: Mapping[str, float],
    num_train_samples_seen: int,
    device: str,
    name: str | None = None,
    job_id: str | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """The report without parity, which export_bundle adds. Ratios, gain, environment and the standing notes are made here.

    `curves` are named `<phase>/<metric>`: `distilling/loss`, `distilling/validation.accuracy`, `control/loss`.
    """
    raise NotImplementedError
