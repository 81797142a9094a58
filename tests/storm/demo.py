#!/usr/bin/python3
"""demo.py - the storm of 2006 through breakwaterd, live, in a temporary directory: through its SMTP door to a sink that
stores what it gets, or (--postfix) through a real Postfix that asks its milter door and delivers into maildirs.

Ends with exit 0 only if every recipient got at least one and at most three copies, the rest is in the hold queue, and exactly
the faulty relays are named. A private Postfix needs root; without it the demo says so and takes the SMTP door.
"""
import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.path.insert(0, HERE)

from daemon import BUILD, Daemon, ROOT, free_port  # noqa: E402
from private_postfix import Postfix, PostfixSession, reason_missing  # noqa: E402
from shropshire import Storm  # noqa: E402

FIRST, MOST = 1, 3


def n(number):
    return f"{number:,}"


class SmtpDoor:
    """Mail goes into breakwaterd's SMTP door; what passes is stored by a sink, a file each."""
    name = "breakwaterd's SMTP door, and a sink behind it that stores every message it gets"

    def __init__(self, directory, storm):
        self.daemon_dir = os.path.join(directory, "breakwater")
        self.out = os.path.join(directory, "delivered.jsonl")
        messages = os.path.join(directory, "delivered")
        os.makedirs(self.daemon_dir)
        os.makedirs(messages)
        self.sink = subprocess.Popen([f"{BUILD}/e2e/sink", "-o", self.out, "-d", messages], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        behind = self.sink.stdout.readline().decode().split()[1]
        self.port = free_port()
        section = (f'smtp main {{ socket = "inet:{self.port}@127.0.0.1" downstream = "{behind}" '
                   'upstreams = {"127.0.0.0/8"} }')
        try:  # the generator speaks for many relays: it is an upstream that says XCLIENT
            self.daemon = Daemon(self.daemon_dir, guard="", more=section, release_to=f"127.0.0.1:{self.port}",
                                 release='helo = "breakwater.gateway.example" rate = 200')
        except RuntimeError:
            self.sink.kill()
            raise

    def session(self):
        return PostfixSession(self.port)

    def settle(self):
        pass  # who was told 250 has it there already

    def delivered(self, storm):
        count = {a: 0 for a in storm.recipients}
        with open(self.out) as f:
            for line in f:
                count[json.loads(line)["rcpt"]] += 1
        return count

    def stop(self):
        status = self.daemon.stop()
        self.sink.terminate()
        self.sink.wait()
        return status


class PostfixDoor:
    """Mail goes into a real Postfix, which asks breakwaterd and delivers into maildirs."""
    name = "a private Postfix 3.7 that asks breakwaterd about every message and delivers into maildirs"

    def __init__(self, directory, storm):
        postfix_dir = os.path.join(directory, "postfix")
        os.makedirs(postfix_dir)
        self.daemon_dir = os.path.join(directory, "breakwater")
        os.makedirs(self.daemon_dir)
        # Postfix first needs to know the milter's port, breakwaterd the release port: both are chosen before.
        port = free_port()
        self.postfix = Postfix(postfix_dir, storm.recipients, milter=f"inet:127.0.0.1:{port}",
                               settings=["notify_classes ="])
        try:
            self.daemon = Daemon(self.daemon_dir, guard="", port=port, release_to=f"127.0.0.1:{self.postfix.port}",
                                 release='helo = "breakwater.gateway.example" rate = 200')
        except RuntimeError:
            self.postfix.stop()
            raise

    def session(self):
        return PostfixSession(self.postfix.port)

    def settle(self):
        self.postfix.wait_idle(120)

    def delivered(self, storm):
        boxes = self.postfix.delivered()
        return {a: boxes.get(a, 0) for a in storm.recipients}

    def stop(self):
        status = self.daemon.stop()
        self.postfix.stop()
        return status


class Progress:
    """A line that tells what happens, rewritten on a terminal, else once in two seconds."""

    def __init__(self, door, quiet):
        self.door, self.quiet = door, quiet
        self.sent = 0
        self.start = self.last = time.monotonic()
        self.live = sys.stdout.isatty()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.done.wait(0.5 if self.live else 2):
            self.show()

    def show(self):
        try:
            status = self.door.daemon.json("status")[0]
        except (RuntimeError, IndexError, ValueError):
            return
        counters = status.get("counters", {})
        held = counters.get("held", 0)
        passed = counters.get("passed", 0) + counters.get("tagged", 0)
        seconds = time.monotonic() - self.start
        line = (f"  {seconds:5.1f} s   copies seen {n(self.sent):>9}   delivered {n(passed):>6}   held {n(held):>9}   "
                f"{n(int(self.sent / max(seconds, 0.1))):>7}/s")
        print(("\r" + line) if self.live else line, end="" if self.live else "\n", flush=True)

    def stop(self):
        self.done.set()
        self.thread.join()
        self.show()
        if self.live:
            print()


def send_all(door, transactions, threads, progress):
    """The transactions in `threads` parallel connections; returns recipient-copies sent."""
    work = queue.Queue(maxsize=200)
    failures = []

    def sender():
        session = door.session()
        while True:
            item = work.get()
            if item is None:
                break
            if failures:
                continue
            try:
                session.send(item[0], item[1], "sales@promo.example", item[2], item[3])
                progress.sent += len(item[2])
            except Exception as e:  # the first failure ends the demo
                failures.append(e)
        session.close()

    pool = [threading.Thread(target=sender, daemon=True) for _ in range(threads)]
    for t in pool:
        t.start()
    for item in transactions:
        work.put(item)
        if failures:
            break
    for _ in pool:
        work.put(None)
    for t in pool:
        t.join()
    if failures:
        raise failures[0]


def split(storm, copies, per_transaction):
    """The original's transactions, and an iterator over the rest."""
    original, rest = [], storm.transactions(copies, per_transaction)
    expected = len(storm.recipients) - len(storm.lost)
    while sum(len(t[2]) for t in original) < expected:
        original.append(next(rest))
    return original, rest


def hold_bytes(directory):
    return sum(os.path.getsize(os.path.join(directory, "hold", f)) for f in os.listdir(os.path.join(directory, "hold"))
               if f.startswith("hold.db"))


def summary(door, storm, sent):
    """Prints what happened in plain words; returns (problems, figures)."""
    delivered = door.delivered(storm)
    status = door.daemon.json("status")[0]
    held = status["hold"]["held"]
    storms = [s for s in door.daemon.json("storms") if s["kind"] == "replication"]
    problems = []
    got = [delivered[a] for a in storm.recipients if a not in storm.lost]
    total = sum(delivered.values())
    print()
    print(f"{n(sent)} copies of one message arrived for {len(storm.recipients)} people.")
    print(f"Every one of the {len(got)} who could be reached at first got at least {min(got)} and at most {max(got)} "
          f"(median {statistics.median(got):g}). {n(held)} copies are in the hold queue; none was thrown away.")
    if storm.lost:
        print(f"{len(storm.lost)} people were reached only by copies that had been round our own gateway four times: those were "
              "held too, so they have none yet.")
    if min(got) < FIRST or max(got) > MOST:
        problems.append(f"a recipient got {min(got) if min(got) < FIRST else max(got)} copies")
    if any(delivered[a] for a in storm.lost):
        problems.append("a looped first copy was delivered")
    if total + held != sent:
        problems.append(f"{n(sent)} copies arrived, but {n(total)} + {n(held)} are accounted for")
    named = {}
    if len(storms) != 1:
        problems.append(f"{len(storms)} replication storms were found, not one")
    for s in storms:
        document = door.daemon.json("show", s["id"])[0]
        print(f"\nStorm {s['id']}: \"{document['subject']}\" from {document['from']}")
        for c in document["culprits"]:
            if not c["named"]:
                continue
            named[c["relay"].partition("[")[0]] = c
            print(f"  Faulty server: {c['relay']} ({n(c['copies'])} detours; {c['grade']})")
            for e in c["evidence"]:
                print(f"    - {e}")
    wanted = {f.host for f in storm.faulty}
    if set(named) != wanted:
        problems.append(f"named were {sorted(named) or 'none'}, faulty are {sorted(wanted)}")
    figures = {"held": held, "max": max(got), "named": len(named), "storm": storms[0]["id"] if storms else None}
    return problems, figures


def bytes_used(door, storm, figures, empty_bytes):
    """After the daemon has stopped: what the copies took on disk."""
    total = hold_bytes(door.daemon_dir)
    each = (total - empty_bytes) // max(figures["held"], 1)
    print(f"\nThe hold queue took {n(total)} bytes on disk: {n(each)} bytes for a copy of a message of "
          f"{n(len(storm.data(storm.first_chain())))} bytes.")
    return each


def release(door, storm, figures):
    """One copy to everybody who has none; returns problems."""
    if not storm.lost or not figures["storm"]:
        return []
    command = ["release", "--storm", figures["storm"], "--one-per-recipient"]
    print("\nWhat would be released (-n):")
    print("  " + door.daemon.ctl("-n", *command).strip().replace("\n", "\n  "))
    print("Releasing:\n  " + door.daemon.ctl(*command).strip().replace("\n", "\n  "))
    end = time.monotonic() + 30
    while time.monotonic() < end:
        door.settle()
        delivered = door.delivered(storm)
        if all(delivered[a] for a in storm.lost):
            break
        time.sleep(0.2)
    time.sleep(1)  # a second copy would be a mistake: leave it time to show
    delivered = door.delivered(storm)
    wrong = {a: delivered[a] for a in storm.lost if delivered[a] != 1}
    if wrong:
        return [f"after the release {a} has {k} copies" for a, k in wrong.items()]
    print(f"{len(storm.lost)} people got exactly one copy each, through the same door; it was not held again.")
    return []


def main():
    p = argparse.ArgumentParser(prog="make demo DEMO=", description=__doc__.splitlines()[0])
    p.add_argument("--copies", type=int, default=60000, help="recipient-copies the storm makes (default 60000)")
    p.add_argument("--recipients", type=int, default=630, help="addresses in To: (default 630)")
    p.add_argument("--per-transaction", type=int, default=90, help="recipients in one SMTP transaction (default 90)")
    p.add_argument("--body", type=int, default=4000, help="bytes of text in the message (default 4000)")
    p.add_argument("--threads", type=int, default=6, help="parallel connections (default 6)")
    p.add_argument("--keep", action="store_true", help="leave the directory for looking at it")
    p.add_argument("--postfix", action="store_true", help="through a private Postfix and the milter door (make demo-postfix)")
    p.add_argument("--build", default=os.path.join(ROOT, "build"), help=argparse.SUPPRESS)
    args = p.parse_args()

    storm = Storm(args.recipients, body_bytes=args.body)
    directory = tempfile.mkdtemp(prefix="breakwater-demo-")
    os.chmod(directory, 0o755)
    reason = reason_missing()
    print(f"The storm of January 2006, {n(args.copies)} copies, in {directory}")
    door = None
    try:
        if args.postfix and reason:
            print(f"  ({reason}: breakwaterd's SMTP door stands for it)")
        door = PostfixDoor(directory, storm) if args.postfix and not reason else SmtpDoor(directory, storm)
        print(f"  through {door.name}")
        print(f"  three faulty servers re-send it to everybody in To: {', '.join(f.host for f in storm.faulty)}")
        empty = hold_bytes(door.daemon_dir)
        original, rest = split(storm, args.copies, args.per_transaction)
        progress = Progress(door, False)
        send_all(door, original, 1, progress)
        send_all(door, rest, args.threads, progress)
        door.settle()
        progress.stop()
        problems, figures = summary(door, storm, progress.sent)
        problems += release(door, storm, figures)
        sent = progress.sent
        status = door.stop()
        each = bytes_used(door, storm, figures, empty)
    finally:
        if door:
            door.stop()
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    if status != 0:
        problems.append(f"breakwaterd ended with status {status}")
    for problem in problems:
        print(f"demo: {problem}")
    word = "failed" if problems else "ok"
    print(f"demo: {word} copies={sent} delivered_max={figures['max']} held={figures['held']} named={figures['named']} "
          f"bytes_per_copy={each}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
