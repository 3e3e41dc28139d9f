"""The states of a session, a task, an executor and a node, and the moves between them.

One table each; the diagrams in the documents are drawn from these tables.
"""

from __future__ import annotations

from enum import IntEnum


class SessionState(IntEnum):
    OPEN = 0
    CLOSED = 1
    SUSPENDED = 2
    DRAINING = 3


class TaskState(IntEnum):
    PENDING = 0
    RUNNING = 1
    SUCCEED = 2
    FAILED = 3
    CANCELLED = 4


class ExecutorState(IntEnum):
    LAUNCHING = 0
    IDLE = 1
    BOUND = 2
    DRAINING = 3
    DEAD = 4


class NodeState(IntEnum):
    STARTING = 0
    READY = 1
    DRAINING = 2
    GONE = 3


SESSION_MOVES: dict[SessionState, tuple[SessionState, ...]] = {
    SessionState.OPEN: (SessionState.SUSPENDED, SessionState.DRAINING, SessionState.CLOSED),
    # Its tasks wait, and what runs ends.
    SessionState.SUSPENDED: (SessionState.OPEN, SessionState.DRAINING, SessionState.CLOSED),
    # It takes nothing more, and is closed when what it has has ended.
    SessionState.DRAINING: (SessionState.SUSPENDED, SessionState.CLOSED),
    SessionState.CLOSED: (),
}

TASK_MOVES: dict[TaskState, tuple[TaskState, ...]] = {
    # Running -> Pending: its executor died, or gave the task back (retract).
    TaskState.PENDING: (TaskState.RUNNING, TaskState.CANCELLED, TaskState.FAILED),
    TaskState.RUNNING: (TaskState.SUCCEED, TaskState.FAILED, TaskState.CANCELLED, TaskState.PENDING),
    TaskState.SUCCEED: (),
    TaskState.FAILED: (),
    TaskState.CANCELLED: (),
}

EXECUTOR_MOVES: dict[ExecutorState, tuple[ExecutorState, ...]] = {
    ExecutorState.LAUNCHING: (ExecutorState.IDLE, ExecutorState.DEAD),
    ExecutorState.IDLE: (ExecutorState.BOUND, ExecutorState.DRAINING, ExecutorState.DEAD),
    # Bound -> Draining: it is to leave, or to serve another session, once it holds nothing.
    ExecutorState.BOUND: (ExecutorState.IDLE, ExecutorState.DRAINING, ExecutorState.DEAD),
    ExecutorState.DRAINING: (ExecutorState.IDLE, ExecutorState.BOUND, ExecutorState.DEAD),
    ExecutorState.DEAD: (),
}

NODE_MOVES: dict[NodeState, tuple[NodeState, ...]] = {
    # Its worker is here, but none of its executors is, yet or any more.
    NodeState.STARTING: (NodeState.READY, NodeState.DRAINING, NodeState.GONE),
    NodeState.READY: (NodeState.STARTING, NodeState.DRAINING, NodeState.GONE),
    # Its worker has said that it leaves; its executors end what they hold.
    NodeState.DRAINING: (NodeState.GONE,),
    NodeState.GONE: (),
}
