"""Nodes with one past in Redis: what one has seen the others know; Redis dies, hangs, forgets, comes back, and mail goes on.
agree (tests/e2e/agree.c) compares every verdict with those of the memory store."""
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import private_redis
from daemon import BUILD, ROOT, Daemon
from milter_peer import Peer, message
from private_redis import Server, wait
from test_restart import BODY, FIRST, HEADER, PEOPLE, SENDER, first, passed, status, turn

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)
AGREE = f"{BUILD}/e2e/agree"


@pytest.fixture
def redis():
    with Server() as s:
        yield s


class Node(Daemon):
    """One of several: its own name, the site key of the first."""

    def __init__(self, directory, name, redis, key=None, store="", **more):
        self.name = name
        os.makedirs(directory, exist_ok=True)
        if key:
            shutil.copy(key, f"{directory}/site.key")
        address = redis if isinstance(redis, str) else redis.address
        super().__init__(directory, more=f'store {{ backend = redis servers = {{"{address}"}} deadline = 500ms {store} }}', **more)

    def start(self, env=None):
        with open(self.conf) as f:
            text = f.read()
        with open(self.conf, "w") as f:
            f.write(text.replace('name = "demo"', f'name = "{self.name}"'))
        return super().start(env)

    @property
    def store(self):
        return status(self)["store"]

    def peer(self):
        p = Peer(self.port)
        p.begin()
        return p

    def until(self, what, seconds=20):
        wait(lambda: what(self.store), seconds)

    def joined(self):
        """It shares its past now: mail is judged with it."""
        self.until(lambda s: s["up"])
        return self


@pytest.fixture
def nodes(tmp_path):
    made = []

    def make(redis, n=2, **more):
        for i in range(n):
            key = f"{made[0].dir}/site.key" if made else None
            made.append(Node(f"{tmp_path}/{i}", f"node{i}", redis, key, **more))
        return made
    yield make
    for d in made:
        d.stop()


# ---- the same decisions ----

def agree(redis, trace, n):
    redis.call("FLUSHALL")
    p = subprocess.run([AGREE, "-n", str(n), redis.unix, trace], capture_output=True, text=True, timeout=300)
    figures = dict(w.split("=") for w in p.stdout.splitlines()[-1].split())
    assert p.returncode == 0, p.stdout + p.stderr
    return {k: float(v) for k, v in figures.items()}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("traces") / "all.jsonl")
    subprocess.run([sys.executable, f"{ROOT}/tests/storm/mktrace.py", "-o", path, "all"], check=True, timeout=60)
    return path


@pytest.mark.parametrize("n", [1, 3])
def test_nodes_say_what_one_with_its_own_memory_says(redis, trace, n):
    figures = agree(redis, trace, n)
    assert figures["messages"] > 900 and figures["held"] > 1000 and figures["joined"] > 100
    assert figures["conflicts"] > 0 and figures["compacted"] > 10 and figures["degraded"] == 0


# ---- two nodes ----

