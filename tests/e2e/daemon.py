"""breakwaterd under test: a private directory, free loopback ports, ended by the pid that was started."""
import json
import os
import signal
import socket
import subprocess
import time

from private_postfix import free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BREAKWATER_BUILD", "build"))
# A build named by BREAKWATER_BUILD (make asan, make tsan) has failpoints itself.
FAILPOINTS = BUILD if "BREAKWATER_BUILD" in os.environ else os.path.join(ROOT, "build", "failpoint")

CONF = """\
node {{ name = "{node}" site_key = "{dir}/site.key" }}
own {{ hosts = {{"mx.gateway.example"}} }}
mode = "{mode}"
milter main {{ socket = "inet:{port}@127.0.0.1" }}
hold {{ path = "{dir}/hold" {hold} }}
release {{ {release} }}
control {{ socket = "{dir}/control" }}
log {{ to = "stderr" level = "{level}" }}
guard {{ {guard} }}
{more}
"""
# Many tests hold much new mail on purpose, or have a slow or failing MTA behind; test_guard.py is about the guard.
NO_GUARD = "holds = 0 hold_share = 0 refused_share = 0 downstream_factor = 0 own_reply = 0s"


class Daemon:
    def __init__(self, directory, mode="enforce", release_to=None, release="", hold="", more="", level="notice",
                 build=BUILD, env=None, port=None, guard=NO_GUARD, node="demo"):
        """With a failpoint in env: what a daemon does only when it starts for the first time has been done before."""
        self.dir, self.build, self.env = directory, build, env
        self.port = port or free_port()
        os.makedirs(f"{directory}/hold", exist_ok=True)
        self.conf = f"{directory}/breakwater.conf"
        if release_to:
            release = f'to = "{release_to}" ' + release
        with open(self.conf, "w") as f:
            f.write(CONF.format(dir=directory, mode=mode, port=self.port, release=release, hold=hold, more=more, level=level, guard=guard, node=node))
        self.process = None
        if (env or {}).get("BREAKWATER_FAILPOINT"):
            self.start(env={"BREAKWATER_FAILPOINT": ""})
            self.stop()
        self.start()

    @property
    def milter(self):
        return f"inet:127.0.0.1:{self.port}"

    def start(self, env=None):
        self.log_file = open(f"{self.dir}/breakwaterd.log", "ab")
        self.process = subprocess.Popen([f"{self.build}/breakwaterd", "-f", self.conf], stdin=subprocess.DEVNULL,
                                        stdout=self.log_file, stderr=self.log_file,
                                        env={**os.environ, **(self.env or {}), **(env or {})})
        for _ in range(300):
            if self.process.poll() is not None:
                raise RuntimeError(f"breakwaterd did not start:\n{self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(f"{self.dir}/control")
                return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("breakwaterd does not answer")

    def log(self):
        return open(f"{self.dir}/breakwaterd.log", errors="replace").read()

    def ctl(self, *args, check=True):
        """Runs breakwaterctl; returns (status, stdout)."""
        p = subprocess.run([f"{self.build}/breakwaterctl", "-s", f"{self.dir}/control", *args],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        out = p.stdout.decode("utf-8", "replace")
        if check and p.returncode != 0:
            raise RuntimeError(f"breakwaterctl {' '.join(args)}: exit {p.returncode}\n{out}")
        return (p.returncode, out) if not check else out

    def json(self, *args):
        """--json output: one value a line."""
        return [json.loads(line) for line in self.ctl("--json", *args).splitlines() if line.strip()]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout=20):
        """SIGTERM; the exit status."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log_file.close()
        return self.process.returncode
