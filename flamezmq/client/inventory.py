"""What a client can see of the objects in its cluster's stores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flamezmq.client.inquiry import exchange
from flamezmq.wire import messages as m

#: Of `Ask`, the kind of question, and the rows of an answer, of which the router gives no more.
OBJECTS, PAGE_ROWS = 8, 256

if TYPE_CHECKING:
    from flamezmq.client.session import Session


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """An object in a store, as `Client.objects` shows it.

    Attributes:
        id: 32 hexadecimal digits, as errors quote them.
        session: the id of the session with which it goes; "" where that is not known yet.
        name: that its owner has given it; "" if none.
        size: its bytes.
        nodes: the names of those that have it, its home first.
        copies: of these, so many have fetched it.
        pinned: whether it stays until its session ends, whoever refers to it.
        spilled: whether it is on disk.
        readers: processes that refer to it, as far as the stores know of them.
    """

    id: str
    session: str
    name: str
    size: int
    nodes: tuple[str, ...]
    copies: int
    pinned: bool
    spilled: bool
    readers: int


class ObjectsOfClient:
    """The part of `Client` that shows objects."""

    def objects(self, session: Session | str | None = None) -> list[ObjectStatus]:
        """The objects in the stores of all nodes, whoever has put them there, in the order they came.

        Args:
            session: only those of this one, or of the one with this id.

        Stores report in batches: what has come or gone within some tens of milliseconds may not be seen yet.
        Large arguments and results are objects for as long as they are needed.  One round trip for 256 of
        them.

        Raises:
            NotFound: there is no such session.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        id = session if isinstance(session, str) else session.id if session is not None else ""
        found: list[m.ObjectRow] = []
        more = 1
        while more:
            after = found[-1].number if found else 0
            ask = partial(m.Ask, kind=OBJECTS, session=id, after=after, limit=PAGE_ROWS)
            page = exchange(self, ask)  # type: ignore[arg-type]
            found += page.objects
            more = page.more if page.objects else 0
        return [_status(row) for row in found]


def _status(row: m.ObjectRow) -> ObjectStatus:
    return ObjectStatus(
        row.id.hex(),
        row.session,
        row.name,
        row.size,
        tuple(row.nodes),
        row.copies,
        row.pinned,
        row.spilled,
        row.readers,
    )
