"""Release: the real daemon between a milter client (milter_peer.py) and a server that takes everything
(sink.c). A released copy is delivered at least once whatever is killed when, at most twice, byte for byte.
"""
import hashlib
import json
import os
import subprocess
import threading
import time

import pytest

from daemon import BUILD, FAILPOINTS, Daemon
from milter_peer import Peer

POLICY = 'rule held { when recipient.address matches "held*@rcpt.example" do hold reason "by name" }\n'
HEADER = "From: Someone <a@sender.example>\r\nSubject: of {n}\r\nMessage-ID: <{n}@sender.example>\r\n"
BODY = "This is message {n}.\r\n.\r\n..\r\n.b\xfccher\r\n\r\nEnd\r\n"
SENDER = "<someone@sender.example>"


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Sink:
    def __init__(self, directory, *rules):
        self.file = f"{directory}/delivered.jsonl"
        args = [a for r in rules for a in ("-r", r)]
        os.makedirs(f"{directory}/mail", exist_ok=True)
        self.process = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.file, "-d", f"{directory}/mail", *args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.address = self.process.stdout.readline().decode().split()[1]

    def deliveries(self):
        with open(self.file) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Place:
    """A daemon that holds what goes to held*, and a sink behind its release door."""

    def __init__(self, directory, *rules, token="no", build=BUILD, env=None):
        self.sink = Sink(directory, *rules)
        with open(f"{directory}/policy.conf", "w") as f:
            f.write(POLICY)
        self.daemon = Daemon(str(directory), release_to=self.sink.address, release=f"token = {token} rate = 1000",
                             more=f'policy {{ file = "{directory}/policy.conf" }}', build=build, env=env)

    def mail(self, n, *names):
        """Sends message n to these; its final reply."""
        with Peer(self.daemon.port) as p:
            p.begin()
            header = HEADER.format(n=n).replace("\r\n", "\n")
            return p.mail(SENDER, [f"<{r}@rcpt.example>" for r in names], header, BODY.format(n=n))

    def copies(self, state):
        rows = self.daemon.json("held", "--state", state, "--limit", "1000")
        return [{**r, "rcpt": r["rcpt"].strip("<>")} for r in rows]

    def release(self, *ids):
        return self.daemon.ctl("release", *ids, check=False)

    def stop(self):
        status = self.daemon.stop()
        self.sink.stop()
        return status


@pytest.fixture
def place(tmp_path):
    places = []

    def make(*rules, **more):
        places.append(Place(tmp_path, *rules, **more))
        return places[-1]

    yield make
    for p in places:
        p.stop()


def digest(n):
    return hashlib.sha256((HEADER.format(n=n) + "\r\n" + BODY.format(n=n)).encode("latin-1")).hexdigest()


def test_released_copies_arrive_as_they_came(place):
    p = place()
    assert p.mail(1, "held-1", "held-2", "held-3")[-1] == ("d", b"")
    ids = {c["rcpt"]: c["id"] for c in p.copies("held")}
    p.release(ids["held-1@rcpt.example"], ids["held-3@rcpt.example"])
    until(lambda: len(p.copies("released")) == 2)
    got = p.sink.deliveries()
    assert sorted(d["rcpt"] for d in got) == ["held-1@rcpt.example", "held-3@rcpt.example"]
    for d in got:
        assert (d["from"], d["n"], d["sha256"], d["stray"], d["breakwater"]) == ("someone@sender.example", 1, digest(1), 0, [])
    assert [c["rcpt"] for c in p.copies("held")] == ["held-2@rcpt.example"]


def test_two_people_release_the_same_copies_and_each_is_sent_once(place):
    p = place()
    for n in range(20):
        p.mail(n, f"held-{n}")
    ids = [c["id"] for c in p.copies("held")]
    assert len(ids) == 20
    people = [threading.Thread(target=p.release, args=order) for order in (ids, ids[::-1], ids)]
    for t in people:
        t.start()
    for t in people:
        t.join()
    until(lambda: len(p.copies("released")) == 20)
    assert sorted(d["rcpt"] for d in p.sink.deliveries()) == sorted(f"held-{n}@rcpt.example" for n in range(20))


def test_what_the_mta_refuses_waits_and_is_shown(place):
    p = place("rcpt:held-1=550 5.1.1 who?", "rcpt:held-2=450 4.2.1 later")
    p.mail(1, "held-1", "held-2", "held-3")
    p.release(*[c["id"] for c in p.copies("held")])
    until(lambda: len(p.copies("released")) == 1)
    until(lambda: all(c.get("reply") for c in p.copies("releasing")))
    replies = {c["rcpt"]: c["reply"] for c in p.copies("releasing")}
    assert replies == {"held-1@rcpt.example": "550 5.1.1 who?", "held-2@rcpt.example": "450 4.2.1 later"}


