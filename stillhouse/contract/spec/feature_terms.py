"""Terms that compare what layers say: their outputs position by position, or how their outputs relate items."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.term import About, FeatureTerm, OutputTerm, TaskKind

ProjectionKind = Annotated[
    Literal["auto", "learned", "fixed", "none"],
    Field(
        description="What brings the student's channels to the teacher's: `learned` a linear map of the channels "
        "(1x1 convolution of maps), `fixed` a random orthogonal one that does not learn, `none` nothing, and `auto` "
        "nothing where they are as many, else `learned`."
    ),
]


def _weight(default: float, *, published: float) -> Any:  # noqa: ANN401 - as pydantic types its own Field
    """A weight of its own default, since the terms' scales differ by powers of ten.

    Where it is less than the published one, that one cost accuracy in the short trainings of benchmarks.objectives.
    """
    told = "as published" if default == published else f"published with {published:g}, for hundreds of epochs"
    return Field(default=default, ge=0, le=1e6, description=f"Factor of this term in the sum; {told}.")


class Fitnet(FeatureTerm):
    """Squared difference of features, the student's projected where its channels are not as many."""

    about: ClassVar[About] = About(
        formula="mean (r(s) - t)², r a projection of the channels",
        source="Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: hints for thin deep nets, 2015",
        reduction="mean over items, channels, positions and pairs",
        when="Layers of like depth and size; the plainest of the feature terms.",
    )

    kind: Literal["fitnet"] = "fitnet"
    weight: float = _weight(1.0, published=100.0)
    projection: ProjectionKind = "auto"


class At(FeatureTerm):
    """Attention transfer: where in an image, or at which tokens, features are strong."""

    about: ClassVar[About] = About(
        formula="mean (a(s) / |a(s)| - a(t) / |a(t)|)², a = mean over channels of |features|^power",
        source="Zagoruyko, Komodakis: Paying more attention to attention, 2017",
        reduction="mean over items, positions and pairs",
        when="Convolutional layers of like depth, whatever their widths; cheap, and nothing to learn.",
    )

    kind: Literal["at"] = "at"
    weight: float = _weight(100.0, published=1000.0)
    power: float = Field(default=2.0, ge=1, le=4, description="Above 1 it stresses the strongest features.")


class Nst(FeatureTerm):
    """Neuron selectivity transfer: the distribution of the channels' activation patterns."""

    about: ClassVar[About] = About(
        formula="mean k(t, t) + mean k(s, s) - 2 mean k(s, t), k(x, y) = (x·y)² of channel maps of length 1",
        source="Huang, Wang: Like what you like: knowledge distill via neuron selectivity transfer, 2017",
        reduction="mean over items, pairs of channels and pairs; with the constant part of the teacher alone",
        when="Convolutional layers of like size and any widths.",
    )

    kind: Literal["nst"] = "nst"
    weight: float = _weight(5.0, published=50.0)


class Vid(FeatureTerm):
    """Variational information distillation: how well the student's features predict the teacher's."""

    about: ClassVar[About] = About(
        formula="mean ½ ((m(s) - t)² / v + log v), m a learned network of the channels, v a learned variance of each",
        source="Ahn, Hu, Damianou, Lawrence, Dai: Variational information distillation for knowledge transfer, 2019",
        reduction="mean over items, channels, positions and pairs",
        when="As fitnet, where some of the teacher's channels are noise that the student need not copy.",
    )

    kind: Literal["vid"] = "vid"
    initial_variance: float = Field(
        default=5.0, ge=1e-3, le=1e3, description="Variance of each of the teacher's channels at the first step."
    )


class Review(FeatureTerm):
    """Knowledge review: each stage of the teacher is learned from that stage of the student and all deeper ones."""

    about: ClassVar[About] = About(
        formula="Σ w (f(s) - t)² of averages over grids of full size, 4, 2 and 1 with w = 1, ½, ¼, ⅛ over their sum; "
        "f a learned fusion of a stage with the deeper ones",
        source="Chen, Liu, Zhao, Jia: Distilling knowledge via knowledge review, 2021",
        reduction="mean over items, channels, positions and pairs",
        when="Convolutional students where accuracy is worth the time of fusing several stages.",
    )
    # The fusion normalises over the batch.
    compares_items: ClassVar[bool] = True

    kind: Literal["review"] = "review"
    weight: float = _weight(5.0, published=5.0)


