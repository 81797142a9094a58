"""What can go wrong with a hold, under way: faults at every step of it, a disk that hangs, a stop and a new
configuration in the middle of traffic, peers that never end. Two laws hold throughout: what was acknowledged
as held is in the queue afterwards, and nothing is in the queue that was not acknowledged as held.
"""
import os
import random
import re
import resource
import signal
import socket
import threading
import time

import pytest

from daemon import BUILD, FAILPOINTS, Daemon
from milter_peer import Closed, Peer, connect, frame, message, strings

POLICY = 'rule held { when recipient.address matches "held*@rcpt.example" do hold reason "by name" }\n'
HEADER = "Received: from a.example (a.example [192.0.2.9]) by mx.client.example with ESMTP id {id};\n" \
         "\tMon, 16 Nov 2026 10:00:00 +0000\n" \
         "From: Someone <a@sender.example>\nSubject: of {n}\nMessage-ID: <{n}@sender.example>\n"
BODY = "This is message {n}, with enough words in it to tell it from every other message.\r\n"
SENDER = "<someone@sender.example>"
numbers = iter(range(1, 1 << 30))


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def start(directory, failpoint="", hold="", policy=POLICY, build=None, **more):
    build = build or (FAILPOINTS if failpoint else BUILD)
    if failpoint and not os.path.exists(f"{build}/breakwaterd"):
        pytest.skip("needs a build with failpoints: make BUILD=build/failpoint EXTRA=-DBREAKWATER_FAILPOINTS")
    with open(f"{directory}/policy.conf", "w") as f:
        f.write(policy)
    return Daemon(str(directory), more=f'policy {{ file = "{directory}/policy.conf" confirm = 0s }}', hold=hold, build=build,
                  env={"BREAKWATER_FAILPOINT": failpoint}, **more)


def send(peer, n, *names, id="4T0001", extra="", header=HEADER, body=BODY):
    """Message n to these; the letters of its verdict, and the last reply's text."""
    replies = peer.mail(SENDER, [f"<{r}@rcpt.example>" for r in names], header.format(n=n, id=id) + extra,
                        body.format(n=n))
    return "".join(r[0] for r in replies), replies[-1][1]


def held(daemon):
    """Recipients of all held copies, as a sorted list of names."""
    return sorted(c["rcpt"].split("@")[0] for c in copies(daemon))


def copies(daemon):
    out, after = [], None
    while True:
        page = daemon.json("held", "--limit", "1000", *(["--after", after] if after else []))
        rows = [r for r in page if "rcpt" in r]
        out += rows
        if len(rows) < 1000:
            return out
        after = rows[-1]["id"]


def counters(daemon):
    return daemon.json("status")[0]["counters"]


# ---- a fault at each step ----

@pytest.mark.parametrize("point", ["put.begin", "content.add", "put.content", "put.mail", "put.copy",
                                   "commit.before"])
def test_a_hold_that_fails_lets_mail_pass_and_leaves_nothing(tmp_path, point):
    d = start(tmp_path, f"{point}:fail:1+")
    with Peer(d.port) as p:
        p.begin()
        assert send(p, 1, "held-a") == ("hc", b"")
        assert send(p, 2, "b", "held-b") == ("hc", b"")
        assert send(p, 3, "b") == ("c", b"")
    assert held(d) == []
    assert "hold-failed=" in d.log() and counters(d)["hold_failed"] == 2
    assert d.stop() == 0


@pytest.mark.parametrize("point", ["put.begin", "put.content", "put.copy", "commit.before"])
def test_a_fault_that_happens_once_costs_no_hold(tmp_path, point):
    d = start(tmp_path, f"{point}:fail:1")
    with Peer(d.port) as p:
        p.begin()
        assert send(p, 1, "held-a") == ("d", b"")
    assert held(d) == ["held-a"]
    assert d.stop() == 0


def test_a_further_copy_that_cannot_be_held_is_refused_three_times_then_passes(tmp_path):
    d = start(tmp_path, "put.begin:fail:1+")
    refused = ("y", b"452 4.3.1 This copy could not be held safely; please try again later\0")
    with Peer(d.port) as p:
        p.begin()
        assert send(p, 1, "held-a")[0] == "hc"  # the first copy
        for copy in ("4T0002", "4T0003"):  # each further copy has three refusals of its own
            assert [send(p, 1, "held-a", id=copy) for _ in range(3)] == [refused] * 3
        for copy in ("4T0002", "4T0003"):
            assert send(p, 1, "held-a", id=copy)[0] == "hc"
    assert held(d) == []
    assert d.stop() == 0


