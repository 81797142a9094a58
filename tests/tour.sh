#!/bin/sh
# tour.sh - README's tour of the code names every file of the ladder, in its order.   tour.sh ladder.txt README.md
awk '
FNR == NR { if (NF) { sub(/.*\//, ""); want[++n] = $0 } next }
/^## A tour/ { tour = 1; next }
/^## / { tour = 0 }
tour { line = $0
	while (match(line, /`[a-z_]+`/)) {
		name = substr(line, RSTART + 1, RLENGTH - 2)
		line = substr(line, RSTART + RLENGTH)
		if (!(name in place)) place[name] = ++k
	} }
END {
	for (i = 1; i <= n; i++) {
		if (!(want[i] in place)) { print "the tour leaves out " want[i]; bad = 1 }
		else if (place[want[i]] < last) { print "the tour has " want[i] " too early"; bad = 1 }
		else last = place[want[i]]
	}
	exit bad
}' "$@"
