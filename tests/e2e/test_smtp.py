"""The SMTP door: breakwaterd between raw clients (smtp_peer.py) and what stands behind it: a scripted Exchange
(scripted_exchange.py), or a sink that takes everything (sink.c). Real MTAs behind it: test_smtp_mta.py.
"""
import os
import re
import signal
import ssl
import struct
import time

import pytest

from daemon import free_port
from mixed_mail import mixed, normalised, unstuffed
from scripted_exchange import EXCHANGE_2003, EXCHANGE_2016, Exchange
from smtp_door import SENDER, Door, certificate
from smtp_peer import Client, Closed, stuffed
from test_postfix import Small, copies, held_bytes, letter
from test_release import Sink, until


@pytest.fixture
def exchange():
    """Starts scripted servers: exchange(faults=..., ...)."""
    servers = []

    def begin(**script):
        servers.append(Exchange(**script))
        return servers[-1]

    yield begin
    for e in servers:
        e.stop()


@pytest.fixture
def door(tmp_path):
    """Starts daemons: door(downstream, ...)."""
    doors = []

    def begin(downstream, **more):
        doors.append(Door(str(tmp_path / f"door{len(doors)}"), downstream, **more))
        return doors[-1]

    yield begin
    for d in doors:
        assert d.stop() == 0, d.log()


@pytest.fixture
def sink(tmp_path):
    s = Sink(str(tmp_path))
    yield s
    s.stop()


def people(n, kind="user"):
    return [f"{kind}-{i}@rcpt{i % 3}.example" for i in range(n)]


def took(server):
    """(recipients, data) of each message a scripted server has, without the Received field the door may have put on top."""
    return [(m.addresses, re.sub(rb"\AReceived: from [^\n]*\n\tby demo \(breakwater\)[^\n]*\n", b"", m.data)) for m in server.taken]


# ---- what is offered ----