def test_a_message_that_finds_no_room_beside_the_queue_passes(tmp_path):
    d = start(tmp_path, "body.spill:fail:1+", hold='message_memory = "64KB"')
    with Peer(d.port) as p:
        p.begin()
        assert send(p, 1, "held-a", body="a line of a larger message\r\n" * 10000)[0] == "hc"
        assert send(p, 2, "held-b")[0] == "d"
    assert held(d) == ["held-b"] and counters(d)["too_large"] == 1
    assert d.stop() == 0


def test_a_disk_that_hangs_delays_few_and_then_nobody(tmp_path):
    """The first ones wait for their deadline; when the keeper owes 256, none waits any more."""
    d = start(tmp_path, "put.mail:delay=4000", hold='deadline = "100ms"')
    slow, quick, threads = [], [], []

    def mails(number):
        with Peer(d.port, timeout=30) as p:
            p.begin()
            for i in range(12):
                began = time.monotonic()
                assert send(p, f"{number}x{i}", "held-a", id=f"4T{number:02}{i:02}")[0] == "hc"
                (slow if time.monotonic() - began > 0.09 else quick).append(1)
    for number in range(32):
        threads.append(threading.Thread(target=mails, args=(number,)))
        threads[-1].start()
    for t in threads:
        t.join()
    assert len(slow) + len(quick) == 32 * 12
    assert until(lambda: d.log().count("did not answer in time") + d.log().count("does not keep up") == 32 * 12)
    assert 256 <= d.log().count("did not answer in time") <= 256 + 32
    with Peer(d.port, timeout=30) as p:
        p.begin()
        assert until(lambda: send(p, next(numbers), "held-b")[0] == "d")
    assert set(held(d)) == {"held-b"}
    assert d.stop() == 0


def files_end_at(daemon, size):
    """No file of the daemon's can grow beyond: a full disk, until it is told otherwise."""
    hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_lets_mail_pass_until_there_is_room_again(tmp_path):
    d = start(tmp_path)
    with Peer(d.port) as p:
        p.begin()
        assert [send(p, n, f"held-{n}")[0] for n in range(100, 120)] == ["d"] * 20
        files_end_at(d, 1)
        assert [send(p, n, f"held-{n}")[0] for n in range(200, 220)] == ["hc"] * 20
        assert send(p, 220, "b") == ("c", b"")
        c = counters(d)
        assert c["hold_failed"] == 20 and c["unaccounted"] == 0
        files_end_at(d, resource.RLIM_INFINITY)
        assert [send(p, n, f"held-{n}")[0] for n in range(300, 320)] == ["d"] * 20
    expected = sorted(f"held-{n}" for n in [*range(100, 120), *range(300, 320)])
    assert held(d) == expected
    assert d.stop() == 0
    d.start()
    assert held(d) == expected
    assert d.stop() == 0


def test_without_descriptors_nothing_spins_and_it_goes_on(tmp_path):
    d = start(tmp_path)
    pid, many = d.process.pid, []
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert limits[0] == limits[1]  # the soft limit is raised at the start
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 10, limits[1]))
    try:
        for _ in range(40):
            for s, address in ((socket.socket(), ("127.0.0.1", d.port)), (socket.socket(socket.AF_UNIX), f"{tmp_path}/control")):
                many.append(s)
                s.settimeout(5)
                s.connect(address)
        time.sleep(0.3)
        with open(f"/proc/{pid}/stat") as f:
            before = sum(map(int, f.read().rsplit(")")[1].split()[11:13]))
        time.sleep(1)
        with open(f"/proc/{pid}/stat") as f:
            used = sum(map(int, f.read().rsplit(")")[1].split()[11:13])) - before
        assert used < 40  # hundredths of a second
    finally:
        for s in many:
            s.close()
    with Peer(d.port) as p:
        p.begin()
        assert send(p, 1, "held-a")[0] == "d"
    assert until(lambda: held(d) == ["held-a"])
    assert d.stop() == 0


# ---- in the middle of traffic ----

