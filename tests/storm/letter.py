"""Letters and the mail servers that carry them, byte by byte as such servers write them.

A Host takes a letter from the host that has it and puts its Received field on top, in the manner of its software:

  postfix, sendmail, exim, qmail      with queue ids of their own kind
  exchange2003, exchange2007          SMTPSVC without any id; the later one with both addresses

A Letter never changes: every step makes a new one, and copies that parted keep what they share. All names lie below .example,
all addresses in the ranges for documentation, benchmarks (RFC 2544) and carriers (RFC 6598).
"""
import base64
import functools
import quopri
import random
import time

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FILETIME = 11644473600  # seconds from 1601 to 1970


def date(t, zone="+0000"):
    """RFC 5322 date of the moment t, as a clock in that zone shows it."""
    offset = (int(zone[1:3]) * 3600 + int(zone[3:]) * 60) * (-1 if zone[0] == "-" else 1)
    g = time.gmtime(t + offset)
    return (f"{WEEKDAYS[g.tm_wday]}, {g.tm_mday} {MONTHS[g.tm_mon - 1]} {g.tm_year} {g.tm_hour:02}:{g.tm_min:02}:{g.tm_sec:02} "
            f"{zone}")


def number(n, base, width):
    out = ""
    for _ in range(width):
        out = DIGITS[n % base] + out
        n //= base
    return out


class Net:
    """Addresses: each organisation has a /24 of its own."""

    def __init__(self):
        self.nets, self.used = {}, {}

    def address(self, org):
        if org not in self.nets:
            n = len(self.nets)
            self.nets[org] = (f"198.{18 + n // 256}.{n % 256}" if n < 512
                              else f"100.{64 + (n - 512) // 256 % 64}.{(n - 512) % 256}")
        self.used[org] = self.used.get(org, 9) + 1
        return f"{self.nets[org]}.{self.used[org] % 254 + 1}"