@pytest.mark.parametrize("offers", [EXCHANGE_2003, EXCHANGE_2016], ids=["2003", "2016"])
def test_only_keywords_we_know_are_announced(exchange, door, offers):
    d = door(exchange(offers=offers).address, upstreams=False)
    with Client(d.smtp_port) as c:
        words = {w.split()[0].upper() for w in c.ehlo()}
    assert words <= {"PIPELINING", "SIZE", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "VRFY", "ETRN", "HELP"}
    assert {"PIPELINING", "SIZE", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES"} <= words


@pytest.mark.parametrize("command", [b"XEXCH50 1124 2", b"X-ANONYMOUSTLS", b"X-EXPS GSSAPI YII=", b"BDAT 5 LAST"])
def test_verbs_that_raw_bytes_follow_are_refused_and_the_connection_ends(exchange, door, command):
    e = exchange()
    d = door(e.address)
    with d.client() as c:
        assert [r[0] for r in c.envelope(SENDER, people(1))] == [250, 250]
        c.send(command + b"\r\nMAIL FROM:<evil@x.example>\r\n.\r\nQUIT\r\n")
        assert c.said()[0] == 502
        assert c.ended()
    assert not any("evil" in line or line.startswith("X") and "XCLIENT" not in line for line in e.said())


# ---- mail flows ----

def test_replies_to_recipients_and_data_are_the_servers_own(exchange, door):
    e = exchange(wrong_rcpt="nobody", faults=[("dot", 2, "550 5.7.1 Message rejected as spam by Content Filtering."),
                                              ("dot", 3, "452 4.3.1 Insufficient\r\n452 4.3.1 system resources")])
    d = door(e.address)
    with d.client() as c:
        said = c.mail(SENDER, ["user-1@rcpt.example", "nobody@rcpt.example"], letter("one"))
        assert said == [(250, "2.1.0 Sender OK"), (250, "2.1.5 Recipient OK"), (550, "5.1.1 User unknown"),
                        (250, "2.6.0 Queued mail for delivery")]
        assert c.mail(SENDER, people(1), letter("two"))[-1] == (550, "5.7.1 Message rejected as spam by Content Filtering.")
        assert c.mail(SENDER, people(1), letter("three"))[-1][0] == 452
        assert c.mail(SENDER, people(1), letter("four"))[-1][0] == 250
    assert took(e) == [(["user-1@rcpt.example"], letter("one")), (people(1), letter("four"))]


def test_a_session_outlives_those_of_a_server_that_takes_few_messages_each(exchange, door):
    e = exchange(per_connection=20)
    d = door(e.address)
    with d.client() as c:
        for i in range(50):
            said = c.mail(SENDER, people(2), letter(f"number {i}"))
            assert [code for code, _ in said] == [250] * 4, (i, said)
    assert [data for _, data in took(e)] == [letter(f"number {i}") for i in range(50)]


def test_everything_of_a_message_in_one_packet_is_answered_in_order(exchange, door):
    e = exchange(wrong_rcpt="user-5@")
    d = door(e.address)
    with d.client() as c:
        c.send("".join(f"{line}\r\n" for line in ["MAIL FROM:<a@b.example>"] + [f"RCPT TO:<{p}>" for p in people(630)] + ["NOOP"])
               .encode())
        codes = [c.said()[0] for _ in range(632)]
        assert codes == [250] * 6 + [550] + [250] * 625
        assert c.text(letter("to many"))[0] == 250
    assert len(took(e)[0][0]) == 629


def test_a_tarpit_delays_the_one_who_is_refused_and_nobody_else(exchange, door):
    e = exchange(wrong_rcpt="nobody", tarpit=0.5)
    d = door(e.address)
    slow = d.client()
    slow.send(b"MAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<nobody@rcpt.example>\r\n" * 20)
    assert slow.said()[0] == 250
    for i in range(10):
        assert d.mail(people(1), letter(f"number {i}"))[0] == 250
    assert len(e.taken) == 10 and len([line for line in e.said() if "nobody" in line]) < 20
    assert slow.said()[0] == 550
    slow.close()


@pytest.mark.parametrize("action", ["reset", "close", "421 4.3.2 Service not available", "451 4.7.1 Please try again later"])
@pytest.mark.parametrize("step", ["connect", "ehlo", "mail", "rcpt", "data", "text", "dot"])
def test_whatever_the_server_does_at_any_step_250_means_it_has_the_message(exchange, door, step, action):
    which = 2 if step in ("connect", "ehlo") else 3  # not the first: a client says EHLO twice, a first message has gone through
    e = exchange(faults=[(step, which, action)])
    d = door(e.address)
    done, tries = [], 0
    for i in range(4):
        while len(done) <= i:
            tries += 1
            assert tries < 10
            try:
                with d.client() as c:
                    said = c.mail(SENDER, people(2), letter(f"number {i}"))
                    if said[-1][0] == 250:
                        done.append(i)
                    assert said[-1][0] in (250, 421, 451, 503, 554), said
            except (Closed, AssertionError) as x:
                assert isinstance(x, Closed) or "421" in str(x) or "451" in str(x), x
    arrived = [int(re.search(rb"Subject: number (\d)", data).group(1)) for _, data in took(e)]
    assert sorted(set(arrived)) == [0, 1, 2, 3]
    more = 1 if step == "dot" and action in ("reset", "close") else 0
    assert len(arrived) <= 4 + more
    assert d.held() == []


def test_a_server_that_says_nothing_costs_its_deadline_and_the_client_tries_again(exchange, door):
    e = exchange(faults=[("dot", 1, "mute")])
    d = door(e.address, limits='final = "1s" command = "1s"')
    assert d.mail(people(1), letter("one"))[0] == 451
    assert d.mail(people(1), letter("one"))[0] == 250


def test_without_a_server_behind_the_client_is_told_to_come_again(door):
    d = door(f"127.0.0.1:{free_port()}")
    with Client(d.smtp_port) as c:
        assert c.do("EHLO client.example")[0] == 421


# ---- held, mixed, refused ----

def test_duplicates_of_a_storm_are_held_and_first_copies_delivered(exchange, door):
    e = exchange()
    d = door(e.address)
    storm = Small(people(8), 11)
    client, data = storm.first()
    assert d.mail(storm.recipients, data, client)[0] == 250
    for n in range(6):
        client, data = storm.again(n)
        reply = d.mail(storm.recipients, data, client)
        assert reply[0] == 250 and ("held as" in reply[1] or n < 2), reply
    delivered = [a for addresses, _ in took(e) for a in addresses]
    held = d.held()
    assert len(delivered) + len(held) == 7 * 8
    assert all(1 <= delivered.count(a) <= 2 for a in storm.recipients)
    assert len(held) >= 5 * 8


def test_one_transaction_is_delivered_to_the_one_who_has_it_not_and_held_for_the_others(exchange, door):
    e = exchange(offers=EXCHANGE_2016)
    d = door(e.address)
    some = people(5)
    late = some[2]
    storm = Small(some, 12)
    client, data = storm.first()
    assert d.mail([p for p in some if p != late], data, client)[0] == 250
    client, data = storm.again(0)
    assert d.mail(some, data, client) == (250, "2.6.0 Queued mail for delivery")
    assert [sorted(a) for a, _ in took(e)] == [sorted(set(some) - {late}), [late]]
    assert took(e)[1][1] == data
    assert d.held() == sorted(set(some) - {late})
    assert [held_bytes(d, c["id"]) for c in copies(d)] == [data] * 4
    assert e.seen["rset"] >= 1


@pytest.mark.parametrize("step, action", [("dot", "452 4.3.1 later"), ("dot", "550 5.7.1 never"), ("data", "451 4.3.0 later"),
                                          ("rcpt", "450 4.2.1 later"), ("mail", "451 4.3.0 later"), ("dot", "reset"), ("dot", "421 4.3.2 x")])
def test_when_the_server_refuses_the_rest_nothing_stays_held_and_nothing_counts_as_delivered(exchange, door, step, action):
    # The second message: its first envelope is taken, then RSET, MAIL and one RCPT are said again.
    which = {"dot": 2, "data": 2, "mail": 3, "rcpt": 10}[step]
    e = exchange(faults=[(step, which, action)])
    d = door(e.address)
    some = people(5)
    late = some[2]
    storm = Small(some, 13)
    client, data = storm.first()
    assert d.mail([p for p in some if p != late], data, client)[0] == 250
    client, data = storm.again(0)
    reply = d.mail(some, data, client)
    assert reply[0] == (int(action[:3]) if action[0] in "45" and "421" not in action else 451) or reply[0] == 421, reply
    until(lambda: d.held() == [])
    c = d.counters()
    assert (c["received"], c["passed"], c["held"], c["aborted"], c["refused"], c["unaccounted"]) == (9, 4, 0, 0, 5, 0)
    assert "5 copies were not taken by the servers behind" in d.ctl("status")
    rows = lambda: [r for p in some for r in d.json("explain", "--rcpt", p) if r.get("tx")]
    until(lambda: len(rows()) == 9)
    assert [r["rule"] for r in rows()].count("lost downstream" if reply[0] == 451 and action in ("reset", "421 4.3.2 x")
                                             else "refused downstream") == 5
    before = len(e.taken)
    assert d.mail(some, data, client)[0] == 250
    assert [a for a, _ in took(e)[before:]] == [[late]], "the one who got nothing is still owed his first copy"
    assert d.held() == sorted(set(some) - {late})


def test_a_stop_while_the_server_has_the_rest_leaves_nothing_held(exchange, door):
    e = exchange(faults=[("dot", 2, "mute")])
    d = door(e.address)
    some = people(5)
    late = some[2]
    storm = Small(some, 14)
    client, data = storm.first()
    assert d.mail([p for p in some if p != late], data, client)[0] == 250
    client, data = storm.again(0)
    with d.client(client) as c:
        assert all(code == 250 for code, _ in c.envelope(SENDER, some))
        c.do("DATA", 354)
        c.send(stuffed(data))
        until(lambda: e.seen["dot"] == 2)
        assert d.held() == sorted(set(some) - {late})
        assert d.stop() == 0, d.log()
        with pytest.raises(Closed):
            c.said()
    assert "lost downstream" in d.log()
    d.start()
    assert d.held() == [] and d.counters()["received"] == 0
    before = len(e.taken)
    assert d.mail(some, data, client)[0] == 250
    assert [a for a, _ in took(e)[before:]] == [[late]]
    assert d.held() == sorted(set(some) - {late})


def test_what_people_read_holds_nothing_that_speaks_to_a_terminal(exchange, door):
    # A100: ^Z, ^D, ESC and RIGHT-TO-LEFT OVERRIDE, wherever a stranger can put them.
    e = exchange(offers=["PIPELINING", "SMTPUTF8", "8BITMIME"])
    d = door(e.address, level="debug", upstreams=False)
    evil = "\x1a\x04\x1b[2J\u202e"
    data = f"From: {evil} <x@y.example>\r\nSubject: {evil}\r\nMessage-ID: <{evil}@x>\r\n\r\nx\r\n".encode()
    with d.client(None) as c:
        assert c.do("MAIL FROM:<\x1b[2J@x.example>")[0] == 501
        c.do("MAIL FROM:<x\u202ey@x.example> SMTPUTF8", 250)
        c.do("RCPT TO:<held-\u202ez@x.example>", 250)
        c.do("RCPT TO:<\u202ez@x.example>", 250)
        assert c.text(data)[0] == 250
    until(lambda: d.json("explain", "--from", "x\u202ey@x.example"))
    shown = d.log() + "".join(d.ctl(*words) for words in (
        ["held"], ["storms"], ["status"], ["explain", "--from", "x\u202ey@x.example"], ["show", d.json("held")[0]["id"]]))
    assert "held-" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", shown), "it speaks to the terminal"


def test_what_was_held_is_released_through_the_door_byte_for_byte(exchange, door):
    e = exchange(per_connection=3)
    d = door(e.address)
    names = people(8, "held")
    sent = {n: letter(f"for {n}", body=f".dots\r\n..\r\n{n} \xfc\r\n") for n in names}
    for n in names:
        assert "held as" in d.mail([n], sent[n])[1]
    assert e.taken == []
    d.ctl("release", *[c["id"] for c in copies(d)])
    until(lambda: len(d.held("released")) == len(names))
    assert {a[0]: data for a, data in took(e)} == sent
    assert not any(b"X-Breakwater" in m.data for m in e.taken)
    assert d.held() == []


# ---- framing: 3.4 of the notes on SMTP smuggling ----

SMUGGLED = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\t\r\n",
            b"\r\n. \r\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\r.\r\n", b"\x0b\n.\x0b\n", b"\xc2\x85.\xc2\x85", b"\r\n\r.\r\n"]


