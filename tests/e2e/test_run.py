"""tests/run.py counts what was run: whatever did not pass is in the last line."""
import os
import re
import subprocess
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
import run  # noqa: E402  (found by the line above)

SKIPPED = "[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] b\n\n 1 SKIPPED TEST(S)\n"
FAILED = "[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] c\n\n 3 FAILED TEST(S)\n"
CMOCKA = [  # exit status, output, (passed, failed, skipped)
    ("all pass", 0, "[       OK ] a\n[  PASSED  ] 1 test(s).\n", (1, 0, 0)),
    ("two groups", 0, "[  PASSED  ] 2 test(s).\n[  PASSED  ] 3 test(s).\n", (5, 0, 0)),
    ("one skipped", 0, "[  PASSED  ] 1 test(s).\n" + SKIPPED, (1, 0, 1)),
    ("all skipped", 0, "[  PASSED  ] 0 test(s).\n" + SKIPPED, (0, 0, 1)),
    ("one failed, two setups failed", 3, "[  FAILED  ] c\n[  ERROR   ] b\n[  PASSED  ] 1 test(s).\n" + FAILED, (1, 3, 0)),
    ("group setup failed", 1, "[  FAILED  ] GROUP SETUP\n[  ERROR   ] t\n[  PASSED  ] 0 test(s).\n", (0, 1, 0)),
    ("group teardown failed", 0, "[  FAILED  ] GROUP TEARDOWN\n[  PASSED  ] 2 test(s).\n", (2, 1, 0)),
    ("killed", -6, "[ RUN      ] a\n", (0, 1, 0)),
    ("leaks after the last test", 1, "[  PASSED  ] 2 test(s).\nLeakSanitizer: ...\n", (2, 1, 0)),
    ("nothing ran", 0, "", (0, 1, 0)),
]
PYTEST = [
    ("all pass", 0, "..\n2 passed in 0.10s\n", (2, 0, 0)),
    ("minutes", 0, "2 passed in 83.10s (0:01:23)\n", (2, 0, 0)),
    ("all kinds", 1, "1 failed, 2 passed, 3 skipped, 4 warnings, 1 error in 4.00s\n", (2, 2, 3)),
    ("all skipped", 0, "ss\n2 skipped in 0.10s\n", (0, 0, 2)),
    ("no tests", 5, "\nno tests ran in 0.00s\n", (0, 1, 0)),
    ("not collected", 2, "ERROR x.py\n!!! Interrupted: 2 errors during collection !!!\n2 errors in 0.31s\n", (0, 2, 0)),
    ("expected failures", 0, "1 passed, 1 xfailed in 0.10s\n", (1, 0, 0)),
    ("an own line behind", 1, "1 failed, 1 passed in 0.10s\nlate words\n", (1, 1, 0)),
    ("killed", -9, "....", (0, 1, 0)),
    ("no pytest", 1, "/usr/bin/python3: No module named pytest\n", (0, 1, 0)),
]


@pytest.mark.parametrize("code, out, sums", [c[1:] for c in CMOCKA], ids=[c[0] for c in CMOCKA])
def test_cmocka_is_counted(code, out, sums):
    assert run.count_cmocka(code, out) == sums


@pytest.mark.parametrize("code, out, sums", [c[1:] for c in PYTEST], ids=[c[0] for c in PYTEST])
def test_pytest_is_counted(code, out, sums):
    assert run.count_pytest(code, out) == sums


@pytest.mark.parametrize("scripts, status, last", [
    (["true", "true"], 0, "2 passed, 0 failed"),
    (["true", "exit 1"], 1, "1 passed, 1 failed"),
    (["true", "echo no wind; exit 77"], 0, "1 passed, 0 failed, 1 skipped"),
    (["exit 77"], 1, "0 passed, 0 failed, 1 skipped"),
    (["kill -9 $$"], 1, "0 passed, 1 failed"),
    ([], 1, "0 passed, 0 failed"),
])
def test_the_last_line(scripts, status, last):
    p = subprocess.run([sys.executable, f"{TESTS}/run.py", *("script:" + s for s in scripts)],
                       stdout=subprocess.PIPE, text=True)
    assert (p.returncode, p.stdout.splitlines()[-1]) == (status, last)
    assert re.search("skipped: no wind", p.stdout) or "no wind" not in str(scripts)
