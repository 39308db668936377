import io
import json

import pytest

from app.artifacts.inspection import SafetensorsFacts, inspect
from app.artifacts.inspection.safetensors import MAX_HEADER, MAX_LISTED_TENSORS
from stillhouse.contract.failures import MalformedSafetensorsError
from tests.fixtures.files import MLP, safetensors, with_header


def facts_of(content: bytes) -> SafetensorsFacts:
    facts = inspect(io.BytesIO(content), len(content), "safetensors")
    assert isinstance(facts, SafetensorsFacts)
    return facts


def header(**entry: object) -> bytes:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}
    return with_header(json.dumps({"w": tensor}).encode(), bytes(8))


def test_tensors_are_counted_and_listed() -> None:
    facts = facts_of(safetensors({"a": [2, 3], "b": [4], "scalar": []}))
    assert (facts.num_tensors, facts.num_parameters) == (3, 11)
    assert facts.tensors is not None
    assert facts.tensors["a"].model_dump() == {"dtype": "float32", "shape": [2, 3]}


def test_a_long_list_of_tensors_is_left_out() -> None:
    facts = facts_of(safetensors({f"layer.{number}": [1] for number in range(MAX_LISTED_TENSORS + 1)}))
    assert facts.tensors is None
    assert facts.num_parameters == MAX_LISTED_TENSORS + 1


def test_architecture_and_normalization_are_read_from_the_metadata() -> None:
    about = {"architecture": MLP, "normalization": {"mean": [0.1], "std": [0.3]}}
    facts = facts_of(safetensors(about=about, metadata={"author": "ann"}))
    assert facts.architecture is not None
    assert facts.architecture.num_classes == 10
    assert facts.normalization is not None
    assert facts.metadata == {"author": "ann"}


@pytest.mark.parametrize("about", ["not JSON", "[]", "{}", '{"architecture": {"kind": "vit"}}', '{"architecture": 3}'])
def test_nonsense_about_the_architecture_is_told_and_is_no_reason_to_refuse(about: str) -> None:
    facts = facts_of(safetensors(about=about))
    assert facts.architecture is None
    assert facts.architecture_problem


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"1234567", "only 7 bytes"),
        (safetensors()[:40], "cut short"),
        (safetensors()[:-1], "cut short"),
        (safetensors() + b"x", "longer than it says"),
        (with_header(b"{not json}"), "not JSON"),
        (with_header(b"[]"), "not a JSON object"),
        (with_header(b"{}"), "no tensors"),
        (with_header(b"[" * 100_000), "not JSON"),
        (with_header(b'{"__metadata__": {"a": 1}}'), "__metadata__"),
        (with_header(b'{"w": 3}'), "no valid dtype"),
        (header(dtype="F31"), "no valid dtype"),
        (header(shape=[-2]), "no valid dtype"),
        (header(shape=[True]), "no valid dtype"),
        (header(shape=[2.0]), "no valid dtype"),
        (header(data_offsets=[0, 4]), "takes 8 bytes"),
        (header(data_offsets=[8, 16]), "begins at byte 8"),
        (header(data_offsets=[-8, 0]), "begins at byte -8"),
        (header(shape=[200], data_offsets=[0, 800]), "cut short"),
        (header(shape=[2**62, 2**62], data_offsets=[0, 8]), "takes"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(MalformedSafetensorsError, match=told):
        facts_of(content)


def test_a_huge_header_is_not_read() -> None:
    with pytest.raises(MalformedSafetensorsError, match="reads up to"):
        facts_of(with_header(b" " * (MAX_HEADER + 1)))


def test_overlapping_tensors_are_refused() -> None:
    both = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    with pytest.raises(MalformedSafetensorsError, match="byte 8 was expected"):
        facts_of(with_header(json.dumps({"a": both, "b": both}).encode(), bytes(8)))