def smuggling(sequence, to):
    """What follows DATA: a message, the sequence, and what is meant to be taken for commands and a second message."""
    return (b"Subject: smuggling\r\nMessage-ID: <%s@s.example>\r\n\r\nfirst" % sequence.hex().encode() + sequence
            + b"MAIL FROM:<evil@sender.example>\r\nRCPT TO:<%s>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n" % to.encode())


def smuggle(d, sequence, to, split=False):
    """Sends it; the replies after the 354."""
    raw = smuggling(sequence, to)
    with d.client() as c:
        assert [r[0] for r in c.envelope(SENDER, [to])] == [250, 250]
        c.do("DATA", 354)
        if split:
            at = raw.index(b"first") + 5
            for i in range(at, at + len(sequence) + 2):
                c.send(raw[:i] if i == at else raw[i - 1:i])
                time.sleep(0.001)
            c.send(raw[at + len(sequence) + 1:])
        else:
            c.send(raw)
        c.send(b"NOOP\r\n")
        return [c.said(), c.said()]


@pytest.mark.parametrize("split", [False, True], ids=["one write", "split at every byte"])
def test_every_false_end_of_data_makes_one_message_in_the_hold_and_one_behind(exchange, door, split):
    e = exchange()
    d = door(e.address)
    for i, sequence in enumerate(SMUGGLED):
        for to in (f"user-{i}@rcpt.example", f"held-{i}@rcpt.example"):
            said = smuggle(d, sequence, to, split)
            assert [r[0] for r in said] == [250, 250], (sequence, said)
    assert [a for a, _ in took(e)] == [[f"user-{i}@rcpt.example"] for i in range(len(SMUGGLED))]
    assert d.held() == sorted(f"held-{i}@rcpt.example" for i in range(len(SMUGGLED)))
    assert not any("evil" in m.sender for m in e.taken)
    for i, sequence in enumerate(SMUGGLED):
        whole = normalised(unstuffed(smuggling(sequence, f"user-{i}@rcpt.example")[:-3]))
        assert took(e)[i][1] == whole, sequence
    kept = {c["rcpt"]: held_bytes(d, c["id"]) for c in copies(d)}
    for i, sequence in enumerate(SMUGGLED):
        to = f"held-{i}@rcpt.example"
        assert kept[to] == normalised(unstuffed(smuggling(sequence, to)[:-3])), sequence


