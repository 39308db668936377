"""What an ONNX file tells of itself; files that scikit-learn, ONNX's own tools and nobody honest have written."""

import contextlib
import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from app.artifacts.inspection import OnnxFacts, guess_format, inspect
from app.artifacts.inspection import onnx as inspection
from stillhouse.contract.failures import MalformedOnnxError, PickleRefusedError
from tests.fixtures.files import safetensors


def facts_of(content: bytes) -> OnnxFacts:
    facts = inspect(io.BytesIO(content), len(content), "onnx")
    assert isinstance(facts, OnnxFacts)
    return facts


def model(*, external: bool = False, in_subgraph: bool = False) -> onnx.ModelProto:
    """y = x w, with x (free, 4) and w (4, 3)."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3], np.ones(12, np.float32))
    if external:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if in_subgraph:
        inner = helper.make_graph([], "inner", [], [], initializer=[weight])
        nodes.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "product", [x], [y], initializer=[] if in_subgraph else [weight])
    return helper.make_model(graph, producer_name="by hand")


def test_inputs_outputs_and_weights_are_told() -> None:
    facts = facts_of(model().SerializeToString())
    assert (facts.producer, facts.num_parameters) == ("by hand", 12)
    assert facts.inputs["x"].model_dump() == {"dtype": "float32", "shape": [None, 4]}
    assert facts.outputs["y"].model_dump() == {"dtype": "float32", "shape": [None, 3]}


def test_a_model_of_scikit_learn_is_read() -> None:
    random = np.random.default_rng(0)
    table, labels = random.normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3
    fitted = LogisticRegression().fit(table, labels)
    facts = facts_of(to_onnx(fitted, table[:1], options={"zipmap": False}).SerializeToString())
    assert facts.inputs["X"].shape == [None, 5]
    assert facts.outputs["label"].dtype == "int64"
    assert facts.outputs["probabilities"].shape == [None, 3]
    dicts = facts_of(to_onnx(fitted, table[:1]).SerializeToString())
    assert dicts.outputs["output_probability"].dtype is None


@pytest.mark.parametrize("in_subgraph", [False, True])
def test_weights_in_another_file_are_refused(*, in_subgraph: bool) -> None:
    with pytest.raises(MalformedOnnxError, match="another file"):
        facts_of(model(external=True, in_subgraph=in_subgraph).SerializeToString())


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_file_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(MalformedOnnxError):
        facts_of(model().SerializeToString()[:-cut])


@pytest.mark.parametrize("content", [b"\x08", b"\x0b\x0c", b"\xff" * 64, b"not a model at all", b"\x3a\x00"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedOnnxError):
        facts_of(content)


def test_a_pickle_is_told_as_one() -> None:
    with pytest.raises(PickleRefusedError):
        facts_of(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.")


def test_the_number_of_parts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_FIELDS", 1000)
    with pytest.raises(MalformedOnnxError, match="1,000 parts"):
        facts_of(b"\x08\x01" * 1001)


def test_graphs_within_graphs_are_followed_only_so_deep() -> None:
    graph = helper.make_graph([], "innermost", [], [])
    for _ in range(inspection.MAX_DEPTH + 2):
        graph = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=graph)], "outer", [], [])
    with pytest.raises(MalformedOnnxError, match="deep"):
        facts_of(helper.make_model(graph).SerializeToString())


def test_every_prefix_of_a_model_is_refused_or_read_but_never_breaks() -> None:
    content = model().SerializeToString()
    whole = facts_of(content)
    for length in range(1, len(content)):
        with contextlib.suppress(MalformedOnnxError):
            assert facts_of(content[:length]) == whole


def test_teachers_are_told_apart_by_their_first_bytes() -> None:
    content = model().SerializeToString()
    assert guess_format(io.BytesIO(content), "teacher") == "onnx"
    weights = safetensors({"a": [2, 3]})
    assert guess_format(io.BytesIO(weights), "teacher") == "safetensors"
    assert guess_format(io.BytesIO(b"\x08" + weights[1:]), "teacher") == "safetensors"
