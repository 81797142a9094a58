"""Several nodes with one past: who there is and who may share, what one learned of the world the others know within seconds,
one clock, conversations that go through all of them; Redis and nodes come and go."""
import os
import time

import pytest

import private_redis
from daemon import FAILPOINTS, Daemon
from milter_peer import Peer
from private_redis import Server, wait
from test_redis_store import Node, nodes  # noqa: F401 (a fixture)
from test_restart import FIRST, PEOPLE, first, passed, status, turn

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)
KNOWN_S = 5


@pytest.fixture
def redis():
    with Server() as s:
        yield s


def fleet(d):
    return status(d)["fleet"]


def of(d, name):
    """What a node shows of one called so."""
    return next((n for n in fleet(d)["nodes"] if n["name"] == name), None)


def all_share(some):
    """Each sees all others, and all share."""
    wait(lambda: all(sum(n["alive"] and n["shared"] for n in fleet(d)["nodes"]) == len(some) for d in some))
    return some


def peer(d):
    p = Peer(d.port)
    p.begin()
    return p


def storm(d, n, turns=8):
    with peer(d) as p:
        first(p, n)
        return [turn(p, n, t) for t in range(turns)]


# By itself this is no evidence: the server is allowed one such copy unless it is known.
DETOUR = "Received: from sbs.faulty.example ([198.51.100.9]) by smart.isp.example with ESMTP id D1;\n" \
         "\tMon, 16 Nov 2026 11:00:00 +0000\n" \
         "Received: from out.origin.example (out.origin.example [192.0.2.2]) by sbs.faulty.example with ESMTP id D2;\n" \
         "\tMon, 16 Nov 2026 10:10:00 +0000\n"


def leaked(d, n):
    """Another message comes back through the server of the storm, to one who had it. Does it pass?"""
    with peer(d) as p:
        assert first(p, n, PEOPLE[:1]) == 1
        return passed(p, n, PEOPLE[:1], DETOUR + FIRST.format(n=n))


# ---- what Redis gives up when it is full ----

@pytest.mark.parametrize("options, warned", [(["maxmemory 100mb", "maxmemory-policy allkeys-lru"], True),
                                             (["maxmemory 100mb", "maxmemory-policy volatile-ttl"], False),
                                             (["maxmemory-policy allkeys-lru"], False)])
def test_a_redis_that_would_forget_storms_is_told_of(nodes, options, warned):  # noqa: F811
    with Server(options=options) as redis:
        a, = all_share(nodes(redis, 1))
        if warned:
            wait(lambda: "Redis has maxmemory-policy allkeys-lru" in a.log())
        else:
            time.sleep(1.5)
            assert "maxmemory-policy" not in a.log()


# ---- who there is ----

def test_every_node_shows_all_of_them(redis, nodes):  # noqa: F811
    a, b, c = all_share(nodes(redis, 3))
    assert [n["self"] for n in fleet(b)["nodes"]].count(True) == 1 and of(b, "node1")["self"]
    assert fleet(a)["state"] == "sharing" and of(a, "node2")["mode"] == "enforce"
    assert len({n["number"] for n in fleet(a)["nodes"]}) == 3
    text = a.ctl("status")
    assert "node0 (this one)" in text and text.count("mode enforce") == 3
    c.stop()
    c.log_file = open(os.devnull, "w")
    wait(lambda: of(a, "node2")["left"])
    assert "node2" in a.ctl("status") and "stopped" in a.ctl("status")
    b.kill()
    wait(lambda: not of(a, "node1")["alive"], 20)
    assert "not seen for" in a.ctl("status")
    b.start()
    all_share([a, b])


def test_who_judges_otherwise_shares_nothing(redis, nodes, tmp_path):  # noqa: F811
    a = nodes(redis, 1)[0]
    all_share([a])
    key = f"{a.dir}/site.key"
    other = Node(f"{tmp_path}/other", "other", redis, key, hold='}\ndetect { storm_dups = 55')
    stranger = Node(f"{tmp_path}/stranger", "stranger", redis)
    try:
        for d, why in (other, "section detect"), (stranger, "site key"):
            wait(lambda: fleet(d)["state"] == "refused")
            assert why in fleet(d)["why"] and d.log().count("does not share") == 1
            wait(lambda: why in ((of(a, d.name) or {}).get("why") or ""))
        assert "does not share" in other.ctl("status") and fleet(a)["state"] == "sharing"
        with peer(a) as pa, peer(other) as po:
            assert first(pa, 1) == len(PEOPLE)
            assert first(po, 1) == len(PEOPLE)  # its own past: nobody had it
        with open(other.conf) as f:
            text = f.read()
        with open(other.conf, "w") as f:
            f.write(text.replace("storm_dups = 55", ""))
        other.process.send_signal(1)  # SIGHUP
        wait(lambda: fleet(other)["state"] == "sharing" and of(a, "other")["shared"])
    finally:
        other.stop()
        stranger.stop()


