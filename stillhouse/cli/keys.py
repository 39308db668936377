"""Commands about API keys."""

from typing import Annotated

import typer
from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.output import age, answers, plain_table, print_json, tell

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@keys.command("list")
def list_keys(*, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """List keys, without their secrets."""
    with connected(url, key) as client:
        found = list(client.keys())
    if as_json:
        print_json(found)
        return
    table = plain_table("KEY", "BEGINS WITH", "CREATED", "LAST USED", "STATUS", "NAME")
    for item in found:
        status = "[red]revoked[/]" if item.revoked_at else "active"
        used = age(item.last_used_at) if item.last_used_at else wording.MISSING
        table.add_row(item.id, escape(item.prefix), age(item.created_at), used, status, escape(item.name))
    answers().print(table)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    owner: Annotated[str | None, typer.Option(help="Whose it is; another's takes an administrator's key.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key. Its secret is printed this once."""
    with connected(url, key) as client:
        made = client.create_key(name, owner=owner)
    if as_json:
        print_json(made)
        return
    answers().print(made.secret)
    tell(f"key {made.id}; keep the secret, it is not shown again")


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, from `stillhouse keys list`.")], *,
    url: Url = None, key: Key = None,
) -> None:
    """Make a key useless from now on."""
    with connected(url, key) as client:
        client.revoke_key(key_id)
    tell(f"revoked {escape(key_id)}")
