"""An audit that could not look never passes for one that found nothing."""

from pathlib import Path
from typing import Any

import pytest

from scripts import audit

FINE: dict[str, Any] = {"name": "fine", "version": "1", "vulns": []}
SKIPPED: dict[str, Any] = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}
HOLED: dict[str, Any] = {"name": "old", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("told", "status", "text"),
    [
        ([FINE], 0, "no known hole in 1\n"),
        ([FINE, SKIPPED], 0, "no known hole in 1, but 1 NOT AUDITED: unknown"),
        ([SKIPPED, SKIPPED], 2, "NOT AUDITED"),
        ([], 2, "NOT AUDITED"),
        ([FINE, HOLED, SKIPPED], 1, "old 1: CVE-1, mended in 2"),
    ],
)
def test_dependencies(
    told: list[dict[str, Any]], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.judge_dependencies(told) == status
    assert text in capsys.readouterr().out


def test_a_database_out_of_reach_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(audit, "SCANNED", ["SECURITY.md"])
    assert audit.main() == 2
    assert "NOT AUDITED" in capsys.readouterr().out


def test_a_secret_is_told_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.judge_secrets({"a.py": [{"line_number": 3, "type": "AWS Access Key"}]}) == 1
    assert "a.py:3 AWS Access Key" in capsys.readouterr().out


def test_the_scan_sees_a_secret_and_none_in_this_tree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.scan_secrets() == 0
    (tmp_path / "leak.py").write_text("token = 'AKIA" + "IOSFODNN7EXAMPLF'\n")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "SCANNED", ["--all-files", "."])
    assert audit.scan_secrets() == 1
    assert "leak.py:1" in capsys.readouterr().out
