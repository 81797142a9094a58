"""Ordinary mail, above all the kinds that look like a storm and are none. Nothing of it may be held.

A kind is a function (town, t) that yields lines of a trace, sorted by time, beginning at t; `us` are sixty small companies whose
mail breakwater sees. Many copies are sent twice by honest servers: for an administrator each kind here is a story that happened.
"""
import base64
import heapq
import random

from letter import Host, Letter, Net, date, subject, text, transaction

START = 1138010400 - 20 * 86400
DAYS = 14
DAY = 86400
MTAS = ("postfix", "sendmail", "exim", "qmail", "exchange2003", "exchange2007", "postfix", "exim")
FORMS = ("plain", "plain", "latin", "utf8", "html", "bare", "alternative:A7")
NAMES = "anna ben carol david emma frank gill harry iris jack".split()


class Town:
    """Hosts and addresses that stay the same; the dice of one story."""

    def __init__(self):
        self.net, self.hosts = Net(), {}
        self.random, self.backups = None, 0

    def host(self, name, mta=None, org=None, **more):
        if name not in self.hosts:
            org = org or ".".join(name.split(".")[-2:])
            n = sum(map(ord, name))
            self.hosts[name] = Host(name, self.net.address(org), mta or MTAS[n % len(MTAS)], skew=(0, 0, 0, -40, 7200)[n % 5], **more)
        return self.hosts[name]

    def us(self, n=1):
        """n different addresses of ours."""
        return [f"{NAMES[i % 10]}@us{i // 10}.example" for i in self.random.sample(range(600), n)]

    def colleagues(self, n, company=None):
        """n different addresses in one company of ours."""
        company = self.random.randrange(60) if company is None else company
        return [f"{(NAMES + ['info', 'sales', 'jobs', 'press', 'shop', 'help', 'board', 'office'])[i]}@us{company}.example"
                for i in self.random.sample(range(18), n)]

    def person(self):
        return f"{self.random.choice(NAMES)}.{self.random.randrange(40)}@firm{self.random.randrange(250)}.example"

    def mail(self, t, frm, to, words=None, form=None, at=None, sender=None, body=None, hop=True, **fields):
        """Written by frm at t, at its company's server (or at)."""
        rng = self.random
        domain = frm.split("@")[1]
        base = {"From": frm, "To": ",\r\n\t".join(to), "Subject": subject(rng), "Date": date(t, rng.choice(("+0000", "+0100", "-0500"))),
                "Message_ID": f"<{rng.getrandbits(56):014x}@{domain}>"}
        base.update(fields)
        fields = [(n.replace("_", "-"), v) for n, v in base.items() if v is not None]
        letter = Letter(frm if sender is None else sender, fields, text(rng, words or rng.randrange(6, 120)) if body is None else body,
                        Host(f"pc{rng.randrange(90)}", f"192.168.{rng.randrange(9)}.{rng.randrange(2, 250)}", ptr=""),
                        form or rng.choice(FORMS))
        return letter.taken(at or self.host(f"mail.{domain}"), t) if hop else letter.but(at=at or self.host(f"mail.{domain}"))


def tell(t, letter, rcpts, story, client=None):
    return transaction(t, letter, rcpts, f"kind=legit what={story}", client)


# --- people ---

def person(w, t):
    to = w.us(w.random.choice((1, 1, 1, 2, 3)))
    yield tell(t + 2, w.mail(t, w.person(), to + [w.person()]), to, "person")


def tiny(w, t):
    """Empty bodies and "ok": the same text from the same person again and again."""
    frm, to = w.person(), w.us(1)
    for i in range(6):
        t += w.random.randrange(200, 4000)
        yield tell(t + 2, w.mail(t, frm, to, body=w.random.choice(("", "ok\r\n", "Looks good to me.\r\n")), form="plain"), to, "tiny")


def many_visible(w, t):
    """One letter to forty of us, all in To:, in two transactions."""
    to = w.us(40)
    letter = w.mail(t, w.person(), to)
    yield tell(t + 2, letter, to[:20], "many-visible")
    yield tell(t + 3, letter, to[20:], "many-visible")


def again(w, t):
    """ "I send it again": the same words, a new message, to twelve visible people; from the office."""
    frm, to = w.person(), w.us(12)
    s, b = subject(w.random), text(w.random, 70)
    for i in range(2):
        yield tell(t + 2, w.mail(t, frm, to, Subject=s, body=b, form="plain"), to, "again")
        t += w.random.randrange(600, 20000)


