"""`breakwaterctl replay` over mailboxes, files, directories and standard input: what it reads, in which order, and what it says."""
import json
import os
import pty
import subprocess
from email.utils import formatdate

import pytest

from daemon import BUILD

CTL = f"{BUILD}/breakwaterctl"
T = 1138036800


def mail(t, name, to="b@b.example", top=True):
    received = (f"Received: from mail.a.example (mail.a.example [192.0.2.7])\n\tby mx.b.example with ESMTP id Q{name}\n"
                f"\tfor <{to}>; {formatdate(t)}\n") if top else ""
    return (f"{received}Message-ID: <{name}@a.example>\nFrom: a@a.example\nTo: {to}\nSubject: {name}\nDate: {formatdate(T)}\n\n"
            f"{name} has something to say about {name}, and says it in a few words, each of them chosen with care.\n")


def line(t, what, **more):
    return json.dumps({"t": t, "client": "192.0.2.7", "helo": "mail.a.example", "from": "a@a.example", "rcpt": ["b@b.example"],
                       "data": mail(t, what, top=False), "label": what, **more}) + "\n"


def mbox(*mails):
    return "\n".join(f"From a@a.example {formatdate(T)}\n{m}" for m in mails)


def run(*args, code=0, given=None):
    p = subprocess.run([CTL, "replay", *map(str, args)], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert p.returncode == code, p.stderr
    return p


def replay(*args, code=0, given=None):
    p = run("--json", *args, code=code, given=given)
    lines = [json.loads(text) for text in p.stdout.splitlines()]
    return lines[:-1], lines[-1]["summary"], p.stderr


def labels(lines):
    return [os.path.basename(o["label"]) for o in lines]


def test_a_mailbox_is_read_in_order_of_time(tmp_path):
    (tmp_path / "box").write_text(mbox(mail(T + 20, "late"), mail(T, "early"), mail(T + 10, "between")))
    lines, summary, err = replay(tmp_path / "box")
    assert labels(lines) == ["box:2", "box:3", "box:1"] and err == ""
    assert [o["t"] for o in lines] == [T, T + 10, T + 20]
    assert summary["messages"] == summary["copies"] == summary["pass"] == 3 and summary["clamped"] == 0
    assert all(o["rcpt"] == {"b@b.example": "pass"} and o["relations"] == {"b@b.example": "first"} for o in lines)
    assert all(o["signals"]["loop"]["hops"] == 0 for o in lines), "the top Received is the client, not a hop of the message"


def test_in_order_time_does_not_run_backwards(tmp_path):
    (tmp_path / "box").write_text(mbox(mail(T + 20, "late"), mail(T, "early")))
    lines, summary, _ = replay("--in-order", tmp_path / "box")
    assert labels(lines) == ["box:1", "box:2"] and summary["clamped"] == 1
    assert "1 came with a time before" in run("--in-order", tmp_path / "box").stdout


def test_files_of_all_kinds_are_merged_by_time(tmp_path):
    """What a file is its content says; directories are searched; equally old messages keep the order of the files."""
    (tmp_path / "trace").write_text(line(T + 1, "t1") + "\n" + line(T + 5, "t5"))
    (tmp_path / "box").write_text(mbox(mail(T + 4, "m4"), mail(T + 2, "m2")).replace("\n", "\r\n"), newline="")
    (tmp_path / "one").write_text(mail(T + 3, "o3"))
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "b.eml").write_text(mail(T + 5, "b"))
    (tmp_path / "dir" / "a.eml").write_text(mail(T + 5, "a"))
    (tmp_path / "dir" / "sub" / "c.EML").write_text("From x@x.example Mon Jan 23 17:20:00 2006\n" + mail(T + 5, "c"))
    (tmp_path / "dir" / "README").write_text("no mail\n")
    for name in ("cur", "new", "tmp"):
        (tmp_path / "Maildir" / ".sent" / name).mkdir(parents=True)
        (tmp_path / "Maildir" / ".sent" / name / "1138.host:2,S").write_text(mail(T + 6, name))
    names = [tmp_path / n for n in ("dir", "one", "box", "trace", "Maildir")]
    lines, summary, err = replay(*names)
    assert labels(lines) == ["t1", "box:2", "one:1", "box:1", "a.eml:1", "b.eml:1", "c.EML:1", "t5", "1138.host:2,S:1", "1138.host:2,S:1"]
    assert err == "" and summary["messages"] == 10 and summary["pass"] == 10
    again, _, _ = replay("--in-order", *names)
    assert labels(again) == ["a.eml:1", "b.eml:1", "c.EML:1", "one:1", "box:1", "box:2", "t1", "t5", "1138.host:2,S:1", "1138.host:2,S:1"]


