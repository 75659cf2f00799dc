//! What an UPDATE of the encrypted columns would set in motion, and what stands in its way. Nothing here writes.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::store_error;
use super::guard::refused_keys;
use super::survey::Resolved;
use crate::store::StoreError;
use crate::store::survey::{Column, Observation};

/// Triggers, rules, indexes, constraints, publications: what an UPDATE of the encrypted columns would set in motion. Rows are updated in
/// the partition where they are, which may have some of its own; what all have from the table is told once.
pub(super) async fn hazards(
    connection: &mut PgConnection,
    table: &Resolved,
    values: &[Column],
    observations: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
    let rows = sqlx::query(HAZARDS)
        .bind(i64::from(table.oid))
        .bind(names)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    for row in rows {
        let what: String = row.try_get(0).map_err(store_error)?;
        let name: String = row.try_get(1).map_err(store_error)?;
        observations.push(match what.as_str() {
            "trigger" => Observation::UpdateTrigger(name),
            "guard" => {
                let (plan, keys) = name.split_once(' ').unwrap_or((&name, ""));
                Observation::Guard {
                    plan: plan.to_owned(),
                    refuses: refused_keys(keys),
                }
            }
            "rule" => Observation::Rule(name),
            "index" => Observation::IndexOnValue {
                index: name,
                column: row.try_get(2).map_err(store_error)?,
                unique: row.try_get(3).map_err(store_error)?,
            },
            "foreign key" => Observation::ForeignKeyOnValue(name),
            "check" => Observation::CheckOnValue(name),
            _ => Observation::ChangeCapture(format!("publication {name}")),
        });
    }
    let foreign_leaves = sqlx::query(FOREIGN_LEAVES)
        .bind(i64::from(table.oid))
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    for row in foreign_leaves {
        observations.push(Observation::ForeignLeaf(row.try_get(0).map_err(store_error)?));
    }
    Ok(())
}

pub(super) async fn server_state(
    connection: &mut PgConnection,
    table: &Resolved,
    observations: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT 'readonly', CASE WHEN pg_is_in_recovery() THEN 'a standby in recovery'
                                 WHEN current_setting('transaction_read_only')::bool THEN 'default_transaction_read_only is on' END
         UNION ALL SELECT 'rls', CASE WHEN row_security_active($1::int8::oid) THEN 'active' END
         UNION ALL SELECT 'privilege', CASE WHEN NOT has_table_privilege($1::int8::oid, 'SELECT') THEN 'SELECT on the table' END
         UNION ALL (SELECT 'privilege', 'SELECT on the partition ' || relid::regclass FROM pg_partition_tree($1::int8::oid::regclass)
             WHERE isleaf AND level > 0 AND NOT has_table_privilege(relid, 'SELECT') ORDER BY relid LIMIT 1)
         UNION ALL SELECT 'replicas', CASE WHEN n > 0 THEN n::text END FROM (SELECT count(*) AS n FROM pg_stat_replication) r",
    )
    .bind(i64::from(table.oid))
    .fetch_all(&mut *connection)
    .await
    .map_err(store_error)?;
    for row in rows {
        let what: String = row.try_get(0).map_err(store_error)?;
        let Some(text) = row.try_get::<Option<String>, _>(1).map_err(store_error)? else {
            continue;
        };
        observations.push(match what.as_str() {
            "readonly" => Observation::ReadOnlyServer(text),
            "rls" => Observation::RowSecurity,
            "privilege" => Observation::MissingPrivilege(text),
            _ => Observation::Replicas(text.parse().unwrap_or(0)),
        });
    }
    slots(connection, observations).await
}

