"""breakwaterd behind a real Postfix: what clients are told, what lies in the mailboxes, what the hold queue has.

One private Postfix serves all tests (it takes a second to start); every test starts its own breakwaterd on the port
that Postfix asks, and uses mailboxes nobody else uses. Copies that are held by name go to held-*; everything else is
judged by the rules breakwater ships with.
"""
import base64
import http.client
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

import pytest

from daemon import Daemon, FAILPOINTS, ROOT, free_port
from private_postfix import Postfix, PostfixSession, reason_missing
from test_release import Sink, until

sys.path.insert(0, os.path.join(ROOT, "tests", "storm"))
from demo import send_all, split  # noqa: E402
from shropshire import Storm  # noqa: E402

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))

failpoints = pytest.mark.skipif(not os.path.exists(f"{FAILPOINTS}/breakwaterd"),
                                reason="no build with failpoints (make check makes it)")
NAMED = 'rule named { when recipient.address matches "held-*" do hold reason "by name" }\n'
CLIENT = ("relay.sender.example", "192.0.2.25")
SENDER = "someone@sender.example"
STORM = Storm(630)


# ---- the places ----

class Place:
    """A Postfix, the port where it looks for breakwaterd, and mailboxes not used yet."""

    def __init__(self, addresses=(), settings=(), boxes=200):
        self.directory = tempfile.mkdtemp(prefix="bw-", dir="/tmp")  # Postfix's users must get in
        os.chmod(self.directory, 0o755)
        self.milter_port = free_port()
        numbers = range(boxes)
        self.free = {kind: [f"{kind}-{i}@rcpt{i % 3}.example" for i in numbers] for kind in ("user", "held")}
        everybody = [a for kind in self.free.values() for a in kind]
        milter = f"inet:127.0.0.1:{self.milter_port}"
        self.postfix = Postfix(self.directory, everybody + list(addresses), milter=milter,
                               settings=["notify_classes ="] + [line.replace("MILTER", milter) for line in settings])
        self.sessions = []

    def boxes(self, n, kind="user"):
        taken, self.free[kind] = self.free[kind][:n], self.free[kind][n:]
        assert len(taken) == n
        return taken

    def in_domain(self, number, n, kind):
        taken = [a for a in self.free[kind] if a.endswith(f"@rcpt{number}.example")][:n]
        self.free[kind] = [a for a in self.free[kind] if a not in taken]
        assert len(taken) == n
        return taken

    def session(self, plain=False):
        s = PostfixSession(self.postfix.plain_port if plain else self.postfix.port)
        self.sessions.append(s)
        return s

    def mail(self, recipients, data, client=CLIENT, sender=SENDER, plain=False):
        """One message in a session of its own; what Postfix said to the end of the data."""
        s = PostfixSession(self.postfix.plain_port if plain else self.postfix.port)
        said = s.replies(*client, sender, recipients, data)
        s.close()
        assert [code for code, _ in said[:-1]] == [250] * (len(recipients) + 1)
        return said[-1]

    def mailbox(self, address):
        assert self.postfix.wait_idle()
        return self.postfix.mailbox(address)

    def count(self, addresses):
        assert self.postfix.wait_idle()
        return [len(self.postfix.mailbox(a)) for a in addresses]

    def stop(self):
        self.postfix.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_place():
    p = Place(STORM.recipients)
    yield p
    p.stop()


@pytest.fixture
def place(shared_place):
    yield shared_place
    for s in shared_place.sessions:
        s.close()
    shared_place.sessions = []


@pytest.fixture(scope="module")
def hasty_place():
    """A Postfix that waits two seconds for its milter, and that may be stopped and started."""
    wait = "connect_timeout=2s, command_timeout=2s, content_timeout=2s, default_action=accept"
    p = Place(settings=["smtpd_milters = { MILTER, %s }" % wait])
    yield p
    p.stop()


