"""Several nodes are one for people: two or three breakwaterd with a Redis of their own between them.

What is asked at one node is answered by all; what is changed at one is done by the node that has the copy.
"""
import json
import os
import shutil
import subprocess
import time

import pytest

import private_redis
from daemon import BUILD, Daemon
from milter_peer import Peer
from test_incident import PEOPLE, send

POLICY = 'rule held { when recipient.address matches "held*@rcpt.example" do hold reason "by name" }\n'
POLICY += 'rule duplicate { when replication.advice == "hold" do hold reason "a further copy" }\n'
HEADER = "From: Someone <a@sender.example>\nSubject: of {n}\nMessage-ID: <{n}@sender.example>\n"
BODY = "This is message {n}, and it has enough words in it to be told from all others by its text alone.\r\n"
SENDER = "<someone@sender.example>"

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Sink:
    def __init__(self, directory):
        self.file = f"{directory}/delivered.jsonl"
        self.process = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.file], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.address = self.process.stdout.readline().decode().split()[1]

    def recipients(self):
        with open(self.file) as f:
            return sorted(json.loads(line)["rcpt"] for line in f if line.endswith("\n"))

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Fleet:
    def __init__(self, directory, names):
        self.redis, self.sink, self.nodes = private_redis.Server(), Sink(directory), {}
        with open(f"{directory}/policy.conf", "w") as f:
            f.write(POLICY)
        for name in names:
            place = f"{directory}/{name}"
            os.makedirs(f"{place}/hold")
            if self.nodes:
                shutil.copy(f"{directory}/{names[0]}/site.key", f"{place}/site.key")
            self.nodes[name] = Daemon(place, release_to=self.sink.address, release="token = no rate = 1000", node=name,
                                      more=f'policy {{ file = "{directory}/policy.conf" }}\n'
                                           f'store {{ backend = "redis" servers = {{"{self.redis.address}"}} }}')
        for n in self.nodes.values():
            until(lambda n=n: len(self.sharing(n)) == len(names))

    def __getitem__(self, name):
        return self.nodes[name]

    @staticmethod
    def sharing(node):
        return [n["name"] for n in node.json("status")[0]["fleet"]["nodes"] if n["shared"]]

    def mail(self, name, n, *rcpts, body=BODY):
        with Peer(self[name].port) as p:
            p.begin()
            return p.mail(SENDER, [f"<{r}@rcpt.example>" for r in rcpts], HEADER.format(n=n), body.format(n=n))

    def held(self, name, state="held"):
        status, out = self[name].ctl("--json", "held", "--state", state, check=False)
        return status, [json.loads(line) for line in out.splitlines() if line.startswith("{")], out

    def stop(self):
        for n in self.nodes.values():
            n.stop()
        self.sink.stop()
        self.redis.stop()


@pytest.fixture
def fleet(tmp_path):
    fleets = []

    def make(*names):
        fleets.append(Fleet(str(tmp_path), names))
        return fleets[-1]

    yield make
    for f in fleets:
        f.stop()


def test_held_lists_the_copies_of_every_node_in_the_order_of_their_ids(fleet):
    f = fleet("mx1", "mx2")
    for n in range(6):
        f.mail(("mx1", "mx2")[n % 2], n, f"held-{n}")
    status, copies, out = f.held("mx1")
    assert status == 0, out
    assert [(c["rcpt"], c["node"]) for c in copies] == [(f"held-{n}@rcpt.example", ("mx1", "mx2")[n % 2]) for n in range(6)]
    assert [c["id"] for c in f.held("mx2")[1]] == [c["id"] for c in copies]
    assert [c["rcpt"] for c in f["mx1"].json("held", "--node", "mx2")] == [f"held-{n}@rcpt.example" for n in (1, 3, 5)]
    assert "NODE" in f["mx1"].ctl("held")
    assert f["mx1"].ctl("held", "--node", "mx9", check=False)[0] == 1


def test_pages_of_all_nodes_leave_nothing_out_and_repeat_nothing(fleet):
    f = fleet("mx1", "mx2")
    for n in range(9):
        f.mail("mx1" if n in (0, 1, 2, 3, 7) else "mx2", n, f"held-{n}")
    seen, after = [], None
    for _ in range(9):
        out = f["mx2"].ctl("held", "--limit", "2", *(["--after", after] if after else []))
        seen += [line.split()[6] for line in out.splitlines() if "held-" in line and "@rcpt" in line]
        if "--after" not in out:
            break
        after = out.split("--after ")[1].split()[0]
    ids = [c["rcpt"] for c in f.held("mx1")[1]]
    assert len(ids) == 9 and len(seen) == 9


def test_a_node_that_does_not_answer_is_named(fleet):
    f = fleet("mx1", "mx2")
    f.mail("mx1", 1, "held-1")
    f.mail("mx2", 2, "held-2")
    f["mx2"].kill()
    status, copies, out = f.held("mx1")
    assert status == 4 and "mx2 did not answer: its copies are not shown" in out
    assert [c["rcpt"] for c in copies] == ["held-1@rcpt.example"]
    until(lambda: "away: not seen for" in f["mx1"].ctl("status"))


