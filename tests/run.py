#!/usr/bin/python3
"""run.py - runs the suites that `make check` names and sums them in one last line.

usage: run.py SUITE...
  unit:DIR       every cmocka program in DIR, or this one
  script:CMD     one check: passes if CMD exits 0; exit 77 is a skip, its last line says why
  pytest:PATHS   end-to-end tests, each file a process of its own
Programs of one suite run side by side: mostly they wait. Each one's output is shown only when something in it failed.
"""
import concurrent.futures
import glob
import os
import re
import shlex
import subprocess
import sys
import time

PYTHON = "/usr/bin/python3"
CPUS = os.cpu_count() or 1
# These wait for others longer than their size says: they start first.
WAITERS = ("test_redis.py", "test_smtp_mta.py", "test_postfix.py", "test_setup.py")


class Sum:
    passed = failed = skipped = 0


def say(text):
    print(text, flush=True)


def add(total, name, passed, failed, skipped, output, seconds, reasons=()):
    total.passed += passed
    total.failed += failed
    total.skipped += skipped
    notes = (f", {failed} failed" if failed else "") + (f", {skipped} skipped" if skipped else "")
    say(f"{'FAIL' if failed else 'ok  '} {name}: {passed} passed{notes} ({seconds:.1f} s)")
    for r in reasons:
        say(f"     skipped: {r}")
    if failed:
        say(output)


def run(cmd, timeout=600, env=None):
    start = time.monotonic()
    try:
        p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                           timeout=timeout, env=env)
        code, out = p.returncode, p.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as e:
        code, out = -1, (e.stdout or b"").decode("utf-8", "replace") + f"\nno end after {timeout} s"
    return code, out, time.monotonic() - start


def count_cmocka(code, out):
    """(passed, failed, skipped) of one program, by cmocka's own sums. A group whose setup or teardown
    fails is one more failure, which cmocka does not count; so is a program that dies, or runs nothing."""
    def total(pattern):
        return sum(int(n) for n in re.findall(pattern, out, re.M))
    passed = total(r"^\[  PASSED  \] (\d+) test")
    failed = total(r"^ *(\d+) FAILED TEST") + len(re.findall(r"^\[  FAILED  \] GROUP ", out, re.M))
    skipped = total(r"^ *(\d+) SKIPPED TEST")
    if not failed and (code != 0 or passed + skipped == 0):
        failed = 1
    return passed, failed, skipped


def side_by_side(fn, items, workers):
    """(item, fn(item)) for each, in the order they end."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(fn, item): item for item in items}
        for f in concurrent.futures.as_completed(futures):
            yield futures[f], f.result()


def unit(total, directory):
    programs = [directory] if os.path.isfile(directory) else sorted(glob.glob(os.path.join(directory, "*_test")))
    if not programs:
        add(total, directory, 0, 1, 0, "no test programs there", 0)
    for program, (code, out, seconds) in side_by_side(run, [[p] for p in programs], CPUS + 1):
        program = program[0]
        reasons = re.findall(r"^skip: (.*)$", out, re.M)
        add(total, os.path.relpath(program), *count_cmocka(code, out), out + f"\nexit {code}", seconds, reasons)


def script(total, command):
    code, out, seconds = run(["sh", "-c", command])
    last = out.strip().splitlines()[-1] if out.strip() else ""
    name = command if len(command) <= 60 else command[:57] + "..."
    if code == 77:
        add(total, name, 0, 0, 1, out, seconds, [last])
    else:
        add(total, name, int(code == 0), int(code != 0), 0, out + f"\nexit {code}", seconds)


def count_pytest(code, out):
    """(passed, failed, skipped) by the summary, "1 failed, 2 passed, 3 skipped in 4.00s"."""
    sums = re.findall(r"^.*\b(?:passed|failed|skipped|errors?|ran)\b.* in [\d.]+s\b.*$", out, re.M)

    def count(word):
        m = re.search(rf"\b(\d+) {word}", sums[-1]) if sums else None
        return int(m.group(1)) if m else 0
    failed = count("failed") + count("error")
    if code != 0 and not failed:
        failed = 1
    return count("passed"), failed, count("skipped")


def pytest_file(path):
    return run([PYTHON, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", path], timeout=3600)


def long_first(path):
    return os.path.basename(path) not in WAITERS, -os.path.getsize(path) if os.path.exists(path) else 0


def pytest(total, paths):
    files = [f for p in shlex.split(paths)
             for f in (sorted(glob.glob(os.path.join(p, "test_*.py"))) if os.path.isdir(p) else [p])]
    if not files:
        add(total, f"pytest {paths}", 0, 1, 0, "no tests there", 0)
    files.sort(key=long_first)
    for path, (code, out, seconds) in side_by_side(pytest_file, files, CPUS + 1):
        reasons = re.findall(r"^SKIPPED (\[\d+\] .*)$", out, re.M)
        add(total, f"pytest {path}", *count_pytest(code, out), out + f"\nexit {code}", seconds, reasons)


def main():
    total = Sum()
    for suite in sys.argv[1:]:
        kind, _, rest = suite.partition(":")
        {"unit": unit, "script": script, "pytest": pytest}[kind](total, rest)
    tail = f", {total.skipped} skipped" if total.skipped else ""
    say(f"{total.passed} passed, {total.failed} failed{tail}")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
