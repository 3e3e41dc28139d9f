"""The guard: kills the commands of an executor that has died before it could do so itself.

A command is in a process group of its own, so who kills an executor's group does not
meet it.  The guard is a small shell beside the executor, at the other end of
a pipe: when that ends, by whatever death, it kills what is left of the
executor's session, and ends, too.  As long as it lives the session's
number can't be another's.

It is started before the first command and serves them all, so that a command
costs one process.  (A service lives for long, and may leave its session: it has a warden.)
"""

from __future__ import annotations

import os
import select

#: $1 is the session.  Nothing but builtins, of every sh; the bound is for what can't be killed.
_SCRIPT = """\
session=$1
read -r _
for round in 0 1 2 3 4 5 6 7 8 9; do for again in 0 1 2 3 4 5 6 7 8 9; do
    left=
    for file in /proc/[0-9]*/stat; do
        pid=${file#/proc/}
        pid=${pid%/stat}
        read -r line < "$file" || continue
        set -- ${line##*) }
        if [ "$4" = "$session" ] && [ "$1" != Z ] && [ "$pid" != $$ ]; then
            kill -s KILL "$pid" && left=yes
        fi
    done
    [ "$left" ] || exit
done; done
"""


class Guard:
    """The guard of this process, which must be the first of its session, as executors are."""

    def __init__(self) -> None:
        self._pid = self._owner = 0
        self._pipe = -1

    def start(self) -> None:
        """See to it that there is one.  Some microseconds if there is.

        Raises:
            OSError: there can be none.
        """
        if self._owner == os.getpid() and self._lives():
            return
        self._forget()
        theirs, ours = os.pipe()
        try:
            self._pid = os.posix_spawn(
                "/bin/sh",
                ["flm-guard", "-c", _SCRIPT, "flm-guard", str(os.getpid())],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setpgroup=0,  # or it would be killed with the executor's
                setsigmask=(),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe, self._owner = ours, os.getpid()

    def _lives(self) -> bool:
        """Somebody may have killed it: then nobody reads the pipe."""
        poll = select.poll()
        poll.register(self._pipe, 0)
        return not poll.poll(0)

    def _forget(self) -> None:
        """The one that we had is dead, or that of the process that we were forked from."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._owner == os.getpid():
            try:
                os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                pass  # the user's code has waited for it


guard = Guard()
