"""Extra checks over a collection of real mail that is not part of the product: ../shared/corpus (or
BREAKWATER_CORPUS). Skipped where it is absent. Offline only: nothing is ever sent anywhere.

An archive NAME.tar.zst holds NAME/envelopes.jsonl (file, t, client_ip, helo, mail_from, rcpt, strip) and the messages.
"""
import base64
import json
import os
import shutil
import subprocess

import pytest

from daemon import BUILD, ROOT

CORPUS = os.environ.get("BREAKWATER_CORPUS", os.path.join(ROOT, "..", "shared", "corpus"))
ORDINARY = ("auto-replies csdmc2010 enron hazards-chains list-cip-results list-dm-devel list-driverdev list-kasan-dev "
            "list-linux-cifs list-linux-mips list-linux-raid list-linux-usb list-netfilter list-openbmc list-selinux "
            "list-tip-commits list-usrp-users list-virtualization spamassassin").split()

pytestmark = [pytest.mark.skipif(not os.path.isdir(CORPUS), reason="no collection of real mail here"),
              pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")]


def without_received(message, n):
    """The message as it stood when it reached the vantage point: without the n topmost Received fields."""
    lines, out = message.split(b"\n"), []
    skipping = False
    for i, line in enumerate(lines):
        if line.rstrip(b"\r") == b"":
            return b"\n".join(out + lines[i:])
        if skipping and line[:1] in (b" ", b"\t"):
            continue
        skipping = n > 0 and line.lower().startswith(b"received:")
        if skipping:
            n -= 1
        else:
            out.append(line)
    return b"\n".join(out)


def recordings(name, directory):
    subprocess.run(["tar", "-I", "zstd --long=27", "-xf", f"{CORPUS}/{name}.tar.zst", "-C", directory], check=True)
    out = []
    for line in open(f"{directory}/{name}/envelopes.jsonl"):
        e = json.loads(line)
        with open(f"{directory}/{name}/{e['file']}", "rb") as f:
            message = without_received(f.read(), e.get("strip") or 0)
        to = e["rcpt"] if isinstance(e["rcpt"], list) else [e["rcpt"]]
        out.append({"t": max(0, e["t"] or 0), "client": e.get("client_ip") or "", "helo": e.get("helo") or "",
                    "from": e["mail_from"] or "", "rcpt": [r for r in to if r] or ["somebody@here.example"],
                    "data_b64": base64.b64encode(message).decode(), "label": f"{name}/{e['file']}"})
    return sorted(out, key=lambda r: r["t"])


def replay(rows, directory):
    """(rows of the output, summary)"""
    with open(f"{directory}/trace.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    out = subprocess.run([f"{BUILD}/breakwaterctl", "replay", "--json", f"{directory}/trace.jsonl"], check=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300).stdout
    lines = [json.loads(line) for line in out.decode().splitlines()]
    return lines[:-1], lines[-1]["summary"]


def test_ordinary_mail_is_never_held_and_nobody_is_named(tmp_path):
    every = []
    for name in ORDINARY:
        rows = recordings(name, str(tmp_path))
        _, summary = replay(rows, str(tmp_path))
        assert summary["messages"] == len(rows) > 0 and summary["hold"] == 0, name
        if name != "hazards-chains":  # copies of messages in other archives
            every += rows
    _, summary = replay(sorted(every, key=lambda r: r["t"]), str(tmp_path))
    assert summary["hold"] == 0
    assert not any(c["named"] for i in summary["incidents"] for c in i["culprits"])


def test_a_real_loop_is_stopped_at_its_third_arrival(tmp_path):
    lines, _ = replay(recordings("loops", str(tmp_path)), str(tmp_path))
    assert sum(line["verdict"] != "hold" for line in lines) <= 2


def test_messages_that_reached_one_subscriber_twice_cost_few_copies_and_no_first_one(tmp_path):
    lines, summary = replay(recordings("events", str(tmp_path)), str(tmp_path))
    held = [line for line in lines if "hold" in line["rcpt"].values()]
    assert len(held) == summary["hold"] <= 15
    assert not any("first" in line["relations"].values() for line in held)
