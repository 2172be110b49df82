#!/bin/sh
# exports.sh LIBRARY LIST: fails unless LIBRARY exports exactly the symbols of LIST, one a line.
set -eu
found=$(nm --dynamic --defined-only --format=posix "$1" | cut -d' ' -f1 | LC_ALL=C sort)
listed=$(LC_ALL=C sort "$2")
if [ "$found" != "$listed" ]; then
    echo "exported, but not in $2:"
    printf '%s\n' "$found" | grep -vxF "$listed" || true
    echo "in $2, but not exported:"
    printf '%s\n' "$listed" | grep -vxF "$found" || true
    exit 1
fi
