"""The engine against its executable specification: for every recipient of every message of an invented trace, `breakwaterctl replay`
and the Python reference must agree on pass, tag or hold, and in storms on who is named.

The reference is not part of this project; without it (../shared/reference, or BREAKWATER_REFERENCE) these tests are skipped.
It is adapted in five places, all said here: our own domain is configured; its limit of 256 path nodes a message is lifted; a pickup
convicts only on the way that the copy took apart from earlier ones (else all mail that a Windows web mail sends would); and where paths
are tangled, a second hand-over is none if the message then went through another addressee's mailbox, and the order of preference between an earlier copy on our own path and a longer common path is that of
detection.md 4 and observe.lua, not that of bwcore.py (for all other scenarios bwcore.py's own order runs).
"""
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "storm"))
import mktrace  # noqa: E402

CTL = os.path.join(ROOT, os.environ.get("BREAKWATER_BUILD", "build"), "breakwaterctl")
REFERENCE = os.environ.get("BREAKWATER_REFERENCE", os.path.join(ROOT, "..", "shared", "reference"))
STORMS = ["storm", "quick", "single", "one", "stripped", "footers", "renamed", "reissued", "anonymous", "large", "frozen"]
# The engine is better than the reference here: that one knows a re-issue by its exact text only, never from where the first copy came, and
# takes a newsletter out of its second provider's pickup for one.
BETTER = {"monitor": (False, 0), "reissued_footers": (True, 1), "outbound": (True, 1)}  # a storm? copies delivered
PLAIN = [name for name in mktrace.SCENARIOS if name not in STORMS and name not in BETTER and name != "tangle"]

pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(REFERENCE, "replay.py")),
                                reason=f"no Python reference at {REFERENCE}")

# only what the replication detector advises
POLICY = """\
rule hold-copy { when replication.advice == "hold" do hold reason "hold" }
rule tag-copy { when replication.advice == "tag" do tag reason "tag" }
"""
CONF = 'node {{ name = "test" site_key = "{dir}/site.key" }}\nhold {{ path = "{dir}" }}\nown {{ domains = {{ "own.example" }} }}\n'

SPECIFIED_ORDER = '''
def relation(engine, st, idx, path, r):
    if idx[-1] in st.r[r].leaves: return "SAME", ()
    pos = {n: i for i, n in enumerate(idx)}
    best = None
    for leaf in st.r[r].leaves:
        at, below = leaf, None
        while at > 0 and at not in pos: below, at = at, st.parent[at]
        k = pos[at] + 1 if at > 0 else 0
        rank = k + (.5 if at == leaf else 0)
        if best is None or rank > best[0]: best = (rank, k, below, at == leaf)
    if best is None: return "FORK", range(0, len(idx))
    _, k, below, whole = best
    if whole: return "DETOUR", range(k, len(idx))
    if k == len(idx): return "LATE", ()
    hops = [(i, n.hop) for i, n in enumerate(path) if i >= max(k, 1) and n.hop]
    strays = any(h.reinj or (i + 1 < len(path) and h.for_ and h.for_ != r and h.for_ in engine.vis) for i, h in hops)
    if st.srv[below].split("[")[0] == path[k].srv.split("[")[0] and not strays: return "RESEND", (k - 1,)
    return "FORK", range(k, len(idx))
bwcore.Engine.relation = relation
'''


def changed(text, old, new):
    assert text.count(old) == 1, f"the reference has no single {old!r}"
    return text.replace(old, new)


