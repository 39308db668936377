"""Commands about API keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.exits import UsageError
from stillhouse.cli.output import age, answers, plain_table, print_json, tell
from stillhouse.contract.resources import SCOPES, ApiKey, KeyLimits, Scope

keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, from `stillhouse keys list`.")]


@keys.command("list")
def list_keys(
    *,
    owner: Annotated[str | None, typer.Option(help="Whose; another's takes the scope admin.")] = None,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """List keys, without their secrets."""
    with connected(url, key) as client:
        found = list(client.keys(owner=owner))
    if as_json:
        print_json(found)
        return
    table = plain_table("KEY", "BEGINS WITH", "SCOPES", "CREATED", "LAST USED", "STATUS", "NAME")
    for item in found:
        used = age(item.last_used_at) if item.last_used_at else wording.MISSING
        table.add_row(
            item.id, escape(item.prefix), escape(",".join(item.scopes)), age(item.created_at), used, _status(item),
            escape(item.name),
        )
    answers().print(table)


def _status(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "[red]revoked[/]"
    if key.expires_at is None:
        return "active"
    if key.expires_at <= datetime.now(UTC):
        return "[red]expired[/]"
    return f"until {key.expires_at.astimezone():%Y-%m-%d}"


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    owner: Annotated[str | None, typer.Option(help="Whose it is: yours when left out.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do: read, submit or admin; repeat it. Read and submit when "
                                            "left out."),
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, max=36500, help="When it ends.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="Its own limit; 0 is none.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Its own limit; 0 is none.")] = None,
    queued_jobs: Annotated[int | None, typer.Option(min=0, help="Its own limit; 0 is none.")] = None,
    running_jobs: Annotated[int | None, typer.Option(min=0, help="Its own limit; 0 is none.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key. Its secret is printed this once."""
    limits = KeyLimits(
        requests_per_minute=requests_per_minute, stored_bytes=stored_bytes, queued_jobs=queued_jobs,
        running_jobs=running_jobs,
    )
    ends = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    with connected(url, key) as client:
        made = client.create_key(name, owner=owner, scopes=_scopes(scope), expires_at=ends, limits=limits)
    if as_json:
        print_json(made)
        return
    answers().print(made.secret)
    tell(f"key {made.id}; keep the secret, it is not shown again")


def _scopes(given: list[str] | None) -> list[Scope] | None:
    for word in given or ():
        if word not in SCOPES:
            raise UsageError(f"{word} is no scope; there are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in given] if given else None


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    *,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, help="How long the secret before stays valid too."),
    ] = 24,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Replace a key's secret. The new one is printed this once; the one before stays valid for the overlap."""
    with connected(url, key) as client:
        made = client.rotate_key(key_id, overlap_seconds=round(overlap_hours * 3600))
    if as_json:
        print_json(made)
        return
    answers().print(made.secret)
    ends = made.former_secret_ends_at
    tell(f"the secret before is valid until {ends.astimezone():%Y-%m-%d %H:%M}" if ends else "rotated")


@keys.command("revoke")
def revoke_key(key_id: KeyId, *, url: Url = None, key: Key = None) -> None:
    """Make a key useless from now on."""
    with connected(url, key) as client:
        client.revoke_key(key_id)
    tell(f"revoked {escape(key_id)}")
