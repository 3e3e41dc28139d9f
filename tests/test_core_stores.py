"""What the router makes of the reports of stores, when sessions and nodes end."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.objects import COPY, MOST_OBJECTS
from tests.core_stage import CLIENT, WORKER, Stage

FAR = 6
HERE, THERE = "tcp://10.0.0.1:1", "tcp://10.0.0.2:2"


def id_of(k: int) -> bytes:
    return k.to_bytes(16, "big")


def stage() -> Stage:
    """Two nodes with stores, and a session s1."""
    stage = Stage()
    for peer, node, token, at in ((WORKER, "near", "token", HERE), (FAR, "far", "other", THERE)):
        stage.say(
            peer,
            m.Register(node, token, 1, 2.0, 1 << 30, 0, store=node, store_at=at, store_limit=1 << 20),
        )
    stage.open()
    return stage


def stocked(*ks: int, session: str = "s1", marks: int = 0, gone: Any = (), **more: Any) -> m.Stocked:
    many = len(ks)
    owner = 0 if session else -1
    columns = [id_of(k) for k in ks], [owner] * many, [100] * many, [marks] * many
    return m.Stocked(1000, [session] if session else [], *columns, gone=[id_of(k) for k in gone], **more)


def nodes_of(stage: Stage, k: int) -> list[str]:
    entry = stage.broker.directory.find(id_of(k))
    return [] if entry is None else entry.nodes


def test_a_store_hears_which_others_have_an_object_its_home_first() -> None:
    s = stage()
    s.say(FAR, stocked(1, session="", marks=COPY))
    s.say(WORKER, stocked(1, 2))

    s.say(9, m.Register("third", "third", 1, 2.0, 1 << 30, 0, store="third", store_at="tcp://10.0.0.3:3"))
    s.say(9, m.WhoHas([id_of(1), id_of(2), id_of(3)]))
    assert s.said == [(9, m.Holders([id_of(1), id_of(2), id_of(3)], [[HERE, THERE], [HERE], []]))]
    s.say(FAR, m.WhoHas([id_of(1)]))
    assert s.said == [(FAR, m.Holders([id_of(1)], [[HERE]]))]


def test_the_objects_of_a_node_are_gone_with_it_and_the_log_says_how_many() -> None:
    s = stage()
    s.say(WORKER, stocked(1, 2, 3))
    s.say(FAR, stocked(3, session="", marks=COPY))
    s.broker.events.clear()

    s.lose(WORKER)

    assert [nodes_of(s, k) for k in (1, 2, 3)] == [[], [], ["other"]]
    assert ("objects-lost", {"node": "near", "objects": 2, "bytes": 200}) in s.broker.events


def test_the_objects_of_a_session_go_from_the_directory_when_it_ends_and_do_not_come_back() -> None:
    s = stage()
    s.say(WORKER, m.Stocks("s1"))
    s.say(WORKER, stocked(1, 2))
    s.say(CLIENT, m.Close(1))
    assert (WORKER, m.Unstock("s1")) in s.said

    s.say(WORKER, stocked(3))
    s.say(WORKER, stocked(gone=(1, 2, 3)))
    assert len(s.broker.directory) == 0


def test_a_report_that_makes_no_sense_is_refused_and_changes_nothing() -> None:
    s = stage()
    too_many = stocked(*range(MOST_OBJECTS + 1))
    torn, nobodys, short = stocked(1, 2), stocked(1), stocked(1)
    torn.sizes.pop()
    nobodys.owners[0] = 1
    short.ids[0] = b"short"
    for nonsense in (too_many, torn, nobodys, short, m.WhoHas([id_of(1)] * (MOST_OBJECTS + 1))):
        with pytest.raises(ProtocolError):
            s.say(WORKER, nonsense)
    for message in (stocked(1), m.WhoHas([])):
        with pytest.raises(ProtocolError, match="a worker's message"):
            s.say(CLIENT, message)
    assert len(s.broker.directory) == 0