def write_whole(path, text):
    """The daemon may be reading it: it sees the old text or the new, never a part."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


class Traffic:
    """Some sessions that send until they are stopped or hung up on; each recipient's name once."""

    def __init__(self, daemon, sessions=8, seed=1):
        self.daemon, self.lock, self.over = daemon, threading.Lock(), False
        self.acknowledged, self.unknown, self.replies, self.wrong = set(), set(), 0, []
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed + i),)) for i in range(sessions)]
        for t in self.threads:
            t.start()

    def run(self, rng):
        try:
            with Peer(self.daemon.port) as p:
                p.begin()
                while not self.over:
                    self.one(p, rng)
        except (Closed, OSError):
            pass

    def one(self, p, rng):
        n = next(numbers)
        names = {f"held-{n}"} if rng.random() < 0.6 else {f"held-{n}", f"b-{n}"} if rng.random() < 0.7 else {f"b-{n}"}
        going = {name for name in names if name.startswith("held")}
        with self.lock:
            self.unknown |= going
        letters, _ = send(p, n, *names)
        with self.lock:
            self.unknown -= going
            self.replies += 1
            expected = "c" if not going else "d" if going == names else "-c"
            if letters == expected:
                self.acknowledged |= going
            else:
                self.wrong.append(letters)

    def stop(self):
        self.over = True
        for t in self.threads:
            t.join()


def test_stopped_under_load_every_acknowledged_hold_is_there_and_no_other(tmp_path):
    d = start(tmp_path)
    traffic = Traffic(d)
    assert until(lambda: traffic.replies > 300)
    assert d.stop() == 0
    traffic.stop()
    d.start()
    there = set(held(d))
    assert traffic.acknowledged - there == set()
    assert there - traffic.acknowledged <= traffic.unknown  # the reply was on its way when the connection ended
    assert traffic.wrong == [] and len(traffic.acknowledged) > 100
    assert d.stop() == 0


def test_a_new_configuration_under_load_changes_no_message_under_way(tmp_path):
    d = start(tmp_path)
    traffic = Traffic(d)
    assert until(lambda: traffic.replies > 30)
    for i in range(20):
        write_whole(f"{tmp_path}/policy.conf", POLICY.replace("by name", f"the {i}th time"))
        d.process.send_signal(signal.SIGHUP)
        assert until(lambda: d.log().count("policy=apply") == i + 1)  # version 1 is no change
        seen = traffic.replies
        assert until(lambda: traffic.replies > seen + 30)
    with open(f"{tmp_path}/policy.conf", "w") as f:
        f.write("rule {")
    d.process.send_signal(signal.SIGHUP)
    assert until(lambda: "the old configuration stays in force" in d.log())
    traffic.stop()
    assert traffic.wrong == [] and traffic.unknown == set()
    assert held(d) == sorted(traffic.acknowledged)
    assert {c["reason"] for c in copies(d)} >= {"by name", "the 19th time"}
    assert d.stop() == 0


def test_killed_under_load_every_acknowledged_hold_is_there(tmp_path):
    d = start(tmp_path)
    traffic = Traffic(d)
    assert until(lambda: traffic.replies > 200)
    d.kill()
    traffic.stop()
    d.start()
    assert traffic.acknowledged - set(held(d)) == set()
    assert d.stop() == 0


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_session_that_outlasts_the_stop_is_ended(tmp_path):
    d = start(tmp_path)
    header = HEADER.format(n=1, id=1)
    with Peer(d.port) as p:
        p.begin()
        p.send(message(SENDER, ["<held-a@rcpt.example>"], header, BODY.format(n=1))[:-5])
        with Peer(d.port) as other:
            other.begin()
            assert send(other, 2, "b")[0] == "c"
        began = time.monotonic()
        stopped = threading.Thread(target=d.stop)
        stopped.start()
        assert until(lambda: refused(d.port))  # the MTA need not wait
        stopped.join()
        assert d.process.returncode == 0
        assert 5 < time.monotonic() - began < 15
        assert p.closed()
    d.start()
    assert held(d) == []
    assert d.stop() == 0


def test_the_balance_is_even_after_anything(tmp_path):
    """Verdicts, aborted messages, hung up sessions, recipients of both kinds: nothing is unaccounted for."""
    d = start(tmp_path)
    rng, given, begun = random.Random(7), 0, 0
    for session in range(60):
        with Peer(d.port) as p:
            p.begin()
            for _ in range(rng.randrange(1, 6)):
                n = next(numbers)
                names = [f"{rng.choice(['b', 'held'])}-{n}-{i}" for i in range(rng.randrange(0, 5))]
                data = message(SENDER, [f"<{r}@rcpt.example>" for r in names], HEADER.format(n=n, id=1), BODY.format(n=n))
                begun += 1
                end = rng.random()
                given += len(names) if end < 0.6 else 0
                if end < 0.6:
                    p.send(data)
                    p.verdict()
                elif end < 0.8:
                    p.send(data[:-5] + frame("A"))
                else:
                    p.send(data[:-5])
                    break
    assert until(lambda: counters(d)["received"] == given)
    c = counters(d)
    assert c["unaccounted"] == 0 and c["messages"] + c["given_up"] == begun
    assert c["aborted"] == 0 < c["given_up"] and c["held"] == len(held(d)) > 0
    assert d.stop() == 0


