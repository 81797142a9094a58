"""The milter door of the real daemon, talked to by a raw MTA (milter_peer.py) and by miltertest.

The policy is one of our own, so that a recipient's name says what becomes of the copy; what the
detectors make of a storm is tested elsewhere.
"""
import glob
import os
import resource
import shutil
import signal
import smtplib
import struct
import subprocess
import tempfile
import time

import pytest

import private_postfix
from daemon import FAILPOINTS, Daemon
from milter_peer import Closed, Peer, connect, frame, macros, message, offer, strings

HERE = os.path.dirname(os.path.abspath(__file__))

POLICY = """\
rule held   { when recipient.address matches "held*@rcpt.example"  do hold      reason "by name" }
rule busy   { when recipient.address == "busy@rcpt.example"        do throttle  reason "50% {message.subject}" }
rule later  { when recipient.address == "later@rcpt.example"       do throttle  code 450 4.7.100  reason "x"
              reply "100% of {recipient.address} waits" }
rule no     { when recipient.address == "no@rcpt.example" and relay.address in (192.0.2.0/24, 127.0.0.1)
              do reject code 554 5.7.1  reason "no, never" }
rule never  { when recipient.address == "never@rcpt.example"       do reject    reason "no" }
rule tagged { when recipient.address == "tagged@rcpt.example"      do tag       reason "by name" }
"""
HEADER = """\
Received: from a.example (a.example [192.0.2.9])
\tby mx.client.example (Postfix) with ESMTP id 4T0001;
\tMon, 16 Nov 2026 10:00:00 +0000
From: Someone <someone@sender.example>
To: <list@rcpt.example>
Subject: a question
Message-ID: <{n}@sender.example>
Date: Mon, 16 Nov 2026 10:00:00 +0000
"""
BODY = "This is message {n}, with enough words in it to tell it from every other message.\r\n"
SENDER = "<someone@sender.example>"
numbers = iter(range(1, 1 << 30))


def start(directory, mode="enforce", **more):
    with open(f"{directory}/policy.conf", "w") as f:
        f.write(POLICY)
    return Daemon(str(directory), mode=mode, more=f'policy {{ file = "{directory}/policy.conf" }}', **more)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    d = start(tmp_path_factory.mktemp("milter"))
    yield d
    assert d.stop() == 0


def content(extra=""):
    n = next(numbers)
    return HEADER.format(n=n) + extra, BODY.format(n=n)


def send(peer, *recipients, extra="", **more):
    """One message to these names; its verdict."""
    header, body = content(extra)
    return peer.mail(SENDER, [f"<{r}@rcpt.example>" for r in recipients], header, body, **more)


def ask(daemon, *recipients, extra=""):
    with Peer(daemon.port) as p:
        p.begin()
        return send(p, *recipients, extra=extra)


def grown_kb(daemon, before=0):
    """How much more memory it holds than before. Sanitizers keep what is freed: no answer then, 0."""
    return rss_kb(daemon) - before if "san" not in daemon.build else 0


def rss_kb(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


# ---- what an MTA sees ----

@pytest.mark.parametrize("version,ours", [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 6), (0xFFFFFFFF, 6)])
def test_every_version_from_2_gets_an_answer(daemon, version, ours):
    with Peer(daemon.port) as p:
        p.negotiate(version=version)
        assert p.version == ours


@pytest.mark.parametrize("version", [0, 1])
def test_older_versions_are_refused(daemon, version):
    with Peer(daemon.port) as p:
        p.send(offer(version))
        assert p.closed()


def test_a_message_passes(daemon):
    assert ask(daemon, "b") == [("c", b"")]


