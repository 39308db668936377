"""What `stillhouse doctor` and `python -m app doctor` found: one line for each thing that was looked at."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# `skipped`: it could not be tried, or makes no sense here.
State = Literal["ok", "warning", "failed", "skipped"]


class Finding(BaseModel):
    """One thing that was looked at, in plain words."""

    model_config = ConfigDict(frozen=True)

    check: str = Field(description="What was looked at, in a word or two.")
    state: State
    message: str = Field(description="What was seen.")
    advice: str | None = Field(default=None, description="What to do about it.")


class Examination(BaseModel):
    """All findings."""

    model_config = ConfigDict(frozen=True)

    is_well: bool = Field(description="Whether nothing failed.")
    findings: list[Finding]


def examination(findings: Iterable[Finding]) -> Examination:
    """The findings, and whether nothing failed."""
    found = list(findings)
    return Examination(is_well=not any(finding.state == "failed" for finding in found), findings=found)


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """It works, but will not always."""
    return Finding(check=check, state="warning", message=message, advice=advice)


def failed(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, state="failed", message=message, advice=advice)


def skipped(check: str, message: str) -> Finding:
    """It was not tried; the message says why."""
    return Finding(check=check, state="skipped", message=message)
