"""What is an address, and what is said of one that is none: here, and in each place that takes one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.address import check, is_ipv6

WRONG = [
    (5, "5 is not an address (tcp://HOST:PORT or ipc://PATH)"),
    ("", "'' is not an address (tcp://HOST:PORT or ipc://PATH)"),
    ("localhost:7601", "is not an address (tcp://HOST:PORT or ipc://PATH)"),
    ("http://a:80", "is not an address (tcp://HOST:PORT or ipc://PATH)"),
    ("tcp://", "its port must be a number from 1 to 65535"),
    ("tcp://a", "its port must be a number from 1 to 65535"),
    ("tcp://a:b", "its port must be a number from 1 to 65535"),
    ("tcp://a:0", "its port must be a number from 1 to 65535"),
    ("tcp://a:99999", "its port must be a number from 1 to 65535"),
    ("tcp://:7601", "it has no host"),
    ("tcp://*:7601", "'*' is no host"),
    ("tcp://a b:7601", "'a b' is no host"),
    ("tcp://-:7601", "'-' is no host"),
    ("tcp://[zz]:7601", "'[zz]' is no host"),
    ("tcp://::1:7601", "'::1' is no host"),
    ("ipc://", "it has no path"),
    ("ipc://@name", "open to every user"),
    ("ipc:///tmp/" + "n" * 120, "its path has more than 107 bytes"),
]
_COMMANDS = (
    ["ping", "-t", "1", "-a"],
    ["ctl", "list", "-a"],
    ["worker", "--router"],
    ["router", "--bind"],
)


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:7601", "tcp://a-host.example:1", "tcp://[::1]:65535", "ipc:///run/a b", "ipc://here"],
)
def test_an_address_is_given_back_as_it_is(address: str) -> None:
    assert check(address) == address
    assert check(address, listens=True) == address


@pytest.mark.parametrize(("address", "complaint"), WRONG)
def test_what_is_wrong_with_an_address_is_said(address: object, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(address)
    assert complaint in str(caught.value)


def test_who_listens_may_take_any_port_and_interface() -> None:
    for address in ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*", "tcp://*:7601"):
        assert check(address, listens=True) == address
    with pytest.raises(ValueError, match="from 0 to 65535"):
        check("tcp://127.0.0.1:65536", listens=True)


@pytest.mark.parametrize("words", _COMMANDS, ids=lambda words: words[0])
def test_every_command_refuses_a_wrong_port_in_one_sentence(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"flamezmq.cli.{words[0]}", *words[1:], "tcp://127.0.0.1:99999"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'tcp://127.0.0.1:99999' is not an address" in done.stderr
    assert "its port must be a number" in done.stderr


def test_clients_of_all_kinds_refuse_what_is_no_address() -> None:
    for make in (flm.Client, flm.aio.Client, lambda address: flm.FlameExecutor(1, address)):
        for address in (5, "tcp://127.0.0.1:99999", "ipc://"):
            with pytest.raises(ValueError, match="is not an address"):
                make(address)  # type: ignore[arg-type]


def test_an_executor_takes_the_address_of_the_settings_as_a_client_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLAMEZMQ_ADDRESS", raising=False)
    Path("flamezmq.toml").write_text('[client]\naddress = "ipc://nobody-here"\nconnect_timeout = 0.1\n')

    with pytest.raises(flm.RouterLost, match="no router answers at ipc://nobody-here"):
        flm.FlameExecutor(1)
    with flm.FlameExecutor(1, "") as executor:
        assert executor.submit(abs, -1).result(10) == 1


def test_a_router_and_its_client_meet_at_an_address_of_ipv6() -> None:
    from flamezmq.net.board import Board
    from flamezmq.net.line import Line

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    board = Board((1, 1), lambda peer: None, lambda peer: None, lambda peer, full: None)
    line = None
    try:
        address = board.bind("tcp://[::1]:0")
        assert is_ipv6(address)
        line = Line(address, "client", lambda message, frames: None, patience_seconds=10)
        line.open()
        with line.lock:
            while not line.link.up:
                list(board.receive(0.01))
                line.turn(10)
    finally:
        if line is not None:
            line.close()
        board.close()
