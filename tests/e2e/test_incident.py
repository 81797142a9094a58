"""Storms of several messages, as the real daemon sees them: an original and the "please stop" reply through the same faulty
server are one storm, which outlives a crash with its one id; what is held of both is released together."""
import json
import os
import subprocess
import time

import pytest

from daemon import BUILD, Daemon
from milter_peer import Peer

PEOPLE = ["r1@x.example", "r2@x.example", "r3@y.example"]
ORIGIN = "Received: from a.example (a.example [192.0.2.1]) by mx.isp.example; Mon, 23 Jan 2006 10:00:00 +0000\n"
LETTERS = {
    "original": """\
From: Sales <sales@promo.example>
To: {to}
Subject: the offer of the year
Message-ID: <one@promo.example>
Date: Mon, 23 Jan 2006 10:00:00 +0000
""",
    "reply": """\
From: Angry <r1@x.example>
To: sales@promo.example, {to}
Subject: Re: the offer of the year
Message-ID: <two@x.example>
In-Reply-To: <one@promo.example>
Date: Mon, 23 Jan 2006 11:00:00 +0000
""",
}
BODIES = {
    "original": "Dear customers, this is the offer of the year, with words enough to tell it from all the others.\r\n",
    "reply": "Please stop sending me this mail, I have had it a dozen times today and so has everybody else here.\r\n",
}


def send(daemon, letter, turn, people=PEOPLE):
    """turn 0: from its writer; else brought back by the faulty server. What the filter says in the end."""
    header = ORIGIN + LETTERS[letter].format(to=", ".join(PEOPLE))
    client = ("mx.isp.example", "192.0.2.25", "mx.isp.example")
    if turn:
        header = ("Received: from mail pickup service by sbs.culprit.example with Microsoft SMTPSVC;"
                  f" Mon, 23 Jan 2006 12:00:{turn:02} +0000\n") + header
        client = ("sbs.culprit.example", "192.0.2.77", "sbs.culprit.example")
    with Peer(daemon.port) as peer:
        peer.begin(*client)
        return peer.mail("<sales@promo.example>", [f"<{p}>" for p in people], header, BODIES[letter], queue_id=f"4T{turn:04}")[-1][0]


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def house(tmp_path):
    sink = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", f"{tmp_path}/sink.jsonl"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    port = sink.stdout.readline().decode().strip().rpartition(":")[2]
    daemon = Daemon(str(tmp_path), release_to=f"127.0.0.1:{port}", release="rate = 500 token = no")
    yield daemon
    assert daemon.stop() == 0
    sink.terminate()
    sink.wait()


def delivered(daemon):
    path = f"{daemon.dir}/sink.jsonl"
    return [json.loads(line)["rcpt"] for line in open(path)] if os.path.exists(path) else []


def storm_of_both(daemon):
    """Each message comes to two people, then the faulty server brings it back to all three. The one storm there is."""
    for letter in ("original", "reply"):
        assert send(daemon, letter, 0, PEOPLE[:2]) == "c"
        for turn in (1, 2, 3, 4):
            send(daemon, letter, turn)
    storms = daemon.json("storms")
    assert len(storms) == 1, [(s["id"], s["message_id"], s["members"]) for s in storms]
    return storms[0]


