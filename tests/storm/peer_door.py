"""The demo without a mail server: the milter door is driven as an MTA would drive it, and a message that passes is handed to
a sink over SMTP, which stands for the mailboxes."""
import json
import os
import smtplib
import subprocess
import threading

from daemon import Daemon
from milter_peer import Peer


class PeerDoor:
    name = "breakwaterd's milter door, and a sink for what passes"

    def __init__(self, directory, storm):
        self.daemon_dir = os.path.join(directory, "breakwater")
        self.out = os.path.join(directory, "sink.jsonl")
        self.messages = os.path.join(directory, "messages")
        os.makedirs(self.daemon_dir)
        os.makedirs(self.messages)
        from daemon import BUILD
        self.sink = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.out], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL)
        self.sink_port = int(self.sink.stdout.readline().decode().strip().rpartition(":")[2])
        self.lock = threading.Lock()
        try:  # the sink has no breakwater in front: released copies go without the token
            self.daemon = Daemon(self.daemon_dir, release_to=f"127.0.0.1:{self.sink_port}",
                                 release='helo = "breakwater.gateway.example" rate = 200 token = no')
        except RuntimeError:
            self.sink.kill()
            raise

    def session(self):
        return PeerSession(self)

    def settle(self):
        pass  # the sink has answered: it is there

    def delivered(self, storm):
        count = {a: 0 for a in storm.recipients}
        for line in open(self.out):
            row = json.loads(line)
            count[row["rcpt"]] += 1
        return count

    def stop(self):
        status = self.daemon.stop()
        self.sink.terminate()
        self.sink.wait()
        return status


class PeerSession:
    def __init__(self, door):
        self.door = door
        self.peer = None
        self.client = None
        self.smtp = smtplib.SMTP("127.0.0.1", door.sink_port, timeout=60)
        self.smtp.ehlo("mx.gateway.example")

    def send(self, host, address, reversepath, recipients, data):
        if self.client != (host, address):
            if self.peer:
                self.peer.close()
            self.peer = Peer(self.door.daemon.port, timeout=60)
            self.peer.begin(host, address, host)
            self.client = (host, address)
        header, _, body = data.decode().partition("\r\n\r\n")
        replies = self.peer.mail(f"<{reversepath}>", [f"<{r}>" for r in recipients], header, body, queue_id="4T0001")
        final = replies[-1][0]
        if final == "d":
            return
        if final not in "ca":
            raise RuntimeError(f"the filter said {final!r}")
        gone = {d.rstrip(b"\0").decode().strip("<>") for letter, d in replies if letter == "-"}
        left = [r for r in recipients if r not in gone]
        if left:
            self.smtp.sendmail(reversepath, left, data)

    def close(self):
        if self.peer:
            self.peer.close()
        self.smtp.close()
