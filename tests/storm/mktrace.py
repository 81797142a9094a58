#!/usr/bin/env python3
"""mktrace.py - invents recorded mail (DESIGN.md 9) for replays: storms, loops, and the ordinary life that only looks like them.

    mktrace.py [--seed N] [--copies N] [-o FILE] SCENARIO...      ("all": every one, interleaved on one time line)

Deterministic: the same arguments give the same bytes. Everything is invented: example domains, documentation addresses.
"""
import argparse
import heapq
import json
import random
import sys
from email.utils import formatdate

START = 1138036800  # Monday, 23 January 2006 17:20 UTC
DAY = 86400
WORDS = ("harbour meeting invoice delivery order planning supplier county council training business link event autumn spring "
         "office printer engine garden window timber market quarter report minutes agenda vehicle insurance letter customer "
         "quality bridge river station museum library school kitchen village concert festival season ticket price list").split()


class Mail:
    """One message on its way: what its writer wrote, and the trace so far, newest first."""

    def __init__(self, rng, t, frm, to, subject=None, words=60, mid=None, list_id=None):
        self.rng, self.frm, self.to = rng, frm, to
        self.mid = mid or "<%012x@%s>" % (rng.getrandbits(48), frm.split("@")[1])
        self.date, self.list_id = formatdate(t), list_id
        self.subject = subject or " ".join(rng.sample(WORDS, 4))
        self.body = self.text(words)
        self.received, self.extra = [], ""
        self.at = ("pc.%s" % frm.split("@")[1], address(rng))  # where it is now: name and address

    def text(self, words):
        lines, line = [], []
        for _ in range(words):
            line.append(self.rng.choice(WORDS))
            if len(line) == 10:
                lines.append(" ".join(line))
                line = []
        return "\r\n".join(lines + [" ".join(line)]) + "\r\n"

    def copy(self):
        twin = object.__new__(Mail)
        twin.__dict__.update(self.__dict__)
        twin.received = list(self.received)
        return twin

    def hop(self, host, ip, t, to=None, pickup=False):
        """Accepted by host; returns self."""
        name, source = self.at
        queue = "%010X" % self.rng.getrandbits(40)
        if pickup:
            line = f"from mail pickup service by {host} with Microsoft SMTPSVC;\r\n\t{formatdate(t)}"
        else:
            addressee = f"\r\n\tfor <{to}>" if to else ""
            line = f"from {name} ({name} [{source}])\r\n\tby {host} (Postfix) with ESMTP id {queue}{addressee}; {formatdate(t)}"
        self.received.insert(0, line)
        self.at = (host, ip)
        return self

    def strip(self):
        self.received = []
        return self

    def rename(self, t, domain):
        """What some servers write anew at each pass."""
        self.mid, self.date = "<%08x$%08x$0300a8c0@intra.%s>" % (self.rng.getrandbits(32), self.rng.getrandbits(32), domain), formatdate(t)
        return self

    def signed(self, who):
        """To as the POP3 connector of a small business server leaves it."""
        name, domain = who.split("@")
        mark = "<mspop3connector.%s@%s>" % (name, domain)
        self.to = ["<%s>" % a.strip("<>") for a in self.to if a != mark] + [mark]
        return self

    def footer(self, text):
        self.extra = self.extra + "-- \r\n" + text + "\r\n"
        return self

    def bytes(self):
        head = ["Received: " + line for line in self.received]
        head += [f"Message-ID: {self.mid}", f"Date: {self.date}", f"From: <{self.frm}>", f"Subject: {self.subject}"]
        head.append("To: " + ",\r\n\t".join(self.to))
        if self.list_id:
            head.append(f"List-Id: <{self.list_id}>")
        return "\r\n".join(head) + "\r\n\r\n" + self.body + self.extra


def address(rng):
    return "%s.%d" % (rng.choice(("192.0.2", "198.51.100", "203.0.113")), rng.randrange(1, 255))


class World:
    """What all scenarios share: a clock, a sink, hosts that have one address."""

    def __init__(self, seed, copies):
        self.rng, self.copies = random.Random(seed), copies
        self.out, self.hosts, self.serial = [], {}, 0

    def ip(self, host):
        if host not in self.hosts:
            self.hosts[host] = address(self.rng)
        return self.hosts[host]

    def hop(self, mail, host, t, to=None, pickup=False):
        return mail.hop(host, self.ip(host), t, to, pickup)

    def deliver(self, t, mail, rcpts, label):
        name, ip = mail.at
        self.serial += 1
        self.out.append((t, self.serial, {"t": t, "client": ip, "helo": name, "name": name, "from": mail.frm, "rcpt": list(rcpts),
                                          "data": mail.bytes(), "label": label}))

    def person(self):
        return "%s@person%d.example" % (self.rng.choice(("anna", "ben", "carla", "dirk")), self.rng.randrange(400))

    def ours(self, n):
        return ["%s@us%d.example" % (name, i % 3) for i, name in enumerate(self.rng.sample(
            ("info", "office", "sales", "chair", "events", "press", "jobs", "shop", "help", "board"), n))]

    def mail(self, t, to, **more):
        frm = more.pop("frm", None) or self.person()
        domain = frm.split("@")[1]
        m = Mail(self.rng, t, frm, to, **more)
        return self.hop(m, "out." + domain, t)


