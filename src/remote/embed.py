"""embed.py SCRIPT HEADER: the script as a C array, and its SHA-1, by which Redis knows it."""

import hashlib
import sys
from pathlib import Path

source, header = map(Path, sys.argv[1:])
script = source.read_bytes()
rows = [
    ", ".join(str(byte if byte < 128 else byte - 256) for byte in script[i : i + 20])
    for i in range(0, len(script), 20)
]
header.write_text(
    f"/* Made of {source.name} by embed.py. */\n"
    f'#define WEIR_DECIDE_SHA1 "{hashlib.sha1(script, usedforsecurity=False).hexdigest()}"\n\n'
    "static const char weir_decide_lua[] = {\n"
    + "".join(f"    {row},\n" for row in rows)
    + "    0,\n};\n"
)
