"""What private instances of real mail servers have in common: a process, a queue, maildirs below their directory."""
import glob
import signal
import subprocess
import time


class Mta:
    """Has dir, process (subprocess.Popen) and queued(): how many messages are in its queue."""

    def mailbox(self, address):
        """The messages in one mailbox, as bytes."""
        user, _, domain = address.partition("@")
        return [open(p, "rb").read() for p in sorted(glob.glob(f"{self.dir}/mail/{domain}/{user}/new/*"))]

    def wait_idle(self, seconds=60):
        """True when the queue is empty."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.queued() == 0:
                return True
            time.sleep(0.03)
        return False

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
