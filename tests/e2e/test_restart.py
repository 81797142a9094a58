"""What a restart forgets: nothing at a clean stop, at most one more copy per recipient after a crash; whatever
is found damaged on disk, the daemon starts and says so. And what comes back after weeks (by replay, on virtual
time) is held at once, while who never had it gets a first copy."""
import glob
import json
import os
import re
import subprocess
import time

import pytest

from daemon import BUILD, Daemon
from milter_peer import Peer

PEOPLE = [f"<p{i}@people{i % 4}.example>" for i in range(12)]
SENDER = "<office@origin.example>"
HEADER = "{chain}From: Office <office@origin.example>\nTo: " + ", ".join(p.strip("<>") for p in PEOPLE) + \
         "\nSubject: the plan for {n}\nDate: Mon, 16 Nov 2026 10:00:00 +0000\nMessage-ID: <{n}@origin.example>\n"
BODY = "This is the plan for {n}, in more than eight words, as it was decided by all of us yesterday.\r\n"
FIRST = "Received: from pc.origin.example (pc.origin.example [192.0.2.1]) by out.origin.example with ESMTP id O{n};\n" \
        "\tMon, 16 Nov 2026 10:00:00 +0000\n"
# Taken out of a mailbox and sent on: each time another turn of the same server.
TURN = "Received: from sbs.faulty.example ([198.51.100.9]) by smart.isp.example with ESMTP id T{t};\n" \
       "\tMon, 16 Nov 2026 11:00:00 +0000\n" \
       "Received: from mail pickup service by sbs.faulty.example with Microsoft SMTPSVC;\n" \
       "\tMon, 16 Nov 2026 10:59:{s:02d} +0000\n" \
       "Received: from out.origin.example (out.origin.example [192.0.2.2]) by mx.faulty.example with ESMTP id F{t}\n" \
       "\tfor <owner@faulty.example>; Mon, 16 Nov 2026 10:10:00 +0000\n"


def passed(peer, n, people, chain):
    """To how many of these the message passes."""
    replies = peer.mail(SENDER, people, HEADER.format(n=n, chain=chain), BODY.format(n=n))
    letters = [r[0] for r in replies]
    if letters[-1] == "d":
        return 0
    assert letters[-1] in "ac"
    return len(people) - letters.count("-")


def first(peer, n, people=PEOPLE):
    return passed(peer, n, people, FIRST.format(n=n))


def turn(peer, n, t, people=PEOPLE):
    return passed(peer, n, people, TURN.format(t=t, s=t % 60) + FIRST.format(n=n))


def peer_of(daemon):
    p = Peer(daemon.port)
    p.begin()
    return p


def start(tmp_path, **more):
    return Daemon(str(tmp_path), **more)


def status(daemon):
    return daemon.json("status")[0]


def read_back(daemon, seconds=20):
    end = time.monotonic() + seconds
    while status(daemon)["memory"]["reading"] and time.monotonic() < end:
        time.sleep(0.05)
    return status(daemon)["memory"]


def storm(daemon, n, turns=6):
    with peer_of(daemon) as p:
        assert first(p, n) == len(PEOPLE)
        return sum(turn(p, n, t) for t in range(turns))


def test_a_clean_restart_in_mid_storm_lets_nothing_more_through(tmp_path):
    d = start(tmp_path)
    storm(d, 1)
    for life in range(2):
        assert d.stop() == 0
        assert os.path.exists(f"{tmp_path}/hold/memory.snapshot")
        d.start()
        with peer_of(d) as p:
            assert sum(turn(p, 1, 100 * life + t) for t in range(20, 30)) == 0
            assert first(p, f"other-{life}") == len(PEOPLE)
    assert d.stop() == 0


def test_a_crash_in_mid_storm_costs_at_most_one_copy_each(tmp_path):
    d = start(tmp_path)
    storm(d, 2)
    time.sleep(2.5)  # storms are written about once a second
    for life in range(3):
        d.kill()
        d.start()
        with peer_of(d) as p:
            assert sum(turn(p, 2, 1000 * life + t) for t in range(20, 30)) == 0
    d.kill()
    # a storm that has just begun: it is written at once
    d.start()
    before = storm(d, 3)
    time.sleep(0.6)
    d.kill()
    d.start()
    read_back(d)
    with peer_of(d) as p:
        again = [sum(turn(p, 3, 5000 + t, [who]) for t in range(10)) for who in PEOPLE]
    assert max(again) <= 1, (before, again)
    assert d.stop() == 0


def test_ordinary_mail_is_known_after_a_clean_restart(tmp_path):
    d = start(tmp_path)
    with peer_of(d) as p:
        assert first(p, 4) == len(PEOPLE)
    d.stop()
    d.start()
    with peer_of(d) as p:
        assert turn(p, 4, 1) == 0  # all have it, and its path shows a mailbox: nothing is a first copy
    assert d.stop() == 0


def test_after_a_crash_the_long_memory_takes_the_allowance(tmp_path):
    d = start(tmp_path)
    with peer_of(d) as p:
        assert first(p, 5) == len(PEOPLE)
    time.sleep(1)  # digests are written four times a second
    d.kill()
    d.start()
    memory = read_back(d)
    assert memory["read"] == len(PEOPLE) and memory["damaged"] == 0 and memory["since"]
    people = PEOPLE[:1]  # one person: nobody is convicted by him
    chain = "Received: from other.example ([203.0.113.{t}]) by relay{t}.example with ESMTP id X{t};\n\tMon, 16 Nov 2026 12:00:00 +0000\n"
    with peer_of(d) as p:
        got = [passed(p, 5, people, chain.format(t=t) + FIRST.format(n=5)) for t in range(1, 6)]
        new = passed(p, 5, ["<never@had.example>"], chain.format(t=9) + FIRST.format(n=5))
    assert got == [1, 0, 0, 0, 0]  # one more, and no allowance after it
    assert new == 1
    assert "Remembered" in d.ctl("status")
    assert d.stop() == 0


