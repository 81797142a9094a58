"""Several breakwaterd with one past in Redis, each with an SMTP door, all before one sink: a fleet as one client sees it.

Fleet     n nodes; mail goes to them by turns; every copy that was accepted is in the sink or in a hold queue (balance)
storm()   the storm of 2006 in small, its recipients' copies counted
"""
import json
import os
import shutil
import subprocess
import time

from daemon import BUILD
from private_postfix import PostfixSession
from private_redis import wait
from smtp_door import Door
from replication import Vantage, World

STORE = 'store {{ backend = redis servers = {{{servers}}} {more} }}'


class Sink:
    """Takes everything; delivered() is how many copies each recipient got."""

    def __init__(self, directory):
        self.out = f"{directory}/delivered.jsonl"
        self.process = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.out], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.address = self.process.stdout.readline().decode().split()[1]

    def delivered(self):
        count = {}
        with open(self.out) as f:
            for line in f:
                who = json.loads(line)["rcpt"]
                count[who] = count.get(who, 0) + 1
        return count

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Node(Door):
    """One of them; redis: addresses, None: its past is its own."""

    def __init__(self, directory, name, sink, redis=None, key=None, store="deadline = 500ms", more="", **others):
        self.name = name
        os.makedirs(directory, exist_ok=True)
        if key:
            shutil.copy(key, f"{directory}/site.key")
        if redis:
            servers = ", ".join(f'"{a}"' for a in redis)
            more += STORE.format(servers=servers, more=store)
        self.shared = bool(redis)
        super().__init__(directory, sink.address, rules="", more=more, **others)

    def start(self, env=None):
        with open(self.conf) as f:
            text = f.read()
        with open(self.conf, "w") as f:
            f.write(text.replace('name = "demo"', f'name = "{self.name}"'))
        return super().start(env)

    def status(self):
        return self.json("status")[0]

    @property
    def store(self):
        return self.status()["store"]

    def named(self):
        """The servers it names in its storms of further copies, without addresses."""
        names = set()
        for s in self.said("storms"):
            if s["kind"] == "replication":
                names |= {c["relay"].partition("[")[0] for c in self.said("show", s["id"])[0]["culprits"] if c["named"]}
        return names

    def said(self, *args):
        """--json output; exit 4: another node did not answer in time."""
        code, out = self.ctl("--json", *args, check=False)
        assert code in (0, 4), out
        return [json.loads(line) for line in out.splitlines() if line.startswith(("{", "["))]

    def shares(self, seconds=20):
        wait(lambda: self.store["up"], seconds)
        return self

    def caught_up(self, seconds=30):
        """What it judged alone is on the logs."""
        wait(lambda: self.store["up"] and self.store["waiting"] == 0, seconds)


class Fleet:
    def __init__(self, directory, redis=None, n=3, env=None, await_redis=True, **more):
        self.sink, self.nodes, self.turn, self.sessions = None, [], 0, {}
        self.sent, self.longest = 0, 0.0
        os.makedirs(directory, exist_ok=True)
        try:
            self.sink = Sink(directory)
            for i in range(n):
                key = f"{self.nodes[0].dir}/site.key" if self.nodes else None
                self.nodes.append(Node(f"{directory}/{i}", f"node{i}", self.sink, redis, key,
                                       env=env[i] if env else None, **more))
            for node in self.nodes:
                if redis and await_redis:
                    node.shares()
        except BaseException:
            self.stop()
            raise

    def send(self, host, address, recipients, data, node=None):
        """One transaction through the node whose turn it is; it must be taken. How long that took is kept."""
        i = self.turn % len(self.nodes) if node is None else node
        self.turn += 1
        session = self.sessions.setdefault(i, PostfixSession(self.nodes[i].smtp_port))
        session.connect(host, address)
        began = time.monotonic()
        session.send(host, address, "sales@promo.example", recipients, data)
        self.longest = max(self.longest, time.monotonic() - began)
        self.sent += len(recipients)

    def send_all(self, transactions, meanwhile=None):
        """meanwhile: {how many were sent: what is done then}."""
        for i, (host, address, recipients, data) in enumerate(transactions):
            if meanwhile and i in meanwhile:
                meanwhile[i]()
            self.send(host, address, recipients, data)

    def held(self):
        return sum(n.status()["hold"]["held"] for n in self.nodes)

    def named(self):
        return set().union(*(n.named() for n in self.nodes))

    def balance(self):
        """Copies accepted that are neither delivered nor held: none."""
        return self.sent - sum(self.sink.delivered().values()) - self.held()

    def faults(self):
        sums = {}
        for n in self.nodes:
            for k, v in n.store.get("faults", {}).items():
                sums[k] = sums.get(k, 0) + v
        return sums

    def sum(self, figure):
        return sum(n.store[figure] for n in self.nodes)

    def stop(self):
        for s in self.sessions.values():
            s.close()
        self.sessions.clear()
        codes = [n.stop() for n in self.nodes]
        if self.sink:
            self.sink.stop()
        return codes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def storm(chain="lost", identity="same", copies=2400, seed=2006, answered=True):
    """The storm of 2006 in small: three faulty servers, 60 recipients of ours; its transactions in order, for Fleet.send_all.
    chain, identity: what the faulty servers leave of Received, Message-ID and Date; answered: with the second storm, of the
    answer to all."""
    world = World(Vantage("small", addressees=60, domains=20), chain, identity, seed=seed, copies=copies, addressees=80)
    for m in world.transactions():
        if "phase=feb" in m["label"]:
            return
        if "id=stop" in m["label"] and not answered:
            continue
        name = m["name"] if m["name"] and "." in m["name"] else "[UNAVAILABLE]"
        for i in range(0, len(m["rcpt"]), 20):
            yield name, m["client"], m["rcpt"][i:i + 20], m["data"].encode()
