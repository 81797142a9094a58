#!/bin/sh
# options.sh - what the manuals and the sample say about keys and facts is what the program knows:
# every key of `breakwaterd -k` is in breakwater.conf(5), with its default, and in the sample, every
# fact of policy/fact.c is in policy.conf(5), and no manual names one that does not exist. Run from the
# top of the sources, after a build.
build=${BREAKWATER_BUILD:-${BUILD:-build}}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
bad=0

differ() { # differ WHAT KNOWN SAID
	sort -u "$2" >"$2.s" && sort -u "$3" >"$3.s"
	comm -23 "$2.s" "$3.s" | sed "s|^|$1: missing: |" >"$tmp/out"
	comm -13 "$2.s" "$3.s" | sed "s|^|$1: does not exist: |" >>"$tmp/out"
	[ -s "$tmp/out" ] || return 0
	cat "$tmp/out"
	bad=1
}

"$build/breakwaterd" -k >"$tmp/table" || { echo "options.sh: needs $build/breakwaterd"; exit 1; }
[ -s "$tmp/table" ] || { echo "options.sh: breakwaterd -k lists nothing"; exit 1; }
cut -f1 "$tmp/table" >"$tmp/keys"

sed -n 's/^\.It Va //p' daemon/breakwater.conf.5 >"$tmp/manual"
differ "breakwater.conf(5)" "$tmp/keys" "$tmp/manual"

# In the sample a key stands in its section, commented out or not; after "# " where its file has to be
# there first, so that it cannot be switched on below.
awk '/^#?[a-z]+( [a-z]+)? *\{/	{ section = $1 "."; sub(/^#/, "", section) }
     /^#?\}/			{ section = "" }
     /^ *(# ?)?[a-z_]+ = /	{ sub(/^ *(# ?)?/, ""); print section $1 }' \
	contrib/breakwater.conf >"$tmp/sample"
differ "contrib/breakwater.conf" "$tmp/keys" "$tmp/sample"

# Defaults: a key of the table that has one, the value the manual says.
awk -F'\t' '$3 != "-" { print $1 "\t" $3 }' "$tmp/table" >"$tmp/defaults"
awk '/^\.It Va /		{ key = $3 }
     /^Type: .*; default: /	{ sub(/.*; default: /, ""); sub(/\.$/, "")
				  if ($0 != "empty") print key "\t" $0 }' \
	daemon/breakwater.conf.5 >"$tmp/said"
differ "breakwater.conf(5), defaults" "$tmp/defaults" "$tmp/said"

sed -n 's/^    {"\([a-z_]*\.[a-z_]*\)".*/\1/p' policy/fact.c >"$tmp/facts"
[ -s "$tmp/facts" ] || { echo "options.sh: found no facts in policy/fact.c"; exit 1; }
sed -n 's/^\.It Va //p' policy/policy.conf.5 >"$tmp/factmanual"
differ "policy.conf(5)" "$tmp/facts" "$tmp/factmanual"

# Each is said in the table's own words, with its type: the list is what this makes of the table.
awk '/^    \{"[a-z_]+\.[a-z_]+"/	{ name = $0; sub(/^    \{"/, "", name); sub(/".*/, "", name)
				  row = ""; sub(/^    \{"[a-z_.]+"/, "") }
     name == ""			{ next }
				{ row = row $0 }
     /\)\},$/	{ type = row ~ /TYPE_BOOL/ ? "true or false" : row ~ /TYPE_NUMBER/ ? "number" : \
				  row ~ /TYPE_ADDRESS/ ? "network address" : "text"
				  if (row ~ /UNIT_BYTES/) type = type ", in bytes"
				  if (row ~ /UNIT_TIME/) type = type ", a time"
				  if (row ~ /UNIT_SHARE/) type = type ", a share"
				  if (row ~ /EACH\(/) type = type ", of each recipient"
				  sub(/^[^"]*"/, "", row); sub(/"\)\},$/, "", row); gsub(/" *"/, "", row)
				  print name ": " row " Type: " type "."; name = "" }' policy/fact.c >"$tmp/sentences"
awk '/^\.It Va /	{ text = $3 ":"; next }
     text == ""	{ next }
     /^\.Xr /	{ $0 = $2 "(" $3 ")" $4 }
		{ text = text " " $0 }
     /^Type: /	{ print text; text = "" }' policy/policy.conf.5 >"$tmp/said"
differ "policy.conf(5), facts" "$tmp/sentences" "$tmp/said"

# So are the sets of breakwater.conf, what a rule can do, and its clauses.
sed -n 's/^    \[SET_[A-Z_]*\] = {"\([a-z_]*\)".*/\.It Ic @\1/p' policy/expr.c >"$tmp/words"
sed -n '/^const char \*disposition_name/,/^}/p' policy/fact.c | grep -o '"[a-z]*"' | tr -d '"' |
	sed '/unknown/d; s/^/\.It Ic /' >>"$tmp/words"
sed -n '/^static bool read_clause/,/^}/s/.*names\[\] = {\(.*\), NULL};/\1/p' policy/policy.c |
	tr -d '", ' | sed 's/when/    when\n/; s/do/    do\n/; s/reason/    reason\n/; s/reply/    reply/' >>"$tmp/words"
[ "$(wc -l <"$tmp/words")" = 14 ] || { echo "options.sh: found other words than 14 for policy.conf(5)"; exit 1; }
while IFS= read -r word; do
	grep -q "^$word\( \|$\)" policy/policy.conf.5 || { echo "policy.conf(5): missing: $word"; bad=1; }
done <"$tmp/words"

# What breakwater-detectors(7) sets as a variable is a key, with its section or without, or a fact;
# a number in brackets behind one is its default.
{ cat "$tmp/keys" "$tmp/facts"; sed 's/.*\.//' "$tmp/keys"; } | sort -u >"$tmp/known"
sed -n 's/^\.\(Pq \)\{0,1\}Va \([a-z_.]*[a-z]\).*/\2/p' detectors/breakwater-detectors.7 | sort -u |
	comm -23 - "$tmp/known" | sed 's/^/breakwater-detectors(7): does not exist: /' >"$tmp/out"
awk -F'\t' 'FNR == NR { sub(/.*\./, "", $1); value[$1] = $3; next }
	/^\.(Pq )?Va / { name = $0; sub(/^\.(Pq )?Va /, "", name); sub(/ .*/, "", name) }
	/^\[/ && (name in value) { said = $0; sub(/^\[/, "", said); sub(/\].*/, "", said)
		if (said != value[name]) print "breakwater-detectors(7): " name " is " value[name] ", not " said }
	!/^\.(Pq )?Va / { name = "" }' "$tmp/table" detectors/breakwater-detectors.7 >>"$tmp/out"
[ -s "$tmp/out" ] && { cat "$tmp/out"; bad=1; }

# The sample, with everything in it switched on, is a configuration.
mkdir "$tmp/hold" && cp contrib/policy.conf "$tmp/policy.conf"
sed -e 's/^\( *\)#\([a-z_]* = \)/\1\2/' -e 's/^#\(smtp .*{\)/\1/' -e 's/^#}/}/' \
	-e 's|"/var/lib/breakwater"|"hold"|' \
	-e 's|"/var/lib/breakwater/site.key"|"site.key"|' \
	-e 's|"/run/breakwater/control"|"control"|' contrib/breakwater.conf >"$tmp/all.conf"
"$build/breakwaterd" -t -f "$tmp/all.conf" >"$tmp/out" 2>&1 || { cat "$tmp/out"; bad=1; }
exit $bad
