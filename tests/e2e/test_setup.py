"""breakwaterctl setup postfix: a real Postfix, its main.cf before and after, and mail while breakwaterd is away.

A private Postfix (private_postfix.py) that asks no milter is told to, by the command alone.
"""
import json
import os
import shutil
import subprocess
import tempfile

import pytest

from daemon import BUILD, Daemon, free_port
from private_postfix import Postfix, PostfixSession, reason_missing
from test_release import until

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))

RULE = 'rule tagged { when true do tag reason "by setup" }\n'
MESSAGE = "From: a@sender.example\r\nSubject: {}\r\nMessage-ID: <{}@sender.example>\r\n\r\nhello\r\n"


class Place:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bw-setup-", dir="/tmp")  # Postfix's users must get in
        os.chmod(self.dir, 0o755)
        self.postfix = Postfix(self.dir, ["user@rcpt.example"], processes=10)
        self.main = f"{self.dir}/conf/main.cf"
        self.first = self.bytes()
        self.port = free_port()
        self.number = 0
        os.makedirs(f"{self.dir}/bw")
        with open(f"{self.dir}/bw/policy.conf", "w") as f:
            f.write(RULE)
        self.daemon = None
        self.start_daemon()

    def start_daemon(self):
        if self.daemon:
            self.daemon.start()
        else:
            self.daemon = Daemon(f"{self.dir}/bw", port=self.port, more=f'policy {{ file = "{self.dir}/bw/policy.conf" }}')

    def setup(self, *args, yes=True, status=0):
        """Runs setup postfix; what it printed to stdout and stderr. Postfix's programs sleep until main.cf is two
        seconds old: so it is, before."""
        os.utime(self.main, (1, 1))
        p = subprocess.run([f"{BUILD}/breakwaterctl", "-f", self.daemon.conf, "setup", "postfix", "--config-dir",
                            f"{self.dir}/conf", *(["-y"] if yes else []), *args], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=60)
        assert p.returncode == status, p.stdout + p.stderr
        return p.stdout + p.stderr

    def bytes(self):
        with open(self.main, "rb") as f:
            return f.read()

    def kept(self):
        return sorted(n for n in os.listdir(f"{self.dir}/conf") if "breakwater" in n)

    def send(self):
        """One mail through Postfix; as it lies in the mailbox."""
        self.number += 1
        session = PostfixSession(self.postfix.port)
        session.send("relay.sender.example", "192.0.2.25", "a@sender.example", ["user@rcpt.example"],
                     MESSAGE.format(self.number, self.number))
        session.close()
        want = f"Subject: {self.number}\n".encode()
        until(lambda: any(want in m for m in self.postfix.mailbox("user@rcpt.example")))
        return next(m for m in self.postfix.mailbox("user@rcpt.example") if want in m)

    def asked(self):
        """Does Postfix ask breakwaterd? A reload takes a moment, and processes at work end first."""
        return b"X-Breakwater:" in self.send()

    def stop(self):
        if self.daemon:
            self.daemon.stop()
        self.postfix.stop()
        shutil.rmtree(self.dir)


@pytest.fixture(scope="module")
def one_place():
    p = Place()
    yield p
    p.stop()


@pytest.fixture
def place(one_place):
    """The one Postfix (starting it takes two seconds), with the main.cf it had at first."""
    yield one_place
    with open(one_place.main, "wb") as f:
        f.write(one_place.first)
    for name in one_place.kept():
        os.unlink(f"{one_place.dir}/conf/{name}")


def test_there_and_back(place):
    before, mode = place.bytes(), os.stat(place.main).st_mode
    assert not place.asked()
    said = place.setup()
    assert "default_action=accept" in said and "Postfix has read it again." in said and "--undo" in said
    assert place.bytes() != before and place.kept() == ["main.cf.breakwater-after", "main.cf.breakwater-before"]
    until(place.asked)
    assert "already" in place.setup()
    assert "byte for byte" in place.setup("--undo")
    assert place.bytes() == before and place.kept() == [] and os.stat(place.main).st_mode == mode
    until(lambda: not place.asked())
    assert "nothing to undo" in place.setup("--undo")


