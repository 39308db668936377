"""Numbers of a real API and a real worker; alerts and dashboard name what is there, and say what they mean."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stillhouse.contract.status import Phase, Status
from tests.fixtures.house import BAD_REQUEST, GOOD_REQUEST, House
from tests.fixtures.promql import History, Samples, names, samples
from tests.fixtures.service import ADMIN_KEY

ROOT = Path(__file__).parents[3]
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/stillhouse.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
PAGE = (ROOT / "docs/observability.md").read_text()
# Prometheus' own.
OF_PROMETHEUS = {"up"}
LAST_ROUND = "stillhouse_reaper_last_round_timestamp_seconds"
SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created")


def value(text: str, name: str, **labels: str) -> float:
    found = [
        number for (of, have), number in samples(text).items() if of == name and set(labels.items()) <= set(have)
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_the_api_counts_requests_jobs_and_stores(house: House) -> None:
    text = house.api_metrics
    assert value(text, "stillhouse_http_request_seconds_count", method="POST", route="/jobs", status="202") == 2
    assert value(text, "stillhouse_store_seconds_count", store="files", operation="write") == 6
    assert value(text, "stillhouse_jobs", queue="cpu", status="queued") == 0
    assert value(text, "stillhouse_watchers") == 0
    assert {Status(status) for status in re.findall(r'stillhouse_jobs\{.*status="(\w+)"', text)} == {
        Status.QUEUED, Status.RUNNING, Status.PAUSING, Status.PAUSED, Status.CANCELLING,
    }


def test_the_worker_counts_what_it_does(house: House) -> None:
    text = house.worker_metrics
    assert value(text, "stillhouse_slots", kind="job") == 1
    assert value(text, "stillhouse_slots", kind="plan") == 1
    assert value(text, "stillhouse_claims_total", queue="cpu") == 2
    assert value(text, "stillhouse_attempts_total", outcome="succeeded") == 1
    assert value(text, "stillhouse_attempts_total", outcome="failed", reason="internal_error") == 1
    assert value(text, "stillhouse_trainer_starts_total", outcome="started") == 2
    assert value(text, "stillhouse_steps_total", phase=Phase.DISTILLING) == 12 + 3
    assert value(text, "stillhouse_phase_seconds_count", phase=Phase.STAGING) == 2
    assert value(text, "stillhouse_phase_seconds_count", phase=Phase.DISTILLING) == 1, "one was not whole"
    assert value(text, "stillhouse_reaper_actions_total", action="taken_back") == 0
    assert value(text, "stillhouse_events_recorded_total", type="finished") == 1
    assert value(text, "stillhouse_events_recorded_total", type="failed") == 1
    assert value(text, "stillhouse_events_recorded_total", type="checkpoint") >= 1
    assert value(text, "stillhouse_reaper_rounds_total", outcome="done") >= 1
    assert value(text, "stillhouse_store_seconds_count", store="database", operation="write") == 1
    assert value(text, "stillhouse_store_seconds_count", store="files", operation="read") >= 3


def test_names_keep_the_conventions_and_have_a_row_in_the_docs(house: House) -> None:
    rows = dict(re.findall(r"^\| `(stillhouse_\w+)` \| (\w+) \|", PAGE, flags=re.MULTILINE))
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(house.metrics)
        if family.name.startswith("stillhouse_") and not family.name.endswith("_created")
    }
    assert {name: family.type for name, family in families.items()} == rows
    for name, family in families.items():
        assert family.documentation.endswith(".")
        assert family.type != "histogram" or name.endswith("_seconds")


def test_no_label_names_a_job_a_request_or_a_worker(house: House) -> None:
    values = {text for _, labels in samples(house.metrics) for _, text in labels}
    (worker,) = {line["worker"] for line in house.worker_lines if line.get("job_id") == house.good_job}
    assert not values & {house.good_job, house.bad_job, GOOD_REQUEST, BAD_REQUEST, worker, ADMIN_KEY}
    assert not any(re.search(r"(job|plan|art)_[0-9a-z]{20}|forged|PROPFIND", text) for text in values)


def test_rules_are_of_the_schema_and_lead_to_their_page() -> None:
    titles = re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for group in GROUPS:
        assert set(group) == {"name", "rules"}
        for rule in group["rules"]:
            assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {
                "alert", "expr", "for", "labels", "annotations",
            }
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert set(rule["annotations"]) == {"summary", "runbook"}
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert page == "docs/observability.md"
            assert anchor in anchors
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in ALERTS.values()), *QUERIES])
def test_all_that_alerts_and_dashboard_name_is_told(house: House, expression: str) -> None:
    told = {name for name, _ in samples(house.metrics)} | {
        family.name for family in text_string_to_metric_families(house.metrics)
    } | {f"{family.name}_total" for family in text_string_to_metric_families(house.metrics) if family.type == "counter"}
    named = names(expression.replace("$__rate_interval", "5m"))
    assert named
    assert named <= told | OF_PROMETHEUS


def test_every_number_of_the_service_is_on_the_dashboard(house: House) -> None:
    shown = {
        re.sub(f"({'|'.join(SUFFIXES)})$", "", name)
        for query in QUERIES for name in names(query.replace("$__rate_interval", "5m"))
    }
    told = {
        family.name for family in text_string_to_metric_families(house.metrics)
        if family.name.startswith("stillhouse_") and not family.name.endswith("_created")
    }
    assert told - shown == {LAST_ROUND}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def scrape(house: House) -> Samples:
    found = samples(house.api_metrics, job="stillhouse-api", instance="api:8765")
    found |= samples(house.worker_metrics, job="stillhouse-worker", instance="worker:9109")
    for instance in ("api", "worker"):
        found["up", frozenset({"job": f"stillhouse-{instance}", "instance": instance}.items())] = 1.0
    return found


def changed(scraped: Samples, name: str, number: float | None, **labels: str) -> Samples:
    """The scrape with other values of some series that are there, or without them."""
    found = {key for key in scraped if key[0] == name and set(labels.items()) <= set(key[1])}
    assert found, (name, labels)
    rest = {key: old for key, old in scraped.items() if key not in found}
    return rest if number is None else rest | dict.fromkeys(found, number)


def fires(alert: str, before: Samples, after: Samples) -> bool:
    at = next(number for (name, _), number in before.items() if name == LAST_ROUND)
    return bool(History({at: before, at + 60: after}).evaluate(ALERTS[alert]["expr"]))


Change = tuple[str, float | None, dict[str, str]]
PROVOKED: dict[str, list[Change]] = {
    "StillhouseJobStalled": [("stillhouse_stalled_jobs", 1, {"queue": "cpu"})],
    "StillhouseQueueOld": [("stillhouse_queue_age_seconds", 3601, {"queue": "cpu"})],
    "StillhouseQueueUnserved": [("stillhouse_queue_age_seconds", 121, {"queue": "cpu"})],
    "StillhouseWorkerGone": [("stillhouse_slots", None, {})],
    "StillhouseLeasesExpire": [("stillhouse_lease_expiries_total", 3, {})],
    "StillhouseNobodyReaps": [("stillhouse_expired_leases", 1, {"queue": "cpu"})],
    "StillhouseReaperSilent": [("stillhouse_reaper_last_round_timestamp_seconds", 0, {})],
    "StillhouseTrainersLost": [("stillhouse_attempts_total", 4, {"outcome": "lost"})],
    "StillhouseTargetDown": [("up", 0, {"job": "stillhouse-worker"})],
    "StillhouseStoreErrors": [("stillhouse_store_errors_total", 4, {"store": "files", "operation": "read"})],
    "StillhouseServerErrors": [("stillhouse_http_request_seconds_count", 99, {"route": "/jobs"})],
}
# What looks much like it, and is no reason to wake anybody.
HARMLESS: dict[str, list[Change]] = {
    "StillhouseJobStalled": [("stillhouse_jobs", 5, {"status": "running"})],
    "StillhouseQueueOld": [("stillhouse_queue_age_seconds", 3599, {"queue": "cpu"})],
    "StillhouseQueueUnserved": [
        ("stillhouse_queue_age_seconds", 121, {"queue": "cpu"}),
        ("stillhouse_jobs", 1, {"queue": "cpu", "status": "running"}),
    ],
    "StillhouseWorkerGone": [("stillhouse_busy_slots", 1, {})],
    "StillhouseLeasesExpire": [("stillhouse_lease_expiries_total", 1, {})],
    "StillhouseNobodyReaps": [("stillhouse_lease_expiries_total", 1, {})],
    "StillhouseReaperSilent": [("stillhouse_jobs", 1, {"queue": "gpu"})],
    "StillhouseTrainersLost": [("stillhouse_attempts_total", 99, {"outcome": "drained"})],
    "StillhouseTargetDown": [("stillhouse_watchers", 0, {})],
    "StillhouseStoreErrors": [
        ("stillhouse_store_errors_total", 1, {"operation": "read", "reason": "full", "store": "files"}),
    ],
    "StillhouseServerErrors": [("stillhouse_http_request_seconds_count", 99, {"route": "/artifacts"})],
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should_and_else_is_quiet(house: House, alert: str) -> None:
    healthy = scrape(house)
    assert not fires(alert, healthy, healthy)
    for changes, is_loud in ((PROVOKED[alert], True), (HARMLESS[alert], False)):
        before, after = healthy, healthy
        if alert == "StillhouseServerErrors" and is_loud:
            # Nobody has made this API fail: the same requests, answered otherwise.
            before, after = answered(before, "500"), answered(after, "500")
        for name, number, labels in changes:
            after = changed(after, name, number, **labels)
        assert fires(alert, before, after) == is_loud


def answered(scraped: Samples, status: str) -> Samples:
    """The scrape with another status at every request of /jobs."""
    of_jobs = ("route", "/jobs")
    return {
        (name, frozenset((dict(labels) | {"status": status}).items()) if of_jobs in labels else labels): number
        for (name, labels), number in scraped.items()
    }


def test_where_no_worker_tells_its_numbers_no_alert_about_workers_fires(house: House) -> None:
    alone = samples(house.api_metrics, job="stillhouse-api", instance="api:8765")
    at = value(house.worker_metrics, LAST_ROUND)
    fired = [alert for alert, rule in ALERTS.items() if History({at: alone, at + 60: alone}).evaluate(rule["expr"])]
    assert fired == []
