"""The storm of 2006 as a world: one letter to 630 addresses in To:, and mail servers among the addressees that fetch it from a
mailbox and send it to everybody in To: again - also to each other's mailboxes, so that it grows.

  origin -> its provider's relay -> 400 receiving domains, and the mailboxes of the faulty ones at their providers
     -> faulty server -> nothing, its provider's smarthost, or a filter -> everybody again ...

January: three faulty servers. "Please stop": somebody answers to all. February, 28 days later: a queue that stood still is
opened, one server was "not really patched", two are new. What is told of it is what one place sees (Vantage), as lines of a trace.
"""
import base64
import heapq
import itertools
import random

from letter import Host, Letter, Net, date, subject, text, transaction

START = 1138010400  # Mon, 23 Jan 2006 10:00:00 +0000
DAY = 86400
HOPS = 48  # a mail server somewhere refuses after so many
UPLINK = 4.0  # seconds the uplink of a small company needs for 630 copies

FIRST = "anna ben carol david emma frank gill harry iris jack karen leo mary neil olive paul rose sam tina".split()
LAST = "adams baker clark dixon evans ford green hill jones king lewis moore owen price reed shaw todd".split()
FIRMS = "alphaprint bellbooks crowngarage dovehotel elmfarm".split()
MX = ("postfix", "sendmail", "exim", "qmail", "exchange2003", "exchange2007", "postfix")

CHAINS = ("kept", "lost", "stripped")
IDENTITIES = ("same", "newid", "reissue")


class Faulty:
    """One faulty server. chain: what it leaves of Received; identity: what of Message-ID, Date and To."""

    def __init__(self, world, n, chain, identity, footer):
        self.n, self.chain, self.identity, self.footer = n, chain, identity, footer
        self.name = FIRMS[n]
        self.domain = f"{self.name}.example"
        self.mailbox = f"office@{self.domain}"
        net = world.net
        local = world.opaque
        host = f"n{n}x{world.random.randrange(1000)}.access{n}.example" if local else f"sbs.{self.name}.example"
        helo = None
        self.signature, self.style = not local, "plain" if local else ("pickup", "pickup", "plain", "fetched", "pickup")[n]
        if n == 4 and not local:  # as installed: a name that a thousand others have
            host = helo = "server.local"
        skew = (0, 0, 3600, -365 * DAY, 170 * DAY)[n]
        self.host = Host(host, net.address(f"line-{n}"), "exchange2003", helo=helo, ptr=f"h{n}.adsl.access{n}.example", skew=skew,
                         zone=("+0000", "+0000", "+0100", "+0000", "-0500")[n])
        self.provider = f"isp-{('north', 'south', 'south', 'west', 'east')[n]}.example"
        mta = ("postfix", "sendmail", "sendmail", "exim", "qmail")[n]
        self.mx = Host(f"mx1.{self.provider}", net.address(self.provider), mta, says_for=not local)
        self.pop = Host(f"pop.{self.provider}", net.address(self.provider), mta)
        # The second and third share a smarthost; what the fourth sends goes through its neighbour's filter.
        self.relay = None
        if n in (1, 2):
            self.relay = world.shared_host("smtp.isp-south.example", "isp-south.example", "postfix")
        if n == 3:
            self.relay = world.shared_host("filter.mailguard.example", "mailguard.example", "exim")
        self.poll = (900, 900, 0, 900, 0)[n]  # 0: it comes by SMTP and goes at once
        self.phase = world.random.randrange(900)
        self.free = 0.0  # when its uplink is
        self.passes = 0
        self.frozen = []  # (letter, what it is a copy of): what lies in its queue that stands still
        self.first = None

    def known_as(self):
        """Every name and address a report may call it by."""
        names = {self.host.ip}
        return names if self.host.name == "server.local" else names | {self.host.name}

    def fetches(self, t, rng):
        if not self.poll:
            return t + rng.uniform(3, 40)
        return t + self.poll - (t + self.phase) % self.poll + rng.uniform(0, 5)

    def resends(self, letter, t):
        """What leaves it of the letter in its mailbox."""
        self.passes += 1
        rng = self.host.random
        if self.identity == "newid":
            letter = letter.put(message_id=self.host.message_id(t))
        if self.identity == "reissue":
            letter = self.reissue(letter, t)
        if self.footer:
            letter = letter.footer(f"This e-mail was checked for viruses by the gateway of {self.domain} (case {rng.getrandbits(20)})")
            letter = letter.but(form=("utf8", "latin", f"alternative:{rng.getrandbits(40):010X}", "html", "utf8")[self.n])
        if self.chain != "kept":
            letter = letter.but(received=(), top=())
        if self.chain != "stripped":
            line = (self.host.pickup(t) if self.style == "pickup" else
                    self.host.fetched(self.mailbox, self.pop, t) if self.style == "fetched" else self.host.plain(t))
            letter = letter.marked(line, self.host)
        return letter.but(at=self.host)

    def reissue(self, letter, t):
        """As the POP3 connector of SBS 2003 does: a new message with the old text."""
        rng = self.host.random
        to = letter.get("To")
        if self.signature:
            if self.passes % 7 == 1 or '<' not in to[:40]:
                to = ",\r\n\t".join(f'"{a.strip()}" <{a.strip()}>' if "<" not in a else a.strip() for a in to.split(","))
            to += f',\r\n\t"Office" <mspop3connector.{self.mailbox}>'
        frm = letter.get("From")
        if "<" in frm and not frm.startswith('"'):
            frm = f'"{frm.split(" <")[0]}" <{frm.split(" <")[1]}'
        arrived = f"{date(t + self.host.skew).split(', ')[1][:-6]}.{rng.randrange(10000):04} (UTC) FILETIME=[{rng.getrandbits(32):08X}:01C62033]"
        index = letter.get("Thread-Index") or base64.b64encode(b"\x01" + rng.getrandbits(168).to_bytes(21, "big")).decode()
        return letter.put(message_id=self.host.message_id(t), date=date(t + self.host.skew, self.host.zone), to=to, From=frm,
                          Content_Class="urn:content-classes:message", Importance="normal", Priority="normal",
                          X_OriginalArrivalTime=arrived, Thread_Index=index, X_MimeOLE="Produced By Microsoft MimeOLE V6.00.3790.2663",
                          X_Mailer=letter.get("X-Mailer") or "Microsoft CDO for Exchange 2000")

    def sends(self, letter, t):
        """On to its relay, if it has one; returns the letter where its recipients' servers meet it."""
        return letter.taken(self.relay, t + 2) if self.relay else letter


