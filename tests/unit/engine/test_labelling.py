"""Every soft label is made once: found where it is, made where it is not, continued where making it was cut off."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.contract.events import Noted, PhaseStarted, SoftLabelsSaved, TrainerEvent
from stillhouse.contract.failures import NonFiniteSoftLabelsError
from stillhouse.contract.lending import Lent, Wanted
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase, Request
from tests.fixtures.labels import Passes, SteeredStore, in_turn
from tests.fixtures.lessons import TRAIN, Lesson, asked_at, curves, everything, never
from worker.engine import answers as answers_module
from worker.engine import pipeline
from worker.engine.answers import MappedAnswers
from worker.engine.courses import Courses
from worker.engine.pipeline import Job
from worker.engine.requests import StopRequestedError
from worker.engine.softlabels import Shown, labelling, plan
from worker.engine.teachers import NetworkTeacher

VIEWS: dict[str, Any] = {
    "training": {
        "epochs": 5, "batch_size": 16,
        "augmentation": {"transforms": [{"kind": "shift", "pixels": 1}, {"kind": "flip"}]},
    },
    "soft_labels": {"kind": "views", "views": 2},
    "control": False,
}
ROWS, CHUNK = 16, 8
# 72 training samples in 2 views, 24 validation and 40 test samples: shards of each, and passes of the teacher.
NUM_SHARDS = 2 * 5 + 2 + 3
NUM_PASSES = 2 * 9 + 3 + 5


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "NUM_SHARD_ROWS", ROWS)
    monkeypatch.setattr(plan, "CHUNK", CHUNK)
    monkeypatch.setattr(labelling, "CHUNK", CHUNK)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    found = Passes()
    found.patch(monkeypatch)
    return found


def saved(events: list[TrainerEvent]) -> list[tuple[str, int, int]]:
    return [(event.split, event.view, event.shard) for event in events if isinstance(event, SoftLabelsSaved)]


def notes(events: list[TrainerEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, Noted)]


def steered(lesson: Lesson, spec: JobSpec, change: Callable[[Wanted, Lent], Lent]) -> tuple[Job, SteeredStore]:
    """A job whose store answers as the test says."""
    job = lesson.job(spec)
    store = SteeredStore(lesson.labels("steered"), change)
    job.store = store
    return job, store


def test_a_first_job_makes_every_shard_once(lesson: Lesson, passes: Passes) -> None:
    events = list(lesson.job(lesson.spec(**VIEWS)).train(None))
    assert saved(events) == [
        *(("train", view, shard) for view in range(2) for shard in range(5)),
        *(("validation", 0, shard) for shard in range(2)), *(("test", 0, shard) for shard in range(3)),
    ]
    assert passes.count == NUM_PASSES
    assert [event.total_steps for event in events if isinstance(event, PhaseStarted)][1] == NUM_PASSES
    assert "soft_labels_shared" not in notes(events)


def test_a_second_job_with_another_student_asks_the_teacher_nothing(lesson: Lesson, passes: Passes) -> None:
    list(lesson.job(lesson.spec(**VIEWS), labels="shared").train(None))
    before = passes.count
    other = lesson.spec(**VIEWS | {"student": {"kind": "cnn", "channels": [4]}, "seed": 7}, objective={
        "terms": [{"kind": "kl", "temperature": 5.0}],
    })
    events = list(lesson.job(other, "second", labels="shared").train(None))
    assert passes.count == before
    assert saved(events) == []
    assert Phase.SOFT_LABELS not in [event.phase for event in events if isinstance(event, PhaseStarted)]
    (told,) = [event.data for event in events if isinstance(event, Noted) and event.code == "soft_labels_shared"]
    assert (told["num_shards"], told["shared"]) == (NUM_SHARDS, NUM_SHARDS)


@pytest.mark.parametrize("sections", [VIEWS, {"control": False}])
def test_found_labels_train_the_same_student_as_made_ones(lesson: Lesson, sections: dict[str, Any]) -> None:
    spec = lesson.spec(**sections)
    first = lesson.job(spec, "first", labels="shared")
    list(first.train(None))
    second = lesson.job(spec, "second", labels="shared")
    list(second.train(None))
    weights, expected = everything(second), everything(first)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    assert curves(second) == curves(first)
    for name, rows in first.keeper.soft_labels.items():
        assert torch.equal(rows, second.keeper.soft_labels[name])


def test_mapped_labels_train_the_same_student_as_ready_ones(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = lesson.spec(**VIEWS)
    ready = lesson.train(spec, "ready")
    monkeypatch.setattr(answers_module, "MAX_READY_BYTES", 0)
    mapped = lesson.train(spec, "mapped")
    assert isinstance(mapped.answers, MappedAnswers)
    weights, expected = everything(mapped), everything(ready)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def test_stored_views_are_what_the_teacher_says_of_what_the_student_sees(lesson: Lesson) -> None:
    job = lesson.train(lesson.spec(**VIEWS))
    course = job.courses.student(job.teacher, job.keeper.soft_labels, job.answers)
    teacher = job.teacher
    assert isinstance(teacher, NetworkTeacher)
    seen = set()
    for step in (0, course.batches.steps_per_epoch, 2 * course.batches.steps_per_epoch):
        batch = course.batch(step)
        view = step // course.batches.steps_per_epoch % 2
        shown = job.courses.shown("train", batch.ids, view).images
        assert batch.teacher is not None
        expected = teacher.answer(shown)
        assert torch.allclose(batch.teacher, expected, atol=float(expected.abs().max()) * 2**-9)
        assert torch.equal(batch.inputs, job.prepared.dataset.preprocessing.normalize(shown))
        seen.add(view)
    assert seen == {0, 1}
    again, first = course.feed(torch.arange(8), 0), course.feed(torch.arange(8), 1)
    assert not torch.equal(again.inputs, first.inputs)


def test_the_control_is_not_bound_to_the_stored_views(lesson: Lesson) -> None:
    job = lesson.train(lesson.spec(**VIEWS | {"control": True}))
    student = job.courses.student(job.teacher, job.keeper.soft_labels, job.answers)
    control = job.courses.control(job.keeper.soft_labels)
    assert (student.num_views, control.num_views) == (2, None)


@pytest.mark.parametrize("call", [1, 2, 8, 9, 18, 26])
def test_a_stop_at_any_pass_loses_no_finished_shard(lesson: Lesson, passes: Passes, call: int) -> None:
    spec = lesson.spec(**VIEWS)
    job = lesson.job(spec, "stopped", asked_at(call, Request.DRAIN), labels="kept")
    events: list[TrainerEvent] = []
    with pytest.raises(StopRequestedError):
        events.extend(_until_stopped(job, events))
    finished = saved(events)
    assert passes.count == call - 1
    passes.count = 0
    rest = list(lesson.job(spec, "resumed", labels="kept").train(job.scratch / "checkpoint.safetensors"))
    assert set(saved(rest)).isdisjoint(finished)
    assert len(saved(rest)) + len(finished) == NUM_SHARDS
    made = sum(-(-_num_samples(split, shard) // CHUNK) for split, _, shard in finished)
    assert passes.count == NUM_PASSES - made


def _until_stopped(job: Job, events: list[TrainerEvent]) -> list[TrainerEvent]:
    for event in job.train(None):
        events.append(event)  # noqa: PERF402 - kept also when it stops
    return []


def _num_samples(split: str, shard: int) -> int:
    return min(ROWS, {"train": 72, "validation": 24, "test": 40}[split] - shard * ROWS)


@pytest.mark.parametrize(("victim", "place"), [(0, 0), (7, 0.5), (14, 0.99)])
def test_a_store_with_files_cut_off_makes_those_anew(
    lesson: Lesson, passes: Passes, victim: int, place: float
) -> None:
    spec = lesson.spec(**VIEWS)
    reference = lesson.job(spec, "first", labels="kept")
    list(reference.train(None))
    path = sorted((lesson.folder / "labels" / "kept").iterdir())[victim]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(place * len(whole))])
    (path.parent / f"{path.stem}.partial").write_bytes(whole[:100])
    passes.count = 0
    job = lesson.job(spec, "second", labels="kept")
    events = list(job.train(None))
    assert len(saved(events)) == 1
    assert passes.count <= ROWS // CHUNK
    assert path.read_bytes() == whole
    weights, expected = everything(job), everything(reference)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def test_other_samples_other_labels(lesson: Lesson, passes: Passes) -> None:
    list(lesson.job(lesson.spec(**VIEWS), labels="shared").train(None))
    lesson.write_blobs(TRAIN, 96, seed=5)
    passes.count = 0
    events = list(lesson.job(lesson.spec(**VIEWS), "other", labels="shared").train(None))
    assert {split for split, _, _ in saved(events)} == {"train", "validation"}
    assert passes.count == 2 * 9 + 3


def test_a_teacher_that_the_job_trains_shares_labels_with_its_equal(lesson: Lesson, passes: Passes) -> None:
    def job(scratch: str, seed: int, **student: object) -> list[TrainerEvent]:
        teacher = {"kind": "train", "architecture": {"kind": "mlp", "hidden": [8]}, "training": {"epochs": 1}}
        spec = lesson.spec(teacher=teacher, student={"kind": "mlp", **student}, control=False, seed=seed)
        passes.count = 0
        return list(lesson.job(spec, scratch, labels="shared").train(None))

    assert len(saved(job("first", 0))) == 5 + 2 + 3
    assert saved(job("same", 0, hidden=[9])) == []
    assert passes.count == 0
    assert len(saved(job("other", 1))) == 5 + 2 + 3


def test_checkpoints_carry_no_soft_labels_of_the_training_split(lesson: Lesson) -> None:
    job = lesson.train(lesson.spec())
    assert set(job.keeper.soft_labels) == {"validation", "test"}


def test_an_ended_training_asks_for_no_labels_any_more(lesson: Lesson, passes: Passes) -> None:
    spec = lesson.spec(**VIEWS | {"control": True})
    job = lesson.train(spec)
    kept = job.keeper.save(Phase.CONTROL, 1)
    passes.count = 0
    again = lesson.job(spec, "again", labels="empty")
    list(again.train(job.scratch / kept.file))
    assert passes.count == 0
    assert not (lesson.folder / "labels" / "empty").exists()


def test_an_answer_that_is_not_finite_names_the_sample(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, answer = Courses.shown, NetworkTeacher.answer
    asked: list[torch.Tensor] = []

    def noted(courses: Courses, split: str, ids: torch.Tensor, view: int) -> Shown:
        asked.append(ids)
        return shown(courses, split, ids, view)

    def spoilt(teacher: NetworkTeacher, arranged: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        answers = answer(teacher, arranged, given)
        return torch.where((asked[-1] == 23)[:, None], torch.nan, answers) if asked else answers

    monkeypatch.setattr(Courses, "shown", noted)
    monkeypatch.setattr(NetworkTeacher, "answer", spoilt)
    with pytest.raises(NonFiniteSoftLabelsError, match=r"sample 23 of (train|validation)") as caught:
        list(lesson.job(lesson.spec()).train(None))
    assert caught.value.param == "/teacher"


def test_what_another_job_makes_is_waited_for(
    lesson: Lesson, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other job makes all shards but one while this one waits."""
    monkeypatch.setattr(labelling, "POLL_SECONDS", 0.0)
    list(lesson.job(lesson.spec(**VIEWS), "maker", labels="made").train(None))
    made = sorted((lesson.folder / "labels" / "made").iterdir())
    passes.count = 0

    def busy(wanted: Wanted, lent: Lent) -> Lent:
        del wanted, lent
        return Lent(makers=["job_other"])

    def first_is_free(wanted: Wanted, lent: Lent) -> Lent:
        del lent
        return Lent(to_make=wanted.keys[:1], makers=["job_other"])

    def done(wanted: Wanted, lent: Lent) -> Lent:
        del lent
        for path in made:
            shutil.copy(path, lesson.folder / "labels" / "steered" / path.name)
        return store.folder.ask(wanted)

    job, store = steered(lesson, lesson.spec(**VIEWS), in_turn(first_is_free, busy, busy, done))
    events = list(job.train(None))
    assert saved(events) == [("train", 0, 0)]
    assert passes.count == ROWS // CHUNK
    waits = [event for event in events if isinstance(event, Noted) and event.code == "soft_labels_awaited"]
    assert [event.data for event in waits] == [{"jobs": ["job_other"]}]
    assert store.asked[1].keys == store.asked[0].keys[1:]
    assert len(store.asked) == 4