@pytest.fixture
def guard(tmp_path):
    """Starts a daemon for a place: guard(place, ...)."""
    daemons = []

    def begin(place, mode="enforce", **more):
        shipped = open(f"{ROOT}/contrib/policy.conf").read()
        directory = tmp_path / str(len(daemons))
        directory.mkdir()
        (directory / "policy.conf").write_text(NAMED + shipped)
        more.setdefault("release_to", f"127.0.0.1:{place.postfix.port}")
        daemons.append(Daemon(str(directory), mode=mode, port=place.milter_port, release="rate = 1000",
                              more=f'policy {{ file = "{directory}/policy.conf" }}', **more))
        return daemons[-1]

    yield begin
    for d in daemons:
        assert d.stop() == 0, d.log()


# ---- the mail ----

def get(daemon, path):
    """The bytes breakwaterd's control socket has for this path."""
    c = http.client.HTTPConnection("localhost")
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.connect(f"{daemon.dir}/control")
    c.request("GET", path)
    r = c.getresponse()
    data = r.read()
    c.close()
    assert r.status == 200, (path, r.status, data)
    return data


def held_bytes(daemon, copy):
    return get(daemon, f"/api/v1/copies/{copy}/message")


def copies(daemon, state="held"):
    rows = daemon.json("held", "--state", state, "--limit", "100000")
    return [{**r, "rcpt": r["rcpt"].strip("<>")} for r in rows]


def received(data):
    """What a mailbox has, as lines that end in CR LF, without the fields delivery put on top."""
    head, _, rest = data.replace(b"\n", b"\r\n").partition(b"\r\nReceived: ")
    assert all(line.startswith((b"Return-Path: ", b"X-Original-To: ", b"Delivered-To: ")) for line in head.split(b"\r\n"))
    fields = (b"Received: " + rest).split(b"\r\n")
    end = next(i for i, line in enumerate(fields) if i and line[:1] not in (b"\t", b" "))
    return b"\r\n".join(fields[end:])


def letter(subject, body="One line.\r\n", extra=""):
    return (f"Message-ID: <{subject.replace(' ', '.')}@sender.example>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
            f"From: Someone <{SENDER}>\r\nTo: you@rcpt0.example\r\nSubject: {subject}\r\n{extra}\r\n{body}").encode("latin-1")


class Small(Storm):
    """A storm among these people: first() is the message, again(n) a copy by the n-th faulty server."""

    def __init__(self, people, seed):
        super().__init__(len(people) + 20, seed, body_bytes=900, missing=0)
        self.recipients = people
        self.message_id = f"<storm.{seed}@promo.example>"
        self.seconds = 0
        self.chain = self.first_chain()

    def first(self):
        return self.ORIGIN, self.data(self.chain)

    def again(self, n, extra=""):
        """(client, message)"""
        self.seconds += 900
        faulty = self.faulty[n % len(self.faulty)]
        mailbox = self.delivered_chain(faulty, self.chain, self.ORIGIN, 5)
        host, address, chain = self.resent(faulty, mailbox, self.seconds)
        return (host, address), extra.encode() + self.data(chain)


def raging(place, people, seed):
    """A storm of which these people have the first copy."""
    storm = Small(people, seed)
    client, data = storm.first()
    assert place.mail(people, data, client)[0] == 250
    return storm


# ---- monitor mode ----

COMPLETE = (b"Message-ID: <%d@sender.example>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: <someone@sender.example>\r\n"
            b"To: you@rcpt0.example\r\n")
VARIED = {
    "plain": b"Subject: plain\r\n\r\nText.\r\n",
    "folded": b"Subject: folded\r\n with a blank\r\n\twith a tab\r\nX-Long:\r\n begins later\r\nX-Bare: a\r\n  \r\n b\r\n\r\nText.\r\n",
    "8 bit": b"Subject: \xfcber \xe2\x82\xac\r\n\r\n\xfc\xe4\xf6 \x80\xff\r\n",
    "long lines": b"Subject: " + b"s" * 3000 + b"\r\n\r\n" + b"x" * 5000 + b"\r\n" + b"y" * 990 + b"\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n.\r\n",
    "empty body": b"Subject: empty body\r\n\r\n",
    "no body": b"Subject: no body\r\n",
    "no blank after the colon": b"Subject:tight\r\nX-Blank : before\r\nX-Two:  two\r\nX-None:\r\n\r\nText.\r\n",
    "trailing blank lines": b"Subject: blank\r\n\r\nText. \t \r\n\r\n\r\n\r\n",
    "not a header": b"Subject: short header\r\nThis is no field.\r\nX-Late: field\r\n\r\nText.\r\n",
    "bare CR and LF, NUL": b"Subject: bytes\r\n\r\nbare\rCR\r\nbare\nLF\r\nNUL \0 here\r\n",
    "incomplete addresses": b"Cc: root, \"B\" <b>\r\nReply-To: me\r\n\r\nText.\r\n",
    "no header": b"\r\nOnly text.\r\n",
    "many fields": b"".join(b"X-Field-%d: %d\r\n" % (i, i) for i in range(900)) + b"\r\nText.\r\n",
    "multipart": b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\npreamble\r\n--=_b\r\n"
                 b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=3Db=\r\n\r\n"
                 b"--=_b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                 + base64.encodebytes(bytes(range(256)) * 40).replace(b"\n", b"\r\n") + b"--=_b--\r\nepilogue",
}


