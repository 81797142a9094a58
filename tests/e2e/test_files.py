"""What breakwaterd writes is other people's mail: nobody else may read it."""
import os
import stat

from daemon import Daemon
from milter_peer import Peer


def test_files_are_for_their_owner_and_the_control_socket_for_the_group(tmp_path):
    d = Daemon(str(tmp_path))
    try:
        with Peer(d.port) as p:
            p.begin()
            p.mail("<a@a.example>", ["<b@b.example>"], "Message-ID: <1@a.example>\nDate: Mon, 23 Jan 2006 10:00:00 +0000\n",
                   "hello\r\n")
        for name in os.listdir(f"{tmp_path}/hold"):
            assert stat.S_IMODE(os.stat(f"{tmp_path}/hold/{name}").st_mode) & 0o027 == 0, name
        assert stat.S_IMODE(os.stat(f"{tmp_path}/site.key").st_mode) == 0o600
        assert stat.S_IMODE(os.stat(f"{tmp_path}/control").st_mode) == 0o660
    finally:
        assert d.stop() == 0