def test_whoever_waits_heeds_requests(lesson: Lesson, passes: Passes) -> None:
    job, _ = steered(lesson, lesson.spec(**VIEWS), lambda _, __: Lent(makers=["job_other"]))
    job.requested = asked_at(3, Request.CANCEL)
    with pytest.raises(StopRequestedError):
        list(job.train(None))
    assert passes.count == 0


def test_a_maker_that_dies_is_followed(lesson: Lesson, passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "POLL_SECONDS", 0.0)
    job, _ = steered(lesson, lesson.spec(**VIEWS), in_turn(*[lambda _, __: Lent(makers=["job_other"])] * 3))
    assert len(saved(list(job.train(None)))) == NUM_SHARDS
    assert passes.count == NUM_PASSES


def test_waiting_that_does_not_pay_ends(lesson: Lesson, passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other job holds on to its shards for ever."""
    monkeypatch.setattr(labelling, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(labelling, "MIN_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(labelling, "PATIENCE", 0.0)
    job, _ = steered(
        lesson, lesson.spec(**VIEWS), lambda _, lent: Lent(ready=lent.ready, makers=["job_other"])
    )
    events = list(job.train(None))
    assert len(saved(events)) == NUM_SHARDS
    assert saved(events)[0] == ("test", 0, 2)  # the other begins with the first
    assert passes.count == NUM_PASSES


def test_more_shards_than_one_question_takes_are_all_found(
    lesson: Lesson, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "MAX_WANTED", 4)
    list(lesson.job(lesson.spec(**VIEWS), labels="shared").train(None))
    passes.count = 0
    events = list(lesson.job(lesson.spec(**VIEWS), "second", labels="shared").train(None))
    assert (saved(events), passes.count) == ([], 0)


@pytest.mark.parametrize(("seconds", "num"), [(0.0, 512), (0.5, 4), (3.0, 1)])
def test_as_much_is_taken_on_as_is_made_in_a_moment(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch, seconds: float, num: int
) -> None:
    expected = dict.fromkeys(Phase, 0.0) | {Phase.SOFT_LABELS: seconds / (ROWS // CHUNK) * NUM_PASSES}
    monkeypatch.setattr(pipeline, "rehearse", lambda *_: expected)
    job, store = steered(lesson, lesson.spec(**VIEWS), lambda _, lent: lent)
    for event in job.train(None):
        if isinstance(event, SoftLabelsSaved):
            break
    assert store.asked[0].num_to_make == num


def test_the_engine_alone_keeps_labels_in_its_scratch_folder(lesson: Lesson, tmp_path: Path) -> None:
    job = Job(lesson.spec(**VIEWS), lesson.inputs, tmp_path, device="cpu", requested=never)
    events = [event for event in job.train(None) if isinstance(event, SoftLabelsSaved)]
    assert len(events) == NUM_SHARDS
    assert all((tmp_path / event.file).is_file() for event in events)
