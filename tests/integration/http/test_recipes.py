"""GET /recipes, and what a job tells of the one that it was given."""

from typing import Any

from stillhouse.client import Client
from stillhouse.contract.recipes import applied, listed
from stillhouse.contract.report import AppliedRecipe
from stillhouse.contract.resources import Job, ListedRecipe, Page
from stillhouse.contract.spec import JobSpec
from tests.fixtures.files import idx
from tests.fixtures.reports import small_report
from tests.fixtures.service import ADMIN_KEY, Service


def test_recipes_are_told_without_a_key(service: Service) -> None:
    with service.client_with(None) as nobody:
        response = nobody.get("/recipes")
    assert response.status_code == 200
    told = Page[ListedRecipe].model_validate(response.json())
    assert told.data == listed()
    assert not told.has_more
    usual = next(recipe for recipe in told.data if recipe.chosen_for == ["classification"])
    (evidence,) = usual.evidence
    assert (evidence.benchmark, len(evidence.seeds)) == ("mnist_gain", 5)


def test_the_client_lists_them(service: Service) -> None:
    with Client(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as client:
        assert client.recipes() == listed()


def test_a_job_tells_what_its_recipe_came_to_and_keeps_what_was_sent(service: Service) -> None:
    spec = service.spec(recipe="hinton2015", training={"epochs": 3})
    submitted = Job.model_validate(service.client.post("/jobs", json=spec).json())
    shown = Job.model_validate(service.client.get(f"/jobs/{submitted.id}").json())
    for job in (submitted, shown):
        assert job.spec == spec
        assert job.recipe == applied(JobSpec.model_validate(spec))
        assert job.recipe is not None
        assert (job.recipe.name, job.recipe.overrides) == ("hinton2015", ["/training/epochs"])
    assert service.client.get("/jobs").json()["data"][0]["recipe"] is None


def test_a_job_without_a_recipe_tells_which_one_auto_chose(service: Service) -> None:
    told = service.client.get(f"/jobs/{service.submitted()}").json()["recipe"]
    assert (told["name"], told["overrides"]) == ("classification", [])


def test_an_ended_job_tells_what_was_trained(service: Service, monkeypatch: Any) -> None:  # noqa: ANN401 - pytest's
    trained = AppliedRecipe(name="of_before", objective={}, training={"epochs": 1}, soft_labels={})
    for report, told in (({"recipe": trained}, trained), ({}, None)):
        monkeypatch.setattr(
            "tests.fixtures.service.small_report", lambda report=report: small_report().model_copy(update=report)
        )
        job_id = service.submitted()
        service.succeed(service.claim(), {})
        assert Job.model_validate(service.client.get(f"/jobs/{job_id}").json()).recipe == told


def test_a_recipe_of_another_task_is_refused_at_its_field(service: Service) -> None:
    response = service.client.post("/jobs", json=service.spec(recipe="regression"))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_spec")
    (error,) = response.json()["errors"]
    assert error["pointer"] == "/recipe"
    assert "use auto or classification, hinton2015, augmented_views" in error["detail"]


def test_an_augmentation_of_a_table_is_told_at_who_gave_it(service: Service) -> None:
    train = {"inputs": service.uploaded(idx([20, 4])), "labels": service.uploaded(idx([20]))}
    table = {
        "data": {"kind": "idx", "train": train}, "teacher": {"kind": "train", "architecture": {"kind": "mlp"}},
    }
    flipped = {"augmentation": {"transforms": [{"kind": "flip"}]}}
    by_recipe = service.client.post("/jobs", json=service.spec(recipe="augmented_views", **table))
    by_spec = service.client.post("/jobs", json=service.spec(training=flipped, **table))
    assert [response.json()["param"] for response in (by_recipe, by_spec)] == ["/recipe", "/training/augmentation"]
    assert by_recipe.json()["detail"] == by_spec.json()["detail"]
