"""The guard at work, in the real daemon: what makes it step back, how fast, what it tells, and what it leaves alone."""
import os
import socket
import sqlite3
import stat
import threading
import time

import pytest

from daemon import FAILPOINTS, Daemon
from milter_peer import Peer
from smtp_door import Door
from test_release import Sink, until

WRONG = 'rule wrong { when true do %s reason "a mistake" }\n'
BODY = "Dear %s, this letter has words of its own, number %s, enough to tell it from all the others.\r\n"


def header(n):
    return f"From: a@sender.example\nTo: r{n}@x.example\nSubject: letter {n}\nMessage-ID: <{n}@sender.example>\nDate: Mon, 23 Jan 2006 10:00:00 +0000\n"


def milter_daemon(directory, rules, **more):
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/policy.conf", "w") as f:
        f.write(rules)
    return Daemon(str(directory), more=f'policy {{ file = "{directory}/policy.conf" }}', **more)


class Traffic:
    """Different letters to different people from some clients at once; what became of each, in the order of the answers."""

    def __init__(self, send, clients, each, name=""):
        self.send, self.each, self.name, self.answers, self.lock = send, each, name, [], threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(c,)) for c in range(clients)]
        for t in self.threads:
            t.start()
        for t in self.threads:
            t.join(120)

    def run(self, client):
        with self.send() as mail:
            for i in range(self.each):
                answer = mail(f"{self.name}{client}-{i}")
                with self.lock:
                    self.answers.append(answer)


class ByMilter:
    """held or passed, as the MTA sees it."""

    def __init__(self, port):
        self.peer = Peer(port)
        self.peer.begin()

    def __enter__(self):
        def mail(n):
            letter, data = self.peer.mail("<a@sender.example>", [f"<r{n}@x.example>"], header(n), BODY % (n, n), queue_id=f"Q{n}")[-1]
            return {"d": "held", "c": "passed", "a": "passed"}.get(letter) or {b"4": "later", b"5": "refused"}[data[:1]]
        return mail

    def __exit__(self, *_):
        self.peer.close()


class BySmtp:
    """250 for both: the test asks the hold queue."""

    def __init__(self, door):
        self.client = door.client(None)

    def __enter__(self):
        def mail(n):
            text = (header(n) + "\n" + BODY % (n, n)).replace("\r\n", "\n").replace("\n", "\r\n")
            said = self.client.mail("a@sender.example", [f"r{n}@x.example"], text.encode())
            return str(said[-1][0])
        return mail

    def __exit__(self, *_):
        self.client.close()


def held(d):
    return d.json("status")[0]["hold"]["held"]


def mode(d):
    return d.json("mode")[0]["mode"]


def audit(d):
    with sqlite3.connect(f"file:{d.dir}/hold/hold.db?mode=ro", uri=True) as db:
        return db.execute("SELECT who, what, why FROM audit ORDER BY id").fetchall()


@pytest.mark.parametrize("limit", [60, 5])
def test_a_reply_to_all_counts_once_and_is_capped(tmp_path, limit):
    """60 people who answer each other: what is held is replies, not the copies for each of them; beyond the limit they pass."""
    d = Daemon(str(tmp_path), guard=f"replyall = {limit}")
    people = [f"p{i}@corp{i % 5}.example" for i in range(60)]
    answers = []
    try:
        with Peer(d.port) as peer:
            peer.begin()

            def mail(sender, number, subject, more, text):
                fields = f"From: {sender}\nTo: boss@corp0.example\nCc: " + ",\n ".join(people) + f"\nSubject: {subject}\nMessage-ID: <{number}@corp0.example>\n{more}"
                return peer.mail(f"<{sender}>", [f"<{p}>" for p in people if p != sender], fields, text, queue_id=f"R{number}")[-1][0]

            mail("boss@corp0.example", 0, "the meeting", "", BODY % ("all", "one"))
            for i in range(1, 61):
                text = "please remove me from this list " + " ".join(f"word{i * 31 + k * k}" for k in range(30)) + "\r\n"
                answers.append(mail(people[i % 60], i, "Re: the meeting", "In-Reply-To: <0@corp0.example>\nReferences: <0@corp0.example>\n", text))
        least, most = (20, 59) if limit == 60 else (5, 5)
        assert least <= answers.count("d") <= most  # 1,200 copies and more
        assert mode(d) == "enforce"
        until(lambda: [t["value"] for t in d.json("guard")[0]["triggers"] if t["cause"] == "reply-all"] == [answers.count("d")])
        assert bool(capped(d, "reply-all")) == (limit == 5)
        assert d.log().count("replies to all beyond 5 in 10 minutes pass") == (limit == 5)
        assert d.json("guard")[0]["trips"] == []
    finally:
        assert d.stop() == 0


