"""The worker's mind, and what it makes of its executors' chatter: no process, no clock."""

from __future__ import annotations

from random import Random

import pytest

from flamezmq.core import agent as a
from flamezmq.core.backoff import HOPELESS, LONGEST_DELAY_SECONDS, YOUNG_SECONDS, Backoff
from flamezmq.core.chatter import BURST_BYTES, LAST_LINES, Chatter
from flamezmq.errors import Certificate
from flamezmq.wire import messages as m

SIGKILL = a.End(signal="SIGKILL", rss_bytes=7)
NOTHING = a.Words()
#: A life that was long enough for its end to be no accident.
LONG = 100.0


def register(executors: int) -> m.Register:
    return m.Register("node", "token", 1, 2.0, 1 << 30, executors)


def agent_with(executors: int, now: float = 0.0) -> a.Agent:
    """An agent whose executors 1 to n are forked, with pids 101 to 100 + n."""
    agent = a.Agent(register(executors))
    agent.on_start(now)
    for number in range(1, executors + 1):
        agent.on_forked(number, 100 + number, now)
    agent.check()
    return agent


def died(effects: a.Effects) -> list[m.Died]:
    return [e.message for e in effects if isinstance(e, a.Send) and isinstance(e.message, m.Died)]


def printed(effects: a.Effects) -> list[m.Printed]:
    return [e.message for e in effects if isinstance(e, a.Send) and isinstance(e.message, m.Printed)]


def forks(effects: a.Effects) -> list[int]:
    return [effect.number for effect in effects if isinstance(effect, a.Fork)]


# --- starting


def test_executors_are_asked_for_before_the_router_is_greeted() -> None:
    agent = a.Agent(register(2))

    assert agent.on_start(0.0) == [a.Fork(1), a.Fork(2), a.Send(agent.register)]
    agent.check()


def test_the_zygote_is_never_asked_for_more_than_its_socket_holds() -> None:
    agent = a.Agent(register(a.FORKS_AT_A_TIME + 5))

    assert forks(agent.on_start(0.0)) == list(range(1, a.FORKS_AT_A_TIME + 1))
    assert agent.next_deadline() is None, "it waits for an answer, not for the time"
    assert forks(agent.on_forked(1, 101, 0.1)) == [a.FORKS_AT_A_TIME + 1]
    agent.check()


# --- deaths


def test_a_death_is_reported_with_what_the_page_said_and_replaced_at_once() -> None:
    agent = agent_with(2)

    effects = agent.on_exited(1, a.End("SIGSEGV", 0, True, 4096), a.Words(5, 17, 41), LONG)

    assert effects == [
        a.Send(m.Died(1, 101, "node", 5, 17, 41, "SIGSEGV", 0, True, 4096, (), False)),
        a.Fork(3),
    ]
    assert agent.on_exited(1, SIGKILL, a.Words(), LONG) == [], "its zygote and its pidfd may both tell"
    agent.check()


def test_the_last_words_come_before_the_death_and_are_in_it() -> None:
    agent = agent_with(1)
    agent.on_output(1, 2, b"first\n", 0.0)
    assert agent.on_output(1, 2, "späte".encode(), 0.001) == []

    effects = agent.on_exited(1, SIGKILL, a.Words(), LONG)

    assert printed(effects) == [m.Printed(1, 2, "späte", 0)]
    assert died(effects)[0].stderr == ("first", "späte")
    assert effects.index(a.Send(printed(effects)[0])) < effects.index(a.Send(died(effects)[0]))


def test_one_that_was_ordered_dead_is_expected_and_never_out_of_memory() -> None:
    agent = agent_with(1)

    assert agent.on_kill_order(1, LONG) == [a.Kill(1)]
    (report,) = died(agent.on_exited(1, a.End("SIGKILL", 0, True), a.Words(5, 17, 41), LONG))

    assert report.expected
    assert not report.oom
    assert agent.on_kill_order(1, LONG) == [], "it is gone"


def test_an_order_for_one_that_is_still_being_forked_is_carried_out_when_it_is_there() -> None:
    agent = a.Agent(register(1))
    agent.on_start(0.0)

    assert agent.on_kill_order(1, 0.0) == []
    assert agent.on_forked(1, 101, 0.1) == [a.Kill(1)]


