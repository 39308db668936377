"""A report in words: the sentences and numbers that page, model card and terminal share."""

from math import sqrt

from stillhouse.contract.report import Report, Subject

MISSING = "-"
_SAME_SIZE = 1.05  # ratios closer to 1 than this are not worth a number


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 0 to 1: `98.21 %`."""
    return MISSING if share is None else f"{100 * share:.{digits}f} %"


def count(number: float | None) -> str:
    """A whole number: `50,890`."""
    return MISSING if number is None else f"{number:,.0f}"


def decimal(value: float | None) -> str:
    """A number without a unit, to three significant digits: `0.0123`."""
    return MISSING if value is None else f"{value:#.3g}"


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


def verdict(report: Report) -> str:
    """What was kept, at what size, in one sentence."""
    student, teacher = report.subject("student"), report.subject("teacher")
    at_size = cost(report.size_ratio)
    if student is None:
        return "This report has no student."
    if teacher and student.scores.accuracy is not None and teacher.scores.accuracy:
        kept = student.scores.accuracy / teacher.scores.accuracy
        if kept > 1:
            return f"The student is right more often than its teacher, {at_size}."
        return f"The student keeps {percent(kept, 1)} of the teacher's accuracy {at_size}."
    if student.scores.agreement is not None:
        return f"The student gives the teacher's answer on {percent(student.scores.agreement)} of samples {at_size}."
    return f"A student {at_size} of its teacher."


def gain_sentence(report: Report) -> str:
    """What distillation gained over the same student without a teacher, and whether that may be chance."""
    control, student = report.subject("control"), report.subject("student")
    if report.gain is None or control is None or student is None:
        return "The same student was not trained without a teacher, so what distillation gained is not known."
    text = (
        f"Trained on the labels alone, the same student reaches {percent(control.scores.accuracy)} instead of "
        f"{percent(student.scores.accuracy)}: distillation {'gained' if report.gain >= 0 else 'lost'} "
        f"{abs(report.gain):.2f} points"
    )
    chance = chance_points(report)
    if chance is not None and abs(report.gain) < chance:
        return f"{text}, within the ±{chance:.2f} that chance allows on this many samples."
    return f"{text}."


def chance_points(report: Report) -> float | None:
    """Half-width, in percentage points, of the 95 % interval of the gain, from the number of samples alone.

    The two are taken as independent; they share the samples, so that the true interval is usually narrower.
    """
    samples = num_evaluated(report)
    shares = [_accuracy(report.subject(name)) for name in ("student", "control")]
    if not samples or None in shares:
        return None
    return 196 * sqrt(sum(share * (1 - share) / samples for share in shares if share is not None))


def num_evaluated(report: Report) -> int | None:
    """Samples of the split of the headline scores."""
    return next((split.num_samples for split in report.splits if split.name == report.evaluated_on), None)


def _accuracy(subject: Subject | None) -> float | None:
    return None if subject is None else subject.scores.accuracy
