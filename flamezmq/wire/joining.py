"""Messages of sessions that several clients are members of, one after the other or at a time.

Each member has a number, from 0.  Its tasks have the indices from `number * STRIDE` on, in all
messages of the session, so one index names one task whoever has submitted it.  Its functions it
numbers from 0, as ever.
"""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Count, Index

#: The tasks of member k have indices from k times this; a power of ten, so that people can read them.
STRIDE = 10**12
#: Members that a session may have in its life: indices stay numbers of the wire.
MOST_MEMBERS = 1_000_000

#: After so many messages with ends of tasks a member says that it has them.
CONFIRM_MESSAGES = 64

# What became of it.
JOINED, REFUSED, DIFFERS, CLOSED, UNKNOWN = range(5)


class Join(msgspec.Struct, tag=16, array_like=True):
    """Become a member of the session of this id, whatever its spec is; answered by `Joined`.

    session  a number that the client chose, as in `Open`
    who      who that is, for people
    """

    session: int
    id: str
    who: str


class Joined(msgspec.Struct, tag=36, array_like=True):
    """Answer to `Join`, and to `Open` with `who`.

    outcome      0: it is a member; 1: refused; 2: the spec differs; 3: it was closed; 4: there is none
    member       its number
    text         why not, or who has closed it
    differs      flat triples: a field of the spec, what was asked for, what the session has
    ago          seconds since it was closed
    application  that of the session
    detached     the session stays when its clients have gone
    confirm      if so: `Fetched` is due after so many bytes, or CONFIRM_MESSAGES
    """

    session: int
    outcome: int
    member: Index = 0
    text: str = ""
    differs: list[str] = []
    ago: float = 0.0
    application: str = ""
    detached: bool = False
    confirm: Index = 0


class Fetch(msgspec.Struct, tag=19, array_like=True):
    """From a member of a detached session: what has become, or becomes, of the tasks of others?

    Answered by `Past`, then by the messages that their members have got, or would have.

    under  a number of a session that the client chose: it stands in all these
    """

    session: int
    under: int


class Past(msgspec.Struct, tag=100, array_like=True):
    """Answer to `Fetch`: the tasks that it is about.

    session  the `under` of Fetch
    tasks    flat pairs (first index, count), in the order of their submission
    """

    session: int
    tasks: list[Index]


class Fetched(msgspec.Struct, tag=101, array_like=True):
    """So many more messages with the ends of tasks are here, of those that came under this session.

    Only in detached sessions.  Counted: Results, Lost, Expired, Unmet, and Cancelled that names some.
    """

    session: int
    messages: Count


class LeaveSession(msgspec.Struct, tag=102, array_like=True):
    """The member leaves, or fetches no more; answered by `Closed`.

    The last one closes the session, unless it is detached.  What of the member's tasks has not ended is
    cancelled, unless it is detached.
    """

    session: int


AboutMembers = Join | Fetch | Fetched | LeaveSession
ToMembers = Joined | Past
