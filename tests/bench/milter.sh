#!/bin/sh
# milter.sh - the milter door beside the least a libmilter filter can do (nullmilter nr), in one run:
# 4 KB messages, every one different, over 16 connections to a unix socket; the generator on core 0,
# the filter on core 1 where there are two. breakwaterd runs as it would in earnest: enforce mode,
# hold queue and journal on disk, the past in memory, the built-in policy.
#
# usage: milter.sh [BUILD]    SECONDS_EACH (3) of load, ROUNDS (3) of A B A B, SECONDS_TAIL (10) for p99.9
# The last line: messages per second and CPU per message, breakwaterd's divided by nullmilter's.
set -eu
build=${1:-build}
seconds=${SECONDS_EACH:-3}
rounds=${ROUNDS:-3}
dir=$(mktemp -d)
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null && wait "$p" || :; done; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
load_core= filter_core= runs=0
if [ "$(nproc)" -ge 2 ] && command -v taskset >/dev/null; then
	load_core="taskset -c 0" filter_core="taskset -c 1"
fi

mkdir "$dir/hold"
cat >"$dir/conf" <<CONF
node { name = "bench" site_key = "$dir/site.key" }
mode = "enforce"
milter main { socket = "unix:$dir/breakwaterd" mode = "0666" }
hold { path = "$dir/hold" }
control { socket = "$dir/control" }
log { to = "stderr" level = "notice" }
CONF

start() { # NAME COMMAND...: leaves its pid in $pid
	name=$1
	shift
	$filter_core "$@" 2>"$dir/$name.log" &
	pid=$!
	pids="$pids $pid"
	i=0
	until [ -S "$dir/$name" ]; do
		i=$((i + 1))
		if [ $i -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
			echo "$name did not start:" >&2
			cat "$dir/$name.log" >&2
			exit 1
		fi
		sleep 0.1
	done
}
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# NAME PID CONNECTIONS: one run; its line of figures and the CPU ticks used go to NAME.runs
run() {
	runs=$((runs + 1)) # no message of one run is like one of another
	before=$(ticks "$2")
	line=$($load_core "$build/bench/milterload" -b -i "${runs}000000000" -s 4096 -c "$3" -d "$seconds" "unix:$dir/$1")
	after=$(ticks "$2")
	echo "$line ticks=$((after - before))" | tee -a "$dir/$1.runs" >"$dir/last"
}
figure() { tr ' ' '\n' <"$dir/last" | sed -n "s/^$1=//p"; }
total() { tr ' ' '\n' <"$dir/$1.runs" | awk -F= -v k="$2" '$1 == k { n += $2 } END { print n }'; }

start breakwaterd "$build/breakwaterd" -f "$dir/conf"
ours=$pid
start nullmilter "$build/bench/nullmilter" nr "unix:$dir/nullmilter"
theirs=$pid

# The first message of a connection is timed from its connect(): a short run's slowest thousandth would
# be little else than the moment in which 256 connections begin at once.
brief=$seconds
seconds=${SECONDS_TAIL:-10}
for c in 64 256; do
	for f in "breakwaterd $ours" "nullmilter $theirs"; do
		run ${f% *} "${f#* }" "$c"
		echo "${f% *}: p99.9 at $c connections $(figure p999_us) us"
	done
done
seconds=$brief
rm -f "$dir"/*.runs
i=0
while [ $i -lt "$rounds" ]; do
	i=$((i + 1))
	run breakwaterd "$ours" 16
	if [ "$(figure msgs)" != "$(figure cont)" ]; then
		echo "breakwaterd did not pass every message: $(cat "$dir/last")" >&2
		exit 1
	fi
	run nullmilter "$theirs" 16
done

hertz=$(getconf CLK_TCK)
for f in breakwaterd nullmilter; do
	echo "$f $(total $f msgs) $(total $f secs) $(total $f ticks)"
done | awk -v hz="$hertz" '
{
	rate[$1] = $2 / $3
	cpu[$1] = $4 * 1e6 / hz / $2
	printf "%s: %.0f messages/s, %.1f us CPU per message\n", $1, rate[$1], cpu[$1]
}
END {
	printf "milter_vs_nr=%.2f, cpu_vs_nr=%.2f\n", rate["breakwaterd"] / rate["nullmilter"],
		cpu["breakwaterd"] / cpu["nullmilter"]
}'
