//! What stands before a PostgreSQL server and behind it: poolers, replication slots, failovers, hostile answers, rows that are wide.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod servers {
    pub mod failover;
    pub mod hostile;
}

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use reseal::store::page::Page;
use reseal::store::postgres::PostgresStore;
use reseal::store::{PageLimits, Store as _};
use support::people::{FernetKey, GAP, Home};
use support::pooler::pgbouncer;
use support::proxy::{Prey, Proxy};
use support::rotation::{Rotation, SLOWLY_ALONE, wait_until};

#[test]
fn a_pooler_that_gives_each_transaction_another_session_is_refused() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(50, &old);
    let before = home.connect().snapshot().rows;
    for size in [1, 8] {
        let Some(pooler) = pgbouncer(home.url(), "transaction", size) else {
            return;
        };
        let mut rotation = Rotation::new(&home, &old, &new);
        rotation.url = Some(pooler.url(home.url()));
        let refused = rotation.run(&[]);
        assert_eq!(refused.code, Some(4), "{}", refused.text());
        let error = &refused.document["error"];
        assert!(error["failed"].as_str().unwrap().contains("pooler"), "{error}");
        assert_eq!(error["durable"], "nothing was touched");
        assert!(error["next"].as_str().unwrap().contains("session mode"), "{error}");
    }
    assert!(home.connect().snapshot().rows == before);
    let schemas = home
        .database()
        .unwrap()
        .count("SELECT count(*) FROM pg_namespace WHERE nspname = 'reseal'");
    assert_eq!(schemas, 0);
}

#[test]
fn heavy_a_pooler_that_keeps_sessions_is_as_good_as_none() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let values: u64 = home.fill(500, &old).iter().map(|(_, person)| person.values()).sum();
    let Some(pooler) = pgbouncer(home.url(), "session", 20) else {
        return;
    };
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(pooler.url(home.url()));
    assert_eq!(rotation.complete(&[]).count("values_reencrypted"), values);
}

#[test]
fn heavy_slots_that_nobody_reads_are_asked_about_before_the_log_fills_the_disk() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(50, &old);
    let database = home.database().unwrap();
    database.execute("ALTER SYSTEM SET wal_level = logical");
    server.restart();
    database.execute("SELECT pg_create_physical_replication_slot('standby_gone', true)");
    database.execute("SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')");
    let rotation = Rotation::new(&home, &old, &new);
    let refused = rotation.run(&["--accept", "slot:warehouse"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    let error = &refused.document["error"];
    let failed = error["failed"].as_str().unwrap();
    assert!(
        failed.contains("physical replication slot standby_gone") && failed.contains("MiB"),
        "{error}"
    );
    assert!(!failed.contains("warehouse"), "{error}");
    assert!(
        error["next"].as_str().unwrap().contains("--accept slot:standby_gone"),
        "{error}"
    );
    let done = rotation.complete(&["--accept", "slot:warehouse", "--accept", "slot:standby_gone"]);
    let listed = done.document["findings"].as_array().unwrap();
    assert!(listed.iter().any(|finding| finding["name"] == "slot:warehouse"), "{listed:?}");
}

#[test]
fn heavy_pages_of_wide_rows_are_not_sent_in_vain() {
    let Some(home) = Home::postgres() else { return };
    let old = FernetKey::generate();
    let people = home.fill(60, &old);
    let mut live = home.connect();
    for (id, _) in &people {
        let token = old.seal(&"wide".repeat(50_000));
        live.execute(&format!("UPDATE people SET note = '{token}' WHERE id = {id}"));
    }
    let passes = passes_over(&home, &old, u32::MAX, &["--workers", "1"]);
    // The rewriting and the verification read the table, and before them a sample; what a page sends beyond its cap is little.
    assert!((2.0..8.0).contains(&passes), "the table was sent {passes:.1} times");
}

/// Bytes that the server sends for a whole rotation, for each byte of the values, where every so many swaps a connection is cut.
fn passes_over(home: &Home, old: &FernetKey, cut_every: u32, arguments: &[&str]) -> f64 {
    let new = FernetKey::generate();
    let rows = home.connect().snapshot().rows;
    let bytes: usize = rows
        .iter()
        .map(|row| row.email.len() + row.note.as_ref().map_or(0, String::len))
        .sum();
    let proxy = Proxy::before(home.url(), Prey::Swaps, cut_every);
    let mut rotation = Rotation::new(home, old, &new);
    rotation.url = Some(proxy.url(home.url()));
    rotation.complete(arguments);
    let cuts: u32 = proxy.cuts().iter().sum();
    assert_eq!(cuts > 0, cut_every < u32::MAX);
    proxy.answered() as f64 / bytes as f64
}

#[test]
fn heavy_what_a_run_has_written_is_read_again_by_the_verification_alone() {
    let Some(home) = Home::postgres() else { return };
    let old = FernetKey::generate();
    home.fill(4_000, &old);
    let passes = passes_over(&home, &old, u32::MAX, &[]);
    // A sample, the rewriting and the verification; keys and what a driver asks are a part of each.
    assert!((2.0..3.0).contains(&passes), "the table was sent {passes:.1} times");
}

#[test]
fn heavy_where_a_trigger_may_have_changed_what_was_written_sweeps_read_it() {
    let Some(home) = Home::postgres() else { return };
    home.connect().execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER looks BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION look()",
    );
    let old = FernetKey::generate();
    home.fill(4_000, &old);
    let passes = passes_over(&home, &old, u32::MAX, &["--accept", "trigger:looks"]);
    assert!(passes > 3.0, "the table was sent {passes:.1} times");
}

