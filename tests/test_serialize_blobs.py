"""Blobs are refused as soon as they are known to be too large, and otherwise are pickles as any."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from flamezmq.client import terms
from flamezmq.errors import TooLarge, Unpicklable
from flamezmq.serialize import blobs
from flamezmq.serialize.functions import dump_function
from flamezmq.serialize.initializer import dump_initializer
from flamezmq.serialize.pickler import PastLimit, dump_in_band
from flamezmq.serialize.values import load_value

MOST = 100_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "MAX_BLOB_BYTES", MOST)


class Counted:
    """Counts how many were pickled."""

    pickled = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        Counted.pickled += 1
        return bytes, (b"%d" % self.number * 2000,)


def test_what_is_too_large_is_not_pickled_to_its_end() -> None:
    Counted.pickled = 0
    with pytest.raises(
        TooLarge, match=r"the common data is too large: at least .* bytes in one piece, and a"
    ):
        terms.dump_common_data([Counted(number) for number in range(10, 1000)])
    assert Counted.pickled < 100


def test_an_array_that_is_too_large_is_not_copied_first() -> None:
    strided = np.zeros((MOST, 2))[:, 0]
    with pytest.raises(PastLimit) as past:
        dump_in_band(strided, MOST)
    assert past.value.size == strided.nbytes


def test_each_kind_of_blob_is_refused_by_name() -> None:
    held = bytes(2 * MOST)
    with pytest.raises(TooLarge, match=r"^function .*<lambda> is too large"):
        dump_function(lambda: held)
    with pytest.raises(TooLarge, match=r"^the initializer .*setattr with its arguments is too large"):
        dump_initializer(setattr, (held,))
    with pytest.raises(Unpicklable, match="the common data"):
        terms.dump_common_data({"lock": Lock()})


def test_what_just_fits_is_a_pickle_as_without_a_limit() -> None:
    for value in ([1, "two"], bytes(MOST - 100), np.arange(10_000), Path("here")):
        assert blobs.dump_blob("it", value) == dump_in_band(value)
    assert load_value(blobs.dump_blob("it", {"a": [1]})) == {"a": [1]}


def test_a_refused_value_is_kept_by_nobody() -> None:
    value = Counted(12345)
    gone = weakref.ref(value)
    gc.disable()
    try:
        with pytest.raises(PastLimit):
            dump_in_band([value, bytes(2 * MOST)], MOST)
        del value
        assert gone() is None, "the pickler and its sink make no cycle"
    finally:
        gc.enable()
