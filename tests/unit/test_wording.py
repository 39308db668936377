import pytest

from stillhouse import wording
from stillhouse.contract.report import Report, Scores
from tests.fixtures.results import make_plain_report


@pytest.mark.parametrize(("told", "expected"), [
    (wording.percent(0.98206), "98.21 %"), (wording.percent(None), "-"),
    (wording.count(50890), "50,890"), (wording.count(None), "-"),
    (wording.size(999), "999 B"), (wording.size(203_868), "203.9 kB"), (wording.size(6_653_480), "6.7 MB"),
    (wording.size(5e12), "5000.0 GB"), (wording.size(0), "0 B"), (wording.size(None), "-"),
    (wording.milliseconds(0.0141), "0.0141 ms"), (wording.milliseconds(12.34), "12.3 ms"),
    (wording.milliseconds(1234.5), "1,234 ms"), (wording.milliseconds(None), "-"),
    (wording.seconds(8.31), "8.3 s"), (wording.seconds(725), "12 min 5 s"),
    (wording.times(32.7), "33x"), (wording.times(3.44), "3.4x"), (wording.times(None), "-"),
    (wording.decimal(0.01234), "0.0123"), (wording.decimal(None), "-"),
    (wording.cost(32.7), "at 1/33 of the size"), (wording.cost(3.44), "at 1/3.4 of the size"),
    (wording.cost(1.0), "at about the same size"), (wording.cost(0.5), "at 2 times the size"),
])
def test_numbers_are_told_with_their_units(told: str, expected: str) -> None:
    assert told == expected


def changed(report: Report, **scores: Scores | None) -> Report:
    """The report with other scores for some models; none takes the model out."""
    kept = [subject for subject in report.subjects if scores.get(subject.name, subject.scores) is not None]
    subjects = [subject.model_copy(update={"scores": scores.get(subject.name) or subject.scores}) for subject in kept]
    by_name = {subject.name: subject.scores.accuracy for subject in subjects}
    student, control = by_name["student"], by_name.get("control")
    gain = None if student is None or control is None else 100 * (student - control)
    return report.model_copy(update={"subjects": subjects, "gain": gain})


def test_the_verdict_tells_what_was_kept_at_what_size() -> None:
    report = make_plain_report().model_copy(update={"size_ratio": 32.6})
    assert wording.verdict(report) == "The student keeps 98.5 % of the teacher's accuracy at 1/33 of the size."
    better = changed(report, student=Scores(accuracy=0.999))
    assert wording.verdict(better) == "The student is right more often than its teacher, at 1/33 of the size."
    unlabelled = changed(report, student=Scores(agreement=0.97), teacher=Scores())
    assert wording.verdict(unlabelled) == (
        "The student gives the teacher's answer on 97.00 % of samples at 1/33 of the size."
    )


def test_the_gain_is_told_with_its_sign() -> None:
    report = make_plain_report(num_test=100_000)
    assert wording.gain_sentence(report).endswith("distillation gained 0.42 points.")
    worse = changed(report, student=Scores(accuracy=0.9648))
    assert wording.gain_sentence(worse).endswith("distillation lost 1.00 points.")


def test_a_gain_that_may_be_chance_is_told_as_such() -> None:
    # 1.96 * sqrt((0.979 * 0.021 + 0.9748 * 0.0252) / 1000), by hand
    assert wording.chance_points(make_plain_report(num_test=1000)) == pytest.approx(1.317, abs=0.001)
    assert wording.gain_sentence(make_plain_report(num_test=1000)).endswith(
        "distillation gained 0.42 points, within the ±1.32 that chance allows on this many samples."
    )


def test_without_a_control_no_gain_is_claimed() -> None:
    assert "is not known" in wording.gain_sentence(changed(make_plain_report(), control=None))