def test_bare_line_ends_are_refused_where_that_is_wanted(exchange, door):
    e = exchange()
    d = door(e.address, section='bare = "refuse"')
    assert smuggle(d, b"\n.\n", "user-1@rcpt.example")[0][0] == 550
    assert d.mail(people(1), letter("clean"))[0] == 250
    assert len(e.taken) == 1


# ---- TLS ----

@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory):
    return certificate(str(tmp_path_factory.mktemp("tls")))


@pytest.fixture(scope="module")
def other_certificate(tmp_path_factory):
    return certificate(str(tmp_path_factory.mktemp("tls")), "other.example")


def with_certificate(pair):
    return f'certificate = "{pair[0]}" key = "{pair[1]}"'


def test_a_client_may_say_starttls_and_nothing_said_before_counts(exchange, door, own_certificate):
    e = exchange()
    d = door(e.address, section=with_certificate(own_certificate), upstreams=False)
    context = ssl.create_default_context(cafile=own_certificate[0])
    with Client(d.smtp_port) as c:
        assert "STARTTLS" in c.ehlo()
        c.starttls(context)
        assert c.socket.version() in ("TLSv1.2", "TLSv1.3")
        assert c.do("MAIL FROM:<a@b.example>")[0] == 503
        assert "STARTTLS" not in c.ehlo()
        assert c.do("STARTTLS")[0] == 503
        for i in range(3):
            assert c.mail(SENDER, people(1), letter(f"secret {i}"))[-1][0] == 250
    assert [data for _, data in took(e)] == [letter(f"secret {i}") for i in range(3)]


