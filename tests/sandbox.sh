#!/bin/sh
# sandbox.sh - systemd's own score of a unit file: 0 is shut, 10 is open; at most 2.0.   sandbox.sh UNIT
command -v systemd-analyze >/dev/null || { echo "systemd-analyze is not installed"; exit 77; }
systemd-analyze security --offline=true --threshold=20 "$1" >/dev/null 2>&1 && exit 0
systemd-analyze security --offline=true "$1" | tail -1
exit 1
