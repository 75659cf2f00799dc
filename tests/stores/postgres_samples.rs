//! Samples of what only PostgreSQL has: partitions, materialised views, locks, tables of many pages.

use super::contract::samples::{LIMITS, sampled, values_of};
use crate::stores::fixture::Fixture;
use crate::stores::postgres::PostgresFixture;

#[tokio::test]
async fn partitions_and_materialised_views_are_sampled_like_tables() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE parts (id int, c text) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);
             CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
             CREATE TABLE high_1 PARTITION OF high FOR VALUES FROM (10) TO (20);
             INSERT INTO parts VALUES (1, 'low'), (11, 'high');
             CREATE MATERIALIZED VIEW seen AS SELECT upper(c) AS c FROM parts;
             CREATE MATERIALIZED VIEW empty AS SELECT c FROM parts WITH NO DATA;
             CREATE TABLE mother (c text); CREATE TABLE daughter (d text) INHERITS (mother);
             INSERT INTO mother VALUES ('m'); INSERT INTO daughter VALUES ('d', NULL)",
        )
        .await;
    let samples = sampled(&*fixture.store()).await;
    assert_eq!(values_of(&samples, "parts", "c"), ["high", "low"]);
    assert_eq!(values_of(&samples, "seen", "c"), ["HIGH", "LOW"]);
    // Each row once.
    assert_eq!(values_of(&samples, "mother", "c"), ["m"]);
    assert_eq!(values_of(&samples, "daughter", "c"), ["d"]);
    for absent in ["public.low", "public.high", "public.empty"] {
        assert!(samples.iter().all(|sample| sample.table != absent), "{absent}");
    }
}

/// One that somebody has locked is named, and the others are read.
#[tokio::test]
async fn a_column_that_cannot_be_read_does_not_end_the_scan() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE a (c text); CREATE TABLE locked (c text, d text); CREATE TABLE z (c text);
             INSERT INTO a VALUES ('a'); INSERT INTO locked VALUES ('l'); INSERT INTO z VALUES ('z')",
        )
        .await;
    let mut holder = fixture.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let samples = sampled(&*fixture.store()).await;
    assert_eq!(values_of(&samples, "a", "c"), ["a"]);
    assert_eq!(values_of(&samples, "z", "c"), ["z"]);
    let unread: Vec<_> = samples.iter().filter(|sample| sample.table == "public.locked").collect();
    assert_eq!(unread.len(), 2);
    for column in unread {
        let why = column.values.as_ref().unwrap_err();
        assert!(why.contains("55P03"), "{why}");
    }
}

/// Of 5,000 pages about 2,000 are read, wherever they lie.
#[tokio::test]
async fn a_table_of_many_pages_is_read_in_part() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (n int, c text, filler text);
             ALTER TABLE t ALTER filler SET STORAGE PLAIN;
             INSERT INTO t SELECT n, CASE WHEN n > 4000 THEN 'v' || n END, repeat('x', 7000) FROM generate_series(1, 5000) n",
        )
        .await;
    let samples = sampled(&*fixture.store()).await;
    // With a row a page: of the thousand pages that have a value, so many of which four in ten are read. More would be chance's doing,
    // once in a billion times.
    let found = values_of(&samples, "t", "c");
    assert_eq!(found.len(), LIMITS.rows);
    assert_eq!(values_of(&samples, "t", "filler").len(), 0, "larger than what is looked at");
    fixture.execute("UPDATE t SET c = NULL WHERE n % 10 > 0").await;
    fixture.execute("VACUUM FULL t").await;
    let found = values_of(&sampled(&*fixture.store()).await, "t", "c").len();
    assert!((10..80).contains(&found), "{found} of 100 pages with a value");
}
