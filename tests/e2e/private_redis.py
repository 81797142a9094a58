"""Redis servers of our own: each in a short private directory, on free loopback ports, ended by the pid that was started.

Server      one server: TCP, unix socket, TLS, password, ACL; or a replica of another one
Sentinels   some Sentinels that watch a master
Cluster     masters with replicas; slots can be moved while it is used

Debian's redis-tools is enough: redis-check-rdb is the server's program under another name.
"""
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from private_postfix import free_port

SLOTS = 16384
MISSING = "redis-server is not installed: apt-get install redis-tools"


def program():
    return next((p for p in (shutil.which("redis-server"), shutil.which("redis-check-rdb")) if p), None)


class Error(Exception):
    """An error Redis answered with."""


class Connection:
    """Speaks RESP: call("SET", "a", 1) gives what Redis answers; bytes as bytes, an error raises Error."""

    def __init__(self, server):
        family = socket.AF_INET if server.port else socket.AF_UNIX
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(("127.0.0.1", server.port) if server.port else server.socket)
        if server.tls and server.port:
            context = ssl.create_default_context(cafile=server.tls.ca)
            context.check_hostname = False
            if server.tls.client:
                context.load_cert_chain(server.tls.cert, server.tls.key)
            self.sock = context.wrap_socket(self.sock)
        self.file = self.sock.makefile("rb")
        if server.password:
            self.call("AUTH", *([server.user] if server.user else []), server.password)

    def call(self, *words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        reply = self._reply()
        if isinstance(reply, Error):
            raise reply
        return reply

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return Error(rest.decode())
        if kind == b"+":
            return rest.decode()
        n = int(rest)
        if kind == b":":
            return n
        if n < 0:
            return None
        if kind == b"$":
            return self.file.read(n + 2)[:-2]
        return [self._reply() for _ in range(n)]

    def close(self):
        self.file.close()
        self.sock.close()


class Certificates:
    """A CA and what it signed for 127.0.0.1, made with openssl in a directory; client: servers ask for a certificate."""

    def __init__(self, directory, client=False):
        self.ca, self.cert, self.key, self.client = (f"{directory}/{n}" for n in ("ca.pem", "redis.pem", "redis.key", ""))
        self.client = client
        ca_key, request, extension = (f"{directory}/{n}" for n in ("ca.key", "redis.csr", "redis.ext"))
        with open(extension, "w") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:redis.example\n")
        for command in (
                ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca_key, "-out", self.ca, "-subj", "/CN=test CA",
                 "-days", "2"],
                ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", request, "-subj", "/CN=redis.example"],
                ["x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-out", self.cert,
                 "-extfile", extension, "-days", "2"]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)