@pytest.mark.parametrize(
    ("end", "words", "expected"),
    [
        (a.End(exit_code=0), a.Words(5, -1, 3), True),  # told by the router to leave
        (a.End(exit_code=0), a.Words(5, 2, 3), False),  # a task called os._exit(0)
        (a.End(exit_code=3), a.Words(5, -1, 3), False),
        (SIGKILL, a.Words(5, -1, 3), False),
    ],
)
def test_only_an_orderly_end_between_tasks_is_expected(end: a.End, words: a.Words, expected: bool) -> None:
    (report,) = died(agent_with(1).on_exited(1, end, words, LONG))

    assert report.expected == expected


# --- who dies young


def kill_newest(agent: a.Agent, now: float, words: a.Words = NOTHING) -> a.Effects:
    number = max(agent.executors)
    agent.on_forked(number, 100 + number, now)
    return agent.on_exited(number, SIGKILL, words, now)


def test_the_third_young_death_in_a_row_makes_the_next_one_wait_longer_and_longer() -> None:
    agent = agent_with(1)
    assert forks(kill_newest(agent, 0.01))
    assert forks(kill_newest(agent, 0.02))

    now, delays = 0.03, []
    for _ in range(8):
        assert not forks(kill_newest(agent, now))
        due = agent.next_deadline()
        assert due is not None
        assert forks(agent.on_time(due - 0.001)) == []
        assert len(forks(agent.on_time(due))) == 1
        delays.append(round(due - now, 3))
        now = due
        agent.check()

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_who_was_told_to_go_did_not_die_young() -> None:
    """Sessions whose initializers fail, one after the other, are no reason to give the node up."""
    agent = agent_with(1)
    for number in range(1, 2 * HOPELESS):
        assert forks(agent.on_exited(number, a.End(), a.Words(session=number), 0.01)) == [number + 1]
        agent.on_forked(number + 1, 200 + number, 0.01)
    assert not agent.hopeless(0.01)


def test_who_was_given_a_task_did_not_die_young() -> None:
    agent = agent_with(1)

    for turn in range(10):
        assert forks(kill_newest(agent, turn / 100, a.Words(1, 0, 0)))
        assert forks(kill_newest(agent, turn / 100, a.Words(1, -1, 1)))


def die_at_once(agent: a.Agent, now: float) -> float:
    agent.on_output(max(agent.executors), 2, b"Traceback\nOSError: no\n", now)
    kill_newest(agent, now)
    due = agent.next_deadline()
    agent.on_time(due or now)
    return due or now


def test_when_executors_die_as_they_start_there_is_no_hope_after_a_while() -> None:
    agent, now = agent_with(1), 0.0
    for _ in range(HOPELESS):
        assert not agent.hopeless(now)
        now = die_at_once(agent, now + 0.01)

    assert agent.hopeless(now) == (
        "8 times in a row an executor died as it started, the last one with the words: OSError: no"
    )


def test_there_is_hope_as_long_as_one_executor_lives() -> None:
    agent, now = agent_with(2), 0.0
    agent.on_forked(1, 100, now)
    now += YOUNG_SECONDS
    for _ in range(2 * HOPELESS):
        now = die_at_once(agent, now + 0.01)

    assert not agent.hopeless(now)


def test_neighbours_that_die_together_count_once() -> None:
    backoff = Backoff()

    for born in (0.0, 0.0, 0.0, 0.0, 0.2, 0.2):
        backoff.died(True, born, born + 0.1)
    assert (backoff.young, backoff.until) == (2, 0.0)

    backoff.died(False, 0.4, 2.0)
    assert backoff.young == 0


def test_no_wait_is_longer_than_the_longest() -> None:
    backoff, now = Backoff(), 0.0
    for _ in range(5000):
        now += 0.01
        backoff.died(True, now, now)

    assert backoff.until - now == LONGEST_DELAY_SECONDS


# --- the zygote


def test_a_lost_zygote_is_replaced_and_its_executors_as_they_are_found_dead() -> None:
    agent = agent_with(2)

    assert agent.on_zygote_lost(LONG) == [a.StartZygote()]
    assert agent.on_zygote_lost(LONG) == [a.StartZygote()], "the new one is lost as well"
    effects = agent.on_exited(2, SIGKILL, a.Words(5, 17, 41), LONG)

    assert died(effects)[0].running == 17
    assert forks(effects) == [3]
    agent.check()


def test_who_was_asked_for_and_never_seen_is_reported_dead_with_the_zygote() -> None:
    agent = agent_with(1)
    agent.on_exited(1, SIGKILL, a.Words(), LONG)

    effects = agent.on_zygote_lost(LONG + 1)

    (report,) = died(effects)
    assert (report.number, report.pid, report.signal) == (2, 0, "SIGKILL")
    assert effects[1:] == [a.StartZygote(), a.Fork(3)]
    assert agent.on_forked(2, 102, LONG + 1) == [], "too late"
    agent.check()


