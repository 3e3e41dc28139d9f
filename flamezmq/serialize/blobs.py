"""Blobs: what travels in one pickle with its buffers inside, and is kept by who gets it.

Functions, constructors, initializers, common data: each is one field of a message, so
there is a size that none may pass.  What is past it is refused when that is known, while
it is being pickled: it is neither pickled to its end nor copied.
"""

from __future__ import annotations

from flamezmq.serialize.culprit import unpicklable
from flamezmq.serialize.pickler import PastLimit, dump_in_band

#: The largest one.
MAX_BLOB_BYTES = 512 * 2**20


def dump_blob(what: str, value: object) -> bytes:
    """One pickle of the value; `what` is what errors call it.

    Raises:
        Unpicklable: names what can't travel.
        TooLarge: no message takes it.
    """
    try:
        return dump_in_band(value, MAX_BLOB_BYTES)
    except PastLimit as past:
        raise past.error(what) from None
    except Exception as error:
        raise unpicklable(what, value, error) from error
