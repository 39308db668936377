import re

import pytest

from stillhouse.contract.report import AppliedRecipe, ClassScore, Curve, Report, Scores
from tests.fixtures.pages import Page
from tests.fixtures.results import DIGITS, make_plain_report
from worker.engine.export.curves import MAX_POINTS, draw_charts
from worker.engine.export.report_html import render_html

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_strings_of_the_user_stay_text() -> None:
    labels = [HOSTILE, *(f"<b>{digit}" for digit in DIGITS[1:])]
    page = Page(render_html(make_plain_report(name=HOSTILE, label_names=labels, notes=[HOSTILE])))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert page.tags.count("b") == 1  # our own
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 5  # title, name, class, confusion twice, note


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = render_html(make_plain_report())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in {"src", "srcset", "action", "background"}]
    links = [value or "" for name, value in page.attributes if name in {"href", "xlink:href"}]
    assert links
    assert all(value.startswith("#") for value in links)
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    html = render_html(make_plain_report())
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html)) <= {(each, "") for each in ids} | {
        ("", each) for each in ids
    }


def test_what_matters_is_on_the_page() -> None:
    text = Page(render_html(make_plain_report())).text
    for words in ("The student keeps 98.5", "97.90 %", "99.35 %", "97.48 %", "10 % of train, seed 0", "one seed"):
        assert words in text


def test_curves_take_their_colours_from_the_page() -> None:
    charts = draw_charts(make_plain_report())
    assert [chart.title for chart in charts] == ["Accuracy on validation", "Loss in training"]
    for chart in charts:
        assert chart.svg.count("var(--student)") >= 2  # the line, and the dot of the selected step
        assert "var(--control)" in chart.svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart.svg)) <= {"#000000", "#ffffff"}
        assert f'aria-label="{chart.title}"' in chart.svg
        assert chart.svg.startswith('<svg role="img"')


def test_curves_are_drawn_alike_twice() -> None:
    report = make_plain_report()
    assert [chart.svg for chart in draw_charts(report)] == [chart.svg for chart in draw_charts(report)]


def with_curve(steps: list[int], values: list[float]) -> Report:
    curve = Curve(name="distilling/loss", steps=steps, values=values)
    return make_plain_report().model_copy(update={"curves": [curve]})


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    (chart,) = draw_charts(with_curve(list(range(100_001)), [0.5] * 100_000 + [0.125]))
    assert len(chart.svg) < 40_000 + 60 * MAX_POINTS
    assert chart.summary == "Student from 0.500 to 0.125."


def test_a_curve_of_one_point_goes_nowhere() -> None:
    (chart,) = draw_charts(with_curve([5], [0.25]))
    assert chart.summary == "Student 0.250."


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [float("nan"), 1.0], [1e-9, 1e9], [-1.0, 1.0]])
def test_odd_curves_are_drawn(values: list[float]) -> None:
    assert draw_charts(with_curve(list(range(len(values))), values))


def test_a_report_without_labels_control_curves_or_latency_is_a_page() -> None:
    report = make_plain_report()
    subjects = [
        subject.model_copy(update={"scores": Scores(agreement=0.9), "final_scores": None, "latency": None})
        for subject in report.subjects if subject.name != "control"
    ]
    bare = report.model_copy(update={
        "subjects": subjects, "curves": [], "gain": None, "speed_ratio": None, "notes": [], "name": None,
    })
    page = Page(render_html(bare))
    assert page.open == []
    assert "Agreement with the teacher" in page.text
    assert "Accuracy" not in page.text.replace("accuracy", "")


def test_of_many_classes_the_weakest_are_listed() -> None:
    labels = [f"class {number}" for number in range(1000)]
    report = make_plain_report(label_names=["0", "1"])
    scores = [
        ClassScore(label=label, support=1, precision=1, recall=1, f1=1 - number / 1000)
        for number, label in enumerate(labels)
    ]
    subjects = [
        subject.model_copy(update={"scores": subject.scores.model_copy(update={"per_class": scores, "confusion": []})})
        for subject in report.subjects
    ]
    text = Page(render_html(report.model_copy(update={"subjects": subjects, "label_names": labels}))).text
    assert "The 200 weakest of 1,000" in text
    assert "class 999" in text
    assert "class 799" not in text
    assert "Confusion" not in text


def test_the_recipe_is_told_with_what_the_job_replaced() -> None:
    recipe = AppliedRecipe(
        name="hinton2015", overrides=["/objective", "/training/epochs"], objective={}, training={}, soft_labels={}
    )
    text = Page(render_html(make_plain_report().model_copy(update={"recipe": recipe}))).text
    assert "hinton2015; set by the job itself: /objective, /training/epochs" in text
