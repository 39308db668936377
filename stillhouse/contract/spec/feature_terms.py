"""Terms that compare what layers say, or the models' own outputs."""

from typing import ClassVar, Literal

from stillhouse.contract.spec.term import About, OutputTerm


class CosineDistance(OutputTerm):
    """One minus the cosine between outputs."""

    about: ClassVar[About] = About(
        formula="1 - cos(s, t)",
        source="Sanh, Debut, Chaumond, Wolf: DistilBERT, a distilled version of BERT, 2019",
        reduction="mean over items and pairs",
        when="Embeddings that are compared by their cosine.",
    )

    kind: Literal["cosine"] = "cosine"


LayerTerm = CosineDistance