def test_what_one_node_has_seen_the_other_knows(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        assert turn(pb, 1, 1) == 0
        assert turn(pa, 1, 2) == 0
        assert passed(pb, 1, ["<never@had.example>"], FIRST.format(n=1)) == 1
    assert a.store["degraded"] == b.store["degraded"] == 0
    assert a.store["asked"] == b.store["asked"] == 2


def test_a_message_whose_client_is_gone_is_no_copy_at_the_other_node(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    for i in range(5):
        p = a.peer()
        p.send(message(SENDER, PEOPLE, HEADER.format(n=i, chain=FIRST.format(n=i)), BODY.format(n=i)))
        if i % 2:
            time.sleep(0.02 * i)
        p.close()
    with b.peer() as pb:
        for i in range(5):
            assert first(pb, i) == len(PEOPLE)
    for d in (a, b):
        assert d.process.poll() is None


def test_many_clients_at_once_at_both_nodes(redis, nodes):
    """Copies of one message are under way in all threads of both nodes: each recipient gets one."""
    made = [d.joined() for d in nodes(redis)]
    got, broken = [], []

    def client(number):
        try:
            with made[number % 2].peer() as p:
                for t in range(30):
                    n = f"crowd-{t % 3}"
                    got.append(first(p, n) if number == t % 8 and t < 3 else turn(p, n, 100 * number + t))
        except Exception as e:  # noqa: BLE001 - told by the test
            broken.append(e)
    with made[0].peer() as p:
        for i in range(3):
            assert first(p, f"crowd-{i}") == len(PEOPLE)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not broken
    assert len(got) == 8 * 30
    # the first copy again, from another client, is what one resend is allowed for
    assert sum(got) <= 3 * len(PEOPLE)
    assert sum(d.store["degraded"] for d in made) == 0


def test_nodes_share_a_cluster(nodes):
    """Logs and aliases of one message lie with different servers."""
    with private_redis.Cluster() as cluster:
        a, b = (d.joined() for d in nodes(cluster.servers[0], store="cluster = yes"))
        with a.peer() as pa, b.peer() as pb:
            for n in range(10):
                assert first(pa, n) == len(PEOPLE)
                assert turn(pb, n, n) == 0
                assert turn(pa, n, n + 100) == 0
        assert a.store["degraded"] == b.store["degraded"] == 0
        assert all(s.call("DBSIZE") > 0 for s in cluster.servers)


# ---- Redis is away ----

def storm(peers, n, turns, start=0):
    """How many further copies get through, turns by the nodes in turn."""
    return sum(turn(peers[t % len(peers)], n, start + t) for t in range(turns))


def test_without_redis_from_the_start_each_node_goes_on_alone_and_hands_in_later(redis, nodes):
    redis.kill()
    a, b = nodes(redis)
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        assert turn(pa, 1, 1) == 0  # it knows what it saw itself
        assert a.store["degraded"] == 2 and not a.store["up"]
        a.until(lambda s: s["waiting"] > 0)
        redis.start()
        a.until(lambda s: s["up"] and s["waiting"] == 0)
        b.joined()
        assert turn(pb, 1, 2) == 0
    assert a.store["handed_in"] >= 2
    assert b.store["degraded"] == 0


def test_redis_killed_in_a_storm_loses_nothing(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        assert storm([pa, pb], 1, 6) == 0
        redis.kill()
        assert storm([pa, pb], 1, 20, 100) == 0  # both know it
        assert first(pa, 2) == len(PEOPLE)
        assert turn(pa, 2, 500) == 0
        a.until(lambda s: not s["up"])
        redis.start()  # empty
        for d in (a, b):
            d.until(lambda s: s["up"] and s["waiting"] == 0)
        assert storm([pb, pa], 1, 6, 200) == 0
        assert turn(pb, 2, 501) == 0  # of what the other one saw alone
    assert "the shared past is away" in a.log() and "the shared past is back" in a.log()


def test_redis_is_emptied_in_a_storm(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        assert storm([pa, pb], 1, 4) == 0
        for i in range(5):
            redis.call("FLUSHALL")
            assert storm([pa, pb][::1 - 2 * (i % 2)], 1, 5, 1000 * i) == 0
    assert a.store["remade"] + b.store["remade"] >= 5
    assert a.store["degraded"] == b.store["degraded"] == 0


def test_an_older_state_of_redis_does_not_end_a_storm(redis, nodes):
    """As after a fail-over to a replica that was behind: the logs are there, but shorter."""
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1, PEOPLE[:4]) == 4
        time.sleep(0.2)
        keys = redis.call("KEYS", "bw:1:m:*")
        old = {k: redis.call("DUMP", k) for k in keys}
        assert first(pb, 1, PEOPLE[4:]) == len(PEOPLE) - 4
        assert storm([pa, pb], 1, 4) == 0
        time.sleep(0.2)
        for k, v in old.items():
            redis.call("RESTORE", k, 0, v, "REPLACE")
        assert storm([pb, pa], 1, 8, 100) == 0


def test_a_hanging_redis_costs_the_deadline_and_then_nothing(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        assert turn(pb, 1, 1) == 0
        redis.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert storm([pa, pb], 1, 20, 10) == 0
        assert first(pa, 2) == len(PEOPLE)
        assert time.monotonic() - began < 15  # some deadlines of 500 ms, not 21 of 10 s
        a.until(lambda s: not s["up"] and s["degraded"] > 0)
        redis.signal(signal.SIGCONT)
        for d in (a, b):
            d.until(lambda s: s["up"] and s["waiting"] == 0)
        assert storm([pb, pa], 1, 6, 100) == 0
        assert turn(pb, 2, 200) == 0


@pytest.mark.parametrize("end", ["gone", "stopped"])
def test_a_wait_for_redis_ends_with_the_client_and_with_the_daemon(redis, nodes, end):
    a = nodes(redis, 1)[0].joined()
    peers = [a.peer() for _ in range(6)]
    redis.signal(signal.SIGSTOP)
    for i, p in enumerate(peers):
        p.send(message(SENDER, PEOPLE, HEADER.format(n=i, chain=FIRST.format(n=i)), BODY.format(n=i)))
    if end == "stopped":
        assert a.stop() == 0
    for p in peers:
        p.close()
    redis.signal(signal.SIGCONT)
    if end == "gone":
        a.joined()
        with a.peer() as p:
            for i in range(6):
                assert first(p, i) == len(PEOPLE)
        assert a.stop() == 0


def test_somebody_elses_value_under_our_key_is_put_aside(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        time.sleep(0.2)
        key = redis.call("KEYS", "bw:1:m:*")[0]
        redis.call("DEL", key)
        redis.call("LPUSH", key, "theirs")
        assert turn(pa, 1, 1) == 0
        assert turn(pb, 1, 2) == 0
        assert redis.call("LRANGE", key + b":odd", 0, -1) == [b"theirs"]


@pytest.mark.parametrize("rubbish", [b"", b"12345678", b"12345678" + b"\xff" * 40, b"12345678" + bytes(100)])
def test_a_log_that_is_no_log_is_replaced(redis, nodes, rubbish):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa, b.peer() as pb:
        assert first(pa, 1) == len(PEOPLE)
        time.sleep(0.2)
        key = redis.call("KEYS", "bw:1:m:*")[0]
        redis.call("SET", key, rubbish)
        assert turn(pa, 1, 1) == 0
        time.sleep(0.2)
        assert turn(pb, 1, 2) == 0
        assert turn(pa, 1, 3) == 0


def test_a_full_redis_is_like_none(redis, nodes):
    a, b = (d.joined() for d in nodes(redis))
    with a.peer() as pa:
        assert first(pa, 1) == len(PEOPLE)
        redis.call("CONFIG", "SET", "maxmemory", "1")
        assert turn(pa, 1, 1) == 0
        assert first(pa, 2) == len(PEOPLE)
        redis.call("CONFIG", "SET", "maxmemory", "0")
        a.until(lambda s: s["up"] and s["waiting"] == 0)
    with b.peer() as pb:
        assert turn(pb, 2, 2) == 0
