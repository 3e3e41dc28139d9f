"""Why a task waits, in words: for `flmctl explain`, and for `Session.explain`."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from flamezmq.resources import in_words
from flamezmq.states import TaskState
from flamezmq.wire import messages as m


def sentences(why: m.Why) -> str:
    """One to three plain sentences."""
    if why.where == "session":
        return " ".join(filter(None, (_of_session(why), _cause(why), unsent(why))))
    name = f"task {why.session}/{why.task}"
    said = _PLACES.get(why.where, _somewhere)(why)
    waits = why.where in ("queue", "retry")
    return " ".join(filter(None, (f"{name} {said}", _cause(why) if waits else "", _near(why))))


def _near(why: m.Why) -> str:
    """Where its data is; empty if that makes no difference."""
    if not why.input_bytes or not why.near:
        return ""
    there = "all" if why.near_bytes >= why.input_bytes else memory(why.near_bytes)
    if not why.near_bytes:
        there = "none"
    where = "this node" if why.where in ("runs", "held") else f"node {why.near}"
    return f"Of its data in stores, {memory(why.input_bytes)}, {there} is on {where}."


def memory(size: int) -> str:
    """Bytes as people say them: 1.5 GiB."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def span(seconds: float) -> str:
    """A time as people say it: 0.31 s, 12 s, 3 min, 5 h, 2 days."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.2g} s" if seconds >= 0.01 else "an instant"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- where it stands


def _runs(why: m.Why) -> str:
    again = f", attempt {why.attempt}" if why.attempt > 1 else ""
    if why.binding:
        return f"is next on executor {why.executor}, which binds its service, since {span(why.runs_for)}."
    return f"runs on executor {why.executor}, since {span(why.runs_for)}{again}{_pauses(why)}."


def _pauses(why: m.Why) -> str:
    if why.paused_for < 0:
        return ""
    if why.reads:
        return (
            f"; its stream waits for its reader, since {span(why.paused_for)}: read it on, "
            "or close it if nobody reads it (stream.close())"
        )
    return f"; it waits for its own tasks, since {span(why.paused_for)}"


def _held(why: m.Why) -> str:
    there = "its service is being bound" if why.binding else f"task {why.current} runs"
    return (
        f"was given to executor {why.executor}, where it waits behind {_many(why.ahead, 'other')}; "
        f"{there} there, since {span(why.runs_for)}."
    )


def _queue(why: m.Why) -> str:
    ahead = (
        f"behind {_many(why.ahead, 'other')} of its session" if why.ahead else "as the next of its session"
    )
    since = f", since {span(why.since)}" if why.since >= 0 else ""
    again = f" for attempt {why.attempt}" if why.attempt > 1 else ""
    return f"is queued{again} {ahead}{since}."


def _retry(why: m.Why) -> str:
    when = f"in {span(why.delay)}" if why.delay > 0.01 else "now"
    return f"has failed and is to run again {when}, as attempt {why.attempt}."


def _needs(why: m.Why) -> str:
    if why.fetching:
        return (
            "has all that it needs, and waits for values that come from its client again, "
            f"since {span(why.since)}."
        )
    states = [f"{name} ({_state(state)})" for name, state in zip(why.needs, why.need_states, strict=False)]
    values = _many(why.lacking, "other task")
    named = f": {', '.join(states)}{', ...' if why.lacking > len(states) else ''}" if states else ""
    return (
        f"waits for the value{'' if why.lacking == 1 else 's'} of {values}{named}, since {span(why.since)}."
    )


def _in_client(why: m.Why) -> str:
    return f"waits in its client to be submitted. {unsent(why)}"


def unsent(why: m.Why) -> str:
    """What waits in clients for room under a quota, and what to do; empty if nothing does."""
    if not why.unsent:
        return ""
    since = f", since {span(why.unsent_since)}" if why.unsent_since >= 0.01 else ""
    whose = f"tenant {why.tenant}" if why.tenant else "the tenant without a name"
    wait = "waits" if why.unsent == 1 else "wait"
    amounts = (why.quota_limit, why.quota_used, why.quota_ahead)
    what, (limit, queued, ahead) = "tasks", (f"{amount:,}" for amount in amounts)
    if why.quota == "queued_bytes":
        what, (limit, queued, ahead) = "bytes of arguments", map(in_words, amounts)
    more = f", and {ahead} more may come without asking" if why.quota_ahead else ""
    return (
        f"At least {_many(why.unsent, 'task')} {wait} in the client{since}: {whose} may have {limit} {what} "
        f"queued ({why.quota}); {queued} are{more}. They go out as those begin, or when the quota is raised: "
        f"flmctl tenants set {shlex.quote(why.tenant)} --{why.quota.replace('_', '-')} N."
    )


def _state(state: int) -> str:
    if state == TaskState.SUCCEED:
        return "it has ended, and its value is on its way"
    return "it runs" if state == TaskState.RUNNING else "it waits"


def _ended(why: m.Why) -> str:
    ago = f", {span(why.since)} ago" if why.since >= 0 else ""
    where = f" on executor {why.executor}" if why.executor else ""
    if why.state == TaskState.CANCELLED:
        return f"is cancelled, by {why.by}."
    if why.state == TaskState.SUCCEED:
        return f"has ended with a value{where}{ago}."
    if why.state == TaskState.FAILED:
        return f"has failed{where}{ago}."
    if why.cause == "closed":
        return f"has ended, or was cancelled when its session was closed{ago} ({why.by})."
    return "has ended; how, the router does not remember: it does for the last ones only."


def _somewhere(why: m.Why) -> str:
    return f"is in state {why.where!r}, of which this version of flamezmq knows nothing."


_PLACES = {
    "runs": _runs,
    "held": _held,
    "queue": _queue,
    "retry": _retry,
    "needs": _needs,
    "client": _in_client,
    "ended": _ended,
}


def _of_session(why: m.Why) -> str:
    name = f"session {why.session}"
    if why.cause == "closed":
        return f"{name} is closed, since {span(why.since)}: {why.by}."
    places = (
        (why.running, "runs", "run"),
        (why.held, "waits on executors behind others", "wait on executors behind others"),
        (why.queued, "is queued", "are queued"),
        (why.delayed, "waits to run again", "wait to run again"),
        (why.blocked, "waits for values of others", "wait for values of others"),
    )
    said = [f"{count:,} {one if count == 1 else many}" for count, one, many in places if count]
    if not said and why.unsent:
        return f"No task of {name} is with the router."
    if not said:
        return f"{name} has no task that has not ended."
    since = f" The next one was submitted {span(why.since)} ago." if why.since >= 0 else ""
    return f"Of the tasks of {name}, {', '.join(said)}.{since}"


# --- why nothing is handed out


def _cause(why: m.Why) -> str:
    said = _CAUSES.get(why.cause, "")
    first = said(why) if callable(said) else said.format(why=why, since=_since(why))
    return " ".join(filter(None, (first, _streams(why), _failing(why))))


def _since(why: m.Why) -> str:
    return f", since {span(why.cause_since)}" if why.cause_since >= 0.01 else ""


def _failing(why: m.Why) -> str:
    """Beside whatever else it waits for, a node is of no use."""
    if not why.failing:
        return ""
    return f"Node {why.executor} gives no executors: {_die(why)}, the last one by {why.failing}."


def _streams(why: m.Why) -> str:
    """Beside whatever else it waits for, streams hold executors of which nobody has anything."""
    if not why.streams or why.cause in _WHATEVER_STREAMS_DO:
        return ""
    one = why.streams == 1
    who = "stream waits for its reader and holds" if one else "streams wait for their readers and hold"
    since = f"since {span(why.streams_since)}" + ("" if one else " the first of them")
    what = "read it on, or close it" if one else "read them on, or close those that nobody reads"
    return f"{why.streams:,} {who} {_many(why.streams, 'executor')}, {since}: {what} (stream.close())."


def _die(why: m.Why) -> str:
    since = f", since {span(why.failing_for)}" if why.failing_for >= 0 else ""
    return f"they die as they start, {why.stillborn} in a row{since}"


def _no_executors(why: m.Why) -> str:
    there = f"{_many(why.workers, 'worker')} with the router, and none has one"
    return f"There are no executors{_since(why)}: {there}."


def _executors_die(why: m.Why) -> str:
    ago = f" {span(why.cause_since)} ago" if why.cause_since >= 0 else ""
    die = _die(why) if why.stillborn > 1 else "they die"
    return f"There are no executors: {die}, the last one on node {why.executor}{ago}: {why.by}."


def _limit(why: m.Why) -> str:
    has = "the one executor that it may have" if why.limit == 1 else f"the {why.limit} that it may have"
    return f"The session has {has} at a time (max_executors){_since(why)}."


def _share(why: m.Why) -> str:
    rivals = f"{_many(why.rivals, 'other session')} {'has' if why.rivals == 1 else 'have'} the others"
    more = f", and tasks wait in {why.waiting_rivals:,} of the others" if why.waiting_rivals else ""
    return f"The session has {why.have} of {_many(why.executors, 'executor')}{_since(why)}; {rivals}{more}."


def _unsuitable(why: m.Why) -> str:
    are = "executor is" if why.free == 1 else "executors are"
    return f"{why.free} {are} free, but had other programs' modules loaded; fresh ones are on their way."


def _tenant(why: m.Why) -> str:
    return f"Tenant {why.tenant!r}" if why.tenant else "The tenant of all who name none"


def _no_node_fits(why: m.Why) -> str:
    return f"No node has what an executor of the session needs{_since(why)}: {why.by or 'there is none'}."


def _too_many_actors(why: m.Why) -> str:
    most = f"{why.limit} for each of {_many(why.workers, 'node')}"
    return f"Its actor has no process{_since(why)}: as many live as may, {most}. Close what is not needed."


def _gang(why: m.Why) -> str:
    if why.gathered:
        return (
            f"Gang reservation {why.gathered} of {why.gang}{_since(why)}: the others end their tasks first."
        )
    return f"Its turn to get a gang of {why.gang} executors has not come yet{_since(why)}."


#: By `Why.cause`: a sentence, in which `why` and `since` are filled in, or what makes one.
_CAUSES: dict[str, str | Callable[[m.Why], str]] = {
    "suspended": "The session is suspended{since}, by {why.by}; flmctl resume {why.session} lets it go on.",
    "held back": "Nothing is handed out{since}: its client does not take the results that wait for it.",
    "kept": (
        "Nothing is handed out{since}: the results that it keeps, {why.by}, take all the room that a "
        "detached session has (--max-kept-bytes); fetch them by client.attach(...).futures()."
    ),
    "router stops": "Nothing is handed out{since}: the router is stopping.",
    "no workers": "There are no executors{since}: no worker is with the router.",
    "no executors": _no_executors,
    "executors die": _executors_die,
    "limit": _limit,
    "tenant": lambda why: f"{_tenant(why)} uses {why.by}{_since(why)}.",
    "beyond tenant": "The session needs {why.by}: it waits until that is changed{since}.",
    "all": "All executors serve its session, {why.have} of {why.executors}{since}, and are busy.",
    "share": _share,
    "unsuitable": _unsuitable,
    "no node fits": _no_node_fits,
    "gang": _gang,
    "gang too large": "The cluster has {why.executors} executors, the gang needs {why.gang}{since}.",
    "no room": "The nodes that have what an executor of the session needs use it for others{since}.",
    "actor is busy": "Its actor does one call after the other, and is busy{since}.",
    "actor waits": (
        "Its actor's calls keep their order; "
        "call {why.current}, before it, waits for values of others{since}."
    ),
    "too many actors": _too_many_actors,
    "actor starts": "Its actor has no process{since}: it gets the next one that is free.",
    "now": "An executor is free, and about to get it.",
    "near": lambda why: (
        f"An executor of node {why.near}, where most of its data is, is due sooner than that could be "
        f"fetched; another one takes it in {span(why.near_for)} at most."
    ),
    "readers": (
        "No more streams begin{since}, nor what its session has queued behind them: as many wait for "
        "their readers as may, two for each executor of a node."
    ),
}

#: Causes that would be there without streams, too.
_WHATEVER_STREAMS_DO = ("suspended", "held back", "kept", "router stops", "limit", "now", "actor is busy")
