#!/bin/sh
# exports.sh LIBRARY LIST: fails unless LIBRARY exports exactly the symbols of LIST, one a line. The word after a name is
# the version in which it appears.
set -eu
found=$(nm --dynamic --defined-only --format=posix "$1" | grep -v ' A ' | cut -d' ' -f1 | cut -d@ -f1 | LC_ALL=C sort)
listed=$(cut -d' ' -f1 "$2" | LC_ALL=C sort)
if [ "$found" != "$listed" ]; then
    echo "exported, but not in $2:"
    printf '%s\n' "$found" | grep -vxF "$listed" || true
    echo "in $2, but not exported:"
    printf '%s\n' "$listed" | grep -vxF "$found" || true
    exit 1
fi