def test_a_mailbox_and_a_trace_of_the_same_mail_are_judged_alike(tmp_path):
    """And so is a storm: the second copy of the same message to the same recipient by the same server is none of a first one."""
    mails = [mail(T + 60 * i, "same") for i in range(6)]
    (tmp_path / "box").write_text(mbox(*mails))
    (tmp_path / "trace.jsonl").write_text("".join(
        line(T + 60 * i, "same", name="mail.a.example", queue_id="Qsame",
             data=mail(T + 60 * i, "same", top=False)) for i in range(6)))
    stored, _, _ = replay(tmp_path / "box")
    traced, _, _ = replay(tmp_path / "trace.jsonl")
    for a, b in zip(stored, traced):
        for name in ("verdict", "rcpt", "relations", "rule", "fp"):
            assert a[name] == b[name]
    assert stored[0]["relations"] != stored[1]["relations"]


def test_two_runs_say_the_same(tmp_path):
    (tmp_path / "box").write_text(mbox(*(mail(T + i % 7, f"m{i}") for i in range(50))))
    (tmp_path / "trace.jsonl").write_text("".join(line(T + i // 10, f"t{i % 9}") for i in range(50)))
    out = []
    for _ in range(2):
        lines, summary, _ = replay(tmp_path / "trace.jsonl", tmp_path / "box")
        del summary["seconds"], summary["messages_per_second"]
        out.append((lines, summary))
    assert out[0] == out[1]
    # a later time zone does not matter either, and nothing is of this day
    assert str(T)[:6] in json.dumps(out[0])


def test_standard_input_is_answered_line_by_line():
    p = subprocess.Popen([CTL, "replay", "--json", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for i in range(5):
            p.stdin.write(line(T + i, f"m{i}"))
            p.stdin.flush()
            assert json.loads(p.stdout.readline())["label"] == f"m{i}"
        p.stdin.close()
        assert json.loads(p.stdout.readline())["summary"]["messages"] == 5
        assert p.wait(20) == 0
    finally:
        p.kill()


def test_a_bad_line_is_left_out_and_said(tmp_path):
    (tmp_path / "trace.jsonl").write_text(line(T, "a") + "{\"t\": 1\n" + line(T + 1, "b") + "[]\n" + line(T + 2, "c"))
    lines, summary, err = replay(tmp_path / "trace.jsonl", code=1)
    assert labels(lines) == ["a", "b", "c"] and summary["skipped"] == 2
    assert err.splitlines() == [f"breakwaterctl: {tmp_path}/trace.jsonl:2: a comma or the end of the object was expected",
                                f"breakwaterctl: {tmp_path}/trace.jsonl:4: not a JSON object"]


def test_many_bad_lines_are_only_counted(tmp_path):
    (tmp_path / "trace.jsonl").write_text("x\n" * 5000 + line(T, "a"))
    lines, summary, err = replay(tmp_path / "trace.jsonl", code=1)
    assert len(lines) == 1 and summary["skipped"] == 5000 and len(err.splitlines()) == 21


@pytest.mark.parametrize("name, text, sentence", [
    ("absent", None, "absent: No such file or directory"),
    ("picture", "\x89PNG\n", "picture: is no .jsonl trace, no mbox and no message"),
])
def test_what_cannot_be_read_is_said_before_anything_is_replayed(tmp_path, name, text, sentence):
    (tmp_path / "trace.jsonl").write_text(line(T, "a"))
    if text:
        (tmp_path / name).write_text(text)
    p = run("--json", tmp_path / "trace.jsonl", tmp_path / name, code=1)
    assert p.stdout == "" and p.stderr == f"breakwaterctl: {tmp_path}/{sentence}\n"


def test_an_empty_directory_is_a_mistake_an_empty_file_is_not(tmp_path):
    (tmp_path / "empty").write_text("")
    _, summary, _ = replay(tmp_path / "empty")
    assert summary["messages"] == 0
    (tmp_path / "dir").mkdir()
    assert "a directory without .eml files" in run(tmp_path / "dir", code=1).stderr


def test_mail_without_recipients_or_time_is_mail(tmp_path):
    """It has the time of the message before, and nobody gets it."""
    (tmp_path / "box").write_text(mbox(mail(T, "a")) + "\nFrom b Mon Jan 23 17:20:00 2006\n\nnothing\n")
    (tmp_path / "x.eml").write_text("Subject: x\n\ny\n")
    lines, summary, _ = replay(tmp_path / "box", tmp_path / "x.eml")
    assert labels(lines) == ["box:1", "box:2", "x.eml:1"] and [o["t"] for o in lines] == [T] * 3 and summary["copies"] == 1
    assert lines[1]["rcpt"] == {} and lines[1]["verdict"] == "pass"


def test_options(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(line(T + 60 * i, "same") for i in range(9)))
    (tmp_path / "policy.conf").write_text('rule all { when replication.copies >= 2 do hold reason "three" }\n')
    policy = ("--policy", tmp_path / "policy.conf", trace)
    lines, summary, _ = replay(*policy)
    assert summary["hold"] == 7 and summary["rules"] == {"all": {"hold": 7}} and summary["first_held"] == {}
    lines, summary, _ = replay("--mode", "monitor", *policy)
    assert summary["hold"] == 0 and summary["would_hold"] == 7 and lines[8]["verdict"] == "pass"
    assert lines[8]["advised"] == {"b@b.example": "hold"} and lines[0]["advised"] == {"b@b.example": "pass"}
    lines, summary, _ = replay("--summary-only", *policy)
    assert lines == [] and summary["messages"] == 9
    _, summary, _ = replay("--from", T + 60, "--until", T + 180, trace)
    assert summary["messages"] == 2 and summary["left_out"] == 7
    for wrong in (("--mode", "bypass"), ("--from", "soon"), ("--until", "2006-13-01"), ("--nonsense",)):
        run(*wrong, trace, code=2)
    text = run(*policy).stdout
    assert "9 messages, 9 copies: 2 passed, 7 held" in text and "all                                       7" in text


def test_first_copies_that_are_held_are_counted(tmp_path):
    (tmp_path / "policy.conf").write_text('rule everything { when replication.copies >= 0 do hold reason "x" }\n')
    (tmp_path / "trace.jsonl").write_text(line(T, "a") + line(T + 1, "b"))
    _, summary, _ = replay("--policy", tmp_path / "policy.conf", tmp_path / "trace.jsonl")
    assert summary["first_held"] == {"everything": 2}


def test_all_detectors_say_what_they_saw(tmp_path):
    (tmp_path / "trace.jsonl").write_text(line(T, "a"))
    lines, _, _ = replay(tmp_path / "trace.jsonl")
    assert set(lines[0]["signals"]) == {"replication", "loop", "replyall", "pingpong", "flood"}


def test_progress_is_shown_on_a_terminal_only(tmp_path):
    (tmp_path / "trace.jsonl").write_text(line(T, "a") * 2000)
    assert run("--json", tmp_path / "trace.jsonl").stderr == ""
    ours, theirs = pty.openpty()
    try:
        p = subprocess.run([CTL, "replay", "--json", "--summary-only", str(tmp_path / "trace.jsonl")], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "replay:" in shown and "%" in shown and "messages" in shown
    assert json.loads(p.stdout)["summary"]["messages"] == 2000
