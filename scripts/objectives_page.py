"""Write docs/objectives.md from the spec's classes. Run by `make docs`; a test compares the page with the code."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from stillhouse.contract.spec import Term
from stillhouse.contract.spec.base import Section
from stillhouse.contract.spec.term import ALL_TASKS, BaseTerm, FeatureTerm, HalfCosine, Linear, TemperatureTerm, WarmUp

PAGE = Path(__file__).resolve().parents[1] / "docs" / "objectives.md"

HEAD = """\
# Objectives

<!-- Written by `make docs` from stillhouse/contract/spec: change it there. -->

What a student minimises is the weighted sum of the terms of `objective.terms`. Libraries do not agree on what these
names mean: the same logits give losses that differ by a factor of ten and more, by the mean over classes or over items,
and by temperature squared. Here every term is computed in at least float32, in log space, is logged by its name without
its weight (`loss.kl`), and is tested against the value that the published code gives, or against its definition.

In the formulas p and q are the softmax of the teacher's and the student's logits divided by T, the `temperature`; y is
the true class or value, Σ runs over classes or labels, logarithms are natural, and other names are fields. The factor
T² keeps the gradient about as large when T changes, so that weights keep their meaning.

An ensemble's word at temperature T is the weighted mean of its members' probabilities at that T; `mse` takes the mean
of their outputs. "Labelled items" are those that have a label: others count for nothing in such a term.

Left out, the objective is what `GET /schemas/job` says it is; on unlabelled data it is what is left of that without the
terms of labels. The control, the same student without a teacher, minimises the objective's own terms of labels, else
the usual one of its task (`cross_entropy`, `binary_cross_entropy` or `squared_error`), from the same first weights, on
the same batches in the same order.
"""

RAMPS = """\
`temperature_ramp` is for terms with a `temperature`. A ramp multiplies its value by a factor that follows the share of
the training that is done:
"""

EVERY_TERM = """\
## Fields of every term

`kind` is the only one that must be given, and of terms that look at layers their `pairs`.
"""

OUTPUTS = """\
## Terms that look at outputs

The teacher's outputs may come from a store of soft labels.
"""

LAYERS = """\
## Terms that look at layers

