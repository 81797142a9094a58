#!/usr/bin/python3
"""report.py - how much of every storm gets through, how soon it is contained, who is named, and what ordinary mail suffers.

    make storm-report STORM="[--scale small|default|full] [--seed N] [--scenario GLOB]... [--keep DIR] [--jobs N] [--list]"

Each scenario is played through `breakwaterctl replay --json` on virtual time, where it matters in a closed loop: what breakwater
holds does not travel on. One line each; exit 0 only if all targets hold, else 1, and every miss is said in a sentence.
The same seed gives the same bytes. --keep writes the traces (DESIGN.md 9), and beside each what only their writer knows.
"""
import argparse
import fnmatch
import json
import multiprocessing
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import faults  # noqa: E402
import ordinary  # noqa: E402
import replication  # noqa: E402
from score import Engine, EngineFailed, ROOT, Score  # noqa: E402

COLUMNS = (("scenario", 31), ("copies made", 11), ("delivered: median p99 max", 26), ("contained after", 22), ("1st held", 8),
           ("false", 5), ("named", 17), ("s", 5))
ORDINARY = 400_000  # copies of ordinary mail without which "none was held" says little


def all_scenarios(scale):
    return replication.scenarios(scale) + faults.scenarios(scale) + ordinary.scenarios(scale)


def chosen(scenarios, patterns):
    if not patterns:
        return scenarios
    return [s for s in scenarios if any(fnmatch.fnmatchcase(s.name, p) for p in patterns)]


class Run:
    """What every scenario needs to know of how it is played."""

    def __init__(self, seed, build, keep):
        self.seed, self.build, self.keep = seed, build, keep


def play(scenario, run):
    """Returns the row as a dict."""
    score, start = Score(), time.monotonic()
    path = os.path.join(run.keep, scenario.name + ".jsonl") if run.keep else None
    transactions = scenario.begin(run.seed)
    engine = Engine(run.build, scenario.conf, path)
    try:
        (engine.closed_loop if scenario.closed else engine.open_loop)(transactions, score)
        score.finish(engine.finish())
    except EngineFailed as e:
        return {"name": scenario.name, "problems": [f"the engine failed: {e}"], "row": None, "examples": []}
    finally:
        engine.close()
    problems, guilty = scenario.judge(score)
    if path:
        with open(path[:-1 - len("jsonl")] + ".truth.json", "w", encoding="ascii") as f:
            json.dump({"scenario": scenario.name, "seed": run.seed, "closed_loop": scenario.closed, "guilty":
                       {s: {"names": sorted(n), "to_be_named": must} for s, (n, must) in guilty.items()}}, f, indent=1, sort_keys=True)
    right, missed, wrong = score.culprits(guilty)
    problems += common(score, missed, wrong)
    return {"name": scenario.name, "problems": problems, "examples": score.examples, "kinds": dict(score.kinds),
            "held": dict(score.held), "row": row(scenario, score, (right, missed, wrong), time.monotonic() - start)}


def common(score, missed, wrong):
    """Targets that hold everywhere."""
    out = []
    if score.first_held:
        out.append(f"{score.first_held} first copies held")
    if score.held["legit"]:
        out.append(f"{score.held['legit']} copies of ordinary mail held")
    if wrong:
        out.append(f"innocents named: {', '.join(wrong[:4])}")
    if missed:
        out.append(f"not named: {', '.join(missed)}")
    return out


def row(scenario, score, culprits, seconds):
    storm = score.kinds["storm"]
    made = score.made if score.made is not None else sum(score.kinds.values())
    phases = [p for p in scenario.phases if p in score.delivered or storm]
    delivered = " | ".join("{} {} {}".format(*score.phase(p)) for p in phases) if storm else "-"
    if score.throttled:
        delivered += f" ({score.throttled} deferred)"
    note = getattr(scenario, "note", None)
    if note:
        delivered = note
    contained = "-"
    if storm:
        contained = "at the first copy" if score.leak is None else f"{score.leak[0]:,} in {score.leak[1]:,.0f} s"
    right, missed, wrong = (len(c) for c in culprits)
    return (scenario.name, f"{made:,}", delivered, contained, str(score.first_held), str(score.held["legit"]),
            f"{right} right" + (f" {missed} missed" if missed else "") + (f" {wrong} wrong" if wrong else ""), f"{seconds:.1f}")


def show(cells):
    print("  ".join(c.ljust(w) if i in (0, 2, 3, 6) else c.rjust(w) for i, (c, (_, w)) in enumerate(zip(cells, COLUMNS))).rstrip(),
          flush=True)


def work(job):
    scenario, run = job
    return play(scenario, run)


def results(scenarios, run, jobs):
    """In the order of the scenarios."""
    todo = [(s, run) for s in scenarios]
    if jobs == 1:
        yield from map(work, todo)
        return
    with multiprocessing.Pool(jobs) as pool:
        # The last takes longest: it is begun first.
        begun = [pool.apply_async(work, (job,)) for job in reversed(todo)]
        for result in reversed(begun):
            yield result.get()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=2006)
    p.add_argument("--scale", choices=("small", "default", "full"), default="default")
    p.add_argument("--scenario", action="append", metavar="GLOB")
    p.add_argument("--keep", metavar="DIR")
    p.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument("--list", action="store_true")
    p.add_argument("--build", default="build", help=argparse.SUPPRESS)
    a = p.parse_args()
    scenarios = chosen(all_scenarios(a.scale), a.scenario)
    if a.list:
        print("\n".join(s.name for s in scenarios))
        return 0
    if not scenarios:
        p.error("no such scenario; --list shows them")
    if not os.path.exists(os.path.join(ROOT, a.build, "breakwaterctl")):
        p.error("build it first: make all")
    if a.keep:
        os.makedirs(a.keep, exist_ok=True)
    return report(scenarios, Run(a.seed, a.build, a.keep), a.jobs, 0 if a.scenario or a.scale == "small" else ORDINARY)


def report(scenarios, run, jobs, ordinary_least=0):
    start = time.monotonic()
    show([name for name, _ in COLUMNS])
    missed, legit, legit_held = [], 0, 0
    for r in results(scenarios, run, jobs):
        if r["row"]:
            show(r["row"])
            legit += r["kinds"].get("legit", 0)
            legit_held += r["held"].get("legit", 0)
        for problem in r["problems"]:
            print(f"    MISS {problem}")
        for example in r["examples"] if r["problems"] else ():
            print(f"      {example}")
        if r["problems"]:
            missed.append(r["name"])
    print(f"\n{len(scenarios)} scenarios, seed {run.seed}, in {time.monotonic() - start:.0f} s. Ordinary mail: {legit_held:,} of {legit:,} "
          "copies held.")
    if legit < ordinary_least:
        print(f"    MISS too little ordinary mail: {ordinary_least:,} copies are wanted")
        missed.append("ordinary")
    if missed:
        print(f"storm-report: targets are missed in {len(missed)}: {', '.join(missed)}")
        return 1
    print("storm-report: all targets hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
