"""What users do with versions: the part of `ObjectRef` that is about them."""

from __future__ import annotations

from typing import Any, NamedTuple

from flamezmq.core.versions import LIST
from flamezmq.errors import ObjectLost
from flamezmq.serialize.values import dump_object, load_pieces
from flamezmq.store import access, versions
from flamezmq.store.kinds import kind_of
from flamezmq.store.names import shown
from flamezmq.wire.handles import Handle


class Increment(NamedTuple):
    """What came to a list after a version of it.

    Attributes:
        items: in the order in which they were appended.
        version: up to which: to be asked for next.
        whole: the list was updated as a whole since, or nothing of it was known: these are all its items.
    """

    items: list[Any]
    version: int
    whole: bool


class Seen(NamedTuple):
    """A list that was read: its items up to a version."""

    version: int
    items: list[Any]


class Versioned:
    """A reference whose object may have versions."""

    __slots__ = ("_handle", "_seen", "_version", "_was", "id", "kind", "session_id")

    _handle: Handle | None
    _seen: Seen | None
    _version: int
    _was: str
    id: str
    kind: str
    session_id: str

    @property
    def version(self) -> int:
        """The newest version of the object that this reference has made or read, from 1; asks nobody."""
        return self._version

    def update(self, obj: Any, /, *, if_version: int | None = None) -> int:
        """Have the object be `obj` from now on: a new version of it; returns its number.

        Every reference to the object reads the new version from then on.  Values that somebody has read
        stay as they are.  What `obj` replaces is freed: a moment later, and when nobody has views of it.

        Args:
            if_version: update only if this is the newest version.  None: whatever it is; where several
                update at a time, each makes a version, in the order in which the object's home hears of
                them, and the last one stays.

        Raises:
            StaleVersion: `if_version` is not the newest; its `newest` says which is.
            Unpicklable: names what can't travel.
            ObjectLost: the object was freed, its session was closed, or its home, the node that keeps it, is
                lost.
            StoreFull: its home has no room for another version.
            ValueError: the reference carries its value itself, for there is no store; `obj` contains this
                reference; or `if_version` is no version.

        It is made as a whole or not at all, also if this process is killed meanwhile.  Costs what a `put`
        does, and a question to the store.
        """
        if if_version is not None and (type(if_version) is not int or if_version < 1):
            raise ValueError(f"if_version is {if_version!r}; versions are numbered from 1")
        change = versions.Change(False, kind_of(obj), self._was, if_version or 0)
        return self._change(obj, change)

    def append(self, item: Any, /) -> int:
        """Append an item to the list that the object is: a new version of it; returns its number.

        Costs what the item does, however long the list is, and so does reading it again: who has read the
        list before gets only what came.

        Raises:
            TypeError: the object is no list; put one, `[]` for instance.
            Unpicklable, ObjectLost, StoreFull, ValueError: as `update`.

        Where several append at a time each item is there once, in the order in which the object's home
        hears of them; those of one process in its own.  Some tens of microseconds for a small item on the
        node of the object.
        """
        return self._change(item, versions.Change(True, LIST, self._was))

    def since(self, version: int = 0, /) -> Increment:
        """The items that came to the list after this version, and the newest version, to be asked for next.

            version = 0
            while True:
                items, version, whole = ref.since(version)

        Only what came is fetched, and unpickled.  If the list was updated as a whole since, `whole` says so,
        and these are all the items that it has now.

        Raises:
            TypeError: the object is no list.
            ObjectLost: as `get`.
            ValueError: `version` is no version; or the reference carries its value itself.
        """
        if type(version) is not int or version < 0:
            raise ValueError(f"version is {version!r}; they are numbered from 1, and 0 asks for all items")
        news = self._read(version)
        if (news.kind or self._was).partition(" ")[0] != LIST:
            raise TypeError(
                f"object {shown(self.id)} is a {news.kind or self._was}, and only lists grow; use get()"
            )
        items = [load_pieces(*pieces) for pieces in news.parts]
        return Increment(items[0] + items[1:] if news.whole else items, news.version, news.whole)

    def _newest(self, copy: bool = False, private: bool = False) -> Any:
        """The value as of the newest version.

        copy, private: in memory of its own, all of it, or as soon as it is written to
        """
        seen = None if copy or private else self._seen
        news = self._read(seen.version if seen is not None else 0, private)
        loaded = [load_pieces(*(map(bytearray, pieces) if copy else pieces)) for pieces in news.parts]
        if news.whole:
            value, items = loaded[0], loaded[1:]
            if not items:
                self._seen = None
                return value
            items = value + items
        else:
            assert seen is not None
            items = seen.items + loaded
        if copy or private:
            return items
        self._seen = Seen(news.version, items)
        return list(items)

    def _read(self, after: int, private: bool = False) -> versions.News:
        handle = self._stored()
        access.has_lent = True
        try:
            news = versions.read(handle, after, private)
        except ObjectLost:
            if self._version > 1:
                raise
            # Its home can't be asked any more: then what was put, if it is anywhere, is the newest version.
            return versions.News(1, True, "", [access.fetch(handle, private)])
        self._note(news.version, news.kind)
        return news

    def _change(self, value: Any, change: versions.Change) -> int:
        changing = versions.Changing(self._stored(), self.session_id, change)
        dump_object(value, changing)
        made = changing.result()
        self._note(made.version, made.kind)
        return made.version

    def _note(self, version: int, kind: str) -> None:
        if version > self._version:
            self._version = version
            self.kind = kind or self.kind

    def _stored(self) -> Handle:
        if self._handle is None:
            raise ValueError(
                f"object {shown(self.id)} has one version only: no store was in reach when it was put, so "
                f"the reference carries its value; put it where a worker of the cluster is"
            )
        return self._handle
