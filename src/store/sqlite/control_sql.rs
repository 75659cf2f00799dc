//! The control tables, and the statements that change them.

use crate::store::ledger::Dialect;

/// What makes each version out of the one before it; the first makes it out of nothing.
///
/// Not STRICT: an application with an SQLite before 3.37 could then no longer read its own schema.
pub(super) const MIGRATIONS: &[&str] = &[TABLES, TABLES_2, TABLES_3, TABLES_4];

const TABLES: &str = "
CREATE TABLE reseal_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE reseal_plan (
    id TEXT NOT NULL PRIMARY KEY,
    table_name TEXT NOT NULL,
    column_names TEXT NOT NULL,
    from_keys TEXT NOT NULL,
    to_key TEXT NOT NULL,
    generation INTEGER NOT NULL,
    status TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE reseal_range (
    plan TEXT NOT NULL,
    id INTEGER NOT NULL,
    relation TEXT NOT NULL,
    after_key BLOB,
    upto_key BLOB,
    cursor_key BLOB,
    epoch INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    rows_scanned INTEGER NOT NULL DEFAULT 0,
    values_reencrypted INTEGER NOT NULL DEFAULT 0,
    rows_reencrypted INTEGER NOT NULL DEFAULT 0,
    values_already_current INTEGER NOT NULL DEFAULT 0,
    values_null INTEGER NOT NULL DEFAULT 0,
    lost_races INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (plan, id)
) WITHOUT ROWID;
CREATE TABLE reseal_quarantine (
    plan TEXT NOT NULL,
    relation TEXT NOT NULL,
    row_key BLOB NOT NULL,
    column_index INTEGER NOT NULL,
    reason TEXT NOT NULL,
    found_at TEXT NOT NULL,
    PRIMARY KEY (plan, relation, row_key, column_index)
) WITHOUT ROWID;
";

const TABLES_2: &str = "
CREATE TABLE IF NOT EXISTS reseal_late_value (
    plan TEXT NOT NULL,
    relation TEXT NOT NULL,
    row_key BLOB NOT NULL,
    column_index INTEGER NOT NULL,
    seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    PRIMARY KEY (plan, relation, row_key, column_index)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reseal_instance (
    instance TEXT NOT NULL,
    keyset TEXT NOT NULL,
    revision INTEGER NOT NULL,
    newest_revision INTEGER NOT NULL,
    seals_with INTEGER,
    compromised_opens INTEGER NOT NULL DEFAULT 0,
    version TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    lease_until TEXT NOT NULL,
    PRIMARY KEY (instance, keyset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reseal_rotation (
    id TEXT NOT NULL PRIMARY KEY,
    keyset TEXT NOT NULL,
    from_key INTEGER NOT NULL,
    to_key INTEGER NOT NULL,
    mode TEXT NOT NULL,
    policy TEXT,
    direction TEXT NOT NULL,
    phase TEXT NOT NULL,
    generation INTEGER NOT NULL,
    owner TEXT NOT NULL,
    keyring_generation INTEGER NOT NULL,
    follows TEXT,
    history TEXT NOT NULL,
    started_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    finished_at TEXT
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS reseal_rotation_open ON reseal_rotation (keyset) WHERE finished_at IS NULL;
";

const TABLES_3: &str = "
CREATE TABLE IF NOT EXISTS reseal_session_ending (
    rotation TEXT NOT NULL,
    session TEXT NOT NULL,
    mode TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    cut_off_us INTEGER NOT NULL,
    decided_by TEXT NOT NULL,
    matched INTEGER NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0,
    created_since INTEGER NOT NULL DEFAULT 0,
    index_entries INTEGER NOT NULL DEFAULT 0,
    remaining INTEGER NOT NULL DEFAULT 0,
    passes INTEGER NOT NULL DEFAULT 0,
    begun_at TEXT NOT NULL,
    ended_at TEXT,
    PRIMARY KEY (rotation, session, mode)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reseal_session_snapshot (
    rotation TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    part INTEGER NOT NULL,
    digests TEXT NOT NULL,
    PRIMARY KEY (snapshot, part)
);
";

const TABLES_4: &str = "
CREATE TABLE IF NOT EXISTS reseal_request (
    subject TEXT NOT NULL PRIMARY KEY,
    action TEXT,
    rows_per_second INTEGER,
    profile TEXT,
    said_by TEXT NOT NULL,
    said_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reseal_run (
    subject TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    waits_for TEXT NOT NULL,
    heard_at TEXT NOT NULL
) WITHOUT ROWID;
";

pub(super) const SET_VERSION: &str =
    "INSERT INTO reseal_meta VALUES ('version', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// What tells this database from another behind the same name. Once there, it stays.
pub(super) const SET_IDENTITY: &str =
    "INSERT INTO reseal_meta VALUES ('database', lower(hex(randomblob(16)))) ON CONFLICT (name) DO NOTHING";

/// Times are texts, whose order is that of the times.
pub(super) static DIALECT: Dialect = Dialect {
    instances: "reseal_instance",
    rotations: "reseal_rotation",
    plans: "reseal_plan",
    requests: "reseal_request",
    runs: "reseal_run",
    endings: "reseal_session_ending",
    snapshots: "reseal_session_snapshot",
    now: "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    parameter: |number| format!("?{number}"),
    later: |milliseconds| format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ({milliseconds} / 1000.0) || ' seconds')"),
    text: str::to_owned,
    elapsed_ms: |time| format!("CAST(round((julianday('now') - julianday({time})) * 86400000) AS INTEGER)"),
};

pub(super) const PLAN_COLUMNS: &str =
    "id, table_name, column_names, from_keys, to_key, generation, status, owner, created_at, updated_at";

pub(super) const RANGE_COLUMNS: &str = "id, relation, after_key, upto_key, cursor_key, epoch, done, rows_scanned, values_reencrypted, \
    rows_reencrypted, values_already_current, values_null, lost_races";

/// Of every plan of the table: rows that an earlier holder has read must not be written under the fence of another plan either.
pub(super) const RAISE_PLANS: &str = "UPDATE reseal_plan SET generation = generation + 1 WHERE table_name = ?1";

/// A plan that is known was raised already.
pub(super) const CLAIM_PLAN: &str = "
INSERT INTO reseal_plan (id, table_name, column_names, from_keys, to_key, owner, status, generation, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, updated_at = excluded.updated_at";

/// Finished ranges too: sweeps write under their fence.
pub(super) const RAISE_RANGES: &str = "
UPDATE reseal_range SET epoch = (SELECT generation FROM reseal_plan WHERE id = reseal_range.plan)
WHERE plan IN (SELECT id FROM reseal_plan WHERE table_name = ?1)";

pub(super) const ADD_RANGE: &str = "
INSERT INTO reseal_range (plan, id, relation, after_key, upto_key, epoch, updated_at)
SELECT ?1, coalesce(max(id) + 1, 0), ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM reseal_range WHERE plan = ?1";

pub(super) const SET_STATUS: &str =
    "UPDATE reseal_plan SET status = ?2, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE id = ?1";

pub(super) const RESTART_RANGES: &str = "UPDATE reseal_range SET cursor_key = NULL, done = 0 WHERE plan = ?1";

pub(super) const ADVANCE: &str = "
UPDATE reseal_range SET
    cursor_key = coalesce(?4, cursor_key),
    done = max(done, ?5),
    rows_scanned = rows_scanned + ?6,
    values_reencrypted = values_reencrypted + ?7,
    rows_reencrypted = rows_reencrypted + ?8,
    values_already_current = values_already_current + ?9,
    values_null = values_null + ?10,
    lost_races = lost_races + ?11,
    updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE plan = ?1 AND id = ?2 AND epoch = ?3";

/// Once for each value, however often it is found; an entry that says the same already is not written.
pub(super) const QUARANTINE: &str = "
INSERT INTO reseal_quarantine (plan, relation, row_key, column_index, reason, found_at)
VALUES (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
ON CONFLICT (plan, relation, row_key, column_index)
DO UPDATE SET reason = excluded.reason, found_at = excluded.found_at WHERE reason IS NOT excluded.reason";

/// A value that was seen before is only seen again.
pub(super) const LATE: &str = "
INSERT INTO reseal_late_value (plan, relation, row_key, column_index, seen_at, last_seen_at)
VALUES (?1, ?2, ?3, ?4, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
ON CONFLICT (plan, relation, row_key, column_index) DO UPDATE SET last_seen_at = excluded.last_seen_at";

pub(super) const SELECT_LATE: &str = "
SELECT relation, row_key, column_index, seen_at, last_seen_at FROM reseal_late_value WHERE plan = ?1
ORDER BY seen_at, relation, row_key, column_index LIMIT ?2";