def test_commands_in_the_same_packet_as_starttls_are_thrown_away(exchange, door, own_certificate):
    e = exchange()
    d = door(e.address, section=with_certificate(own_certificate), upstreams=False)
    with Client(d.smtp_port) as c:
        c.ehlo()
        c.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<user-1@rcpt.example>\r\n")
        c.expect(220)
        c.secure()
        c.ehlo()
        assert c.mail(SENDER, people(1), letter("one"))[-1][0] == 250
    assert not any("evil" in line for line in e.said())


def test_old_tls_is_refused(exchange, door, own_certificate):
    d = door(exchange().address, section=with_certificate(own_certificate), upstreams=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Client(d.smtp_port) as c:
        c.ehlo()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            c.starttls(context)


def test_implicit_tls_and_a_new_certificate_without_a_restart(exchange, door, own_certificate, other_certificate, tmp_path):
    pair = (str(tmp_path / "cert.pem"), str(tmp_path / "cert.key"))

    def put(files):
        for source, target in zip(files, pair):
            with open(source) as f, open(target, "w") as g:
                g.write(f.read())

    def greeted(trusted, name):
        context = ssl.create_default_context(cafile=trusted[0])
        c = Client(d.smtp_port, greeting=False)
        c.socket = context.wrap_socket(c.socket, server_hostname=name)
        c.expect(220)
        c.ehlo()
        return c

    put(own_certificate)
    e = exchange()
    d = door(e.address, section=with_certificate(pair) + " implicit = yes", upstreams=False)
    old = greeted(own_certificate, "mx.gateway.example")
    put(other_certificate)
    d.process.send_signal(signal.SIGHUP)

    def changed():
        try:
            greeted(other_certificate, "other.example").close()
            return True
        except ssl.SSLError:
            return False
    until(changed)
    assert old.mail(SENDER, people(1), letter("old session"))[-1][0] == 250
    old.close()


def test_tls_with_the_server_behind_and_words_before_it_do_not_count(exchange, door, own_certificate):
    e = exchange(certificate=own_certificate, injected=b"250-injected\r\n250 EVIL\r\n")
    d = door(e.address, section=f'downstream_tls = must downstream_ca = "{own_certificate[0]}" downstream_name = "mx.gateway.example"')
    assert d.mail(people(1), letter("one"))[0] == 250
    assert e.taken[0].session.secure
    with d.client() as c:
        assert not c.offers_word("EVIL")


@pytest.mark.parametrize("name, ca", [("mx.gateway.example", "other"), ("wrong.example", "own")])
def test_a_server_with_the_wrong_certificate_gets_no_mail(exchange, door, own_certificate, other_certificate, name, ca):
    e = exchange(certificate=own_certificate)
    file = (own_certificate if ca == "own" else other_certificate)[0]
    d = door(e.address, section=f'downstream_tls = must downstream_ca = "{file}" downstream_name = "{name}"')
    with Client(d.smtp_port) as c:
        assert c.do("EHLO client.example")[0] == 421
    assert not any(line.startswith("MAIL") for line in e.said())


def test_without_tls_there_is_no_mail_where_it_must_be(exchange, door):
    e = exchange()
    d = door(e.address, section="downstream_tls = must")
    with Client(d.smtp_port) as c:
        assert c.do("EHLO client.example")[0] == 421
    assert not any(line.startswith("MAIL") for line in e.said())


def test_what_is_released_goes_under_tls_where_it_must(exchange, door, own_certificate):
    e = exchange()
    tls = f'tls = must ca = "{own_certificate[0]}" name = "mx.gateway.example"'
    d = door(e.address, section=with_certificate(own_certificate), release=tls)
    assert d.mail(people(1, "held"), letter("one"))[0] == 250
    d.ctl("release", copies(d)[0]["id"])
    until(lambda: d.held("released") == people(1, "held"))
    assert took(e) == [(people(1, "held"), letter("one"))]


# ---- who the client is ----

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, addresses, tail=b""):
    return V2 + bytes([0x20 | command, family]) + struct.pack(">H", len(addresses) + len(tail)) + addresses + tail