def again_elsewhere(w, t):
    """The same from home, over another provider."""
    frm, to = w.person(), w.us(12)
    s, b = subject(w.random), text(w.random, 70)
    yield tell(t + 2, w.mail(t, frm, to, Subject=s, body=b, form="plain"), to, "again-elsewhere")
    t += w.random.randrange(600, 20000)
    home = w.host(f"smtp{w.random.randrange(3)}.homenet{w.random.randrange(5)}.example")
    yield tell(t + 2, w.mail(t, frm, to, Subject=s, body=b, form="plain", at=home), to, "again-elsewhere")


def again_one(w, t):
    """To one person, from another network, under a new Message-ID."""
    frm, to = w.person(), w.us(1)
    s, b = subject(w.random), text(w.random, 50)
    for i in range(3):
        at = w.host(f"smtp.homenet{i}.example") if i else None
        yield tell(t + 2, w.mail(t, frm, to, Subject=s, body=b, form="plain", at=at), to, "again-one")
        t += w.random.randrange(300, 9000)


def resent(w, t):
    """A person redirects it; the message stays the same but for Resent-."""
    frm, to = w.person(), w.us(2)
    letter = w.mail(t, frm, to)
    yield tell(t + 2, letter, to, "resent")
    for i in range(2):
        t += 3000
        who = w.person()
        again = letter.but(fields=(("Resent-From", who), ("Resent-To", to[0]), ("Resent-Date", date(t)),
                                   ("Resent-Message-ID", f"<{w.random.getrandbits(40):x}@{who.split('@')[1]}>"), *letter.fields))
        again = again.taken(w.host("mx." + who.split("@")[1]), t).taken(w.host("mail." + who.split("@")[1]), t + 1)
        yield tell(t + 2, again, [to[0]], "resent")


def discussion(w, t):
    """Some people, much quoting, short answers; all in To and Cc."""
    people = [w.person() for _ in range(w.random.randrange(2, 8))]
    ours = w.us(w.random.randrange(1, 5))
    s, head, parent, quoted = subject(w.random), None, None, ""
    for i in range(w.random.randrange(4, 24)):
        t += w.random.expovariate(1 / 900)
        who = w.random.choice(people)
        mid = f"<{w.random.getrandbits(50):x}@{who.split('@')[1]}>"
        new = "ok agreed\r\n" if w.random.random() < .25 else text(w.random, w.random.randrange(10, 60))
        more = {"References": f"{head} {parent}", "In_Reply_To": parent} if head else {}
        letter = w.mail(t, who, [p for p in people if p != who] + ours, Subject=("Re: " if head else "") + s, Message_ID=mid,
                        body=new + quoted, form="plain", **more)
        head, parent = head or mid, mid
        quoted = ("> " + (new + quoted).replace("\r\n", "\r\n> "))[:3000] + "\r\n"
        yield tell(t + 2, letter, ours, "discussion")


def chat(w, t):
    """Two people, sixty mails, 100 seconds apart; breakwater sees both directions."""
    ends = (w.us(1)[0], w.person())
    s, refs = subject(w.random), []
    small = "yes no maybe lunch at noon then see you there ok fine what about the report is it ready soon".split()
    for i in range(60):
        t += w.random.expovariate(1 / 100)
        frm, to = ends[i % 2], ends[1 - i % 2]
        mid = f"<{w.random.getrandbits(50):x}@{frm.split('@')[1]}>"
        more = {"In_Reply_To": refs[-1], "References": " ".join(refs[-8:])} if refs else {}
        yield tell(t + 1, w.mail(t, frm, [to], Subject=("Re: " if i else "") + s, Message_ID=mid, form="plain",
                                 body=" ".join(w.random.choices(small, k=15)) + "\r\n", **more), [to], "chat")
        refs.append(mid)


# --- the same message twice, and why ---

def retry(w, t):
    """Our 250 was lost: the same queue entry once to three times more."""
    to = w.us(w.random.randrange(1, 4))
    letter = w.mail(t, w.person(), to)
    for i in range(w.random.randrange(2, 5)):
        yield tell(t + 2, letter, to, "lost-250")
        t += 300 << i


