//! What an UPDATE of the encrypted columns would set in motion, and what stands in its way. Nothing here writes.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::store_error;
use super::guard::refused_keys;
use super::survey::{Described, Resolved};
use crate::store::StoreError;
use crate::store::survey::{Column, Observation};

/// Triggers, rules, indexes, constraints, publications: what an UPDATE of the encrypted columns would set in motion.
pub(super) async fn hazards(
    connection: &mut PgConnection,
    table: &Resolved,
    columns: &[Described],
    values: &[Column],
    observations: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    let attnums: Vec<i16> = columns
        .iter()
        .filter(|described| values.iter().any(|value| value.name == described.column.name))
        .map(|described| described.attnum)
        .collect();
    let name_of = |attnum: i16| {
        columns
            .iter()
            .find(|described| described.attnum == attnum)
            .map_or_else(String::new, |described| described.column.name.clone())
    };
    let rows = sqlx::query(
        "SELECT 'trigger', t.tgname::text, 0::int2, false FROM pg_trigger t
          WHERE t.tgrelid = $1::int8::oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 16) <> 0
            AND (t.tgattr = '' OR t.tgattr::int2[] && $2::int2[])
            AND NOT (starts_with(t.tgname::text, 'zz_reseal_guard_') AND t.tgfoid IN (SELECT oid FROM pg_proc
                      WHERE pronamespace = to_regnamespace('reseal')))
         UNION ALL
         SELECT 'guard', substring(t.tgname FROM '^zz_reseal_guard_([0-9a-f]+)_') || ' '
                || string_agg(split_part(encode(t.tgargs, 'escape'), '\\000', 1), ','), 0::int2, false FROM pg_trigger t
          WHERE t.tgrelid = $1::int8::oid AND t.tgname ~ '^zz_reseal_guard_[0-9a-f]+_[0-9]+_update$' AND t.tgenabled <> 'D'
            AND t.tgfoid IN (SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace('reseal'))
          GROUP BY substring(t.tgname FROM '^zz_reseal_guard_([0-9a-f]+)_')
         UNION ALL
         SELECT 'rule', r.rulename::text, 0::int2, false FROM pg_rewrite r
          WHERE r.ev_class = $1::int8::oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'
         UNION ALL
         SELECT DISTINCT 'index', c.relname::text, d.refobjsubid::int2, i.indisunique FROM pg_depend d
           JOIN pg_index i ON i.indexrelid = d.objid JOIN pg_class c ON c.oid = i.indexrelid
          WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::int8::oid
            AND d.refobjsubid = ANY ($2::int2[])
         UNION ALL
         SELECT CASE contype WHEN 'f' THEN 'foreign key' ELSE 'check' END, conname::text, 0::int2, false FROM pg_constraint
          WHERE (conrelid = $1::int8::oid AND contype IN ('f', 'c') AND conkey && $2::int2[]
                 AND NOT (contype = 'c' AND conname ~ '^reseal_guard_[0-9a-f]+_[0-9]+$'))
             OR (confrelid = $1::int8::oid AND contype = 'f' AND confkey && $2::int2[])
         UNION ALL
         SELECT 'publication', pubname::text, 0::int2, false FROM pg_publication_tables p
          WHERE p.schemaname || '.' || p.tablename = $3",
    )
    .bind(i64::from(table.oid))
    .bind(&attnums)
    .bind(&table.display)
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
                column: name_of(row.try_get(2).map_err(store_error)?),
                unique: row.try_get(3).map_err(store_error)?,
            },
            "foreign key" => Observation::ForeignKeyOnValue(name),
            "check" => Observation::CheckOnValue(name),
            _ => Observation::ChangeCapture(format!("publication {name}")),
        });
    }
    let foreign_leaves = sqlx::query(
        "WITH RECURSIVE tree AS (
             SELECT $1::int8::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
         SELECT c.oid::regclass::text FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind NOT IN ('r', 'p') AND c.oid <> $1::int8::oid",
    )
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
