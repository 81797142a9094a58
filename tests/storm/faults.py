"""Other ways in which mail goes wrong: stuck clients, mail in a circle, forged traces that accuse a victim, too many people who
answer everybody, machines that answer each other, and floods.

Each scenario is a class with a name, closed (held mail does not travel on), begin(seed) -> lines of a trace, and judge(score) ->
(missed targets as sentences, who is guilty).
"""
import itertools
import math
import random

from letter import Host, Letter, Net, date, subject, text, transaction

START = 1138010400  # Mon, 23 Jan 2006 10:00:00 +0000
DAY = 86400
OWN = 'own {{ hosts = {{ {hosts} }} domains = {{ {domains} }} }}\nnode {{ name = "us" site_key = "DIR/site.key" }}\nhold {{ path = "DIR" }}\n'


class Fault:
    conf, closed, phases = None, False, ("-",)

    def begin(self, seed):
        self.random = random.Random(f"{seed} {self.name}")
        self.net = Net()
        return self.transactions()

    def host(self, name, org=None, mta="postfix", **more):
        return Host(name, self.net.address(org or name.split(".", 1)[-1]), mta, **more)

    def letter(self, t, frm, to, at, words=60, form="plain", sender=None, **fields):
        base = {"From": frm, "To": ",\r\n\t".join(to), "Subject": subject(self.random), "Date": date(t),
                "Message_ID": f"<{self.random.getrandbits(56):014x}@{frm.split('@')[1]}>"}
        base.update(fields)
        body = base.pop("text", None)
        return Letter(frm if sender is None else sender, [(n.replace("_", "-"), v) for n, v in base.items()],
                      body or text(self.random, words), at, form)

    def at_most(self, score, most, phase="-"):
        got = score.phase(phase)[2]
        out = [] if got <= most else [f"{got} copies to a recipient, not {most}"]
        return out + ([] if score.delivered[phase] else ["nobody got it"])


class Stuck(Fault):
    """A client that never understands our 250."""
    name = "stuck-client"

    def __init__(self, copies=2000):
        self.copies = copies

    def transactions(self):
        client = self.host("mail.stuck.example")
        to = ["anna@us.example", "ben@us.example"]
        letter = self.letter(START, "clerk@stuck.example", to, Host("pc", "192.168.1.2", ptr="")).taken(client, START)
        for i in range(self.copies):
            yield transaction(START + 60 * i, letter, to, f"kind=storm id=stuck made={2 * i + 2}")

    def judge(self, score):
        return self.at_most(score, 4), {"stuck": ({"mail.stuck.example"}, False)}


class Circle(Fault):
    """Misrouted: our gateway and our own Exchange pass one message to and fro."""

    def __init__(self, own):
        self.name = "circle-own-exchange" if own else "circle-unknown-exchange"
        if own:
            self.conf = OWN.format(hosts='"gateway.own.example", "exchange.own.example"', domains='"own.example"')
        self.closed = True

    def transactions(self):
        gateway, exchange = self.host("gateway.own.example"), self.host("exchange.own.example", mta="exchange2003")
        origin = self.host("mail.partner.example", mta="exim")
        to = ["anna@own.example"]
        letter = self.letter(START, "clerk@partner.example", to, Host("pc", "192.168.1.2", ptr="")).taken(origin, START)
        for i in range(60):
            t = START + 10 * i
            verdict = yield transaction(t, letter, to, f"kind=storm id=circle made={i + 1}")
            if verdict and verdict[to[0]] not in ("pass", "tag"):
                return
            letter = letter.taken(gateway, t + 1, to[0]).taken(exchange, t + 2)

    def judge(self, score):
        return self.at_most(score, 3), {"own": ({"gateway.own.example", "exchange.own.example"}, False)}


class Ring(Fault):
    """Two people forward to each other, one of them through us: kept: their servers leave Message-IDs alone."""
    closed = True

    def __init__(self, stamped, kept):
        self.stamped, self.kept = stamped, kept
        self.name = f"forward-ring{'-delivered-to' if stamped else ''}{'' if kept else '-newid'}"

    def transactions(self):
        us, them = self.host("mx.us.example"), self.host("mx.them.example", mta="qmail")
        origin = self.host("mail.partner.example")
        letter = self.letter(START, "clerk@partner.example", ["anna@us.example"], Host("pc", "10.0.0.2", ptr="")).taken(origin, START)
        for i in range(60):
            t = START + 30 * i
            verdict = yield transaction(t, letter, ["anna@us.example"], f"kind=storm id=ring made={i + 1}")
            if verdict and verdict["anna@us.example"] not in ("pass", "tag"):
                return
            letter = letter.taken(us, t + 1, "anna@us.example")
            if self.stamped:
                letter = letter.but(top=(("Delivered-To", "anna@us.example"), *letter.top))
            letter = letter.taken(them, t + 5, "bob@them.example")
            if self.stamped:
                letter = letter.but(top=(("Delivered-To", "bob@them.example"), *letter.top))
            if not self.kept:
                letter = letter.put(Message_ID=them.message_id(t + 6))

    def judge(self, score):
        return self.at_most(score, 3), {"ring": ({"mx.us.example", "mx.them.example"}, False)}


