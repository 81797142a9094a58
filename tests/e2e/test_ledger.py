"""Refusals have rows and an end; what people decide for a while is in force at both doors, outlives a restart and ends by itself."""
import re
import time

import pytest

from daemon import Daemon
from milter_peer import Peer
from scripted_exchange import Exchange
from smtp_door import Door
from test_postfix import copies
from test_relays import send as storm

RULES = 'rule busy { when envelope.from matches "busy*@*" do throttle reason "try again later" }\n' \
        'rule no { when envelope.from == "no@sender.example" do reject reason "not here" }\n'
RECEIVED = "Received: from desk.sender.example (desk [10.0.0.9]) by {by} with ESMTP id {id}; Mon, 23 Nov 2026 10:00:00 +0000\n"
MILTER_POLICY = 'policy {{ file = "{}/policy.conf" {} }}\n'


def letter(subject, chain=("out1.sender.example",)):
    """Header and body of one message; chain: the servers it went through, the last one first."""
    trace = "".join(RECEIVED.format(by=by, id=f"4Q{i}{subject}") for i, by in enumerate(chain))
    return (trace + f"From: anna@sender.example\nTo: bob@rcpt.example\nSubject: {subject}\nMessage-ID: <{subject}@sender.example>\n"
            "Date: Mon, 23 Nov 2026 10:00:00 +0000\n", f"Dear Bob, this is about {subject}, in words enough to tell it from others.\n")


class Milter:
    """Talks to the daemon as Postfix does."""
    client = ("out1.sender.example", "192.0.2.25")

    def __init__(self, directory, limits="", **more):
        directory.mkdir()
        (directory / "policy.conf").write_text(RULES)
        self.daemon = Daemon(str(directory), more=MILTER_POLICY.format(directory, limits), **more)

    def send(self, message, sender="busy@sender.example", to="bob@rcpt.example", client=client, helo=None):
        """accepted, refused, rejected or held"""
        with Peer(self.daemon.port) as peer:
            peer.begin(client[0], client[1], helo or client[0])
            letter_of, data = peer.mail(f"<{sender}>", [f"<{to}>"], message[0], message[1].replace("\n", "\r\n"))[-1]
            time.sleep(0.05)  # nobody comes again before what became of it is written down, just after the reply
        if letter_of == "y":
            return {b"4": "refused", b"5": "rejected"}[data[:1]]
        return {"a": "accepted", "c": "accepted", "d": "held", "t": "refused", "r": "rejected"}[letter_of]

    def stop(self):
        assert self.daemon.stop() == 0, self.daemon.log()


