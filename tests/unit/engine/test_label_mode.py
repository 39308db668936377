"""When the teacher is asked: what the spec says, else what costs less, by counted work."""

from typing import Any

import pytest

from stillhouse.contract.events import Noted
from stillhouse.contract.spec import AutoSoftLabels, JobSpec, LayerPair
from stillhouse.contract.spec.term import FeatureTerm
from tests.fixtures.lessons import Lesson
from worker.engine.softlabels import Cost, decide
from worker.engine.softlabels.mode import MAX_AUTO_BYTES, MIN_AUTO_VIEWS

AUGMENTATION = {"transforms": [{"kind": "flip"}]}
CHEAP = Cost(num_samples=1000, num_outputs=10, student_flops=100, teacher_flops=50)
DEAR = Cost(num_samples=1000, num_outputs=10, student_flops=100, teacher_flops=500)


def spec(*, epochs: int = 100, augmented: bool = True, **sections: Any) -> JobSpec:  # noqa: ANN401 - JSON
    art = "art_" + "0" * 20
    return JobSpec.model_validate({
        "teacher": {"kind": "checkpoint", "artifact": art}, "student": {"kind": "mlp"},
        "data": {"kind": "npz", "train": {"artifact": art}},
        "training": {"epochs": epochs} | ({"augmentation": AUGMENTATION} if augmented else {}), **sections,
    })


@pytest.mark.parametrize(("cost", "sections", "views"), [
    (DEAR, {"augmented": False}, 1),
    (DEAR, {"augmented": False, "soft_labels": {"kind": "views", "views": 1}}, 1),
    (DEAR, {"augmented": False, "soft_labels": {"kind": "online"}}, None),
    (DEAR, {"soft_labels": {"kind": "online"}}, None),
    (CHEAP, {"soft_labels": {"kind": "views", "views": 4}}, 4),
    (CHEAP, {"soft_labels": {"kind": "views", "views": 4}, "epochs": 3}, 3),  # the fourth would never be seen
    (CHEAP, {}, None),
    (DEAR, {}, 40),  # 100 * 100 + 40 * 500 is half of 100 * (100 + 500)
    (DEAR, {"epochs": 20}, 8),
    (DEAR, {"epochs": 19}, None),
    (DEAR._replace(teacher_flops=None), {}, None),
    (DEAR._replace(num_samples=MAX_AUTO_BYTES // 20 // 9), {}, 9),
    (DEAR._replace(num_samples=MAX_AUTO_BYTES // 20 // 7), {}, None),
])
def test_the_mode_is_the_specs_or_what_costs_less(cost: Cost, sections: dict[str, Any], views: int | None) -> None:
    mode = decide(spec(**sections), cost)
    assert (mode.num_views, mode.is_online, mode.stored_views) == (views, views is None, views or 0)
    assert mode.note().data["views"] == views


def test_views_that_auto_stores_halve_the_work_and_one_more_would_not() -> None:
    for teacher_flops in range(0, 3000, 130):
        cost = DEAR._replace(teacher_flops=teacher_flops)
        views = decide(spec(), cost).num_views or 0
        online = 100 * (cost.student_flops + teacher_flops)
        assert views == 0 or 100 * cost.student_flops + views * teacher_flops <= online / 2
        one_more = max(views + 1, MIN_AUTO_VIEWS)
        assert 100 * cost.student_flops + one_more * teacher_flops > online / 2


def test_the_rule_is_told_where_the_spec_is_explained() -> None:
    about = AutoSoftLabels.__doc__ or ""
    assert f"if these are {MIN_AUTO_VIEWS} or more and take at most {MAX_AUTO_BYTES >> 30} GiB" in about


def test_no_term_that_asks_the_teacher_stores_nothing() -> None:
    mode = decide(spec(objective={"terms": [{"kind": "cross_entropy"}]}), DEAR)
    assert (mode.is_online, mode.stored_views) == (False, 0)


def test_terms_that_look_at_layers_need_the_teacher_online() -> None:
    looking = FeatureTerm(pairs=[LayerPair(student="body.0", teacher="body.0")])
    objective = spec(objective={"terms": [{"kind": "kl"}]}).effective_objective.model_copy(update={"terms": [looking]})
    of_features = spec(augmented=False).model_copy(update={"objective": objective})
    mode = decide(of_features, DEAR)
    assert mode.is_online
    assert "layers" in mode.note().message


def test_the_decision_and_its_reason_are_in_the_log(lesson: Lesson) -> None:
    notes = [event for event in lesson.job(lesson.spec()).train(None) if isinstance(event, Noted)]
    (told,) = [note for note in notes if note.code == "soft_labels"]
    assert told.data == {"mode": "stored", "views": 1}
    assert "once for each sample" in told.message


