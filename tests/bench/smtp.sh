#!/bin/sh
# smtp.sh - the SMTP door beside proxies that understand nothing, in one run: direct (client -> sink), nullproxy,
# haproxy (mode tcp, one thread), door (breakwaterd in mode bypass: the SMTP door alone, nothing is judged),
# breakwater (mode enforce, all detectors, hold queue and journal on disk); of both one mail thread. Load and sink
# on core 0, the subject on core 1 where there are two; TCP over loopback.
# The sink checks every byte of every message and must have as many as the clients got 250 for.
#
# usage: smtp.sh [BUILD]      SECONDS_EACH (2) of load a cell, ROUNDS (3) of the cell the last line is about,
#                             HAPROXY (haproxy) the program, CONNECTIONS ("1 16 64") and KB ("1 4 20 100") the cells
# The last line: messages per second at 16 connections and 4 KB, breakwater's divided by haproxy's, and the
# same of CPU per message, of breakwater and of the door alone.
set -eu
build=${1:-build}
seconds=${SECONDS_EACH:-2}
rounds=${ROUNDS:-3}
haproxy=$(command -v "${HAPROXY:-haproxy}" || command -v /usr/sbin/haproxy || :)
dir=$(mktemp -d)
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || :; done; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
load_core= subject_core= runs=0
if [ "$(nproc)" -ge 2 ] && command -v taskset >/dev/null; then
	load_core="taskset -c 0" subject_core="taskset -c 1"
fi
hertz=$(getconf CLK_TCK)

port() { # a free one
	/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
direct=$(port)
null=$(port)
ha=$(port)
ours=$(port)
door=$(port)

conf() { # MODE PORT
	mkdir "$dir/$1"
	cat >"$dir/$1/conf" <<CONF
node { name = "bench" site_key = "$dir/$1/site.key" }
mode = "$1"
workers = 1
smtp main { socket = "inet:$2@127.0.0.1" downstream = "127.0.0.1:$direct" received = "never" }
limits { connections = 0 connections_each = 0 messages = 1000000 }
hold { path = "$dir/$1" }
control { socket = "$dir/$1/control" }
log { to = "stderr" level = "notice" }
CONF
}
conf enforce "$ours"
conf bypass "$door"
cat >"$dir/haproxy.cfg" <<CONF
global
	nbthread 1
	maxconn 4000
defaults
	mode tcp
	timeout connect 5s
	timeout client 60s
	timeout server 60s
listen smtp
	bind 127.0.0.1:$ha
	server sink 127.0.0.1:$direct
CONF

start() { # NAME PORT COMMAND...: leaves its pid in $pid
	name=$1
	at=$2
	shift 2
	"$@" 2>"$dir/$name.log" &
	pid=$!
	pids="$pids $pid"
	i=0
	until "$build/bench/smtpload" -d 0 "127.0.0.1:$at" >/dev/null 2>&1; do
		i=$((i + 1))
		if [ $i -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
			echo "$name did not start:" >&2
			cat "$dir/$name.log" >&2
			exit 1
		fi
		sleep 0.1
	done
}
ticks() { [ "$1" = 0 ] && echo 0 || awk '{ print $14 + $15 }' "/proc/$1/stat"; }
taken() { od -An -t u8 -N 8 "$dir/counters" | tr -d ' '; }
figure() { tr ' ' '\n' <"$dir/last" | sed -n "s/^$1=//p"; }

# SUBJECT OPTIONS...: one run; its figures go to $dir/last
run() {
	eval "at=\$${1}_port pid=\$${1}_pid"
	shift
	runs=$((runs + 1)) # no message of one run is like one of another
	had=$(taken)
	before=$(ticks "$pid")
	$load_core "$build/bench/smtpload" -i "${runs}0000000" -d "$seconds" "$@" "127.0.0.1:$at" >"$dir/last"
	after=$(ticks "$pid")
	if [ "$(figure msgs)" != "$(($(taken) - had))" ]; then
		echo "clients got 250 for $(figure msgs) messages, the sink has $(($(taken) - had))" >&2
		exit 1
	fi
	awk -v t="$((after - before))" -v hz="$hertz" -v n="$(figure msgs)" \
		'BEGIN { printf "cpu_us=%.1f\n", t * 1e6 / hz / (n ? n : 1) }' >>"$dir/last"
	tr '\n' ' ' <"$dir/last" >"$dir/line" && mv "$dir/line" "$dir/last"
}

# TITLE OPTIONS...: a line for every subject
cell() {
	title=$1
	shift
	for s in $subjects; do
		run "$s" "$@"
		printf '%-22s %-10s %9s %8s %8s %8s %8s\n' "$title" "$s" "$(figure rate)" "$(figure cpu_us)" \
			"$(figure p50_us)" "$(figure p99_us)" "$(figure p999_us)"
	done
}

start sink "$direct" $load_core "$build/bench/smtpsink" -S "$dir/counters" "127.0.0.1:$direct"
direct_port=$direct direct_pid=0
start nullproxy "$null" $subject_core "$build/bench/nullproxy" "127.0.0.1:$null" "127.0.0.1:$direct"
nullproxy_port=$null nullproxy_pid=$pid
subjects="direct nullproxy"
if [ "$haproxy" ]; then
	start haproxy "$ha" $subject_core "$haproxy" -db -q -f "$dir/haproxy.cfg"
	haproxy_port=$ha haproxy_pid=$pid
	subjects="$subjects haproxy"
	reference=haproxy
else
	echo "without haproxy (apt-get install haproxy): nullproxy stands for it in the last line"
	reference=nullproxy
fi
start door "$door" $subject_core "$build/breakwaterd" -f "$dir/bypass/conf"
door_port=$door door_pid=$pid
start breakwater "$ours" $subject_core "$build/breakwaterd" -f "$dir/enforce/conf"
breakwater_port=$ours breakwater_pid=$pid
subjects="$subjects door breakwater"

printf '%-22s %-10s %9s %8s %8s %8s %8s\n' "" "" messages/s "CPU us" "p50 us" "p99 us" "p99.9 us"
for c in ${CONNECTIONS-1 16 64}; do
	for kb in ${KB-1 4 20 100}; do
		cell "$c connections, $kb KB" -c "$c" -s $((kb * 1024))
	done
done
cell "16, 4 KB, one message" -c 16 -k 1
i=0
while [ $i -lt "$rounds" ]; do
	i=$((i + 1))
	for s in $reference door breakwater; do
		run "$s" -c 16 -s 4096
		cat "$dir/last" >>"$dir/$s.runs"
		echo >>"$dir/$s.runs"
	done
done
sum() { tr ' ' '\n' <"$dir/$1.runs" | awk -F= -v k="$2" '$1 == k { n += $2 } END { print n }'; }
awk -v a="$(sum breakwater rate)" -v b="$(sum "$reference" rate)" -v c="$(sum breakwater cpu_us)" \
	-v d="$(sum "$reference" cpu_us)" -v e="$(sum door cpu_us)" -v who="$reference" \
	'BEGIN { printf "smtp_vs_%s_16=%.2f cpu_vs_%s_16=%.2f door_cpu_vs_%s_16=%.2f\n", who, a / b, who, c / d, who, e / d }'