def pool(w, t):
    """A provider's pool tries again from another machine."""
    to = w.us(w.random.randrange(1, 3))
    n = w.random.randrange(20)
    letter = w.mail(t, f"user{w.random.randrange(99)}@pool{n}.example", to, at=w.host(f"in.pool{n}.example", "exim"))
    for i in range(2):
        out = w.host(f"out{w.random.randrange(9)}.pool{n}.example", "postfix")
        yield tell(t + 5, letter.taken(out, t + 3), to, "pool-retry")
        t += 400


def upstream(w, t):
    """One server lost the other's 250: the next one has it twice."""
    to = w.us(w.random.randrange(1, 4))
    letter = w.mail(t, w.person(), to)
    relay = w.host(f"relay.carrier{w.random.randrange(9)}.example")
    for i in range(2):
        yield tell(t + 5, letter.taken(relay, t + 3), to, "upstream-retry")
        t += 300


def backup(w, t):
    """The 250 was lost at the first MX; then it comes over the backup. Before that the backup brought mail of some others: one
    of which nothing at all is known looks like a replicator."""
    to = w.us(w.random.randrange(1, 4))
    letter = w.mail(t, w.person(), to)
    mx = w.host("mx2.backup.example", "postfix")
    w.backups += 1
    if w.backups > 10 and w.random.random() < .5:
        yield tell(t + 2, letter, to, "backup-mx")
    yield tell(t + 100, letter.taken(mx, t + 90), to, "backup-mx")


def forwarded(w, t):
    """The old address forwards to the new one; both are in To: as often as not."""
    to = w.us(1)
    old = f"{to[0].split('@')[0]}@former{w.random.randrange(30)}.example"
    letter = w.mail(t, w.person(), [old] + (to if w.random.random() < .5 else []))
    if to[0] in letter.get("To"):
        yield tell(t + 2, letter, to, "forwarded")
    old_mx, out = w.host("mx." + old.split("@")[1], "qmail"), w.host("out." + old.split("@")[1])
    copy = letter.taken(old_mx, t + 3, old).taken(out, t + 4)
    if w.random.random() < .4:
        copy = copy.footer("Forwarded for you, your address has changed")
    yield tell(t + 6, copy, to, "forwarded")


def disclaimer(w, t):
    """A direct copy, and one over a branch office whose gateway adds its disclaimer."""
    to = w.us(1)
    branch = f"branch{w.random.randrange(20)}.example"
    letter = w.mail(t, w.person(), to + [f"all@{branch}"], words=40)
    yield tell(t + 2, letter, to, "disclaimer")
    copy = letter.taken(w.host(f"gw.{branch}", "exchange2003"), t + 5).footer(
        "This e-mail and its attachments are confidential and meant for the addressee alone. If you are not the addressee please "
        "tell the sender and delete it. " + branch)
    yield tell(t + 9, copy.but(form="alternative:D1"), to, "disclaimer")


def content_filter(w, t):
    """A filter beside our MTA: everything passes the milter twice, the second time from 127.0.0.1."""
    to = w.us(2)
    letter = w.mail(t, w.person(), to)
    ours = w.host("mx.us-hosting.example", "postfix")
    yield tell(t + 2, letter, to, "content-filter")
    local = Host("localhost", "127.0.0.1", ptr="localhost")
    copy = letter.taken(ours, t + 3).but(at=local)
    yield tell(t + 4, copy, to, "content-filter")


def two_visits(w, t):
    """Zimbra, amavis, mimecast: one host writes several lines, others in between."""
    to = w.us(w.random.randrange(1, 3))
    mx, scan = w.host("zimbra.suite.example", "postfix"), w.host("eu-smtp-1.filtercast.example", "exim")
    letter = w.mail(t, f"{w.random.choice(NAMES)}@suite.example", to, at=mx)
    local = Host("localhost", "127.0.0.1", ptr="localhost")
    letter = letter.but(at=local).taken(mx, t + 1).but(at=local).taken(Host("localhost", "127.0.0.1"), t + 1)
    letter = letter.but(at=mx).taken(scan, t + 2).taken(mx, t + 3)
    yield tell(t + 5, letter, to, "two-visits")
    if w.random.random() < .1:
        yield tell(t + 400, letter, to, "two-visits")


# --- lists ---

