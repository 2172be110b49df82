"""What the store for PostgreSQL has in the database.

    name        of a counter: weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute
    value       its packed state (include/weir/state.h); empty: the same as no row
    expires_at  when the state expires

The locks are row locks. Every statement takes them in the order of the names, so no two statements
wait for each other. A row that does not exist is locked by inserting it. Every statement finds its
rows by an index. Each insert of a row removes a few expired rows.

The name of the table is in quotes everywhere, since it may be a reserved word.

Most updates change no column of an index (``expires_at`` is rounded, and only grows), so PostgreSQL
writes one row version into the same page and no index entry.
"""

from __future__ import annotations

from textwrap import indent
from typing import Any

#: Rows that one decision removes at most, and how long expired rows are kept.
_BATCH, _GRACE = 4, "1 minute"

#: Seconds by which the time of a decision may differ from the server's; less than the 100 ms by
#: which calls of a counter may arrive out of order.
TOLERANCE = 0.05

_TABLE = """
CREATE TABLE IF NOT EXISTS "{table}" (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS {table}_expires_at ON "{table}" (expires_at);
"""

#: Locks the counters until the transaction ends. Returns the time, and their values.
_LOCK = """
CREATE OR REPLACE FUNCTION {table}_lock(names text[], OUT theirs float8, OUT there bytea[])
LANGUAGE plpgsql AS $weir$
DECLARE
    found_value bytea;
BEGIN
    FOR i IN 1 .. cardinality(names) LOOP
        LOOP
            SELECT value INTO found_value FROM "{table}" WHERE name = names[i] FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO "{table}" VALUES (names[i], '', clock_timestamp()) ON CONFLICT DO NOTHING;
        END LOOP;
        there[i] := found_value;
    END LOOP;
    theirs := date_part('epoch', clock_timestamp());
END
$weir$;
"""

#: Writes counters that are locked.
_WRITE = """
CREATE OR REPLACE FUNCTION {table}_write(names text[], next_values bytea[], expires float8[])
RETURNS void LANGUAGE plpgsql AS $weir$
BEGIN
    FOR i IN 1 .. cardinality(names) LOOP
        UPDATE "{table}"
        SET value = next_values[i], expires_at = greatest(expires_at, to_timestamp(expires[i]))
        WHERE name = names[i];
    END LOOP;
END
$weir$;
"""

#: Changes one counter if it is as expected. Sets FOUND, and ``fresh`` for a new row.
_STEP = """
IF {following} IS NULL THEN
    IF {was} IS NULL THEN
        PERFORM 1 WHERE NOT EXISTS (SELECT FROM "{table}" WHERE name = {name});
    ELSIF only_read THEN
        PERFORM 1 FROM "{table}" WHERE name = {name} AND value = {was};
    ELSE
        PERFORM 1 FROM "{table}" WHERE name = {name} AND value = {was} FOR SHARE;
    END IF;
ELSIF {was} IS NULL THEN
    INSERT INTO "{table}" VALUES ({name}, {following}, to_timestamp({expires}))
    ON CONFLICT DO NOTHING;
    fresh := true;
ELSE
    UPDATE "{table}"
    SET value = {following}, expires_at = greatest(expires_at, to_timestamp({expires}))
    WHERE name = {name} AND value = {was};
END IF;
"""

_UNDO = """
IF {following} IS NULL THEN
    NULL;
ELSIF {was} IS NULL THEN
    DELETE FROM "{table}" WHERE name = {name};
ELSE
    UPDATE "{table}" SET value = {was} WHERE name = {name};
END IF;
"""

_CLEAN = """
IF fresh THEN
    DELETE FROM "{table}" WHERE name = ANY (ARRAY(
        SELECT name FROM "{table}" WHERE expires_at < now() - interval '{grace}'
        ORDER BY expires_at LIMIT {batch} FOR UPDATE SKIP LOCKED));
END IF;
"""

#: The wait for a lock may have been so long that the time is no longer right.
_IN_TIME = """
AND (now_expected IS NULL OR date_part('epoch', clock_timestamp()) - server_time <= {tolerance})
"""

