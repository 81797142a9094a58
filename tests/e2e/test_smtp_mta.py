"""The SMTP door with real mail servers: as Postfix's smtpd_proxy_filter, before a Postfix that is told the client by XCLIENT
or by PROXY, and before an Exim (hosts_proxy). What clients are told, what lies in the mailboxes, whom the servers' logs name.
"""
import os
import re
import shutil
import tempfile

import pytest

import private_exim
import private_postfix
from daemon import free_port
from mixed_mail import normalised, unstuffed
from private_exim import Exim
from private_postfix import Postfix
from smtp_door import CLIENT, SENDER, Door
from smtp_peer import Client
from test_postfix import Small, copies, held_bytes, letter, received
from test_release import until
from test_smtp import SMUGGLED, smuggle, smuggling

needs_postfix = pytest.mark.skipif(private_postfix.reason_missing() is not None, reason=str(private_postfix.reason_missing()))
needs_exim = pytest.mark.skipif(private_exim.reason_missing() is not None, reason=str(private_exim.reason_missing()))


def boxes(name, n, kind="user"):
    return [f"{kind}-{name}-{i}@rcpt{i % 3}.example" for i in range(n)]


# What every arrangement is tested with: `name` keeps their mailboxes apart.
NAMES = ["flows", "storm", "mixed", "held", "refused", "smuggled"]
EVERYBODY = [a for name in NAMES for kind in ("user", "held") for a in boxes(name, 20, kind)]


class Arrangement:
    """A mail server and a door before it. client(): a session with whoever stands in front, as CLIENT."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="bw-", dir="/tmp")
        os.chmod(self.directory, 0o755)
        self.server = self.door = None

    def path(self, name):
        os.makedirs(f"{self.directory}/{name}", exist_ok=True)
        os.chmod(f"{self.directory}/{name}", 0o755)
        return f"{self.directory}/{name}"

    def client(self, who=CLIENT):
        return self.door.client(who)

    def mail(self, recipients, data, who=CLIENT):
        with self.client(who) as c:
            said = c.mail(SENDER, recipients, data)
            assert [code for code, _ in said[:-1]] == [250] * (len(recipients) + 1), said
            return said[-1]

    def mailboxes(self, people):
        assert self.server.wait_idle()
        return [self.server.mailbox(p) for p in people]

    def sees(self, client):
        """The line of the server's log that names this client."""
        return self.log_of(client) in self.server.log()

    def stop(self):
        status = self.door.stop() if self.door else 0
        if self.server:
            self.server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert status == 0


class BeforePostfix(Arrangement):
    """Postfix offers XCLIENT to us."""

    def __init__(self):
        super().__init__()
        self.server = Postfix(self.path("postfix"), EVERYBODY, settings=["notify_classes ="])
        self.door = Door(self.path("door"), f"127.0.0.1:{self.server.port}")

    def log_of(self, client):
        return f"client={client[0]}[{client[1]}]"


class BeforePostfixProxy(BeforePostfix):
    """Postfix expects a PROXY header (smtpd_upstream_proxy_protocol = haproxy)."""

    def __init__(self):
        Arrangement.__init__(self)
        self.server = Postfix(self.path("postfix"), EVERYBODY, settings=["notify_classes ="],
                              plain=["smtpd_upstream_proxy_protocol=haproxy", "smtpd_peername_lookup=no"])
        self.door = Door(self.path("door"), f"127.0.0.1:{self.server.plain_port}", section="downstream_proxy = 2")

    def log_of(self, client):
        return f"client=unknown[{client[1]}]"


class ProxyFilter(BeforePostfix):
    """Postfix takes the mail, hands it to us (smtpd_proxy_filter), we hand it back to its second smtpd."""

    def __init__(self):
        Arrangement.__init__(self)
        port = free_port()
        self.server = Postfix(self.path("postfix"), EVERYBODY,
                              settings=["notify_classes =", f"smtpd_proxy_filter = 127.0.0.1:{port}",
                                        "smtpd_authorized_xforward_hosts = 127.0.0.0/8"])
        self.door = Door(self.path("door"), f"127.0.0.1:{self.server.plain_port}", smtp_port=port,
                         release_to=f"127.0.0.1:{port}")

    def log_of(self, client):
        return f"client=unknown[127.0.0.1], orig_client={client[0]}[{client[1]}]"

    def client(self, who=CLIENT):
        c = Client(self.server.port)
        c.ehlo()
        c.xclient(*who)
        return c


class BeforeExim(Arrangement):
    """Exim expects a PROXY header (hosts_proxy)."""

    def __init__(self):
        super().__init__()
        self.server = Exim(self.path("exim"), EVERYBODY)
        self.door = Door(self.path("door"), self.server.address, section="downstream_proxy = 1")

    def log_of(self, client):
        return f"H=({client[0]}) [{client[1]}]"


@pytest.fixture(scope="module", params=[
    pytest.param(ProxyFilter, id="postfix-proxy-filter", marks=needs_postfix),
    pytest.param(BeforePostfix, id="before-postfix-xclient", marks=needs_postfix),
    pytest.param(BeforePostfixProxy, id="before-postfix-proxy", marks=needs_postfix),
    pytest.param(BeforeExim, id="before-exim", marks=needs_exim)])
def place(request):
    a = request.param()
    yield a
    a.stop()


