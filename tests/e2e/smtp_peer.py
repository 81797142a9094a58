"""A client of the SMTP door, raw: every byte and every pause is the test's own, replies are read with a deadline.

Client speaks to one port; said() is what came back, as (code, text). Nothing here waits longer than `timeout`.
"""
import re
import socket
import ssl
import struct


class Closed(Exception):
    """The server has closed the connection."""


def stuffed(data):
    """A message as it follows DATA: dots doubled, ended. Its line ends are the test's own affair."""
    out = re.sub(rb"(^|\r\n)\.", rb"\1..", data)
    return out + (b".\r\n" if out.endswith(b"\r\n") or not out else b"\r\n.\r\n")


class Client:
    def __init__(self, port, source="127.0.0.1", timeout=30, greeting=True, first=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.offers = []
        if first:
            self.send(first)
        if greeting:
            self.expect(220)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        while b"\n" not in self.buffer:
            try:
                more = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError) as e:
                raise Closed(str(e)) from e
            if not more:
                raise Closed("end of the connection")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        assert line.endswith(b"\r"), line
        return line[:-1].decode("utf-8", "replace")

    def said(self):
        """One reply: (code, text), its lines joined by a newline."""
        lines = []
        while True:
            line = self.line()
            assert re.match(r"[2-5]\d\d[ -]|[2-5]\d\d$", line), line
            lines.append(line[4:])
            if line[3:4] != "-":
                return int(line[:3]), "\n".join(lines)

    def expect(self, code):
        reply = self.said()
        assert reply[0] == code, reply
        return reply[1]

    def do(self, command, code=None):
        """A command and its reply."""
        self.send((command if isinstance(command, bytes) else command.encode()) + b"\r\n")
        return self.said() if code is None else self.expect(code)

    def ehlo(self, name="client.example"):
        self.offers = self.do(f"EHLO {name}", 250).split("\n")[1:]
        return self.offers

    def offers_word(self, word):
        return any(o.split()[0].upper() == word for o in self.offers)

    def starttls(self, context=None):
        self.do("STARTTLS", 220)
        self.secure(context)

    def secure(self, context=None):
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.gateway.example")
        self.buffer = b""

    def xclient(self, host, address):
        """Speaks for this client from here on."""
        self.do(f"XCLIENT ADDR={address} NAME={host} HELO={host} PROTO=ESMTP", 220)
        self.ehlo(host)

    def mail(self, sender, recipients, data):
        """One message; what was said to MAIL, to each RCPT and to the end of the data."""
        said = self.envelope(sender, recipients)
        said.append(self.text(data))
        return said

    def envelope(self, sender, recipients):
        lines = [f"MAIL FROM:<{sender}>"] + [f"RCPT TO:<{r}>" for r in recipients]
        self.send("".join(line + "\r\n" for line in lines).encode())
        return [self.said() for _ in lines]

    def text(self, data):
        """DATA, the message and its end; the reply to whichever came last."""
        reply = self.do("DATA")
        if reply[0] != 354:
            return reply
        self.send(stuffed(data))
        return self.said()

    def ended(self):
        """True: the server closes the connection without another word."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def reset(self):
        """Ends the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.socket.close()
