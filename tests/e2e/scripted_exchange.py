"""A mail server that behaves as Exchange does, in the test's own process: its EHLO list, its tarpit, so many messages a
connection, 421s, resets. Nothing is sent on; what it took stands in `taken`.

Faults are rows (step, which, action): at the `which`-th such step of all (from 1; None: always) it does `action`:

  step    connect ehlo starttls mail rcpt data text dot rset (text: the first bytes after DATA; dot: all are there)
  action  "450 4.2.1 later" a reply instead of the usual one (421 closes), "reset" (RST), "close" (FIN), "mute" (no reply)

A dot that is answered with 2xx, or that is followed by a reset or by silence, has been taken: "250" may have been on its way.
"""
import re
import socket
import ssl
import struct
import threading
import time

STEPS = "connect ehlo starttls mail rcpt data text dot rset word".split()
EXCHANGE_2003 = ["TURN", "SIZE 10485760", "ETRN", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8bitmime", "BINARYMIME",
                 "CHUNKING", "VRFY", "X-EXPS GSSAPI NTLM LOGIN", "X-EXPS=LOGIN", "AUTH GSSAPI NTLM LOGIN", "AUTH=LOGIN",
                 "X-LINK2STATE", "XEXCH50", "OK"]
EXCHANGE_2016 = ["SIZE 37748736", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "X-ANONYMOUSTLS", "AUTH NTLM", "X-EXPS GSSAPI NTLM",
                 "8BITMIME", "BINARYMIME", "CHUNKING", "XEXCH50", "XRDST", "XSHADOWREQUEST"]


class Message:
    def __init__(self, sender, recipients, data, session):
        self.sender, self.recipients, self.data, self.session = sender, recipients, data, session

    @property
    def addresses(self):
        return [re.match(r"<([^>]*)>", r).group(1) for r in self.recipients]


class Gone(Exception):
    pass