class Crd(FeatureTerm):
    """Contrastive representation distillation: tell a sample from samples of other classes by the teacher's eyes."""

    about: ClassVar[About] = About(
        formula="-log h(s, t) - Σ log(1 - h(s, t')) and the same with s and t exchanged, h(a, b) = e / (e + K z), "
        "e = exp(a·b / temperature), z the mean of e; t' of K samples of other classes, from a memory of the split",
        source="Tian, Krishnan, Isola: Contrastive representation distillation, 2020",
        reduction="sum over negatives and both directions, mean over labelled items and pairs",
        when="Features just before the head; the strongest of the feature terms on CIFAR-100, and the dearest.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = frozenset({"classification"})
    needs_labels: ClassVar[bool] = True
    needs_true_class: ClassVar[bool] = True

    kind: Literal["crd"] = "crd"
    weight: float = _weight(0.008, published=0.8)
    feat_dim: int = Field(default=128, ge=2, le=4096, description="Numbers of an embedding, in which samples compare.")
    num_negatives: int = Field(
        default=16_384, ge=1, le=2**20,
        description="K: samples drawn in each step to compare with; at most as many as are labelled. The items of a "
        "batch share them, each leaving out those of its own class.",
    )
    temperature: float = Field(default=0.07, ge=1e-3, le=100, description="Below 1 it sharpens the comparison.")
    momentum: float = Field(
        default=0.5, ge=0, lt=1, description="Share of a sample's old embedding that the memory keeps at each visit."
    )


class Rkd(OutputTerm):
    """Relational distillation: distances between items and angles between three of them."""

    about: ClassVar[About] = About(
        formula="distance_weight · h(d(s) / mean d(s) - d(t) / mean d(t)) + angle_weight · h(cos(s) - cos(t)), "
        "h smooth L1, d Euclidean distances of items, cos of the angles at each item",
        source="Park, Kim, Lu, Cho: Relational knowledge distillation, 2019",
        reduction="mean over all B² distances and all B³ angles of a batch, and pairs",
        when="Embeddings, and features of any two widths: nothing is projected.",
    )
    compares_items: ClassVar[bool] = True

    kind: Literal["rkd"] = "rkd"
    weight: float = _weight(0.1, published=1.0)
    distance_weight: float = Field(default=25.0, ge=0, le=1e6, description="Factor of the distances.")
    angle_weight: float = Field(default=50.0, ge=0, le=1e6, description="Factor of the angles.")

    @model_validator(mode="after")
    def _compares_something(self) -> Self:
        if self.distance_weight == 0 and self.angle_weight == 0:
            raise ValueError("distance_weight and angle_weight are both 0; give one of them a weight above 0")
        return self


class Sp(OutputTerm):
    """Similarity preserving: which items of a batch are alike."""

    about: ClassVar[About] = About(
        formula="mean (g(s) - g(t))², g = the rows of f fᵀ at length 1, f the features of the items, flattened",
        source="Tung, Mori: Similarity-preserving knowledge distillation, 2019",
        reduction="mean over all B² pairs of items, and pairs",
        when="Features of any two shapes, maps among them, in batches that are not small.",
    )
    compares_items: ClassVar[bool] = True

    kind: Literal["sp"] = "sp"
    weight: float = _weight(300.0, published=3000.0)


class Pkt(OutputTerm):
    """Probabilistic knowledge transfer: the chance of each item to be another's neighbour."""

    about: ClassVar[About] = About(
        formula="mean p log(p / q), p and q the rows of (1 + cos) / 2 over their sum, cos of the teacher's and the "
        "student's features of two items",
        source="Passalis, Tefas: Learning deep representations with probabilistic knowledge transfer, 2018",
        reduction="mean over all B² pairs of items, and pairs",
        when="Embeddings and retrieval, and features of any two widths.",
    )
    compares_items: ClassVar[bool] = True

    kind: Literal["pkt"] = "pkt"
    weight: float = _weight(30_000.0, published=30_000.0)


class Cka(OutputTerm):
    """Centred kernel alignment: how items relate, up to rotation and scale."""

    about: ClassVar[About] = About(
        formula="1 - |XᵀY|² / (|XᵀX| |YᵀY|), X and Y the features of a batch, centred; Frobenius norms",
        source="Kornblith, Norouzi, Lee, Hinton: Similarity of neural network representations revisited, 2019",
        reduction="one number of a batch, mean over pairs",
        when="Features of any two widths whose axes mean nothing: only the geometry of a batch is learned.",
    )
    compares_items: ClassVar[bool] = True

    kind: Literal["cka"] = "cka"


class CosineDistance(OutputTerm):
    """One minus the cosine between features, the student's projected where its channels are not as many."""

    about: ClassVar[About] = About(
        formula="1 - cos(r(s), t) over the channels of each position, r a projection of the channels",
        source="Sanh, Debut, Chaumond, Wolf: DistilBERT, a distilled version of BERT, 2019",
        reduction="mean over items, positions and pairs",
        when="Embeddings that are compared by their cosine, and hidden states of transformers.",
    )

    kind: Literal["cosine"] = "cosine"
    projection: ProjectionKind = "auto"


LayerTerm = Fitnet | At | Nst | Vid | Review | Crd | Rkd | Sp | Pkt | Cka | CosineDistance