def capped(d, cause):
    trigger, = [t for t in d.json("guard")[0]["triggers"] if t["cause"] == cause]
    return trigger["capped_since"]


def circle(n, hops=31):
    """A letter of a stranger that has been in a circle, as he says."""
    way = "".join(f"Received: from h{n}-{i}.example by h{n}-{i + 1}.example; Mon, 23 Jan 2006 10:{i:02d}:00 +0000\n" for i in range(hops))
    return way + header(n)


@pytest.mark.parametrize("people", [1, 11, 51])
def test_a_stranger_cannot_switch_protection_off_with_loops(tmp_path, people):
    """31 Received fields are a loop, says a default rule, to however many people: held up to the limit, then passed, and the mode stays."""
    d = Daemon(str(tmp_path), guard="loops = 4")
    try:
        with Peer(d.port) as peer:
            peer.begin()

            def mail(n, head, text=BODY):
                replies = peer.mail("<a@sender.example>", [f"<r{n}-{i}@x.example>" for i in range(people)], head, text % (n, n), queue_id=f"L{n}")
                return replies[-1][0], [data for letter, data in replies if letter in "hi" and b"X-Breakwater\0" in data]

            assert [mail(n, circle(n))[0] for n in range(4)] == ["d"] * 4
            assert mode(d) == "enforce" and not capped(d, "loop")
            for n in range(4, 12):
                letter, tags = mail(n, circle(n))
                assert letter in "ac" and len(tags) == 1 and b"act=hold-failed; rule=loop-own" in tags[0]
            until(lambda: capped(d, "loop"))
            assert mail(12, header(12)) in [("a", []), ("c", [])]
        assert held(d) == 4 * people and mode(d) == "enforce"
        guard, = d.json("guard")
        assert guard["state"] == "watching" and guard["trips"] == []
        assert d.log().count("alarm: the guard lets some mail pass (loop): messages in loops beyond 4 in 10 minutes pass") == 1
        assert "the guard lets no more loops be held now" in d.log()
        assert d.ctl("status").startswith("Capped since ")
        assert "capped since " in d.ctl("guard")
        until(lambda: d.json("guard")[0]["alarms"]["sent"] == 1)
    finally:
        assert d.stop() == 0


def test_ten_loops_to_eleven_people_are_held(tmp_path):
    """With the limits as they are: 200 messages, to however many."""
    d = Daemon(str(tmp_path), guard="")
    try:
        with Peer(d.port) as peer:
            peer.begin()
            for n in range(10):
                rcpts = [f"<r{n}-{i}@x.example>" for i in range(11)]
                assert peer.mail("<a@sender.example>", rcpts, circle(n), BODY % (n, n), queue_id=f"L{n}")[-1][0] == "d"
        assert held(d) == 110 and mode(d) == "enforce"
        time.sleep(2.2)  # two looks of the guard
        assert mode(d) == "enforce" and not capped(d, "loop")
    finally:
        assert d.stop() == 0


@pytest.mark.parametrize("guard,most", [("hold_share = 0", 50), ("", 10)])
def test_a_rule_that_holds_everybodys_mail_is_stopped_at_once(tmp_path, guard, most):
    d = milter_daemon(tmp_path, WRONG % "hold", guard=guard)
    try:
        assert mode(d) == "enforce"
        t = Traffic(lambda: ByMilter(d.port), clients=5, each=40)
        assert len(t.answers) == 200
        assert t.answers.count("held") == most  # not one more, whatever was under way
        assert t.answers.count("passed") == 200 - most
        t = Traffic(lambda: ByMilter(d.port), clients=2, each=50, name="later")
        assert set(t.answers) == {"passed"}
        assert mode(d) == "monitor" and held(d) == most
    finally:
        assert d.stop() == 0


def test_the_same_before_an_mta(tmp_path):
    sink = Sink(str(tmp_path))
    d = Door(str(tmp_path / "door"), sink.address, rules=WRONG % "hold", guard="hold_share = 0")
    try:
        t = Traffic(lambda: BySmtp(d), clients=4, each=60)
        assert t.answers == ["250"] * 240
        assert held(d) == 50 and mode(d) == "monitor"
        until(lambda: len(sink.deliveries()) == 190)
    finally:
        assert d.stop() == 0
        sink.stop()