# ---- peers that never end ----

def rss_kb(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def small(daemon, before, kb):
    return "san" in daemon.build or rss_kb(daemon) - before < kb


def test_a_message_without_bounds_passes_and_costs_little(tmp_path):
    d = start(tmp_path)
    rcpts = b"".join(frame("R", strings(f"<held-{i}@rcpt.example>")) for i in range(100000))
    fields = frame("L", strings("X-Filler", " " + "x" * 60000)) * 2000
    lines = frame("B", b"a line of the body, again and again\r\n" * 1500)
    header = b"".join(frame("L", strings(*f)) for f in (("From", " a@b.example"), ("Subject", " long")))
    begin, end = frame("M", strings(SENDER)), frame("E")
    with Peer(d.port, timeout=30) as p:
        p.begin()
        before = rss_kb(d)
        p.send(begin + rcpts + frame("T") + header + frame("N") + lines * 10 + frame("A"))
        assert small(d, before, 40000)
        p.send(begin + rcpts + frame("T") + header + frame("N") + end)
        assert p.verdict() == [("c", b"")]
        assert small(d, before, 60000)
        p.send(begin + frame("R", strings("<held-1@rcpt.example>")) + frame("T") + fields + frame("N") + end)
        assert p.verdict() == [("c", b"")]
        assert small(d, before, 100000)
        p.send(begin + frame("R", strings("<b@rcpt.example>")) + frame("T") + header + frame("N") + lines * 1000 + end)
        assert p.verdict() == [("c", b"")]
        assert small(d, before, 100000)
        assert send(p, 1, "held-z")[0] == "d"
    assert held(d) == ["held-z"]
    assert d.log().count("unjudged=") == 2 and counters(d)["too_large"] == 2
    assert d.stop() == 0


# ---- what strangers wrote, wherever it comes out ----

def test_nothing_hostile_reaches_a_log_a_terminal_or_a_reply(tmp_path):
    evil = "\x1b]0;x\x07\x1b[2J%n%s\u202e\xff\"\\"
    d = start(tmp_path, level="info", policy=POLICY + """
rule busy { when recipient.address matches "busy*" do throttle reason "{message.subject} {message.from} 100%" }
rule tag { when recipient.address matches "tag*" do tag reason "{message.subject}" }
""")
    header = f"From: {evil} <a@b.example>\nSubject: {evil}\n\tid=forged verdict=pass {'long ' * 200}\n" \
             f"Message-ID: <{evil}@x>\nReceived: from {evil} by {evil}; now\n"
    with Peer(d.port) as p:
        p.negotiate()
        p.command(connect(name=evil + "\nid=forged"))
        p.command(frame("H", strings(evil + "\r\nid=forged")))
        replies = p.mail(f"<{evil}\n@b>", [f"<held-{evil}\nid=forged@rcpt.example>"], header, evil.encode())
        assert replies[-1][0] in "cd"
        for name in ("busy", "tag", "held"):
            for reply in p.mail(f"<{evil}\n@b>", [f"<{name}-{name}@rcpt.example>"], header, (evil + name).encode()):
                if reply[0] in "yh":
                    text = reply[1].split(b"\0")[0 if reply[0] == "y" else 1]
                    assert all(32 <= c < 127 for c in text) and len(text) <= 998
                if reply[0] == "y":
                    assert len(text) <= 500 and re.fullmatch(rb"451 4\.7\.0 ([^%]|%%)*", text)
    tables = [d.ctl("storms"), d.ctl("held"), d.ctl("status"), d.ctl("explain", "--rcpt", "held-held@rcpt.example")]
    for c in copies(d):
        tables.append(d.ctl("show", c["id"]))
    assert d.stop() == 0
    for text in tables + [d.log()]:
        assert all(c == "\n" or 32 <= ord(c) < 127 for c in text), text
    for line in d.log().splitlines():
        assert re.match(r"(id|tx|incident|door|change|mail)=", line) and not line.startswith("id=forged")