def exploder(w, n, marked):
    return w.host(f"lists{n}.{'lists' if marked else 'groups'}.example", "postfix" if n % 2 else "sendmail")


def posted(w, letter, t, n, marked, subscribers, footer=True, one_by_one=False):
    """The list's copies: each subscriber's own, or in one transaction."""
    host = exploder(w, n, marked)
    name = f"club{n}"
    letter = letter.taken(host, t, f"{name}@lists.example").but(sender=f"{name}-bounces@lists.example")
    if marked:
        letter = letter.put(List_Id=f"Club {n} <{name}.lists.example>", Precedence="list", Sender=f"{name}-bounces@lists.example",
                            Errors_To=f"{name}-bounces@lists.example",
                            Subject=letter.get("Subject") if n % 3 else f"[{name}] {letter.get('Subject')}")
    if footer and marked:
        letter = letter.footer(f"{name} mailing list\r\nhttp://lists.example/mailman/listinfo/{name}").but(
            form="utf8" if n % 4 == 0 else letter.form)
    if one_by_one:
        for i, r in enumerate(subscribers):
            yield t + 2 + i * .2, letter.but(sender=f"{name}-bounces+{r.replace('@', '=')}@lists.example"), [r]
    else:
        yield t + 2, letter, subscribers


def mailing_list(w, t):
    """A direct copy, and one by each list it was sent to."""
    to = w.us(w.random.randrange(1, 3))
    lists = w.random.sample(range(40), w.random.randrange(1, 4))
    direct = w.random.random() < .5
    letter = w.mail(t, w.person(), [f"club{n}@lists.example" for n in lists] + (to if direct else []))
    if direct:
        yield tell(t + 2, letter, to, "list")
    for k, n in enumerate(lists):
        for at, copy, rcpts in posted(w, letter, t + 5 + k * 20, n, True, to, one_by_one=bool(n % 2)):
            yield tell(at, copy, rcpts, "list")


def busy_list(w, t):
    """120 posts a day, some of us subscribed."""
    n = 40 + w.random.randrange(5)
    subscribers = w.us(5)
    writers = [w.person() for _ in range(25)]
    parents = []
    for i in range(120):
        t += w.random.expovariate(1 / 720)
        who = w.random.choice(writers)
        mid = f"<{w.random.getrandbits(50):x}@{who.split('@')[1]}>"
        s, more = subject(w.random), {}
        if parents and w.random.random() < .8:
            s, head, parent = w.random.choice(parents[-5:])
            more = {"In_Reply_To": parent, "References": f"{head} {parent}"}
            parents.append((s, head, mid))
            s = "Re: " + s
        else:
            parents.append((s, mid, mid))
        letter = w.mail(t, who, [f"club{n}@lists.example"] + (w.random.sample(writers, 2)), Subject=s, Message_ID=mid, **more)
        for at, copy, rcpts in posted(w, letter, t + 4, n, True, subscribers):
            yield tell(at, copy, rcpts, "busy-list")


def unmarked_group(w, t):
    """A partner's distribution group without any header field, and a direct Cc."""
    to = w.us(2)
    n = w.random.randrange(30)
    letter = w.mail(t, w.person(), [f"team{n}@groups.example"] + to)
    yield tell(t + 2, letter, to, "unmarked-group")
    for at, copy, rcpts in posted(w, letter, t + 5, n, False, to):
        yield tell(at, copy, rcpts, "unmarked-group")


def patches(w, t):
    """A series of 146 messages in an hour by one sender, over a list, some of us in Cc."""
    who, to, n = w.person(), w.us(2), 3
    head = f"<{w.random.getrandbits(50):x}-0@{who.split('@')[1]}>"
    s = subject(w.random)
    body = text(w.random, 60)
    for i in range(146):
        t += 24
        mid = head if i == 0 else head.replace("-0@", f"-{i}@")
        more = {"In_Reply_To": head, "References": head} if i else {}
        letter = w.mail(t, who, [f"club{n}@lists.example"] + (to if i % 3 == 0 else []), Subject=f"[PATCH {i}/145] {s}", Message_ID=mid,
                        body=body + text(w.random, 25), form="plain", **more)
        if i % 3 == 0:
            yield tell(t + 1, letter, to, "patches")
        for at, copy, rcpts in posted(w, letter, t + 3, n, True, to, footer=False):
            yield tell(at, copy, rcpts, "patches")


