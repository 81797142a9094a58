"""Versions of the policy and modes of listeners, in the real daemon."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from daemon import BUILD, Daemon
from milter_peer import Peer, frame, macros, strings
from private_postfix import free_port

LISTENER = 'milter second {{ socket = "inet:{port}@127.0.0.1" }}\n'


def rules(name):
    """Everything that comes is tagged by this rule."""
    return f"rule {name} {{\n    when true\n    do tag\n}}\n"


class House(Daemon):
    """A daemon with two listeners, main and second, and a policy file of its own."""

    def __init__(self, directory, policy="", text=rules("one"), more="", **named):
        self.second = free_port()
        self.file = self.put(directory, "policy.conf", text)
        super().__init__(directory, more=LISTENER.format(port=self.second) + more +
                         f'policy {{ file = "policy.conf" {policy} }}\n', **named)

    @staticmethod
    def put(directory, name, text):
        path = f"{directory}/{name}"
        with open(path, "w") as f:
            f.write(text)
        return path

    def text(self, name, text=None):
        """A file with such rules; its path."""
        return self.put(self.dir, f"{name}.conf", text or rules(name))

    def apply(self, name, *more, text=None, check=True):
        return self.ctl("policy", "apply", self.text(name, text), "--reason", f"try {name}", *more, check=check)

    def judge(self, port=None, rcpt="a@x.example"):
        """The rule that judges a message now."""
        with Peer(port or self.port) as peer:
            peer.begin()
            return rule_of(peer.mail("<s@s.example>", [f"<{rcpt}>"], "Subject: x\n", f"{time.monotonic()}\r\n"))

    def states(self):
        return [v["state"] for v in reversed(self.json("policy", "history"))]

    def version(self):
        return self.json("policy")[0]

    def hup(self, what):
        """Reads the configuration again; waits for a line of the log."""
        before = self.log().count(what)
        self.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: self.log().count(what) > before), self.log()

    def ask(self, method, path, body=None):
        c = http.client.HTTPConnection("breakwater", timeout=20)
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(20)
        c.sock.connect(f"{self.dir}/control")
        c.request(method, f"/api/v1/{path}", body, {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, json.loads(r.read() or b"null")


def rule_of(replies):
    """The rule in the header field that a verdict adds."""
    found = re.search(rb"rule=([a-z-]+)", b"".join(data for letter, data in replies))
    return found.group(1).decode() if found else None


def wait_for(what, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def make(tmp_path, **named):
    return House(str(tmp_path), **named)


@pytest.fixture
def house(tmp_path):
    d = make(tmp_path)
    yield d
    assert d.stop() == 0


# ---- modes of listeners ----


def modes(daemon):
    return {door["name"]: door["mode"] for door in daemon.json("status")[0]["doors"]}


def test_a_listener_has_a_mode_of_its_own(tmp_path):
    house = make(tmp_path, mode="monitor")
    assert modes(house) == {"main": "monitor", "second": "monitor"}
    assert "would be" in house.ctl("mode", "enforce", "--only", "second", "--reason", "try it", "-n")
    assert modes(house)["second"] == "monitor"
    house.ctl("mode", "enforce", "--only", "second", "--reason", "try it")
    assert modes(house) == {"main": "monitor", "second": "enforce"}
    assert "Listener second has a mode of its own: enforce." in house.ctl("mode")
    assert house.judge() is None and house.judge(house.second) == "one"
    house.ctl("mode", "bypass", "--reason", "all others")
    assert modes(house) == {"main": "bypass", "second": "enforce"}
    house.kill()
    house.start()
    assert modes(house) == {"main": "bypass", "second": "enforce"}
    house.ctl("mode", "same", "--only", "second", "--reason", "enough")
    assert modes(house) == {"main": "bypass", "second": "bypass"}
    house.stop()
    house.start()
    assert modes(house) == {"main": "bypass", "second": "bypass"}
    assert house.stop() == 0


def test_a_mode_needs_a_listener_that_is_there(house):
    status, out = house.ctl("mode", "enforce", "--only", "third", "--reason", "x", check=False)
    assert status == 1 and "There is no listener third." in out
    status, out = house.ctl("mode", "same", "--reason", "x", check=False)
    assert status == 1 and "same is for one listener" in out
    assert house.ctl("mode", "--only", "main", check=False)[0] == 2
    assert house.ctl("status", "--only", "main", check=False)[0] == 2


# ---- check, without a daemon ----


def check(tmp_path, text, *more):
    path = tmp_path / "rules.conf"
    path.write_text(text)
    p = subprocess.run([f"{BUILD}/breakwaterctl", "policy", "check", str(path), *more], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, text=True)
    return p.returncode, p.stdout, p.stderr.replace(str(path), "FILE")


def test_check_says_where_the_mistake_is(tmp_path):
    assert check(tmp_path, rules("one")) == (0, f"{tmp_path}/rules.conf: 1 rule is good.\n", "")
    status, out, err = check(tmp_path, "rule a {\n  when loop.vists > 1\n  do tag }\n")
    assert status == 1 and out == ""
    assert re.fullmatch(r"FILE:2:8: .*did you mean 'loop.visits'\?\n", err)
    status, _, err = check(tmp_path, "rule storm {\n  when replication.storm or replication.copies >= 0\n  do hold }\n")
    assert status == 1 and err.startswith("FILE:1:1: rule storm: This would stop everybody's mail")
    broad = "rule a { when message.reply do hold }\n"
    status, out, err = check(tmp_path, broad)
    assert status == 0 and "see the warnings" in out and "FILE:1:1: warning: rule a:" in err
    assert check(tmp_path, broad, "--strict")[0] == 1
    status, out, _ = check(tmp_path, broad, "--json")
    j = json.loads(out)
    assert status == 0 and j["good"] and j["rules"] == 1 and len(j["findings"]) == 2
    assert subprocess.run([f"{BUILD}/breakwaterctl", "policy", "check", "/nonexistent"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=20).returncode == 1


def test_check_knows_our_domains(tmp_path):
    os.mkdir(tmp_path / "hold")
    conf = tmp_path / "b.conf"
    conf.write_text('own { domains = {"ours.example"} }\nmilter m { socket = "inet:1@127.0.0.1" }\nhold { path = hold }\n')
    text = 'rule a { when recipient.domain == "ours.example" do hold }\n'
    assert check(tmp_path, text)[0] == 0
    assert check(tmp_path, text, "--conf", str(conf))[0] == 1


# ---- apply, confirm, rollback ----


def test_apply_and_confirm(house):
    assert house.judge() == "one" and house.states() == ["in force"]
    out = house.apply("two", "-n")
    assert "-rule one {" in out and "+rule two {" in out and "nothing was changed" in out
    assert house.judge() == "one"
    out = house.apply("two")
    assert "Version 2 is in force everywhere. In 10 min it is reverted" in out
    assert house.judge() == "two" and house.states() == ["replaced", "unconfirmed"]
    assert "waits to be confirmed" in house.ctl("policy")
    assert "Rules: version 2; version 2 is reverted in 9 min unless" in house.ctl("status").replace("10 min", "9 min")
    assert "says just that" in house.apply("two")
    assert "would be confirmed" in house.ctl("policy", "confirm", "-n")
    assert house.ctl("policy", "confirm", "3", check=False)[0] == 1
    assert "Version 2 is confirmed" in house.ctl("policy", "confirm", "2", "--reason", "looks good")
    assert house.ctl("policy", "confirm", check=False)[0] == 1
    assert house.states() == ["replaced", "in force"]
    assert house.ctl("policy", "show") == rules("two") and house.ctl("policy", "show", "1") == rules("one")
    v = house.json("policy", "show", "2")[0]
    assert v["reason"] == "try two" and v["confirmed_reason"] == "looks good" and v["by"] == v["confirmed_by"] != ""
    assert "+rule two {" in house.ctl("policy", "diff") and "+rule one {" in house.ctl("policy", "diff", "2", "1")
    assert "no difference" in house.ctl("policy", "diff", house.text("two"))
    assert "+rule three {" in house.ctl("policy", "diff", house.text("three"))
    log = house.log()
    assert "policy=apply version=2" in log and "policy=confirm version=2" in log
    house.stop()
    house.start()
    assert house.judge() == "two"


def test_nobody_confirms(house):
    house.apply("two", "--confirm-within", "3s")
    assert house.judge() == "two"
    assert wait_for(lambda: house.judge() == "one")
    assert wait_for(lambda: house.states() == ["in force", "reverted"])
    assert "reverted by breakwaterd: nobody confirmed it in time" in house.ctl("policy", "history")
    assert "policy=revert version=2" in house.log()
    assert house.version()["unconfirmed"] is None


def test_rollback(house):
    for name in ("two", "three"):
        house.apply(name)
        house.ctl("policy", "confirm")
    assert "Version 2 would be" in house.ctl("policy", "rollback", "--reason", "x", "-n")
    assert "Version 2 is in force everywhere" in house.ctl("policy", "rollback", "--reason", "held too much")
    assert house.judge() == "two" and house.states() == ["replaced", "in force", "reverted"]
    assert "held too much" in house.ctl("policy", "history")
    house.ctl("policy", "rollback", "1", "--reason", "further back")
    assert house.judge() == "one"
    house.apply("four")
    house.ctl("policy", "rollback", "--reason", "no")
    assert house.judge() == "one" and house.states()[-1] == "reverted"
    status, out = house.ctl("policy", "rollback", "4", "--reason", "x", check=False)
    assert status == 1 and "never confirmed" in out
    status, out = house.ctl("policy", "rollback", "--reason", "x", check=False)
    assert status == 1 and "no version before" in out


def test_what_is_refused(house):
    bad = house.text("bad", "rule a {\n  when loop.vists > 1\n  do tag }\n")
    status, out = house.ctl("policy", "apply", bad, "--reason", "x", check=False)
    assert status == 1 and out.startswith(f"{bad}:2:8: ")
    everything = "rule all { when true do hold }\n"
    status, out = house.apply("all", text=everything, check=False)
    assert status == 1 and "stop everybody's mail" in out
    assert house.states() == ["in force"] and house.judge() == "one"
    assert "is in force" in house.apply("all", "-y", text=everything)
    house.ctl("policy", "rollback", "--reason", "it was a test")
    for usage in (["policy", "apply", bad], ["policy", "rollback"], ["policy", "nothing"], ["policy", "apply"],
                  ["policy", "apply", bad, "--reason", "x", "--confirm-within", "soon"], ["policy", "show", "x"],
                  ["policy", "confirm", "x"], ["policy", "history", "--only", "node=demo"]):
        assert house.ctl(*usage, check=False)[0] == 2, usage
    assert house.ctl("policy", "show", "77", check=False)[0] == 1


def test_two_at_once(house):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: house.apply(f"try{'abcdefgh'[n]}", check=False), range(8)))
    assert sorted(status for status, _ in done) == [0] + 7 * [1]
    assert all("is not confirmed yet" in out for status, out in done if status)
    assert house.states() == ["replaced", "unconfirmed"]
    winner = [out for status, out in done if status == 0]
    assert "Version 2" in winner[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="asks as another user")
def test_a_second_person(tmp_path):
    house = make(tmp_path, policy="second_person = yes")
    house.apply("two")
    status, out = house.ctl("policy", "confirm", check=False)
    assert status == 1 and "somebody else" in out
    os.chmod(f"{house.dir}/control", 0o666)
    os.chmod(house.dir, 0o711)
    other = ("import os, socket\ns = socket.socket(socket.AF_UNIX)\nos.setuid(65534)\ns.connect('control')\n"
             "s.sendall(b'POST /api/v1/policy/confirm HTTP/1.0\\r\\nContent-Length: 2\\r\\n\\r\\n{}')\n"
             "b = b''\nwhile (m := s.recv(4096)):\n    b += m\nprint(b.decode())")
    p = subprocess.run(["/usr/bin/python3", "-c", other], cwd=house.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=20, text=True)
    assert "200 OK" in p.stdout, p.stdout
    v = house.json("policy", "show", "2")[0]
    assert v["state"] == "in force" and v["confirmed_by"] != v["by"]
    assert house.stop() == 0


def test_what_was_learned_before_a_version_outlives_its_end(house):
    kept = lambda name: os.path.exists(f"{house.dir}/hold/memory.kept.{name}")
    house.apply("two")
    assert wait_for(lambda: kept("v2"))
    before = os.stat(f"{house.dir}/hold/memory.kept.v2").st_mtime_ns
    house.ctl("policy", "rollback", "--reason", "it was wrong")
    assert wait_for(lambda: kept("v2back"))  # what was learned by version 2 is another thing
    assert os.stat(f"{house.dir}/hold/memory.kept.v2").st_mtime_ns == before


# ---- on a part ----


def test_first_on_one_listener(house):
    assert "on that part of the mail" in house.apply("two", "--only", "listener=second")
    assert house.judge() == "one" and house.judge(house.second) == "two"
    assert house.version()["trial"]["only"] == ["listener=second"]
    house.stop()
    house.start()
    assert house.judge() == "one" and house.judge(house.second) == "two"
    house.ctl("policy", "confirm")
    house.apply("two", "--confirm-within", "3s")
    assert house.judge() == "two" and house.states() == ["replaced", "replaced", "unconfirmed"]
    assert wait_for(lambda: house.judge() == "one")
    assert house.judge(house.second) == "two"
    house.ctl("policy", "rollback", "--reason", "enough")
    assert house.judge(house.second) == "one" and house.states() == ["in force", "reverted", "reverted"]


def test_first_for_one_domain(house):
    house.apply("two", "--only", "domain=Y.example", "--only", "domain=z.example")
    assert house.judge(rcpt="a@x.example") == "one"
    assert house.judge(rcpt="a@y.example") == "two" and house.judge(rcpt="a@Z.EXAMPLE") == "two"
    for part in ("listener=third", "domain=", "second", "node=other"):
        status, _ = house.apply("three", "--only", part, check=False)
        assert status == 1, part
    house.ctl("policy", "rollback", "--reason", "x")
    assert house.judge(rcpt="a@y.example") == "one"


# ---- mail under way, stops and crashes ----


def test_mail_under_way_keeps_its_rules(house):
    with Peer(house.port) as peer:
        peer.begin()
        data = [macros("M"), frame("M", strings("<s@s.example>"))]
        for one in data:
            peer.command(one)
        house.apply("two")
        assert house.judge() == "two"
        for one in [frame("R", strings("<a@x.example>")), frame("T"), frame("L", strings("Subject", " x")), frame("N")]:
            assert peer.command(one) in (None, "c")
        peer.send(frame("E"))
        assert rule_of(peer.verdict()) == "one"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_deadline_outlives_the_daemon(house, end):
    house.apply("two", "--confirm-within", "6s")
    getattr(house, end)()
    house.start()
    left = house.version()["seconds_left"]
    assert house.judge() == "two" and left <= 6
    assert wait_for(lambda: house.judge() == "one")
    house.apply("three", "--confirm-within", "1s")
    getattr(house, end)()
    time.sleep(1.1)
    house.start()  # reverted before any mail
    assert house.judge() == "one" and house.states() == ["in force", "reverted", "reverted"]


def test_killed_again_and_again(tmp_path):
    """Whatever a crash leaves, one version is in force, the rules are its, and the database is sound."""
    house = make(tmp_path)
    for n in range(int(os.environ.get("REPEAT", 6))):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asked = pool.submit(house.apply, "ab"[n % 2], check=False)
            time.sleep(0.004 * (n % 5))
            house.kill()
            asked.result()
        house.start()
        states, v = house.states(), house.version()
        assert sum(s in ("in force", "unconfirmed") for s in states) == 1
        assert v["judging"] == v["in_force"]["version"]
        text = house.ctl("policy", "show")
        assert house.judge() in text
        if v["unconfirmed"]:
            house.ctl("policy", "confirm")
    assert house.stop() == 0


# ---- SIGHUP ----


def test_sighup_goes_through_the_same_gate(house):
    house.hup("configuration read again")
    assert house.states() == ["in force"]
    house.put(house.dir, "policy.conf", "rule a {\n  when loop.vists > 1\n  do tag }\n")
    house.hup("stays in force")
    assert re.search(r"policy.conf:2:.*did you mean", house.log())
    assert house.states() == ["in force"] and house.judge() == "one"
    house.put(house.dir, "policy.conf", "rule all { when true do hold }\n")
    house.hup("was not taken")
    assert house.states() == ["in force"] and house.judge() == "one"
    house.put(house.dir, "policy.conf", rules("two"))
    house.hup("policy=apply version=2")
    assert house.judge() == "two" and house.states() == ["replaced", "unconfirmed"]
    assert house.json("policy", "history")[0]["by"] == "reload"
    house.ctl("policy", "rollback", "--reason", "x")
    house.hup("configuration read again")  # the same text is not taken twice
    assert house.judge() == "one" and house.states() == ["in force", "reverted"]


def test_a_broken_file_does_not_keep_it_from_starting(tmp_path):
    house = make(tmp_path)
    house.put(house.dir, "policy.conf", "rule {")
    house.stop()
    house.start()
    assert house.judge() == "one" and "the policy file is left aside" in house.log()
    house.stop()
    house.put(house.dir, "policy.conf", rules("two"))
    house.start()
    assert house.judge() == "one" and "is not what it was when it was last taken" in house.log()
    house.hup("policy=apply version=2")
    assert house.judge() == "two"
    assert house.stop() == 0


def test_the_first_start_wants_a_good_file(tmp_path):
    with pytest.raises(RuntimeError, match=r"policy.conf:1"):
        make(tmp_path, text="rule {")


# ---- sets from files ----


SET = 'set some file "some.txt"\nrule some { when recipient.address in @some do tag }\n' + rules("other")


def test_a_version_brings_its_sets(house):
    some = house.put(house.dir, "some.txt", "a@x.example\n")
    out = house.apply("some", text=SET)
    assert "is in force" in out
    assert house.judge(rcpt="a@x.example") == "some" and house.judge(rcpt="b@x.example") == "other"
    house.ctl("policy", "confirm")
    assert house.json("policy", "show")[0]["files"] == {"some.txt": "a@x.example\n"}
    house.put(house.dir, "some.txt", "b@x.example\n")
    house.hup("configuration read again")  # the same rules, the sets as they are now
    assert wait_for(lambda: house.judge(rcpt="b@x.example") == "some") and house.judge(rcpt="a@x.example") == "other"
    assert len(house.states()) == 2
    os.unlink(some)
    house.stop()
    house.start()  # what was stored takes its place
    assert house.judge(rcpt="a@x.example") == "some"
    house.ctl("policy", "rollback", "1", "--reason", "x")
    house.ctl("policy", "rollback", "2", "--reason", "x")
    assert house.judge(rcpt="a@x.example") == "some"
    os.mkfifo(some)  # nobody waits for it
    house.ctl("policy", "rollback", "1", "--reason", "x")
    house.ctl("policy", "rollback", "2", "--reason", "x")
    assert house.judge(rcpt="a@x.example") == "some"


def test_sets_that_would_stop_all_mail_are_not_read_again(house):
    house.put(house.dir, "some.txt", "x@bad.example\n")
    house.apply("bad", text='set bad file "some.txt"\nrule bad { when message.from in @bad do hold }\n' + rules("other"))
    house.ctl("policy", "confirm")
    house.put(house.dir, "some.txt", "x@bad.example\nanna@sender.example\n")  # lint's letter
    house.hup("keeps its sets as they were stored")
    assert house.states()[-1] == "in force" and house.judge() == "other"


def test_mistakes_in_a_sets_file(house):
    house.put(house.dir, "some.txt", "a@x.example\n\"quoted\"\n")
    status, out = house.apply("some", text=SET, check=False)
    assert status == 1 and re.match(r"\S*some.txt:2: ", out), out
    os.unlink(f"{house.dir}/some.txt")
    status, out = house.apply("some", text=SET, check=False)
    assert status == 1 and re.match(r"\S*some.conf:1:15: .*No such file", out), out


# ---- the API, abused ----


def test_the_api_refuses_what_it_does_not_know(house):
    good = {"text": rules("two"), "reason": "x"}
    bad = [{"text": rules("two")}, {"reason": "x"}, {**good, "dryrun": True}, {**good, "only": "listener=main"},
           {**good, "only": [1]}, {**good, "only": ["listener=main"] * 33}, {**good, "files": []}, {**good, "files": {"a": 1}},
           {**good, "path": "policy.conf"}, {**good, "confirm_within": 0}, {**good, "confirm_within": "10m"},
           {**good, "confirm_within": 1e9}, {**good, "reason": ""}, {**good, "reason": "x" * 501}, {**good, "text": 1},
           {**good, "text": "rule \0"}, {**good, "force": 1}, {**good, "version": 1}]
    for body in bad:
        status, j = house.ask("POST", "policy/apply", json.dumps(body))
        assert status == 400 and j["detail"], body
    for path in ("confirm", "rollback"):
        for body in ({"version": 0, "reason": "x"}, {"version": "1", "reason": "x"}, {"text": "x", "reason": "x"}):
            assert house.ask("POST", f"policy/{path}", json.dumps(body))[0] == 400, (path, body)
    for body in ("", "{", "[]", "[" * 5000, '{"a":1,"a":2}'):
        assert house.ask("POST", "policy/apply", body)[0] == 400
    for path in ("policy/versions/0", "policy/versions/x", "policy/versions/99999999999999999999", "policy/versions/77", "policy/nothing"):
        assert house.ask("GET", path)[0] == 404, path
    for path in ("policy/versions?limit=0", "policy/versions?limit=5000", "policy/versions?before=x", "policy?x=1"):
        assert house.ask("GET", path)[0] == 400, path
    assert house.ask("GET", "policy/apply")[0] == 405 and house.ask("POST", "policy", "{}")[0] == 405
    assert house.states() == ["in force"]


def test_the_api_bounds_bodies(house):
    def post(path, size):
        try:
            return house.ask("POST", path, json.dumps({"text": rules("two") + "#" * size, "reason": "x"}))[0]
        except OSError:
            return 413  # it hung up in the middle
    assert post("policy/apply", 200 << 10) == 200
    house.ctl("policy", "rollback", "--reason", "x")
    assert post("policy/apply", 300 << 10) == 400  # larger than a policy may be
    assert post("policy/apply", 7 << 20) == 413
    assert post("policy/confirm", 100 << 10) == 413 and post("mode", 100 << 10) == 413
    assert house.states() == ["in force", "reverted"]


def test_asking_again_is_safe(house):
    body = json.dumps({"text": rules("two"), "reason": "x", "confirm_within": 60})
    status, first = house.ask("POST", "policy/apply", body)
    assert status == 200 and first["changed"] and first["version"] == 2 and first["deadline"]
    status, again = house.ask("POST", "policy/apply", body)
    assert status == 200 and not again["changed"] and again["version"] == 2
    assert house.ask("GET", "policy")[1]["unconfirmed"] == 2
    assert house.ask("POST", "policy/confirm", json.dumps({"version": 2}))[0] == 200
    status, j = house.ask("GET", "policy/versions/2")
    assert j["text"] == rules("two") and "+rule two {" in j["diff"]
    assert len(house.ask("GET", "policy/versions?limit=1")[1]["versions"]) == 1
    assert house.ask("GET", "policy/versions?before=2")[1]["versions"][0]["version"] == 1
