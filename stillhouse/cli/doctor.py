"""The command that looks for what is wrong: doctor."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import typer
from rich.markup import escape

from stillhouse.cli.connecting import Json, Key, Url
from stillhouse.cli.exits import Exit
from stillhouse.cli.output import answers, print_json
from stillhouse.cli.serving import Home
from stillhouse.client.examination import examine
from stillhouse.contract.findings import Finding, State, examination, failed, ok
from stillhouse.home import Address, find_service, local_address
from stillhouse.local import examination as local

_WORDS: dict[State, str] = {
    "ok": "[green]ok[/]       ", "warning": "[yellow]warning[/]  ", "failed": "[bold red]failed[/]   ",
    "skipped": "[dim]not tried[/]",
}
_WIDTH = 13
# Without these nothing else can be asked of the service.
_REACHING = {"address", "service"}


def doctor(*, as_json: Json = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """Look whether the service can be used from here, and say what is wrong.

    Stores a small file, fetches it and deletes it again, where the key may.
    """
    found = []
    for finding in _findings(find_service(url, key, home), home):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json(examination(found))
    wrong = {finding.check for finding in found if finding.state == "failed"}
    if wrong:
        raise typer.Exit(Exit.UNREACHABLE if wrong & _REACHING else Exit.FAILED)


def _findings(address: Address | None, home: Path | None) -> Iterator[Finding]:
    here = local_address(home)
    if address is None or (here and address.url == here.url):
        yield from local.examine(home)
    if address is None:
        yield failed(
            "address", "No service runs in this folder, and none was named.",
            "Start one here (`stillhouse up`), or name one with --url or STILLHOUSE_URL.",
        )
        return
    yield ok("address", f"{_without_password(address.url)} (from {address.origin})")
    for finding in examine(address.url, address.key):
        yield finding.model_copy(update={"message": finding.message.replace(
            address.url.rstrip("/"), _without_password(address.url.rstrip("/"))
        )})


def _without_password(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return url
    return str(parts.copy_with(username=parts.username, password="***")) if parts.password else url  # noqa: S106


def _print(finding: Finding) -> None:
    console = answers()
    place = f"{_WORDS[finding.state]}  {escape(finding.check):<{_WIDTH}}"
    console.print(f"{place}  {escape(finding.message)}", soft_wrap=not console.is_terminal)
    if finding.advice:
        console.print(f"{'':<{_WIDTH + 11}}  -> {escape(finding.advice)}", soft_wrap=not console.is_terminal)