class Smtp(Milter):
    """The same through an SMTP door with a scripted Exchange behind it."""

    def __init__(self, directory, limits="", faults=(), **more):
        self.behind = Exchange(faults=faults)
        self.daemon = Door(str(directory), self.behind.address, rules=RULES, **more)
        if limits:
            conf = open(self.daemon.conf).read()
            open(self.daemon.conf, "w").write(conf.replace("policy { file", f"policy {{ {limits} file"))
            self.daemon.stop()
            self.daemon.start()

    def send(self, message, sender="busy@sender.example", to="bob@rcpt.example", client=Milter.client, helo=None):
        had = len(self.behind.taken)
        code = self.daemon.mail([to], "\n".join(message).replace("\n", "\r\n").encode(), who=client, sender=sender)[0]
        if code == 250:
            return "accepted" if len(self.behind.taken) > had else "held"
        return {4: "refused", 5: "rejected"}[code // 100]

    def stop(self):
        super().stop()
        self.behind.stop()


@pytest.fixture(params=[Milter, Smtp], ids=["milter", "smtp"])
def door(request, tmp_path):
    doors = []

    def begin(**more):
        doors.append(request.param(tmp_path / f"d{len(doors)}", **more))
        return doors[-1]

    yield begin
    for d in doors:
        d.stop()


def refusals(daemon, *filters, least=1):
    """Rows, once there are as many: they are written four times a second."""
    for _ in range(50):
        rows = daemon.json("refusals", *filters)
        if len(rows) >= least:
            break
        time.sleep(0.1)
    return rows


def outcome(daemon, wanted, *filters):
    for _ in range(50):
        rows = refusals(daemon, *filters)
        if rows and rows[0]["outcome"] == wanted:
            break
        time.sleep(0.1)
    assert rows and rows[0]["outcome"] == wanted, rows
    return rows[0]


def test_a_message_is_refused_three_times_and_then_passes(door):
    d = door()
    said = [d.send(letter("offer")) for _ in range(5)]
    assert said == ["refused"] * 3 + ["accepted", "held"], said
    row = outcome(d.daemon, "passed")
    assert row["outcome"] == "passed" and row["times"] == 3 and row["settled"] >= row["last"] >= row["first"]
    assert (row["sender"], row["rcpts"], row["rule"], row["client"]) == ("busy@sender.example", ["bob@rcpt.example"], "busy", "192.0.2.25")
    assert row["reason"] == "try again later" and row["message_id"] == "offer@sender.example"
    story = d.daemon.ctl("explain", "--rcpt", "bob@rcpt.example")
    assert re.search(r"refused 3 times since .*; passed at ", story), story
    tx = [r["tx"] for r in d.daemon.json("explain", "--rcpt", "bob@rcpt.example") if r.get("disposition") == "tag"][0]
    assert "refused 3 times since" in d.daemon.ctl("explain", tx)


def test_what_came_again_after_a_refusal_is_no_further_copy(door):
    d, rows = door(), []
    for n in range(4):  # what has not been answered yet is still on its way: a retry comes later
        assert d.send(letter("once")) == ("refused" if n < 3 else "accepted")
        for _ in range(50):
            rows = [r for r in d.daemon.json("explain", "--rcpt", "bob@rcpt.example") if "relation" in r]
            if len(rows) > n:
                break
            time.sleep(0.1)
    assert [(r["relation"], r["copies"]) for r in rows] == [("first", 0)] * 4, rows


def test_who_has_it_already_gets_the_further_copy_held(door):
    d = door()
    assert d.send(letter("twice"), sender="anna@sender.example") == "accepted"
    said = [d.send(letter("twice")) for _ in range(4)]
    assert said == ["refused"] * 3 + ["held"], said
    outcome(d.daemon, "held")
    assert "(refused 3 times before)" in copies(d.daemon, "held")[0]["reason"]


@pytest.mark.parametrize("limit, chain_of, expected", [
    ("", lambda n: [f"out{n}.sender.example"], ["refused"] * 3 + ["accepted"]),
    ("", lambda n: ["fallback.sender.example", "out1.sender.example"] if n == 3 else ["out1.sender.example"], ["refused"] * 3 + ["accepted"]),
    ("", lambda n: ["mx.b.example", f"loop{n}.example", "out1.sender.example"], ["refused"] * 4),
    ("refusals = 1", lambda n: ["out1.sender.example"], ["refused", "accepted", "held"]),
    ("refusals = 0", lambda n: ["out1.sender.example"], ["refused"] * 4),
    ("refusals = 0 defer_max = 1s", lambda n: time.sleep(0.6) or ["out1.sender.example"], ["refused", "refused", "accepted", "held"]),
], ids=["another server of the pool", "the fallback relay", "another way", "once", "any number", "too long"])
def test_retries(tmp_path, limit, chain_of, expected):
    d = Milter(tmp_path / "d", limits=limit)
    said = [d.send(letter("retry", chain_of(n))) for n in range(len(expected))]
    d.stop()
    assert said == expected


def test_refusals_are_counted_on_after_a_restart(door):
    d = door()
    assert [d.send(letter("on")), d.send(letter("on"))] == ["refused"] * 2
    assert refusals(d.daemon)[0]["times"] in (1, 2)
    d.daemon.stop()
    d.daemon.start()
    assert refusals(d.daemon)[0]["times"] == 2
    assert [d.send(letter("on")), d.send(letter("on"))] == ["refused", "accepted"]
    assert outcome(d.daemon, "passed")["times"] == 3


def test_what_is_refused_for_good_does_not_wait(door):
    d = door()
    assert d.send(letter("bad"), sender="no@sender.example") == "rejected"
    row = outcome(d.daemon, "rejected")
    assert row["rule"] == "no" and d.daemon.json("status")[0]["ledger"]["waiting"] == 0


def test_nothing_is_refused_in_mode_monitor(door):
    d = door(mode="monitor")
    assert [d.send(letter("watched")) for _ in range(2)] == ["accepted"] * 2
    time.sleep(0.6)
    assert d.daemon.json("refusals") == [] and "No message was refused" in d.daemon.ctl("refusals")


def test_refusals_of_the_server_behind_are_rows_too(tmp_path):
    d = Smtp(tmp_path / "d", faults=[("dot", 1, "451 4.3.2 not now")])
    try:
        said = [d.send(letter("behind"), sender="anna@sender.example") for _ in range(2)]
        assert said == ["refused", "accepted"], said
        row = outcome(d.daemon, "passed")
        assert row["rule"] == "refused downstream" and row["reason"] == "the server behind answered 451"
    finally:
        d.stop()


def test_refusals_are_found(tmp_path):
    d = Milter(tmp_path / "d")
    for n in range(5):
        d.send(letter(f"m{n}"), sender=f"busy{n % 2}@sender.example", to=f"bob{n}@rcpt.example")
    ctl = d.daemon
    assert [r["message_id"] for r in refusals(ctl, least=5)] == [f"m{n}@sender.example" for n in (4, 3, 2, 1, 0)]
    assert len(ctl.json("refusals", "--sender", "Busy0@sender.example")) == 3
    assert [r["rcpts"] for r in ctl.json("refusals", "--rcpt", "<BOB3@rcpt.example>")] == [["bob3@rcpt.example"]]
    assert len(ctl.json("refusals", "--relay", "192.0.2.25")) == len(ctl.json("refusals", "--relay", "OUT1.sender.example")) == 5
    assert ctl.json("refusals", "--rcpt", "bob@rcpt.example") == ctl.json("refusals", "--since", "2020-01-01", "--sender", "x@y.z") == []
    page = ctl.json("refusals", "--limit", "2")
    assert [r["message_id"] for r in ctl.json("refusals", "--limit", "2", "--after", page[-1]["id"])] == ["m2@sender.example", "m1@sender.example"]
    assert "add --after" in ctl.ctl("refusals", "--limit", "2")
    d.stop()


# ---- what people decide ----

def decide(d, verb, *what, length="1h"):
    return d.daemon.json(verb, *what, "--for", length, "--reason", "they called")[0]["id"]


@pytest.mark.parametrize("verb, what, sender, client, helo, expected", [
    ("hold", ("--relay", "192.0.2.25"), "anna@sender.example", Milter.client, None, "held"),
    ("hold", ("--relay", "192.0.2.0/24"), "anna@sender.example", Milter.client, None, "held"),
    ("hold", ("--relay", "192.0.2.26"), "anna@sender.example", Milter.client, None, "accepted"),
    ("hold", ("--relay", "OUT1.sender.example"), "anna@sender.example", Milter.client, None, "held"),
    ("hold", ("--sender", "anna@sender.example"), "anna@sender.example", Milter.client, None, "held"),
    ("hold", ("--sender", "@other.example"), "anna@sender.example", Milter.client, None, "accepted"),
    ("allow", ("--relay", "192.0.2.25"), "busy@sender.example", Milter.client, None, "accepted"),
    ("allow", ("--sender", "no@sender.example"), "no@sender.example", Milter.client, None, "accepted"),
    ("allow", ("--sender", "yes@sender.example"), "no@sender.example", Milter.client, None, "rejected"),
])
def test_a_person_decides(door, verb, what, sender, client, helo, expected):
    d = door()
    entry = decide(d, verb, *what)
    assert d.send(letter("one"), sender=sender, client=client, helo=helo) == expected
    used = 0 if expected in ("rejected",) or "26" in what[1] or "other" in what[1] else 1
    assert d.daemon.json("entries")[0]["used"] == used
    if expected == "held":
        copy = copies(d.daemon, "held")[0]
        assert copy["rule"] == f"entry:{entry}" and re.match(r"held by \S+ until 20\d\d-.* UTC: they called$", copy["reason"]), copy


def test_a_helo_is_only_a_claim(tmp_path):
    d = Milter(tmp_path / "d")
    claim = dict(client=("unknown", "192.0.2.99"), helo="trusted.example")
    decide(d, "allow", "--relay", "trusted.example")
    assert d.send(letter("one"), **claim) == "refused"
    assert d.send(letter("two"), client=("trusted.example", "192.0.2.98")) == "accepted"
    decide(d, "hold", "--relay", "trusted.example")
    assert d.send(letter("three"), sender="anna@sender.example", **claim) == "held"
    d.stop()


def test_an_entry_ends_by_itself_and_stays_in_the_list(door):
    d = door()
    entry = decide(d, "hold", "--sender", "anna@sender.example", length="2s")
    assert d.send(letter("one"), sender="anna@sender.example") == "held"
    time.sleep(2.1)
    assert d.send(letter("two"), sender="anna@sender.example") == "accepted"
    assert d.daemon.json("entries") == []
    row = d.daemon.json("entries", "--all")[0]
    assert row["id"] == entry and not row["in_force"] and row["ended_by"] is None


def test_an_entry_outlives_a_restart_and_is_ended_by_a_person(door):
    d = door()
    entry = decide(d, "hold", "--sender", "@sender.example")
    assert d.send(letter("one"), sender="anna@sender.example") == "held"
    d.daemon.stop()
    d.daemon.start()
    assert d.daemon.json("entries")[0]["used"] == 1
    assert d.send(letter("two"), sender="anna@sender.example") == "held"
    assert "would be ended" in d.daemon.ctl("entries", "end", entry, "--reason", "solved", "-n")
    assert d.send(letter("three"), sender="anna@sender.example") == "held"
    assert "is over" in d.daemon.ctl("entries", "end", entry, "--reason", "solved")
    assert d.send(letter("four"), sender="anna@sender.example") == "accepted"
    status, said = d.daemon.ctl("entries", "end", entry, "--reason", "again", check=False)
    assert status == 1 and "No such entry is in force" in said
    row = d.daemon.json("entries", "--all")[0]
    assert row["ended_why"] == "solved" and row["used"] == 3 and "ended by" in d.daemon.ctl("entries", "--all")


def test_a_storm_is_held_or_let_pass_as_a_whole(tmp_path):
    d = Daemon(str(tmp_path))
    try:
        for n in range(9):
            storm(d, "one", n)
        assert storm(d, "one", 10, ["new1@x.example"]) in "ac"  # a first copy
        incident = d.json("storms")[0]["id"]
        d.json("hold", "--storm", incident, "--for", "60d", "--reason", "no more of it")
        assert storm(d, "one", 11, ["new2@x.example"]) == "d"
        d.json("allow", "--storm", incident.lower(), "--reason", "they want it")
        assert storm(d, "one", 12, ["new2@x.example"]) in "ac"
        assert storm(d, "one", 13, ["r1@x.example"]) in "ac"
    finally:
        assert d.stop() == 0


def test_the_latest_entry_wins(tmp_path):
    d = Milter(tmp_path / "d")
    decide(d, "hold", "--relay", "192.0.2.25")
    decide(d, "allow", "--sender", "anna@sender.example")
    assert d.send(letter("one"), sender="anna@sender.example") == "accepted"
    decide(d, "hold", "--sender", "@sender.example")
    assert d.send(letter("two"), sender="anna@sender.example") == "held"
    d.stop()


def test_in_mode_monitor_it_would_be_held(tmp_path):
    d = Milter(tmp_path / "d", mode="monitor")
    decide(d, "hold", "--sender", "anna@sender.example")
    assert d.send(letter("one"), sender="anna@sender.example") == "accepted"
    for _ in range(50):
        rows = d.daemon.json("explain", "--rcpt", "bob@rcpt.example")
        if rows:
            break
        time.sleep(0.1)
    assert (rows[0]["disposition"], rows[0]["advised"]) == ("pass", "hold") and rows[0]["rule"].startswith("entry:")
    d.stop()


def test_who_is_exempt_gets_the_mail_all_the_same(tmp_path):
    d = Milter(tmp_path / "d")
    decide(d, "hold", "--relay", "192.0.2.25")
    assert d.send(letter("one"), sender="anna@sender.example", to="postmaster@rcpt.example") == "accepted"
    d.stop()


def test_entries_do_not_trip_the_guard(tmp_path):
    d = Milter(tmp_path / "d", guard="holds = 10")
    decide(d, "hold", "--relay", "192.0.2.25")
    assert {d.send(letter(f"m{n}"), sender="anna@sender.example") for n in range(30)} == {"held"}
    time.sleep(1.5)
    assert d.daemon.json("mode")[0]["mode"] == "enforce"
    assert d.send(letter("after"), sender="anna@sender.example") == "held"
    d.stop()


@pytest.mark.parametrize("arguments, status, says", [
    (["hold", "--relay", "0.0.0.0/0", "--reason", "x"], 1, "A relay is"),
    (["hold", "--sender", "anna", "--reason", "x"], 1, "A sender is"),
    (["hold", "--storm", "S123", "--reason", "x"], 1, "A storm's id"),
    (["hold", "--relay", "192.0.2.1", "--for", "401d", "--reason", "x"], 1, "1 second to 400 days"),
    (["hold", "--relay", "192.0.2.1", "--for", "soon", "--reason", "x"], 2, "--for wants a length"),
    (["hold", "--relay", "192.0.2.1"], 2, "wants --reason"),
    (["allow", "--reason", "x"], 2, "say whose mail"),
    (["allow", "--relay", "a.example", "--sender", "b@c.example", "--reason", "x"], 2, "say whose mail"),
    (["entries", "end", "x", "--reason", "x"], 2, "not the id of an entry"),
    (["hold", "--relay", "192.0.2.1", "--reason", "x", "-n"], 0, "would be held until"),
])
def test_what_cannot_be_decided(tmp_path, arguments, status, says):
    d = Daemon(str(tmp_path))
    try:
        got, said = d.ctl(*arguments, check=False)
        assert got == status and says in said, said
        assert d.json("entries", "--all") == []
    finally:
        assert d.stop() == 0
