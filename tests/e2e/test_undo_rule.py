"""What a wrong rule did is taken back: what it held is sent, what was learned since is unlearned."""
import time

import pytest

from test_ctl import House, send

POLICY = """\
rule wrong { when recipient.address matches "wrong*" do hold reason "by mistake" }
rule more  { when replication.copies > 0 do hold reason "a further copy" }
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr("test_ctl.POLICY", POLICY)
    h = House(tmp_path)
    yield h
    h.stop()


def until(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def undo(house, *args):
    return house.daemon.ctl("undo-rule", "wrong", "--reason", "it matched everybody", *args, check=False)


def test_what_it_held_is_sent(house):
    house.daemon.stop()  # keeps what was learned until now
    house.daemon.start()
    time.sleep(2.1)
    began = time.time()
    for n in range(3):
        send(house.daemon, n, [f"wrong{n}@x.example"])
    for _ in range(2):
        send(house.daemon, 9, ["right@x.example"])
    assert house.count("held") == 4
    since = ("--since", f"{int(time.time() - began) + 1}s")
    status, said = undo(house, "-n", *since)
    assert status == 0 and "3 copies that rule wrong held" in said and "Nothing was changed" in said
    assert "A rule of this name is still in force" in said
    assert house.count("held") == 4 and "what was learned is as it was" not in house.daemon.log()
    status, said = undo(house, *since)
    assert status == 0 and "3 copies that rule wrong held since" in said and "are on their way" in said
    assert "What was learned - counters, baselines, relays - is as it was at" in said
    until(lambda: sorted(house.delivered()) == ["wrong0@x.example", "wrong1@x.example", "wrong2@x.example"])
    assert house.count("held") == 1  # the further copy stays
    assert "what was learned is as it was" in house.daemon.log()
    send(house.daemon, 9, ["right@x.example"])  # who has what was not forgotten
    assert house.count("held") == 2
    status, said = undo(house, *since)
    assert status == 0 and "0 copies" in said


def test_nothing_was_kept_of_before(house):
    send(house.daemon, 1, ["wrong@x.example"])
    status, said = undo(house, "--since", "3d")
    assert status == 4 and "1 copy that rule wrong held" in said
    assert "what was learned since stays: nothing was kept" in said
    until(lambda: house.delivered() == ["wrong@x.example"])
    send(house.daemon, 2, ["wrong2@x.example"])
    status, said = undo(house, "--since", "3d", "--keep-learned")
    assert status == 0 and "What was learned" not in said


@pytest.mark.parametrize("args, want", [
    (["undo-rule", "wrong", "--reason", "x"], "wants --since"),
    (["undo-rule", "wrong", "--since", "1h"], "wants --reason"),
    (["undo-rule", "--since", "1h", "--reason", "x"], "more arguments"),
    (["undo-rule", "wrong", "--since", "soon", "--reason", "x"], "--since wants an age"),
])
def test_what_is_asked_must_be_clear(house, args, want):
    status, said = house.daemon.ctl(*args, check=False)
    assert status == 2 and want in said
