"""A report in words: the sentences and numbers that page, model card and terminal share."""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

from stillhouse.contract.report import Interruption, Report, Scores, SplitSize, Subject
from stillhouse.contract.spec import Classification, Embedding, MultiLabel, Regression

MISSING = "-"
_SAME_SIZE = 1.05  # ratios closer to 1 than this are not worth a number


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 0 to 1: `98.21 %`."""
    return MISSING if share is None else f"{100 * share:.{digits}f} %"


def count(number: float | None) -> str:
    """A whole number: `50,890`."""
    return MISSING if number is None else f"{number:,.0f}"


def decimal(value: float | None) -> str:
    """A number without a unit, to three significant digits: `0.0123`; `45,230`, where it is larger."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"  # noqa: PLR2004 - three digits are enough


def four(value: float | None) -> str:
    """A coefficient of at most 1, to four decimals: `0.9712`."""
    return MISSING if value is None else f"{value:.4f}"


def value(number: float) -> str:
    """A number in any unit: `0.01235`, `12.35`, `212,345.6`."""
    return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"  # noqa: PLR2004 - four digits are enough


def measured(values: Sequence[float]) -> str:
    """What a benchmark gave: `0.981 (0.9801 to 0.9818)` of several seeds."""
    mean = value(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({value(min(values))} to {value(max(values))})"


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units: `203.9 kB`."""
    if num_bytes is None:
        return MISSING
    power = next(power for power in (3, 2, 1, 0) if num_bytes >= 1000**power or power == 0)
    return f"{num_bytes / 1000**power:.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds with three significant digits: `0.0214 ms`."""
    if value is None:
        return MISSING
    return f"{value:,.0f} ms" if value >= 100 else f"{value:#.3g} ms"  # noqa: PLR2004 - three digits are enough


def seconds(value: float) -> str:
    """A duration: `8.3 s`, `12 min 5 s`."""
    if value < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes:,} min {rest} s"


def times(ratio: float | None) -> str:
    """A ratio: `33x` from ten on, `3.4x` below."""
    if ratio is None:
        return MISSING
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"  # noqa: PLR2004 - two digits are enough


def cost(ratio: float | None) -> str:
    """What is left of the teacher's size, by the teacher's size per student's: `at 1/33 of the size`."""
    if ratio is None:
        return "at a size that cannot be compared"
    if ratio > _SAME_SIZE:
        return f"at 1/{ratio:,.0f} of the size" if ratio >= 10 else f"at 1/{ratio:.2g} of the size"  # noqa: PLR2004
    return "at about the same size" if ratio >= 1 / _SAME_SIZE else f"at {1 / ratio:.2g} times the size"


class Measure(NamedTuple):
    """A score: its field of `Scores`, what people call it in a sentence and on a terminal, and how it is told."""

    field: str
    name: str
    short: str | None  # None: too much for a terminal
    told: Callable[[float | None], str]

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[0].upper() + self.name[1:]

    def of(self, scores: Scores | None) -> str:
        """The score as it is told; a dash where there is none."""
        return self.told(getattr(scores, self.field, None))


# In the order in which a reader wants them.
_MEASURES = (
    Measure("accuracy", "accuracy", "accuracy", percent),
    Measure("average_precision", "mean average precision", "mean average precision", percent),
    Measure("r2", "R²", "R²", four),
    Measure("cosine", "cosine with the teacher", "cosine with teacher", four),
    Measure("exact_match", "all labels right", "all labels right", percent),
    Measure("num_errors", "wrong answers", None, count),
    Measure("mae", "mean absolute error", "mean absolute error", decimal),
    Measure("rmse", "root mean squared error", "root mean squared error", decimal),
    Measure("precision_macro", "precision, macro", "macro precision", percent),
    Measure("recall_macro", "recall, macro", "macro recall", percent),
    Measure("f1_macro", "F1, macro", "macro F1", percent),
    Measure("f1_micro", "F1, micro", "micro F1", percent),
    Measure("calibration_error", "calibration error", None, percent),
    Measure("cross_entropy", "cross-entropy, nats", None, decimal),
    Measure("agreement", "agreement with the teacher", "agrees with teacher", percent),
    Measure("similarity_correlation", "rank correlation of similarities", "similarities, rank correlation", four),
    Measure("kl_from_teacher", "KL from the teacher, nats", None, decimal),
    Measure("mse_from_teacher", "squared difference from the teacher", None, decimal),
)
# What a score means may differ between tasks.
_OF_TASK = {
    ("multi_label", "num_errors"): Measure("num_errors", "samples with a wrong label", None, count),
    ("regression", "agreement"): Measure("agreement", "R² against the teacher", "R² against teacher", four),
    ("embedding", "agreement"): Measure("agreement", "neighbours that are the teacher's", "same neighbours", percent),
}
_SECTIONS = (Classification, MultiLabel, Regression, Embedding)
_QUALITIES = {section.model_fields["kind"].default: section.quality for section in _SECTIONS}
_ONE = {"classes": "class", "labels": "label", "targets": "target", "dimensions": "dimension"}