def moderated(w, t):
    """A post waits for the moderator, who sends it back to its list: the list's host is in the trace three times."""
    to, n = w.us(2), 7
    host, home = exploder(w, n, True), w.host("mx.moderator.example")
    letter = w.mail(t, w.person(), [f"club{n}@lists.example"])
    letter = letter.taken(host, t + 2).taken(home, t + 9, "mod@moderator.example")
    t += w.random.randrange(6, 13) * 3600
    letter = letter.taken(host, t).taken(w.host("archive.lists.example"), t + 1)
    for at, copy, rcpts in posted(w, letter, t + 4, n, True, to):
        yield tell(at, copy, rcpts, "moderated")


def list_vacation(w, t):
    """Vacation messages of subscribers come to a list, and to its owner."""
    to, n, s = w.us(2), w.random.randrange(40), subject(w.random)
    head = f"<{w.random.getrandbits(50):x}@firm1.example>"
    for i in range(10):
        t += w.random.randrange(2, 200)
        letter = w.mail(t, w.person(), [f"club{n}@lists.example"], sender="", Subject=f"Out of office: {s}", In_Reply_To=head, References=head,
                        Auto_Submitted="auto-replied", body="I am out of the office until Monday and will answer your message then\r\n")
        for at, copy, rcpts in posted(w, letter, t + 4, n, True, to):
            yield tell(at, copy, rcpts, "list-vacation")


# --- machines that write to many ---

def newsletter(w, t):
    """One content to many of us; in half of them each copy has its own Message-ID and link."""
    n = w.random.randrange(30)
    frm, own = f"news@shop{n}.example", w.random.random() < .5
    body, s = text(w.random, 180), subject(w.random)
    mid = f"<{w.random.getrandbits(50):x}@shop{n}.example>"
    for i, r in enumerate(w.us(120)):
        out = w.host(f"mta{i % 4}.shop{n}.example")
        more = {"Message_ID": f"<{w.random.getrandbits(50):x}.{i}@shop{n}.example>"} if own else {"Message_ID": mid}
        letter = w.mail(t, frm, [r if own else f"readers@shop{n}.example"], Subject=s, body=body, form="html" if n % 2 else "plain", at=out,
                        sender=f"bounce+{r.replace('@', '=')}@shop{n}.example", Date=date(t), **more)
        if own:
            letter = letter.footer(f"unsubscribe http://shop{n}.example/u/{w.random.getrandbits(40):x}")
        yield tell(t + i * .1, letter, [r], "newsletter")


def two_providers(w, t):
    """The same newsletter through a second provider next day, to the same people."""
    n, s, body = w.random.randrange(30), subject(w.random), text(w.random, 150)
    to = w.us(30)
    for k in range(2):
        for i, r in enumerate(to):
            out = w.host(f"send{i % 3}.mailer{(n + k) % 5}.example")
            letter = w.mail(t, f"news@brand{n}.example", [r], Subject=s, body=body, form="html", at=out,
                            sender=f"b{i}@mailer{(n + k) % 5}.example", List_Unsubscribe="<http://example/u>" if n % 2 else None)
            yield tell(t + i * .1, letter, [r], "two-providers")
        t += w.random.randrange(3600, 90000)


def visible_company(w, t):
    """To twelve visible people of one company, through two providers."""
    n, s, body = w.random.randrange(30), subject(w.random), text(w.random, 90)
    to = w.colleagues(12)
    for k in range(2):
        out = w.host(f"send{k}.mailer{(n + k) % 5}.example")
        yield tell(t + 2, w.mail(t, f"offers@brand{n}.example", to, Subject=s, body=body, form="plain", at=out), to, "visible-company")
        t += 4000


def personalised(w, t):
    """A template in which a name and two numbers differ."""
    n, body, s = w.random.randrange(30), text(w.random, 100), subject(w.random)
    for i, r in enumerate(w.us(60)):
        mine = f"Dear {r.split('@')[0]}, your number is {w.random.randrange(10 ** 6)}, you owe {w.random.randrange(900)} pounds.\r\n" + body
        yield tell(t + i * .2, w.mail(t, f"bills@utility{n}.example", [r], Subject=s, body=mine, form="plain",
                                      at=w.host(f"batch.utility{n}.example", "exchange2003")), [r], "personalised")


