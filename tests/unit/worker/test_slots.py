"""k slots at once or none."""

import threading

from worker.slots import Slots


def test_slots_are_taken_together_or_not_at_all() -> None:
    slots = Slots(3)
    assert slots.take(2) == (0, 1)
    assert slots.take(2) is None
    assert slots.num_free == 1, "the refusal took nothing"
    assert slots.take(1) == (2,)


def test_released_slots_are_taken_again() -> None:
    slots = Slots(2)
    taken = slots.take(2)
    assert taken is not None
    slots.release(taken)
    assert slots.take(2) == (0, 1)


def test_no_slot_is_given_twice() -> None:
    slots, given, everyone = Slots(4), [], threading.Barrier(16)

    def grab() -> None:
        everyone.wait()
        given.append(slots.take())

    threads = [threading.Thread(target=grab) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken for taken in given if taken) == [(0,), (1,), (2,), (3,)]
