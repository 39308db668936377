"""Commands against a service that answers as the test says: what is printed where, and how they exit."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from stillhouse.contract import recipes
from stillhouse.contract.plan import Plan
from stillhouse.contract.report import AppliedRecipe
from tests.fixtures.plans import small_plan
from tests.fixtures.scripted_service import Reply, ScriptedService, a_job, a_stream, an_event, as_json, problem
from tests.integration.cli.conftest import Run

JOB = "job_00000000000000000001"
ART = "art_00000000000000000001"
SPEC = '{"teacher": {}}'


def job_that(status: str, **fields: Any) -> Reply:  # noqa: ANN401 - fields of a job
    return as_json(a_job(JOB, status=status, terminal=status in {"succeeded", "failed", "cancelled"}, **fields))


def watched(service: ScriptedService, status: str, **fields: Any) -> None:  # noqa: ANN401 - fields of a job
    service.on("GET", f"/jobs/{JOB}", job_that(status, **fields))
    last = an_event(1, {"type": "status", "status": status, "reason": "over"})
    stream = Reply(a_stream(last, ends=True), headers={"Content-Type": "text/event-stream"})
    service.on("GET", f"/jobs/{JOB}/events", stream)


def test_submit_prints_the_id_alone_on_standard_output(service: ScriptedService, run: Run, tmp_path: Path) -> None:
    service.on("POST", "/jobs", as_json(a_job(JOB, status="queued"), 202))
    file = tmp_path / "job.json"
    file.write_text(SPEC)
    result = run("submit", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{JOB}\n")
    assert f"stillhouse watch {JOB}" in result.stderr
    assert json.loads(service.seen[0].body) == {"teacher": {}}


def test_submit_reads_standard_input(service: ScriptedService, run: Run) -> None:
    service.on("POST", "/jobs", as_json(a_job(JOB, status="queued"), 202))
    assert run("submit", "-", "--json", stdin=SPEC).exit_code == 0
    assert json.loads(service.seen[0].body) == {"teacher": {}}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["submit"], "give either a job spec"),
        (["submit", "no-such-file.json"], "there is no file no-such-file.json"),
        (["submit", __file__], "is not JSON"),
        (["submit", "--teacher", "x.safetensors"], "--data"),
        (["submit", "job.json", "--name", "x", "--epochs", "3"], "--name, --epochs cannot be given beside a job spec"),
        (["submit", "--teacher", "x.safetensors", "--data", "."], "there is no teacher file"),
        (["distill", "x.safetensors", "--student", "mlp:64", "--data", "."], "there is no teacher file"),
        (["list", "--label", "nonsense"], "KEY=VALUE"),
        (["download", "--format", "pickle"], "--format"),
        (["update", "last"], "give --name, --label, --remove-label or --priority"),
        (["upload", "no-such-file"], "does not exist"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_write(run: Run, arguments: list[str], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_a_refusal_exits_with_3_and_names_each_field(service: ScriptedService, run: Run) -> None:
    errors = [
        {"pointer": "/student/hiden", "detail": "unknown key", "suggestion": "hidden"},
        {"pointer": "/data", "detail": "is required"},
    ]
    service.on("POST", "/jobs", problem(422, "invalid_spec", title="The job spec is not valid", errors=errors))
    result = run("submit", "-", stdin=SPEC)
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "error: The job spec is not valid. [invalid_spec]",
        "  student.hiden: unknown key Did you mean `hidden`?",
        "  data: is required",
    ]


def test_a_refused_action_tells_what_is_allowed(service: ScriptedService, run: Run) -> None:
    service.on("GET", f"/jobs/{JOB}", job_that("succeeded"))
    service.on("POST", f"/jobs/{JOB}/cancel", problem(409, "illegal_action", "It has ended.", allowed_actions=[]))
    result = run("cancel", JOB)
    assert result.exit_code == 3
    assert "It has ended. [illegal_action]" in result.stderr
    assert "nothing; its status is final" in result.stderr


@pytest.mark.parametrize(("command", "status"), [("pause", "pausing"), ("resume", "queued"), ("cancel", "cancelling")])
def test_asking_something_of_a_job_tells_where_it_stands_then(
    service: ScriptedService, run: Run, command: str, status: str
) -> None:
    service.on("GET", f"/jobs/{JOB}", job_that("running"))
    service.on("POST", f"/jobs/{JOB}/{command}", job_that(status))
    plain, as_data = run(command, JOB), run(command, JOB, "--json")
    assert (plain.exit_code, plain.stdout, plain.stderr.strip()) == (0, "", f"{JOB} is {status}")
    assert json.loads(as_data.stdout)["status"] == status


def test_cancel_may_keep_the_best(service: ScriptedService, run: Run) -> None:
    service.on("GET", f"/jobs/{JOB}", job_that("running"))
    service.on("POST", f"/jobs/{JOB}/cancel", job_that("cancelling", keep="best"))
    assert run("cancel", JOB, "--keep", "best").exit_code == 0
    assert run("cancel", JOB).exit_code == 0
    assert [seen.query for seen in service.requests("POST", f"/jobs/{JOB}/cancel")] == [{"keep": ["best"]}, {}]


def test_retry_prints_the_id_of_the_new_job(service: ScriptedService, run: Run) -> None:
    other = "job_00000000000000000002"
    service.on("GET", f"/jobs/{JOB}", job_that("failed"))
    service.on("POST", f"/jobs/{JOB}/retry", as_json(a_job(other, status="queued", retry_of=JOB), 202))
    result = run("retry", JOB, "--idempotency-key", "abc")
    assert (result.exit_code, result.stdout) == (0, f"{other}\n")
    assert f"stillhouse watch {other}" in result.stderr
    assert service.seen[-1].headers["idempotency-key"] == "abc"


def test_update_sends_what_is_to_be_different(service: ScriptedService, run: Run) -> None:
    service.on("GET", f"/jobs/{JOB}", job_that("queued"))
    service.on("PATCH", f"/jobs/{JOB}", job_that("queued", priority=-3))
    options = ("--label", "team=a", "--label", "note=", "--remove-label", "run", "--priority", "-3")
    result = run("update", JOB, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"changed {JOB}\n")
    assert json.loads(run("update", JOB, "--name", "", "--json").stdout)["priority"] == -3
    assert [json.loads(seen.body) for seen in service.requests("PATCH", f"/jobs/{JOB}")] == [
        {"labels": {"team": "a", "note": "", "run": None}, "priority": -3}, {"name": None},
    ]


def test_checkpoints_are_a_table_and_one_is_fetched(service: ScriptedService, run: Run, tmp_path: Path) -> None:
    told = {
        "artifact_id": ART, "attempt": 2, "phase": "distilling", "step": 40, "created_at": "2026-01-02T03:04:05Z",
        "size": 2048, "sha256": "0", "is_last": False, "evaluated_step": 40, "best_step": 30,
        "metrics": {"validation.accuracy": 0.98765, "validation.loss": None},
    }
    last = {**told, "artifact_id": "art_9", "step": 50, "metrics": {}, "best_step": None, "is_last": True}
    service.on("GET", f"/jobs/{JOB}", job_that("running"))
    service.on("GET", f"/jobs/{JOB}/checkpoints", as_json([told, last]))
    service.on("GET", f"/artifacts/{ART}/content", Reply(b"of step 40"))
    service.on("GET", "/artifacts/art_9/content", Reply(b"the last"))
    head, first, second = run("checkpoints", JOB).stdout.splitlines()
    assert head.split() == ["STEP", "PHASE", "WRITTEN", "SIZE", "ATTEMPT", "BEST", "SCORES", "CHECKPOINT"]
    assert "accuracy 0.9877, loss not finite" in first
    assert second.split()[-2:] == ["art_9", "(last)"]
    assert [one["step"] for one in json.loads(run("checkpoints", JOB, "--json").stdout)] == [40, 50]
    for options, content in ((("--step", "40"), b"of step 40"), ((), b"the last")):
        result = run("checkpoints", JOB, "--download", *options, "-o", str(tmp_path / "file"))
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'file'}\n")
        assert (tmp_path / "file").read_bytes() == content
    assert run("checkpoints", JOB, "--download", "--step", "41").exit_code == 2
    assert run("checkpoints", JOB, "--step", "40").exit_code == 2


def test_attempts_are_a_table(service: ScriptedService, run: Run) -> None:
    told = {
        "attempt": 1, "worker": "host:1", "started_at": "2026-01-02T03:04:05Z", "seconds": 125.0, "outcome": "lost",
        "reason": "the trainer was killed by SIGKILL",
    }
    service.on("GET", f"/jobs/{JOB}", job_that("running"))
    service.on("GET", f"/jobs/{JOB}/attempts", as_json([told, {**told, "attempt": 2, "outcome": None, "reason": None}]))
    result = run("attempts", JOB)
    assert result.exit_code == 0
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["ATTEMPT", "OUTCOME", "BEGAN", "TOOK", "WORKER", "REASON"]
    assert "lost" in first
    assert first.rstrip().endswith("2 min 5 s  host:1  the trainer was killed by SIGKILL")
    assert "goes on" in second
    assert [attempt["attempt"] for attempt in json.loads(run("attempts", JOB, "--json").stdout)] == [1, 2]


def test_a_wrong_key_tells_where_to_give_one(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", problem(401, "unauthenticated"))
    result = run("list")
    assert result.exit_code == 3
    assert "STILLHOUSE_API_KEY" in result.stderr


def test_a_broken_service_tells_the_id_of_the_request(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", problem(500, "internal_error", request_id="req_1"))
    result = run("list")
    assert result.exit_code == 1
    assert "req_1" in result.stderr


def test_no_service_exits_with_4(service: ScriptedService, run: Run) -> None:
    service.stop()
    result = run("list")
    assert result.exit_code == 4
    assert "connection refused" in result.stderr
    assert "stillhouse up" in result.stderr
    assert result.stderr.count("trying again") == 1


def test_no_known_service_exits_with_4(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STILLHOUSE_URL")
    monkeypatch.chdir(tmp_path)
    result = run("list")
    assert result.exit_code == 4
    assert "stillhouse up" in result.stderr


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 5)])
def test_watch_exits_as_the_job_ended(service: ScriptedService, run: Run, status: str, code: int) -> None:
    watched(service, status)
    result = run("watch", JOB)
    assert result.exit_code == code
    assert f"{status}: over" in result.stderr
    assert result.stdout == ""


def test_a_failed_job_says_why_where_and_what_to_do(service: ScriptedService, run: Run) -> None:
    watched(service, "failed", error={
        "code": "diverged", "message": "The loss became NaN; lower the learning rate.", "blame": "user",
        "retryable": False, "step": 7, "param": "/training/optimizer/learning_rate",
    })
    result = run("watch", JOB)
    assert "the job failed at step 7: The loss became NaN; lower the learning rate. [diverged]" in result.stderr
    assert "training.optimizer.learning_rate" in result.stderr
    assert f"stillhouse logs {JOB}" in result.stderr


def test_watch_can_speak_json(service: ScriptedService, run: Run) -> None:
    watched(service, "succeeded")
    result = run("watch", JOB, "--json")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [1]
    assert result.stderr == ""


def test_every_read_speaks_json(service: ScriptedService, run: Run) -> None:
    service.on("GET", f"/jobs/{JOB}", job_that("running"))
    service.on("GET", "/jobs", as_json({"data": [a_job(JOB)]}))
    service.on("GET", "/artifacts", as_json({"data": []}))
    service.on("GET", "/keys", as_json({"data": []}))
    service.on("GET", "/recipes", as_json({"data": []}))
    service.on("GET", f"/jobs/{JOB}/logs", as_json([]))

    def answered(result: Result) -> Any:  # noqa: ANN401 - any JSON
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    assert answered(run("show", JOB, "--json"))["id"] == JOB
    assert [job["id"] for job in answered(run("list", "--json"))] == [JOB]
    assert answered(run("artifacts", "--json")) == []
    assert answered(run("keys", "list", "--json")) == []
    assert answered(run("recipes", "--json")) == []
    assert answered(run("logs", JOB, "--json")) == []


def test_names_of_users_are_shown_as_they_are(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", as_json({"data": [a_job(JOB, name="[red]mine[/] [x]")]}))
    assert "[red]mine[/] [x]" in run("list").stdout


def test_ids_are_never_cut_in_a_pipe(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", as_json({"data": [a_job(JOB, name="n" * 128)]}))
    line = run("list").stdout.splitlines()[1]
    assert line.startswith(JOB)
    assert "n" * 128 in line


def test_last_is_the_newest_job(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", as_json({"data": [a_job(JOB)]}))
    service.on("GET", f"/jobs/{JOB}", job_that("queued", queue={"position": 3, "reason": "two jobs are before it"}))
    result = run("show")
    assert "number 3 in the queue" in result.stdout
    assert "two jobs are before it" in result.stdout


def test_last_of_none_is_told(service: ScriptedService, run: Run) -> None:
    service.on("GET", "/jobs", as_json({"data": []}))
    result = run("show")
    assert (result.exit_code, "no job yet" in result.stderr) == (2, True)


def test_an_unreadable_bundle_is_told(run: Run, tmp_path: Path) -> None:
    for name in ("student.zip", "input.npy"):
        (tmp_path / name).write_text("neither")
    result = run("predict", str(tmp_path / "student.zip"), str(tmp_path / "input.npy"))
    assert result.exit_code == 1
    assert "not a readable bundle" in result.stderr


def test_a_secret_is_printed_alone(service: ScriptedService, run: Run) -> None:
    made = {
        "id": "key_1", "name": "ci", "prefix": "sk_abc", "created_at": "2026-01-02T03:04:05Z",
        "secret": "sk_abcdef",  # pragma: allowlist secret
    }
    service.on("POST", "/keys", as_json(made, 201))
    result = run("keys", "create", "ci")
    assert (result.exit_code, result.stdout) == (0, "sk_abcdef\n")
    assert json.loads(service.seen[-1].body) == {"name": "ci"}
    run("keys", "create", "ci", "--scope", "submit", "--scope", "read", "--expires-in-days", "1", "--queued-jobs", "0")
    sent = json.loads(service.seen[-1].body)
    assert (sent["scopes"], sent["limits"]) == (["read", "submit"], {"queued_jobs": 0})
    assert timedelta(hours=23) < datetime.fromisoformat(sent["expires_at"]) - datetime.now(UTC) < timedelta(hours=25)


def test_a_scope_that_is_none_is_told(service: ScriptedService, run: Run) -> None:
    result = run("keys", "create", "ci", "--scope", "root")
    assert (result.exit_code, service.seen) == (2, [])
    assert "there are read, submit, admin" in result.stderr


def test_a_keys_new_secret_is_the_answer(service: ScriptedService, run: Run) -> None:
    made = {
        "id": "key_1", "name": "ci", "prefix": "sk_abc", "created_at": "2026-01-02T03:04:05Z",
        "secret": "sk_abcdef",  # pragma: allowlist secret
        "former_secret_ends_at": "2026-01-02T05:04:05Z",  # pragma: allowlist secret
    }
    service.on("POST", "/keys/key_1/rotate", as_json(made))
    result = run("keys", "rotate", "key_1", "--overlap-hours", "2")
    assert (result.exit_code, result.stdout) == (0, "sk_abcdef\n")
    assert json.loads(service.seen[-1].body) == {"overlap_seconds": 7200}
    assert "valid until 2026-01-02" in result.stderr


def test_what_a_key_may_do_and_how_it_stands_is_listed(service: ScriptedService, run: Run) -> None:
    common = {"name": "n", "prefix": "sk_", "created_at": "2026-01-02T03:04:05Z"}
    service.on("GET", "/keys", as_json({"data": [
        {**common, "id": "key_1", "scopes": ["read", "submit"], "expires_at": "2026-02-02T03:04:05Z"},
        {**common, "id": "key_2", "scopes": ["audit"], "expires_at": "2999-02-02T12:04:05Z"},
    ]}))
    lines = run("keys", "list", "--owner", "bob").stdout.splitlines()
    assert service.seen[-1].query == {"owner": ["bob"]}
    assert "read,submit" in lines[1]
    assert "expired" in lines[1]
    assert "audit" in lines[2]
    assert "until 2999-02-02" in lines[2]


# Recipes


def test_recipes_are_listed_with_what_was_measured_or_that_nothing_was(service: ScriptedService, run: Run) -> None:
    found = recipes.listed()
    service.on("GET", "/recipes", as_json({"data": [recipe.model_dump(mode="json") for recipe in found]}))
    result = run("recipes")
    assert result.exit_code == 0
    text = result.stdout
    assert [text.index(f"{recipe.name} for ") for recipe in found] == sorted(text.index(f"{recipe.name} for ")
                                                                            for recipe in found)
    assert "terms: 1.0 kl at T = 2.0, 0.5 cross_entropy" in text
    measured = found[0].evidence[0].figures[0]
    told = f"{fmean(measured.values):.4g} ({min(measured.values):.4g} to {max(measured.values):.4g})"
    assert f"{measured.name} {told}" in " ".join(text.split())
    assert text.count("not measured yet") == sum(not recipe.evidence for recipe in found)


def test_a_jobs_recipe_is_shown_with_what_it_replaced(service: ScriptedService, run: Run) -> None:
    recipe = {"name": "hinton2015", "overrides": ["/objective"], "objective": {}, "training": {}, "soft_labels": {}}
    service.on("GET", f"/jobs/{JOB}", job_that("running", recipe=recipe))
    assert "hinton2015, but /objective" in run("show", JOB).stdout
    planned = small_plan(recipe=AppliedRecipe.model_validate(recipe)).model_dump(mode="json")
    service.on("POST", "/plans", as_json(planning("succeeded", plan=planned)))
    assert "hinton2015, but /objective" in run("plan", "-", stdin=SPEC).stdout


def test_a_recipe_of_a_newer_service_is_listed_too(service: ScriptedService, run: Run) -> None:
    newer = {
        "name": "next", "tasks": ["dance"], "when": "Never.", "objective": {"terms": [{"kind": "leap", "height": 2}]},
        "training": {"floor": "wood"}, "cost": 1,
    }
    service.on("GET", "/recipes", as_json({"data": [newer]}))
    assert "next for dance" in run("recipes").stdout
    (told,) = json.loads(run("recipes", "--json").stdout)
    assert told["training"] == {"floor": "wood"}


# Plans

PLAN = "plan_00000000000000000001"


def planning(status: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a plan's resource
    return {
        "id": PLAN, "status": status, "terminal": status in {"succeeded", "failed", "cancelled"}, "attempt": 1,
        "created_at": "2026-01-02T03:04:05Z", **fields,
    }


def planned(service: ScriptedService) -> None:
    service.on("POST", "/plans", as_json(planning("succeeded", plan=small_plan().model_dump(mode="json"))))


def test_plan_shows_what_a_job_would_take(service: ScriptedService, run: Run) -> None:
    planned(service)
    result = run("plan", "-", stdin=SPEC)
    assert result.exit_code == 0, result.stderr
    assert json.loads(service.seen[0].body) == {"teacher": {}}
    shown = " ".join(result.stdout.split())
    for told in (
        "cnn 1-16-10 │ mlp 784-64-10", "50,890", "203.6 kB", "50,816",
        "classification on [1, 28, 28], 10 classes", "train 5,400 samples, given",
        "kl 2.50 on the first batch, 75 % of the gradient", "soft labels stored. The samples are the same",
        "128 samples in 0.500 ms, float32, contiguous",
        "about 6.6 s on cpu: distilling 0.6 s, exporting 6.0 s, 1,260 steps of distilling",
        "about 21.7 MB; 8.0 GB are free",
    ):
        assert told in shown
    assert "the [data] is odd" in result.stderr


def test_plan_answers_programs_with_the_plan_alone(service: ScriptedService, run: Run) -> None:
    planned(service)
    result = run("plan", "-", "--json", stdin=SPEC)
    assert Plan.model_validate_json(result.stdout) == small_plan()


def test_plan_without_a_teacher_module_shows_the_student_alone(service: ScriptedService, run: Run) -> None:
    made = small_plan(teacher=None).model_dump(mode="json")
    service.on("POST", "/plans", as_json(planning("succeeded", plan=made)))
    result = run("plan", "-", stdin=SPEC)
    assert result.exit_code == 0
    assert "teacher" not in result.stdout


def test_plan_drafts_a_spec_from_options(service: ScriptedService, run: Run, tmp_path: Path) -> None:
    planned(service)
    np.savez(tmp_path / "train.npz", inputs=np.zeros((2, 3)), labels=np.zeros(2, int))
    artifact = {
        "id": ART, "kind": "data", "name": "train.npz", "format": "npz", "size": 1,
        "created_at": "2026-01-02T03:04:05Z",
        "sha256": hashlib.sha256((tmp_path / "train.npz").read_bytes()).hexdigest(),
    }
    service.on("POST", "/artifacts", as_json(artifact, 201))
    result = run("plan", ART, "--student", "mlp:8", "--data", str(tmp_path), "--epochs", "3", "--json")
    assert result.exit_code == 0, result.stderr
    (asked,) = service.requests("POST", "/plans")
    assert json.loads(asked.body) == {
        "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp", "hidden": [8]},
        "data": {"kind": "npz", "train": {"artifact": ART, "inputs": "inputs", "labels": "labels"}},
        "training": {"epochs": 3},
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan"], "Missing argument"),
        (["plan", "no-such-file.json"], "there is no file no-such-file.json"),
        (["plan", "job.json", "--epochs", "3"], "--epochs cannot be given beside a job spec"),
        (["plan", "x.safetensors", "--data", "."], "there is no teacher file"),
    ],
)
def test_plan_says_what_to_write_instead(run: Run, arguments: list[str], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.replace("│", " ").split())


def test_a_plan_that_finds_a_mistake_exits_with_3_and_names_the_field(service: ScriptedService, run: Run) -> None:
    service.on("POST", "/plans", problem(422, "weights_mismatch", "missing: head", param="/teacher/architecture"))
    result = run("plan", "-", stdin=SPEC)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines()[-2:] == ["error: missing: head. [weights_mismatch]", "  at teacher.architecture"]
