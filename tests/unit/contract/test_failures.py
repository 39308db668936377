from collections import Counter

from stillhouse.contract.failures import Blame, LabelOutOfRangeError, StillhouseError, every_failure


def test_every_code_is_used_once() -> None:
    assert [code for code, count in Counter(kind.code for kind in every_failure()).items() if count > 1] == []


def test_every_failure_says_something_without_being_told() -> None:
    for kind in every_failure():
        assert len(kind().message) > 15, kind
        assert kind().message.endswith("."), kind


def test_only_a_users_mistake_is_blamed_on_the_user() -> None:
    for kind in every_failure():
        assert (kind.http_status < 500) or kind.blame is not Blame.USER, kind


def test_a_failure_is_told_as_data() -> None:
    failure = LabelOutOfRangeError("Label 12 of sample 3.", param="/data/train/labels").as_failure()
    assert failure.model_dump() == {
        "code": "label_out_of_range", "message": "Label 12 of sample 3.", "param": "/data/train/labels",
        "blame": "user", "retryable": False, "step": None,
    }
    assert issubclass(LabelOutOfRangeError, StillhouseError)