def test_mail_flows_while_breakwaterd_is_away(place):
    place.setup()
    until(place.asked)
    place.daemon.stop()
    assert not place.asked()  # it was taken and delivered all the same
    place.start_daemon()
    until(place.asked)
    place.setup("--undo")
    place.daemon.stop()
    assert b"X-Breakwater:" not in place.send()


def test_the_last_of_several_milters_and_dry_runs(place):
    with open(place.main, "ab") as f:
        f.write(b"# a comment\nsmtpd_milters =\n  inet:127.0.0.1:9,\n  # inside\n  inet:127.0.0.1:11\n")
    before = place.bytes()
    said = place.setup("-n")
    assert "would be changed" in said and "{ inet:" in said and place.bytes() == before and place.kept() == []
    place.setup()
    value = subprocess.run(["/usr/sbin/postconf", "-c", f"{place.dir}/conf", "-h", "smtpd_milters"], capture_output=True,
                           text=True, check=True).stdout
    assert value.split("{")[0].split() == ["inet:127.0.0.1:9,", "inet:127.0.0.1:11,"]
    after = place.bytes()
    place.setup("--undo", "-n")
    assert place.bytes() == after
    assert f"inet:127.0.0.1:{place.port}" in value.split("{")[1]
    place.setup("--undo")
    assert place.bytes() == before


def test_another_milter_whose_address_begins_the_same(place):
    with open(place.main, "a") as f:
        f.write(f"smtpd_milters = inet:127.0.0.1:{place.port}0\n")
    assert "would be changed" in place.setup("-n")
    with open(place.main, "a") as f:
        f.write(f"smtpd_milters = inet:127.0.0.1:{place.port}0 {{INET:127.0.0.1:{place.port}}}\n")
    assert "asks" in place.setup("-n")


def test_nobody_to_ask(place):
    before = place.bytes()
    assert "-y" in place.setup(yes=False, status=2)
    assert place.bytes() == before and place.kept() == []


def test_what_was_edited_since_stays(place):
    place.setup()
    ours = place.bytes()
    with open(place.main, "wb") as f:
        f.write(ours.replace(b"connect_timeout=2s", b"connect_timeout=9s"))
    assert "changed by hand" in place.setup("--undo", status=1)
    assert b"=9s" in place.bytes() and len(place.kept()) == 2
    with open(place.main, "wb") as f:
        f.write(ours + b"smtpd_banner = $myhostname ESMTP changed since\n")
    assert "had been changed since setup: only smtpd_milters was put back" in place.setup("--undo")
    assert b"changed since" in place.bytes() and b"default_action=accept" not in place.bytes() and place.kept() == []


def test_as_json(place):
    j = json.loads(place.setup("--json"))
    assert j["parameter"] == "smtpd_milters" and j["before"] == "" and j["changed"] is True
    assert j["file"] == os.path.realpath(place.main) and f"inet:127.0.0.1:{place.port}" in j["after"]
    j = json.loads(place.setup("--json", "--undo"))
    assert j["changed"] is True and j["after"] == ""


def test_no_milter_to_ask(tmp_path, place):
    conf = tmp_path / "c.conf"
    conf.write_text('smtp a { socket = "inet:2525@127.0.0.1" downstream = "127.0.0.1:25" }\n')
    p = subprocess.run([f"{BUILD}/breakwaterctl", "-f", conf, "setup", "postfix", "--config-dir", f"{place.dir}/conf", "-y"],
                       capture_output=True, text=True)
    assert p.returncode == 1 and "no section milter" in p.stderr
    p = subprocess.run([f"{BUILD}/breakwaterctl", "-f", conf, "setup", "sendmale"], capture_output=True, text=True)
    assert p.returncode == 2 and "setup knows: postfix" in p.stderr