def cron(w, t):
    """The same words every ten minutes: new Message-ID, always the same one, or none; to an address or to twelve visible people."""
    n = w.random.randrange(3)
    to = w.us(1) if w.random.random() < .6 else w.us(12)
    domain = f"servers{w.random.randrange(20)}.example"
    body = text(w.random, w.random.choice((3, 12, 60)))
    for i in range(20):
        mid = {"Message_ID": (f"<{w.random.getrandbits(50):x}@{domain}>", f"<always@{domain}>", None)[n]}
        yield tell(t + 1, w.mail(t, f"root@{domain}", to, Subject="Cron <root@www> /usr/local/bin/check", body=body, form="bare", **mid),
                   to, "cron")
        t += 600


def monitoring(w, t):
    """Thirty alarms within one second out of one pick-up folder, to eleven visible people: the same template each time, and
    where few machines fail, the same words."""
    to, machines = w.us(11), w.random.choice((5, 40))
    domain = f"watch{w.random.randrange(10)}.example"
    host = w.host(f"noc.{domain}", "exchange2003")
    for i in range(30):
        body = f"Alarm: the disk of host{w.random.randrange(machines)} is full, please look at it now and tell the others when it is done.\r\n"
        letter = w.mail(t, f"alarm@{domain}", to, Subject="Alarm", body=body, form="plain", hop=False, at=host,
                        Message_ID=f"<{w.random.getrandbits(50):x}@{domain}>")
        yield tell(t + i / 40, letter.marked(host.pickup(t), host), to, "monitoring")


def scanner(w, t):
    """A copier: the same words, another picture each time."""
    to = w.us(1)
    domain = f"copier{w.random.randrange(20)}.example"
    for i in range(8):
        t += w.random.randrange(20, 3000)
        picture = base64.encodebytes(w.random.randbytes(600)).decode().replace("\n", "\r\n")
        letter = w.mail(t, f"scan@{domain}", to, Subject="Scanned document", form="bare", body="")
        whole = ('--b1\r\nContent-Type: text/plain\r\n\r\nPlease open the attached document. It was scanned and sent to you using a '
                 'copier.\r\n--b1\r\nContent-Type: image/tiff; name="scan.tif"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
                 f"{picture}--b1--\r\n")
        letter = letter.put(MIME_Version="1.0", Content_Type='multipart/mixed; boundary="b1"').but(text=whole)
        yield tell(t + 1, letter, to, "scanner")


def web_form(w, t):
    """A form on a web page: one template, now and then sent twice by an impatient visitor."""
    to = w.us(1)
    domain = f"www{w.random.randrange(20)}.example"
    for i in range(6):
        t += w.random.randrange(60, 9000)
        body = f"Name: {w.person()}\r\nQuestion: {text(w.random, 15)}"
        for k in range(1 + (i % 3 == 0)):
            yield tell(t + 3 * k, w.mail(t + 3 * k, f"www-data@{domain}", to, Subject="Contact form", body=body, form="bare"), to, "web-form")


# --- machines that answer ---

def tickets(w, t):
    """A monitoring system reports, a ticket system acknowledges each time."""
    ends = (f"alarm@watch{w.random.randrange(10)}.example", f"tickets@us{w.random.randrange(60)}.example")
    for i in range(30):
        t += w.random.choice((4, 30, 300))
        mid = f"<{w.random.getrandbits(50):x}@watch.example>"
        body = f"disk usage on host {w.random.randrange(99)} is {w.random.randrange(100)} percent please check the volume now\r\n"
        yield tell(t + 1, w.mail(t, ends[0], [ends[1]], Subject=f"ALERT disk {i}", Message_ID=mid, Auto_Submitted="auto-generated",
                                 body=body, form="plain"), [ends[1]], "tickets")
        t += 3
        yield tell(t + 1, w.mail(t, ends[1], [ends[0]], Subject=f"[T{i}] received", In_Reply_To=mid, References=mid, form="plain",
                                 Auto_Submitted="auto-replied",
                                 body=f"we received your message and opened ticket number {i} for you thank you\r\n"), [ends[0]], "tickets")


