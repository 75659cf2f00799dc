//! Samples of columns that could hold sealed values.

use std::ops::ControlFlow;

use reseal::store::{ColumnSample, SampleLimits, Store};

use crate::stores::fixture::Fixture;

pub const LIMITS: SampleLimits = SampleLimits {
    rows: 200,
    value_bytes_max: 1_000,
};

/// Every column with what was read of it.
pub async fn sampled(store: &dyn Store) -> Vec<ColumnSample> {
    let mut samples = Vec::new();
    let mut take = |sample| {
        samples.push(sample);
        ControlFlow::Continue(())
    };
    store.column_samples(LIMITS, &mut take).await.unwrap();
    samples
}

/// The values of a column of this table, whatever its schema; in order.
pub fn values_of(samples: &[ColumnSample], table: &str, column: &str) -> Vec<String> {
    let is_it = |sample: &&ColumnSample| sample.table.rsplit('.').next() == Some(table) && sample.column == column;
    let mut found = samples.iter().filter(is_it);
    let sample = found.next().unwrap_or_else(|| panic!("no {table}.{column}"));
    assert!(found.next().is_none(), "{table}.{column} was handed over twice");
    let values = sample.values.as_ref().unwrap_or_else(|why| panic!("{why}"));
    let mut values: Vec<String> = values.iter().map(|value| String::from_utf8(value.clone()).unwrap()).collect();
    values.sort();
    values
}

pub async fn every_column_is_sampled_one_after_the_other(fixture: &dyn Fixture) {
    let (int, bytes) = (fixture.int(), fixture.bytes());
    let (blob, large) = (fixture.bytes_literal(b"blob"), "x".repeat(1_001));
    fixture
        .execute(&format!(
            "CREATE TABLE a (id {int} PRIMARY KEY, c TEXT, d {bytes}, \"o\"\"dd\" TEXT); CREATE TABLE b (c TEXT);
             INSERT INTO a VALUES (1, 'one', {blob}, 'odd'), (2, NULL, NULL, NULL), (3, '', NULL, NULL), (4, '{large}', NULL, NULL);
             INSERT INTO b VALUES ('two')"
        ))
        .await;
    fixture.store().control().await.unwrap().migrate().await.unwrap();
    let store = fixture.store();
    let samples = sampled(&*store).await;
    assert_eq!(values_of(&samples, "a", "c"), ["", "one"]);
    assert_eq!(values_of(&samples, "a", "d"), ["blob"]);
    assert_eq!(values_of(&samples, "a", "o\"dd"), ["odd"]);
    assert_eq!(values_of(&samples, "b", "c"), ["two"]);
    let own = samples.iter().any(|sample| sample.table.contains("reseal"));
    assert!(!own, "what Reseal keeps there is none of it: {samples:?}");

    let mut handed = 0;
    let mut take = |_| {
        handed += 1;
        if handed == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    store.column_samples(LIMITS, &mut take).await.unwrap();
    assert_eq!(handed, 2);
}

pub async fn a_sparse_column_of_a_long_table_is_read_to_its_end(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!(
            "CREATE TABLE t (id {int} PRIMARY KEY, c TEXT, sparse TEXT);
             INSERT INTO t WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 20000)
             SELECT id, 'c' || CAST(100000 + id AS TEXT), CASE WHEN id % 2000 = 1999 THEN 's' || id END FROM n"
        ))
        .await;
    let samples = sampled(&*fixture.store()).await;
    let sparse: Vec<String> = (1..=10).map(|n| format!("s{}", n * 2000 - 1)).collect();
    let mut found = values_of(&samples, "t", "sparse");
    found.sort_by_key(|value| value.len());
    assert_eq!(found, sparse);
    // The rest is from all over the table, and not its beginning.
    let all = values_of(&samples, "t", "c");
    assert_eq!(all.len(), LIMITS.rows);
    let late = all.iter().filter(|value| value.as_str() > "c110000").count();
    assert!((50..150).contains(&late), "{late} of 200 values are of the newer half");
}
