"""The balance at both doors, whatever clients do and wherever they stop; and what rules did, by day, across restarts.

The law: every recipient of a message that came to its end has exactly one row in the journal, the balance is even, and what
was given up before its end is in neither.
"""
import datetime
import random
import sqlite3
import time

import pytest

from milter_peer import Peer, frame, message
from scripted_exchange import Exchange
from smtp_door import Door
from smtp_peer import Client, stuffed
from test_faults import BODY, HEADER, SENDER, numbers, start, until

MAIL = "From: Someone <a@sender.example>\r\nSubject: of {n}\r\nMessage-ID: <{n}@sender.example>\r\n\r\nThis is message {n}.\r\n"


def rows(daemon, names):
    return [r for n in sorted(set(names)) for r in daemon.json("explain", "--rcpt", f"{n}@rcpt.example") if "disposition" in r]


def today():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def even(daemon, received=None):
    """Waits until nothing is under way; the sum of all doors."""
    def total():
        b = daemon.json("balance")[0]
        keys = ("received", "passed", "held", "throttled", "rejected", "refused", "aborted", "under_way")
        return {k: sum(d[k] for d in b["doors"]) for k in keys}, b

    assert until(lambda: total()[0]["under_way"] == 0 and received in (None, total()[0]["received"])), total()
    t, b = total()
    assert b["even"] and t["received"] == sum(v for k, v in t.items() if k != "received"), t
    for m in b["minutes"]:
        assert m["unaccounted"] == 0
        assert m["received"] + m["before"] == m["under_way"] + sum(m[k] for k in t if k not in ("received", "under_way")), m
    assert "Every message that came in is accounted for." in daemon.ctl("balance")
    return t


def test_an_mta_may_be_gone_at_any_moment(tmp_path):
    """Hung up after each frame of a message, the end of it included, with and without waiting for the reply."""
    d = start(tmp_path)
    names = []
    for kind in ("b", "held"):
        n = next(numbers)
        name = f"{kind}-{n}"
        frames = message(SENDER, [f"<{name}@rcpt.example>"], HEADER.format(n=n, id=1), BODY.format(n=n))
        cuts, at = [], 0
        while at < len(frames):
            at += 4 + int.from_bytes(frames[at:at + 4], "big")
            cuts.append(at)
        for cut in cuts + [len(frames)]:
            with Peer(d.port) as p:
                p.begin()
                p.send(frames[:cut])
                if cut == len(frames):
                    names.append(name)
    t = even(d, len(names))
    assert t["received"] == 4
    found = []
    assert until(lambda: len(rows(d, names)) == t["received"])
    found = rows(d, names)
    assert {r["disposition"] for r in found} <= {"pass", "hold", "aborted"}
    assert sum(r["disposition"] == "aborted" for r in found) == t["aborted"]
    assert d.json("status")[0]["counters"]["given_up"] > 8
    assert d.stop() == 0


def test_an_mta_that_is_gone_while_its_copy_is_written_has_it_still(tmp_path):
    d = start(tmp_path, failpoint="put.mail:delay=1500")
    n = next(numbers)
    with Peer(d.port) as p:
        p.begin()
        p.send(message(SENDER, [f"<held-{n}@rcpt.example>", f"<b-{n}@rcpt.example>"], HEADER.format(n=n, id=1), BODY.format(n=n)))
        time.sleep(0.3)
    assert even(d, 2)["aborted"] == 2
    assert until(lambda: len(rows(d, [f"held-{n}", f"b-{n}"])) == 2)
    row = rows(d, [f"held-{n}"])[0]
    assert row["disposition"] == "aborted" and row["advised"] == "hold" and row["rule"] == "gone before the reply"
    assert until(lambda: d.json("status")[0]["hold"]["held"] == 0)
    assert d.stop() == 0


@pytest.fixture
def exchange():
    servers = []

    def begin(**script):
        servers.append(Exchange(**script))
        return servers[-1]

    yield begin
    for e in servers:
        e.stop()


def test_a_client_may_be_gone_at_any_moment(tmp_path, exchange):
    """The same at the SMTP door: RSET, EHLO, QUIT and a closed connection at each stage; refused, lost and held between."""
    e = exchange()
    d = Door(str(tmp_path / "door"), e.address, limits="idle = 5s")
    rng, ended, given_up = random.Random(5), [], 0
    for _ in range(80):
        n = next(numbers)
        names = [f"{kind}-{n}" for kind in rng.sample(["b", "held", "c"], rng.randrange(1, 4))]
        stage, way = rng.choice(["mail", "rcpt", "data", "end", "end", "reply"]), rng.choice(["RSET", "EHLO x.example", "QUIT", ""])
        c = Client(d.smtp_port)
        c.ehlo()
        c.do("MAIL FROM:<someone@sender.example>", 250)
        if stage != "mail":
            for name in names:
                c.do(f"RCPT TO:<{name}@rcpt.example>", 250)
        if stage in ("data", "end", "reply"):
            c.do("DATA", 354)
            text = stuffed(MAIL.format(n=n).encode())
            c.send(text if stage != "data" else text[:-5])
        if stage in ("end", "reply"):
            ended += names
            if stage == "reply":
                assert c.said()[0] == 250
        else:
            given_up += 1
            if stage != "data" and way:
                c.send(way.encode() + b"\r\n")
                c.said()
        c.close()
    t = even(d, len(ended))
    assert t["passed"] and t["held"]
    assert until(lambda: len(rows(d, ended)) == len(ended))
    assert d.counters()["given_up"] == given_up
    assert d.stop() == 0, d.log()