def without_marks(data):
    """A mailbox's message without what is new in every delivery: the queue id and the date of Postfix's own line."""
    line = rb"(\n\tby mx\.gateway\.example \(Postfix\) with E?SMTP id )\w+((?:\n\tfor <[^>]*>)?);\s[^\n]+ \(UTC\)\n"
    changed, n = re.subn(line, rb"\1ID\2; DATE\n", data, count=1)
    assert n == 1, data[:500]
    return changed


def everything_sent(place, plain, messages):
    """The replies, and the mailboxes, which are emptied."""
    said = []
    s = place.session(plain)
    for client, sender, people, data in messages:
        said += [(code, re.sub(r"queued as \w+", "queued", text)) for code, text in s.replies(*client, sender, people, data)]
    boxes = {}
    for a in sorted({a for m in messages for a in m[2]}):
        boxes[a] = sorted(without_marks(m) for m in place.mailbox(a))
        user, _, domain = a.partition("@")
        shutil.rmtree(f"{place.directory}/mail/{domain}/{user}", ignore_errors=True)
    return said, boxes


def test_monitor_changes_no_byte_and_no_reply(place, guard):
    d = guard(place, mode="monitor")
    one, two = place.boxes(1) + place.boxes(1, "held")
    many = place.boxes(40)
    messages = [(CLIENT, SENDER, [one, two], COMPLETE % i + data) for i, data in enumerate(VARIED.values())]
    messages[list(VARIED).index("no header")] = (CLIENT, "", [one], VARIED["no header"])
    messages.append((CLIENT, SENDER, many + [one, "nobody@rcpt0.example"], letter("to many")))
    storm = Small(many[:8], 1)
    storm_mail = [storm.first()] + [storm.again(n) for n in range(6)]
    messages += [(client, "sales@promo.example", many[:8], data) for client, data in storm_mail]
    plain = everything_sent(place, True, messages)
    assert d.json("status")[0]["counters"]["received"] == 0
    said, boxes = everything_sent(place, False, messages)
    assert said == plain[0]
    for a in boxes:
        assert boxes[a] == plain[1][a]
    assert sum(len(m) for m in plain[1].values()) == 2 * len(VARIED) - 1 + 41 + 7 * 8
    counters = d.json("status")[0]["counters"]
    assert counters["advised"]["held"] >= 8 * 5 + len(VARIED) - 1 and counters["held"] == counters["tagged"] == 0
    assert counters["received"] == counters["passed"] == 2 * len(VARIED) - 1 + 41 + 7 * 8
    assert copies(d) == []


# ---- enforce ----

def test_a_copy_by_a_detour_is_held_for_those_who_have_it_and_delivered_to_the_one_who_has_not(place, guard):
    d = guard(place)
    people = place.boxes(5)
    late = people[2]
    storm = Small(people, 2)
    client, data = storm.first()
    assert place.mail([p for p in people if p != late], data, client)[0] == 250
    client, data = storm.again(0)
    reply = place.mail(people, data, client)
    assert reply[0] == 250 and "queued as" in reply[1]
    assert place.count(people) == [1] * 5
    assert received(place.mailbox(late)[0]) == data
    assert sorted(c["rcpt"] for c in copies(d)) == sorted(set(people) - {late})
    assert len({c["mail"] for c in copies(d)}) == 1


