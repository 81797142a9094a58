"""Three nodes with one past, and a client that splits the storm of 2006 among them: nobody gets more of it than one node alone
would let through, the same servers are named, and nothing is lost, whatever happens to Redis meanwhile: one server, or a
Redis Cluster of six."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import private_redis

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "storm"))

from private_redis import Cluster, Server  # noqa: E402
from redis_nodes import Fleet, storm  # noqa: E402

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)
FAULTY = {f"sbs.{firm}.example" for firm in ("alphaprint", "bellbooks", "crowngarage")}
FORMS = [("lost", "same"), ("kept", "reissue"), ("stripped", "newid")]  # what is left of Received, and of Message-ID and Date


@pytest.fixture
def redis():
    with Server() as s:
        yield s


def play_alone(directory, *form):
    with Fleet(str(directory), n=1) as fleet:
        fleet.send_all(storm(*form))
        assert fleet.balance() == 0
        return fleet.sink.delivered(), fleet.named()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one node lets through of the storm: {recipient: copies}; the message, and what somebody answered to all."""
    delivered, named = play_alone(tmp_path_factory.mktemp("alone"))
    assert named == FAULTY and set(delivered.values()) == {2} and len(delivered) == 60
    return delivered


def nothing_is_lost(fleet, most):
    """Every copy that was accepted is in the sink or in a hold queue; nobody got more than that; all got the first one."""
    assert fleet.balance() == 0
    delivered = fleet.sink.delivered()
    assert max(delivered.values()) <= most, delivered
    assert [n.process.poll() for n in fleet.nodes] == [None] * len(fleet.nodes)
    return delivered


def most(alone):
    return max(alone.values())


# ---- as one node ----

def test_without_a_shared_past_three_nodes_leak_more(tmp_path, alone):
    """What the other tests would see if nothing were shared."""
    with Fleet(str(tmp_path)) as fleet:
        fleet.send_all(storm())
        delivered = nothing_is_lost(fleet, 3 * most(alone))
        assert sum(delivered.values()) > 2 * sum(alone.values())


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_three_nodes_leak_and_name_what_one_does(redis, tmp_path, form):
    delivered, named = play_alone(tmp_path / "alone", *form)
    with Fleet(str(tmp_path / "three"), [redis.address]) as fleet:
        fleet.send_all(storm(*form))
        assert nothing_is_lost(fleet, most(delivered)) == delivered
        assert fleet.named() == named and len(named) == 3
        assert fleet.sum("degraded") == 0
        assert fleet.stop() == [0, 0, 0]


def test_three_nodes_before_a_cluster_of_six_do_too(tmp_path, alone):
    with Cluster(3, replicas=1) as cluster:
        with Fleet(str(tmp_path), cluster.addresses[:2], store="cluster = yes deadline = 500ms") as fleet:
            fleet.send_all(storm())
            assert nothing_is_lost(fleet, most(alone)) == alone
            assert fleet.named() == FAULTY
            assert fleet.sum("degraded") == 0
            assert fleet.stop() == [0, 0, 0]


