"""breakwaterctl and the control socket of the real daemon: what people see, what they can do, what it exits with.

One storm: message ONE reaches three people; a culprit re-sends it to all of them. A fourth's first copy is held by a rule.
"""
import http.client
import json
import os
import pty
import re
import socket
import subprocess
import threading
import time

import pytest

from daemon import BUILD, Daemon, free_port
from milter_peer import Peer

POLICY = """\
rule first { when recipient.address == "held@y.example"  do hold  reason "its first copy, held by name" }
rule more  { when replication.copies > 0                 do hold  reason "copy {replication.copies} of {message.subject}" }
"""
HEADER = """\
Received: from a.example (a.example [192.0.2.1]) by mx.b.example; Mon, 23 Jan 2006 10:00:00 +0000
From: Sales <sales@promo.example>
To: r1@x.example, r2@x.example, held@y.example
Subject: spring \x1b[2J"offer" \x7f\x9b31m
Message-ID: <one@promo.example>
Date: Mon, 23 Jan 2006 10:00:00 +0000
"""
BODY = "Dear customers, this is the offer of the year, with words enough to tell it from others.\r\n.\r\n\x1b]0;title\x07\r\n"
PEOPLE = ["r1@x.example", "r2@x.example", "held@y.example"]


def send(daemon, number, people):
    """One transaction; what the filter says in the end."""
    with Peer(daemon.port) as peer:
        peer.begin("sbs.culprit.example", "192.0.2.77", "sbs.culprit.example")
        again = f"Received: from mail pickup service by sbs.culprit.example; Mon, 23 Jan 2006 10:0{number}:00 +0000\n"
        header = (again if number else "") + HEADER
        return peer.mail("<sales@promo.example>", [f"<{p}>" for p in people], header, BODY, queue_id=f"4T000{number}")[-1][0]


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


class House:
    """A daemon, a sink that stands for the mail server, and one storm of 3 + 2 * 3 copies."""

    def __init__(self, directory, **more):
        self.dir = str(directory)
        self.out = f"{self.dir}/sink.jsonl"
        self.sink = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.out], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        port = self.sink.stdout.readline().decode().strip().rpartition(":")[2]
        with open(f"{self.dir}/policy.conf", "w") as f:
            f.write(POLICY)
        try:
            self.daemon = Daemon(self.dir, release_to=f"127.0.0.1:{port}", release="rate = 500 token = no",
                                 more=f'policy {{ file = "{self.dir}/policy.conf" }}', **more)
        except RuntimeError:
            self.end_sink()
            raise
        self.ctl = self.daemon.ctl
        self.json = self.daemon.json

    def storm(self):
        assert [send(self.daemon, n, PEOPLE) for n in range(3)] == ["c", "d", "d"]
        return self.json("storms")[0]["id"]

    def delivered(self):
        return [json.loads(line)["rcpt"] for line in open(self.out)] if os.path.exists(self.out) else []

    def count(self, state):
        return len(self.json("held", "--state", state, "--limit", "100000"))

    def stop(self):
        status = self.daemon.stop()
        self.end_sink()
        return status

    def end_sink(self):
        self.sink.terminate()
        self.sink.wait()


@pytest.fixture
def house(tmp_path):
    h = House(tmp_path)
    yield h
    assert h.stop() == 0


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """A house that tests only look at."""
    h = House(tmp_path_factory.mktemp("ctl"))
    h.id = h.storm()
    h.copy = h.json("held")[0]["id"]
    yield h
    assert h.stop() == 0


def test_status_tells_people_and_programs(looked_at):
    text = looked_at.ctl("status")
    assert "Mode enforce" in text and "7 copies are in the hold queue" in text
    assert "9 copies seen since the start: 2 passed, 0 passed with a tag, 7 held." in text
    status, = looked_at.json("status")
    counters = status["counters"]
    assert counters["received"] == counters["passed"] + counters["held"] == 9 and counters["unaccounted"] == 0
    assert status["hold"]["held"] == 7 and status["storms_open"] == 1 and status["doors"][0]["name"] == "main"


