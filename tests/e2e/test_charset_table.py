"""detectors/charset_table.c is what contrib/charsets.py makes of Python's codecs."""
import codecs
import os
import subprocess
import sys

import pytest

from daemon import ROOT


def test_the_table_is_as_generated():
    for name in ("gb18030", "cp932", "cp949", "cp950", "mac_roman"):
        try:
            codecs.lookup(name)
        except LookupError:
            pytest.skip(f"this Python has no {name}")
    made = subprocess.run([sys.executable, f"{ROOT}/contrib/charsets.py"], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    with open(os.path.join(ROOT, "detectors", "charset_table.c"), "rb") as f:
        assert f.read() == made, "run: python3 contrib/charsets.py > detectors/charset_table.c"