def test_a_copy_held_for_all_is_taken_listed_and_kept_as_it_came(place, guard):
    d = guard(place)
    people = place.boxes(4)
    storm = raging(place, people, 3)
    client, data = storm.again(1)
    reply = place.mail(people, data, client)
    assert reply[0] == 250 and "queued as" in reply[1]
    assert place.count(people) == [1] * 4
    held = copies(d)
    assert sorted(c["rcpt"] for c in held) == sorted(people)
    assert [held_bytes(d, c["id"]) for c in held] == [data] * 4
    listed = d.ctl("held")
    assert all(c["id"] in listed and c["rcpt"] in listed for c in held)


def test_whatever_was_held_arrives_once_and_as_it_came(place, guard):
    d = guard(place)
    names = [n for n in VARIED if n not in ("bare CR and LF, NUL", "no header", "not a header")]
    people = place.boxes(len(names), "held")
    sent = {}
    for i, (name, person) in enumerate(zip(names, people)):
        sent[person] = COMPLETE % (1000 + i) + VARIED[name]
        assert place.mail([person], sent[person])[0] == 250
    assert place.count(people) == [0] * len(people)
    held = {c["rcpt"]: c["id"] for c in copies(d)}
    # A mail always ends with a line end, header and body are always parted by an empty line, and Postfix parts a field
    # at its colon.
    as_is = {p: (data if data.endswith(b"\r\n") else data + b"\r\n").replace(b"X-Blank :", b"X-Blank:")
             for p, data in sent.items()}
    as_is = {p: data if b"\r\n\r\n" in data else data + b"\r\n" for p, data in as_is.items()}
    assert {p: held_bytes(d, held[p]) for p in people} == as_is
    d.ctl("release", *held.values())
    until(lambda: len(copies(d, "released")) == len(people))
    boxes = {p: place.mailbox(p) for p in people}
    assert {p: len(b) for p, b in boxes.items()} == {p: 1 for p in people}
    assert {p: received(b[0]) for p, b in boxes.items()} == as_is
    assert copies(d) == [] and d.json("status")[0]["counters"]["released_through"] == len(people)


def test_released_by_id_it_is_delivered_once_and_not_held_again(place, guard):
    d = guard(place)
    people = place.boxes(3)
    storm = raging(place, people, 4)
    client, data = storm.again(0)
    assert place.mail(people, data, client)[0] == 250
    chosen = [c for c in copies(d) if c["rcpt"] == people[1]]
    d.ctl("release", chosen[0]["id"])
    until(lambda: len(copies(d, "released")) == 1)
    assert place.count(people) == [1, 2, 1]
    assert data in [received(m) for m in place.mailbox(people[1])]
    assert not [m for m in place.mailbox(people[1]) if b"X-Breakwater" in m]
    assert len(copies(d)) == 2
    d.ctl("release", *[c["id"] for c in copies(d)])
    until(lambda: len(copies(d, "released")) == 3)
    assert place.count(people) == [2, 2, 2] and copies(d) == []


@failpoints
def test_released_while_postfix_is_down_it_arrives_when_postfix_is_back(hasty_place, guard):
    place = hasty_place
    d = guard(place, build=FAILPOINTS, env={"BREAKWATER_RELEASE_PAUSE": "100"})
    person, = place.boxes(1, "held")
    assert place.mail([person], letter("down"))[0] == 250
    place.postfix.stop()
    try:
        d.ctl("release", copies(d)[0]["id"])
        until(lambda: [c for c in copies(d, "releasing") if c["attempts"] > 1 and c["reply"]])
    finally:
        place.postfix.start()
    until(lambda: len(copies(d, "released")) == 1)
    assert [received(m) for m in place.mailbox(person)] == [letter("down")]


ODD = ["HELD-{}@RCPT0.EXAMPLE", "Held-{}@rcpt0.Example", "held-\\{}@rcpt0.example", " <held-{}@rcpt0.example>",
       "<held-{}@rcpt0.example> NOTIFY=NEVER ORCPT=rfc822;x+2By@other.example", "held-{}@rcpt0.example."]