def test_a_zygote_that_dies_young_again_and_again_waits() -> None:
    agent = agent_with(1)
    now = 0.0
    for _ in range(2):
        assert a.StartZygote() in agent.on_zygote_lost(now)
        now += 0.01

    assert a.StartZygote() not in agent.on_zygote_lost(now)
    due = agent.next_deadline()
    assert due is not None
    assert due == pytest.approx(now + 0.1)
    assert agent.on_time(due)[0] == a.StartZygote()


# --- the end


def test_after_a_stop_nothing_is_started_and_all_ends_are_expected() -> None:
    agent = agent_with(2)

    assert agent.on_stop(1.0) == [a.StopZygote(a.GRACE_SECONDS)]
    assert agent.on_stop(1.0) == []
    first = agent.on_exited(1, a.End("SIGTERM"), a.Words(5, 17, 41), 1.1)
    assert not agent.ended
    agent.on_exited(2, SIGKILL, a.Words(), 1.2)

    assert [report.expected for report in died(first)] == [True]
    assert not forks(first)
    assert agent.ended
    assert agent.on_zygote_lost(1.3) == []
    assert agent.next_deadline() is None
    agent.check()


# --- chatter


def test_the_first_line_goes_out_at_once_and_the_next_ones_together() -> None:
    agent = agent_with(1)

    assert printed(agent.on_output(1, 1, b"a\n", 1.0)) == [m.Printed(1, 1, "a\n", 0)]
    assert agent.on_output(1, 1, b"b\n", 1.005) == []
    assert agent.on_output(1, 1, b"c\nd", 1.010) == []
    due = agent.next_deadline()
    assert due is not None
    assert due == pytest.approx(1.02)
    assert printed(agent.on_time(due)) == [m.Printed(1, 1, "b\nc\n", 0)]
    agent.check()


def test_a_line_without_an_end_waits_longer_and_then_goes() -> None:
    agent = agent_with(1)

    assert agent.on_output(1, 2, b"10%\r", 1.0) == []
    assert agent.next_deadline() == pytest.approx(1.1)
    assert printed(agent.on_time(1.1)) == [m.Printed(1, 2, "10%\r", 0)]
    assert agent.next_deadline() is None


def test_a_character_that_is_cut_by_a_read_arrives_whole() -> None:
    agent = agent_with(1)
    half = "ä\n".encode()

    assert agent.on_output(1, 1, half[:1], 1.0) == []
    assert printed(agent.on_output(1, 1, half[1:], 1.0)) == [m.Printed(1, 1, "ä\n", 0)]
    agent.check()


def test_bytes_that_are_no_text_do_no_harm() -> None:
    (message,) = printed(agent_with(1).on_output(1, 1, b"\xff\xfe\n", 1.0))

    assert message.text == "��\n"


def test_a_flood_is_bounded_and_what_was_dropped_is_counted() -> None:
    chatter, chunk = Chatter(), b"x" * 999 + b"\n"
    said, dropped, steps = 0, 0, 20_000  # 20 MB in 2 seconds

    for step in range(steps):
        now = 100 + step / 10_000
        chatter.hear(1, chunk, now)
        for message in chatter.say(1, now):
            said += len(message.text)
            dropped += message.dropped
    for message in chatter.say(1, 103.0, last=True):
        said += len(message.text)
        dropped += message.dropped

    assert said + dropped == steps * len(chunk)
    assert BURST_BYTES <= said <= BURST_BYTES + 2.1e6
    assert not chatter.waiting()


def test_the_last_words_are_few_and_say_something() -> None:
    chatter = Chatter()
    lines = "".join(f"line {n}\n" for n in range(1000))

    chatter.hear(2, f"{lines}\n\nExtension modules: a, b (total: 2)\n".encode(), 1.0)

    assert chatter.last_words() == tuple(f"line {n}" for n in range(1000 - LAST_LINES, 1000))


