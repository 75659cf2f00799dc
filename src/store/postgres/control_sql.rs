//! The control tables in schema `reseal`, and how statements of the ledger are said here.

use crate::store::ledger::Dialect;

pub(super) const SELECT_PLAN: &str = "SELECT id, table_name, columns, from_keys, to_key, generation, status, owner,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
    FROM reseal.plan";
pub(super) const SELECT_RANGE: &str =
    "SELECT id, relation, lo, hi, cursor, epoch, done, rows_scanned, values_reencrypted, rows_reencrypted,
    values_already_current, values_null, lost_races FROM reseal.range";

/// "rsl0"
pub(super) const MIGRATION_LOCK: i32 = 0x7273_6c30;
/// "rsl3"
pub(super) const CLAIM_LOCK: i32 = 0x7273_6c33;

/// Of every plan of the table: rows that an earlier holder has read must not be written under the fence of another plan either.
pub(super) const RAISE_PLANS: &str = "UPDATE reseal.plan SET generation = generation + 1 WHERE table_name = $1";

/// A plan that is known was raised already.
pub(super) const CLAIM_PLAN: &str =
    "INSERT INTO reseal.plan (id, table_name, columns, from_keys, to_key, generation, status, owner)
    VALUES ($1, $2, $3, $4, $5, 1, 'running', $6)
    ON CONFLICT (id) DO UPDATE SET owner = EXCLUDED.owner, updated_at = clock_timestamp()";

/// Finished ranges too: sweeps write under their fence. A batch under way holds the row of its range, and is waited for.
pub(super) const RAISE_RANGES: &str =
    "UPDATE reseal.range AS r SET epoch = p.generation FROM reseal.plan AS p WHERE p.id = r.plan_id AND p.table_name = $1";

/// What makes each version out of the one before it; the first makes it out of nothing.
pub(super) const MIGRATIONS: &[&str] = &[TABLES, TABLES_2, TABLES_3, TABLES_4];

const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS reseal;
    COMMENT ON SCHEMA reseal IS 'Progress of key rotations by reseal. No key material. May be dropped when no rotation is under way.';
    CREATE TABLE IF NOT EXISTS reseal.meta (name text PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS reseal.plan (
        id text PRIMARY KEY, table_name text NOT NULL, columns text NOT NULL, from_keys text NOT NULL, to_key text NOT NULL,
        generation int8 NOT NULL, status text NOT NULL, owner text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(), updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE IF NOT EXISTS reseal.range (
        plan_id text NOT NULL REFERENCES reseal.plan ON DELETE CASCADE, id int8 NOT NULL, relation text NOT NULL,
        lo bytea, hi bytea, cursor bytea, epoch int8 NOT NULL, done bool NOT NULL DEFAULT false,
        rows_scanned int8 NOT NULL DEFAULT 0, values_reencrypted int8 NOT NULL DEFAULT 0, rows_reencrypted int8 NOT NULL DEFAULT 0,
        values_already_current int8 NOT NULL DEFAULT 0, values_null int8 NOT NULL DEFAULT 0, lost_races int8 NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (plan_id, id)) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS reseal.quarantine (
        plan_id text NOT NULL REFERENCES reseal.plan ON DELETE CASCADE, relation text NOT NULL, row_key bytea NOT NULL,
        value_column int4 NOT NULL, reason text NOT NULL, seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (plan_id, relation, row_key, value_column));
";

const TABLES_2: &str = "
    CREATE TABLE IF NOT EXISTS reseal.late_value (
        plan_id text NOT NULL REFERENCES reseal.plan ON DELETE CASCADE, relation text NOT NULL, row_key bytea NOT NULL,
        value_column int4 NOT NULL, seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (plan_id, relation, row_key, value_column));
    CREATE TABLE IF NOT EXISTS reseal.instance (
        instance text NOT NULL, keyset text NOT NULL, revision int8 NOT NULL, newest_revision int8 NOT NULL, seals_with int8,
        compromised_opens int8 NOT NULL DEFAULT 0, version text NOT NULL, first_seen_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL, lease_until timestamptz NOT NULL, PRIMARY KEY (instance, keyset)) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS reseal.rotation (
        id text PRIMARY KEY, keyset text NOT NULL, from_key int8 NOT NULL, to_key int8 NOT NULL, mode text NOT NULL, policy text,
        direction text NOT NULL, phase text NOT NULL, generation int8 NOT NULL, owner text NOT NULL, keyring_generation int8 NOT NULL,
        follows text, history text NOT NULL, started_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
        finished_at timestamptz);
    CREATE UNIQUE INDEX IF NOT EXISTS rotation_open ON reseal.rotation (keyset) WHERE finished_at IS NULL;
";

const TABLES_3: &str = "
    CREATE TABLE IF NOT EXISTS reseal.session_ending (
        rotation text NOT NULL, session text NOT NULL, mode text NOT NULL, snapshot text NOT NULL, cut_off_us int8 NOT NULL,
        decided_by text NOT NULL, matched int8 NOT NULL, ended int8 NOT NULL DEFAULT 0, created_since int8 NOT NULL DEFAULT 0,
        index_entries int8 NOT NULL DEFAULT 0, remaining int8 NOT NULL DEFAULT 0, passes int8 NOT NULL DEFAULT 0,
        begun_at timestamptz NOT NULL, ended_at timestamptz, PRIMARY KEY (rotation, session, mode));
    CREATE TABLE IF NOT EXISTS reseal.session_snapshot (
        rotation text NOT NULL, snapshot text NOT NULL, part int8 NOT NULL, digests text NOT NULL, PRIMARY KEY (snapshot, part));
";

const TABLES_4: &str = "
    CREATE TABLE IF NOT EXISTS reseal.request (
        subject text PRIMARY KEY, action text, rows_per_second int8, profile text, said_by text NOT NULL, said_at timestamptz NOT NULL);
    CREATE TABLE IF NOT EXISTS reseal.run (
        subject text PRIMARY KEY, owner text NOT NULL, waits_for text NOT NULL, heard_at timestamptz NOT NULL);
";

pub(super) static DIALECT: Dialect = Dialect {
    instances: "reseal.instance",
    rotations: "reseal.rotation",
    plans: "reseal.plan",
    requests: "reseal.request",
    runs: "reseal.run",
    endings: "reseal.session_ending",
    snapshots: "reseal.session_snapshot",
    now: "clock_timestamp()",
    parameter: |number| format!("${number}"),
    later: |milliseconds| format!("clock_timestamp() + {milliseconds}::int8 * interval '1 millisecond'"),
    text: |time| format!("to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
    elapsed_ms: |time| format!("(extract(epoch FROM clock_timestamp() - {time}) * 1000)::int8"),
};