The teacher must answer every batch as it comes, since no store of soft labels holds what its layers say.
"""

FIELD_COLUMNS = ("field", "values", "default", "meaning")


def terms() -> list[type[BaseTerm]]:
    """Every class of the union, in its order."""
    return list(get_args(get_args(Term)[0]))


def page() -> str:
    """The whole page."""
    of_outputs = [term for term in terms() if not issubclass(term, FeatureTerm)]
    of_layers = [term for term in terms() if issubclass(term, FeatureTerm)]
    parts = [HEAD, _overview([*of_outputs, *of_layers]), EVERY_TERM, _shared_fields(), OUTPUTS]
    parts += [section(term) for term in of_outputs]
    if of_layers:
        parts += [LAYERS, *(section(term) for term in of_layers)]
    return "\n".join(parts)


def section(term: type[BaseTerm]) -> str:
    """What the page says of one term. Raises ValueError where the class does not say it."""
    about = getattr(term, "about", None)
    if about is None or not all(about) or not term.__doc__:
        raise ValueError(f"{term.__name__} needs a docstring, and `about` with all four of its parts")
    shared = _shared()
    own = {
        name: field for name, field in _fields(term).items()
        if name not in shared or field.get("default") != shared[name].get("default")
    }
    lines = [
        f"### `{kind(term)}`", "",
        term.__doc__, "",
        f"- Value: {about.formula}",
        f"- Reduction: {about.reduction}",
        f"- Source: {about.source}",
        f"- Needs: {needs(term)}",
        f"- Tasks: {tasks(term)}",
        f"- When: {about.when}", "",
    ]
    return "\n".join([*lines, *_table(FIELD_COLUMNS, _rows(own)), ""] if own else lines)


def kind(term: type[Section]) -> str:
    """The name by which a spec chooses it."""
    return str(term.model_fields["kind"].default)


def tasks(term: type[BaseTerm]) -> str:
    """What the term is for."""
    return "all" if term.tasks == ALL_TASKS else ", ".join(task for task in _TASKS if task in term.tasks)


def needs(term: type[BaseTerm]) -> str:
    """What the term looks at, and what it does not work with."""
    wanted = [
        (term.needs_teacher, "a teacher"),
        (term.needs_logits, "logits, not probabilities, where the teacher classifies"),
        (issubclass(term, FeatureTerm), "layers"),
        (term.needs_labels and not term.needs_true_class, "true labels"),
        (term.needs_true_class, "one true class per item, not shares of classes"),
        (term.compares_items, "several items per batch"),
    ]
    return "; ".join(what for is_wanted, what in wanted if is_wanted)


_TASKS = ("classification", "multi_label", "regression", "embedding")


def _overview(listed: Sequence[type[BaseTerm]]) -> str:
    rows = [(f"[`{kind(term)}`](#{kind(term)})", tasks(term), needs(term)) for term in listed]
    return "\n".join([*_table(("kind", "tasks", "needs"), rows), ""])


def _shared() -> dict[str, Any]:
    """The fields that say how a term is used."""
    return {name: field for name, field in _fields(TemperatureTerm).items() if name != "temperature"}


def _shared_fields() -> str:
    ramps = [f"- `{kind(ramp)}`: {ramp.__doc__} {_inline(ramp)}" for ramp in (WarmUp, Linear, HalfCosine)]
    return "\n".join([*_table(FIELD_COLUMNS, _rows(_shared())), "", RAMPS, *ramps, ""])


def _inline(ramp: type[Section]) -> str:
    return " ".join(
        f"{name} ({values}; {default} when left out): {meaning}"
        for name, values, default, meaning in _rows(_fields(ramp))
    )


def _fields(section_class: type[Section]) -> dict[str, Any]:
    """JSON schema of each field but `kind`, references resolved."""
    schema = section_class.model_json_schema()
    resolved = {name: _resolved(field, schema.get("$defs", {})) for name, field in schema["properties"].items()}
    return {name: field for name, field in resolved.items() if name != "kind"}


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(node, list):
        return [_resolved(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: part for key, part in node.items() if key != "$ref"}
        return {**_resolved(definitions[node["$ref"].rsplit("/", 1)[1]], definitions), **rest}
    return {key: _resolved(part, definitions) for key, part in node.items() if key != "discriminator"}


def _rows(fields: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "required"
        yield f"`{name}`", _values(field), default.replace("`null`", "none"), field["description"]


def _values(field: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema."""
    for choice in ("anyOf", "oneOf"):
        if choice in field:
            return _either(_values(option) for option in field[choice] if option != {"type": "null"})
    if "enum" in field:
        return _either(f"`{json.dumps(value)}`" for value in field["enum"])
    return _VALUES.get(field["type"], _number)(field)


def _object(field: dict[str, Any]) -> str:
    properties = field["properties"]
    named = properties.get("kind", {}).get("const")
    return f"`{named}`" if named else "{" + ", ".join(f"`{name}`" for name in properties) + "}"


def _array(field: dict[str, Any]) -> str:
    return f"{field.get('minItems', 0)} to {field['maxItems']} of: {_values(field['items'])}"


def _string(field: dict[str, Any]) -> str:
    return f"`{field['pattern']}`" if "pattern" in field else "text"


def _number(field: dict[str, Any]) -> str:
    bounds = ", ".join(_bounds(field))
    return bounds if field["type"] == "number" else f"{field['type']} {bounds}"


_VALUES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "object": _object, "array": _array, "string": _string, "boolean": lambda _: "`true` or `false`",
}


def _bounds(field: dict[str, Any]) -> Iterator[str]:
    least, most = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if least is not None or above is not None:
        yield f"≥ {least:g}" if least is not None else f"> {above:g}"
    if most is not None or below is not None:
        yield f"≤ {most:,.10g}" if most is not None else f"< {below:g}"


def _either(options: Iterable[str]) -> str:
    *first, last = options
    return f"{', '.join(first)} or {last}" if first else last


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