class Host:
    """name: as it calls itself in "by"; ip: what its next hop sees; helo: what it says; ptr: what the DNS says ("": nothing)."""

    def __init__(self, name, ip, mta="postfix", helo=None, ptr=None, skew=0, zone="+0000", says_for=True, seed=0):
        self.name, self.ip, self.mta = name, ip, mta
        self.helo = name if helo is None else helo
        self.ptr = name if ptr is None else ptr
        self.skew, self.zone, self.says_for = skew, zone, says_for
        self.random = random.Random(f"{name} {ip} {seed}")

    def line(self, peer, t, sender, rcpt):
        return getattr(self, "line_" + self.mta)(peer, t, sender, f"<{rcpt}>" if rcpt and self.says_for else "")

    def when(self, t):
        return date(t + self.skew, self.zone)

    def line_postfix(self, peer, t, sender, rcpt):
        rcpt = f"\r\n\tfor {rcpt}" if rcpt else ""
        comment = " (GMT)" if self.zone == "+0000" else ""
        return [f"from {peer.helo} ({peer.ptr or 'unknown'} [{peer.ip}])\r\n\tby {self.name} (Postfix) with ESMTP id "
                f"{self.random.getrandbits(44):011X}{rcpt}; {self.when(t)}{comment}"]

    def line_sendmail(self, peer, t, sender, rcpt):
        rcpt = f"\r\n\tfor {rcpt}" if rcpt else ""
        queue = "k0N" + number(self.random.getrandbits(30), 36, 5) + f"{self.random.randrange(32768):06}"
        ptr = f"{peer.ptr} [{peer.ip}]" if peer.ptr else f"[{peer.ip}] (may be forged)"
        return [f"from {peer.helo} ({ptr})\r\n\tby {self.name} (8.13.1/8.13.1) with ESMTP id {queue}{rcpt};\r\n\t{self.when(t)}"]

    def line_exim(self, peer, t, sender, rcpt):
        rcpt = f"\r\n\tfor {rcpt[1:-1]}" if rcpt else ""
        queue = (f"1{number(self.random.getrandbits(34), 62, 5)}-{number(self.random.getrandbits(34), 62, 6)}-"
                 f"{number(self.random.getrandbits(10), 62, 2)}")
        name = f"{peer.ptr} ([{peer.ip}]" if peer.ptr else f"[{peer.ip}] ("
        helo = f" helo={peer.helo}" if peer.helo != peer.ptr else ""
        clause = f"{name}{helo})" if peer.ptr else f"[{peer.ip}] (helo={peer.helo})"
        return [f"from {clause}\r\n\tby {self.name} with esmtp (Exim 4.60)\r\n\t(envelope-from <{sender}>)\r\n\tid {queue}{rcpt}; "
                f"{self.when(t)}"]

    def line_qmail(self, peer, t, sender, rcpt):
        when = date(t + self.skew).split(", ")[1].replace("+0000", "-0000")
        return [f"(qmail {self.random.randrange(1000, 32000)} invoked by uid 89); {when}",
                f"from {peer.ptr or 'unknown'} (HELO {peer.helo}) ({peer.ip})\r\n  by {self.name} with SMTP; {when}"]

    def line_exchange2003(self, peer, t, sender, rcpt):
        return [f"from {peer.helo} ([{peer.ip}]) by {self.name} with Microsoft SMTPSVC(6.0.3790.1830);\r\n\t {self.when(t)}"]

    def line_exchange2007(self, peer, t, sender, rcpt):
        return [f"from {peer.helo} ({peer.ip}) by {self.name}\r\n ({self.ip}) with Microsoft SMTP Server id 8.1.278.0; {self.when(t)}"]

    def pickup(self, t):
        """A program dropped it as a file."""
        return f"from mail pickup service by {self.name} with Microsoft SMTPSVC;\r\n\t {self.when(t)}"

    def fetched(self, mailbox, server, t):
        return (f"from {server.name} [{server.ip}]\r\n\tby {self.name} with POP3 (fetchmail-6.2.5)\r\n\tfor <{mailbox}> (single-drop); "
                f"{self.when(t)}")

    def plain(self, t):
        """A home-made server tells only its own name."""
        return f"by {self.name} (MailGate 3.1) id {self.random.getrandbits(32):08X};\r\n\t{self.when(t)}"

    def message_id(self, t):
        """As Outlook and CDO make them: a FILETIME and the machine's private address."""
        ticks = int((t + self.skew + FILETIME) * 10_000_000)
        return (f"<{self.random.randrange(16):06x}01{ticks >> 40 & 0xffff:04x}${ticks >> 8 & 0xffffffff:08x}$0b64a8c0@"
                f"{self.name.split('.', 1)[-1]}>")


class Letter:
    """fields: (name, value) without Received; received: newest first; footers: texts added on the way."""
    __slots__ = ("sender", "fields", "received", "text", "footers", "form", "at", "top")

    def __init__(self, sender, fields, text, at, form="plain"):
        self.sender, self.fields, self.text, self.at, self.form = sender, tuple(fields), text, at, form
        self.received, self.footers, self.top = (), (), ()

    def but(self, **changes):
        twin = object.__new__(Letter)
        for name in Letter.__slots__:
            setattr(twin, name, changes[name] if name in changes else getattr(self, name))
        return twin

    def taken(self, host, t, rcpt=None):
        """Accepted by host from where it is; rcpt: its only recipient there."""
        return self.but(received=(*host.line(self.at, t, self.sender, rcpt), *self.received), at=host)

    def marked(self, line, host):
        return self.but(received=(line, *self.received), at=host)

    def get(self, name):
        for n, v in self.fields:
            if n.lower() == name.lower():
                return v
        return None

    def put(self, **values):
        """Fields replaced or added (None: taken away); message_id= is Message-ID."""
        wanted = {n.replace("_", "-").lower(): (n.replace("_", "-"), v) for n, v in values.items()}
        fields = []
        for n, v in self.fields:
            if n.lower() in wanted:
                n, v = n, wanted.pop(n.lower())[1]
            if v is not None:
                fields.append((n, v))
        return self.but(fields=(*fields, *((n, v) for n, v in wanted.values() if v is not None)))

    def footer(self, text):
        return self.but(footers=(*self.footers, text))

    def data(self):
        head = [f"{n}: {v}\r\n" for n, v in self.top]
        head += [f"Received: {line}\r\n" for line in self.received]
        head += [f"{n}: {v}\r\n" for n, v in self.fields]
        return "".join(head) + body(self.text, self.footers, self.form)