def test_a_turn_of_the_storm_on_each_node_at_once(redis, tmp_path, alone):
    """All three at the same time, not one after the other: at most one more copy each than alone."""
    transactions = list(storm())
    first = 3  # transactions of the original
    with Fleet(str(tmp_path), [redis.address]) as fleet:
        fleet.send_all(transactions[:first])
        errors = []

        def send(i):
            try:
                for t in transactions[first + i::3]:
                    fleet.send(*t, node=i)
            except Exception as e:  # told below
                errors.append(e)
        threads = [threading.Thread(target=send, args=(i,)) for i in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors
        fleet.sent = sum(len(t[2]) for t in transactions)
        nothing_is_lost(fleet, most(alone) + 1)
        assert fleet.named() == FAULTY


# ---- a master dies ----
# From here on it is one message, of which one node alone lets one copy through. What the nodes decide without Redis each decides
# alone; of a message that is there already that costs one more copy at most.

def slot_owner(cluster, pattern="bw:1:m:*"):
    """The master that has the most of such keys."""
    def keys(s):
        try:
            return len(s.call("KEYS", pattern))
        except (OSError, private_redis.Error):
            return -1
    return max(cluster.servers[:cluster.masters], key=keys)


def test_the_master_that_has_the_storm_is_killed(tmp_path):
    transactions = list(storm(answered=False))
    with Cluster(3, replicas=1) as cluster:
        with Fleet(str(tmp_path), cluster.addresses, store="cluster = yes deadline = 500ms") as fleet:
            fleet.send_all(transactions, {len(transactions) // 4: lambda: slot_owner(cluster).kill()})
            nothing_is_lost(fleet, 2)
            assert fleet.named() == FAULTY
            for n in fleet.nodes:
                n.caught_up(60)


def test_the_only_redis_is_killed_and_comes_back_empty(redis, tmp_path):
    transactions = list(storm(answered=False))
    third = len(transactions) // 3
    with Fleet(str(tmp_path), [redis.address]) as fleet:
        fleet.send_all(transactions, {third: redis.kill, 2 * third: redis.start})
        nothing_is_lost(fleet, 2)
        assert fleet.named() == FAULTY
        for n in fleet.nodes:
            n.caught_up()


# ---- Redis forgets, hangs, refuses ----

def test_flushall_again_and_again_in_mid_storm(redis, tmp_path):
    transactions = list(storm(answered=False))
    with Fleet(str(tmp_path), [redis.address]) as fleet:
        fleet.send_all(transactions, {i: lambda: redis.call("FLUSHALL") for i in range(10, len(transactions), 10)})
        nothing_is_lost(fleet, 2)
        assert fleet.named() == FAULTY


def test_a_hanging_redis_makes_nobody_wait_longer_than_the_deadline(redis, tmp_path):
    transactions = list(storm(answered=False))
    third = len(transactions) // 3
    with Fleet(str(tmp_path), [redis.address], store="") as fleet:
        fleet.send_all(transactions, {third: lambda: redis.signal(signal.SIGSTOP), 2 * third: lambda: redis.signal(signal.SIGCONT)})
        print(f"longest transaction: {1000 * fleet.longest:.0f} ms")
        assert fleet.longest < 2 + 0.05
        nothing_is_lost(fleet, 2)
        assert fleet.named() == FAULTY
        for n in fleet.nodes:
            n.caught_up()


def test_redis_absent_at_the_start_comes_in_mid_storm(redis, tmp_path):
    """Until then each node knows its own third: each may let through what one alone does."""
    transactions = list(storm(answered=False))
    redis.kill()
    with Fleet(str(tmp_path), [redis.address], await_redis=False) as fleet:
        half = len(transactions) // 2
        fleet.send_all(transactions[:half])
        before = fleet.sink.delivered()
        assert fleet.sum("degraded") > 0 and not any(n.store["up"] for n in fleet.nodes)
        redis.start()
        for n in fleet.nodes:
            n.caught_up()
        fleet.send_all(transactions[half:])
        assert fleet.balance() == 0
        after = fleet.sink.delivered()
        assert max(after.values()) <= 3
        assert after == before, "what the nodes knew was put together"
        assert fleet.named() == FAULTY


def spoil(redis):
    """All our logs become lists of somebody else."""
    for key in redis.call("KEYS", "bw:1:m:*"):
        redis.call("DEL", key)
        redis.call("LPUSH", key, "theirs")


def test_somebody_elses_values_at_our_keys(redis, tmp_path):
    transactions = list(storm(answered=False))
    with Fleet(str(tmp_path), [redis.address]) as fleet:
        fleet.send_all(transactions, {i: lambda: spoil(redis) for i in range(15, len(transactions), 15)})
        nothing_is_lost(fleet, 2)
        assert fleet.named() == FAULTY
        assert redis.call("KEYS", "bw:1:m:*:odd")


@pytest.mark.parametrize("begin, end, fault", [
    (("CONFIG", "SET", "maxmemory", "1mb"), ("CONFIG", "SET", "maxmemory", "0"), "full"),
    (("CONFIG", "SET", "requirepass", "new"), ("CONFIG", "SET", "requirepass", ""), "denied"),
    (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "readonly"),
], ids=["OOM", "NOAUTH", "READONLY"])
def test_redis_refuses_for_a_while(redis, tmp_path, begin, end, fault):
    """OOM: no memory. NOAUTH: somebody set a password, and all connections are new. READONLY: it was made a replica."""
    transactions = list(storm(answered=False))
    third = len(transactions) // 3

    def refuse():
        redis.call(*begin)
        if fault == "denied":
            redis.password = "new"
            redis.control = None
            redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def give_in():
        redis.call(*end)
        if fault == "denied":
            redis.password = None
    with Fleet(str(tmp_path), [redis.address]) as fleet:
        redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        fleet.send_all(transactions, {third: refuse, 2 * third: give_in})
        nothing_is_lost(fleet, 2)
        assert fleet.named() == FAULTY
        assert fleet.sum("degraded") > 0, fleet.faults()
        for n in fleet.nodes:
            n.caught_up()


# ---- clocks ----

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { const char *s = getenv("CLOCK_AHEAD"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(id, t);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += ahead();
    return rc;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec ts; (void)zone;
    int rc = clock_gettime(CLOCK_REALTIME, &ts);
    t->tv_sec = ts.tv_sec; t->tv_usec = ts.tv_nsec / 1000;
    return rc;
}
time_t time(time_t *out)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A library to preload: the wall clock is CLOCK_AHEAD seconds ahead."""
    at = str(tmp_path_factory.mktemp("clock"))
    with open(f"{at}/clock.c", "w") as f:
        f.write(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", f"{at}/clock.so", f"{at}/clock.c", "-ldl"], check=True)
    return f"{at}/clock.so"


def test_clocks_five_minutes_apart(redis, tmp_path, alone, clock):
    def ahead(seconds):
        return {"LD_PRELOAD": clock, "CLOCK_AHEAD": str(seconds), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    with Fleet(str(tmp_path), [redis.address], env=[ahead(0), ahead(300), ahead(-300)]) as fleet:
        began = time.time()
        fleet.send_all(storm())
        assert nothing_is_lost(fleet, most(alone)) == alone
        assert fleet.named() == FAULTY
        assert fleet.sum("degraded") == 0
        offsets = sorted(n.status()["fleet"]["offset_ms"] for n in fleet.nodes)
        assert [round(o / 60000) for o in offsets] == [-5, 0, 5], (offsets, began)