# --- ordinary life ---

def persons(w, t0):
    for i in range(w.copies):
        t, to = t0 + i * 40 + w.rng.random(), w.ours(w.rng.randrange(1, 4))
        w.deliver(t, w.mail(t, to + [w.person()]), to, "persons")


def retry(w, t0):
    """The 250 was lost: the same queue entry once to three times more."""
    for i in range(w.copies // 10 + 1):
        t, to = t0 + i * 500, w.ours(2)
        m = w.mail(t, to)
        for n in range(2 + w.rng.randrange(3)):
            w.deliver(t + 300 * n, m, to, "retry")


def resend(w, t0):
    """One server hands the message to the next twice: it lost that one's 250."""
    for i in range(w.copies // 10 + 1):
        t, to = t0 + i * 500, w.ours(1)
        m = w.mail(t, to)
        for n in range(2 + w.rng.randrange(2)):
            w.deliver(t + 300 * n, w.hop(m.copy(), "relay.pool.example", t + 300 * n), to, "resend")


def lists(w, t0):
    """A direct copy, and one by each list; cross-posted; some lists do not mark themselves."""
    for i in range(w.copies // 10 + 1):
        t, to = t0 + i * 500, w.ours(1)
        m = w.mail(t, to + ["club%d@lists.example" % i])
        w.deliver(t, m, to, "lists")
        for n in range(w.rng.randrange(1, 4)):
            c = w.hop(m.copy(), "lists%d.example" % n, t + 30 + n)
            if w.rng.random() < .9 or n:
                c.list_id = "club%d.lists%d.example" % (i, n)
            c.footer("unsubscribe from club %d at lists %d" % (i, n))
            w.deliver(t + 60 + n, c, to, "lists")


def newsletter(w, t0):
    m = w.mail(t0, ["readers@promo.example"], frm="news@promo.example", words=200)
    for i in range(w.copies):
        c = w.hop(m.copy(), "mta%d.promo.example" % (i % 3), t0 + i)
        w.deliver(t0 + i + 1, c, ["reader%d@us%d.example" % (i, i % 3)], "newsletter")


def forwarder(w, t0):
    """The old address forwards to the new one, and both are in To."""
    for i in range(w.copies // 10 + 1):
        t, to = t0 + i * 500, w.ours(1)
        old = "old%d@former.example" % i
        m = w.mail(t, to + [old])
        w.deliver(t, m, to, "forwarder")
        c = w.hop(w.hop(m.copy(), "mx.former.example", t + 2, old), "out.former.example", t + 3)
        w.deliver(t + 4, c, to, "forwarder")


def backup(w, t0):
    """A 250 lost at the primary, then the backup MX; it brings mail of many."""
    for i in range(w.copies // 5 + 8):
        t, to = t0 + i * 300, w.ours(3)
        m = w.mail(t, to)
        if i >= 8:
            w.deliver(t, m, to, "backup")
        w.deliver(t + 100, w.hop(m.copy(), "mx2.backup.example", t + 90), to, "backup")


def cron(w, t0):
    """The same text every ten minutes, under new Message-IDs; and one script that always uses the same."""
    body = Mail(w.rng, t0, "root@cron.example", ["ops@us0.example"]).body
    for i in range(w.copies // 5 + 2):
        t = t0 + 600 * i
        m = w.mail(t, ["ops@us0.example"], frm="root@cron.example", subject="cron")
        m.body = body
        w.deliver(t, m, ["ops@us0.example"], "cron")
        m = w.mail(t0, ["ops@us0.example"], frm="script@cron.example", subject="status", mid="<always@cron.example>")
        m.received = []
        w.deliver(t + 5, w.hop(m, "out.cron.example", t), ["ops@us0.example"], "conflict")


def again(w, t0):
    """Persons send a message again: at once, from home, with what was wrong put right."""
    for i in range(w.copies // 10 + 1):
        t, to = t0 + i * 500, w.ours(2)
        m = w.mail(t, to + [w.person() for _ in range(w.rng.randrange(6))])
        domain = m.frm.split("@")[1]
        w.deliver(t, m, to, "again")
        for n in range(1, 3):
            c = m.copy().strip().rename(t + 300 * n, domain)
            c.at = ("laptop." + domain, address(w.rng))
            c = w.hop(c, "smtp.homeisp%d.example" % (i % 4) if n == 2 else "out." + domain, t + 300 * n)
            w.deliver(t + 300 * n + 1, c, to, "again")


def monitor(w, t0):
    """The same words each time, out of a pickup, by a system that watches a customer's server; and the same newsletter by two providers."""
    to = w.ours(2)
    m = w.mail(t0, to + ["admin@watched.example"], frm="alarm@monitor.example", subject="disk is full")
    news = w.mail(t0, to[:1], frm="news@shop.example", subject="news", words=200)
    for i in range(w.copies // 5 + 2):
        t = t0 + 300 * i
        c = w.hop(m.copy().strip().rename(t, "watched.example"), "watch.watched.example", t, pickup=True)
        w.deliver(t + 1, c, to, "monitor")
        c = w.hop(news.copy().strip().rename(t, "shop.example"), "mta.provider%d.example" % (i % 2), t, pickup=i % 4 > 1)
        w.deliver(t + 2, c, to[:1], "monitor")


def tangle(w, t0):
    """Anything: copies go on from anywhere to anywhere, some by a list, some out of a mailbox, to anybody of ours."""
    for i in range(w.copies // 4 + 1):
        t, everybody = t0 + i * 900, w.ours(4)
        hosts = ["h%d.tangle%d.example" % (n, n % 4) for n in range(7)]
        shown = everybody + [w.person() for _ in range(w.rng.randrange(6))] + ["x@tangle%d.example" % n for n in range(w.rng.randrange(4))]
        copies = [w.mail(t, w.rng.sample(shown, w.rng.randrange(1, len(shown))))]
        for n in range(w.rng.randrange(2, 16)):
            c = w.rng.choice(copies).copy()
            for _ in range(w.rng.randrange(4)):
                w.hop(c, w.rng.choice(hosts), t + n, w.rng.choice((None, None, w.rng.choice(shown))), w.rng.random() < .04)
            if w.rng.random() < .1:
                c.list_id = "l%d.tangle.example" % w.rng.randrange(3)
            if c.received:
                copies.append(c)
                w.deliver(t + 10 * n, c, w.rng.sample(everybody, w.rng.randrange(1, 5)), "tangle")


# --- what must be held ---

def stuck(w, t0):
    """A client that never hears our 250."""
    to = w.ours(2)
    m = w.mail(t0, to)
    for i in range(w.copies // 2):
        w.deliver(t0 + 60 * i, m, to, "stuck")


def bounce(w, t0):
    """Misrouted: our gateway and our own Exchange pass it to and fro."""
    to = w.ours(1)
    m = w.mail(t0, to)
    for i in range(w.copies // 8):
        w.deliver(t0 + 10 * i, m, to, "bounce")
        w.hop(m, "gateway.own.example", t0 + 10 * i + 1)
        w.hop(m, "exchange.own.example", t0 + 10 * i + 2)


class Storm:
    """Faulty servers among the addressees fetch the mail from a mailbox and send it to all of To: again."""

    def __init__(self, w, label, faulty=3, addressees=40, ours=3, pickup=True, strip=False, footer=False, single=False, rename=False, signed=False):
        self.w, self.label, self.pickup, self.strip, self.footer = w, label, pickup, strip, footer
        self.rename, self.signed = rename, signed
        self.single = single
        self.faulty = ["office@%s%d.example" % (label.replace("-", ""), i) for i in range(faulty)]
        self.ours = w.ours(ours)
        others = ["desk%d@%sfirm%d.example" % (i, label.replace("-", ""), i) for i in range(addressees - faulty - ours)]
        self.to = self.faulty + self.ours + others
        self.queue, self.serial = [], 0

    def spread(self, t, mail, sender=None):
        """Reaches us, and the mailboxes of the faulty ones; each fetches a while later."""
        for rcpts in [[r] for r in self.ours] if self.single else [self.ours]:
            self.w.deliver(t, mail.copy(), rcpts, self.label)
        for who in self.faulty:
            if who == sender:
                continue
            domain = who.split("@")[1]
            copy = self.w.hop(mail.copy(), "mx.isp-" + domain, t + 2, who)
            self.serial += 1
            heapq.heappush(self.queue, (t + 60 + self.w.rng.randrange(1800), self.serial, who, copy))

    def resend(self, t, who, mail):
        domain = who.split("@")[1]
        if self.strip:
            mail.strip()
        if self.rename:
            mail.rename(t, domain)
        if self.signed:
            mail.signed(who)
        self.w.hop(mail, "sbs." + domain, t, pickup=self.pickup)
        if self.footer:
            mail.footer("this message was checked by the gateway of " + domain)
        self.w.hop(mail, "smtp.isp-" + domain, t + 3)
        self.spread(t + 5, mail, who)

    def run(self, copies):
        for _ in range(copies):
            if not self.queue:
                return
            t, _, who, mail = heapq.heappop(self.queue)
            self.resend(t, who, mail)

    def begin(self, t, **more):
        self.spread(t + 5, self.w.hop(self.w.mail(t, self.to, **more), "relay.promo-isp.example", t + 2))

    def freeze(self, days):
        self.queue = [(t + days * DAY, n, who, mail) for t, n, who, mail in self.queue]


def storm(w, t0, label="storm", **more):
    s = Storm(w, label, **more)
    s.begin(t0, frm="promo@county.example", words=120)
    s.run(w.copies)


def quick(w, t0):
    storm(w, t0, "quick", pickup=False)


def single(w, t0):
    storm(w, t0, "single", single=True, pickup=False)


def one(w, t0):
    storm(w, t0, "one", faulty=2, ours=1, pickup=False)


def stripped(w, t0):
    storm(w, t0, "stripped", strip=True, pickup=False)


def footers(w, t0):
    storm(w, t0, "footers", footer=True)


def renamed(w, t0):
    """A new Message-ID and Date at each pass, the trace kept."""
    storm(w, t0, "renamed", rename=True)


def reissued(w, t0):
    """As the servers of 2006 did it: new Message-ID, Date and To, no trace but the pickup."""
    storm(w, t0, "reissued", rename=True, strip=True, signed=True)


def anonymous(w, t0):
    """The same without the connector's address in To."""
    storm(w, t0, "anonymous", rename=True, strip=True)


def reissued_footers(w, t0):
    storm(w, t0, "refooted", rename=True, strip=True, signed=True, footer=True)


def outbound(w, t0):
    """We are the relay that one faulty server sends through: we never see the original."""
    to = ["office@outfirm.example"] + ["desk%d@outcustomer%d.example" % (i, i) for i in range(39)]
    m = w.mail(t0, to, frm="promo@county.example", words=120)
    for i in range(w.copies // 4 + 2):
        t = t0 + 900 * i
        c = w.hop(m.copy().strip().rename(t, "outfirm.example").signed(to[0]), "sbs.outfirm.example", t, pickup=True)
        for n in range(0, 40, 10):
            w.deliver(t + n, c, to[n:n + 10], "outbound")


def large(w, t0):
    """The storm of 2006: 630 addressees, three faulty servers."""
    storm(w, t0, "large", addressees=630)


def frozen(w, t0):
    """An outgoing queue is opened 28 days later; and a human answers to all meanwhile."""
    s = Storm(w, "frozen")
    s.begin(t0, frm="promo@county.example")
    s.run(w.copies // 2)
    stop = Storm(w, "frozen")
    stop.ours, stop.to, stop.label = s.ours, s.to, "stop"
    stop.begin(t0 + DAY, frm="angry@person1.example", subject="please stop")
    stop.run(w.copies // 4)
    s.freeze(28)
    s.run(w.copies // 2)


SCENARIOS = {f.__name__: f for f in (persons, retry, resend, lists, newsletter, forwarder, backup, cron, again, monitor, tangle, stuck, bounce,
                                     storm, quick, single, one, stripped, footers, renamed, reissued, anonymous, reissued_footers, outbound,
                                     large, frozen)}


def make(scenarios, seed=1, copies=40):
    """Messages of the scenarios on one time line."""
    w = World(seed, copies)
    for i, name in enumerate(scenarios):
        SCENARIOS[name](w, START + 7 * i)
    return [message for _, _, message in sorted(w.out, key=lambda m: m[:2])]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--copies", type=int, default=40, help="size of each scenario (default 40)")
    p.add_argument("-o", "--output", default="-")
    p.add_argument("scenario", nargs="+", choices=["all", *SCENARIOS])
    a = p.parse_args()
    names = list(SCENARIOS) if "all" in a.scenario else a.scenario
    out = sys.stdout if a.output == "-" else open(a.output, "w", encoding="ascii")
    for message in make(names, a.seed, a.copies):
        out.write(json.dumps(message) + "\n")
    if out is not sys.stdout:
        out.close()


if __name__ == "__main__":
    main()