@functools.lru_cache(512)
def body(text, footers, form):
    """MIME fields, the empty line, and the text in one of its forms; "alternative:X" has the boundary X."""
    whole = text + "".join("\r\n-- \r\n" + f + "\r\n" for f in footers)
    kind, _, tag = form.partition(":")
    if kind == "bare":
        return "\r\n" + whole
    if kind == "plain":
        return "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n" + whole
    if kind == "utf8":
        encoded = base64.encodebytes(whole.encode()).decode().replace("\n", "\r\n")
        return ('MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
                + encoded)
    if kind == "latin":
        return ('MIME-Version: 1.0\r\nContent-Type: text/plain; charset="iso-8859-1"\r\nContent-Transfer-Encoding: quoted-printable'
                "\r\n\r\n" + printable(whole, "latin-1"))
    page = ("<html><head><style>p { margin: 0 }</style><title>mail</title></head><body><p>"
            + whole.replace("&", "&amp;").replace("\r\n", "<br>\r\n") + "</p></body></html>\r\n")
    if kind == "html":
        return ('MIME-Version: 1.0\r\nContent-Type: text/html; charset="us-ascii"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n' + page)
    mark = f"----_=_NextPart_001_{tag}"
    return (f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n\tboundary="{mark}"\r\n\r\nThis is a multi-part message in '
            f'MIME format.\r\n\r\n--{mark}\r\nContent-Type: text/plain;\r\n\tcharset="us-ascii"\r\nContent-Transfer-Encoding: '
            f'quoted-printable\r\n\r\n{printable(whole, "latin-1")}\r\n--{mark}\r\nContent-Type: text/html;\r\n\tcharset="us-ascii"\r\n'
            f'Content-Transfer-Encoding: 7bit\r\n\r\n{page}\r\n--{mark}--\r\n')


def printable(text, charset):
    return quopri.encodestring(text.replace("\r\n", "\n").encode(charset)).decode().replace("\n", "\r\n")


WORDS = ("harbour meeting invoice delivery order planning supplier county council training business link event autumn spring office "
         "printer engine garden window timber market quarter report minutes agenda vehicle insurance letter customer quality bridge "
         "river station museum library school kitchen village concert festival season ticket price list paper toner chair folder "
         "catalogue telephone working day offer month early number street account payment review contract builder water energy road "
         "bicycle summer winter holiday family doctor nurse hospital machine steel copper cotton flour bread cheese apple orange "
         "computer network server backup folder screen cable switch router license update version change request problem answer "
         "question project budget schedule visit travel hotel train flight lunch dinner breakfast coffee please thanks regards "
         "could would should after before between during about under above several every other another because although while").split()


def text(rng, words):
    """Prose of so many words."""
    lines, line = [], []
    for w in rng.choices(WORDS, k=words):
        line.append(w)
        if len(line) == 11:
            lines.append(" ".join(line))
            line = []
    if line:
        lines.append(" ".join(line))
    return "\r\n".join(lines) + "\r\n"


def subject(rng):
    return " ".join(rng.choices(WORDS, k=4)).capitalize()


def transaction(t, letter, rcpts, label, client=None):
    """One line of a trace (DESIGN.md 9): the letter arrives from where it is."""
    at = client or letter.at
    return {"t": round(t, 3), "client": at.ip, "helo": at.helo, "name": at.ptr or "unknown", "from": letter.sender, "rcpt": list(rcpts),
            "data": letter.data(), "label": label}