class Forged(Fault):
    """Somebody sends one message again and again, under traces that accuse a server which has nothing to do with it."""

    def __init__(self, how):
        self.how, self.name = how, f"forged-{how}"

    def transactions(self):
        victim = self.host("sbs.victim.example", mta="exchange2003")
        mx = self.host("mx.victim-isp.example")
        attacker = self.host("bot.attacker.example", helo="sbs.victim.example" if self.how == "helo" else None,
                             ptr="h66.dial.attacker.example")
        relay = self.host("smtp.attacker-isp.example")
        to = [f"user{i}@us{i % 7}.example" for i in range(30)]
        visible = to + ["office@victim.example"]
        for i in range(50):
            t = START + 120 * i
            letter = self.letter(START, "sales@promo.example", visible, Host("pc", "192.168.3.3", ptr=""), Subject="An offer",
                                 Message_ID="<offer.1@promo.example>", text="The same offer for everybody who reads this mail today " * 8)
            if i:
                origin = self.host("relay.promo.example")
                letter = letter.taken(origin, START + 2).taken(mx, START + 5, "office@victim.example")
                if self.how != "plain":
                    letter = letter.marked(victim.pickup(t - 30), victim)
                if self.how == "smarthost":
                    letter = letter.taken(relay, t - 5)
                    attacker = relay
            yield transaction(t, letter.but(at=attacker), to, f"kind=storm id=forged made={30 * (i + 1)}")
            if i % 5 == 2:  # the victim goes on writing ordinary mail
                who = self.random.choice(to)
                own = self.letter(t + 60, "office@victim.example", [who], Host("pc", "192.168.0.7", ptr="")).taken(victim, t + 61)
                yield transaction(t + 65, own, [who], "kind=legit")

    def judge(self, score):
        return self.at_most(score, 1), {"attacker": ({"bot.attacker.example", "smtp.attacker-isp.example",
                                                      self.net.nets["attacker.example"] + ".11"}, False)}


NOISE = ("please remove me from this list", "stop replying all", "me too", "why am I getting this", "unsubscribe",
         "thanks for the update I think the second option is the better one because of cost and time " * 2)