def damage(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x55]))


def test_whatever_is_damaged_is_set_aside_and_said_and_the_storm_is_still_held(tmp_path):
    d = start(tmp_path)
    storm(d, 6)
    with peer_of(d) as p:
        for n in range(100, 120):
            first(p, n)
    d.stop()
    hold = f"{tmp_path}/hold"
    snapshot = f"{hold}/memory.snapshot"
    damage(snapshot, os.path.getsize(snapshot) // 2)
    digests = glob.glob(f"{hold}/digests-*.bwd")
    assert digests
    damage(digests[0], 60)
    d.start()
    assert re.search(r"memory\.snapshot cannot be used: it is damaged", d.log())
    assert glob.glob(f"{hold}/memory.snapshot.damaged-*")
    memory = read_back(d)
    assert memory["damaged"] == 1
    with peer_of(d) as p:
        assert sum(turn(p, 6, 700 + t) for t in range(5)) == 0  # from the registry
        assert first(p, 121) == len(PEOPLE)
    assert d.stop() == 0


def test_another_site_key_begins_anew_and_harms_nothing(tmp_path):
    d = start(tmp_path)
    storm(d, 7)
    d.stop()
    os.rename(f"{tmp_path}/site.key", f"{tmp_path}/site.key.old")
    d.start()
    read_back(d)
    assert "another site key" in d.log()
    with peer_of(d) as p:
        assert first(p, 7) == len(PEOPLE)  # nobody is known under this key
    assert d.stop() == 0


def test_files_of_no_meaning_do_not_keep_it_from_starting(tmp_path):
    os.makedirs(f"{tmp_path}/hold")
    for name, text in [("memory.snapshot", b""), ("memory.snapshot.before", b"x" * 100000),
                       ("digests-20261101-00000000.bwd", b"?"), ("digests-nonsense.bwd", b"?")]:
        with open(f"{tmp_path}/hold/{name}", "wb") as f:
            f.write(text)
    d = start(tmp_path)
    with peer_of(d) as p:
        assert first(p, 8) == len(PEOPLE)
    assert d.stop() == 0


# ---- after weeks, on virtual time ----

def trace(path, rows):
    with open(path, "w") as f:
        for day, n, people, chain in rows:
            data = HEADER.format(n=n, chain=chain) + "\r\n" + BODY.format(n=n)
            f.write(json.dumps({"t": 1138037000 + day * 86400, "client": "192.0.2.77", "helo": "smart.isp.example",
                                "name": "smart.isp.example", "from": SENDER.strip("<>"),
                                "rcpt": [p.strip("<>") for p in people],
                                "data": data.replace("\r\n", "\n").replace("\n", "\r\n")}) + "\n")


def replay(tmp_path, rows):
    trace(f"{tmp_path}/trace.jsonl", rows)
    out = subprocess.run([f"{BUILD}/breakwaterctl", "replay", "--json", f"{tmp_path}/trace.jsonl"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert out.returncode == 0, out.stderr.decode()
    return [r["rcpt"] for r in map(json.loads, out.stdout.splitlines()) if "rcpt" in r]


@pytest.mark.parametrize("days", [28, 44, 46, 300, 399])
def test_a_storm_that_comes_back_after_weeks_is_held_at_its_first_copy(tmp_path, days):
    rows = [(0, 9, PEOPLE, FIRST.format(n=9))]
    rows += [(t / 1000, 9, PEOPLE, TURN.format(t=t, s=t % 60) + FIRST.format(n=9)) for t in range(1, 12)]
    rows += [(days, 9, PEOPLE, TURN.format(t=900, s=1) + FIRST.format(n=9)),
             (days + 0.01, 9, ["<late@comer.example>"], TURN.format(t=901, s=2) + FIRST.format(n=9)),
             (days + 0.02, 9, ["<late@comer.example>"], TURN.format(t=902, s=3) + FIRST.format(n=9))]
    verdicts = replay(tmp_path, rows)
    assert set(verdicts[0].values()) == {"pass"}
    assert set(verdicts[-3].values()) == {"hold"}
    assert set(verdicts[-2].values()) <= {"pass", "tag"}  # never had it: a first copy
    assert set(verdicts[-1].values()) == {"hold"}


@pytest.mark.parametrize("days,again", [(20, 1), (39, 1), (60, 2)])
def test_an_ordinary_message_that_comes_back_is_known_for_forty_days(tmp_path, days, again):
    chain = "Received: from a.example ([203.0.113.{t}]) by relay{t}.example with ESMTP id X{t};\n\tMon, 16 Nov 2026 12:00:00 +0000\n"
    rows = [(0, 10, PEOPLE[:1], FIRST.format(n=10))]
    rows += [(days + t / 1000, 10, PEOPLE[:1], chain.format(t=t) + FIRST.format(n=10)) for t in range(1, 5)]
    verdicts = replay(tmp_path, rows)
    delivered = [v for r in verdicts[1:] for v in r.values() if v != "hold"]
    assert len(delivered) == again, verdicts
