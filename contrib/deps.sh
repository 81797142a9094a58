#!/bin/sh
# deps.sh - installs what building, testing and the demo need on Debian 12: only what is missing.
# Uses sudo only when not root. Never removes a package: where another mail server is installed,
# Postfix is left out and the tests that need it skip. A Postfix installed here is left without
# configuration, so no mail server starts. Exim, which cannot be installed beside it, is only unpacked,
# into build/exim.
set -u
need="gcc make pkg-config libevent-dev libhiredis-dev libbloom-dev libssl-dev libsqlite3-dev libzstd-dev
libpsl-dev libconfuse-dev libjansson-dev libcmocka-dev clang libclang-rt-14-dev python3 python3-pytest
mandoc binutils"
extra="postfix miltertest libmilter-dev redis-tools"
exim="exim4-daemon-heavy libidn12 libmariadb3 libspf2-2 libldap-2.5-0 libpq5 libperl5.36 libnsl2 libgnutls-dane0
libunbound8 libdb5.3"

missing() {
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || echo "$p"
	done
}
root=""
[ "$(id -u)" = 0 ] || root=sudo
apt() { $root env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }

unpack_exim() {
	into=$(dirname "$0")/../build/exim
	[ ! -e "$into/usr/sbin/exim4" ] && [ ! -e /usr/sbin/exim4 ] || return 0
	debs=$(mktemp -d)
	(cd "$debs" && apt-get -qq download $(missing $exim) >/dev/null 2>&1)
	if ls "$debs"/exim4-*.deb >/dev/null 2>&1; then
		echo "deps: unpacking Exim into build/exim"
		mkdir -p "$into"
		for d in "$debs"/*.deb; do dpkg-deb -x "$d" "$into"; done
		chmod u-s "$into/usr/sbin/exim4"
	else
		echo "deps: without Exim (the tests that need it will skip)"
	fi
	rm -rf "$debs"
}

unpack_exim
want=$(missing $need)
more=$(missing $extra)
[ -n "$want$more" ] || exit 0
echo "deps: installing" $want $more
apt -qq update || echo "deps: the package lists could not be updated; trying with the old ones"
if [ -n "$want" ]; then
	apt -y -qq --no-install-recommends --no-remove install $want >/dev/null || {
		echo "deps: could not install: $want" >&2
		exit 1
	}
fi
for p in $more; do
	if [ "$p" = postfix ]; then
		echo "postfix postfix/main_mailer_type select No configuration" | $root debconf-set-selections
	fi
	apt -y -qq --no-install-recommends --no-remove install "$p" >/dev/null ||
		echo "deps: without $p (the tests that need it will skip)"
done
