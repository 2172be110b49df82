"""What the store for PostgreSQL has in the database.

    name        of a counter: weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute
    value       its packed state (include/weir/state.h); empty: as if there were no row
    expires_at  from then on it says nothing

The locks are those of the rows. Every statement takes them in the order of the names, so no two
wait for each other. A row that does not exist is locked by inserting it. Every statement finds its
rows by an index. Expired rows are removed by those who insert rows, a few at a time.

Most updates change no column of an index (``expires_at`` is rounded, and only grows), so PostgreSQL
writes one row version into the same page and no index entry.
"""

from __future__ import annotations

#: Rows that one decision removes at most, and for how long what has expired is left alone.
_BATCH, _GRACE = 4, "1 minute"

#: Seconds by which the time of a decision may differ from the server's; less than what counters
#: make of calls that arrive out of order (100 ms).
TOLERANCE = 0.05

#: The advisory lock that lets one client after the other create what is missing.
_CREATING = 2003134834

_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS {table}_expires_at ON {table} (expires_at);
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
            SELECT value INTO found_value FROM {table} WHERE name = names[i] FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO {table} VALUES (names[i], '', clock_timestamp()) ON CONFLICT DO NOTHING;
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
        UPDATE {table}
        SET value = next_values[i], expires_at = greatest(expires_at, to_timestamp(expires[i]))
        WHERE name = names[i];
    END LOOP;
END
$weir$;
"""

#: Writes all counters if all are as expected and the caller's time is right; else none.
#:
#: was: NULL: there is no row. next_values: NULL: the counter is not to be changed.
#: Returns the time, as eight bytes; if nothing was written, the values follow.
_SWAP = """
CREATE OR REPLACE FUNCTION {table}_swap(
    names text[], was bytea[], next_values bytea[], expires float8[], now_expected float8)
RETURNS bytea[] LANGUAGE plpgsql AS $weir$
DECLARE
    began timestamptz := clock_timestamp();
    theirs float8 := date_part('epoch', began);
    counters int := cardinality(names);
    good int := 0;
    fresh boolean := false;
    there bytea[];
    found_value bytea;
BEGIN
    IF now_expected IS NULL OR abs(theirs - now_expected) <= {tolerance} THEN
        FOR i IN 1 .. counters LOOP
            IF next_values[i] IS NULL THEN
                IF was[i] IS NULL THEN
                    PERFORM 1 WHERE NOT EXISTS (SELECT FROM {table} WHERE name = names[i]);
                ELSIF cardinality(array_remove(next_values, NULL)) = 0 THEN
                    PERFORM 1 FROM {table} WHERE name = names[i] AND value = was[i];
                ELSE
                    PERFORM 1 FROM {table} WHERE name = names[i] AND value = was[i] FOR SHARE;
                END IF;
            ELSIF was[i] IS NULL THEN
                INSERT INTO {table} VALUES (names[i], next_values[i], to_timestamp(expires[i]))
                ON CONFLICT DO NOTHING;
                fresh := true;
            ELSE
                UPDATE {table}
                SET value = next_values[i],
                    expires_at = greatest(expires_at, to_timestamp(expires[i]))
                WHERE name = names[i] AND value = was[i];
            END IF;
            EXIT WHEN NOT FOUND;
            good := i;
        END LOOP;
        -- Others may have made us wait for so long that the time is no longer right.
        IF good = counters AND (now_expected IS NULL
                OR date_part('epoch', clock_timestamp()) - theirs <= {tolerance}) THEN
            IF fresh THEN
                DELETE FROM {table} WHERE name = ANY (ARRAY(
                    SELECT name FROM {table} WHERE expires_at < now() - interval '{grace}'
                    ORDER BY expires_at LIMIT {batch} FOR UPDATE SKIP LOCKED));
            END IF;
            RETURN ARRAY[float8send(theirs)];
        END IF;
        -- Undo what was written. Nobody has seen it: the rows are locked.
        FOR i IN 1 .. good LOOP
            IF next_values[i] IS NULL THEN
                CONTINUE;
            ELSIF was[i] IS NULL THEN
                DELETE FROM {table} WHERE name = names[i];
            ELSE
                UPDATE {table} SET value = was[i] WHERE name = names[i];
            END IF;
        END LOOP;
    END IF;
    FOR i IN 1 .. counters LOOP
        SELECT value INTO found_value FROM {table} WHERE name = names[i];
        there[i] := found_value;
    END LOOP;
    RETURN array_prepend(float8send(date_part('epoch', clock_timestamp())), there);
END
$weir$;
"""

#: Removes the counters from one name to another, so many at once, in the order of their names.
RESET = """
DELETE FROM {table} WHERE name = ANY (ARRAY(
    SELECT name FROM {table} WHERE name >= %s AND name < %s ORDER BY name LIMIT 1000 FOR UPDATE))
"""

ALONE = f"SELECT pg_advisory_xact_lock({_CREATING}::bigint << 20)"

#: Fails at once if another session has a lock on the table that ours have to wait for.
FREE = "LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT"

#: What the client runs.
SWAP = "SELECT {table}_swap($1::text[], $2::bytea[], $3::bytea[], $4::float8[], $5::float8)"
LOCK = "SELECT theirs, there FROM {table}_lock(%s::text[])"
WRITE = "SELECT {table}_write(%s::text[], %s::bytea[], %s::float8[])"


def schema(table: str) -> str:
    """Everything that the store needs, as SQL that may be run again."""
    parts = (_TABLE, _LOCK, _WRITE, _SWAP)
    words = {"table": table, "batch": _BATCH, "grace": _GRACE, "tolerance": TOLERANCE}
    return "".join(part.format(**words) for part in parts).lstrip()