#: Writes all counters if all are as expected and the caller's time is right; else none.
#:
#: was: NULL: there is no row. following: NULL: the counter is not to be changed.
#: Returns the time, as eight bytes; if nothing was written, the length and the value of each
#: counter follow. A length of -1: there is no row.
_SWAP = """
CREATE OR REPLACE FUNCTION {table}_swap_array(
    names text[], was bytea[], following bytea[], expires float8[], now_expected float8)
RETURNS bytea LANGUAGE plpgsql AS $weir$
DECLARE
    server_time float8 := date_part('epoch', clock_timestamp());
    counters int := cardinality(names);
    good int := 0;
    only_read boolean := cardinality(array_remove(following, NULL)) = 0;
    fresh boolean := false;
    states bytea := '';
    found_value bytea;
BEGIN
    IF now_expected IS NULL OR abs(server_time - now_expected) <= {tolerance} THEN
        FOR i IN 1 .. counters LOOP
            {step}
            EXIT WHEN NOT FOUND;
            good := i;
        END LOOP;
        IF good = counters
                {in_time} THEN
            {clean}
            RETURN float8send(server_time);
        END IF;
        -- Undo what was written. No other transaction has seen it: the rows are locked.
        FOR i IN 1 .. good LOOP
            {undo}
        END LOOP;
    END IF;
    FOR i IN 1 .. counters LOOP
        SELECT value INTO found_value FROM "{table}" WHERE name = names[i];
        states := states || int4send(coalesce(length(found_value), -1))
            || coalesce(found_value, '');
    END LOOP;
    RETURN float8send(date_part('epoch', clock_timestamp())) || states;
END
$weir$;
"""

#: The same for one counter, without arrays: reading them takes as long as writing a counter.
_SWAP_ONE = """
CREATE OR REPLACE FUNCTION {table}_swap_one(
    now_expected float8, name1 text, was1 bytea, following1 bytea, expires1 float8)
RETURNS bytea LANGUAGE plpgsql AS $weir$
DECLARE
    server_time float8 := date_part('epoch', clock_timestamp());
    only_read boolean := true;
    fresh boolean := false;
BEGIN
    IF now_expected IS NULL OR abs(server_time - now_expected) <= {tolerance} THEN
        {step}
        IF FOUND
                {in_time} THEN
            {clean}
            RETURN float8send(server_time);
        ELSIF FOUND THEN
            {undo}
        END IF;
    END IF;
    RETURN {table}_swap_array(ARRAY[name1], NULL, NULL, NULL, 'NaN'); -- invalid time: only read
END
$weir$;
"""

#: The same for two to ``FEW`` counters that have rows and are all to be changed, in one statement.
#:
#: An index scan for ``= ANY`` visits the rows in the order of their names, and so locks them in
#: this order, too. Other kinds of scans are off. After a conflict, xmin shows which rows were
#: written.
_SWAP_FEW = """
CREATE OR REPLACE FUNCTION {table}_swap_few(
    now_expected float8, counters int,
    {parameters})
RETURNS bytea LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $weir$
DECLARE
    server_time float8 := date_part('epoch', clock_timestamp());
    good int;
BEGIN
    IF abs(server_time - now_expected) <= {tolerance} OR now_expected IS NULL THEN
        UPDATE "{table}" SET
            value = {following},
            expires_at = greatest(expires_at, to_timestamp({expires}))
        WHERE name = ANY (ARRAY[{names}])
            AND value = {was};
        GET DIAGNOSTICS good = ROW_COUNT;
        IF good = counters
                {in_time} THEN
            RETURN float8send(server_time);
        ELSIF good > 0 THEN
            UPDATE "{table}" SET value = {was}
            WHERE name = ANY (ARRAY[{names}]) AND xmin = pg_current_xact_id()::xid;
        END IF;
    END IF;
    RETURN {table}_swap_array(
        array_remove(ARRAY[{names}], NULL), NULL, NULL, NULL, 'NaN'); -- invalid time: only read
END
$weir$;
"""

FEW = 4

