"""From the bytes of a request to a job spec, or to a list of what is wrong with it and where."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from app.kit.pointers import step
from stillhouse.contract.failures import FieldError, InvalidSpecError, MalformedJsonError
from stillhouse.contract.spec import JobSpec, Section

MAX_ERRORS = 50
_LONGEST_QUOTE = 100

Loc = tuple[int | str, ...]


@dataclass(frozen=True)
class SentSpec:
    """A valid spec, and the JSON object that was sent."""

    spec: JobSpec
    raw: dict[str, Any]


def read_spec(body: bytes) -> SentSpec:
    """The spec in a request's body. Raises MalformedJsonError or InvalidSpecError."""
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedJsonError(f"The request body is not JSON: {error}.") from error
    try:
        return SentSpec(JobSpec.model_validate(raw), raw)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_input=False)[:MAX_ERRORS]) from error


def _invalid(details: Sequence[ErrorDetails]) -> InvalidSpecError:
    errors = [_field_error(detail) for detail in details]
    message = "; ".join(f"{error.pointer or 'the spec'}: {error.detail}" for error in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""  # noqa: PLR2004 - as many as the message shows
    return InvalidSpecError(f"The job spec is not valid. {message}{more}", param=errors[0].pointer, errors=errors)


def _field_error(detail: ErrorDetails) -> FieldError:
    pointer, section = place(detail["loc"])
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(pointer, last, section)
        case "union_tag_invalid":
            return _unknown_kind(f"{pointer}/kind", str(context["tag"]), _quoted_names(context["expected_tags"]))
        case "union_tag_not_found":
            kinds = " or ".join(f"`{kind}`" for kind in _kinds(section))
            return FieldError(pointer=f"{pointer}/kind", detail=f"kind is missing; give {kinds}")
        case "missing":
            return FieldError(pointer=pointer, detail=f"`{last}` is required")
        case "model_type" | "model_attributes_type":
            return FieldError(pointer=pointer, detail="give a JSON object")
        case _:
            return FieldError(pointer=pointer, detail=detail["msg"].removeprefix("Value error, "))


def _unknown_key(pointer: str, key: str, sections: Sequence[type[Section]]) -> FieldError:
    known = [name for section in sections for name in section.model_fields]
    quoted = key[:_LONGEST_QUOTE]
    nearest = nearest_name(key, known)
    if nearest is not None:
        return FieldError(
            pointer=pointer, detail=f"unknown key `{quoted}`; did you mean `{nearest}`?", suggestion=nearest
        )
    return FieldError(pointer=pointer, detail=f"unknown key `{quoted}`; known here: {', '.join(known)}")


def _unknown_kind(pointer: str, kind: str, known: Sequence[str]) -> FieldError:
    nearest = nearest_name(kind, known)
    hint = f"did you mean `{nearest}`?" if nearest else f"known here: {', '.join(known)}"
    return FieldError(pointer=pointer, detail=f"unknown kind `{kind[:_LONGEST_QUOTE]}`; {hint}", suggestion=nearest)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely means."""
    found = get_close_matches(name[:_LONGEST_QUOTE].lower(), list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def _quoted_names(text: str) -> list[str]:
    """Names out of pydantic's list `'a', 'b'`."""
    return [name.strip(" '") for name in text.split(",")]


def place(loc: Loc) -> tuple[str, Sequence[type[Section]]]:
    """Where pydantic's location points: a JSON pointer into what was sent, and the sections that may stand there.

    Pydantic's location names the chosen variant of a union too, which is no key of the JSON.
    """
    pointer = ""
    sections: Sequence[type[Section]] = [JobSpec]
    for part in loc:
        chosen = [section for section in sections if _kind(section) == part] if len(sections) > 1 else []
        if chosen:
            sections = chosen
            continue
        if part == "[key]":  # of a key itself, its own name goes before
            break
        pointer += step(part)
        if isinstance(part, str):
            fields = [section.model_fields[part] for section in sections if part in section.model_fields]
            sections = [inner for field in fields for inner in _sections(field.annotation)] if fields else sections
    return pointer, sections


def _sections(annotation: object) -> list[type[Section]]:
    """Every section inside an annotation: through lists, unions, None and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def _kind(section: type[Section]) -> str | None:
    field = section.model_fields.get("kind")
    return None if field is None else field.default


def _kinds(sections: Sequence[type[Section]]) -> list[str]:
    return [kind for section in sections if (kind := _kind(section)) is not None]