@pytest.mark.parametrize("version,actions,steps", [(2, 0x3F, 0x7F), (3, 0x3F, 0x1FF), (4, 0x3F, 0x3FF), (6, 0x1FF, 0)])
def test_an_mta_without_no_reply_gets_an_answer_to_each_command(daemon, version, actions, steps):
    with Peer(daemon.port) as p:
        p.begin(version=version, actions=actions, steps=steps)
        assert send(p, "b", "c") == [("c", b"")]
        assert send(p, "tagged")[0][1].startswith(b"X-Breakwater\0act=")  # no leading blank negotiated
        assert p.silent()


def test_all_recipients_held_is_discard_and_the_copies_are_there(daemon):
    assert ask(daemon, "held-1", "held-2") == [("d", b"")]
    held = daemon.ctl("held")
    assert "held-1@rcpt.example" in held and "held-2@rcpt.example" in held


def test_one_recipient_held_is_removed_as_it_was_written(daemon):
    with Peer(daemon.port) as p:
        p.begin()
        header, body = content()
        replies = p.mail(SENDER, ["<b@rcpt.example>", ["<Held-3@rcpt.example>", "NOTIFY=NEVER"], "held-4@rcpt.example"],
                         header, body)
    assert replies == [("-", b"<Held-3@rcpt.example>\0"), ("-", b"held-4@rcpt.example\0"), ("c", b"")]


def test_an_mta_that_cannot_remove_recipients_keeps_them_all(daemon):
    before = daemon.ctl("held")
    with Peer(daemon.port) as p:
        p.begin(actions=0x1FF & ~0x8)
        replies = send(p, "b", "held-5")
        assert [r[0] for r in replies] == ["h", "c"] and b"hold-failed" in replies[0][1]
        assert send(p, "held-6") == [("d", b"")]
    after = daemon.ctl("held")
    assert "held-5@" not in after and "held-6@" in after and "held-6@" not in before


def test_throttle_and_reject_are_replies_with_a_code(daemon):
    assert ask(daemon, "busy") == [("y", b"451 4.7.0 50%% a question\0")]
    assert ask(daemon, "never") == [("y", b"550 5.4.6 no\0")]
    assert ask(daemon, "later") == [("y", b"450 4.7.100 100%% of later@rcpt.example waits\0")]
    assert ask(daemon, "no") == [("y", b"554 5.7.1 no, never\0")]
    assert ask(daemon, "no", "later") == [("y", b"450 4.7.100 100%% of later@rcpt.example waits\0")]


def test_what_should_wait_for_some_recipients_passes_and_what_is_refused_for_some_is_held(daemon):
    (letter, data), final = ask(daemon, "busy", "b")
    assert (letter, final) == ("h", ("c", b"")) and data.startswith(b"X-Breakwater\0 act=tag; rule=busy; ")
    assert ask(daemon, "never", "b") == [("-", b"<never@rcpt.example>\0"), ("c", b"")]
    assert ask(daemon, "busy", "held-both")[-1] == ("c", b"")
    assert ask(daemon, "busy", "never")[-1][1].startswith(b"451 ")


def test_a_tag_is_one_header(daemon):
    (letter, data), final = ask(daemon, "tagged")
    assert letter == "h" and final == ("c", b"")
    assert data.startswith(b"X-Breakwater\0 act=tag; ") and data.endswith(b"\0") and b"\r" not in data and b"\n" not in data


def test_the_release_header_is_always_stripped(daemon, tmp_path):
    extra = "X-Breakwater-Release: a\nx-breakwater-release: b\n"
    strip = [("m", struct.pack(">I", i) + b"X-Breakwater-Release\0\0") for i in (2, 1)]
    assert ask(daemon, "b", extra=extra) == strip + [("c", b"")]
    for mode in ("monitor", "bypass"):
        directory = tmp_path / mode
        directory.mkdir()
        other = start(directory, mode=mode)
        try:
            assert ask(other, "held-7", extra=extra) == strip + [("c", b"")]
            assert ask(other, "tagged") == [("c", b"")]
        finally:
            assert other.stop() == 0


# ---- sessions ----

