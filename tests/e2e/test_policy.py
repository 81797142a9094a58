"""Versions of the policy and modes of listeners, in the real daemon."""
import pytest

from daemon import Daemon
from private_postfix import free_port

LISTENER = 'milter second {{ socket = "inet:{port}@127.0.0.1" }}\n'


class House(Daemon):
    """A daemon with two listeners: main and second."""

    def __init__(self, directory, more="", **named):
        self.second = free_port()
        super().__init__(directory, more=LISTENER.format(port=self.second) + more, **named)


@pytest.fixture
def house(tmp_path):
    d = House(str(tmp_path), mode="monitor")
    yield d
    assert d.stop() == 0


def modes(daemon):
    return {door["name"]: door["mode"] for door in daemon.json("status")[0]["doors"]}


def test_a_listener_has_a_mode_of_its_own(house):
    assert modes(house) == {"main": "monitor", "second": "monitor"}
    assert "would be" in house.ctl("mode", "enforce", "--only", "second", "--reason", "try it", "-n")
    assert modes(house)["second"] == "monitor"
    house.ctl("mode", "enforce", "--only", "second", "--reason", "try it")
    assert modes(house) == {"main": "monitor", "second": "enforce"}
    assert "Listener second has a mode of its own: enforce." in house.ctl("mode")
    house.ctl("mode", "bypass", "--reason", "all others")
    assert modes(house) == {"main": "bypass", "second": "enforce"}
    house.kill()
    house.start()
    assert modes(house) == {"main": "bypass", "second": "enforce"}
    house.ctl("mode", "same", "--only", "second", "--reason", "enough")
    assert modes(house) == {"main": "bypass", "second": "bypass"}
    house.stop()
    house.start()
    assert modes(house) == {"main": "bypass", "second": "bypass"}


def test_a_mode_needs_a_listener_that_is_there(house):
    status, out = house.ctl("mode", "enforce", "--only", "third", "--reason", "x", check=False)
    assert status == 1 and "There is no listener third." in out
    status, out = house.ctl("mode", "same", "--reason", "x", check=False)
    assert status == 1 and "same is for one listener" in out
    assert house.ctl("mode", "--only", "main", check=False)[0] == 2
    assert house.ctl("status", "--only", "main", check=False)[0] == 2