def test_however_a_recipient_is_written_his_copy_is_held_and_released_and_nobody_elses(place, guard):
    d = guard(place)
    user, *held = place.boxes(1) + place.in_domain(0, len(ODD), "held")
    s = place.session()
    for form, box in zip(ODD, held):
        s.connect(*CLIENT)
        path = form.format(box.partition("@")[0].partition("-")[2])
        s.expect(s.smtp.mail(SENDER), 250)
        for r in (user, path):
            s.expect(s.smtp.docmd("RCPT", f"TO:{r}" if "<" in r else f"TO:<{r}>"), 250)
        s.expect(s.smtp.data(letter(f"for {box}")), 250)
    assert place.count([user] + held) == [len(ODD)] + [0] * len(ODD)
    assert len(copies(d)) == len(ODD)
    d.ctl("release", *[c["id"] for c in copies(d)])
    until(lambda: len(copies(d, "released")) == len(ODD))
    assert place.count([user] + held) == [len(ODD)] + [1] * len(ODD)
    assert [received(m) for b in held for m in place.mailbox(b)] == [letter(f"for {b}") for b in held]


# ---- the release header ----

@pytest.fixture
def stolen(place, guard, tmp_path):
    """A daemon; the people whose copies of a letter were released, to a server that is not ours; the letter; its header."""
    people = place.boxes(3, "held")
    (tmp_path / "sink").mkdir()
    sink = Sink(f"{tmp_path}/sink")
    try:
        d = guard(place, release_to=sink.address)
        assert place.mail(people, letter("stolen"))[0] == 250
        d.ctl("release", *[c["id"] for c in copies(d)])
        until(lambda: len(copies(d, "released")) == 3)
    finally:
        sink.stop()
    line, _, rest = (tmp_path / "sink/mail/00000001.eml").read_bytes().partition(b"\r\n")
    assert line.startswith(b"X-Breakwater-Release: v1; ") and rest == letter("stolen")
    return d, people, rest, line + b"\r\n"


def test_a_release_header_lets_nothing_pass_but_what_was_released_once(place, stolen):
    d, people, data, line = stolen
    fresh, *victims = place.boxes(4)
    storm = raging(place, victims, 5)
    client, copy = storm.again(1)
    forged = re.sub(rb"; (.)([0-9a-f]+)\r", lambda m: b"; " + (b"0" if m[1] != b"0" else b"1") + m[2] + b"\r", line)
    assert forged != line
    attempts = [
        ("forged", forged + data, people),
        ("of another attempt", line.replace(b"; 1; ", b"; 2; ") + data, people),
        ("good for longer", re.sub(rb"; (\d{13});", rb"; 9\1;", line) + data, people),
        ("the forged one first", forged + line + data, people),
        ("not a token", b"X-Breakwater-Release: yes\r\n" + data, people),
        ("in other letters, empty", b"x-breakwater-RELEASE:\r\n" + data, people),
        ("on a copy of a storm", line + copy, victims),
    ]
    for i, (name, message, to) in enumerate(attempts):
        assert place.mail(to, message, client)[0] == 250
        assert len(copies(d)) == 3 * i + 3, name
    # With somebody who was not among the recipients of the release: she gets her own first copy, nobody else anything.
    assert place.mail(people + [fresh], line + data)[0] == 250
    assert place.count(people + [fresh] + victims) == [0, 0, 0, 1, 1, 1, 1]
    assert [received(m) for m in place.mailbox(fresh)] == [data]
    # The token itself is still good, once.
    held = len(copies(d))
    assert place.mail(people, line + data)[0] == 250
    assert place.count(people) == [1, 1, 1] and len(copies(d)) == held
    assert place.mail(people, line + data)[0] == 250
    assert place.count(people) == [1, 1, 1] and len(copies(d)) == held + 3
    assert [received(m) for p in people for m in place.mailbox(p)] == [data] * 3


def test_what_was_held_with_a_forged_release_header_is_released_without_it(place, guard):
    d = guard(place)
    person, = place.boxes(1, "held")
    forged = b"X-Breakwater-Release: v1; AAAAAAAAAAAAA; 1; 1795234534598; 00112233445566778899aabbccddeeff\r\n"
    assert place.mail([person], forged + letter("forged"))[0] == 250
    copy, = copies(d)
    d.ctl("release", copy["id"])
    until(lambda: len(copies(d, "released")) == 1)
    assert [received(m) for m in place.mailbox(person)] == [letter("forged")]