def reference(trace, directory, tangled):
    with open(os.path.join(REFERENCE, "replay.py"), encoding="utf-8") as f:
        text = f.read()
    text = changed(text, "os.path.dirname(os.path.abspath(__file__))", repr(directory))
    with open(os.path.join(REFERENCE, "bwcore.py"), encoding="utf-8") as f:
        core = changed(f.read(), "struct = bool(reinj) and", "struct = any(i in v.why for i in reinj) and")
        core = changed(core, "rel, seg = s.relation(", "s.vis = x.vis; rel, seg = s.relation(")
    with open(os.path.join(directory, "bwcore.py"), "w", encoding="utf-8") as f:
        f.write(core)
    text = changed(text, "E(own=set())", 'E(own={"own.example"})')
    text = changed(text, "def main():\n", "bwcore.P.MAX_NODES = 10 ** 9\n" + (SPECIFIED_ORDER if tangled else "") + "def main():\n")
    script = os.path.join(directory, "reference.py")
    with open(script, "w", encoding="utf-8") as f:
        f.write(text)
    return run([sys.executable, "-B", script, trace])


def engine(trace, directory):
    for name, text in (("policy.conf", POLICY), ("breakwater.conf", CONF.format(dir=directory))):
        with open(os.path.join(directory, name), "w", encoding="ascii") as f:
            f.write(text)
    return run([CTL, "replay", "--json", "--conf", f"{directory}/breakwater.conf", "--policy", f"{directory}/policy.conf", trace])


def run(command):
    p = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert p.returncode == 0, p.stderr
    lines = [json.loads(line) for line in p.stdout.splitlines()]
    return lines[:-1], lines[-1]["summary"]


def both(tmp_path, scenarios, seed, copies, tangled=False):
    directory = str(tmp_path)
    trace = os.path.join(directory, "trace.jsonl")
    messages = mktrace.make(scenarios, seed, copies)
    with open(trace, "w", encoding="ascii") as f:
        for message in messages:
            f.write(json.dumps(message) + "\n")
    expected, expected_sum = reference(trace, directory, tangled)
    got, got_sum = engine(trace, directory)
    assert len(expected) == len(got) == len(messages)
    wrong = [f"message {e['n']} ({e['label']}) to {r}: reference {v}, engine {g['rcpt'].get(r)} ({g['relations'].get(r)})"
             for e, g in zip(expected, got) for r, v in e["rcpt"].items() if g["rcpt"].get(r) != v]
    assert not wrong, f"{len(wrong)} decisions differ:\n" + "\n".join(wrong[:20])
    return expected_sum, got_sum


@pytest.mark.parametrize("scenario", BETTER)
def test_where_the_engine_sees_more(tmp_path, scenario):
    directory, (storm, most) = str(tmp_path), BETTER[scenario]
    trace = os.path.join(directory, "trace.jsonl")
    with open(trace, "w", encoding="ascii") as f:
        f.writelines(json.dumps(message) + "\n" for message in mktrace.make([scenario], 2, 60))
    rows, summary = engine(trace, directory)
    delivered = {}
    for row in rows:
        for rcpt, verdict in row["rcpt"].items():
            delivered[rcpt] = delivered.get(rcpt, 0) + (verdict != "hold")
            assert storm or verdict == "pass", row
    assert not storm or max(delivered.values()) == most
    assert bool(named(summary)) == storm and all(relay.startswith("sbs.") for relay in named(summary))


def named(summary):
    return sorted(c["relay"] for i in summary["incidents"] for c in i["culprits"] if c.get("named", True))


@pytest.mark.parametrize("scenario", PLAIN)
def test_ordinary_life(tmp_path, scenario):
    both(tmp_path, [scenario], 1, 60)


@pytest.mark.parametrize("scenario", STORMS)
def test_storm(tmp_path, scenario):
    expected, got = both(tmp_path, [scenario], 2, 60)
    assert set(named(got)) == set(named(expected))  # the reference has no incidents: a message each
    assert all(relay.startswith("sbs.") for relay in named(got))
    assert len(set(named(got))) == (2 if scenario == "one" else 3)


def test_everything_at_once(tmp_path):
    both(tmp_path, PLAIN + STORMS, 3, 100)


def test_tangled_copies(tmp_path):
    both(tmp_path, ["tangle"], 2, 800, tangled=True)
