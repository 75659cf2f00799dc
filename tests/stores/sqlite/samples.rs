//! Samples of what only SQLite has: rowids, tables without them, damaged pages.

use std::os::unix::fs::FileExt as _;

use super::SqliteFixture;
use crate::stores::contract::samples::{sampled, values_of};
use crate::stores::fixture::Fixture;

#[tokio::test]
async fn tables_are_sampled_whatever_their_rowid_is_called() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE named (rowid TEXT, oid TEXT); INSERT INTO named VALUES ('r', 'o'), (NULL, 'p');
         CREATE TABLE none (k TEXT PRIMARY KEY, c) WITHOUT ROWID; INSERT INTO none VALUES ('k', 'c'), ('l', 7);
         CREATE TABLE apart (id INTEGER PRIMARY KEY, c TEXT);
         INSERT INTO apart VALUES (-9223372036854775808, 'first'), (0, 'middle'), (9223372036854775807, 'last');
         CREATE TABLE blank (c TEXT)",
    );
    let samples = sampled(&*fixture.store()).await;
    assert_eq!(values_of(&samples, "named", "rowid"), ["r"]);
    assert_eq!(values_of(&samples, "named", "oid"), ["o", "p"]);
    assert_eq!(values_of(&samples, "none", "c"), ["c"]);
    assert_eq!(values_of(&samples, "apart", "c"), ["first", "last", "middle"]);
    assert_eq!(values_of(&samples, "blank", "c").len(), 0);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_does_not_end_the_scan() {
    let fixture = SqliteFixture::rollback_journal();
    fixture.run(
        "CREATE TABLE a (c TEXT); CREATE TABLE damaged (c TEXT, d TEXT); CREATE TABLE z (c TEXT);
         INSERT INTO a VALUES ('a'); INSERT INTO damaged VALUES ('d', 'd'); INSERT INTO z VALUES ('z')",
    );
    let (page, size): (u32, u32) = fixture
        .connect()
        .query_row(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'damaged'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(fixture.path()).unwrap();
    file.write_all_at(&vec![0xff; size as usize], u64::from(page - 1) * u64::from(size))
        .unwrap();
    let samples = sampled(&*fixture.store()).await;
    assert_eq!(values_of(&samples, "a", "c"), ["a"]);
    assert_eq!(values_of(&samples, "z", "c"), ["z"]);
    let unread: Vec<_> = samples.iter().filter(|sample| sample.table == "damaged").collect();
    assert_eq!(unread.len(), 2);
    for column in unread {
        let why = column.values.as_ref().unwrap_err();
        assert!(why.contains("damaged"), "{why}");
    }
}
