"""The Shropshire storm of 2006 as mail: one message to 630 addresses in To:, and three mail servers that fetch
their addressee's copy from a mailbox and send it to everybody in To: again, and again.

Everything is invented: names under .example, addresses from the documentation ranges. The storm keeps what
re-injected mail often keeps (Message-ID, Date, From, the chain so far) and adds a turn each time:

  origin -> relay of its provider -> our gateway -> mailbox of an addressee
     -> faulty server (picked up from the mailbox) -> its provider's smarthost, or nothing -> our gateway ...
"""
import random
from email.utils import formatdate

GATEWAY = "mx.gateway.example"
START = 1138010400  # Mon, 23 Jan 2006 10:00:00 +0000


class Faulty:
    """A mail server that re-sends what it fetches. host, address: as its next hop sees it."""

    def __init__(self, domain, host, address, smarthost=None, pickup=True):
        self.domain, self.host, self.address = domain, host, address
        self.smarthost = smarthost  # (host, address) or None: it connects to us itself
        self.pickup = pickup  # leaves the "mail pickup service" line
        self.mailbox = None  # the addressee whose mail it fetches

    def client(self):
        return self.smarthost or (self.host, self.address)


class Storm:
    def __init__(self, recipients=630, seed=2006, body_bytes=4000, missing=5):
        self.random = random.Random(seed)
        self.faulty = [
            Faulty("alphaprint.example", "sbs.alphaprint.example", "203.0.113.11"),
            Faulty("bellbooks.example", "server.bellbooks.example", "203.0.113.22",
                   smarthost=("smtp3.bell-isp.example", "198.51.100.33")),
            Faulty("crowngarage.example", "mail.crowngarage.example", "203.0.113.33", pickup=False),
        ]
        self.recipients = self.addresses(recipients)
        for i, f in enumerate(self.faulty):
            f.mailbox = f"office@{f.domain}"
            self.recipients[i * 7 + 3] = f.mailbox
        # These could not be reached at first: what comes for them has been round our gateway four times.
        self.lost = self.recipients[-missing:] if missing else []
        self.body = self.text(body_bytes)
        self.message_id = "<43d4a2b0.1060302@promo.example>"
        self.serial = 0

    def addresses(self, n):
        first = "anna ben carol david emma frank gill harry iris jack karen leo mary neil olive paul rose sam".split()
        last = "adams baker clark dixon evans ford green hill jones king lewis moore owen price reed shaw todd".split()
        out = []
        for i in range(n):
            local = f"{first[i % len(first)]}.{last[i // len(first) % len(last)]}"
            out.append(f"{local}{i}@firm{i % 210:03d}.example")
        return out

    def text(self, n):
        words = ("our new catalogue of office supplies is ready and every customer in the county receives the early "
                 "price list with this message please look at the offers for paper toner chairs and folders before "
                 "the end of the month orders placed by telephone are delivered the next working day").split()
        lines, line, size = [], "", 0
        while size < n:
            line += self.random.choice(words) + " "
            if len(line) > 68:
                lines.append(line.strip())
                size += len(line) + 1
                line = ""
        return "\r\n".join(lines) + "\r\n"

    def date(self, seconds):
        return formatdate(START + seconds, localtime=False).replace("-0000", "+0000")

    def queue_id(self):
        self.serial += 1
        return f"{self.serial:08X}"

    def headers(self):
        to = ",\r\n\t".join(f"<{a}>" for a in self.recipients)
        return (f"Message-ID: {self.message_id}\r\nDate: {self.date(0)}\r\nFrom: \"J Smith\" <sales@promo.example>\r\n"
                f"To: {to}\r\nSubject: Price list for all customers\r\nMIME-Version: 1.0\r\n"
                "Content-Type: text/plain; charset=us-ascii\r\n\r\n")

    ORIGIN = ("relay1.promo-isp.example", "192.0.2.10")

    def first_chain(self):
        return [f"from office-pc ([192.168.0.4]) by relay1.promo-isp.example with ESMTP id {self.queue_id()}; {self.date(1)}"]

    def original(self):
        """(client host, client address, chain) of the first transactions."""
        return (*self.ORIGIN, self.first_chain())

    def delivered_chain(self, faulty, chain, client, seconds):
        """The chain of the copy in the faulty server's mailbox: our gateway's line is on top."""
        return [f"from {client[0]} ({client[0]} [{client[1]}])\r\n\tby {GATEWAY} (Postfix) with ESMTP id {self.queue_id()}\r\n"
                f"\tfor <{faulty.mailbox}>; {self.date(seconds)}"] + chain

    def resent(self, faulty, mailbox_chain, seconds):
        """What the faulty server hands on: (client host, client address, chain)."""
        if faulty.pickup:
            chain = [f"from mail pickup service by {faulty.host} with Microsoft SMTPSVC;\r\n\t {self.date(seconds)}"]
        else:
            chain = [f"by {faulty.host} (Post Office) id {self.queue_id()};\r\n\t{self.date(seconds)}"]
        chain += mailbox_chain
        if faulty.smarthost:
            chain.insert(0, f"from {faulty.host} ({faulty.host} [{faulty.address}])\r\n\tby {faulty.smarthost[0]} with ESMTP id "
                            f"{self.queue_id()};\r\n\t{self.date(seconds + 2)}")
        return (*faulty.client(), chain)

    def data(self, chain):
        return ("".join(f"Received: {line}\r\n" for line in chain) + self.headers() + self.body).encode()

    def transactions(self, copies, per_transaction=90):
        """Yields (client host, client address, recipients, message bytes): first the original, then re-sent copies until
        `copies` recipient-copies were made."""
        host, address, chain = self.original()
        first = [r for r in self.recipients if r not in self.lost]
        data = self.data(chain)
        made = 0
        for i in range(0, len(first), per_transaction):
            made += len(first[i:i + per_transaction])
            yield host, address, first[i:i + per_transaction], data
        mailboxes = [(f, self.delivered_chain(f, chain, (host, address), 5)) for f in self.faulty]
        seconds = 900
        # A small storm is narrow rather than short: four turns reach those who were lost.
        most = min(6, max(1, (copies // len(first) - 4) // 4))
        while made < copies:
            fresh = []
            for f, mailbox in mailboxes:
                if made >= copies:
                    break
                h, a, resent = self.resent(f, mailbox, seconds)
                data = self.data(resent)
                late = sum(GATEWAY in line for line in resent) >= 4
                to = self.recipients if late else first
                for i in range(0, len(to), per_transaction):
                    part = to[i:i + per_transaction]
                    made += len(part)
                    yield h, a, part, data
                for g in self.faulty:
                    if g is not f and len(resent) < 40:
                        fresh.append((g, self.delivered_chain(g, resent, (h, a), seconds + 60)))
            seconds += 900
            self.random.shuffle(fresh)
            mailboxes = (fresh or mailboxes)[:most]
