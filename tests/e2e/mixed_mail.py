"""Mail of every shape, all invented: mixed(n, seed) yields n messages, as bytes. Some hold bare CR and LF, NUL, 8-bit text,
very long lines, only dots, no header, no body, no last line end; normalised() is what the SMTP door makes of one."""
import base64
import quopri
import random
import re

WORDS = ("the harbour office asks all captains to move their boats before the storm because a breakwater is repaired on "
         "Monday morning and nobody can say how high the waves will be please answer soon thank you").split()
ODD = [b"\r", b"\n", b"\0", b"\x0b", b"\x1a", b"\x1b[2J", b"\xff", b"\xc2\x85", b"\xe2\x80\xae", b"\r\r\n", b"\n\r\n"]


def words(r, n):
    return " ".join(r.choice(WORDS) for _ in range(n))


def line(r):
    kind = r.random()
    if kind < 0.70:
        return words(r, r.randrange(1, 14)).encode()
    if kind < 0.80:
        return b"." * r.randrange(1, 5) + words(r, r.randrange(0, 3)).encode()
    if kind < 0.86:
        return b""
    if kind < 0.90:
        return bytes(r.choice([0xfc, 0xe4, 0x80, 0xff, 0x41, 0x20]) for _ in range(r.randrange(1, 90)))
    if kind < 0.93:
        return b"x" * r.choice([76, 77, 78, 510, 511, 512, 998, 999, 1000, 1001, 2048, 16383, 16384, 16385, 40000])
    if kind < 0.96:
        return words(r, 5).encode() + b" \t " * r.randrange(1, 3)
    return b"From " + words(r, 3).encode()


def header(r, i):
    out = [b"Message-ID: <mixed.%d@sender.example>" % i, b"Date: Mon, 23 Jan 2006 10:00:00 +0000",
           b"From: Someone <someone@sender.example>", b"Subject: " + words(r, r.randrange(1, 9)).encode()]
    if r.random() < 0.3:
        out.append(b"X-Folded: begins\r\n " + words(r, 4).encode() + b"\r\n\tand goes on")
    if r.random() < 0.1:
        out.append(b"Subject:" + line(r)[:900].replace(b"\r", b"").replace(b"\n", b""))
    if r.random() < 0.1:
        out += [b"X-Field-%d: %d" % (k, k) for k in range(r.randrange(300))]
    if r.random() < 0.05:
        out.append(b"This is no field")
    r.shuffle(out)
    return b"\r\n".join(out) + b"\r\n"


def multipart(r):
    boundary = b"=_%08x" % r.getrandbits(32)
    text = quopri.encodestring(words(r, 30).encode() + b" = \xfc").replace(b"\n", b"\r\n")
    blob = base64.encodebytes(bytes(r.getrandbits(8) for _ in range(r.randrange(400)))).replace(b"\n", b"\r\n")
    return (b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\nContent-Type: text/plain; "
            b"charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%s\r\n--%s\r\nContent-Type: application/zip\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n%s--%s--\r\n" % (boundary, boundary, text, boundary, blob, boundary))


def message(r, i):
    kind = r.random()
    body = b"\r\n".join(line(r) for _ in range(r.choice([0, 1, 2, 5, 20, 60])))
    if kind < 0.03:
        data = b"\r\n" + body  # no header
    elif kind < 0.05:
        data = header(r, i)  # no body
    elif kind < 0.20:
        data = header(r, i) + multipart(r)
    elif kind < 0.21:
        data = b"\r\n".join([b"."] * r.randrange(1, 200))
    else:
        data = header(r, i) + b"\r\n" + body
    if r.random() < 0.9:
        data += b"\r\n"
    if r.random() < 0.25:  # foul bytes anywhere
        for _ in range(r.randrange(1, 5)):
            at = r.randrange(len(data) + 1)
            data = data[:at] + r.choice(ODD) + data[at:]
    if r.random() < 0.002:
        data += b"y" * 78 + b"\r\n" + (words(r, 12).encode() + b"\r\n") * 20000  # larger than what is kept in memory
    return data


def mixed(n, seed):
    r = random.Random(seed)
    for i in range(n):
        yield message(r, i)


def unstuffed(data):
    return re.sub(rb"(\A|\r\n)\.", rb"\1", data)


def normalised(data):
    """A bare LF ends a line, a bare CR is a blank; a message ends with a line end."""
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    return re.sub(rb"\r\n|\r|\n", lambda m: b" " if m.group() == b"\r" else b"\r\n", data)