def test_a_copy_of_another_node_is_shown_but_not_its_text(fleet):
    f = fleet("mx1", "mx2")
    f.mail("mx2", 1, "held-1")
    copy = f.held("mx1")[1][0]
    shown = f["mx1"].json("show", copy["id"], "--headers")[0]
    assert (shown["node"], shown["rcpt"]) == ("mx2", "held-1@rcpt.example") and "Subject: of 1" in shown["headers"]
    for part in ("--text", "--message"):
        status, out = f["mx1"].ctl("show", copy["id"], part, check=False)
        assert status == 1 and "That copy is on mx2" in out
    assert 0 < f.redis.call("PTTL", "bw:1:x:answer") <= 60000  # nobody's addresses stay there
    assert "This is message 1" not in str(f.redis.call("XRANGE", "bw:1:x:answer", "-", "+"))


def test_release_discard_and_undo_are_done_by_the_node_that_has_the_copy(fleet):
    f = fleet("mx1", "mx2")
    for n in range(4):
        f.mail(("mx1", "mx2")[n % 2], n, f"held-{n}")
    ids = {c["rcpt"].split("@")[0]: c["id"] for c in f.held("mx1")[1]}
    out = f["mx1"].ctl("release", ids["held-0"], ids["held-1"])
    assert "2 copies are on their way" in out and "on mx2: 1" in out
    until(lambda: f.sink.recipients() == ["held-0@rcpt.example", "held-1@rcpt.example"])
    f["mx1"].ctl("discard", ids["held-3"], "--reason", "not wanted")
    assert [c["rcpt"] for c in f.held("mx2", "discarded")[1]] == ["held-3@rcpt.example"]
    assert f.held("mx2", "discarded")[1][0]["by"].endswith(" at mx1")
    f["mx1"].ctl("undo", ids["held-3"])
    assert sorted(c["rcpt"] for c in f.held("mx1")[1]) == ["held-2@rcpt.example", "held-3@rcpt.example"]
    # what cannot be done is refused by the node that knows
    status, out = f["mx2"].ctl("release", ids["held-1"], check=False)
    assert status == 1 and "released it" in out


def test_a_command_for_a_node_that_is_dead_is_done_once_when_it_is_back(fleet):
    f = fleet("mx1", "mx2")
    f.mail("mx2", 1, "held-1")
    f.mail("mx2", 2, "held-2")
    ids = {c["rcpt"].split("@")[0]: c["id"] for c in f.held("mx1")[1]}
    f["mx2"].kill()
    status, out = f["mx1"].ctl("release", ids["held-1"], check=False)
    assert status == 4 and "1 copy on mx2: it did not answer, it will do it when it is back" in out
    f["mx1"].kill()  # who asked is dead, too
    f["mx2"].start()
    until(lambda: f.sink.recipients() == ["held-1@rcpt.example"])


def test_a_command_that_is_read_again_is_not_done_again(fleet):
    f = fleet("mx1", "mx2")
    f.mail("mx2", 1, "held-1")
    copy = f.held("mx1")[1][0]["id"]
    f["mx1"].ctl("discard", copy, "--reason", "not wanted")
    f["mx2"].ctl("undo", copy)
    f["mx2"].kill()
    f["mx2"].start()
    until(lambda: len(f.sharing(f["mx1"])) == 2 and len(f.sharing(f["mx2"])) == 2)
    f["mx1"].ctl("mode", "monitor", "--node", "mx2", "--reason", "this is read after the discard")
    assert [c["state"] for c in f["mx2"].json("held")] == ["held"]


def test_one_copy_for_each_recipient_is_one_of_all_nodes(fleet):
    """The same message comes to both nodes for overlapping recipients; nobody got one."""
    f = fleet("mx1", "mx2")
    body = BODY.format(n="the same everywhere")
    for name, rcpts in (("mx1", range(0, 6)), ("mx2", range(3, 9)), ("mx1", range(5, 7))):
        f.mail(name, 1, *[f"held-{r}" for r in rcpts], body=body)
    storms = {c["storm"] for c in f.held("mx1")[1]}
    assert len(storms) == 1, storms
    storm = storms.pop()
    everybody = sorted(f"held-{r}@rcpt.example" for r in range(9))
    assert "9 copies would be released" in f["mx2"].ctl("release", "--storm", storm, "--one-per-recipient", "-n")
    f["mx2"].ctl("release", "--storm", storm, "--one-per-recipient")
    until(lambda: len(f.sink.recipients()) >= 9)
    assert "No copy is needed" in f["mx1"].ctl("release", "--storm", storm, "--one-per-recipient")
    time.sleep(1)
    assert f.sink.recipients() == everybody
    f["mx2"].kill()
    status, out = f["mx1"].ctl("release", "--storm", storm, "--one-per-recipient", check=False)
    assert status == 1 and "exactly one for each cannot be promised" in out