class ReplyAll(Fault):
    """Many people answer everybody. median: replies until a hold, of some such storms; limits are those of detection.md 8."""
    LIMITS = {50: 24, 100: 19, 630: 11, 2500: 6, 10000: 6}

    def __init__(self, size, inside, trials):
        self.size, self.inside, self.trials = size, inside, trials
        self.name = f"reply-all-{size}-{'gateway' if inside else 'isp'}"

    def transactions(self):
        heap = itertools.chain.from_iterable(self.one(n) for n in range(self.trials))
        yield from heap

    def one(self, n):
        rng = self.random
        t = START + n * DAY
        domain = f"corp{n}.example"
        people = [f"p{i}@{domain if self.inside else f'd{i % 300}.example'}" for i in range(self.size)]
        ours = people if self.inside else people[:max(8, self.size // 5)]
        head = f"<{rng.getrandbits(48):012x}@{domain}>"
        index = "AcYgM" + "".join(rng.choices("ABCDEFGHabcdefgh01234567", k=25))
        parent, visible = head, people
        relay = self.host(f"out.{domain}", mta="exchange2003")
        begin = self.letter(t, f"boss@{domain}", people, Host("pc", "10.0.0.2", ptr=""), Message_ID=head, Subject="New car park",
                            text="big announcement " * 20, Thread_Index=index + "==").taken(relay, t)
        run = f"run={n} size={self.size} kind=other"
        yield from self.parts(t + 1, begin, ours, f"{run} reply=0")
        end, i = t + 7200, 0
        while t < end and i < 120:
            i += 1
            t += rng.expovariate((.15 * math.sqrt(self.size / 50) + .04 * min(i, 40)) / 60)
            who = rng.choice(people)
            at = relay if self.inside else self.host(f"out{i % 5}.{who.split('@')[1]}", mta="sendmail")
            mid = f"<{rng.getrandbits(48):012x}@{who.split('@')[1]}>"
            to = [f"boss@{domain}"] + [p for p in visible if p != who]
            letter = self.letter(t, who, to, Host("pc", f"10.0.{i}.2", ptr=""), Message_ID=mid, Subject="RE: New car park",
                                 In_Reply_To=parent, References=f"{head} {parent}" if parent != head else head,
                                 text=rng.choice(NOISE) + "\r\n").taken(at, t)
            if rng.random() < .4:
                parent = mid
            yield from self.parts(t + 1, letter, [p for p in ours if p != who], f"{run} reply={i}")

    def parts(self, t, letter, rcpts, label):
        """At the own gateway in transactions of 500, at an ISP of 90 recipients."""
        most = 500 if self.inside else 90
        for i in range(0, len(rcpts), most):
            yield transaction(t, letter, rcpts[i:i + most], label)

    def judge(self, score):
        firsts = []
        for run in score.order.values():
            held = [int(w["reply"]) for _, w, verdict, _, _ in run if verdict == "hold"]
            firsts.append(min(held) if held else None)
        self.firsts = firsts
        found = sorted(f for f in firsts if f is not None)
        out = []
        if len(found) < len(firsts):
            out.append(f"{len(firsts) - len(found)} of {len(firsts)} such storms were not held")
        median = found[len(found) // 2] if found else 0
        # detected "after n": reply n makes it a storm and is the first that is held.
        if found and median > self.LIMITS[self.size] + 1:
            out.append(f"held from reply {median} on (median of {len(found)}), not {self.LIMITS[self.size] + 1}")
        late = sum(1 for run in score.order.values() for _, w, v, _, _ in run if v in ("pass", "tag") and self.after(run, w))
        self.note = f"held from reply {median} on"
        total = sum(len(run) for run in score.order.values())
        if late > total / 20:
            out.append(f"{late} of {total} messages passed after the first hold")
        return out, {}

    @staticmethod
    def after(run, w):
        first = min((int(x["reply"]) for _, x, v, _, _ in run if v == "hold"), default=10 ** 9)
        return int(w["reply"]) > first


OOF = "I am out of the office until Monday and will answer your message when I return to my desk"


class PingPong(Fault):
    """Two machines answer each other through us, 60 times if nobody stops them."""
    LIMITS = {"vacation": 6, "unmarked": 10, "ticket": 12, "bounce": 6}  # the first pass is a person's
    closed = True

    def __init__(self, kind, trials=20, both=True):
        self.kind, self.trials, self.name = kind, trials, f"ping-pong-{kind}"

    def transactions(self):
        for n in range(self.trials):
            yield from self.one(n)

    def one(self, n):
        rng, t = self.random, START + n * DAY / 4
        ends = [(f"anna@us{n}.example", self.host(f"out.us{n}.example")), (f"desk@they{n}.example", self.host(f"mx.they{n}.example", mta="exim"))]
        last, head, subj = None, None, subject(rng)
        start = subj
        for i in range(60):
            (frm, at), (to, _) = (ends[i % 2], ends[1 - i % 2])
            t += rng.choice((4, 30, 300))
            mid = f"<{rng.getrandbits(48):012x}@{frm.split('@')[1]}>"
            more, sender, body = {}, frm, None
            if i == 0:
                body = text(rng, 40)
            elif self.kind == "vacation":
                start = "Automatic reply: " + start if i < 12 else start
                more, body = {"Auto_Submitted": "auto-replied", "X_Auto_Response_Suppress": "All"}, f"{OOF} ref {i}\r\n"
                sender = "" if i % 4 == 3 else frm
            elif self.kind == "unmarked":
                start, body = "Re: " + start if i < 12 else start, OOF + "\r\n"
            elif self.kind == "ticket":
                start = f"Re: [T{n}] {subj}"
                more = {"Auto_Submitted": "auto-replied"} if i % 2 == 0 else {}
                body = f"{OOF} ticket {i}\r\n" + "> quoted text of before\r\n" * i
            else:
                start, sender = "Undeliverable: " + start if i < 12 else start, ""
                body = f"This is the mail system. Your message could not be delivered: {OOF} {i}\r\n"
            if last and self.kind != "bounce":
                more.update(In_Reply_To=last, References=f"{head} {last}" if head != last else last)
            if last and self.kind == "bounce":
                more.update(References=last)
            letter = self.letter(t, frm, [to], Host("app", "10.9.0.1", ptr=""), sender=sender, Message_ID=mid, Subject=start, text=body,
                                 **more).taken(at, t)
            last, head = mid, head or mid
            verdict = yield transaction(t + 1, letter, [to], f"kind=other run={n} pass={i}")
            if verdict and verdict[to] not in ("pass", "tag"):
                return

    def judge(self, score):
        passes = sorted(sum(v in ("pass", "tag") for _, _, v, _, _ in run) for run in score.order.values())
        limit, out = self.LIMITS[self.kind], []
        unbroken = sum(p >= 60 for p in passes)
        if unbroken:
            out.append(f"{unbroken} of {len(passes)} went on for 60 passes")
        median = passes[len(passes) // 2]
        self.note = f"broken after {median} passes"
        if median > limit:
            out.append(f"broken after {median} passes (median), not {limit}")
        if min(passes) < 4:
            out.append(f"broken after {min(passes)} passes already")
        return out, {}


class Flood(Fault):
    """A relay that sends fifty times what it has sent for a month; or one that nobody knows."""

    def __init__(self, known, days=30, rate=1.5):
        self.known, self.days, self.rate = known, days if known else 1, rate
        self.name = "flood-learned-relay" if known else "flood-new-relay"

    def transactions(self):
        rng = self.random
        relay = self.relay = self.host("out.customer.example", org="customer.example")
        other = [self.host(f"out.c{i}.example") for i in range(4)]
        t, bursts = START - START % DAY, 0
        for minute in range(self.days * 1440):
            t += 60
            hour = t // 3600 % 24
            usual = self.rate * (.15 + 1.2 * math.exp(-((hour - 11) / 4.5) ** 2)) * (1 if t // DAY % 7 < 5 else .35)
            bursts = max(0, bursts - 1) if rng.random() > 1 / 4000 else rng.randrange(5, 40)
            lam = usual * (4 if bursts else 1) * rng.gammavariate(2, .5)
            for _ in range(poisson(rng, lam) if self.known else 0):
                yield self.mail(t + rng.random() * 50, relay, "usual")
            if not self.known and rng.random() < .3:
                yield self.mail(t + rng.random() * 50, rng.choice(other), "usual")
        t += 10 * 3600
        self.flood_begins = t
        for minute in range(30):
            t += 60
            for i in range(poisson(rng, 50 * self.rate)):
                yield self.mail(t + i * 50 / 200, relay, "flood")

    def mail(self, t, at, phase):
        frm = f"user{self.random.randrange(50)}@{at.name.split('.', 1)[1]}"
        to = f"somebody{self.random.randrange(3000)}@d{self.random.randrange(200)}.example"
        letter = self.letter(t, frm, [to], Host("pc", "10.1.1.1", ptr=""), words=30).taken(at, t)
        return transaction(t, letter, [to], f"kind=other run=flood phase={phase}")

    def judge(self, score):
        run = score.order["flood"]
        usual = [v for _, w, v, _, _ in run if w["phase"] == "usual"]
        flood = [(t, v) for t, w, v, _, _ in run if w["phase"] == "flood"]
        out = []
        if any(v not in ("pass", "tag") for v in usual):
            out.append(f"{sum(v not in ('pass', 'tag') for v in usual)} of {len(usual)} usual messages were not passed")
        if any(v in ("hold", "reject") for _, v in flood):
            out.append("a flood is to be slowed down, not held")
        stopped = [t for t, v in flood if v == "throttle"]
        self.note = f"slowed down after {(stopped[0] - self.flood_begins) / 60:.0f} min" if stopped else "not slowed down"
        if self.known and (not stopped or stopped[0] - self.flood_begins > 6 * 60):
            out.append("the flood was " + self.note)
        return out, {self.relay.name: ({self.relay.name}, True)} if self.known else {}


def poisson(rng, lam):
    if lam > 30:
        return max(0, int(rng.gauss(lam, math.sqrt(lam)) + .5))
    limit, k, p = math.exp(-lam), 0, rng.random()
    while p > limit:
        k += 1
        p *= rng.random()
    return k


def scenarios(scale):
    trials = {"small": 3, "default": 11, "full": 40}[scale]
    out = [Stuck(200 if scale == "small" else 2000), Circle(True), Circle(False)]
    out += [Ring(stamped, kept) for stamped in (False, True) for kept in (True, False)]
    out += [Forged(how) for how in ("plain", "pickup", "helo", "smarthost")]
    for size in ReplyAll.LIMITS:
        most = trials if size <= 630 else max(3, trials // 2) if size <= 2500 else 3
        out += [ReplyAll(size, inside, most) for inside in (False, True) if size < 10000 or not inside]
    out += [PingPong(kind, 2 * trials) for kind in PingPong.LIMITS]
    out += [Flood(True, days=8 if scale == "small" else 30), Flood(False)]
    return out