def test_a_storm_in_words(looked_at):
    assert looked_at.id in looked_at.ctl("storms")
    text = looked_at.ctl("show", looked_at.id)
    assert "sales@promo.example to 3 addresses" in text and "Nothing was lost." in text
    assert "1 of 3 recipients got none yet." in text
    assert f"breakwaterctl release --storm {looked_at.id} --one-per-recipient" in text
    storm, = looked_at.json("show", looked_at.id)
    assert storm["copies"] == 9 and storm["queue"]["held"] == 7 and storm["without"] == 1
    assert storm["passed"] + storm["tagged"] == 2 and storm["held"] == 7
    assert "9 seen, 2 passed (0 with a tag), 7 held" in text
    assert storm["culprits"][0]["relay"].startswith("sbs.culprit.example") if storm["culprits"] else True


def test_held_copies_and_one_of_them(looked_at):
    copies = looked_at.json("held", "--storm", looked_at.id)
    assert len(copies) == 7 and len({c["id"] for c in copies}) == 7
    assert {c["rcpt"] for c in copies} == set(PEOPLE)
    assert len(looked_at.json("held", "--rcpt", "<R1@x.example>")) == 2
    assert looked_at.json("held", "--rcpt", "nobody@x.example") == []
    assert len(looked_at.json("held", "--sender", "sales@promo.example")) == 7
    assert looked_at.json("held", "--sender", "<>") == []
    first = looked_at.json("held", "--limit", "3")
    rest = looked_at.json("held", "--after", first[-1]["id"])
    assert [c["id"] for c in first + rest] == [c["id"] for c in copies]
    assert "add --after" in looked_at.ctl("held", "--limit", "3")
    text = looked_at.ctl("show", looked_at.copy, "--headers", "--text")
    assert "Message-ID: <one@promo.example>" in text and "the offer of the year" in text
    assert 'spring \\x1b[2J"offer" \\x7f' in text  # quotes are for people, the rest is escaped