def test_monitor_takes_release_headers_out_too(place, guard):
    guard(place, mode="monitor")
    person, = place.boxes(1)
    fields = b"X-Breakwater-Release: v1; AAAA\r\nX-Other: stays\r\nx-breakwater-release:\r\n folded\r\n"
    assert place.mail([person], fields + letter("marked"))[0] == 250
    assert [received(m) for m in place.mailbox(person)] == [b"X-Other: stays\r\n" + letter("marked")]


# ---- breakwaterd in trouble ----

def test_mail_flows_while_breakwaterd_is_stopped_killed_or_hangs(hasty_place, guard):
    place = hasty_place
    d = guard(place)
    person, = place.boxes(1, "held")

    def offer(subject):
        assert place.mail([person], letter(subject))[0] == 250
        return len(place.mailbox(person))
    assert offer("running") == 0
    s = place.session()
    s.send(*CLIENT, SENDER, [person], letter("running, session stays"))
    assert d.stop() == 0
    assert offer("stopped") == 1
    s.send(*CLIENT, SENDER, [person], letter("stopped, same session"))
    d.start()
    assert offer("running again") == 2
    s = place.session()
    s.send(*CLIENT, SENDER, [person], letter("held in a session"))
    d.kill()
    s.send(*CLIENT, SENDER, [person], letter("killed, same session"))
    assert offer("killed") == 4
    d.start()
    d.process.send_signal(signal.SIGSTOP)
    try:
        assert offer("hanging") == 5
    finally:
        d.process.send_signal(signal.SIGCONT)
    assert offer("alive again") == 5
    assert len(copies(d)) == 5


class Traffic:
    """Threads that send a storm until told to stop, and remember what Postfix took."""

    def __init__(self, place, storm, threads):
        self.place, self.storm, self.threads = place, storm, threads
        self.lock = threading.Lock()
        self.number, self.taken, self.refused, self.failures = 0, {}, 0, []
        self.end = threading.Event()
        self.pool = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(threads)]
        for t in self.pool:
            t.start()

    def next(self, chance):
        with self.lock:
            self.number += 1
            n = self.number
            client, data = self.storm.again(n, f"X-Number: {n}\r\n")
        return n, client, data, chance.sample(self.storm.recipients, 5)

    def run(self, seed):
        chance = random.Random(seed)
        s = PostfixSession(self.place.postfix.port)
        try:
            while not self.end.is_set():
                n, client, data, people = self.next(chance)
                code = s.replies(*client, "sales@promo.example", people, data)[-1][0]
                if code == 250:
                    self.taken[n] = people
                else:
                    self.refused += 1
        except Exception as e:
            self.failures.append(e)
        s.close()

    def stop(self):
        self.end.set()
        for t in self.pool:
            t.join()
        assert not self.failures, self.failures


def number(data):
    return int(re.search(rb"^X-Number: (\d+)\r?$", data, re.M)[1])


def test_killed_in_the_middle_of_a_storm_nothing_taken_is_lost(place, guard):
    d = guard(place)
    people = place.boxes(12)
    chance = random.Random(8)
    threads, crashes = 3, 6
    traffic = Traffic(place, Small(people, 8), threads)
    for _ in range(crashes):
        time.sleep(chance.uniform(0.1, 0.7))
        d.kill()
        time.sleep(chance.uniform(0, 0.1))
        d.start()
    end = time.monotonic() + 30  # a slow build spends its time starting again: until enough was held
    while len({c["mail"] for c in copies(d)}) <= 50 and time.monotonic() < end:
        time.sleep(0.1)
    traffic.stop()
    where = {}
    for p in people:
        for m in place.mailbox(p):
            where.setdefault((number(m), p), []).append("mailbox")
    mails = {}
    for c in copies(d):
        if c["mail"] not in mails:
            mails[c["mail"]] = number(held_bytes(d, c["id"]))
        where.setdefault((mails[c["mail"]], c["rcpt"]), []).append("held")
    lost = [(n, p) for n, to in traffic.taken.items() for p in to if (n, p) not in where]
    twice = {n for (n, _), places in where.items() if len(places) > 1}
    assert lost == []
    assert max(len(places) for places in where.values()) <= 2
    assert len(twice) <= threads * crashes
    assert len(traffic.taken) > 50 and len(mails) > 50
    assert d.json("status")[0]["counters"]["unaccounted"] == 0


