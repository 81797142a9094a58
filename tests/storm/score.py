"""What the engine made of a trace, counted against what its writer knows.

Every line of a trace has a label of words "name=value", which the engine only copies to its answer:
  kind   storm: further copies are to be held.  legit: nothing is.  other: only counted
  id     which message it is a copy of, whatever its Message-ID says
  phase  part of the storm, counted separately
  by     the faulty server it comes from;  made: copies that had been made anywhere by then
"""
import collections
import json
import os
import queue
import subprocess
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Rules that act on first copies too, and may: what they hold is no copy of anything.
ON_FIRST = ("reply-all", "replyall", "ping-pong", "pingpong", "loop-own", "flood", "relay")
END = object()


class EngineFailed(Exception):
    pass


def words(label):
    return dict(w.split("=", 1) for w in (label or "").split() if "=" in w)


class Engine:
    """breakwaterctl replay as a process: lines in, answers out."""

    def __init__(self, build, conf=None, keep=None):
        self.directory = tempfile.TemporaryDirectory(prefix="breakwater-storm-")
        command = [os.path.join(ROOT, build, "breakwaterctl"), "replay", "--json"]
        if conf:
            path = os.path.join(self.directory.name, "breakwater.conf")
            with open(path, "w", encoding="ascii") as f:
                f.write(conf.replace("DIR", self.directory.name))
            command += ["--conf", path]
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([*command, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.keep = open(keep, "w", encoding="ascii") if keep else None

    def write(self, message):
        line = json.dumps(message)
        if self.keep:
            self.keep.write(line + "\n")
        self.process.stdin.write(line.encode() + b"\n")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise EngineFailed(self.errors.read().decode("utf-8", "replace")[-2000:] or "no answer")
        return json.loads(line)

    def closed_loop(self, transactions, score):
        """Each verdict goes back to the world before the next message leaves it."""
        verdict = None
        while True:
            try:
                message = transactions.send(verdict)
            except StopIteration:
                break
            self.write(message)
            self.process.stdin.flush()
            answer = self.answer()
            verdict = answer["rcpt"]
            score.add(message, answer)

    def open_loop(self, transactions, score):
        """All messages, whatever becomes of them; answers are read meanwhile."""
        sent = queue.Queue()

        def write():
            try:
                for message in transactions:
                    sent.put((message["t"], message["label"]))
                    self.write(message)
                self.process.stdin.close()
            except BrokenPipeError:
                pass
            except BaseException as e:  # shown where the answers are read
                sent.put(e)
                self.process.stdin.close()
                raise
            finally:
                sent.put(END)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while True:
                item = sent.get()
                if item is END:
                    break
                if isinstance(item, BaseException):
                    raise item
                score.add({"t": item[0], "label": item[1]}, self.answer())
        except BaseException:
            self.process.kill()
            raise
        finally:
            writer.join()

    def finish(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        summary = self.answer()["summary"]
        if self.process.wait() != 0:
            raise EngineFailed(f"status {self.process.returncode}")
        return summary

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for f in (self.process.stdin, self.process.stdout, self.errors, self.keep):
            if f:
                try:
                    f.close()
                except BrokenPipeError:
                    pass
        self.directory.cleanup()


class Score:
    """delivered[phase][(id, recipient)]: how many copies passed."""

    def __init__(self):
        self.delivered = collections.defaultdict(collections.Counter)
        self.got = set()  # (id, recipient) of whom one passed
        self.kinds = collections.Counter()  # kind: recipient-copies
        self.held = collections.Counter()  # kind: recipient-copies
        self.first_held = 0
        self.throttled = 0
        self.passed = 0
        self.leak = None  # (copies made, seconds) at the last further copy that passed
        self.begun = self.made = None
        self.examples = []  # first mistakes, for people
        self.order = collections.defaultdict(list)  # run: what became of its messages, one by one
        self.named, self.sites = {}, []
        self.incidents = []

    def add(self, message, answer):
        w = words(message["label"])
        kind, phase, t = w.get("kind", "legit"), w.get("phase", "-"), message["t"]
        storm = kind == "storm"
        identity = w.get("id")
        rcpts = answer["rcpt"]
        self.kinds[kind] += len(rcpts)
        if storm:
            self.begun = t if self.begun is None else self.begun
            self.made = int(w.get("made", self.sum_storm()))
        if "run" in w:
            self.order[w["run"]].append((t, w, answer["verdict"], sum(v in ("pass", "tag") for v in rcpts.values()), len(rcpts)))
        for r, v in rcpts.items():
            one = (identity, r)
            if v in ("pass", "tag"):
                self.passed += 1
                if storm:
                    self.delivered[phase][one] += 1
                    if one in self.got:
                        self.leak = (self.made, t - self.begun)
                if identity:
                    self.got.add(one)
                continue
            if v == "throttle":
                self.throttled += 1
            else:
                self.held[kind] += 1
            first = storm and one not in self.got and not (answer.get("rule") or "").startswith(ON_FIRST)
            self.first_held += first
            if (first or kind == "legit") and len(self.examples) < 5:
                self.examples.append(f"{v} {r} by {answer.get('rule')}: {message['label']} (message {answer.get('n')})")

    def sum_storm(self):
        return self.kinds["storm"]

    def finish(self, summary):
        self.incidents = summary["incidents"]
        for i in self.incidents:
            for c in i.get("culprits", ()):
                if c.get("named", True):
                    self.named[c["relay"]] = c
                else:
                    self.sites.append(c["relay"])

    def phase(self, phase):
        """Copies delivered per recipient and message in that phase: (median, p99, most)."""
        n = sorted(self.delivered[phase].values())
        return (n[len(n) // 2], n[min(len(n) - 1, int(len(n) * 0.99))], n[-1]) if n else (0, 0, 0)

    def culprits(self, guilty):
        """guilty: {server: (names, must be named)}. Returns (right, missed, wrong) as lists."""
        right, wrong = set(), []
        for relay in self.named:
            host, _, ip = relay.rstrip("]").partition("[")
            who = [s for s, (names, _) in guilty.items() if host in names or ip in names]
            if who:
                right.update(who)
            else:
                wrong.append(relay)
        missed = [s for s, (_, must) in guilty.items() if must and s not in right]
        return sorted(right), missed, wrong