def measures(task: str) -> list[Measure]:
    """Every score, as it is told of this task."""
    return [_OF_TASK.get((task, measure.field), measure) for measure in _MEASURES]


def measure(task: str, field: str) -> Measure | None:
    """One score, as it is told of this task; None of what is no score, such as a loss."""
    return next((each for each in measures(task) if each.field == field), None)


def quality(task: str) -> Measure:
    """The score that tells how good a model is at this task; accuracy, of one that is not known here."""
    field = _QUALITIES.get(task, Classification.quality)
    return next(each for each in measures(task) if each.field == field)


def verdict(report: Report) -> str:
    """What was kept, at what size, in one sentence."""
    student, teacher = report.subject("student"), report.subject("teacher")
    at_size = cost(report.size_ratio)
    if student is None:
        return "This report has no student."
    told = quality(report.task)
    own, taught = getattr(student.scores, told.field), getattr(teacher.scores, told.field) if teacher else None
    if told.field == "cosine" and own is not None:
        return f"The student's vectors have a mean cosine of {told.told(own)} with the teacher's, {at_size}."
    if own is not None and taught is not None and told.field == "r2":
        return f"The student reaches an R² of {told.told(own)}, its teacher {told.told(taught)}, {at_size}."
    if own is not None and taught:
        return _kept(own / taught, told, at_size)
    if student.scores.agreement is not None:
        return f"{_agreed(report.task, student.scores)} {at_size}."
    return f"A student {at_size} of its teacher."


def _kept(share: float, told: Measure, at_size: str) -> str:
    if share > 1:
        better = "is right more often" if told.field == "accuracy" else "finds labels with more precision"
        return f"The student {better} than its teacher, {at_size}."
    return f"The student keeps {percent(share, 1)} of the teacher's {told.name} {at_size}."


def _agreed(task: str, scores: Scores) -> str:
    """How alike student and teacher answer, where that is all that can be told."""
    if task == "regression":
        return f"The student's values follow the teacher's with an R² of {four(scores.agreement)},"
    share = percent(scores.agreement)
    if task == "multi_label":
        return f"The student decides {share} of the labels as the teacher does"
    return f"The student gives the teacher's answer on {share} of samples"


def gain_sentence(report: Report) -> str:
    """What distillation gained over the same student without a teacher, and whether that may be chance."""
    control, student = report.subject("control"), report.subject("student")
    if report.task == "embedding":
        return "An embedding is learned from its teacher alone: there is no student without one to compare with."
    if report.gain is None or control is None or student is None:
        return "The same student was not trained without a teacher, so what distillation gained is not known."
    told = quality(report.task)
    of = {"accuracy": "", "r2": "an R² of "}.get(told.field, f"a {told.name} of ")
    size = four(abs(report.gain)) if told.field == "r2" else f"{abs(report.gain):.2f} points"
    text = (
        f"Trained on the labels alone, the same student reaches {of}{told.of(control.scores)} instead of "
        f"{told.of(student.scores)}: distillation {'gained' if report.gain >= 0 else 'lost'} {size}"
    )
    chance = chance_points(report)
    if chance is not None and abs(report.gain) < chance:
        return f"{text}, within the ±{chance:.2f} that chance allows on this many samples."
    return f"{text}."


def chance_points(report: Report) -> float | None:
    """Half-width, in percentage points, of the 95 % interval of a gain in accuracy, from the number of samples alone.

    The two are taken as independent; they share the samples, so that the true interval is usually narrower. None of
    other scores, which have no such simple interval.
    """
    samples = num_labelled(report)
    shares = [_accuracy(report.subject(name)) for name in ("student", "control")]
    if not samples or None in shares:
        return None
    return 196 * sqrt(sum(share * (1 - share) / samples for share in shares if share is not None))


def num_evaluated(report: Report) -> int | None:
    """Samples of the split of the headline scores."""
    split = _evaluated(report)
    return split.num_samples if split else None


def num_labelled(report: Report) -> int | None:
    """Of these, how many have a label."""
    split = _evaluated(report)
    if split is None or split.num_labelled is not None:
        return split.num_labelled if split else None
    return split.num_samples if split.is_labelled else 0


def outputs(report: Report) -> str:
    """How many outputs the models have, and what they stand for: `10 classes`."""
    section = next((each for each in _SECTIONS if each.model_fields["kind"].default == report.task), Classification)
    number = report.num_outputs or len(report.label_names)
    return f"{count(number)} {section.outputs if number != 1 else _ONE[section.outputs]}"


def _evaluated(report: Report) -> SplitSize | None:
    return next((split for split in report.splits if split.name == report.evaluated_on), None)


def _accuracy(subject: Subject | None) -> float | None:
    return None if subject is None else subject.scores.accuracy


def interruption_sentence(interrupted: Interruption) -> str:
    """What a reader should know of a training that was cut short."""
    if interrupted.step < interrupted.total_steps:
        done, total = count(interrupted.step), count(interrupted.total_steps)
        told = f"Training was cut short after step {done} of {total}; the student is the best until then."
    else:
        told = "The job was cut short after the student was trained."
    return told + (" The control was left out." if interrupted.without_control else "")
