"""An Exim of our own: configuration, spool and mailboxes in one directory, a loopback port, ended by the pid that was started.

It waits for a PROXY header from 127.0.0.1 (hosts_proxy). Exim cannot be installed beside Postfix, so contrib/deps.sh only
unpacks it into build/exim. Its user is looked up by name: it runs in a mount namespace where /etc/passwd has that name.
Mail is delivered into maildirs below DIR/mail: DIR/mail/DOMAIN/USER/new/*.
"""
import glob
import os
import socket
import subprocess
import time

from daemon import ROOT, free_port
from private_mta import Mta

UNPACKED = os.path.join(ROOT, "build", "exim")
PLACES = ("/usr/sbin/exim4", f"{UNPACKED}/usr/sbin/exim4")
LIBRARIES = glob.glob(f"{UNPACKED}/usr/lib/*-linux-*") + [f"{UNPACKED}/usr/lib"]
NAMESPACE = """\
mount --bind "$1/conf/passwd" /etc/passwd && mount --bind "$1/conf/group" /etc/group && exec "$2" -C "$1/conf/exim.conf" -bdf
"""
ID = 65534  # nobody's, under Exim's name

CONF = """\
exim_path = {exim}
keep_environment = LD_LIBRARY_PATH
primary_hostname = mx.exim.example
spool_directory = {dir}/spool
log_file_path = {dir}/log/%s
log_selector = +all
pid_file_path = {dir}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
{hosts_proxy}
host_lookup =
rfc1413_query_timeout = 0s
deliver_drop_privilege
smtp_accept_max = 0
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_enforce_sync = true
recipients_max = 0
message_size_limit = 0
check_spool_space = 0
check_spool_inodes = 0
acl_smtp_rcpt = known
acl_smtp_data = content
timeout_frozen_after = 1d

begin acl
known:
  accept condition = ${{lookup {{$local_part@$domain}} lsearch{{{dir}/conf/boxes}} {{yes}}{{no}}}}
  deny message = no such user
content:
  deny message = Exim does not like this
       condition = ${{if match {{$h_Subject:}}{{refuse me}} {{yes}}{{no}}}}
  accept

begin routers
everybody:
  driver = accept
  transport = maildirs

begin transports
maildirs:
  driver = appendfile
  directory = ${{lookup {{$local_part@$domain}} lsearch{{{dir}/conf/boxes}}}}
  maildir_format
  envelope_to_add
  return_path_add
"""


def program():
    return next((p for p in PLACES if os.path.exists(p)), None)


def environment():
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(LIBRARIES)} if program().startswith(UNPACKED) else None


def reason_missing():
    """Why a private Exim cannot run here, or None."""
    if os.geteuid() != 0:
        return "a private Exim needs root"
    if not program():
        return "Exim is neither installed nor unpacked into build/exim (contrib/deps.sh does that)"
    said = subprocess.run([program(), "-bV"], capture_output=True, env=environment()).stderr
    if b"shared libraries" in said:
        return "Exim does not start: " + said.decode().strip()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        return "a private Exim needs a mount namespace"
    return None


class Exim(Mta):
    def __init__(self, directory, addresses, proxy=True):
        self.dir, self.port = directory, free_port()
        for d in ("conf", "spool", "log", "mail"):
            os.makedirs(f"{directory}/{d}", exist_ok=True)
        for d in ("", "/spool", "/log", "/mail"):
            os.chown(directory + d, ID, ID)
            os.chmod(directory + d, 0o755)
        exim = program()
        self.write("passwd", f"root:x:0:0::/root:/bin/sh\nDebian-exim:x:{ID}:{ID}::/nonexistent:/bin/false\n")
        self.write("group", f"root:x:0:\nDebian-exim:x:{ID}:\n")
        self.write("boxes", "".join("{0}: {2}/mail/{1[2]}/{1[0]}\n".format(a, a.partition("@"), directory) for a in addresses))
        self.write("exim.conf", CONF.format(dir=directory, port=self.port, exim=exim,
                                            hosts_proxy="hosts_proxy = 127.0.0.1" if proxy else ""))
        self.errors = open(f"{directory}/log/errors", "wb")
        self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", NAMESPACE, "sh", directory, exim], stdin=subprocess.DEVNULL,
                                        stdout=self.errors, stderr=self.errors, env=environment())
        self.wait_open()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def write(self, name, text):
        with open(f"{self.dir}/conf/{name}", "w") as f:
            f.write(text)

    def wait_open(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 2).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("Exim does not answer: " + open(f"{self.dir}/log/errors").read() + self.log("main"))

    def log(self, name="main"):
        try:
            return open(f"{self.dir}/log/{name}", errors="replace").read()
        except FileNotFoundError:
            return ""

    def queued(self):
        return len(glob.glob(f"{self.dir}/spool/input/*"))

    def stop(self):
        super().stop()
        self.errors.close()