def test_it_is_told_kept_over_a_restart_and_cleared_by_a_person(tmp_path):
    command = tmp_path / "tell"
    command.write_text(f"#!/bin/sh\n{{ env; echo; cat; }} >{tmp_path}/told.new && mv {tmp_path}/told.new {tmp_path}/told\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    sink = Sink(str(tmp_path))
    d = milter_daemon(tmp_path / "bw", WRONG % "hold", release_to=sink.address,
                      guard=f'alarm = "{command}" mail_to = "postmaster@x.example"')
    try:
        Traffic(lambda: ByMilter(d.port), clients=1, each=20)
        reason = "more than 10 copies that are no further copies were to be held within 10 minutes"
        until(lambda: d.json("guard")[0]["trip"])
        assert d.ctl("status").startswith("The guard went to monitor at ")
        assert reason in d.ctl("status").splitlines()[0]
        until(lambda: [row for row in audit(d) if row[0] == "guard"])
        (who, what, why), = [row for row in audit(d) if row[0] == "guard"]
        assert what.endswith("-> monitor") and reason in why
        assert d.json("mode")[0]["by"] == "guard"
        assert f"alarm: the guard went to mode monitor: {reason}" in d.log()
        until(lambda: (tmp_path / "told").exists())
        told = (tmp_path / "told").read_text()
        assert "BREAKWATER_CAUSE=holds\n" in told and "BREAKWATER_MODE=monitor\n" in told and "BREAKWATER_NODE=demo\n" in told
        assert told.split("\n\n", 1)[1].startswith(f"the guard went to mode monitor: {reason}")
        until(lambda: sink.deliveries())
        assert sink.deliveries()[0]["rcpt"] == "postmaster@x.example" and sink.deliveries()[0]["from"] == ""
        until(lambda: d.json("guard")[0]["alarms"] == {"sent": 1, "commands": 1, "command_failures": 0, "mails": 1, "mail_failures": 0, "dropped": 0})

        d.kill()  # kept, even so
        d.start()
        assert mode(d) == "monitor"
        assert d.ctl("status").startswith("The guard went to monitor at ")
        assert reason in d.ctl("guard")
        Traffic(lambda: ByMilter(d.port), clients=1, each=20)
        assert held(d) == 10

        d.ctl("mode", "enforce", "--reason", "the rule is better now")
        until(lambda: d.json("guard")[0]["state"] == "watching")
        assert d.ctl("status").startswith("breakwaterd ")
        assert d.json("guard")[0]["trips"][0]["over"]
        t = Traffic(lambda: ByMilter(d.port), clients=1, each=20, name="new")  # it was not
        assert t.answers.count("held") == 10 and mode(d) == "monitor"
        until(lambda: len(d.json("guard")[0]["trips"]) == 2)
    finally:
        assert d.stop() == 0
        sink.stop()


@pytest.mark.parametrize("does,answer", [("reject", "refused"), ("throttle", "later")])
def test_a_rule_that_refuses_everybodys_mail_is_stopped_within_seconds(tmp_path, does, answer):
    d = milter_daemon(tmp_path, WRONG % does, guard="")
    try:
        t = Traffic(lambda: ByMilter(d.port), clients=2, each=15)
        assert set(t.answers) == {answer}
        until(lambda: mode(d) == "monitor", 6)
        t = Traffic(lambda: ByMilter(d.port), clients=1, each=3)
        assert set(t.answers) == {"passed"}
        assert d.json("guard")[0]["trip"]["cause"] == "refusals"
    finally:
        assert d.stop() == 0


@pytest.mark.parametrize("does,answer", [("reject", "refused"), ("throttle", "later")])
def test_a_rule_that_refuses_everybodys_mail_refuses_200_at_most(tmp_path, does, answer):
    """However fast it comes: it is stopped on the way, not at the next look."""
    d = milter_daemon(tmp_path, WRONG % does, guard="")
    try:
        t = Traffic(lambda: ByMilter(d.port), clients=6, each=150)
        assert len(t.answers) == 900
        assert 20 <= t.answers.count(answer) <= 200
        until(lambda: d.json("guard")[0]["state"] == "tripped")
        assert d.json("guard")[0]["trip"]["cause"] == "refusals"
        assert set(Traffic(lambda: ByMilter(d.port), clients=2, each=50, name="later").answers) == {"passed"}
    finally:
        assert d.stop() == 0


def test_a_storm_is_no_reason_to_step_back(tmp_path):
    """20,000 copies of one message from two clients at once, nearly all of them held: all these holds are harmless."""
    d = Daemon(str(tmp_path), guard="")
    people = [f"r{i}@x{i % 7}.example" for i in range(100)]
    first = "From: sales@promo.example\nTo: " + ",\n ".join(people) + "\nSubject: spring offer\nMessage-ID: <one@promo.example>\n"
    origin = "Received: from a.example (a.example [192.0.2.1]) by mx.b.example; Mon, 23 Jan 2006 10:00:00 +0000\n"
    again = "Received: from mail pickup service by sbs.culprit.example; Mon, 23 Jan 2006 10:%02d:%02d +0000\n"
    rcpts = [f"<{p}>" for p in people]

    def client(number, copies):
        with Peer(d.port) as peer:
            peer.begin("sbs.culprit.example", "192.0.2.77", "sbs.culprit.example")
            for i in range(copies):
                path = again % (i // 60, i % 60) + origin
                peer.mail("<sales@promo.example>", rcpts, path + first, BODY % ("all", "one"), queue_id=f"S{number}{i}")

    try:
        with Peer(d.port) as peer:
            peer.begin()
            peer.mail("<sales@promo.example>", rcpts, origin + first, BODY % ("all", "one"), queue_id="S0")
        threads = [threading.Thread(target=client, args=(n, 100)) for n in (1, 2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        time.sleep(1.5)  # a look of the guard
        assert held(d) >= 19500
        guard, = d.json("guard")
        assert guard["state"] == "watching" and guard["trips"] == [] and guard["passed_instead"] == 0
        assert mode(d) == "enforce"
    finally:
        assert d.stop() == 0


def test_a_slow_mta_behind_gets_fewer_connections_then_the_guard_steps_back(tmp_path):
    sink = Sink(str(tmp_path), "dot=wait=700")
    d = Door(str(tmp_path / "door"), sink.address, rules="", guard="added_latency = 1s", limits="connections = 500")
    try:
        Traffic(lambda: BySmtp(d), clients=6, each=2)
        until(lambda: d.json("guard")[0]["connections"] == {"configured": 500, "limit": 200, "governed": True})
        assert "The guard allows 200 SMTP connections of 500" in d.ctl("status")
        assert mode(d) == "enforce"
        with open(d.conf) as f:
            conf = f.read().replace("added_latency = 1s", "added_latency = 500ms")
        with open(d.conf, "w") as f:
            f.write(conf)
        d.process.send_signal(1)  # the limits are those of the new configuration
        until(lambda: mode(d) == "monitor", 6)
        trip = d.json("guard")[0]["trip"]
        assert trip["cause"] == "latency" and "the limit is 0.5 s" in trip["reason"]
    finally:
        assert d.stop() == 0
        sink.stop()


class Manager:
    """What the service manager hears."""

    def __init__(self, path):
        self.path, self.socket = path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)

    def hears(self, seconds):
        out, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                out.append(self.socket.recv(100).decode())
            except (TimeoutError, socket.timeout):
                break
        return out


def test_signs_of_life_while_the_mail_threads_answer(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    d = Daemon(str(tmp_path), env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000000"})
    try:
        assert manager.hears(3).count("WATCHDOG=1") >= 3
    finally:
        assert d.stop() == 0


def test_signs_of_life_while_somebody_reloads_all_the_time(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    d = Daemon(str(tmp_path), env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000000"})
    heard, end = [], time.monotonic() + 3
    try:
        while time.monotonic() < end:  # more often than the main thread looks around
            d.process.send_signal(1)
            heard += manager.hears(0.02)
        assert heard.count("WATCHDOG=1") >= 2
    finally:
        assert d.stop() == 0


@pytest.mark.skipif(not os.path.exists(f"{FAILPOINTS}/breakwaterd"), reason="no build with failpoints")
def test_no_sign_of_life_when_one_hangs(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000000", "BREAKWATER_FAILPOINT": "mail-thread:delay=60000:12"}
    d = Daemon(str(tmp_path), build=FAILPOINTS, env=env)
    try:
        until(lambda: "a mail thread does not answer" in d.log())
        manager.hears(0.6)
        assert "WATCHDOG=1" not in manager.hears(2.5)
        assert d.ctl("status")  # the desk lives; that is not enough
    finally:
        d.kill()