class Server:
    def __init__(self, tcp=True, tls=None, password=None, acl=(), options=(), replica_of=None, cluster=False, port=None,
                 sentinel=None, user=None):
        """options: lines of redis.conf; acl: lines such as 'user breakwater on >secret ~bw:* +@all'; user: who we are,
        of an ACL file that options name."""
        self.dir = tempfile.mkdtemp(prefix="bwredis.", dir="/tmp")
        self.socket, self.tls, self.password, self.user = f"{self.dir}/s", tls, password, user
        self.port = (port or free_port()) if tcp else None
        self.bus = free_port() if cluster else None
        lines = [f"dir {self.dir}", f"logfile {self.dir}/log", "bind 127.0.0.1", "protected-mode no"]
        if tls:
            lines += ["port 0", f"tls-port {self.port or 0}", f"tls-cert-file {tls.cert}", f"tls-key-file {tls.key}",
                      f"tls-ca-cert-file {tls.ca}", f"tls-auth-clients {'yes' if tls.client else 'no'}", "tls-replication yes"]
        else:
            lines += [f"port {self.port or 0}"]
        lines += sentinel or [f"unixsocket {self.socket}", 'save ""', "appendonly no", "repl-diskless-sync-delay 0"]
        if cluster:
            lines += ["cluster-enabled yes", f"cluster-port {self.bus}", "cluster-node-timeout 1000",
                      "cluster-config-file nodes.conf", "cluster-replica-validity-factor 0", *(["tls-cluster yes"] if tls else [])]
        if password and not user:
            lines += [f"requirepass {password}", f"masterauth {password}"]
        if replica_of:
            lines += [f"replicaof 127.0.0.1 {replica_of.port}"]
        self.conf, self.sentinel, self.process, self.control = f"{self.dir}/redis.conf", bool(sentinel), None, None
        with open(self.conf, "w") as f:
            f.write("\n".join([*lines, *acl, *options]) + "\n")
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}" if self.port else self.unix

    @property
    def unix(self):
        return f"unix:{self.socket}"

    def start(self):
        """Starts it (again) and waits until it answers. Its memory is empty unless options say otherwise."""
        self.process = subprocess.Popen(["redis-server", self.conf, *(["--sentinel"] if self.sentinel else [])],
                                        executable=program(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for _ in range(500):
            if self.process.poll() is not None:
                break
            try:
                self.control = None
                self.call("PING")
                return self
            except (OSError, Error):
                time.sleep(0.01)
        raise RuntimeError(f"redis does not start: {self.log()[-2000:]}")

    def call(self, *words):
        """On a connection that is kept, made again once if it was lost."""
        for last in (False, True):
            try:
                self.control = self.control or Connection(self)
                return self.control.call(*words)
            except (OSError, ValueError) as e:
                self.control = None
                if last:
                    raise e

    def info(self, name):
        """One value of INFO, as text."""
        for line in self.call("INFO").decode().splitlines():
            if line.startswith(name + ":"):
                return line.partition(":")[2]
        return None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.control = None

    def log(self):
        try:
            with open(f"{self.dir}/log") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def stop(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def wait(what, seconds=15):
    """Until what() is true; it may raise meanwhile."""
    end = time.monotonic() + seconds
    while True:
        try:
            if what():
                return
        except (OSError, Error):
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Sentinels:
    """n of them watch a master, which they call by this name."""

    def __init__(self, master, name="breakwater", n=3, down_after=500):
        self.name, self.servers = name, []
        lines = [f"sentinel monitor {name} 127.0.0.1 {master.port} {n // 2 + 1}",
                 f"sentinel down-after-milliseconds {name} {down_after}", f"sentinel failover-timeout {name} 2000"]
        if master.password:
            lines += [f"sentinel auth-pass {name} {master.password}"]
        try:
            for _ in range(n):
                self.servers.append(Server(sentinel=lines))
            wait(lambda: all(self._knows(s, n) for s in self.servers))
        except BaseException:
            self.stop()
            raise

    def _knows(self, s, n):
        """It knows the other Sentinels and a replica: only then it can do a fail-over."""
        facts = s.call("SENTINEL", "MASTER", self.name)
        facts = dict(zip(facts[::2], facts[1::2]))
        return int(facts[b"num-other-sentinels"]) == n - 1 and int(facts[b"num-slaves"]) > 0

    @property
    def addresses(self):
        return [s.address for s in self.servers]

    def stop(self):
        for s in self.servers:
            s.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Cluster:
    """masters, with as many replicas each; `servers` begins with the masters, then the first replica of each, and so on."""

    def __init__(self, masters=3, replicas=0, **server):
        self.servers, self.masters = [], masters
        try:
            for _ in range(masters * (1 + replicas)):
                self.servers.append(Server(cluster=True, **server))
            self._join()
        except BaseException:
            self.stop()
            raise

    def _join(self):
        share = SLOTS // self.masters
        for i, s in enumerate(self.servers):
            s.id = s.call("CLUSTER", "MYID").decode()
            s.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i < self.masters:
                s.call("CLUSTER", "ADDSLOTSRANGE", i * share, SLOTS - 1 if i == self.masters - 1 else (i + 1) * share - 1)
            for other in self.servers[:i]:
                s.call("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
        wait(lambda: all(self.known(s) == len(self.servers) for s in self.servers))
        for i, s in enumerate(self.servers[self.masters:]):
            s.call("CLUSTER", "REPLICATE", self.servers[i % self.masters].id)
        wait(lambda: all(self.is_ok(s) for s in self.servers))
        wait(lambda: all(s.info("master_link_status") == "up" for s in self.servers[self.masters:]))

    @staticmethod
    def known(s):
        return sum("handshake" not in line for line in s.call("CLUSTER", "NODES").decode().splitlines())

    @staticmethod
    def is_ok(s):
        return b"cluster_state:ok" in s.call("CLUSTER", "INFO")

    @property
    def addresses(self):
        return [s.address for s in self.servers]

    def owner(self, slot):
        """The server that has it now, as the servers that are alive say."""
        for s in self.servers:
            if s.process.poll() is not None:
                continue
            for low, high, master, *_ in s.call("CLUSTER", "SLOTS"):
                if low <= slot <= high:
                    return next(o for o in self.servers if o.port == master[1])
        return None

    def move_slot(self, slot, to, pause=0):
        """With all its keys, as redis-cli --cluster reshard does, while it is used."""
        source = self.owner(slot)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.call("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(pause)
        for s in (to, source, *(o for o in self.servers if o not in (to, source) and o.process.poll() is None)):
            try:
                s.call("CLUSTER", "SETSLOT", slot, "NODE", to.id)
            except Error as e:
                if "replica" not in str(e) and "master" not in str(e):
                    raise

    def stop(self):
        for s in self.servers:
            s.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
