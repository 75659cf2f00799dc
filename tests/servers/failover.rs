//! One server takes the place of another: by a failover, and by a copy of the past.

use rustix::process::Signal;

use crate::support;
use crate::support::people::{Column, FernetKey, GAP, Home, Live};
use crate::support::proxy::{Prey, Proxy};
use crate::support::rotation::{Rotation, Running, SLOWLY_ALONE, wait_until};

#[test]
fn heavy_a_former_primary_that_answers_after_a_failover_gets_no_write() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(3_000, &old);
    let proxy = Proxy::before(home.url(), Prey::Swaps, u32::MAX);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(proxy.url(home.url()));
    let running = rotation.start_and_get_going(&[SLOWLY_ALONE, &["--retry-for", "60"]].concat());

    // Stopped while the world changes: how long that takes proves nothing.
    running.freeze();
    let promoted = server.promoted_copy(home.database().unwrap());
    let rewritten = |live: &mut Live| live.totals().map_or(0, |totals| totals.rows_reencrypted);
    let mut successor = Live::open(&promoted.url());
    let before = rewritten(&mut successor);
    proxy.switch(&promoted.url());
    running.signal(Signal::CONT);
    wait_until("the run goes on with the new primary", || rewritten(&mut successor) > before);

    // The same cluster, the same plan, the same generation: only its timeline tells that its time is over.
    let mut former = home.connect();
    let left = former.snapshot().rows;
    running.freeze();
    proxy.switch(home.url());
    running.signal(Signal::CONT);
    let stopped = running.wait();
    assert_eq!(stopped.code, Some(9), "{}", stopped.text());
    let error = &stopped.document["error"];
    assert!(error["failed"].as_str().unwrap().contains("former primary"), "{error}");
    assert!(
        error["next"].as_str().unwrap().contains("which server is the primary"),
        "{error}"
    );
    assert!(former.snapshot().rows == left, "the former primary was written to");

    rotation.url = Some(promoted.url());
    rotation.complete(&[]);
}

#[test]
fn heavy_a_connection_that_stays_with_the_former_primary_is_given_up() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(6_000, &old);
    let proxy = Proxy::before(home.url(), Prey::Swaps, u32::MAX);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(proxy.url(home.url()));
    let running = rotation.start_and_get_going(SLOWLY_ALONE);

    // Nobody closes the connections to the former primary, and it goes on to take writes.
    running.freeze();
    let promoted = server.promoted_copy(home.database().unwrap());
    proxy.lead(&promoted.url());
    running.signal(Signal::CONT);
    let done = running.wait();
    done.assert_verified();

    let under = |live: &mut Live, key: &FernetKey| {
        let rows = live.snapshot().rows;
        rows.iter().filter(|row| key.open(&row.email).is_some()).count()
    };
    assert_eq!(under(&mut Live::open(&promoted.url()), &new), 6_000);
    assert!(
        under(&mut home.connect(), &old) > 0,
        "it worked for the former primary to the end"
    );
}

/// What was read of the former primary says nothing about its successor.
#[test]
fn heavy_a_verification_that_meets_another_server_reads_it_from_the_beginning() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(6_000, &new);
    let proxy = Proxy::before(home.url(), Prey::Swaps, u32::MAX);
    let mut command = support::reseal_process();
    command
        .args([
            "verify",
            "--database",
            "env:DATABASE_URL",
            "--table",
            "people",
            "--column",
            "email",
            "--column",
            "note",
        ])
        .args([
            "--format",
            "fernet",
            "--from",
            "env:OLD_KEY",
            "--to",
            "env:NEW_KEY",
            "--json",
            "--batch-rows",
            "20",
        ])
        .args(["--profile", "gentle", "--workers", "1"])
        .env("DATABASE_URL", proxy.url(home.url()))
        .env("OLD_KEY", old.text())
        .env("NEW_KEY", new.text());
    let mut running = Running::start(command);
    wait_until("a part of the table was read", || proxy.answered() > 400_000);
    assert!(running.is_running(), "it was over too soon to prove anything");
    running.freeze();

    // The first row is long behind it.
    let promoted = server.promoted_copy(home.database().unwrap());
    let mut successor = Live::open(&promoted.url());
    successor.replace(GAP, Column::Email, Some(&old.seal("lost with the former primary")));
    proxy.switch(&promoted.url());
    running.signal(Signal::CONT);
    let found = running.wait();
    assert_eq!(found.code, Some(7), "{}", found.text());
    assert_eq!(found.count("not_current_total"), 1, "{}", found.text());
    assert_eq!(
        found.count("rows_scanned"),
        6_000,
        "each row is counted once: {}",
        found.text()
    );
}

#[test]
fn heavy_a_copy_of_the_past_is_told_from_a_take_over_and_can_be_rotated() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(3_000, &old);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.start_and_get_going(SLOWLY_ALONE).kill();
    let past = server.promoted_copy(home.database().unwrap());

    let proxy = Proxy::before(home.url(), Prey::Swaps, u32::MAX);
    rotation.url = Some(proxy.url(home.url()));
    let running = rotation.start_and_get_going(SLOWLY_ALONE);
    running.freeze();
    let mut restored = Live::open(&past.url());
    let before = restored.snapshot().rows;
    proxy.switch(&past.url());
    running.signal(Signal::CONT);
    let stopped = running.wait();
    assert_eq!(stopped.code, Some(9), "{}", stopped.text());
    let error = &stopped.document["error"];
    let failed = error["failed"].as_str().unwrap();
    assert!(
        failed.contains("run 1 of this rotation is the latest there, and this is run 2"),
        "{error}"
    );
    assert!(error["next"].as_str().unwrap().contains("have the old key too"), "{error}");
    assert!(
        restored.snapshot().rows == before,
        "it was written to before anybody had looked"
    );

    // Looked at and meant, it is rotated from where it stands.
    rotation.url = Some(past.url());
    rotation.complete(&[]);
}