#[test]
fn heavy_where_a_server_may_have_lost_what_it_answered_sweeps_read_everything() {
    let Some(home) = Home::postgres() else { return };
    let old = FernetKey::generate();
    home.fill(4_000, &old);
    let passes = passes_over(&home, &old, 6, &["--workers", "1", "--batch-rows", "500"]);
    // What is done again is sent again, some ranges twice.
    assert!(passes > 4.0, "the table was sent {passes:.1} times");
}

#[test]
fn heavy_what_sweeps_pass_over_and_the_verification_does_not_is_swept_after_all() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(2_000, &old);
    let rotation = Rotation::new(&home, &old, &new);
    let running = rotation.start_and_get_going(SLOWLY_ALONE);
    // Made when nobody looked for triggers any more: one row bears the run's own transaction, and its old values.
    let kept = 1_000 * GAP;
    let mut live = home.connect();
    live.execute(&format!(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.email := OLD.email; NEW.note := OLD.note; RETURN NEW; END';
         CREATE TRIGGER keeps BEFORE UPDATE ON people FOR EACH ROW WHEN (OLD.id = {kept}) EXECUTE FUNCTION keep()"
    ));
    let mut email = |id: i64| live.some_from(id).remove(0).email;
    wait_until("the row is behind the run", || old.open(&email(kept + 200 * GAP)).is_none());
    assert!(
        old.open(&email(kept)).is_some(),
        "the trigger came too late to prove anything"
    );
    live.execute("DROP TRIGGER keeps ON people");
    let done = running.wait();
    done.assert_verified();
    assert!(new.open(&live.some_from(kept).remove(0).email).is_some());
    assert_eq!(
        done.count("sweeps"),
        4,
        "one that passed over it, one that found it, two that found nothing"
    );
}

#[test]
fn heavy_the_first_page_of_a_table_is_bounded_whatever_the_table_before_was_like() {
    let Some(home) = Home::postgres() else { return };
    let old = FernetKey::generate();
    home.fill(2_000, &old);
    let mut live = home.connect();
    live.execute("CREATE TABLE letters (id int8 PRIMARY KEY, body text)");
    let token = old.seal(&"wide".repeat(50_000));
    live.execute(&format!(
        "INSERT INTO letters SELECT n, '{token}' FROM generate_series(1, 100) n"
    ));
    let proxy = Proxy::before(home.url(), Prey::Swaps, u32::MAX);
    let store = PostgresStore::new(&proxy.url(home.url()), "tests").unwrap();
    let limits = PageLimits {
        rows: 1_000,
        bytes: 1 << 20,
        value_bytes_max: 16 << 20,
        stands_back: false,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = |table: &str, column: &str, pages: usize| {
        let before = proxy.answered();
        runtime.block_on(async {
            let survey = store.survey(&support::target(table, column)).await.unwrap();
            let interval = store.intervals(&survey, 1, false).await.unwrap().remove(0);
            let mut session = store.session(&survey).await.unwrap();
            let mut page = Page::to_look_at(session.shape());
            // What a page was sent in vain is read before the next one.
            for _ in 0..pages {
                session.page(&interval, None, limits, &mut page).await.unwrap();
                assert!(!page.is_empty());
            }
        });
        proxy.answered() - before
    };
    read("people", "email", 3);
    let sent = read("letters", "body", 2);
    assert!(sent < 8 << 20, "{sent} bytes for two pages of 1 MiB");
}

#[test]
fn a_server_that_refuses_tls_learns_neither_the_user_nor_the_password() {
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let home = Home::sqlite("wal");
    for mode in ["require", "verify-ca", "verify-full"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // It wants to be spoken to in the clear, as whoever sits between would.
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).unwrap();
            client.write_all(b"N").unwrap();
            let mut said = Vec::new();
            // The client may close with a reset.
            let _ = client.read_to_end(&mut said);
            (request, said)
        });
        let mut rotation = Rotation::new(&home, &old, &new);
        rotation.url = Some(format!(
            "postgres://somebody:unspoken-password@127.0.0.1:{port}/app?sslmode={mode}"
        ));
        let failed = rotation.run(&[]);
        let (request, said) = server.join().unwrap();
        assert_eq!(request, *b"\0\0\0\x08\x04\xd2\x16\x2f", "not a request for TLS");
        assert!(said.is_empty(), "{mode}: {} bytes in the clear", said.len());
        assert_eq!(failed.code, Some(8), "{mode}: {}", failed.text());
        assert!(
            failed.document["error"]["failed"].as_str().unwrap().contains("TLS"),
            "{}",
            failed.text()
        );
        assert!(!failed.text().contains("unspoken-password"));
    }
}