def test_many_messages_in_one_session_and_nothing_of_one_in_the_next(daemon):
    with Peer(daemon.port) as p:
        p.begin()
        for recipient, final in [("held-8", "d"), ("b", "c"), ("busy", "y"), ("c", "c"), ("tagged", "c"), ("never", "y"), ("b", "c")]:
            p.send(macros("M", i=f"ID{recipient}") + frame("M", strings(SENDER)) + frame("R", strings("<held-9@rcpt.example>"))
                   + frame("T") + frame("L", strings("X-Breakwater-Release", " x")) + frame("A"))
            replies = send(p, recipient)
            assert replies[-1][0] == final
            assert not [r for r in replies if r[0] in "m-"]
        assert p.silent()
    assert "held-9@" not in daemon.ctl("held")


def test_quit_closes_and_new_connection_stays(daemon):
    with Peer(daemon.port) as p:
        p.begin()
        assert send(p, "b") == [("c", b"")]
        p.send(frame("K"))
        assert p.silent()
        p.command(connect("other.example", "2001:db8::1"))
        assert send(p, "c") == [("c", b"")]
        p.send(frame("Q"))
        assert p.closed()


def session():
    """Two messages and an aborted one between, as bytes."""
    header, body = content("X-Breakwater-Release: x\n")
    return (offer() + connect() + frame("H", strings("h.example")) + message(SENDER, ["<b@rcpt.example>"], header, body, "4T7")
            + frame("M", strings(SENDER)) + frame("R", strings("<c@rcpt.example>")) + frame("A")
            + message("<>", ["<tagged@rcpt.example>"], header, body) + frame("Q"))


def answers(port, data, piece=None, cut=None):
    with Peer(port) as p:
        if cut:
            p.send(data[:cut])
            p.send(data[cut:])
        else:
            p.send(data, piece)
        assert p.closed()
        return [(letter, b"" if letter == "h" else rest) for letter, rest in iter_frames(p)]


def iter_frames(p):
    while p.buffer:
        yield p.read()


def test_split_at_any_byte_the_answers_are_the_same(daemon):
    data = session()
    whole = answers(daemon.port, data)
    assert "".join(a[0] for a in whole) == "Omcmhc"
    assert answers(daemon.port, data, piece=1) == whole
    for cut in range(1, len(data), 3):
        assert answers(daemon.port, data, cut=cut) == whole


def test_hung_up_after_every_byte_leaves_nothing(daemon):
    data = session()
    assert until(lambda: daemon.ctl("held") is not None)
    before = descriptors(daemon)
    for cut in range(len(data) + 1):
        with Peer(daemon.port) as p:
            p.send(data[:cut])
    assert until(lambda: descriptors(daemon) <= before)
    assert ask(daemon, "b") == [("c", b"")]


