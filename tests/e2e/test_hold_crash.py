"""The hold queue, killed at every failpoint: nothing acknowledged is ever lost."""
import os
import subprocess

import pytest

from daemon import FAILPOINTS

PROGRAM = f"{FAILPOINTS}/e2e/hold_crash"


def test_killed_at_every_failpoint():
    if not os.path.exists(PROGRAM):
        pytest.skip(f"{PROGRAM} is not built (make BUILD=build/failpoint EXTRA=-DBREAKWATER_FAILPOINTS tools)")
    ended = subprocess.run([PROGRAM], capture_output=True, text=True, timeout=3600)
    assert ended.returncode == 0, ended.stderr
