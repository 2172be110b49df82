"""Creates what the store for PostgreSQL needs in the database, within the deadline of a call.

It takes two round trips. The first finds out what is missing, and only then takes the lock that
lets one session after the other create: the server ends this wait before the deadline. The second
creates everything in one transaction. If it takes longer than the call may wait, the server still
completes it, and the next call finds that nothing is missing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Any

from .._clock import monotonic
from .postgresql_schema import schema
from .postgresql_waits import local, long_options, server_options

__all__ = ["ALONE", "create", "script"]

#: The advisory lock that lets one session after the other create what is missing.
_CREATING = 2003134834

ALONE = f"SELECT pg_advisory_xact_lock({_CREATING}::bigint << 20)"

#: Whether the table, its index, and the functions of this version are there. A function is
#: compared by its parameters, its text, and its settings.
_COMPLETE = """(
    to_regclass('"{table}"') IS NOT NULL AND to_regclass('{table}_expires_at') IS NOT NULL
    AND {count} = (
        SELECT count(*)
        FROM (VALUES {functions}) AS wanted(signature, hash)
        JOIN pg_proc ON oid = to_regprocedure(signature)
        WHERE hash = encode(sha256(convert_to(
            concat_ws(' ', prosrc, array_to_string(proconfig, ' ')), 'UTF8')), 'hex')))"""

#: Until the transaction ends, names without a schema are those of the schema that has the table.
#: Without it, a second table would be created in the first schema of the search path. If there is
#: no table, the search path stays as it is.
_IN_ITS_SCHEMA = """
SELECT set_config('search_path', quote_ident(nspname), true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('"{table}"');
"""

_FUNCTION = re.compile(r"FUNCTION (\w+)\(([^)]*)\)(.*?)\$weir\$(.*?)\$weir\$", re.DOTALL)
_SETTING = re.compile(r"SET (\w+) = (\w+)")


def create(cursor: Any, table: str, until: float | None, durable: bool) -> None:
    """Create what is missing. cursor: a ``ClientCursor``."""
    settings = long_options(durable, until is not None)
    if until is not None:
        left = server_options(max(0.0, until - monotonic()))
        settings["lock_timeout"] = left["lock_timeout"]
    complete = _complete(table)
    # The last SELECT sees what another session has created during the wait for the lock.
    cursor.execute(f"BEGIN; {local(settings)}{ALONE} WHERE NOT {complete}; SELECT {complete}")
    while cursor.nextset():
        pass
    (nothing_missing,) = cursor.fetchone()
    cursor.execute("COMMIT" if nothing_missing else f"{script(table)}COMMIT")


def script(table: str) -> str:
    """Creates or replaces everything, in a transaction: where the table is, if there is one."""
    return _IN_ITS_SCHEMA.format(table=table) + schema(table)


@functools.lru_cache(maxsize=8)
def _complete(table: str) -> str:
    functions = []
    for name, parameters, header, body in _FUNCTION.findall(schema(table)):
        words = [parameter.split() for parameter in parameters.split(",")]
        types = ", ".join(kind for name, kind, *_ in words if name != "OUT")
        text = " ".join([body, *(f"{one}={value}" for one, value in _SETTING.findall(header))])
        functions.append(f"('{name}({types})', '{hashlib.sha256(text.encode()).hexdigest()}')")
    return _COMPLETE.format(table=table, count=len(functions), functions=", ".join(functions))