def test_original_and_reply_are_one_storm(house):
    storm = storm_of_both(house)
    assert [m["message_id"] for m in storm["members"]] == ["one@promo.example", "two@x.example"]
    assert storm["members"][0]["joined"] is None and storm["members"][1]["joined"]
    assert storm["kind"] == "replication" and storm["message_id"] == "one@promo.example"
    assert {c["storm"] for c in house.json("held")} == {storm["id"]}
    assert storm["held"] == len(house.json("held", "--storm", storm["id"]))
    assert storm["copies"] == 2 * (2 + 4 * 3) == storm["passed"] + storm["tagged"] + storm["held"]
    culprit, = [c for c in storm["culprits"] if c["named"]]
    assert culprit["relay"].startswith("sbs.culprit.example") and culprit["since"] <= culprit["until"] and not culprit["late"]
    assert wait_for(lambda: house.json("show", storm["id"])[0]["culprits"][0]["state"])  # relays are told once a second
    text = house.ctl("show", storm["id"])
    assert "Its messages" in text and "two@x.example" in text and storm["members"][1]["joined"] in text
    assert "sbs.culprit.example[192.0.2.77] re-sent one message" in text
    row = ["explain", "--rcpt", "r1@x.example"]
    assert wait_for(lambda: "relation detour, brought by sbs.culprit.example[192.0.2.77]" in house.ctl(*row))
    held = [r for r in house.json(*row) if r.get("disposition") == "hold"]
    assert held and all(r["storm"] == storm["id"] and r["blamed"] and len(r["k"]) == 24 and r["mode"] == "enforce" for r in held)
    copy = house.json("held")[0]
    assert "Brought by" in house.ctl("show", copy["id"]) and copy["k"] in {r["k"] for r in held}
    log = house.log()
    assert f"incident={storm['id']} event=opened" in log and f"incident={storm['id']} event=joined" in log


def test_a_crash_in_the_middle_keeps_the_one_id(house):
    storm = storm_of_both(house)
    saved = storm["held"]
    time.sleep(2)  # incidents are saved once a second
    house.kill()
    house.start()
    again, = house.json("storms")
    assert again["id"] == storm["id"] and again["held"] == saved and again["culprits"][0]["named"]
    for letter in ("reply", "original"):
        send(house, letter, 5)
    again, = house.json("storms")
    assert again["id"] == storm["id"] and len(again["members"]) == 2
    assert house.json("status")[0]["storms_open"] == 1


def test_one_copy_of_each_message_is_released(house):
    """A rule holds all of the third person's copies: of each message exactly one is due."""
    with open(f"{house.dir}/policy.conf", "w") as f:
        f.write('rule first { when recipient.address == "r3@y.example" do hold reason "by name" }\n'
                'rule more { when replication.copies > 0 do hold reason "a further copy" }\n')
    house.stop()
    with open(house.conf, "a") as f:
        f.write(f'policy {{ file = "{house.dir}/policy.conf" }}\n')
    house.start()
    house.ctl("policy", "apply", f"{house.dir}/policy.conf", "--reason", "test")
    storm = storm_of_both(house)
    release = ["release", "--storm", storm["id"], "--one-per-recipient"]
    assert "2 copies would be released" in house.ctl(*release, "-n")
    house.ctl(*release)
    assert wait_for(lambda: len(delivered(house)) == 2)
    assert all("r3@y.example" in str(rcpt) for rcpt in delivered(house))
    assert "No copy is needed" in house.ctl(*release)
    assert len(delivered(house)) == 2


def test_two_machines_that_answer_each_other_are_one_storm(house):
    pair, last, verdicts = ["oof@a.example", "bot@b.example"], None, []
    for turn in range(30):
        writer, reader = pair[turn % 2], pair[1 - turn % 2]
        header = (f"From: {writer}\nTo: {reader}\nSubject: {'Re: ' * turn}Out of office\nMessage-ID: <pp{turn}@x.example>\n"
                  "Date: Mon, 23 Jan 2006 10:00:00 +0000\nAuto-Submitted: auto-replied\n")
        header += f"In-Reply-To: <{last}>\nReferences: <{last}>\n" if last else ""
        last = f"pp{turn}@x.example"
        with Peer(house.port) as peer:
            peer.begin("mx.isp.example", "192.0.2.25", "mx.isp.example")
            verdicts.append(peer.mail(f"<{writer}>", [f"<{reader}>"], header, f"Turn {turn}: away until the {turn}th.\r\n")[-1][0])
    assert verdicts[:6] == ["c"] * 6 and verdicts[-10:] == ["d"] * 10
    storm, = house.json("storms")
    assert storm["kind"] == "ping-pong" and storm["held"] == verdicts.count("d") == len(house.json("held", "--storm", storm["id"]))
    text = house.ctl("show", storm["id"])
    assert "Two machines answer each other" in text and storm["evidence"][0] in text and "Nothing was lost." in text
    assert f"incident={storm['id']} event=opened kind=ping-pong" in house.log()