def vacation(w, t):
    """One of us writes to many; some answer that they are away, each once."""
    me = w.us(1)[0]
    s, mid = subject(w.random), f"<{w.random.getrandbits(50):x}@us.example>"
    for i in range(12):
        t += w.random.randrange(1, 400)
        who = w.person()
        yield tell(t + 1, w.mail(t, who, [me], sender=w.random.choice(("", who)), Subject=f"Automatic reply: {s}", In_Reply_To=mid,
                                 References=mid, Auto_Submitted="auto-replied", X_Auto_Response_Suppress="All",
                                 body="I am out of the office until Monday and will answer your message when I return to my desk\r\n"),
                   [me], "vacation")


def bounces(w, t):
    """A newsletter of ours comes back from hundreds of addresses; some bounces have no Message-ID, some no Date."""
    me = w.us(1)[0]
    for i in range(150):
        t += w.random.expovariate(.5)
        domain = f"firm{w.random.randrange(250)}.example"
        more = {}
        if w.random.random() < .12:
            more["Message_ID"] = None
        if w.random.random() < .03:
            more["Date"] = None
        body = ("This is the mail system. I am sorry to have to inform you that your message could not be delivered to one or more "
                f"recipients.\r\n<reader{w.random.randrange(10 ** 6)}@{domain}>: unknown user\r\n")
        yield tell(t + 1, w.mail(t, f"MAILER-DAEMON@{domain}", [me], sender="", Subject="Undelivered Mail Returned to Sender", body=body,
                                 form="plain", Auto_Submitted="auto-replied", **more), [me], "bounces")


# how many stories of each kind in a part of 10,000 recipient-copies
KINDS = ((person, 500), (tiny, 20), (many_visible, 8), (again, 15), (again_elsewhere, 15), (again_one, 40), (resent, 40), (discussion, 30),
         (chat, 3), (retry, 90), (pool, 70), (upstream, 70), (backup, 80), (forwarded, 110), (disclaimer, 50), (content_filter, 60),
         (two_visits, 90), (mailing_list, 130), (busy_list, 1), (unmarked_group, 40), (patches, 1), (moderated, 20), (list_vacation, 6),
         (newsletter, 7), (two_providers, 7), (visible_company, 15), (personalised, 8), (cron, 6), (monitoring, 4), (scanner, 15),
         (web_form, 20), (tickets, 4), (vacation, 12), (bounces, 2))


class Ordinary:
    """kinds: names; parts: of 10,000 recipient-copies."""
    conf, closed, phases = None, False, ()

    def __init__(self, name, kinds, parts):
        self.name, self.parts = name, parts
        self.kinds = [(f, n) for f, n in KINDS if kinds is None or f.__name__ in kinds]

    def begin(self, seed):
        return self.transactions(seed)

    def transactions(self, seed):
        town = Town()
        dice = random.Random(f"{seed} {self.name}")
        stories = sorted((START + dice.random() * DAYS * DAY, f.__name__, i, f)
                         for f, n in self.kinds for i in range(max(1, round(n * self.parts))))
        # A story is told line by line when its time comes: the town's dice are its own meanwhile.
        heap, serial = [], 0
        for t, name, i, f in stories:
            yield from self.until(town, heap, t)
            serial += 1
            rng = random.Random(f"{seed} {self.name} {name} {i}")
            self.tell(town, heap, serial, rng, f(town, int(t)))
        yield from self.until(town, heap, float("inf"))

    @staticmethod
    def tell(town, heap, serial, rng, story):
        town.random = rng
        line = next(story, None)
        if line:
            heapq.heappush(heap, (line["t"], serial, rng, story, line))

    def until(self, town, heap, t):
        while heap and heap[0][0] <= t:
            _, serial, rng, story, line = heapq.heappop(heap)
            yield line
            self.tell(town, heap, serial, rng, story)

    def judge(self, score):
        self.note = f"{sum(score.kinds.values()):,} copies of {len(self.kinds)} kinds"
        return ([f"{score.throttled} copies deferred"] if score.throttled else []), {}


def scenarios(scale):
    """Every kind alone, and all together on one time line."""
    parts = {"small": 0.2, "default": 38, "full": 100}[scale]
    one = {"small": 0.1, "default": 0.4, "full": 2}[scale]
    return [Ordinary(f"ordinary-{f.__name__.replace('_', '-')}", {f.__name__}, one) for f, _ in KINDS] + [Ordinary("ordinary", None, parts)]