@failpoints
@pytest.mark.parametrize("point,held", [("put.begin", 0), ("put.mail", 0), ("done.before", 1)])
def test_killed_while_it_holds_the_message_is_delivered_whatever_the_queue_has(place, guard, point, held):
    d = guard(place, build=FAILPOINTS, env={"BREAKWATER_FAILPOINT": f"{point}:kill"})
    person, = place.boxes(1, "held")
    assert place.mail([person], letter("in flight"))[0] == 250
    assert d.process.wait(10) == -signal.SIGKILL
    assert place.count([person]) == [1]
    d.start(env={"BREAKWATER_FAILPOINT": ""})
    assert len(copies(d)) == held
    assert place.mail([person], letter("afterwards"))[0] == 250
    assert place.count([person]) == [1] and len(copies(d)) == held + 1


@failpoints
@pytest.mark.parametrize("point", ["put.begin", "content.add", "put.mail", "commit.before"])
def test_what_cannot_be_held_passes_with_a_tag_and_the_next_is_held(place, guard, point):
    d = guard(place, build=FAILPOINTS, env={"BREAKWATER_FAILPOINT": f"{point}:fail,{point}:fail:2"})
    person, = place.boxes(1, "held")
    assert place.mail([person], letter("unlucky"))[0] == 250
    assert place.mail([person], letter("lucky"))[0] == 250
    message, = [received(m) for m in place.mailbox(person)]
    tag = re.search(rb"^X-Breakwater: act=hold-failed; [^\r]*\r\n", message, re.M)[0]
    assert message.replace(tag, b"") == letter("unlucky")
    assert [held_bytes(d, c["id"]) for c in copies(d)] == [letter("lucky")]


# ---- several messages in one session ----

def test_nothing_leaks_from_one_message_to_the_next(place, guard):
    d = guard(place)
    a, b = place.boxes(2)
    x, y = place.boxes(2, "held")
    s = place.session()
    s.connect(*CLIENT)

    def begun(*recipients):
        s.expect(s.smtp.mail(SENDER), 250)
        for r in recipients:
            s.smtp.rcpt(r)
    sent = [
        ([a], letter("1 passes")),
        ([x], letter("2 is held")),
        ([a, b], letter("3 passes")),
        ([y, a], letter("4 is held for one")),
        ([b], b"X-Breakwater-Release: junk\r\n" + letter("5 has a field taken out")),
        ([x, y], letter("6 is held")),
        ([a], letter("7 passes", extra="X-Other: stays\r\n")),
        ([b, x, a, y], letter("8 is held for two")),
        ([a, b], letter("9 passes")),
    ]
    for i, (to, data) in enumerate(sent):
        if i % 3 == 0:
            begun(x, y)  # recipients that must be forgotten
            s.expect(s.smtp.rset(), 250)
        elif i % 3 == 1:
            begun("nobody@rcpt0.example", x)
            s.expect(s.smtp.docmd("EHLO", CLIENT[0]), 250)
        s.send(*CLIENT, SENDER, to, data)
    refused = letter("10 has a recipient whom Postfix refuses")
    assert [r[0] for r in s.replies(*CLIENT, SENDER, [a, "nobody@rcpt0.example"], refused)] == [250, 250, 550, 250]
    s.send(*CLIENT, SENDER, [b], letter("11 passes"))
    sent += [([a], refused), ([b], letter("11 passes"))]

    def clean(data):
        return data.replace(b"X-Breakwater-Release: junk\r\n", b"")
    for box in (a, b):
        assert sorted(received(m) for m in place.mailbox(box)) == sorted(clean(data) for to, data in sent if box in to)
    assert place.count([x, y]) == [0, 0]
    kept = sorted((c["rcpt"], held_bytes(d, c["id"])) for c in copies(d))
    assert kept == sorted((r, data) for to, data in sent for r in to if r in (x, y))


