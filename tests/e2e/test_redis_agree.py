"""Three nodes with one past, whose turn it is by chance, decide each message of a long mixed trace as one node alone does: storms,
re-issues, footers, stripped traces; lists, newsletters, cron, retries, forwarding. AGREE=6000 makes it 120,000 messages."""
import json
import os
import subprocess
import sys

import pytest

import private_redis
from daemon import BUILD, ROOT
from private_redis import Server

sys.path.insert(0, f"{ROOT}/tests/storm")
import report  # noqa: E402

pytestmark = pytest.mark.skipif(not private_redis.program(), reason=private_redis.MISSING)
COPIES = int(os.environ.get("AGREE", "250"))
MIX = ("persons retry resend lists newsletter forwarder backup cron again monitor tangle stuck storm quick single stripped footers renamed "
       "reissued anonymous reissued_footers outbound frozen").split()
# Of the storm of 2006 and of ordinary life as the report plays it: what is decided by the past of messages.
PLAYED = ("A-*", "A1-mixed", "G-*", "stuck-client", "forged-*", "ordinary-*", "ping-pong-*", "reply-all-50-*")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("trace") / "mixed.jsonl")
    subprocess.run([sys.executable, f"{ROOT}/tests/storm/mktrace.py", "--copies", str(COPIES), "-o", path, *MIX], check=True, timeout=300)
    return path


def agree(server, *traces):
    p = subprocess.run([f"{BUILD}/e2e/agree", "-n", "3", "-r", "2006", server, *traces], capture_output=True, text=True, timeout=560)
    assert p.returncode in (0, 1), p.stdout + p.stderr
    figures = {k: float(v) for k, v in (w.split("=") for w in p.stdout.splitlines()[-1].split())}
    print(p.stdout.splitlines()[-1])
    assert figures["differences"] == 0, p.stdout
    assert figures["degraded"] == 0
    return figures


def test_a_mixed_trace(mixed):
    with Server() as redis:
        figures = agree(redis.unix, mixed)
    assert figures["messages"] >= 18 * COPIES
    assert figures["held"] > figures["messages"] and figures["joined"] > 100 and figures["compacted"] > 10
    assert figures["of_states"] == 0


def test_the_storms_of_the_report_and_ordinary_mail_each_alone(tmp_path):
    """Each begins with an empty Redis: they are the same storm in many forms."""
    path, sums = tmp_path / "one.jsonl", dict.fromkeys(("messages", "held", "joined"), 0)
    with Server() as redis:
        for s in report.chosen(report.all_scenarios("small"), PLAYED):
            if s.closed or s.conf:
                continue
            with open(path, "w", encoding="ascii") as f:
                f.writelines(json.dumps(m) + "\n" for m in s.begin(2006))
            redis.call("FLUSHALL")
            figures = agree(redis.unix, str(path))
            sums = {k: n + figures[k] for k, n in sums.items()}
    assert sums["messages"] > 3000 and sums["held"] > 3000 and sums["joined"] > 100