def test_who_got_a_copy_that_passed_at_another_node_gets_none(fleet):
    """It is held at one node first; later, at another one that only monitors, it passes for one of the two."""
    f = fleet("mx1", "mx2")
    body = BODY.format(n="the same everywhere")
    f.mail("mx2", 1, "held-1", "held-2", body=body)
    f["mx1"].ctl("mode", "monitor", "--reason", "test")
    f.mail("mx1", 1, "held-1", body=body)
    storm = f.held("mx2")[1][0]["storm"]
    out = f["mx2"].ctl("release", "--storm", storm, "--one-per-recipient")
    assert "1 copy is on its way" in out
    until(lambda: f.sink.recipients())
    time.sleep(1)
    assert f.sink.recipients() == ["held-2@rcpt.example"]


def test_a_word_about_a_relay_is_for_all_nodes(fleet):
    f = fleet("mx1", "mx2")
    send(f["mx1"], "original", 0)
    for turn in range(1, 9):
        send(f[("mx1", "mx2")[turn % 2]], "original", turn)

    def states():
        return [[r["state"] for r in f[n].json("relays")] for n in ("mx1", "mx2")]

    until(lambda: states() == [["misbehaving"], ["misbehaving"]])
    relay = f["mx1"].json("relays")[0]["relay"]
    f["mx1"].ctl("relays", "said-fixed", relay, "--reason", "patched")
    until(lambda: states() == [["said-fixed"], ["said-fixed"]])


def storm_of(f, name):
    storms = f[name].json("storms")
    return storms[0] if storms else {}


def test_a_storm_that_comes_to_two_nodes_is_one_with_the_counts_of_both(fleet):
    """A faulty server brings a message back again and again, by turns to both nodes."""
    f = fleet("mx1", "mx2")
    send(f["mx1"], "original", 0)
    for turn in range(1, 9):
        send(f[("mx1", "mx2")[turn % 2]], "original", turn)
    copies = 9 * len(PEOPLE)
    held = len(f.held("mx1")[1])
    assert held == copies - len(PEOPLE)
    assert {c["storm"] for c in f.held("mx1")[1]} == {storm_of(f, "mx1")["id"]}
    for name in ("mx1", "mx2"):
        until(lambda name=name: storm_of(f, name).get("copies") == copies and storm_of(f, name).get("held") == held)
        s = storm_of(f, name)
        assert s["passed"] + s["tagged"] + s["held"] == s["copies"]
        assert sorted(n["node"] for n in s["nodes"]) == ["mx1", "mx2"]
        assert f[name].json("status")[0]["storms_open"] == 1
        shown = f[name].ctl("show", s["id"])
        assert f"{held} held" in shown and "Seen by" in shown
        assert f[name].json("show", s["id"])[0]["queue"]["held"] == held
    alone = f["mx1"].json("storms", "--node", "mx2")[0]
    assert [n["node"] for n in alone["nodes"]] == ["mx2"] and alone["held"] < held
    # what another node counted is not forgotten when that node is gone
    f["mx1"].kill()
    f["mx2"].kill()
    f["mx2"].start()
    assert storm_of(f, "mx2")["copies"] == copies and storm_of(f, "mx2")["held"] == held


def test_all_copies_of_a_storm_are_sent_by_the_nodes_that_hold_them(fleet):
    f = fleet("mx1", "mx2")
    body = BODY.format(n="the same everywhere")
    f.mail("mx1", 1, "held-1", "held-2", body=body)
    f.mail("mx2", 1, "held-3", body=body)
    storm = f.held("mx1")[1][0]["storm"]
    out = f["mx1"].ctl("release", "--storm", storm, "--all", "-y")
    assert "3 copies are on their way" in out and "on mx1: 2" in out and "on mx2: 1" in out
    until(lambda: f.sink.recipients() == [f"held-{n}@rcpt.example" for n in (1, 2, 3)])


def test_a_mode_is_set_here_or_everywhere(fleet):
    f = fleet("mx1", "mx2")

    def modes():
        return [f[n].json("mode")[0]["mode"] for n in ("mx1", "mx2")]

    f["mx1"].ctl("mode", "monitor", "--reason", "here")
    assert modes() == ["monitor", "enforce"]
    f["mx1"].ctl("mode", "bypass", "--everywhere", "--reason", "all")
    assert modes() == ["bypass", "bypass"]
    f["mx1"].ctl("mode", "enforce", "--node", "mx2", "--reason", "there")
    assert modes() == ["bypass", "enforce"]


def test_without_redis_each_node_answers_for_itself_and_commands_are_not_forgotten_in_silence(fleet):
    f = fleet("mx1", "mx2")
    f.mail("mx1", 1, "held-1")
    f.mail("mx2", 2, "held-2")
    ids = {c["rcpt"].split("@")[0]: c["id"] for c in f.held("mx1")[1]}
    f.redis.kill()
    until(lambda: f["mx1"].json("status")[0]["fleet"]["state"] == "away")
    status, copies, out = f.held("mx1")
    assert status == 4 and [c["rcpt"] for c in copies] == ["held-1@rcpt.example"]
    status, out = f["mx1"].ctl("release", ids["held-2"], check=False)
    assert status == 4 and "it could not be told" in out
    f["mx1"].ctl("release", ids["held-1"])
    until(lambda: f.sink.recipients() == ["held-1@rcpt.example"])
