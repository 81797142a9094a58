"""contrib/redis as it is shipped: a server starts with it, nodes share their past as its user, and nothing else can be done as that
user."""
import os
import time

import pytest

import private_redis
from daemon import ROOT
from private_redis import Cluster, Connection, Error, Server
from redis_nodes import Fleet, storm

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)


def read(name):
    with open(f"{ROOT}/contrib/redis/{name}") as f:
        return f.read()


def user(name):
    """Its line in users.acl, and its password."""
    line = next(u for u in read("users.acl").splitlines() if u.startswith(f"user {name} "))
    return line, next(w for w in line.split() if w.startswith(">"))[1:]


@pytest.fixture
def shipped(tmp_path):
    """The server of contrib/redis/redis.conf, with paths of this test; we are its admin."""
    (tmp_path / "users.acl").write_text(read("users.acl"))
    lines = [li for li in read("redis.conf").splitlines() if li and not li.startswith(("#", "bind ", "unixsocket "))]
    lines = [f"aclfile {tmp_path}/users.acl" if li.startswith("aclfile ") else li for li in lines]
    with Server(options=lines, user="admin", password=user("admin")[1]) as s:
        yield s


def login(tmp_path):
    path = tmp_path / "password"
    path.write_text(user("breakwater")[1] + "\n")
    os.chmod(path, 0o600)
    return f'user = "breakwater" password_file = "{path}" deadline = 500ms'


def refusals(server):
    return [e for e in server.call("ACL", "LOG") if b"breakwater" in e]


def test_nodes_do_with_what_the_user_may(shipped, tmp_path):
    assert shipped.call("CONFIG", "GET", "maxmemory-policy")[1] == b"volatile-ttl"
    assert os.stat(shipped.socket).st_mode & 0o777 == 0o770
    with Fleet(str(tmp_path / "fleet"), [shipped.unix], store=login(tmp_path)) as fleet:
        transactions = list(storm())
        half = len(transactions) // 2
        fleet.send_all(transactions[:half])
        shipped.call("SCRIPT", "FLUSH")
        key = shipped.call("KEYS", "bw:1:m:*")[0]
        shipped.call("DEL", key)
        shipped.call("LPUSH", key, "theirs")  # is put aside
        fleet.send_all(transactions[half:])
        time.sleep(2.5)  # the fleet's thread has told and heard
        held = fleet.nodes[0].said("held")
        assert held and set(fleet.sink.delivered().values()) == {2}
        assert fleet.sum("degraded") == 0 and fleet.faults() == {} and fleet.sum("errors") == 0
        document = fleet.nodes[0].status()["fleet"]
        assert document["state"] == "sharing" and sum(n["alive"] for n in document["nodes"]) == 3
        fleet.stop()
    assert refusals(shipped) == []


def test_nor_in_a_cluster(tmp_path):
    with Cluster(3, acl=(user("breakwater")[0],)) as cluster:
        with Fleet(str(tmp_path / "fleet"), cluster.addresses, store="cluster = yes " + login(tmp_path)) as fleet:
            transactions = list(storm())
            half = len(transactions) // 2
            fleet.send_all(transactions[:half])
            slot = cluster.servers[0].call("CLUSTER", "KEYSLOT", next(k for s in cluster.servers for k in s.call("KEYS", "bw:1:m:*")))
            source = cluster.owner(slot)
            cluster.move_slot(slot, next(s for s in cluster.servers if s is not source))
            fleet.send_all(transactions[half:])
            time.sleep(1.5)
            assert set(fleet.sink.delivered().values()) == {2}
            assert fleet.sum("errors") == 0 and "denied" not in fleet.faults()
        for s in cluster.servers:
            assert refusals(s) == []


class As:
    """How another user of a server connects."""

    def __init__(self, server, name):
        self.port, self.socket, self.tls = server.port, server.socket, None
        self.user, self.password = name, user(name)[1]


@pytest.mark.parametrize("words", [("GET", "other"), ("SET", "bwx", "1"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"),
                                   ("SHUTDOWN",), ("CLUSTER", "RESET"), ("SCAN", "0"), ("PUBLISH", "bw:1", "x"), ("MONITOR",),
                                   ("EVAL", "return redis.call('GET', 'other')", "0"), ("SCRIPT", "FLUSH")],
                         ids="-".join)
def test_the_user_may_do_nothing_else(shipped, words):
    with pytest.raises(Error, match="NOPERM|permission|ACL|can't access"):
        Connection(As(shipped, "breakwater")).call(*words)


def test_nobody_gets_in_without_a_name(shipped):
    class Nobody(As):
        def __init__(self, server):
            super().__init__(server, "admin")
            self.password = None
    with pytest.raises(Error, match="NOAUTH"):
        Connection(Nobody(shipped)).call("GET", "bw:1:x")
