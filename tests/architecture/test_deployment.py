"""The files that no test here can run for real (there may be no Docker engine) are at least checked."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_compose_file_is_valid() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(check, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_long_lived_service_tells_its_health() -> None:
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["migrate"]


def test_workers_get_time_to_drain() -> None:
    assert all(SERVICES[name]["stop_grace_period"] == "120s" for name in ("worker-cpu", "worker-gpu"))


def test_gpu_worker_starts_only_when_asked_for() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["worker-gpu"]


@pytest.mark.parametrize("name", ["migrate", "api", "worker-cpu", "worker-gpu"])
def test_every_variable_is_a_setting(name: str) -> None:
    known = {f"STILLHOUSE_{field.upper()}" for field in Settings.model_fields}
    assert set(SERVICES[name]["environment"]) - known == set()


def test_no_secret_stands_in_the_file() -> None:
    secrets = [
        value for service in SERVICES.values() for key, value in service.get("environment", {}).items()
        if "PASSWORD" in key or "KEY" in key
    ]
    assert len(secrets) == 2
    assert all(value.startswith("${") for value in secrets)


def test_images_get_what_they_run_and_the_api_no_torch() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    api = next(stage for stage in stages if "AS api" in stage)
    worker = next(stage for stage in stages if "AS worker" in stage)
    assert '".[api]"' in api
    assert "COPY worker" not in api
    assert '".[worker]"' in worker
    targets = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert targets == {"api", "worker"}