class Exchange:
    def __init__(self, offers=EXCHANGE_2016, tarpit=0.0, per_connection=20, faults=(), certificate=None, wrong_rcpt=None,
                 injected=b"", proxy=False, xclient=False, slow_dot=0.0):
        """tarpit: seconds before a refusal; wrong_rcpt: recipients that contain this do not exist; injected: bytes said with
        the 220 to STARTTLS, before TLS; certificate: (file, key); proxy: a PROXY header comes first."""
        self.offers, self.tarpit, self.per_connection = list(offers), tarpit, per_connection
        self.faults, self.wrong_rcpt, self.injected, self.proxy = list(faults), wrong_rcpt, injected, proxy
        self.slow_dot = slow_dot
        self.context = None
        if xclient:
            self.offers += ["XCLIENT NAME ADDR PORT PROTO HELO LOGIN", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"]
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*certificate)
            self.offers.append("STARTTLS")
        self.lock = threading.Lock()
        self.taken, self.sessions, self.seen = [], [], dict.fromkeys(STEPS, 0)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            session = Session(self, peer)
            with self.lock:
                self.sessions.append(session)
            threading.Thread(target=session.run, daemon=True).start()

    def action(self, step):
        with self.lock:
            self.seen[step] += 1
            for wanted, which, action in self.faults:
                if wanted == step and which in (None, self.seen[step]):
                    return action
        return None

    def said(self):
        """All command lines of all sessions, in order of the sessions."""
        return [line for s in self.sessions for line in s.lines]

    def stop(self):
        """Each thread is woken and closes its own socket: one closed under a thread that waits for it has its number given
        to the next socket, on which that thread then goes on waiting, and takes what is another's."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        for s in self.sessions:
            s.wake()


class Session:
    def __init__(self, server, peer):
        self.server, self.socket = server, peer
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.lines, self.messages = b"", [], 0
        self.sender, self.recipients, self.secure = None, [], False
        self.proxy_header = b""

    def run(self):
        try:
            if self.server.proxy:
                self.proxy_header = self.read_proxy()
            self.answer("connect", "220 exchange.example Microsoft ESMTP MAIL Service ready")
            while True:
                self.command(self.line())
        except (Gone, OSError, ssl.SSLError):
            pass
        self.close()

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass

    def wake(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def fill(self):
        more = self.socket.recv(65536)
        if not more:
            raise Gone
        self.buffer += more

    def read_proxy(self):
        while len(self.buffer) < 16:
            self.fill()
        if self.buffer.startswith(b"\r\n\r\n\0\r\nQUIT\n"):
            n = 16 + struct.unpack(">H", self.buffer[14:16])[0]
            while len(self.buffer) < n:
                self.fill()
        else:
            while b"\r\n" not in self.buffer:
                self.fill()
            n = self.buffer.index(b"\r\n") + 2
        header, self.buffer = self.buffer[:n], self.buffer[n:]
        return header

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        self.lines.append(line.decode("utf-8", "replace"))
        return self.lines[-1]

    def say(self, reply):
        self.socket.sendall(reply.encode() + b"\r\n")
        if reply.startswith(("421", "221")):
            raise Gone

    def fault(self, step, done=lambda: None):
        """What the script wants at this step, if anything: a reply, that was said. done: called before a silent end."""
        action = self.server.action(step)
        if action in ("reset", "close", "mute"):
            done()
        if action == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Gone
        if action == "close":
            raise Gone
        while action == "mute":
            self.fill()
        if action:
            self.refuse(action)
        return action

    def refuse(self, reply):
        time.sleep(self.server.tarpit)
        self.say(reply)

    def answer(self, step, usual, done=lambda: None):
        """The usual reply, or what the script wants; true: 2xx or 3xx was said."""
        reply = self.fault(step, done)
        if reply is None and usual[0] in "45":
            self.refuse(usual)
        elif reply is None:
            if usual[0] in "2":
                done()
            self.say(usual)
        return (reply or usual)[0] in "23"

    def command(self, line):
        verb = line.split(":")[0].split(" ")[0].upper()
        if verb in ("EHLO", "HELO"):
            words = ["exchange.example Hello"] + (self.server.offers if verb == "EHLO" else [])
            if self.secure:
                words = [w for w in words if w != "STARTTLS"]
            self.forget()
            self.answer("ehlo", "\r\n".join(f"250{' ' if i + 1 == len(words) else '-'}{w}" for i, w in enumerate(words)))
        elif verb == "STARTTLS" and self.server.context:
            self.starttls()
        elif verb == "MAIL":
            self.mail(line)
        elif verb == "RCPT":
            self.rcpt(line)
        elif verb == "DATA":
            self.data()
        elif verb == "RSET":
            self.forget()
            self.answer("rset", "250 2.0.0 Resetting")
        elif verb == "NOOP":
            self.say("250 2.0.0 OK")
        elif verb == "QUIT":
            self.say("221 2.0.0 Service closing transmission channel")
        elif verb in ("XCLIENT", "XFORWARD"):
            self.say("220 exchange.example again" if verb == "XCLIENT" else "250 2.0.0 Ok")
        else:
            self.answer("word", "500 5.3.3 Unrecognized command")

    def starttls(self):
        if self.server.action("starttls"):
            self.refuse("454 4.7.0 TLS not available")
            return
        self.socket.sendall(b"220 2.0.0 SMTP server ready\r\n" + self.server.injected)
        self.socket = self.server.context.wrap_socket(self.socket, server_side=True)
        self.buffer, self.secure = b"", True
        self.lines.append("(TLS)")

    def forget(self):
        self.sender, self.recipients = None, []

    def mail(self, line):
        if self.messages >= self.server.per_connection > 0:
            self.say("421 4.4.2 Message submission rate for this client has exceeded the configured limit")
        if self.sender is not None:
            self.answer("mail", "503 5.5.2 Sender already specified")
        elif self.answer("mail", "250 2.1.0 Sender OK"):
            self.sender = line[10:]

    def rcpt(self, line):
        if self.sender is None:
            self.say("503 5.5.2 Need mail command")
            return
        wrong = self.server.wrong_rcpt and self.server.wrong_rcpt in line
        if self.answer("rcpt", "550 5.1.1 User unknown" if wrong else "250 2.1.5 Recipient OK"):
            self.recipients.append(line[8:])

    def data(self):
        if not self.recipients:
            self.say("503 5.5.2 Need rcpt command")
            return
        if not self.answer("data", "354 Start mail input; end with <CRLF>.<CRLF>"):
            return
        while not self.buffer:
            self.fill()
        if self.fault("text"):  # it has spoken too early: it will not take the rest
            raise Gone
        while b"\r\n.\r\n" not in b"\r\n" + self.buffer:
            self.fill()
        text, _, self.buffer = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
        text = re.sub(rb"(\r\n)\.", rb"\1", text + b"\r\n")[2:]
        message = Message(self.sender, self.recipients, text, self)
        self.messages += 1
        self.forget()
        time.sleep(self.server.slow_dot)
        self.answer("dot", "250 2.6.0 Queued mail for delivery", lambda: self.take(message))

    def take(self, message):
        with self.server.lock:
            self.server.taken.append(message)