def test_the_bytes_come_back_exactly(looked_at):
    message = subprocess.run([f"{BUILD}/breakwaterctl", "-s", f"{looked_at.dir}/control", "show", looked_at.copy, "--message"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    assert message.endswith(b"\r\n\r\n" + BODY.encode()) and b"\x1b[2J" in message


def test_explain_finds_by_every_handle(looked_at):
    tx = None

    def rows():
        nonlocal tx
        found = looked_at.json("explain", "--rcpt", "r1@x.example")
        tx = [r for r in found if "tx" in r]
        return len(tx) == 3
    assert wait_for(rows)  # the journal is written once a second
    assert sorted(r["disposition"] for r in tx) == ["hold", "hold", "pass"]
    assert len(looked_at.json("explain", tx[0]["tx"])) >= 3
    assert len(looked_at.json("explain", "4T0001")) == 6
    assert [r["rcpt"] for r in looked_at.json("explain", looked_at.copy)] == [looked_at.json("show", looked_at.copy)[0]["rcpt"]] * 2
    assert "No such message" in looked_at.ctl("explain", "4TNONE")
    assert "pass" in looked_at.ctl("explain", "--from", "sales@promo.example", "--since", "2h")


COMMANDS = [["status"], ["storms"], ["held"], ["show", "STORM"], ["show", "COPY", "--headers", "--text"], ["explain", "COPY"],
            ["explain", "--rcpt", "r1@x.example"], ["mode"], ["release", "COPY", "-n"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_hostile_reaches_a_terminal(looked_at, command):
    command = [{"STORM": looked_at.id, "COPY": looked_at.copy}.get(c, c) for c in command]
    for more in ([], ["--json"]):
        text = looked_at.ctl(*more, *command)
        assert not re.search(r"[^\n -~]", text), text


@pytest.mark.parametrize("status,command", [
    (0, ["version"]), (0, ["help"]), (0, ["help", "release"]), (0, ["-h"]), (0, ["status"]),
    (2, []), (2, ["frobnicate"]), (2, ["status", "more"]), (2, ["status", "--storm", "S"]), (2, ["held", "--nonsense"]),
    (2, ["show"]), (2, ["show", "42"]), (1, ["show", "SAAAAAAAA"]), (1, ["show", "AAAAAAAAAAAAA"]),
    (1, ["held", "--state", "gone"]), (1, ["held", "--storm", "42"]),
    (2, ["held", "--limit", "0"]), (2, ["held", "--limit", "x"]), (2, ["storms", "--limit", "-1"]), (0, ["storms", "--limit", "1"]),
    (2, ["release"]), (2, ["release", "SAAAAAAAA"]), (1, ["release", "AAAAAAAAAAAAA"]),
    (2, ["release", "--storm", "SAAAAAAAA"]), (1, ["release", "--storm", "SAAAAAAAA", "--one-per-recipient"]),
    (2, ["release", "--storm", "SAAAAAAAA", "--one-per-recipient", "--all"]),
    (2, ["release", "--storm", "SAAAAAAAA", "--all"]), (1, ["release", "--storm", "SAAAAAAAA", "--all", "-y"]),
    (2, ["discard", "AAAAAAAAAAAAA"]), (1, ["discard", "AAAAAAAAAAAAA", "--reason", "x"]),
    (2, ["undo"]), (2, ["undo", "--storm", "SAAAAAAAA"]), (1, ["undo", "AAAAAAAAAAAAA"]),
    (2, ["explain"]), (2, ["explain", "--rcpt", "a@b", "--since", "yesterday"]), (2, ["mode", "enforce"]),
    (1, ["mode", "off", "--reason", "x"]), (0, ["mode", "bypass", "--reason", "x", "-n"]),
    (0, ["replay", "-h"]), (2, ["replay"]), (1, ["replay", "/nonexistent.jsonl"]),
], ids=lambda x: " ".join(x) if isinstance(x, list) else str(x))
def test_exit_status(looked_at, status, command):
    got, text = looked_at.ctl(*command, check=False)
    assert got == status, text
    if status and command:
        assert len(text.splitlines()) <= 2, text  # a sentence, not a lecture


def test_unreachable(tmp_path):
    def ctl(*args):
        return subprocess.run([f"{BUILD}/breakwaterctl", *args, "status"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
    gone = ctl("-s", f"{tmp_path}/nobody")
    assert gone.returncode == 3 and b"does not answer" in gone.stdout
    with socket.socket(socket.AF_UNIX) as s:  # one that hangs up
        s.bind(f"{tmp_path}/control")
        s.listen()
        threading.Thread(target=lambda: s.accept()[0].close(), daemon=True).start()
        assert ctl("-s", f"{tmp_path}/control").returncode == 3
    assert ctl("-f", f"{tmp_path}/no.conf").returncode == 2


def test_a_second_daemon_is_refused(looked_at):
    """On the same hold directory, with a port and a socket of its own; the first one does not notice."""
    conf = f"{looked_at.dir}/second.conf"
    text = open(looked_at.daemon.conf).read().replace(f"inet:{looked_at.daemon.port}@", f"inet:{free_port()}@")
    with open(conf, "w") as f:
        f.write(text.replace(f"{looked_at.dir}/control", f"{looked_at.dir}/control2"))
    second = subprocess.run([f"{BUILD}/breakwaterd", "-f", conf], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=60)
    assert second.returncode == 1 and second.stdout.count(b"\n") == 1
    assert f"another breakwaterd uses {looked_at.dir}/hold" in second.stdout.decode()
    assert looked_at.json("status")[0]["hold"]["held"] == 7


def test_the_socket_of_a_configuration(looked_at):
    p = subprocess.run([f"{BUILD}/breakwaterctl", "-f", looked_at.daemon.conf, "mode"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, check=True)
    assert b"enforce" in p.stdout


def test_one_per_recipient_the_whole_way(house):
    storm = house.storm()
    release = ["release", "--storm", storm, "--one-per-recipient"]
    assert "1 copy would be released" in house.ctl(*release, "-n")
    assert house.count("held") == 7 and house.delivered() == []
    assert "1 copy is on its way" in house.ctl(*release)
    assert wait_for(lambda: house.count("released") == 1)
    assert "No copy is needed" in house.ctl(*release)
    assert house.delivered() == ["held@y.example"] and house.count("held") == 6
    assert "released on" in house.ctl("explain", "--rcpt", "held@y.example")


def test_what_one_rule_held(house):
    house.storm()
    assert {c["rule"] for c in house.json("held", "--rule", "first")} == {"first"}
    assert {c["rule"] for c in house.json("held", "--rule", "more", "--since", "1h")} == {"more"}
    assert house.json("held", "--rule", "more", "--since", "2999-01-01") == []
    assert "1 copy would be released" in house.ctl("release", "--rule", "first", "--since", "1h", "--first", "-n")
    assert "1 copy is on its way" in house.ctl("release", "--rule", "first", "--since", "1h", "--first")
    assert wait_for(lambda: house.delivered() == ["held@y.example"])
    assert house.ctl("release", "--rule", "first", "--since", "soon", check=False)[0] == 2
    assert "No held copy matches" in house.ctl("release", "--rule", "none-such")


def test_two_people_release_the_same_copies(house):
    house.storm()
    ids = [c["id"] for c in house.json("held")]
    for copy in ids:
        both = [subprocess.Popen([f"{BUILD}/breakwaterctl", "-s", f"{house.dir}/control", "release", copy],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in "ab"]
        assert sorted(p.wait(60) for p in both) == [0, 1]
    assert wait_for(lambda: house.count("released") == len(ids))
    assert len(house.delivered()) == len(ids)


def test_bin_and_back(house):
    storm = house.storm()
    copy = house.json("held")[0]["id"]
    assert house.ctl("discard", "--storm", storm, "--all", "--reason", "junk", check=False)[0] == 2  # nobody to ask
    assert house.count("held") == 7
    house.ctl("discard", copy, "--reason", "junk")
    assert house.json("show", copy)[0]["why"] == "junk" and f"breakwaterctl undo {copy}" in house.ctl("show", copy)
    assert house.ctl("release", copy, check=False)[0] == 1
    assert house.ctl("undo", copy, "AAAAAAAAAAAAA", check=False)[0] == 4
    assert house.json("show", copy)[0]["state"] == "held"
    assert house.delivered() == []


def test_all_asks_at_a_terminal(house):
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR))
    except OSError:
        pytest.skip("there are no pseudo-terminals here")
    storm = house.storm()
    for answer, status, left in ((b"n\n", 1, 7), (b"y\n", 0, 0)):
        terminal, end = pty.openpty()
        os.write(terminal, answer)
        p = subprocess.run([f"{BUILD}/breakwaterctl", "-s", f"{house.dir}/control", "release", "--storm", storm, "--all"],
                           stdin=end, stdout=subprocess.PIPE, timeout=60)
        assert p.returncode == status and f"every held copy of {storm}? [y/N]".encode() in p.stdout
        assert house.count("held") == left
        os.close(terminal), os.close(end)
    assert wait_for(lambda: house.count("released") == 7)


def test_mode_and_storms_survive_a_crash(house):
    storm = house.storm()
    assert wait_for(lambda: house.json("show", storm)[0]["held"] == 7)
    time.sleep(1.5)  # incidents are saved once a second
    house.ctl("mode", "monitor", "--reason", "a look")
    house.daemon.kill()
    house.daemon.start()
    assert house.json("mode")[0]["mode"] == "monitor" and "a look" in house.ctl("mode")
    assert house.count("held") == 7
    assert house.json("storms")[0]["id"] == storm and house.json("show", storm)[0]["held"] == 7
    assert send(house.daemon, 3, PEOPLE) == "c"  # monitor: nothing is held
    assert house.count("held") == 7
    # the storm is known across the crash: all of them have it
    assert "enforce mode would have held 2 further copies and 1 first copy (rules more 2, first 1)." in house.ctl("status")
    assert "would have held" in house.ctl("show", storm)


def test_http_as_others_speak_it(looked_at):
    c = http.client.HTTPConnection("localhost")
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.settimeout(20)
    c.sock.connect(f"{looked_at.dir}/control")
    for method, path, status, kind in [("GET", "status", 200, "application/json"), ("HEAD", "status", 200, "application/json"),
                                       ("GET", "nothing", 404, "application/problem+json"),
                                       ("GET", "release", 405, "application/problem+json"),
                                       ("GET", f"copies/{looked_at.copy}/message", 200, "message/rfc822")]:
        c.request(method, f"/api/v1/{path}")  # one connection, kept alive
        r = c.getresponse()
        body = r.read()
        assert (r.status, r.headers["Content-Type"]) == (status, kind)
        assert r.headers["Cache-Control"] == "no-store"
        assert (method == "HEAD") == (body == b"")
        if kind.startswith("application"):
            assert method == "HEAD" or json.loads(body)
    assert r.headers["Content-Length"] == str(len(body))
    c.close()
    assert os.stat(f"{looked_at.dir}/control").st_mode & 0o007 == 0