#: Removes at most 1000 counters from one name to another, in the order of their names.
RESET = """
DELETE FROM "{table}" WHERE name = ANY (ARRAY(
    SELECT name FROM "{table}" WHERE name >= %s AND name < %s{condition}
    ORDER BY name LIMIT 1000 FOR UPDATE))
RETURNING name
"""

#: Conditions: the counter belongs to the application whose prefix is the second part of the key;
#: or to none of the given applications.
OF_ONE = " AND split_part(substr(name, %s), '/', 2) = %s"
OF_NONE = " AND split_part(substr(name, %s), '/', 2) <> ALL (%s::text[])"

#: Notes an application's prefix, and reads the notes.
NOTE = """
INSERT INTO "{table}" VALUES (%s, '', now() + interval '{seconds} seconds')
ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at
"""
NOTES = 'SELECT name FROM "{table}" WHERE name >= %s AND name < %s AND expires_at > now()'

#: Fails at once if another session has a lock on the table that ours have to wait for.
FREE = 'LOCK TABLE "{table}" IN ROW EXCLUSIVE MODE NOWAIT'

#: What the client runs.
SWAP_ARRAY = (
    "SELECT {table}_swap_array($1::text[], $2::bytea[], $3::bytea[], $4::float8[], $5::float8)"
)
SWAP_ONE = "SELECT {table}_swap_one($1, $2, $3, $4, $5)"
SWAP_FEW = "SELECT {table}_swap_few($1, {counters}, {parameters})"
LOCK = "SELECT theirs, there FROM {table}_lock(%s::text[])"
WRITE = "SELECT {table}_write(%s::text[], %s::bytea[], %s::float8[])"


def swap_few(table: str, counters: int) -> str:
    """The statement for this many counters.

    >>> swap_few("weir_states", 2)
    'SELECT weir_states_swap_few($1, 2, $2, $3, $4, $5, $6, $7, $8, $9)'
    """
    parameters = ", ".join(f"${n}" for n in range(2, 2 + 4 * counters))
    return SWAP_FEW.format(table=table, counters=counters, parameters=parameters)


def schema(table: str) -> str:
    """Everything that the store needs, as SQL that may be run again."""
    words = {"table": table, "batch": _BATCH, "grace": _GRACE, "tolerance": TOLERANCE}
    parts = [part.format(**words) for part in (_TABLE, _LOCK, _WRITE)]
    item = {word: f"{word}[i]" for word in ("was", "following", "expires")} | {"name": "names[i]"}
    parts.append(_with_pieces(_SWAP, words, item, "            "))
    item = {word: f"{word}1" for word in ("name", "was", "following", "expires")}
    parts.append(_with_pieces(_SWAP_ONE, words, item, "        "))
    parts.append(_swap_few(words))
    return "".join(parts).lstrip()


def _with_pieces(text: str, words: dict[str, Any], item: dict[str, str], margin: str) -> str:
    def piece(part: str, margin: str) -> str:
        return indent(part.strip().format(**words, **item), margin).lstrip()

    deeper = margin if "LOOP" in text else f"{margin}    "
    return text.format(
        **words,
        step=piece(_STEP, margin),
        undo=piece(_UNDO, deeper),
        clean=piece(_CLEAN, "            "),
        in_time=piece(_IN_TIME, ""),
    )


def _swap_few(words: dict[str, Any]) -> str:
    types = {"name": "text", "was": "bytea", "following": "bytea", "expires": "float8"}
    numbers = range(1, FEW + 1)
    return _SWAP_FEW.format(
        **words,
        parameters=",\n    ".join(
            ", ".join(
                f"{word}{n} {kind}{' DEFAULT NULL' if n > 2 else ''}"
                for word, kind in types.items()
            )
            for n in numbers
        ),
        names=", ".join(f"name{n}" for n in numbers),
        in_time=_IN_TIME.strip().format(**words),
        **{
            word: " ".join(["CASE name", *(f"WHEN name{n} THEN {word}{n}" for n in numbers), "END"])
            for word in types
            if word != "name"
        },
    )
