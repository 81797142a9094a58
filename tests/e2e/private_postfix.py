"""A Postfix of our own: private configuration, queue and mailboxes in one directory, loopback ports,
ended by the pid that was started. Needs root (Postfix's master does); reason_missing() says so.

It completes nobody's header fields, as it would those of clients with its own address: released mail has to arrive as
it came. Mail is delivered into maildirs below DIR/mail: DIR/mail/DOMAIN/USER/new/*.
"""
import grp
import os
import pwd
import random
import smtplib
import socket
import subprocess
import time

from private_mta import Mta

LIBEXEC = "/usr/lib/postfix/sbin"

MASTER = """\
127.0.0.1:{port} inet n - n - {processes} smtpd
127.0.0.1:{port2} inet n - n - - smtpd -o smtpd_milters= -o smtpd_proxy_filter= -o syslog_name=postfix/plain{plain}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - {processes} virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

MAIN = """\
compatibility_level = 3.6
queue_directory = {dir}/spool
data_directory = {dir}/data
daemon_directory = {libexec}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.gateway.example
mydestination =
mynetworks = 127.0.0.0/8
local_header_rewrite_clients =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = texthash:{dir}/conf/domains
virtual_mailbox_maps = texthash:{dir}/conf/mailboxes
virtual_mailbox_base = {dir}/mail
virtual_mailbox_limit = 0
mailbox_size_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_relay_restrictions = permit_auth_destination, reject
smtpd_recipient_restrictions = permit_auth_destination, reject
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_recipient_limit = 5000
virtual_destination_recipient_limit = 1
in_flow_delay = 0
disable_dns_lookups = yes
smtp_host_lookup = native
maillog_file = {dir}/log/maillog
maillog_file_prefixes = {dir}
"""


def reason_missing():
    """Why a private Postfix cannot run here, or None."""
    if os.geteuid() != 0:
        return "a private Postfix needs root"
    if not os.path.exists(os.path.join(LIBEXEC, "master")):
        return "Postfix is not installed"
    return None


def free_port():
    """Below those that the kernel gives to connections: nobody takes it before it is listened on."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class Postfix(Mta):
    """port: smtpd with the milter, or the proxy filter, in front; plain_port: smtpd without. Only `addresses` have mailboxes.
    plain: settings of the second alone."""

    def __init__(self, directory, addresses, milter=None, settings=(), processes=100, plain=()):
        self.dir = directory
        self.port = free_port()
        self.plain_port = free_port()
        for d in ("conf", "data", "log", "mail"):
            os.makedirs(f"{directory}/{d}", exist_ok=True)
        for d in ("active bounce corrupt defer deferred flush hold incoming private maildrop pid public saved trace").split():
            os.makedirs(f"{directory}/spool/{d}", exist_ok=True)
        postfix, nobody = pwd.getpwnam("postfix"), pwd.getpwnam("nobody")
        for d in ("active bounce corrupt defer deferred flush hold incoming private saved trace").split():
            os.chown(f"{directory}/spool/{d}", postfix.pw_uid, 0)
            os.chmod(f"{directory}/spool/{d}", 0o700)
        postdrop = grp.getgrnam("postdrop").gr_gid
        for d, mode in (("public", 0o2710), ("maildrop", 0o1730)):
            os.chown(f"{directory}/spool/{d}", postfix.pw_uid, postdrop)
            os.chmod(f"{directory}/spool/{d}", mode)
        os.chown(f"{directory}/data", postfix.pw_uid, 0)
        os.chown(f"{directory}/mail", nobody.pw_uid, nobody.pw_gid)
        for path in (directory, f"{directory}/mail"):
            os.chmod(path, 0o755)
        main = MAIN.format(dir=directory, libexec=LIBEXEC, uid=nobody.pw_uid, gid=nobody.pw_gid)
        if milter:
            main += ("smtpd_milters = { %s, connect_timeout=5s, command_timeout=30s, content_timeout=60s, "
                     "default_action=accept }\nmilter_protocol = 6\n" % milter)
        main += "".join(f"{line}\n" for line in settings)
        self.write("conf/main.cf", main)
        self.write("conf/master.cf", MASTER.format(port=self.port, port2=self.plain_port, processes=processes,
                                                      plain="".join(f" -o {o}" for o in plain)))
        split = [a.partition("@") for a in addresses]
        self.write("conf/domains", "".join(f"{d} yes\n" for d in sorted({d for _, _, d in split})))
        self.write("conf/mailboxes", "".join(f"{u}@{d} {d}/{u}/\n" for u, _, d in split))
        self.start()

    def start(self):
        with open(f"{self.dir}/log/master", "w") as errors:
            self.process = subprocess.Popen([f"{LIBEXEC}/master", "-c", f"{self.dir}/conf", "-d"],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        self.wait_open()

    def write(self, name, text):
        with open(f"{self.dir}/{name}", "w") as f:
            f.write(text)

    def wait_open(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("Postfix did not start: " + open(f"{self.dir}/log/master").read())
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                    if s.recv(3) == b"220":
                        return
            except OSError:
                pass
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("Postfix does not answer: " + self.log()[-500:])

    def log(self):
        try:
            return open(f"{self.dir}/log/maillog", errors="replace").read()
        except FileNotFoundError:
            return ""

    def delivered(self):
        """address -> number of messages in its mailbox"""
        out = {}
        for domain in os.listdir(f"{self.dir}/mail"):
            for user in os.listdir(f"{self.dir}/mail/{domain}"):
                new = f"{self.dir}/mail/{domain}/{user}/new"
                out[f"{user}@{domain}"] = len(os.listdir(new)) if os.path.isdir(new) else 0
        return out

    def queued(self):
        return sum(len(files) for d in ("incoming", "active", "deferred")
                   for _, _, files in os.walk(f"{self.dir}/spool/{d}"))


class PostfixSession:
    """One SMTP connection at a time; XCLIENT tells Postfix which relay is at the other end."""

    def __init__(self, port):
        self.port = port
        self.smtp = None
        self.client = None

    def connect(self, host, address):
        """Speaks for this relay from here on."""
        if self.client == (host, address):
            return
        self.close()
        self.smtp = smtplib.SMTP("127.0.0.1", self.port, timeout=60, source_address=("127.0.0.2", 0))
        self.smtp.ehlo("generator.example")
        self.expect(self.smtp.docmd("XCLIENT", f"ADDR={address} NAME={host} HELO={host} PROTO=ESMTP"), 220)
        self.smtp.ehlo(host)
        self.client = (host, address)

    def replies(self, host, address, reversepath, recipients, data):
        """One transaction: what the MTA said to MAIL, to every RCPT and to the end of the data, each as (code, text)."""
        self.connect(host, address)
        said = [self.smtp.mail(reversepath)]
        said += [self.smtp.rcpt(r) for r in recipients]
        said.append(self.smtp.data(data))
        return [(code, text.decode("utf-8", "replace")) for code, text in said]

    def send(self, host, address, reversepath, recipients, data):
        """The same, and everything must be taken."""
        for reply in self.replies(host, address, reversepath, recipients, data):
            self.expect(reply, 250)

    def expect(self, reply, code):
        if reply[0] != code:
            text = reply[1] if isinstance(reply[1], str) else reply[1].decode("utf-8", "replace")
            raise RuntimeError(f"the MTA said {reply[0]} {text}")

    def close(self):
        if self.smtp:
            self.smtp.close()
            self.smtp = None
            self.client = None
