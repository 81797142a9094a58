"""The SMTP door: what it may not believe. A login before the MTA behind has said that it is one, a reply to a message that is
not there yet, a go-ahead nobody asked for.
"""
import base64

import pytest

from scripted_exchange import EXCHANGE_2003
from smtp_door import certificate
from test_release import until
from test_smtp import door, exchange  # noqa: F401  (fixtures)

LETTER = b"Subject: one\r\nFrom: <a@sender.example>\r\n\r\nhello\r\n"


def knows_login(line):
    return line.startswith("XCLIENT") and "LOGIN=" in line


@pytest.mark.parametrize("form", ["initial", "asked", "cancelled"])
def test_a_login_is_not_told_behind_when_the_server_was_lost_in_auth(exchange, door, tmp_path, form):  # noqa: F811
    """AUTH names a login; the server closes before it has said yes. Its successor must not be told by XCLIENT."""
    asked = [("word", 1, "334 VXNlcm5hbWU6"), ("word", 2, "reset")]
    faults = [("word", 1, "reset")] if form == "initial" else asked
    e = exchange(offers=EXCHANGE_2003, xclient=True, faults=faults)
    cert, key = certificate(str(tmp_path))
    d = door(e.address, section=f'certificate = "{cert}" key = "{key}" xclient = yes', upstreams=False)
    with d.client(who=None) as c:  # AUTH is the first word unknown there
        c.starttls()
        c.ehlo()
        login = base64.b64encode(b"admin").decode()
        if form == "initial":
            c.do(f"AUTH LOGIN {login}", 454)
        else:
            c.do("AUTH LOGIN", 334)
            c.do(login if form == "asked" else "*", 454)
        c.ehlo("again.example")
        assert c.mail("a@sender.example", ["b@rcpt.example"], LETTER)[-1][0] == 250
    assert not any(knows_login(line) for line in e.said()), e.said()
    assert len(e.taken) == 1


def test_a_nul_in_an_answer_for_auth_cancels_it(exchange, door, tmp_path):  # noqa: F811
    e = exchange(offers=EXCHANGE_2003, faults=[("word", 1, "334 VXNlcm5hbWU6")])
    cert, key = certificate(str(tmp_path))
    d = door(e.address, section=f'certificate = "{cert}" key = "{key}"', upstreams=False)
    with d.client(who=None) as c:
        c.starttls()
        c.ehlo()
        c.do("AUTH LOGIN", 334)
        c.do(b"YWRt\0aW4=", 500)
    assert "*" in e.said() and not any("\0" in line for line in e.said())


def test_a_yes_that_comes_with_the_go_ahead_is_no_yes(exchange, door):  # noqa: F811
    """354 and 250 in one packet: the 250 cannot be for the message, which is not there yet."""
    e = exchange(faults=[("data", 1, "354 go on\r\n250 2.6.0 Queued mail for delivery")])
    d = door(e.address, upstreams=False)
    with d.client(who=None) as c:
        assert c.mail("a@sender.example", ["b@rcpt.example"], LETTER)[-1][0] == 451
        assert c.mail("a@sender.example", ["b@rcpt.example"], LETTER)[-1][0] == 250
    assert len(e.taken) == 1


def test_a_yes_before_the_end_of_the_text_is_no_yes(exchange, door):  # noqa: F811
    e = exchange(faults=[("text", 1, "250 2.6.0 Queued mail for delivery")])
    d = door(e.address, upstreams=False)
    with d.client(who=None) as c:
        assert c.mail("a@sender.example", ["b@rcpt.example"], LETTER + b"x" * 78 + b"\r\n" * (16 << 20))[-1][0] == 451
    assert not e.taken


def test_neither_yes_nor_no_to_an_envelope_said_again_is_not_handed_on(exchange, door):  # noqa: F811
    """Some recipients are held, so the rest is said again; what comes back is no answer: all is taken back."""
    e = exchange(faults=[("rcpt", 3, "354 what?")])
    d = door(e.address, upstreams=False)
    with d.client(who=None) as c:
        assert c.mail("a@sender.example", ["held-1@rcpt.example", "b@rcpt.example"], LETTER)[-1][0] == 451
    until(lambda: d.held() == [])  # the keeper takes it out after the reply
    assert not e.taken
