//! One server takes the place of another: by a failover, and by a copy of the past.

use rustix::process::Signal;

use crate::support;
use crate::support::people::{FernetKey, Home, Live};
use crate::support::proxy::{Prey, Proxy};
use crate::support::rotation::{Rotation, SLOWLY_ALONE, wait_until};

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
    running.signal(Signal::STOP);
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
    running.signal(Signal::STOP);
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
    running.signal(Signal::STOP);
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
    running.signal(Signal::STOP);
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
