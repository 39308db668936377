"""Links of the OpenAPI document: what can be done with a thing that was just made. Tools follow them."""

from collections.abc import Iterator
from typing import Any

_OF_THE_ANSWER = "$response.body#/id"


def add_links(document: dict[str, Any]) -> None:
    """Link every answer that makes a thing (POST of a collection) to all operations on this one thing."""
    for collection, operations in document["paths"].items():
        followers = dict(_followers(document, collection))
        if not followers or "post" not in operations:
            continue
        for status, response in operations["post"]["responses"].items():
            if status.startswith("2"):
                response["links"] = followers


def _followers(document: dict[str, Any], collection: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Links by name, to operations of paths like /jobs/{job_id} and /jobs/{job_id}/cancel."""
    for path, operations in document["paths"].items():
        if not path.startswith(f"{collection}/{{"):
            continue
        parameter = path.removeprefix(f"{collection}/{{").partition("}")[0]
        for operation in operations.values():
            name = operation["operationId"]
            yield name, {"operationId": name, "parameters": {parameter: _OF_THE_ANSWER}}