def released_mail(p, tmp_path):
    """The header and body of the first message in the sink, as a client of the milter sends them."""
    with open(f"{tmp_path}/mail/00000001.eml", newline="", encoding="latin-1") as f:
        header, _, body = f.read().partition("\r\n\r\n")
    return header.replace("\r\n", "\n") + "\n", body


def test_a_released_mail_passes_our_door_once(place, tmp_path):
    p = place(token="yes")
    p.mail(1, "held-1", "held-2")
    p.release(*[c["id"] for c in p.copies("held")])
    until(lambda: len(p.copies("released")) == 2)
    fields = p.sink.deliveries()[0]["breakwater"]
    assert len(fields) == 1 and fields[0].startswith("X-Breakwater-Release: v1; ")
    header, body = released_mail(p, tmp_path)
    recipients = ["<held-1@rcpt.example>", "<held-2@rcpt.example>"]

    def offer(header, *recipients):
        with Peer(p.daemon.port) as peer:
            peer.begin()
            return peer.mail(SENDER, list(recipients), header, body)

    forged = header.replace("v1; ", "v1; A", 1)
    assert offer(forged, *recipients)[-1][0] == "d"  # not a token: judged, held
    assert offer(header, *recipients, "<held-4@rcpt.example>")[-1][0] == "d"  # for others as well: held
    first = offer(header, *recipients)
    assert first[-1] == ("c", b"")
    assert [r for r in first if r[0] == "m"][0][1].endswith(b"X-Breakwater-Release\0\0")  # taken out
    assert offer(header, *recipients)[-1][0] == "d"  # used: judged, held


@pytest.mark.skipif(not os.path.exists(f"{FAILPOINTS}/breakwaterd"), reason="no build with failpoints (make check makes it)")
@pytest.mark.parametrize("point,sent", [("release.attempt", 0), ("release.before_send", 0), ("release.after_250", 1),
                                        ("release.mark", 1), ("release.marked", 1)])
def test_killed_on_the_way_every_copy_arrives_once_or_twice(place, point, sent):
    p = place(build=FAILPOINTS, env={"BREAKWATER_FAILPOINT": f"{point}:kill"})
    p.mail(1, "held-1", "held-2")
    p.release(*[c["id"] for c in p.copies("held")])
    until(lambda: p.daemon.process.poll() is not None)
    assert p.daemon.process.returncode == -9
    assert len(p.sink.deliveries()) == 2 * sent
    p.daemon.start(env={"BREAKWATER_FAILPOINT": ""})
    until(lambda: len(p.copies("released")) == 2)
    for name in ("held-1@rcpt.example", "held-2@rcpt.example"):
        got = [d for d in p.sink.deliveries() if d["rcpt"] == name]
        assert 1 <= len(got) <= 2 and all(d["sha256"] == digest(1) for d in got)
    if point == "release.marked":
        assert len(p.sink.deliveries()) == 2  # durable: never again


@pytest.mark.skipif(not os.path.exists(f"{FAILPOINTS}/breakwaterd"), reason="no build with failpoints (make check makes it)")
@pytest.mark.parametrize("rule", ["connect:1=421 busy", "mail:1=451 later", "dot:1=451 disk", "data:1=close"])
def test_what_was_refused_is_tried_again_by_itself(place, rule):
    p = place(rule, build=FAILPOINTS, env={"BREAKWATER_RELEASE_PAUSE": "100"})
    p.mail(1, "held-1")
    p.release(*[c["id"] for c in p.copies("held")])
    until(lambda: len(p.copies("released")) == 1)
    assert [d["n"] for d in p.sink.deliveries()] == [1]


def test_mail_that_waits_for_a_release_door_which_is_gone_is_said(place):
    p = place("rcpt=450 4.2.1 later", build=FAILPOINTS, env={"BREAKWATER_RELEASE_PAUSE": "100"})
    p.mail(1, "held-1")
    p.release(p.copies("held")[0]["id"])
    until(lambda: p.copies("releasing")[0]["attempts"] > 0)
    p.daemon.stop()
    with open(p.daemon.conf) as f:
        conf = f.read()
    with open(p.daemon.conf, "w") as f:
        f.write(conf.replace(f'to = "{p.sink.address}"', ""))
    p.daemon.start()
    until(lambda: "release.to is not set" in p.daemon.log())
    assert p.release(p.copies("releasing")[0]["id"])[0] == 1
