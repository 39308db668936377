"""The model card: README.md of the bundle."""

import re
from pathlib import Path
from types import MappingProxyType
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stillhouse import wording
from stillhouse.contract.report import Report
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.export.comparison import compare
from worker.engine.export.onnx import OUTPUTS

MAX_NAMED_CLASSES: Final = 20
# Model hubs' names for what a model does, on images and on tables; they have none for some.
_PIPELINE_TAGS: Final = MappingProxyType({
    "classification": ("image-classification", "tabular-classification"),
    "multi_label": ("image-classification", "tabular-classification"),
    "regression": (None, "tabular-regression"),
    "embedding": ("image-feature-extraction", "feature-extraction"),
})
_TAGS: Final = MappingProxyType({"multi_label": "multi-label", "regression": "regression", "embedding": "embedding"})
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def escape(value: object) -> str:
    """A value as literal text on one line of Markdown; a user's string cannot become a link, a tag or a new row."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


# Every value goes through `escape`; only the template's own text is Markdown.
_CARDS = Environment(  # noqa: S701 - Markdown, not HTML
    loader=FileSystemLoader(Path(__file__).parent), finalize=escape, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)
_CARDS.filters["count"] = wording.count


def render_card(report: Report, preprocessing: Preprocessing, *, has_onnx: bool) -> str:
    """The card in Markdown, with a snippet that loads the bundle."""
    named = report.label_names[:MAX_NAMED_CLASSES]
    more = ", ..." if len(named) < len(report.label_names) else ""
    return _CARDS.get_template("card.md.j2").render(
        report=report,
        student=report.subject("student"),
        verdict=wording.verdict(report),
        gain=wording.gain_sentence(report),
        rows=[row for _, rows in compare(report) for row in rows],
        num_evaluated=wording.num_evaluated(report),
        num_labelled=wording.num_labelled(report),
        pipeline_tag=_PIPELINE_TAGS[report.task][preprocessing.layout == "columns"],
        tag=_TAGS.get(report.task),
        shape=(1, *preprocessing.raw_shape),
        axes=preprocessing.raw_axes,
        dtype=preprocessing.dtype,
        input_shape=", ".join(map(str, preprocessing.input_shape)),
        num_outputs=report.num_outputs or len(report.label_names),
        outputs=wording.outputs(report),
        output=OUTPUTS[report.task],
        names=", ".join(named) + more,
        has_onnx=has_onnx,
    )
