#!/bin/sh
# redis.sh - what a shared past costs: messages per second and added latency at the milter door with the past in memory, and in a
# Redis over a unix socket, TCP, TLS, and in a Redis Cluster of three; then what Redis takes for it. 4 KB messages, every one
# different, which is the dearest: a first sight. breakwaterd on core 1, generator and Redis on core 0 where there are two;
# enforce mode, hold queue and journal on disk. All servers are private, on loopback.
#
# usage: redis.sh [BUILD]    SECONDS_EACH (3) of load, ROUNDS (2), COPIES (150000) of one message, DIFFERENT (100000) messages
# The last line: messages per second over a unix socket divided by those with memory, and what it adds to p99 at 4 connections.
set -eu
build=${1:-build}
seconds=${SECONDS_EACH:-3}
rounds=${ROUNDS:-2}
copies=${COPIES:-150000}
different=${DIFFERENT:-100000}
dir=$(mktemp -d /tmp/bwbench.XXXXXX)
pids=
end() { for p in $pids; do kill "$p" 2>/dev/null && wait "$p" || :; done; }
trap 'end; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
load_core= filter_core= runs=0
if [ "$(nproc)" -ge 2 ] && command -v taskset >/dev/null; then
	load_core="taskset -c 0" filter_core="taskset -c 1"
fi
server=$(command -v redis-server || command -v redis-check-rdb) || {
	echo "redis-server is not installed: apt-get install redis-tools" >&2
	exit 1
}

