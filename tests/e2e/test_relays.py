"""A relay's life in the real daemon: it misbehaves, a restart does not clear it, a person says it is fixed, its mail comes again, and
the first further copy through it is held.
"""
import time

import pytest

from daemon import Daemon
from milter_peer import Peer

CULPRIT = "sbs.culprit.example"
PEOPLE = ["r1@x.example", "r2@x.example", "r3@y.example", "r4@z.example"]


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.1)
    return False


def send(daemon, message, number, people=PEOPLE):
    """A message to all in To; number > 0: the culprit takes it out of a mailbox and sends it again."""
    again = f"Received: from mail pickup service by {CULPRIT}; Mon, 23 Jan 2006 10:{number:02}:00 +0000\n" if number else ""
    header = (again + f"Received: from a.example (a.example [192.0.2.1]) by mx.{message}.example; Mon, 23 Jan 2006 10:00:00 +0000\n"
              f"From: sales@promo.example\nTo: {', '.join(PEOPLE)}\nSubject: {message}\nMessage-ID: <{message}@promo.example>\n"
              "Date: Mon, 23 Jan 2006 10:00:00 +0000\n")
    client = (CULPRIT, "192.0.2.77") if number else ("mx.b.example", "192.0.2.2")
    with Peer(daemon.port) as peer:
        peer.begin(client[0], client[1], client[0])
        return peer.mail("<sales@promo.example>", [f"<{p}>" for p in people], header,
                         f"Dear customers, this is the offer {message} with words enough to tell it from all others.\r\n",
                         queue_id=f"4R{message}{number:02}")[-1][0]


def state(daemon):
    rows = [r for r in daemon.json("relays", "--all") if r["relay"].startswith(CULPRIT)]
    return rows[0]["state"] if rows else None


@pytest.fixture
def daemon(tmp_path):
    d = Daemon(str(tmp_path))
    yield d
    assert d.stop() == 0


def test_a_relay_is_fixed_and_is_not(daemon):
    send(daemon, "one", 0)
    for n in range(1, 9):
        send(daemon, "one", n)
    assert wait_for(lambda: state(daemon) == "misbehaving"), daemon.json("relays", "--all")
    assert "misbehaving" in daemon.ctl("relays") and "1 misbehaving" in daemon.ctl("status")
    daemon.stop()
    daemon.start()
    assert state(daemon) == "misbehaving"

    fixed = ["relays", "said-fixed", CULPRIT, "--reason", "they called: patched"]
    assert "would be said-fixed" in daemon.ctl(*fixed, "-n")
    assert state(daemon) == "misbehaving"
    assert "said to be fixed" in daemon.ctl(*fixed)
    assert state(daemon) == "said-fixed"
    with pytest.raises(Exception):
        daemon.ctl(*fixed)
    time.sleep(2.2)  # the desk looks once a second how much mail there is
    with Peer(daemon.port) as peer:
        peer.begin(CULPRIT, "192.0.2.77", CULPRIT)
        header = "From: a@culprit.example\nTo: r1@x.example\nSubject: hello\nMessage-ID: <h@culprit.example>\nDate: Mon, 23 Jan 2006 12:00:00 +0000\n"
        assert peer.mail("<a@culprit.example>", ["<r1@x.example>"], header, "An ordinary letter of the house, nothing else.\r\n")[-1][0] in "ac"
    assert wait_for(lambda: state(daemon) == "probation")

    assert send(daemon, "two", 0) in "ac"
    assert send(daemon, "two", 1, PEOPLE[:1]) == "d"  # the very first further copy
    assert wait_for(lambda: state(daemon) == "misbehaving")
    row = [r for r in daemon.json("relays") if r["relay"].startswith(CULPRIT)][0]
    assert row["relapses"] == 1 and row["said"]["why"] == "they called: patched"
