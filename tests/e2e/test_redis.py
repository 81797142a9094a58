"""The way to Redis (daemon/redis.c) against real servers, through redisload: single, TLS, ACL, Cluster, Sentinel; and what
happens when they die, hang, move slots or fail over."""
import json
import os
import signal
import subprocess
import time

import pytest

import private_redis
from daemon import BUILD
from private_redis import Certificates, Cluster, Sentinels, Server

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)
LOAD = f"{BUILD}/e2e/redisload"


class Load:
    """redisload at work; result() waits for its end, settled() ends it."""

    def __init__(self, *args):
        self.begun, self.lines = time.monotonic(), []
        self.process = subprocess.Popen([LOAD, *map(str, args)], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def result(self, timeout=60):
        try:
            out, log = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        self.log = log.decode()
        assert self.process.returncode in (0, 1), self.log
        self.lines += [json.loads(line) for line in out.splitlines()]
        return self.lines[-1]

    def settled(self):
        """With -v: from now on, two half seconds in a row without an error; then it ends. -T is its patience."""
        now, good = time.monotonic() - self.begun, 0
        while good < 2:
            self.lines.append(json.loads(self.process.stdout.readline()))
            line = self.lines[-1]
            assert "t" in line, (self.lines, self.result())
            good = good + 1 if line["t"] > now and line["up"] and not line["bad"] else 0
        self.process.terminate()
        return self.result()


def load(*args):
    return Load(*args).result()


def servers(addresses, option="-s"):
    return [w for a in addresses for w in (option, a)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(str(tmp_path_factory.mktemp("certificates")))


def all_good(r, calls):
    assert (r["ok"], r["errors"], r["faults"]) == (calls, 0, {}), r


def test_every_call_is_answered_over_tcp_and_unix_socket():
    with Server() as s:
        all_good(load("-s", s.address, "-l", 20000, "-d", 2000), 20000)
        all_good(load("-s", s.unix, "-l", 20000, "-d", 2000), 20000)
        assert s.call("GET", "bwload:0") is not None
        assert int(s.info("total_commands_processed")) > 40000


def test_a_script_is_sent_once_and_again_after_it_was_flushed():
    with Server() as s:
        r = load("-s", s.unix, "-l", 5000, "-x", "script", "-w", 1, "-d", 2000)
        all_good(r, 5000)
        assert r["scripts"] == 1
        s.call("SCRIPT", "FLUSH")
        assert load("-s", s.unix, "-l", 5000, "-x", "script", "-w", 1, "-d", 2000)["scripts"] == 1
        assert sum(int(s.call("GET", f"bwload:{i}")) for i in range(1000)) == 10000


def test_database_and_password():
    with Server(password="s3cret") as s:
        secret = f"{s.dir}/secret"
        with open(secret, "w") as f:
            f.write("s3cret\n")
        os.chmod(secret, 0o600)
        all_good(load("-s", s.address, "-P", secret, "-n", 3, "-l", 100, "-d", 2000), 100)
        s.call("SELECT", 3)
        assert s.call("DBSIZE") == 100
        s.call("SELECT", 0)
        assert s.call("DBSIZE") == 0
        with open(secret, "w") as f:
            f.write("wrong\n")
        wrong = Load("-s", s.address, "-P", secret, "-T", 1, "-i")
        r = wrong.result()
        assert r["ok"] == 0 and set(r["faults"]) == {"not connected"}
        assert wrong.log.count("check store.user and store.password_file\"") >= 1


def test_acl_user_may_do_what_it_may_and_the_rest_is_denied():
    acl = ["user breakwater on >s3cret ~bwload:* +ping +incr +select", "user default off"]
    with Server(acl=acl[:1]) as s:
        secret = f"{s.dir}/secret"
        with open(secret, "w") as f:
            f.write("s3cret")
        os.chmod(secret, 0o600)
        all_good(load("-s", s.unix, "-u", "breakwater", "-P", secret, "-l", 1000, "-d", 2000), 1000)
        denied = Load("-s", s.unix, "-u", "breakwater", "-P", secret, "-l", 50, "-x", "get", "-d", 2000)
        r = denied.result()
        assert r["ok"] == 0 and r["faults"] == {"denied": 50}
        assert denied.log.count("refuses us: check store.user") == 1  # said once, not 50 times


def test_everybody_may_not_read_the_password(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    p = subprocess.run([LOAD, "-s", "127.0.0.1:1", "-P", str(secret), "-l", "1"], capture_output=True, text=True, timeout=20)
    assert p.returncode == 1 and "chmod 600 it" in p.stderr


def test_tls_is_verified(certificates, tmp_path):
    with Server(tls=certificates) as s:
        for name in ("redis.example", "127.0.0.1"):
            all_good(load("-s", s.address, "-t", "-a", certificates.ca, "-N", name, "-l", 5000, "-d", 2000), 5000)
        all_good(load("-s", s.address, "-t", "-l", 500, "-d", 2000), 500)
        other = Load("-s", s.address, "-t", "-a", certificates.ca, "-N", "other.example", "-T", 1, "-i")
        stranger = Load("-s", s.address, "-t", "-a", Certificates(str(tmp_path)).ca, "-T", 1, "-i")
        plain = Load("-s", s.address, "-T", 1, "-i")  # to a TLS port
        assert other.result()["ok"] == 0 and "certificate verify failed" in other.log
        assert stranger.result()["ok"] == 0 and "certificate verify failed" in stranger.log
        assert plain.result()["ok"] == 0


def test_tls_with_our_own_certificate(tmp_path):
    both = Certificates(str(tmp_path), client=True)
    with Server(tls=both) as s:
        args = ("-s", s.address, "-t", "-a", both.ca, "-d", 2000)
        all_good(load(*args, "-C", both.cert, "-K", both.key, "-l", 500), 500)
        assert load(*args, "-T", 1, "-i")["ok"] == 0


def test_server_that_is_not_there_at_the_start_and_comes():
    with Server() as s:
        s.kill()
        at_work = Load("-s", s.address, "-T", 20, "-i", "-v", "-d", 2000)
        time.sleep(1)
        s.start()
        r = at_work.settled()
        assert at_work.lines[0]["up"] is False and at_work.lines[0]["trouble"].endswith("Connection refused")
        assert r["ok"] > 100 and r["up"] == 1 and set(r["faults"]) == {"not connected"}


def test_kill_9_and_restart():
    with Server() as s:
        at_work = Load("-s", s.address, "-T", 20, "-v", "-w", 8, "-d", 1000)
        time.sleep(0.5)
        s.kill()
        time.sleep(0.7)
        s.start()
        r = at_work.settled()
        assert set(r["faults"]) <= {"not connected", "connection lost", "loading or down", "deadline"}
        assert r["faults"]["connection lost"] <= 8 and r["up"] == 1


def test_a_server_that_hangs_costs_one_deadline_then_nothing():
    with Server() as s:
        at_work = Load("-s", s.address, "-T", 20, "-v", "-w", 8)
        time.sleep(0.5)
        s.signal(signal.SIGSTOP)
        time.sleep(1.5)
        s.signal(signal.SIGCONT)
        r = at_work.settled()
        assert r["openings"] >= 1
        assert r["faults"]["deadline"] <= 32, r  # those in flight; then the breaker is open
        assert r["up"] == 1
        assert max(line["worst_us"] for line in at_work.lines[:-1]) < 2_000_000


def test_out_of_memory_and_read_only_are_no_replies():
    with Server(options=["maxmemory-policy noeviction"]) as s:
        s.call("CONFIG", "SET", "maxmemory", 1)
        full = Load("-s", s.unix, "-l", 20, "-d", 2000)
        assert full.result()["faults"] == {"takes no writes": 20}
        assert full.log.count("takes no writes: check its maxmemory") == 1
        with Server(replica_of=s) as replica:
            s.call("CONFIG", "SET", "maxmemory", 0)
            private_redis.wait(lambda: replica.info("master_link_status") == "up")
            assert load("-s", replica.unix, "-l", 20, "-d", 2000)["faults"] == {"read-only": 20}


def test_cluster_all_shards_from_one_seed():
    with Cluster(3) as c:
        r = load("-c", "-s", c.servers[1].address, "-l", 30000, "-d", 2000)
        all_good(r, 30000)
        assert (r["servers"], r["up"]) == (3, 3)
        assert all(s.call("DBSIZE") > 100 for s in c.servers)
        all_good(load("-c", *servers(c.addresses), "-l", 3000, "-d", 2000, "-x", "script"), 3000)
        plain = Load("-s", c.servers[0].address, "-l", 100, "-d", 2000)
        r = plain.result()
        assert r["faults"].keys() == {"redirected astray"} and "set store.cluster" in plain.log


def test_cluster_over_tls(certificates):
    with Cluster(3, tls=certificates) as c:
        r = load("-c", "-s", c.servers[2].address, "-t", "-a", certificates.ca, "-N", "redis.example", "-l", 5000, "-d", 2000)
        all_good(r, 5000)
        assert (r["servers"], r["up"]) == (3, 3)


def test_cluster_slots_move_under_load_without_an_error():
    with Cluster(3) as c:
        moving = [k for k in range(3000) if slot_of(f"bwload:{k}") // 64 == slot_of("bwload:1") // 64]
        slots = sorted({slot_of(f"bwload:{k}") for k in moving})
        source = c.owner(slots[0])
        target = next(s for s in c.servers if s is not source)
        at_work = Load("-c", *servers(c.addresses[:1]), "-T", 20, "-v", "-k", 3000, "-w", 32, "-d", 2000)
        time.sleep(0.5)
        for slot in slots:
            c.move_slot(slot, target, pause=0.01)
        assert c.owner(slots[-1]) is target
        r = at_work.settled()
        assert r["errors"] == 0, r
        assert r["redirections"] > 0
        counted = sum(int(c.owner(slot_of(f"bwload:{k}")).call("GET", f"bwload:{k}") or 0) for k in moving)
        assert counted > 0


def slot_of(key):
    """CRC16 (XMODEM) of the key, which has no hash tag."""
    crc = 0
    for b in key.encode():
        crc ^= b << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % private_redis.SLOTS


def test_cluster_master_dies_and_its_replica_takes_over():
    with Cluster(3, 1) as c:
        at_work = Load("-c", *servers(c.addresses), "-T", 20, "-v", "-w", 16, "-d", 500)
        time.sleep(0.5)
        c.servers[0].kill()
        private_redis.wait(lambda: c.owner(0) is c.servers[3])
        r = at_work.settled()
        assert (r["servers"], r["up"]) == (3, 3), (r, at_work.log[-2000:])


def test_sentinels_name_the_next_master():
    with Server() as first, Server(replica_of=first) as second:
        private_redis.wait(lambda: second.info("master_link_status") == "up")
        with Sentinels(first) as sentinels:
            dead = "127.0.0.1:1"
            args = (*servers([dead, *sentinels.addresses], "-S"), "-M", sentinels.name)
            all_good(load(*args, "-l", 1000, "-d", 2000), 1000)
            assert first.call("DBSIZE") > 0
            at_work = Load(*args, "-T", 20, "-v", "-w", 8, "-d", 500)
            time.sleep(0.5)
            first.kill()
            private_redis.wait(lambda: second.info("role") == "master")
            r = at_work.settled()
            assert r["up"] == 1, (at_work.lines, at_work.log[-2000:])
            unknown = Load(*servers(sentinels.addresses, "-S"), "-M", "nobody", "-T", 1, "-i", "-v")
            assert unknown.result()["ok"] == 0
            assert "knows no master of this name" in unknown.lines[0]["trouble"]


def test_sentinel_fail_over_while_the_old_master_lives():
    """It becomes a replica and closes its connections, or answers READONLY: either way the new one is found."""
    with Server() as first, Server(replica_of=first) as second:
        private_redis.wait(lambda: second.info("master_link_status") == "up")
        with Sentinels(first) as sentinels:
            at_work = Load(*servers(sentinels.addresses, "-S"), "-M", sentinels.name, "-T", 20, "-v", "-w", 8, "-d", 500)
            time.sleep(0.5)
            sentinels.servers[0].call("SENTINEL", "FAILOVER", sentinels.name)
            private_redis.wait(lambda: second.info("role") == "master")
            r = at_work.settled()
            assert r["up"] == 1, (at_work.lines, at_work.log[-2000:])