def test_of_a_crash_the_last_words_are_how_its_report_begins() -> None:
    chatter = Chatter()
    frames = "".join(f'  File "deep.py", line {n} in f\n' for n in range(90))
    report = f"Fatal Python error: Segmentation fault\n\nStack (most recent call first):\n{frames}"

    chatter.hear(2, f"loading\n{report}  ...\n\nExtension modules: a (total: 1)\n".encode(), 1.0)

    words = chatter.last_words()
    assert len(words) == LAST_LINES
    assert words[0] == "Fatal Python error: Segmentation fault"
    certificate = str(Certificate("n/1", "n", 7, "SIGSEGV", stderr=words))
    first, second = ('File "deep.py", line 0 in f', 'File "deep.py", line 1 in f')
    assert certificate.endswith(
        f"its last words: Fatal Python error: Segmentation fault | {first} | {second}"
    )


def test_what_a_dead_executor_prints_is_nobodys() -> None:
    agent = agent_with(1)

    assert agent.on_output(99, 1, b"a\n", 1.0) == []


# --- a long life


class Host:
    """Carries the effects out as a worker would, and remembers."""

    def __init__(self, agent: a.Agent) -> None:
        self.agent = agent
        self.zygote = True
        self.asked: list[int] = []
        self.alive: list[int] = []  # forked, and their zygote lives
        self.doomed: list[int] = []  # their zygote is dead, or they were killed
        self.died: list[int] = []
        self.all: list[int] = []
        self.text: dict[int, str] = {}
        self.stopped = False

    def do(self, effects: a.Effects) -> None:
        for effect in effects:
            match effect:
                case a.Fork(number):
                    assert self.zygote
                    assert not self.stopped
                    self.asked.append(number)
                    self.all.append(number)
                case a.Kill(number):
                    if number in self.alive:
                        self.alive.remove(number)
                        self.doomed.append(number)
                case a.StartZygote():
                    assert not self.zygote
                    self.zygote = True
                case a.StopZygote():
                    self.stopped = True
                case a.Send(m.Died() as message):
                    self.died.append(message.number)
                case a.Send(m.Printed() as message):
                    assert message.number not in self.died, "said after its death"
                    self.text[message.number] = self.text.get(message.number, "") + message.text

    def lose_zygote(self, now: float) -> None:
        self.zygote = False
        self.asked.clear()
        self.doomed += self.alive
        self.alive.clear()
        self.do(self.agent.on_zygote_lost(now))

    def one_forked(self, now: float) -> None:
        number = self.asked.pop(0)
        self.alive.append(number)
        self.do(self.agent.on_forked(number, 1000 + number, now))

    def one_ends(self, random: Random, now: float) -> None:
        number = random.choice(self.alive + self.doomed)
        (self.alive if number in self.alive else self.doomed).remove(number)
        end = random.choice([SIGKILL, a.End(exit_code=1), a.End()])
        words = a.Words(1, random.choice([-1, 3]), random.choice([0, 9]))
        self.do(self.agent.on_exited(number, end, words, now))


def live(seed: int) -> tuple[Host, dict[int, str]]:
    random = Random(seed)
    agent = a.Agent(register(random.choice([1, 3, 20])))
    host, now, said = Host(agent), 0.0, dict[int, str]()
    host.do(agent.on_start(now))
    for _ in range(400):
        now += random.choice([0.0, 0.001, 0.05, 2.0])
        choice = random.random()
        if choice < 0.35 and host.asked:
            host.one_forked(now)
        elif choice < 0.55 and host.alive + host.doomed:
            host.one_ends(random, now)
        elif choice < 0.60:
            host.do(agent.on_kill_order(random.choice(host.all), now))
        elif choice < 0.63 and host.zygote:
            host.lose_zygote(now)
        elif choice < 0.85 and agent.executors:
            number = random.choice(list(agent.executors))
            text = random.choice(["x", "line\n", "a\nb"])
            said[number] = said.get(number, "") + text
            host.do(agent.on_output(number, 1, text.encode(), now))
        else:
            host.do(agent.on_time(now))
        agent.check()
    host.do(agent.on_stop(now))
    while host.asked:
        host.one_forked(now)
    while host.alive or host.doomed:
        host.one_ends(random, now)
        agent.check()
    return host, said


@pytest.mark.parametrize("seed", range(100))
def test_in_a_long_life_every_number_dies_once_and_no_text_is_lost(seed: int) -> None:
    host, said = live(seed)

    assert host.agent.ended
    assert sorted(host.died) == sorted(host.all) == list(range(1, len(host.all) + 1))
    assert host.text == said
    assert host.agent.statistics()["died"] == len(host.all)
    host.agent.check()


def test_the_same_life_has_the_same_effects() -> None:
    first, second = live(7), live(7)

    assert (first[0].died, first[0].text) == (second[0].died, second[0].text)