until_true() { # COMMAND...: for ten seconds at most
	i=0
	until "$@" >/dev/null 2>&1; do
		i=$((i + 1))
		[ $i -lt 100 ] || { echo "no end of waiting for: $*" >&2; cat "$dir"/*.log >&2; exit 1; }
		sleep 0.1
	done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

cp "$server" "$dir/redis-server" # the name decides what the program is
redis() { # NAME LINE...: a server; its pid in $redis_pid
	mkdir "$dir/$1"
	conf=$dir/$1/conf
	{
		printf 'dir %s\nbind 127.0.0.1\nsave ""\nappendonly no\nunixsocket %s\n' "$dir/$1" "$dir/$1/s"
		sock=$dir/$1/s
		name=$1
		shift
		printf '%s\n' "$@"
	} >"$conf"
	$load_core "$dir/redis-server" "$conf" >"$dir/$name.log" 2>&1 &
	redis_pid=$!
	pids="$pids $redis_pid"
	until_true redis-cli -s "$sock" ping
}

node() { # NAME STORE: breakwaterd with this past; its pid in $node_pid
	mkdir -p "$dir/$1-hold"
	cat >"$dir/$1.conf" <<CONF
node { name = "$1" site_key = "$dir/site.key" }
mode = "${3:-enforce}"
milter main { socket = "unix:$dir/$1.milter" mode = "0666" }
hold { path = "$dir/$1-hold" }
control { socket = "$dir/$1.control" }
log { to = "stderr" level = "notice" }
store { $2 }
CONF
	$filter_core "$build/breakwaterd" -f "$dir/$1.conf" 2>"$dir/$1.log" &
	node_pid=$!
	pids="$pids $node_pid"
	until_true test -S "$dir/$1.milter"
	until_true "$build/breakwaterctl" -s "$dir/$1.control" status
	case $2 in *redis*) until_true shares "$1" ;; esac
}
status() { "$build/breakwaterctl" --json -s "$dir/$1.control" status; }
shares() { status "$1" | grep -q '"up": *true'; }

load() { # NAME CONNECTIONS OPTION...: one run; its figures in $dir/last
	runs=$((runs + 1))
	at=$1 c=$2
	shift 2
	$load_core "$build/bench/milterload" -i "${runs}000000000" -c "$c" "$@" "unix:$dir/$at.milter" >"$dir/last"
}
figure() { tr ' ' '\n' <"$dir/last" | sed -n "s/^$1=//p"; }
used() { redis-cli -s "$dir/$1/s" info memory | tr -d '\r' | sed -n 's/^used_memory://p'; }

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
	-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
tcp=$(free_port) tls=$(free_port)
redis unix "port 0"
redis tcp "port $tcp"
redis tls "port 0" "tls-port $tls" "tls-cert-file $dir/cert.pem" "tls-key-file $dir/key.pem" "tls-ca-cert-file $dir/cert.pem" \
	"tls-auth-clients no"
members=
for i in 1 2 3; do
	p=$(free_port)
	members="$members 127.0.0.1:$p"
	redis "cluster$i" "port $p" "cluster-enabled yes" "cluster-port $(free_port)" "cluster-node-timeout 2000"
done
# shellcheck disable=SC2086
redis-cli --cluster create $members --cluster-yes >"$dir/create.log" 2>&1 || { cat "$dir/create.log" >&2; exit 1; }
until_true sh -c "redis-cli -s $dir/cluster3/s cluster info | grep -q cluster_state:ok"

# Too much shall take longer, not be judged alone, which is faster.
shared='backend = redis deadline = 2s'
node memory 'backend = memory'
memory_pid=$node_pid
node over-unix "$shared servers = {\"unix:$dir/unix/s\"}"
node over-tcp "$shared servers = {\"127.0.0.1:$tcp\"}"
node over-tls "$shared servers = {\"127.0.0.1:$tls\"} tls = yes ca = \"$dir/cert.pem\""
node cluster "$shared cluster = yes servers = {$(echo $members | sed 's/[^ ]*/"&"/g; s/ /, /g')}"

all="memory over-unix over-tcp over-tls cluster"
i=0
while [ $i -lt "$rounds" ]; do
	i=$((i + 1))
	for n in $all; do
		load "$n" 64 -b -s 4096 -d "$seconds"
		[ "$(figure msgs)" = "$(figure cont)" ] || { echo "$n did not pass every message: $(cat "$dir/last")" >&2; exit 1; }
		echo "$n rate $(figure rate)" >>"$dir/figures"
		load "$n" 4 -b -s 4096 -d "$seconds"
		echo "$n p50 $(figure p50_us)" >>"$dir/figures"
		echo "$n p99 $(figure p99_us)" >>"$dir/figures"
	done
done
for n in $all; do
	alone=$(status "$n" | tr ',{}' '\n\n\n' | sed -n 's/^ *"degraded": *//p' | head -n 1)
	echo "$n alone ${alone:-0}" >>"$dir/figures"
done
kill "$memory_pid"

# --- what Redis takes ---
redis full "port 0"
node many "$shared servers = {\"unix:$dir/full/s\"}" monitor
before=$(used full)
load many 16 -b -s 4096 -n "$different"
sleep 2
each=$((($(used full) - before) / different))
keys=$(redis-cli -s "$dir/full/s" dbsize)
redis-cli -s "$dir/full/s" flushall >/dev/null
sleep 1
to=$(awk 'BEGIN { for (i = 0; i < 630; i++) printf "%sp%d@firm%d.example", i ? ",\r\n\t" : "", i, i % 200 }')
printf 'Message-ID: <one@promo.example>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: <sales@promo.example>\r\nTo: %s\r\nSubject: Price list\r\n\r\nOur price list for all customers of this year, in a few words.\r\n' "$to" >"$dir/one.eml"
before=$(used full)
load many 16 -F "$dir/one.eml" -r 90 -w 630 -n $((copies / 90))
sleep 2
one=$(($(used full) - before))
log=0
for k in $(redis-cli -s "$dir/full/s" --scan --pattern 'bw:1:m:*'); do
	n=$(redis-cli -s "$dir/full/s" strlen "$k")
	log=$((log + n))
done

awk '
{ sum[$1, $2] += $3; n[$1, $2]++ }
function mean(who, what) { return sum[who, what] / n[who, what] }
BEGIN { split("memory over-unix over-tcp over-tls cluster", all) }
END {
	printf "%-10s %12s %10s %10s %12s %12s %8s\n", "the past", "messages/s", "p50 ms", "p99 ms", "added p50", "added p99", "alone"
	for (i = 1; i <= 5; i++) {
		w = all[i]
		printf "%-10s %12.0f %10.3f %10.3f %12.3f %12.3f %8d\n", w, mean(w, "rate"), mean(w, "p50") / 1000, mean(w, "p99") / 1000,
			(mean(w, "p50") - mean("memory", "p50")) / 1000, (mean(w, "p99") - mean("memory", "p99")) / 1000, sum[w, "alone"]
	}
}' "$dir/figures"
echo "(messages/s: 64 connections; ms: 4 connections, MAIL to reply; alone: messages judged without Redis)"
awk -v each="$each" -v d="$different" -v keys="$keys" -v one="$one" -v log_="$log" -v c="$((copies / 90 * 90))" 'BEGIN {
	printf "Redis, %d different messages to one recipient each: %d bytes each (%.1f keys); so 1.2 million a day, all kept: %.0f MiB\n",
		d, each, keys / d, each * 1.2e6 / 1048576
	printf "Redis, %d copies of one message for 630 recipients: %.0f KB more, its log %.0f KB\n", c, one / 1024, log_ / 1024
}'
awk '
{ sum[$1, $2] += $3; n[$1, $2]++ }
function mean(who, what) { return sum[who, what] / n[who, what] }
END {
	rate = mean("over-unix", "rate") / mean("memory", "rate")
	added = (mean("over-unix", "p99") - mean("memory", "p99")) / 1000
	printf "redis_unix_vs_memory=%.2f, p99_added_ms=%.2f\n", rate, added
}' "$dir/figures"
