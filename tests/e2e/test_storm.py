"""The simulator of tests/storm: the same seed gives the same bytes, and a few small scenarios keep their targets."""
import hashlib
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BREAKWATER_BUILD", "build")
sys.path.insert(0, os.path.join(ROOT, "tests", "storm"))
import report  # noqa: E402

SCENARIOS = {s.name: s for s in report.all_scenarios("small")}
# Those whose traces are one file whatever the engine says.
OPEN = ["A-kept-same", "A1-lost-reissue-footer", "G-stripped-newid", "A-mixed", "reply-all-50-isp", "forged-smarthost", "ordinary"]
KEPT = ["A-kept-same", "A1-kept-same-footer", "C-kept-same", "G-kept-same", "stuck-client", "circle-own-exchange",
        "forward-ring-delivered-to", "forged-pickup", "ordinary-mailing-list", "ordinary-forwarded", "ordinary-cron",
        "ordinary-newsletter", "ordinary-again", "ping-pong-vacation", "reply-all-100-isp"]


def digest(name, seed):
    h = hashlib.sha256()
    for message in report.chosen(report.all_scenarios("small"), [name])[0].begin(seed):
        h.update(json.dumps(message).encode())
    return h.hexdigest()


@pytest.mark.parametrize("name", OPEN)
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(name):
    assert digest(name, 7) == digest(name, 7)
    assert digest(name, 7) != digest(name, 8)


@pytest.mark.parametrize("name", KEPT)
def test_targets_hold(name):
    result = report.play(SCENARIOS[name], report.Run(2006, BUILD, None))
    assert not result["problems"], result


def test_report_fails_when_a_target_is_missed(tmp_path, capsys):
    scenario = report.chosen(report.all_scenarios("small"), ["A-kept-same"])[0]
    judge = scenario.judge
    scenario.judge = lambda score: (judge(score)[0] + ["as asked by this test"], judge(score)[1])
    assert report.report([scenario], report.Run(1, BUILD, str(tmp_path)), 1) == 1
    out = capsys.readouterr().out
    assert "MISS as asked by this test" in out and "targets are missed in 1" in out
    truth = json.loads((tmp_path / "A-kept-same.truth.json").read_text())
    assert truth["guilty"]["alphaprint"]["to_be_named"]


def test_labels_alone_carry_the_truth(tmp_path):
    """The engine's answers are the same when it cannot see the labels."""
    report.play(SCENARIOS["A1-kept-same-footer"], report.Run(3, BUILD, str(tmp_path)))
    trace, blind = tmp_path / "A1-kept-same-footer.jsonl", tmp_path / "blind.jsonl"
    with open(blind, "w", encoding="ascii") as f:
        for line in trace.read_text().splitlines():
            message = json.loads(line)
            del message["label"]
            f.write(json.dumps(message) + "\n")

    def verdicts(path):
        p = subprocess.run([os.path.join(ROOT, BUILD, "breakwaterctl"), "replay", "--json", str(path)], capture_output=True,
                           text=True, timeout=60, check=True)
        return [json.loads(line).get("rcpt") for line in p.stdout.splitlines()]
    assert verdicts(trace) == verdicts(blind)