# ---- what one learned ----

def test_a_convicted_server_is_known_everywhere_within_seconds(redis, nodes, tmp_path):  # noqa: F811
    a, b, c = all_share(nodes(redis, 3))
    assert leaked(c, 50) == 1  # what the server may do while nobody knows it
    assert storm(a, 1)[-1] == 0
    time.sleep(KNOWN_S)
    assert leaked(b, 2) == 0 and leaked(c, 3) == 0
    assert fleet(b)["heard"] > 0 and fleet(a)["told"] > 0 and fleet(a)["dropped"] == 0


def test_what_was_learned_while_redis_was_away_arrives_when_it_is_back(redis, nodes):  # noqa: F811
    a, b = all_share(nodes(redis, 2))
    redis.kill()
    wait(lambda: fleet(a)["state"] == fleet(b)["state"] == "away")
    storm(a, 1)
    assert leaked(b, 2) == 1  # it does not know yet
    redis.start()
    all_share([a, b])
    time.sleep(KNOWN_S)
    assert leaked(b, 3) == 0


# ---- one clock ----

@pytest.mark.skipif(not os.path.exists(f"{FAILPOINTS}/breakwaterd"), reason="no build with failpoints")
def test_clocks_five_minutes_apart_make_no_storm_and_are_one(redis, tmp_path):
    key, some = None, []
    try:
        for i, shift in enumerate((0, -300000, 300000)):
            env = {"BREAKWATER_FAILPOINT": f"clock:value={shift}"} if shift else None
            some.append(Node(f"{tmp_path}/{i}", f"node{i}", redis, key, build=FAILPOINTS, env=env))
            key = key or f"{some[0].dir}/site.key"
        all_share(some)
        for d, shift in zip(some, (0, -300000, 300000)):
            assert abs(fleet(d)["offset_ms"] + shift) < 2000
        now = [status(d)["now"] for d in some]
        assert max(now) - min(now) < 5 < time.time()
        peers = [peer(d) for d in some]
        for n in range(30):  # ordinary mail, here and there
            assert first(peers[n % 3], n, [f"<q{n}@people.example>"]) == 1
        assert all(status(d)["storms_open"] == 0 and status(d)["counters"]["held"] == 0 for d in some)
        assert first(peers[0], 100) == len(PEOPLE)
        assert turn(peers[1], 100, 1) == 0 and turn(peers[2], 100, 2) == 0
        for p in peers:
            p.close()
    finally:
        for d in some:
            d.stop()


# ---- conversations ----

GUESTS = [f"<guest{i}@g{i % 5}.example>" for i in range(40)]


def reply(p, i):
    """The i-th of the guests answers all. Is it held?"""
    header = f"Received: from pc (pc [192.0.2.9]) by out.example with ESMTP id R{i};\n\tMon, 16 Nov 2026 10:00:00 +0000\n" \
             f"From: {GUESTS[i % 40]}\nTo: {', '.join(GUESTS)}\nSubject: Re: the party\nMessage-ID: <r{i}@example>\n" \
             "In-Reply-To: <root@origin.example>\nReferences: <root@origin.example>\nDate: Mon, 16 Nov 2026 10:00:00 +0000\n"
    return p.mail(GUESTS[i % 40], GUESTS, header, f"Please take me off this list, number {i}, thank you very much.\r\n")[-1][0] == "d"


def test_a_conversation_through_three_nodes_is_one(redis, nodes, tmp_path):  # noqa: F811
    replies = 60
    alone = Daemon(f"{tmp_path}/alone")
    try:
        with peer(alone) as p:
            want = [reply(p, i) for i in range(replies)]
    finally:
        alone.stop()
    assert 5 < want.index(True) and want[-1]
    some = all_share(nodes(redis, 3))
    peers = [peer(d) for d in some]
    assert [reply(peers[i % 3], i) for i in range(replies)] == want
    for p in peers:
        p.close()