V4_ADDRESSES = bytes([192, 0, 2, 77, 127, 0, 0, 1]) + struct.pack(">HH", 4000, 25)
V6_ADDRESSES = bytes.fromhex("20010db8000000000000000000000007" + "0" * 31 + "1") + struct.pack(">HH", 4000, 25)


@pytest.mark.parametrize("header, address", [
    (b"PROXY TCP4 192.0.2.77 127.0.0.1 4000 25\r\n", "192.0.2.77"),
    (b"PROXY TCP6 2001:db8::7 ::1 4000 25\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (v2(1, 0x11, V4_ADDRESSES), "192.0.2.77"),
    (v2(1, 0x21, V6_ADDRESSES), "2001:db8::7"),
    (v2(1, 0x11, V4_ADDRESSES, b"\x04\0\x05hello"), "192.0.2.77"),
    (v2(0, 0, b"", b"x" * 216), "127.0.0.1"),
])
@pytest.mark.parametrize("split", [False, True], ids=["one write", "split"])
def test_a_proxy_header_says_who_the_client_is(exchange, door, header, address, split):
    e = exchange(xclient=True)
    d = door(e.address, section="proxy_protocol = yes", upstreams=False)
    c = Client(d.smtp_port, greeting=False)
    for piece in ([header[i:i + 1] for i in range(len(header))] if split else [header]):
        c.send(piece)
    c.expect(220)
    c.ehlo()
    assert c.mail(SENDER, people(1), letter("one"))[-1][0] == 250
    c.close()
    shown = f"IPV6:{address}" if ":" in address else address
    assert any(line.startswith("XCLIENT") and f"ADDR={shown}" in line for line in e.said()), e.said()


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.77 127.0.0.1 4000 25\n", b"PROXY TCP4 01.2.3.4 127.0.0.1 4000 25\r\n",
                                    b"PROXY TCP6 ::1 ::1 99999 1\r\n", b"P" * 108, b"EHLO client.example\r\n",
                                    V2 + b"\x11\x11\0\x0c" + V4_ADDRESSES, V2 + b"\x22\x11\0\x0c" + V4_ADDRESSES])
