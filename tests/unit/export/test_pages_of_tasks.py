"""What page, card and terminal say of each task."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from stillhouse import wording
from stillhouse.cli.output import report_table
from stillhouse.contract.report import Curve, Report, Scores
from stillhouse.contract.spec import Classification, Embedding, MultiLabel, Regression
from stillhouse.contract.spec import Task as Section
from tests.fixtures.pages import Page
from tests.fixtures.results import make_plain_report, make_preprocessing
from worker.engine.export.card import render_card
from worker.engine.export.curves import draw_charts
from worker.engine.export.report_html import render_html

TAGS = ["cat", "dog", "<b>cow"]
SECTIONS: dict[str, Section] = {
    "multi_label": MultiLabel(threshold=0.3), "regression": Regression(), "embedding": Embedding(),
}
WORDS = {
    "multi_label": [
        "The student keeps 98.5", "mean average precision at 1/", "reaches a mean average precision of 97.48",
        "distillation gained 0.42 points.", "Mean average precision", "97.90 %", "teacher 99.35 %", "All labels right",
        "61.00 %", "Samples with a wrong label", "Labels How the student fares on each label", "88.00 %", "<b>cow",
        "Multi-label of images, 3 labels; a label counts as true from a probability of 0.3 on",
        "best mean average precision on 500 samples",
    ],
    "regression": [
        "The student reaches an R² of 0.9790, its teacher 0.9935, at 1/",
        "the same student reaches an R² of 0.9748 instead of 0.9790: distillation gained 0.0042.", "teacher 0.9935",
        "Mean absolute error", "12,346", "R² against the teacher", "0.9700",
        "Targets How the student fares on each target", "<b>cow", "Regression of images, 3 targets", "best R² on 500",
    ],
    "embedding": [
        "vectors have a mean cosine of 0.9790 with the teacher", "there is no student without one to compare with",
        "97.0 % same neighbours", "Cosine with the teacher", "Rank correlation of similarities", "0.9100",
        "Embedding of images, 3 dimensions", "not how useful its vectors are", "train: 4,500 samples (given)",
    ],
}
# What would be nonsense on the page of the task.
NONSENSE = {
    "multi_label": ["Accuracy", "classes", "Confusion", "right more often", "logits", "R²"],
    "regression": ["Accuracy", "classes", "Confusion", "Precision", "points", "logits"],
    "embedding": ["Accuracy", "classes", "Confusion", "Precision", "labelled", "Control", "Losses of student and"],
}


def report_of(kind: str, **more: object) -> Report:
    names = [] if kind == "embedding" else TAGS
    report = make_plain_report(task=SECTIONS[kind], label_names=names, num_outputs=3)
    return report.model_copy(update=more)


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_page_says_what_the_task_is_about_and_nothing_else(kind: str) -> None:
    page = Page(render_html(report_of(kind)))
    assert page.open == []
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert [words for words in WORDS[kind] if words not in text] == []
    assert [words for words in NONSENSE[kind] if words in text] == []
    assert page.tags.count("b") == 1  # our own


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_charts_are_called_by_their_names(kind: str) -> None:
    steps = [10, 20, 30]
    report = report_of(kind, curves=[
        Curve(name=f"distilling/{metric}", steps=steps, values=[-0.5, 0.5, 0.9])
        for metric in (
            "loss", "loss.bce", "loss.mine", "gradient_share.bce", "validation.agreement",
            f"validation.{SECTIONS[kind].quality}",
        )
    ])
    charts = {chart.title: chart for chart in draw_charts(report)}
    titles, told = {
        "multi_label": (["Mean average precision on validation", "Agreement with the teacher on validation"],
                        ["-50.00 % to 90.00 %", "-50.00 % to 90.00 %"]),
        "regression": (["R² on validation", "R² against the teacher on validation"],
                       ["-0.5000 to 0.9000", "-0.5000 to 0.9000"]),
        "embedding": (["Cosine with the teacher on validation", "Neighbours that are the teacher's on validation"],
                      ["-0.5000 to 0.9000", "-50.00 % to 90.00 %"]),
    }[kind]
    assert list(charts) == [
        *titles, "Loss in training", "Cross-entropy with the teacher (bce)", "Share of the gradient: bce",
        "Term of the loss: mine",
    ]
    assert [charts[title].is_minor for title in titles] == [False, False]
    assert all(words in charts[title].summary for title, words in zip(titles, told, strict=True))
    assert charts["Share of the gradient: bce"].is_minor
    assert charts["Share of the gradient: bce"].summary == "Student from -50.00 % to 90.00 %."


CARDS = {
    "multi_label": [
        "pipeline_tag: image-classification", "multi-label]", "print(answer.labels)", "and gives logits",
        "`logits` (batch, 3)", "- Labels (3): cat, dog, \\<b\\>cow.", "from a probability of 0.3 on",
        "| Mean average precision | 99.35 % | 97.90 % | 97.48 % | ", "Task: multi-label, 3 labels.",
    ],
    "regression": [
        "regression]", "print(answer.values)", "gives the same values", "`values` (batch, 3)",
        "- Targets (3): cat, dog",
        "| R² | 0.9935 | 0.9790 | 0.9748 | ",
    ],
    "embedding": [
        "pipeline_tag: image-feature-extraction", "embedding]", "print(answer.values)", "`embedding` (batch, 3)",
        "- Outputs: a vector of 3 dimensions.", "| Cosine with the teacher | \\- | 0.9790 | ",
    ],
}


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_card_says_how_the_answers_look(kind: str) -> None:
    card = render_card(report_of(kind), make_preprocessing(), has_onnx=True)
    assert [words for words in CARDS[kind] if words.replace("\\-", "-") not in card.replace("\\-", "-")] == []
    assert "\n---\n" in card
    assert "\n\n---" not in card.split("\n# ")[0]


def test_a_card_has_no_tag_where_hubs_have_none() -> None:
    head = render_card(report_of("regression"), make_preprocessing(), has_onnx=True).split("\n# ")[0]
    assert "pipeline_tag" not in head
    table = render_card(report_of("regression"), make_preprocessing(is_table=True), has_onnx=True)
    assert "pipeline_tag: tabular-regression" in table


def printed(report: Report) -> str:
    output = io.StringIO()
    Console(file=output, width=120).print(report_table(report))
    return output.getvalue()


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("multi_label", ["mean average precision", "all labels right", "macro F1", "micro F1", "agrees with teacher"]),
        ("regression", ["R²", "mean absolute error", "root mean squared error", "R² against teacher"]),
        ("embedding", ["cosine with teacher", "same neighbours", "similarities, rank correlation"]),
    ],
)
def test_the_terminals_table_has_the_tasks_rows(kind: str, rows: Sequence[str]) -> None:
    lines = [line.split("│")[1].strip() for line in printed(report_of(kind)).splitlines() if line.startswith("│")]
    assert lines[0] == "architecture"
    assert lines[1 : 1 + len(rows)] == rows
    assert lines[1 + len(rows)] == "parameters"


@pytest.mark.parametrize(
    ("kind", "scores", "said"),
    [
        ("multi_label", Scores(agreement=0.9), "The student decides 90.00 % of the labels as the teacher does at 1/"),
        ("regression", Scores(agreement=0.9), "The student's values follow the teacher's with an R² of 0.9000, at 1/"),
        ("classification", Scores(agreement=0.9), "The student gives the teacher's answer on 90.00 % of samples at 1/"),
    ],
)
def test_without_labels_the_verdict_is_about_the_teacher(kind: str, scores: Scores, said: str) -> None:
    report = make_plain_report(task=SECTIONS.get(kind, Classification()))
    subjects = [subject.model_copy(update={"scores": scores, "final_scores": None}) for subject in report.subjects]
    bare = report.model_copy(update={"subjects": subjects, "gain": None})
    assert wording.verdict(bare).startswith(said)
    page = Page(render_html(bare))
    assert page.open == []


def test_a_student_above_its_teacher_is_said_to_be() -> None:
    report = report_of("multi_label")
    better = [
        subject.model_copy(update={"scores": Scores(average_precision=0.8 if subject.name == "teacher" else 0.9)})
        for subject in report.subjects
    ]
    said = wording.verdict(report.model_copy(update={"subjects": better}))
    assert said.startswith("The student finds labels with more precision than its teacher, at 1/")


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_teacher_of_unknown_size_is_compared_by_what_is_known(kind: str) -> None:
    report = report_of(kind, size_ratio=None, parameter_ratio=None, speed_ratio=None)
    unknown = {"num_parameters": None, "num_bytes": None, "latency": None}
    subjects = [
        subject.model_copy(update=unknown) if subject.name == "teacher" else subject for subject in report.subjects
    ]
    odd = report.model_copy(update={"subjects": subjects})
    assert "at a size that cannot be compared" in wording.verdict(odd)
    page = Page(render_html(odd))
    assert page.open == []
    assert "teacher\N{RIGHT SINGLE QUOTATION MARK}s not known" in page.text
    assert "| Parameters | - | " in render_card(odd, make_preprocessing(), has_onnx=True)
    assert "parameters" in printed(odd)


def test_a_negative_r2_is_told_as_it_is() -> None:
    report = report_of("regression")
    subjects = [
        subject.model_copy(update={"scores": Scores(r2=-0.25 if subject.name == "student" else -0.5)})
        for subject in report.subjects
    ]
    bad = report.model_copy(update={"subjects": subjects, "gain": 0.25})
    assert "an R² of -0.2500, its teacher -0.5000" in wording.verdict(bad)
    assert Page(render_html(bad)).open == []


def test_partly_labelled_splits_are_told_with_their_counts() -> None:
    report = make_plain_report()
    splits = [split.model_copy(update={"num_labelled": 400}) for split in report.splits]
    partly = report.model_copy(update={"splits": splits})
    text = Page(render_html(partly)).text
    assert "1,000 samples of the test split, 400 of them with labels to score by." in text
    assert "train: 4,500 samples, 400 of them labelled (given)" in text
    assert "(1,000 samples, 400 labelled)" in render_card(partly, make_preprocessing(), has_onnx=True)
    # 1.96 * sqrt((0.979 * 0.021 + 0.9748 * 0.0252) / 400), by hand
    assert wording.chance_points(partly) == pytest.approx(2.082, abs=0.001)


def test_chance_is_told_of_accuracy_only() -> None:
    assert wording.chance_points(report_of("multi_label")) is None
    assert wording.chance_points(report_of("regression")) is None


def test_a_task_of_a_newer_service_is_still_a_report() -> None:
    odd = make_plain_report().model_copy(update={"task": "segmentation"})
    assert wording.verdict(odd).startswith("The student keeps 98.5 % of the teacher's accuracy")
    assert "accuracy" in printed(odd)