GARBAGE = {
    "length 0": b"\0\0\0\0",
    "length 2^32-1": b"\xff\xff\xff\xff",
    "telnet": b"EHLO x\r\n",
    "65536 bytes of body": b"\0\1\0\1B" + b"x" * 65536,
    "an unknown command": frame("Z"),
    "NUL as a command": frame("\0"),
    "a second offer": offer(),
    "a second connect": connect(),
    "RCPT without MAIL": frame("R", strings("<b@rcpt.example>")),
    "end of message without one": frame("E"),
    "MAIL without argument": frame("M"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_closes_the_session_only(daemon, what):
    with Peer(daemon.port) as other, Peer(daemon.port) as p:
        other.begin()
        p.begin()
        try:
            p.send(GARBAGE[what])
        except Closed:
            pass
        assert p.closed()
        assert send(other, "b") == [("c", b"")]


def test_floods_are_taken_in_flat_memory(daemon):
    with Peer(daemon.port, timeout=60) as p:
        p.begin()
        send(p, "b")
        before = rss_kb(daemon)
        p.send(frame("A") * 100000)
        p.send(macros("M", x="y" * 60000) * 200)
        p.send(frame("M", strings(*["<a@b>"] + ["X=1"] * 5000)))
        p.send(frame("A"))
        p.send(frame("M", strings("<a@b>")) + frame("R", strings("<b@rcpt.example>")) + frame("T") + frame("N"))
        p.send(frame("B", b"x" * 65535) * 300)
        p.send(frame("B", b"x") * 100000 + frame("E"))
        assert p.verdict()[-1][0] == "c"
        assert send(p, "b") == [("c", b"")]
        assert grown_kb(daemon, before) < 40000


def test_a_large_message_passes(daemon):
    with Peer(daemon.port, timeout=60) as p:
        p.begin()
        header, _ = content()
        body = b"".join(b"line %d of a large message\r\n" % i for i in range(300000))
        assert p.mail(SENDER, ["<b@rcpt.example>"], header, body) == [("c", b"")]


def test_a_field_of_300_kb_is_taken(daemon):
    with Peer(daemon.port) as p:
        p.begin()
        to = ",\n ".join(f"<user{i}@rcpt.example>" for i in range(12000))
        header, body = content(f"Cc: {to}\n")
        assert p.mail(SENDER, ["<b@rcpt.example>"], header, body) == [("c", b"")]


def test_a_peer_that_never_reads_is_not_answered_without_end(daemon):
    with Peer(daemon.port) as p:
        p.begin()
        before = rss_kb(daemon)
        p.s.settimeout(0.5)
        header, body = content()
        try:
            while True:  # until neither side takes more
                p.send(message(SENDER, [f"<held-{i:0500d}@rcpt.example>" for i in range(20)] + ["<b@rcpt.example>"], header, body))
                if p.s.fileno() < 0:
                    break
                if grown_kb(daemon, before) > 60000:
                    pytest.fail("memory grows for a peer that does not read")
        except (TimeoutError, OSError):
            pass
    assert ask(daemon, "b") == [("c", b"")]


def test_idle_sessions_cost_little(daemon):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(1000, soft - 200)
    peers = []
    try:
        before = rss_kb(daemon)
        for _ in range(many):
            p = Peer(daemon.port)
            p.begin()
            assert send(p, "b") == [("c", b"")]
            peers.append(p)
        assert grown_kb(daemon, before) < 12 * many
    finally:
        for p in peers:
            p.close()


# ---- stopping ----

def test_stopping_ends_idle_sessions_and_finishes_messages(tmp_path):
    d = start(tmp_path)
    with Peer(d.port) as idle, Peer(d.port) as p:
        idle.begin()
        p.begin()
        header, body = content()
        data = message(SENDER, ["<held-10@rcpt.example>"], header, body)
        p.send(data[:-5])
        assert send(idle, "b") == [("c", b"")]  # the daemon has read the other's bytes by now
        began = time.monotonic()
        d.process.send_signal(signal.SIGTERM)
        assert idle.closed()
        p.send(data[-5:])
        assert p.verdict() == [("d", b"")]
        assert p.closed()
        assert d.process.wait(10) == 0
        assert time.monotonic() - began < 8
    d.start()
    try:
        assert "held-10@rcpt.example" in d.ctl("held")
    finally:
        assert d.stop() == 0


# ---- waiting for the disk ----

@pytest.fixture
def slow_disk(tmp_path):
    """Starts a daemon whose holds take so many ms: slow_disk(ms, deadline)."""
    if not os.path.exists(f"{FAILPOINTS}/breakwaterd"):
        pytest.skip("needs a build with failpoints: make BUILD=build/failpoint EXTRA=-DBREAKWATER_FAILPOINTS")
    daemons = []

    def begin(ms, deadline):
        daemons.append(start(tmp_path, build=FAILPOINTS, hold=f'deadline = "{deadline}"',
                             env={"BREAKWATER_FAILPOINT": f"put.mail:delay={ms}"}))
        return daemons[-1]
    yield begin
    for d in daemons:
        assert d.stop() == 0


def test_a_slow_hold_is_announced_by_progress_then_answered_once(slow_disk):
    d = slow_disk(6000, "20s")
    with Peer(d.port, timeout=20) as p:
        p.begin()
        assert send(p, "held-11") == [("p", b""), ("d", b"")]
        assert send(p, "b") == [("c", b"")]
    assert "held-11@" in d.ctl("held")


def test_a_hold_that_is_not_durable_in_time_passes_and_is_removed(slow_disk):
    d = slow_disk(1500, "1s")
    with Peer(d.port, timeout=20) as p:
        p.begin()
        replies = send(p, "held-12")
        assert [r[0] for r in replies] == ["h", "c"] and b"act=hold-failed" in replies[0][1]
        assert send(p, "held-13") == [("d", b"")]  # comes after the late one has been committed
        assert p.silent()
    assert until(lambda: "held-12@" not in d.ctl("held"))
    assert "held-13@" in d.ctl("held")


def test_stopping_before_a_late_hold_is_through_takes_it_out_too(slow_disk):
    d = slow_disk(2500, "1s")
    with Peer(d.port, timeout=20) as p:
        p.begin()
        assert send(p, "held-16")[-1] == ("c", b"")
    assert d.stop() == 0
    d.start({"BREAKWATER_FAILPOINT": ""})
    assert "held-16@" not in d.ctl("held")


def test_an_mta_that_leaves_while_we_hold_gets_no_reply_and_disturbs_nobody(slow_disk):
    d = slow_disk(1500, "10s")
    with Peer(d.port) as other:
        other.begin()
        with Peer(d.port) as p:
            p.begin()
            header, body = content()
            p.send(message(SENDER, ["<held-14@rcpt.example>"], header, body))
            assert p.silent()
        assert send(other, "b") == [("c", b"")]
        assert send(other, "held-15") == [("d", b"")]
    assert "held-15@" in d.ctl("held")


# ---- other implementations of the MTA's side ----

def test_postfix_agrees(daemon, tmp_path_factory):
    missing = private_postfix.reason_missing()
    if missing:
        pytest.skip(missing)
    boxes = [f"{name}@rcpt.example" for name in ("pf", "held-pf", "tagged", "busy")]
    directory = tempfile.mkdtemp(prefix="bw-", dir="/tmp")  # Postfix's users must get in
    postfix = private_postfix.Postfix(directory, boxes, milter=daemon.milter)
    try:
        def give(*names, extra=""):
            header, body = content(extra)
            with smtplib.SMTP("127.0.0.1", postfix.port, timeout=20) as s:
                s.sendmail("someone@sender.example", [f"{n}@rcpt.example" for n in names], f"{header}\n{body}")

        def box(name):
            return sorted(open(f, newline="").read() for f in glob.glob(f"{directory}/mail/rcpt.example/{name}/new/*"))

        give("pf", extra="X-Breakwater-Release: junk\n")
        give("pf", "held-pf")
        give("held-pf")
        give("tagged")
        with pytest.raises(smtplib.SMTPDataError, match="50% a question"):
            give("busy")
        assert until(lambda: len(box("pf")) == 2 and len(box("tagged")) == 1, 20)
        assert not [m for m in box("pf") if "X-Breakwater" in m]
        assert "\nX-Breakwater: act=tag; " in box("tagged")[0]
        assert not box("held-pf") and not box("busy")
        assert daemon.ctl("held", "--rcpt", "held-pf@rcpt.example").count("held-pf@") == 2
    finally:
        postfix.stop()
        shutil.rmtree(directory, ignore_errors=True)



@pytest.mark.skipif(not shutil.which("miltertest"), reason="miltertest is not installed")
def test_miltertest_agrees(daemon):
    p = subprocess.run(["miltertest", "-s", f"{HERE}/milter.lua", "-D", f"socket=inet:{daemon.port}@127.0.0.1"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert p.returncode == 0, p.stdout.decode()