def arrived(data):
    """A mailbox's message without what delivery and the server put on top of what the client sent."""
    if b"\nEnvelope-to:" in data:
        data = re.sub(rb"\A(Return-path|Envelope-to): [^\n]*\n(Envelope-to: [^\n]*\n)?", b"", data)
        data = re.sub(rb"\AReceived: [^\n]*\n(\t[^\n]*\n)*", b"", data)
        return data.replace(b"\n", b"\r\n")
    return received(data)


def as_sent(data):
    """Without a second Received field on top: where mail passes Postfix twice there are two."""
    return re.sub(rb"\AReceived: from relay\.sender\.example [^\n]*\n([\t ][^\n]*\n)*", b"", data)


def test_mail_flows_and_logs_and_fields_name_the_client(place):
    people = boxes("flows", 3)
    with place.client() as c:
        for i in range(3):
            assert c.mail(SENDER, people, letter(f"flows {i}", body=f".dots\r\n..\r\n{i}\r\n"))[-1][0] == 250
    for box in place.mailboxes(people):
        got = sorted(as_sent(arrived(m)) for m in box)
        assert got == [letter(f"flows {i}", body=f".dots\r\n..\r\n{i}\r\n") for i in range(3)]
        assert all(CLIENT[1].encode() in m for m in box)
    assert place.sees(CLIENT), place.server.log()[-3000:]
    assert place.door.counters()["received"] >= 9


def test_breakwater_knows_the_client_too(place):
    data = letter("for held", extra="X-Test: 1\r\n")
    person = boxes("flows", 1, "held")
    assert place.mail(person, data)[0] == 250
    [row] = [c for c in copies(place.door) if c["rcpt"] == person[0]]
    shown = place.door.ctl("explain", row["id"]) if "client" not in row else str(row["client"])
    assert CLIENT[1] in shown, (row, shown)


def test_further_copies_of_a_storm_are_held_and_first_ones_delivered(place):
    people = boxes("storm", 6)
    storm = Small(people, 21)
    client, data = storm.first()
    assert place.mail(people, data, client)[0] == 250
    for n in range(5):
        client, data = storm.again(n)
        assert place.mail(people, data, client)[0] == 250
    counts = [len(box) for box in place.mailboxes(people)]
    held = [c["rcpt"] for c in copies(place.door) if c["rcpt"] in people]
    assert all(1 <= n <= 2 for n in counts), counts
    assert sum(counts) + len(held) == 6 * 6


def test_one_transaction_for_one_who_has_it_not_and_others_who_have(place):
    people = boxes("mixed", 5)
    late = people[2]
    storm = Small(people, 22)
    client, data = storm.first()
    assert place.mail([p for p in people if p != late], data, client)[0] == 250
    client, data = storm.again(0)
    assert place.mail(people, data, client)[0] == 250
    assert [len(box) for box in place.mailboxes(people)] == [1] * 5
    held = {c["rcpt"]: c["id"] for c in copies(place.door) if c["rcpt"] in people}
    assert sorted(held) == sorted(set(people) - {late})


def test_what_is_held_arrives_once_after_release_through_the_door(place):
    people = boxes("held", 4, "held")
    sent = {p: letter(f"released to {p}", body=f".{p}\r\n..\r\n\xfc\r\n") for p in people}
    for p in people:
        assert place.mail([p], sent[p])[0] == 250
    assert [len(b) for b in place.mailboxes(people)] == [0] * 4
    rows = [c for c in copies(place.door) if c["rcpt"] in people]
    place.door.ctl("release", *[c["id"] for c in rows])
    until(lambda: len([c for c in copies(place.door, "released") if c["rcpt"] in people]) == 4)
    for p, box in zip(people, place.mailboxes(people)):
        assert len(box) == 1
        assert box[0].replace(b"\n", b"\r\n").endswith(sent[p])
        assert b"X-Breakwater" not in box[0]


def test_a_refusal_by_the_server_reaches_the_client_and_the_session_goes_on(place):
    people = boxes("refused", 2)
    with place.client() as c:
        said = c.envelope(SENDER, [people[0], "nobody@rcpt0.example", people[1]])
        assert [code for code, _ in said] == [250, 250, 550, 250]
        assert c.text(letter("to two"))[0] == 250
        assert c.mail(SENDER, people, letter("again"))[-1][0] == 250
    assert [len(b) for b in place.mailboxes(people)] == [2, 2]


def test_every_false_end_of_data_is_one_message_behind_and_one_in_the_hold(place):
    if isinstance(place, ProxyFilter):
        pytest.skip("there Postfix itself ends the data before we see it")
    users, held = boxes("smuggled", 20), boxes("smuggled", 20, "held")
    for i, sequence in enumerate(SMUGGLED):
        for to in (users[i], held[i]):
            said = smuggle(place.door, sequence, to, split=i % 2 == 0)
            assert [r[0] for r in said] == [250, 250], (sequence, said)
    got = place.mailboxes(users[:len(SMUGGLED)])
    assert [len(b) for b in got] == [1] * len(SMUGGLED)
    kept = {c["rcpt"]: held_bytes(place.door, c["id"]) for c in copies(place.door)}
    for i, sequence in enumerate(SMUGGLED):
        assert got[i][0].count(b"evil@sender.example") == 1 and b"smuggled" in got[i][0]
        assert kept[held[i]] == normalised(unstuffed(smuggling(sequence, held[i])[:-3]))
    assert "evil@sender.example" not in place.server.log()