@pytest.mark.parametrize("action", ["451 4.3.2 not now", "554 5.7.1 no", "reset"])
def test_what_the_server_behind_does_not_take_is_refused_not_passed(tmp_path, exchange, action):
    e = exchange(faults=[("dot", 1, action)])
    d = Door(str(tmp_path / "door"), e.address)
    code, _ = d.mail(["b-1@rcpt.example", "held-1@rcpt.example"], MAIL.format(n=action[:3]).encode(), who=None,
                     sender="someone@sender.example")
    assert code == (554 if action[0] == "5" else 451)
    t = even(d, 2)
    assert (t["refused"], t["passed"], t["held"]) == (2, 0, 0)
    found = rows(d, ["b-1", "held-1"]) if until(lambda: len(rows(d, ["b-1", "held-1"])) == 2) else []
    assert {r["disposition"] for r in found} == {"reject" if code == 554 else "throttle"}
    assert d.stop() == 0, d.log()


def test_what_the_door_itself_does_not_take_has_its_row(tmp_path, exchange):
    e = exchange(offers=["SIZE 50000"])
    d = Door(str(tmp_path / "door"), e.address)
    code, _ = d.mail(["b-1@rcpt.example"], b"Subject: x\r\n\r\n" + 1000 * (b"x" * 70 + b"\r\n"), who=None)
    assert code == 552
    assert even(d, 1)["refused"] == 1
    assert until(lambda: rows(d, ["b-1"])) and rows(d, ["b-1"])[0]["rule"] == "too large"
    assert d.stop() == 0, d.log()


def line(daemon, mode, rule):
    found = [r for r in daemon.json("report", today()) if (r["mode"], r["rule"]) == (mode, rule)]
    return found[0] if found else None


def give(daemon, n, name):
    with Peer(daemon.port) as p:
        p.begin()
        p.send(message(SENDER, [f"<{name}@rcpt.example>"], HEADER.format(n=n, id=next(numbers)), BODY.format(n=n)))
        return p.verdict()[-1][0]


def test_monitor_says_what_enforce_would_have_done_also_after_a_restart(tmp_path):
    if datetime.datetime.now(datetime.timezone.utc).strftime("%H:%M") == "23:59":
        pytest.skip("the day is about to end")
    d = start(tmp_path, mode="monitor")
    for i in range(3):
        assert give(d, next(numbers), f"held-{i}") == "c"
    assert give(d, next(numbers), "b") == "c"
    said = "In the last 24 hours enforce mode would have held 0 further copies and 3 first copies (rule held 3)."
    assert until(lambda: said in d.ctl("status")), d.ctl("status")
    assert d.stop() == 0
    d.start()
    assert said in d.ctl("status")
    row = line(d, "monitor", "held")
    assert row["copies"] == row["would"]["hold"] == row["firsts"]["hold"] == row["done"]["pass"] == 3
    assert line(d, "monitor", None)["copies"] == 1
    d.ctl("mode", "enforce", "--reason", "it is right")
    assert give(d, next(numbers), "held-9") == "d"
    assert until(lambda: line(d, "enforce", "held"))
    row = line(d, "enforce", "held")
    assert row["copies"] == row["would"]["hold"] == row["done"]["hold"] == 1
    table = d.ctl("report")
    assert "monitor" in table and "enforce" in table and "FIRST COPIES" in table
    assert d.ctl("report", "2001-02-03").strip() == "No mail came in these days."
    assert d.ctl("report", "yesterday", check=False)[0] == 1
    even(d)
    assert d.stop() == 0


def test_the_day_is_summed_up_also_when_the_daemon_was_down_at_that_time(tmp_path):
    d = start(tmp_path, mode="monitor")
    assert give(d, next(numbers), "held-1") == "c"
    db = f"{tmp_path}/hold/hold.db"

    def summed_up():
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as c:
            return next((int(v) for v, in c.execute("SELECT value FROM setting WHERE name = 'summed_up'")), 0)

    time.sleep(1.2)
    assert d.stop() == 0 and "report:" not in d.log()  # the first day has none before it
    assert summed_up() > 0
    with sqlite3.connect(db) as c:
        c.execute("UPDATE setting SET value = ? WHERE name = 'summed_up'", (str(int(time.time() - 2 * 86400) * 1000),))
    c.close()
    d.start()
    said = "report: in 24 hours 1 copy judged: 1 passed, 0 held, 0 refused by rules; " \
           "enforce mode would have held 0 further copies and 1 first copy; "
    assert until(lambda: said in d.log()), d.log()
    assert "every message is accounted for" in d.log()
    assert until(lambda: summed_up() > (time.time() - 60) * 1000)
    time.sleep(1.2)
    assert d.stop() == 0 and d.log().count("report:") == 1
    with sqlite3.connect(db) as c:  # the clock was wrong in that life
        c.execute("UPDATE setting SET value = ? WHERE name = 'summed_up'", (str(int(time.time() + 400 * 86400) * 1000),))
    c.close()
    d.start()
    time.sleep(1.2)
    assert d.stop() == 0 and summed_up() <= time.time() * 1000
