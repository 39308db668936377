from pathlib import Path

import pytest

from tests.fixtures.results import Trained, make_trained
from worker.engine.export import Exported


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return make_trained(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def exported(trained: Trained, scratch: Path) -> Exported:
    return trained.export(scratch)


@pytest.fixture(scope="session")
def bundle(exported: Exported, scratch: Path) -> Path:
    return scratch / next(file.file for file in exported.files if file.role == "bundle")
