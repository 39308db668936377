from stillhouse.contract.report import AppliedRecipe
from tests.fixtures.results import make_plain_report, make_preprocessing
from worker.engine.export.card import escape, render_card


def test_strings_of_the_user_stay_text() -> None:
    hostile = "x](http://evil) <script>\n# Heading | `code`"
    report = make_plain_report(name=hostile, label_names=[hostile, "b"], notes=[hostile])
    card = render_card(report, make_preprocessing(), has_onnx=True)
    assert "<script>" not in card
    assert "](http" not in card.replace(r"\](http", "")
    assert "\n# Heading" not in card
    assert card.count(escape(hostile)) == 3
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# " + escape(hostile)]


def test_the_table_has_a_column_for_each_model() -> None:
    card = render_card(make_plain_report(), make_preprocessing(), has_onnx=True)
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert table[0].split("|")[2:5] == [" teacher ", " student ", " control "]
    assert {line.count("|") for line in table} == {5}
    assert "| Accuracy | 99.35 % | 97.90 % | 97.48 % | " in table


def test_onnx_is_told_where_it_is() -> None:
    report, preprocessing = make_plain_report(), make_preprocessing()
    assert "model.onnx" in render_card(report, preprocessing, has_onnx=True)
    assert "model.onnx" not in render_card(report, preprocessing, has_onnx=False)


def test_the_recipe_is_told_where_there_is_one() -> None:
    recipe = AppliedRecipe(
        name="multi_label", overrides=["/training/epochs"], objective={}, training={}, soft_labels={}
    )
    report = make_plain_report()
    told = render_card(report.model_copy(update={"recipe": recipe}), make_preprocessing(), has_onnx=True)
    name, own = escape("multi_label"), escape("/training/epochs")
    assert f"Seed {report.seed}. Recipe {name}, with the job's own {own}.\n" in told
    assert "Recipe" not in render_card(report.model_copy(update={"recipe": None}), make_preprocessing(), has_onnx=True)
