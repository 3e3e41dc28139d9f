"""Links: what is sent arrives once and in order, over connections that lose what they carry."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from flamezmq.core.link import ACK_AFTER_BYTES, ACK_AFTER_MESSAGES, Link, Verdict
from flamezmq.net.board import BACKLOG_BYTES
from tests.core_calls import link_up


def sent(link: Link) -> list[int]:
    return [number for number, _ in link.outgoing()]


# --- numbering


def test_messages_are_numbered_from_one_and_each_is_handed_out_once() -> None:
    link = link_up()
    link.enqueue([b"a"], 1)
    link.enqueue([b"b"], 1)

    assert link.outgoing() == [(1, [b"a"]), (2, [b"b"])]
    assert link.outgoing() == []
    link.enqueue([b"c"], 1)
    assert link.outgoing() == [(3, [b"c"])]
    link.check()


def test_a_message_can_be_committed_and_sent_in_one_step_unless_others_wait_before_it() -> None:
    link = link_up()
    assert link.commit([b"a"], 1) == 1
    link.enqueue([b"b"], 1)
    assert link.commit([b"c"], 1) == 0, "b goes first"
    assert sent(link) == [2, 3]

    link.cut()
    assert link.commit([b"d"], 1) == 0
    link.check()


def test_nothing_goes_out_while_the_connection_is_down() -> None:
    link = Link()
    link.enqueue([b"a"], 1)
    assert sent(link) == []

    assert link.begin(1, 0)
    assert sent(link) == [1]


# --- receiving


@pytest.mark.parametrize(
    ("epoch", "seq", "verdict"),
    [
        (2, 4, Verdict.APPLY),
        (2, 3, Verdict.DUPLICATE),
        (2, 0, Verdict.DUPLICATE),
        (2, 5, Verdict.GAP),
        (1, 4, Verdict.DUPLICATE),
        (3, 4, Verdict.DUPLICATE),
    ],
)
def test_only_the_next_message_of_this_epoch_is_applied(epoch: int, seq: int, verdict: Verdict) -> None:
    link = link_up(epoch=2)
    for number in (1, 2, 3):
        link.applied(number, 1)

    assert link.judge(epoch, seq) is verdict
    assert link.received == 3, "to judge changes nothing"
    assert link.accept(epoch, seq, 0, 1) is verdict
    assert link.received == (4 if verdict is Verdict.APPLY else 3)


# --- acknowledgements


def test_what_is_acknowledged_is_kept_no_longer() -> None:
    link = link_up()
    for size in (1, 10, 100):
        link.enqueue([b""], size)
    link.outgoing()

    link.acknowledged(2)

    assert link.bytes_kept == 100
    assert link.statistics()["kept"] == 1
    link.acknowledged(1)  # an older one comes late
    assert link.bytes_kept == 100
    link.check()


def test_what_was_never_handed_out_cannot_be_acknowledged() -> None:
    link = link_up()
    link.enqueue([b"a"], 1)

    link.acknowledged(99)

    assert sent(link) == [1]
    assert link.bytes_kept == 1


def test_an_acknowledgement_is_due_after_many_messages_or_many_bytes_and_any_envelope_carries_it() -> None:
    link = link_up()
    for number in range(1, ACK_AFTER_MESSAGES):
        link.applied(number, 1)
    assert not link.ack_due
    link.applied(ACK_AFTER_MESSAGES, 1)
    assert link.ack_due
    assert link.ack_riding() == ACK_AFTER_MESSAGES
    assert not link.ack_due

    link.applied(ACK_AFTER_MESSAGES + 1, ACK_AFTER_BYTES)
    assert link.ack_due


def test_a_client_acknowledges_long_before_what_it_leaves_unacknowledged_holds_it_back() -> None:
    assert BACKLOG_BYTES // 2 > 2 * ACK_AFTER_BYTES


# --- epochs


def test_a_new_epoch_sends_again_what_the_other_side_lacks_and_nothing_else() -> None:
    link = link_up()
    for _ in range(4):
        link.enqueue([b""], 1)
    assert sent(link) == [1, 2, 3, 4]
    link.cut()

    assert link.begin(2, 2)

    assert sent(link) == [3, 4]
    assert link.bytes_kept == 2
    link.check()


@pytest.mark.parametrize("claimed", [0, 4, 99])
def test_a_peer_that_lacks_what_is_gone_or_has_what_was_never_sent_is_not_the_peer(claimed: int) -> None:
    link = link_up()
    for _ in range(3):
        link.enqueue([b""], 1)
    link.outgoing()
    link.acknowledged(1)
    before = link.statistics()

    assert not link.begin(2, claimed)

    assert link.statistics() == before
    assert link.epoch == 1


def test_every_message_arrives_once_and_in_order_whatever_is_lost_doubled_or_late() -> None:
    for seed in range(200):
        weather = Random(seed)
        here, there = Link(), Link()
        arrived: list[bytes] = []
        wire: list[tuple[int, int, list[Any]]] = []
        epoch = made = 0
        for _ in range(300):
            chance = weather.random()
            if chance < 0.3:
                here.enqueue([b"%d" % made], 1)
                made += 1
            elif chance < 0.5:
                wire += [(here.epoch, number, frames) for number, frames in here.outgoing()]
            elif chance < 0.8 and wire:
                e, number, frames = wire[0] if weather.random() < 0.2 else wire.pop(0)
                verdict = there.judge(e, number)
                if verdict is Verdict.APPLY:
                    there.applied(number, 1)
                    arrived += frames
                elif verdict is Verdict.GAP:
                    here.cut()
            elif chance < 0.9:
                here.acknowledged(there.received if here.up else 0)
            else:  # cut; some of what was on its way still arrives, too late
                del wire[: weather.randrange(len(wire) + 1)]
                epoch += 1
                assert here.begin(epoch, there.received)
                assert there.begin(epoch, 0)
            here.check()
        assert arrived == [b"%d" % number for number in range(len(arrived))], f"seed {seed}"
