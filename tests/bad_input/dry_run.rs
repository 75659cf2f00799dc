//! `plan`, `verify` and `status` change nothing: not a row, not a table of ours, not a byte of a file.

use std::collections::BTreeMap;

use super::desk::{Column, Desk, Pair, plaintext};

fn table(desk: &Desk) -> Pair {
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    let values: Vec<_> = (1..=200)
        .map(|id| match id % 4 {
            0 => Some(pair.new_value(&plaintext(id), b"")),
            1 => None,
            2 => Some(b"plaintext".to_vec()),
            _ => Some(pair.old_value(&plaintext(id), b"")),
        })
        .collect();
    desk.insert(Column::Text, 1, &values);
    pair
}

fn look(desk: &Desk, pair: &Pair) {
    let plan = desk.on_t("plan", pair, &[]);
    let sample = &plan.expect(0).json["sample"];
    assert_eq!(
        (&sample["rows"], &sample["nulls"], &sample["unreadable"]),
        (&200.into(), &50.into(), &50.into())
    );
    for whose in [", an old key", ", the new key"] {
        assert!(plan.stderr.contains(whose), "{}", plan.stderr);
    }
    let verify = desk.on_t("verify", pair, &[]);
    verify.expect(7);
    assert_eq!(verify.json["not_current"].as_array().unwrap().len(), 50);
    assert!(verify.stderr.contains("the old key is still needed"), "{}", verify.stderr);
    desk.run(&["status"], &[]).expect(0);
}

#[test]
fn nothing_is_written_to_a_sqlite_file() {
    let desk = Desk::sqlite();
    let pair = table(&desk);
    let files = || -> BTreeMap<_, _> {
        std::fs::read_dir(&desk.folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.file_name(),
                    (
                        std::fs::read(entry.path()).unwrap(),
                        entry.metadata().unwrap().modified().unwrap(),
                    ),
                )
            })
            .collect()
    };
    let before = files();
    look(&desk, &pair);
    assert!(files() == before, "{:?}", files().keys());
    // What the plan counted is what the rotation finds.
    let run = desk.on_t("rotate", &pair, &[]);
    assert_eq!(
        (&run.expect(7).json["values_reencrypted"], &run.json["values_null"]),
        (&50.into(), &50.into())
    );
}

#[test]
fn nothing_is_written_to_a_postgres_database() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = table(&desk);
    let state = || {
        desk.texts(
            "SELECT string_agg(id || ' ' || ctid::text || ' ' || xmin::text || ' ' || xmax::text || ' ' || coalesce(c, '-'), ';' ORDER BY id) FROM t
             UNION ALL SELECT coalesce(string_agg(relname || relfilenode, ';' ORDER BY oid), '-') FROM pg_class
              WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
             UNION ALL SELECT string_agg(nspname, ';' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
             UNION ALL SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text FROM pg_stat_user_tables WHERE pg_stat_clear_snapshot() IS NOT NULL",
        )
    };
    // Counters arrive when their backend has been idle for a moment.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let before = state();
    assert!(before[0].len() > 1000);
    look(&desk, &pair);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(state(), before);
}

/// Who rests is not told the time of those who do not.
#[test]
fn a_plan_tells_how_long_its_profile_takes() {
    let rates = |desk: &Desk, pair: &Pair, more: &[&str]| -> Vec<f64> {
        let plan = desk.on_t("plan", pair, more);
        let plan = plan.expect(0);
        let rows = plan.json["rows_estimate"].as_f64().unwrap();
        let durations = plan.json["duration_seconds"].as_object().unwrap();
        let mut rates: Vec<f64> = (durations.values())
            .map(|seconds| (rows / seconds.as_f64().unwrap()).round())
            .collect();
        rates.sort_by(f64::total_cmp);
        for rate in &rates {
            assert!(durations.contains_key(&format!("{rate} rows/s")), "{durations:?}");
        }
        rates
    };
    let gentle = ["--profile", "gentle"];
    let desk = Desk::sqlite();
    let pair = table(&desk);
    for arguments in [&[][..], &gentle] {
        assert_eq!(rates(&desk, &pair, arguments), [10_000.0, 50_000.0, 150_000.0]);
    }
    let Some(desk) = Desk::postgres() else { return };
    let pair = table(&desk);
    assert_eq!(rates(&desk, &pair, &[]), [10_000.0, 50_000.0, 150_000.0]);
    assert_eq!(rates(&desk, &pair, &gentle), [500.0, 700.0, 900.0]);
    let two = [&gentle[..], &["--workers", "2"]].concat();
    assert_eq!(rates(&desk, &pair, &two), [1_000.0, 1_400.0, 1_800.0]);
}
