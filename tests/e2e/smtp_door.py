"""breakwaterd with an SMTP door, and what stands behind it: a sink of ours (sink.c), a scripted Exchange or a real MTA."""
import os
import subprocess

from daemon import Daemon, ROOT, free_port
from smtp_peer import Client
from test_postfix import copies

NAMED = 'rule named { when recipient.address matches "held-*" do hold reason "by name" }\n'
CLIENT = ("relay.sender.example", "192.0.2.25")
SENDER = "someone@sender.example"
SECTION = """\
smtp main {{ socket = "inet:{port}@127.0.0.1" downstream = "{downstream}" {section} }}
limits {{ {limits} }}
policy {{ file = "{dir}/policy.conf" }}
"""


class Door(Daemon):
    """Listens at smtp_port for clients and hands on to `downstream`. Recipients held-* are held by name. Releases through
    itself. Clients with addresses in 127.0.0.0/8 are upstreams: they may say XCLIENT."""

    def __init__(self, directory, downstream, section="", limits="", upstreams=True, rules=NAMED, more="", release_to=None,
                 smtp_port=None, release="", **others):
        self.smtp_port = smtp_port or free_port()
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/policy.conf", "w") as f:
            f.write(rules + open(f"{ROOT}/contrib/policy.conf").read())
        if upstreams:
            section += ' upstreams = {"127.0.0.0/8"}'
        more += SECTION.format(port=self.smtp_port, downstream=downstream, section=section, limits=limits, dir=directory)
        super().__init__(str(directory), release_to=release_to or f"127.0.0.1:{self.smtp_port}", release="rate = 1000 " + release, more=more,
                         **others)

    def client(self, who=CLIENT, **more):
        """A client that has said EHLO; who: the host it speaks for (XCLIENT), None: itself."""
        c = Client(self.smtp_port, **more)
        c.ehlo()
        if who:
            c.xclient(*who)
        return c

    def mail(self, recipients, data, who=CLIENT, sender=SENDER):
        """One message in a session of its own; what was said to the end of the data."""
        with self.client(who) as c:
            said = c.mail(sender, recipients, data)
            assert [code for code, _ in said[:-1]] == [250] * (len(recipients) + 1), said
            return said[-1]

    def held(self, state="held"):
        return sorted(c["rcpt"] for c in copies(self, state))

    def counters(self):
        return self.json("status")[0]["counters"]


def certificate(directory, name="mx.gateway.example"):
    """A self-signed certificate for that name: (file, key)."""
    cert, key = f"{directory}/{name}.pem", f"{directory}/{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key