def test_a_connection_without_a_good_proxy_header_ends_without_a_word(exchange, door, header):
    d = door(exchange().address, section="proxy_protocol = yes", upstreams=False)
    c = Client(d.smtp_port, greeting=False)
    c.send(header + b"EHLO x\r\n")
    assert c.ended()
    c.close()


def test_a_proxy_header_where_none_belongs_is_junk(exchange, door):
    e = exchange(xclient=True)
    d = door(e.address, upstreams=False)
    with Client(d.smtp_port) as c:
        assert c.do("PROXY TCP4 192.0.2.77 127.0.0.1 4000 25")[0] in (421, 500, 502)
    assert not any("192.0.2.77" in line for line in e.said())


def test_strangers_may_not_say_who_they_are(exchange, door):
    e = exchange(xclient=True)
    d = door(e.address, upstreams=False)
    with Client(d.smtp_port) as c:
        c.ehlo()
        assert not c.offers_word("XCLIENT") and not c.offers_word("XFORWARD")
        assert c.do("XCLIENT ADDR=192.0.2.9")[0] == 550
        assert c.do("XFORWARD ADDR=192.0.2.9")[0] == 550
        assert c.mail(SENDER, people(1), letter("one"))[-1][0] == 250
    assert not any("192.0.2.9" in line for line in e.said())


@pytest.mark.parametrize("version", [1, 2])
def test_the_server_behind_gets_a_proxy_header_where_it_wants_one(exchange, door, version):
    e = exchange(proxy=True)
    d = door(e.address, section=f"downstream_proxy = {version}")
    assert d.mail(people(1), letter("one"))[0] == 250
    header = e.taken[0].session.proxy_header
    if version == 1:
        assert header.startswith(b"PROXY TCP4 192.0.2.25 "), header
    else:
        assert header[:14] == V2 + b"\x21\x11" and header[16:20] == bytes([192, 0, 2, 25])
    assert not e.taken[0].data.startswith(b"Received: from relay")


# ---- monitor mode ----

def test_monitor_changes_nothing_but_bare_line_ends(sink, door):
    """REPEAT makes it longer: 10,000 messages at 300."""
    n = 10000 if int(os.environ.get("REPEAT", 1)) >= 300 else 1000
    d = door(sink.address, mode="monitor", upstreams=False, section='received = "never"')
    ports = {"direct": int(sink.address.rpartition(":")[2]), "through": d.smtp_port}
    seen = {}
    for way, port in ports.items():
        before = len(sink.deliveries())
        c = None
        for i, data in enumerate(mixed(n, seed=4)):
            if i % 100 == 0:
                if c:
                    c.close()
                c = Client(port)
                c.ehlo()
            raw = stuffed(normalised(data) if way == "direct" else data)
            assert [r[0] for r in c.envelope(SENDER if i % 9 else "", people(1 + i % 3, "held" if i % 4 == 0 else "user"))] == \
                [250] * (2 + i % 3)
            c.do("DATA", 354)
            c.send(raw)
            assert c.said()[0] == 250, (i, data[:200])
        c.close()
        seen[way] = [(r["from"], r["rcpt"], r["bytes"], r["sha256"], r["stray"]) for r in sink.deliveries()[before:]]
    assert len(seen["direct"]) == sum(1 + i % 3 for i in range(n))
    assert seen["through"] == seen["direct"]
    assert d.held() == []
    assert d.counters()["received"] == len(seen["direct"])

