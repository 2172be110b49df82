"""What the store for PostgreSQL has in the database.

    name        of a counter: weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute
    value       its packed state (include/weir/state.h)
    expires_at  from then on it says nothing

Counters are locked by advisory locks, numbers made of their names, in ascending order: so those are
locked, too, that are not there yet, and nobody waits in a circle. Every statement finds its rows by
an index. What has expired is removed by those who write, a few rows at a time.
"""

from __future__ import annotations

#: Bytes "weir" as a number: sets our advisory locks apart from those of others.
_CLASS = 2003134834

#: Rows that one decision removes at most, and for how long what has expired is left alone.
_BATCH, _GRACE = 4, "1 minute"

_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS {table}_expires_at ON {table} (expires_at);
"""

#: Locks the counters until the transaction's end; the time, and what is there.
_LOCK = """
CREATE OR REPLACE FUNCTION {table}_lock(
    names text[], locks int[], OUT theirs float8, OUT there bytea[])
LANGUAGE plpgsql AS $weir$
DECLARE
    value_now bytea;
BEGIN
    FOR i IN 1 .. array_length(locks, 1) LOOP
        PERFORM pg_advisory_xact_lock({lock_class}, locks[i]);
    END LOOP;
    FOR i IN 1 .. array_length(names, 1) LOOP
        SELECT value INTO value_now FROM {table} WHERE name = names[i];
        there[i] := value_now;
    END LOOP;
    theirs := extract(epoch FROM clock_timestamp());
END
$weir$;
"""

#: Writes what has changed; a value of NULL removes. Needs the locks, and a variable `fresh`.
_WRITES = """
    FOR i IN 1 .. array_length(names, 1) LOOP
        CONTINUE WHEN NOT changed[i];
        IF next_values[i] IS NULL THEN
            DELETE FROM {table} WHERE name = names[i];
            CONTINUE;
        END IF;
        UPDATE {table} SET value = next_values[i], expires_at = to_timestamp(expires[i])
        WHERE name = names[i];
        IF NOT FOUND THEN
            INSERT INTO {table} VALUES (names[i], next_values[i], to_timestamp(expires[i]))
            ON CONFLICT (name) DO UPDATE
            SET value = excluded.value, expires_at = excluded.expires_at;
            fresh := true;
        END IF;
    END LOOP;
    IF fresh THEN
        DELETE FROM {table} WHERE name = ANY (ARRAY(
            SELECT name FROM {table} WHERE expires_at < now() - interval '{grace}'
            ORDER BY expires_at LIMIT {batch} FOR UPDATE SKIP LOCKED));
    END IF;
"""

_WRITE = f"""
CREATE OR REPLACE FUNCTION {{table}}_write(
    names text[], next_values bytea[], changed boolean[], expires float8[])
RETURNS void LANGUAGE plpgsql AS $weir$
DECLARE
    fresh boolean := false;
BEGIN{_WRITES}END
$weir$;
"""

#: Writes if everything is as expected and the time is right; else tells what there is.
_SWAP = f"""
CREATE OR REPLACE FUNCTION {{table}}_swap(
    names text[], locks int[], was bytea[], next_values bytea[], changed boolean[],
    expires float8[], now_expected float8, tolerance float8, decided boolean,
    OUT done boolean, OUT theirs float8, OUT there bytea[])
LANGUAGE plpgsql AS $weir$
DECLARE
    value_now bytea;
    fresh boolean := false;
BEGIN
    FOR i IN 1 .. array_length(locks, 1) LOOP
        PERFORM pg_advisory_xact_lock({{lock_class}}, locks[i]);
    END LOOP;
    theirs := extract(epoch FROM clock_timestamp());
    done := decided AND (now_expected IS NULL OR abs(theirs - now_expected) <= tolerance);
    FOR i IN 1 .. array_length(names, 1) LOOP
        SELECT value INTO value_now FROM {{table}} WHERE name = names[i];
        there[i] := value_now;
        done := done AND value_now IS NOT DISTINCT FROM was[i];
    END LOOP;
    IF NOT done THEN
        RETURN;
    END IF;
    there := NULL;{_WRITES}END
$weir$;
"""

#: Lets one after the other create what is missing; no counter has this lock.
ALONE = f"SELECT pg_advisory_xact_lock({_CLASS}::bigint << 20)"

#: What the client runs.
SWAP = (
    "SELECT done, theirs, there FROM {table}_swap($1::text[], $2::int[], $3::bytea[], $4::bytea[],"
    " $5::boolean[], $6::float8[], $7::float8, $8::float8, $9::boolean)"
)
LOCK = "SELECT theirs, there FROM {table}_lock(%s::text[], %s::int[])"
WRITE = "SELECT {table}_write(%s::text[], %s::bytea[], %s::boolean[], %s::float8[])"


def schema(table: str) -> str:
    """Everything that the store needs, as SQL that may be run again."""
    parts = (_TABLE, _LOCK, _WRITE, _SWAP)
    words = {"table": table, "lock_class": _CLASS, "batch": _BATCH, "grace": _GRACE}
    return "".join(part.format(**words) for part in parts).lstrip()
