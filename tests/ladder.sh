#!/bin/sh
# ladder.sh - the reading order is the include order: a file may include only
# what stands above it in tests/ladder.txt.   ladder.sh ladder.txt FILE...
awk '
FNR == NR {
	rank[$0] = FNR; stem = $0; sub(/.*\//, "", stem); where[stem] = $0; next
}
FNR == 1 {
	me = FILENAME; sub(/\.[ch]$/, "", me)
	if (!(me in rank)) { print me " is not on the ladder"; bad = 1 }
}
/^#include "/ {
	split($0, q, "\""); sub(/\.h$/, "", q[2])
	if (!(q[2] in where)) { print FILENAME ":" FNR ": includes " q[2] ".h, which is not on the ladder"; bad = 1 }
	else if (rank[where[q[2]]] > rank[me]) { print FILENAME ":" FNR ": may not include " q[2] ".h"; bad = 1 }
}
END { exit bad }' "$@"