class Vantage:
    """Where breakwater stands. ours: the recipients whose mail it sees; outbound: the faulty servers whose relay it is."""

    def __init__(self, name, addressees=3, domains=1, outbound=(), closed=False, opaque=False, week=False):
        self.name, self.addressees, self.domains = name, addressees, domains
        self.outbound, self.closed, self.opaque, self.week = outbound, closed, opaque, week


VANTAGES = {v.name: v for v in (
    Vantage("A"), Vantage("A1", addressees=1), Vantage("B", addressees=120, domains=60),
    Vantage("C", addressees=0, outbound=(0, 1, 2, 3, 4), closed=True), Vantage("C1", addressees=0, outbound=(0,), closed=True),
    Vantage("G", opaque=True), Vantage("G'", opaque=True, week=True))}


class World:
    """made: copies that left anywhere; transactions() is a generator of lines of a trace, which takes verdicts back in a closed
    loop: {recipient: disposition}; None: everything travels on."""

    def __init__(self, vantage, chain="kept", identity="same", footer=False, seed=1, copies=60000, addressees=630):
        self.random = random.Random(f"{seed} {vantage.name} {chain} {identity} {footer}")
        self.vantage, self.chain, self.identity = vantage, chain, identity
        self.opaque, self.copies = vantage.opaque, copies
        self.net, self.hosts = Net(), {}
        self.heap, self.serial = [], itertools.count()
        mixed = chain == "mixed"
        self.faulty = [Faulty(self, n, CHAINS[n % 3] if mixed else chain, IDENTITIES[(n + seed) % 3] if mixed else identity,
                              bool(n % 2) if mixed else footer) for n in range(5)]
        self.active = self.faulty[:3]
        self.made = {"jan": 0, "stop": 0, "feb": 0}
        self.visible = {}  # (faulty server, message): how often it came from there again
        self.begun = set()
        self.people(addressees)
        self.gateway = Host("mx.gateway.example" if not self.opaque else "gw7.example", self.net.address("us"))

    def shared_host(self, name, org, mta):
        if name not in self.hosts:
            self.hosts[name] = Host(name, self.net.address(org), mta)
        return self.hosts[name]

    def people(self, n):
        v = self.vantage
        names = (f"{FIRST[i % 19]}.{LAST[i // 19 % 17]}" for i in itertools.count())
        self.ours = [f"{next(names)}@us{i % v.domains}.example" for i in range(v.addressees)]
        outside = n - len(self.ours) - 5
        others = [f"{next(names)}@firm{i % 400:03}.example" for i in range(outside)]
        self.to = self.ours + others + [f.mailbox for f in self.faulty]
        self.random.shuffle(self.to)
        if v.outbound:
            self.ours = self.to

    # --- what happens ---

    def at(self, t, what):
        heapq.heappush(self.heap, (t, next(self.serial), what))

    def transactions(self):
        self.at(START, self.january)
        while self.heap:
            t, _, what = heapq.heappop(self.heap)
            yield from what(t) or ()

    def january(self, t):
        if self.vantage.week:
            yield from ordinary_week(self, t - 7 * DAY)
        pc = Host("office-pc", "192.168.0.4", ptr="")
        letter = Letter("sales@promo.example", [
            ("From", '"J Smith" <sales@promo.example>'), ("To", ",\r\n\t".join(self.to)),
            ("Subject", "Price list for all customers"), ("Date", date(t)), ("Message-ID", "<43d4a2b0.1060302@promo.example>"),
            ("X-Mailer", "Microsoft Office Outlook, Build 11.0.6353")], text(self.random, 350), pc)
        relay = self.shared_host("relay1.promo-isp.example", "promo-isp.example", "exim")
        office = Host("mail.promo.example", self.net.address("promo.example"), "exchange2003", ptr="mail.promo.example")
        self.original = letter
        self.at(t + 6, lambda t: self.spread(letter.taken(office, t - 4).taken(relay, t - 2), t, "jan"))
        self.at(START + 5400, self.fed_up)
        self.at(START + 28 * DAY, self.february)

    def fed_up(self, t):
        if "asked" not in self.begun:
            self.begun.add("asked")
            self.please_stop(t)
        return ()

    def please_stop(self, t):
        """Somebody has had enough, and says so to everybody."""
        who = self.to[11]
        pc = Host("desk11", "10.1.0.11", ptr="")
        domain = who.split("@")[1]
        quoted = "> " + self.original.text.replace("\r\n", "\r\n> ")
        letter = Letter(who, [
            ("From", f"{who.split('@')[0].title()} <{who}>"), ("To", ",\r\n\t".join(["sales@promo.example"] + self.to)),
            ("Subject", "RE: Price list for all customers"), ("Date", date(t)), ("Message-ID", f"<{t:.0f}.77@{domain}>"),
            ("In-Reply-To", self.original.get("Message-ID")), ("References", self.original.get("Message-ID"))],
            "PLEASE STOP sending this mail. I have had it forty times by now, whoever does this please turn off the machine and "
            "call somebody who knows about mail servers.\r\n\r\n-----Original Message-----\r\n" + quoted, pc)
        relay = self.shared_host("out.desk-isp.example", "desk-isp.example", "postfix")
        self.at(t + 6, lambda t: self.spread(letter.taken(relay, t - 2), t, "stop"))

    def february(self, t):
        """The third one's queue is opened; the first was not patched; two more have bought such a server."""
        self.active = [self.faulty[0], *self.faulty[3:]]
        frozen = self.faulty[2]
        queue = frozen.frozen[:max(3, self.copies // 20 // len(self.to))] or [frozen.first]
        for i, (letter, story) in enumerate(queue):
            self.at(t + i * UPLINK, lambda t, x=letter, s=story: self.spread(frozen.sends(x, t), t, "feb", frozen, s))
        return ()

    def spread(self, letter, t, phase, by=None, story=None):
        """One server hands it to everybody in To:. Yields what the vantage sees of it."""
        story = story or phase
        to = [r for r in self.to if by is None or r != by.mailbox]
        self.made[phase] += len(to)
        passed = set(to)
        if self.sees(by):
            passed = yield from self.arrivals(letter, t, to, phase, story, by)
        for f in self.active:
            if f is not by and f.mailbox in passed and len(letter.received) < HOPS:
                copy = letter.taken(f.mx, t + self.random.uniform(1, 5), f.mailbox)
                self.at(f.fetches(t + 5, self.random), lambda t, f=f, x=copy: self.fetch(f, x, t, story))

    def sees(self, by):
        if not self.vantage.outbound:
            return True
        return by is not None and by.n in self.vantage.outbound

    def arrivals(self, letter, t, to, phase, story, by):
        seen = set(to)
        ours = [r for r in self.ours if r in seen]
        verdicts = []
        parts = self.parts(ours, by)
        label = f"kind=storm phase={phase} id={story} by={by.name if by else 'origin'} made={sum(self.made.values())}"
        if story in self.begun and by:
            self.visible[by.name, story] = self.visible.get((by.name, story), 0) + 1
        self.begun.add(story)
        for i, part in enumerate(parts):
            verdicts.append((yield transaction(t + i * 0.3, letter, part, label)))
        if not self.vantage.closed:
            return seen
        held = {r for part, v in zip(parts, verdicts) for r in part if v and v.get(r) not in (None, "pass", "tag")}
        return seen - held

    def parts(self, ours, by):
        """90 recipients in one transaction; some split them by domain first."""
        if by and by.n == 0 and self.vantage.domains > 1:
            domains = {}
            for r in ours:
                domains.setdefault(r.split("@")[1], []).append(r)
            return list(domains.values())
        return [ours[i:i + 90] for i in range(0, len(ours), 90)]

    def fetch(self, f, letter, t, story):
        february = t > START + 20 * DAY
        phase = "feb" if february else story
        limit = {"jan": self.copies, "stop": self.copies // 4, "feb": self.copies // 2}[phase]
        if self.made[phase] >= limit or (f not in self.active):
            return
        f.free = max(f.free, t) + UPLINK
        sent = f.resends(letter, f.free)
        f.first = f.first or (sent, story)
        if f.n == 2 and not february and self.made[phase] > limit // 3:
            f.frozen.append((sent, story))  # its queue stands still from here on; what it fetched lies there for weeks
            return
        if story == "jan" and self.made["jan"] > self.copies * 0.3:
            self.at(t + 60, self.fed_up)
        self.at(f.free, lambda t: self.spread(f.sends(sent, t), t, phase, f, story))


def ordinary_week(world, t):
    """Mail of everyday life to the addressees, over the hosts the storm will use, too."""
    rng = world.random
    for i in range(1500):
        t += 7 * DAY / 1500
        f = rng.choice(world.faulty)
        who = f"clerk{rng.randrange(4)}@{f.domain}"
        to = rng.choice(world.ours)
        letter = Letter(who, [("From", who), ("To", to), ("Subject", subject(rng)), ("Date", date(t)),
                              ("Message-ID", f"<{rng.getrandbits(48):x}@{f.domain}>")], text(rng, 40), Host("pc", "10.0.0.9", ptr=""))
        letter = letter.taken(f.host, t + 1)
        if f.relay:
            letter = letter.taken(f.relay, t + 3)
        yield transaction(t + 5, letter, [to], "kind=legit")


# --- the scenarios ---

def allowed(vantage, chain, identity):
    """Most copies of one recipient in January, of the reply, and in February. One client whose copies show nothing but itself
    looks like a stuck one (four copies) or like one that lost a 250; without names and traces the allowances are all there is."""
    if vantage in ("B", "C"):
        return {"jan": 1, "stop": 1, "feb": 0}
    if vantage == "C1":
        most = 1 if chain == "kept" else 4 if chain == "stripped" and identity == "same" else 2
        return {"jan": most, "stop": most, "feb": 0}
    if vantage in ("G", "G'") and chain != "kept":
        return {"jan": 3, "stop": 3, "feb": 0}
    if vantage == "G'":
        return {"jan": 2, "stop": 2, "feb": 0}
    return {"jan": 2, "stop": 1, "feb": 0}


def judge(world, score):
    """Which targets do not hold, as sentences; and who was named right, missed, wrong."""
    problems = []
    v = world.vantage
    for phase, most in allowed(v.name, world.chain, world.identity).items():
        got = score.phase(phase)[2]
        if got > most:
            problems.append(f"{phase}: {got} copies to a recipient, not {most}")
        if phase != "feb" and not score.delivered[phase] and not v.outbound:
            problems.append(f"{phase}: nobody got it")
    if v.name == "C" and score.passed > 2 * len(world.to):  # with the 630 that the origin sent itself
        for phase in ("jan", "stop"):
            n = sum(score.delivered[phase].values())
            if n > len(world.to):
                problems.append(f"{phase}: {n} copies passed the relay, not {len(world.to)}")
    detours = {f.name: max((n for (who, _), n in world.visible.items() if who == f.name), default=0) for f in world.faulty}
    guilty = {f.name: (f.known_as(), not v.opaque and detours[f.name] >= 3) for f in world.faulty}
    return problems, guilty


def scenarios(scale):
    out = []
    for v in VANTAGES.values():
        for chain in CHAINS:
            for identity in IDENTITIES:
                for footer in (False, True):
                    name = f"{v.name}-{chain}-{identity}{'-footer' if footer else ''}"
                    out.append((name, v, chain, identity, footer))
        out.append((f"{v.name}-mixed", v, "mixed", "mixed", False))
    copies = {"small": 12000, "default": 60000, "full": 1000000}[scale]
    return [Storm(name, copies // (2 if v.name == "B" and scale != "full" else 1), v, *how) for name, v, *how in out]


class Storm:
    """One scenario for the report."""
    conf = None

    def __init__(self, name, copies, vantage, chain, identity, footer):
        self.name, self.copies, self.what = name, copies, (vantage, chain, identity, footer)
        self.closed = vantage.closed
        self.phases = ("jan", "stop", "feb")

    def begin(self, seed):
        self.world = World(*self.what, seed=seed, copies=self.copies)
        return self.world.transactions()

    def judge(self, score):
        return judge(self.world, score)
