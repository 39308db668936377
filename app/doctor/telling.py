"""Findings as lines for people."""

from collections.abc import Iterator

from stillhouse.contract.findings import Examination

_WORDS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "not tried"}


def lines(examination: Examination) -> Iterator[str]:
    """One line for each finding, and one below it for what to do."""
    width = max(len(finding.check) for finding in examination.findings)
    for finding in examination.findings:
        yield f"{_WORDS[finding.state]:<9}  {finding.check:<{width}}  {finding.message}"
        if finding.advice:
            yield f"{'':<9}  {'':<{width}}  -> {finding.advice}"
