"""The MTA's side of the milter protocol, raw: negotiates, sends commands in any order, in pieces of any
size, and reads replies with a deadline. Frames are (letter, data) pairs; bytes() of a session can be
built first and sent later. Nothing here waits longer than `timeout`.
"""
import socket
import struct

ALL_ACTIONS = 0x1FF
ALL_STEPS = 0x1FFFFF
NO_REPLY = {"C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "L": 0x80, "N": 0x40000,
            "B": 0x80000, "U": 0x20000}
FINAL = "cardty"  # ends an event ("s" and "f" are never expected from breakwater)


class Closed(Exception):
    """The filter has closed the connection."""


def frame(letter, data=b""):
    return struct.pack(">I", len(data) + 1) + letter.encode("latin-1") + data


def strings(*texts):
    return b"".join((t if isinstance(t, bytes) else t.encode()) + b"\0" for t in texts)


def offer(version=6, actions=ALL_ACTIONS, steps=ALL_STEPS):
    return frame("O", struct.pack(">III", version, actions, steps))


def connect(name="mx.client.example", address="192.0.2.7", port=40000):
    family = b"6" if ":" in address else b"4"
    return frame("C", strings(name) + family + struct.pack(">H", port) + strings(address))


def macros(stage, **values):
    """macros("M", i="4T7") or with braces: macros("M", **{"{auth_authen}": "joe"})."""
    return frame("D", stage.encode() + strings(*[x for pair in values.items() for x in pair]))


def fields(text):
    """Header text with LF or CRLF lines as (name, value with its leading blank) pairs."""
    out = []
    for line in text.replace("\r\n", "\n").strip("\n").split("\n"):
        if line[:1] in " \t":
            out[-1][1] += "\n" + line
        else:
            name, _, value = line.partition(":")
            out.append([name, value])
    return out


def message(sender, recipients, header, body, queue_id=None, leading_blank=True):
    """The frames of one whole message, MAIL to end of message."""
    out = [macros("M")] if queue_id else []
    out.append(frame("M", strings(*([sender] if isinstance(sender, str) else sender))))
    out += [frame("R", strings(*([r] if isinstance(r, str) else r))) for r in recipients]
    if queue_id:
        out.append(macros("T", i=queue_id))
    out.append(frame("T"))
    for name, value in fields(header):
        out.append(frame("L", strings(name, value if leading_blank else value.lstrip(" "))))
    out.append(frame("N"))
    body = body.encode("latin-1") if isinstance(body, str) else body
    out += [frame("B", body[i:i + 65535]) for i in range(0, len(body), 65535)]
    out.append(frame("E"))
    return b"".join(out)


class Peer:
    """One connection to a filter at a TCP port of this machine or a unix path."""

    def __init__(self, where, timeout=10):
        family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
        self.s = socket.socket(family)
        self.s.settimeout(timeout)
        self.s.connect(("127.0.0.1", where) if isinstance(where, int) else where)
        if family == socket.AF_INET:
            self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.version = self.actions = self.steps = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.s.close()

    def send(self, data, piece=None):
        """All at once, or in pieces of so many bytes."""
        for at in range(0, len(data), piece or max(len(data), 1)):
            try:
                self.s.sendall(data[at:at + (piece or len(data))])
            except (BrokenPipeError, ConnectionResetError) as e:
                raise Closed from e

    def read(self):
        """The next frame: (letter, data)."""
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack(">I", self.buffer[:4])[0]:
            try:
                more = self.s.recv(65536)
            except ConnectionResetError as e:
                raise Closed from e
            if not more:
                raise Closed
            self.buffer += more
        n = struct.unpack(">I", self.buffer[:4])[0]
        one, self.buffer = self.buffer[4:4 + n], self.buffer[4 + n:]
        return one[:1].decode("latin-1"), one[1:]

    def negotiate(self, version=6, actions=ALL_ACTIONS, steps=ALL_STEPS):
        self.send(offer(version, actions, steps))
        letter, data = self.read()
        assert letter == "O", letter
        self.version, self.actions, self.steps = struct.unpack(">III", data[:12])
        assert self.version <= version and not self.actions & ~actions and not self.steps & ~steps
        return data[12:]

    def begin(self, name="mx.client.example", address="192.0.2.7", helo="mx.client.example", **offered):
        """Negotiation, connection facts, HELO."""
        self.negotiate(**offered)
        self.command(connect(name, address))
        self.command(frame("H", strings(helo)))

    def command(self, data):
        """Sends one command; reads its reply if it gets one. Returns the letter or None."""
        self.send(data)
        letter = data[4:5].decode("latin-1")
        if letter in "DAQK" or self.steps & NO_REPLY.get(letter, 0):
            return None
        return self.read()[0]

    def verdict(self):
        """All replies to the end of a message: a list of (letter, data), the final one last."""
        replies = []
        while True:
            replies.append(self.read())
            if replies[-1][0] in FINAL:
                return replies

    def mail(self, sender, recipients, header, body, queue_id=None):
        """One message, step by step as the terms want it; its verdict as for verdict()."""
        data = message(sender, recipients, header, body, queue_id, bool(self.steps & 0x100000))
        while data:
            n = 4 + struct.unpack(">I", data[:4])[0]
            one, data = data[:n], data[n:]
            if one[4:5] == b"E":
                self.send(one)
                return self.verdict()
            assert self.command(one) in (None, "c")
        return None

    def silent(self, seconds=0.3):
        """True if nothing comes for so long (and the connection stays open)."""
        if self.buffer:
            return False
        was = self.s.gettimeout()
        self.s.settimeout(seconds)
        try:
            self.s.recv(1, socket.MSG_PEEK)
            return False
        except (TimeoutError, socket.timeout):
            return True
        finally:
            self.s.settimeout(was)

    def closed(self, seconds=5):
        """True if the filter closes within so long; what it still says is kept for read()."""
        self.s.settimeout(seconds)
        try:
            while True:
                more = self.s.recv(65536)
                if not more:
                    return True
                self.buffer += more
        except ConnectionResetError:
            return True
        except (TimeoutError, socket.timeout):
            return False
