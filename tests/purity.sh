#!/bin/sh
# purity.sh - the objects of detectors/ and policy/ remember nothing and call nothing but what is
# on a short list: no clock, no locale, no files, no network.   purity.sh OBJECT...
#
# For the plain build; sanitizers bring data of their own. .data.rel.ro is let through: with -fPIE a
# `static const` table of pointers lies there. The __*_chk and __stack_chk_fail are what
# _FORTIFY_SOURCE and -fstack-protector make of calls that are on the list; __cpu_model says which
# instructions the processor has.
set -u
all=$(mktemp) || exit 1
trap 'rm -f "$all"' EXIT
[ $# -gt 0 ] || { echo "usage: purity.sh OBJECT..." >&2; exit 2; }
ld -r -o "$all" "$@" || exit 1 # our own calls to each other resolve here

nm -f sysv "$all" | awk -F'|' '
$7 ~ /^\.(data|bss|tdata|tbss)|COMMON/ && $7 !~ /rel\.ro/ { print "remembers:", $1; bad = 1 }
END { exit bad }' || exit 1

memory='malloc|calloc|realloc|free|mem(cpy|move|set|cmp|chr|mem)'
text='str(n?len|n?cmp|n?casecmp|r?chr|c?spn|pbrk|str)|v?snprintf|strto(ul|ull|d)'
rest='qsort|bsearch|pow|ceil|log10|log|exp|abort|__assert_fail|__stack_chk_fail'
fortified='__(mem(cpy|move|set)|v?snprintf)_chk'
libraries='EVP_.*|OSSL_PARAM_.*|psl_.*|bloom_.*|__cpu_model|_GLOBAL_OFFSET_TABLE_'
nm -u "$all" | awk -v ok="^($memory|$text|$rest|$fortified|$libraries)\$" '
$2 !~ ok { print "calls:", $2; bad = 1 }
END { exit bad }'