/// Replication slots: whoever reads through one gets every rewritten row, and until it has, the server keeps the log of it.
async fn slots(connection: &mut PgConnection, observations: &mut Vec<Observation>) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "WITH now AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS lsn)
         SELECT slot_name::text, slot_type = 'logical', active,
                coalesce(pg_wal_lsn_diff(now.lsn, CASE slot_type WHEN 'logical' THEN confirmed_flush_lsn ELSE restart_lsn END), 0)::int8,
                coalesce(pg_wal_lsn_diff(now.lsn, restart_lsn), 0)::int8
           FROM pg_replication_slots, now
          WHERE NOT temporary AND (slot_type = 'physical' OR database = current_database()) ORDER BY slot_name",
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    for row in rows {
        let bytes = |at: usize| {
            row.try_get::<i64, _>(at)
                .map(|bytes| bytes.max(0).unsigned_abs())
                .map_err(store_error)
        };
        observations.push(Observation::Slot {
            name: row.try_get(0).map_err(store_error)?,
            logical: row.try_get(1).map_err(store_error)?,
            active: row.try_get(2).map_err(store_error)?,
            behind_bytes: bytes(3)?,
            kept_bytes: bytes(4)?,
        });
    }
    Ok(())
}

/// What, its name, and of an index the column and whether it is unique. `$1` is the table, `$2` the names of its encrypted columns,
/// whose numbers differ between partitions. Indexes and constraints that a partition has from above are told where they were made.
const HAZARDS: &str = "WITH RECURSIVE tree AS (
             SELECT $1::int8::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid),
         place AS (
             SELECT tree.oid, a.attnum, a.attname::text FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid
              WHERE a.attname = ANY ($2::text[]) AND NOT a.attisdropped),
         rel AS (SELECT oid, array_agg(attnum) AS attnums FROM place GROUP BY oid)
         SELECT 'trigger', t.tgname::text, '', false FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid
          WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 16) <> 0
            AND (t.tgattr = '' OR t.tgattr::int2[] && rel.attnums)
            AND NOT (starts_with(t.tgname::text, 'zz_reseal_guard_') AND t.tgfoid IN (SELECT oid FROM pg_proc
                      WHERE pronamespace = to_regnamespace('reseal')))
         UNION
         SELECT 'guard', substring(t.tgname FROM '^zz_reseal_guard_([0-9a-f]+)_') || ' '
                || string_agg(split_part(encode(t.tgargs, 'escape'), '\\000', 1), ','), '', false FROM pg_trigger t
          WHERE t.tgrelid = $1::int8::oid AND t.tgname ~ '^zz_reseal_guard_[0-9a-f]+_[0-9]+_update$' AND t.tgenabled <> 'D'
            AND t.tgfoid IN (SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace('reseal'))
          GROUP BY substring(t.tgname FROM '^zz_reseal_guard_([0-9a-f]+)_')
         UNION
         SELECT 'rule', r.rulename::text, '', false FROM tree JOIN pg_rewrite r ON r.ev_class = tree.oid
          WHERE r.ev_type = '2' AND r.ev_enabled <> 'D'
         UNION
         SELECT 'index', c.relname::text, place.attname, i.indisunique FROM place
           JOIN pg_index i ON i.indrelid = place.oid JOIN pg_class c ON c.oid = i.indexrelid
          WHERE (place.attnum = ANY (i.indkey::int2[])
                 OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = place.oid AND d.refobjsubid = place.attnum))
            AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
         UNION
         SELECT CASE contype WHEN 'f' THEN 'foreign key' ELSE 'check' END, conname::text, '', false FROM rel JOIN pg_constraint k
             ON (k.conrelid = rel.oid AND k.contype IN ('f', 'c') AND k.conkey && rel.attnums
                 AND NOT (k.contype = 'c' AND k.conname ~ '^reseal_guard_[0-9a-f]+_[0-9]+$'))
             OR (k.confrelid = rel.oid AND k.contype = 'f' AND k.confkey && rel.attnums)
          WHERE k.conparentid = 0
         UNION
         SELECT 'publication', p.pubname::text, '', false FROM tree JOIN pg_class c ON c.oid = tree.oid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_publication_tables p ON p.schemaname = n.nspname AND p.tablename = c.relname
         ORDER BY 1, 2, 3";

const FOREIGN_LEAVES: &str = "WITH RECURSIVE tree AS (
         SELECT $1::int8::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
     SELECT c.oid::regclass::text FROM tree JOIN pg_class c ON c.oid = tree.oid
      WHERE c.relkind NOT IN ('r', 'p') AND c.oid <> $1::int8::oid";