# ---- the storm ----

class Sent:
    sent = 0


def test_the_storm_of_2006(place, guard):
    d = guard(place)
    original, rest = split(STORM, 6000, 90)
    sent = Sent()
    send_all(place, original, 1, sent)
    send_all(place, rest, 4, sent)
    assert sent.sent >= 6000
    reached = [r for r in STORM.recipients if r not in STORM.lost]
    assert place.count(reached) == [1] * 625 and place.count(STORM.lost) == [0] * 5
    status = d.json("status")[0]
    assert status["hold"]["held"] == sent.sent - 625 == len(copies(d)) and status["counters"]["unaccounted"] == 0
    storm, = [s for s in d.json("storms") if s["kind"] == "replication"]
    document = d.json("show", storm["id"])[0]
    named = {c["relay"].partition("[")[0] for c in document["culprits"] if c["named"]}
    assert named == {f.host for f in STORM.faulty}
    assert document["copies"] == sent.sent and document["without"] == 5
    d.ctl("release", "--storm", storm["id"], "--one-per-recipient")
    until(lambda: len(copies(d, "released")) == 5)
    assert place.count(STORM.lost) == [1] * 5 and place.count(reached) == [1] * 625
    assert d.json("status")[0]["hold"]["held"] == sent.sent - 630
    d.ctl("release", "--storm", storm["id"], "--one-per-recipient")
    assert len(copies(d, "released")) == 5 and not copies(d, "releasing")


# ---- large mail, and no room ----

@pytest.mark.parametrize("size", [700_000, 5_000_000], ids=["in memory", "in a file"])
def test_a_large_message_is_held_and_released_byte_for_byte(place, guard, size):
    d = guard(place)
    person, = place.boxes(1, "held")
    text = base64.encodebytes(random.Random(size).randbytes(size * 3 // 4)).replace(b"\n", b"\r\n.").decode()
    data = letter(f"large {size}", text + "\r\n")
    assert place.mail([person], data)[0] == 250
    copy, = copies(d)
    assert held_bytes(d, copy["id"]) == data
    d.ctl("release", copy["id"])
    until(lambda: len(copies(d, "released")) == 1)
    assert [received(m) for m in place.mailbox(person)] == [data]


def test_without_room_first_copies_pass_and_further_ones_wait_a_while(place, guard):
    d = guard(place, hold='max_bytes = "1MB" refuse_max = 3')
    people = place.boxes(3)
    filler, first = place.boxes(2, "held")
    fresh, = place.boxes(1)
    storm = raging(place, people, 12)
    client, data = storm.again(0)
    assert place.mail(people, data, client)[0] == 250
    assert len(copies(d)) == 3
    noise = base64.encodebytes(random.Random(12).randbytes(1_500_000)).replace(b"\n", b"\r\n").decode()
    assert place.mail([filler], letter("fills it", noise))[0] == 250
    until(lambda: d.json("status")[0]["hold"]["full"])
    # Held by name, but nobody has it yet: it passes with a tag.
    assert place.mail([first], letter("has no room"))[0] == 250
    passed, = [received(m) for m in place.mailbox(first)]
    tag = re.search(rb"^X-Breakwater: act=hold-failed; [^\r]*\r\n", passed, re.M)[0]
    assert passed.replace(tag, b"") == letter("has no room")
    # Copies of what everybody has: each is refused for a while, then passed with the same tag.
    refused = (452, "4.3.1 This copy could not be held safely; please try again later")
    client, data = storm.again(1)
    for _ in range(3):
        assert place.mail(people, data, client) == refused
    assert place.count(people) == [1, 1, 1]
    assert place.mail(people, data, client)[0] == 250
    assert place.count(people) == [2, 2, 2]
    client, data = storm.again(2)
    assert place.mail(people, data, client) == refused
    assert sum(b"X-Breakwater: act=hold-failed" in m for m in place.mailbox(people[0])) == 1
    # One among them who has none: all get it.
    client, data = storm.again(5)
    assert place.mail(people + [fresh], data, client)[0] == 250
    assert place.count(people + [fresh]) == [3, 3, 3, 1]
    assert len(copies(d)) == 4
