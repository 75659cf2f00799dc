//! Nobody reads what a rotation says: a full disk behind standard error or standard output, a pipe whose reader is gone, a terminal that
//! hung up. The rotation does its work all the same, and its exit code says how that went.

use std::fs::File;
use std::process::Stdio;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::people::Home;
use crate::support::rotation::SLOWLY_ALONE;
use crate::{PEOPLE, Scene};

/// A terminal whose other end is gone: writing fails.
fn hung_up() -> Stdio {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    File::options().read(true).write(true).open(name).unwrap().into()
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// Takes nothing.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn heavy_a_signal_ends_a_rotation_after_its_batch_although_nobody_reads_standard_error() {
    let home = Home::sqlite("wal");
    let mut scene = Scene::new(&home, PEOPLE);
    let rotation = scene.rotation(&home);
    for (stderr, signal) in [(full(), Signal::TERM), (closed(), Signal::INT), (hung_up(), Signal::HUP)] {
        let running = rotation.start_and_get_going_to(SLOWLY_ALONE, Stdio::piped(), stderr);
        running.signal(signal);
        let stopped = running.wait();
        assert_eq!(stopped.code, Some(5), "{signal:?}: {}", stopped.text());
        assert_eq!(stopped.document["exit"], 5, "{signal:?}");
    }
    let last = scene.rotation(&home).complete(&[]);
    scene.assert_complete(&last);
}

#[test]
fn heavy_the_exit_code_stands_although_nobody_reads_standard_output() {
    let home = Home::sqlite("wal");
    let mut scene = Scene::new(&home, PEOPLE);
    let rotation = scene.rotation(&home);
    let running = rotation.start_and_get_going_to(SLOWLY_ALONE, full(), Stdio::piped());
    running.signal(Signal::TERM);
    let stopped = running.wait();
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    assert!(stopped.stderr.contains("standard output"), "{}", stopped.stderr);

    let finished = rotation.start_and_get_going_to(&[], closed(), Stdio::piped()).wait();
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    for said in ["standard output", "durable: ", "exit code 0", "next: "] {
        assert!(finished.stderr.contains(said), "{said}: {}", finished.stderr);
    }
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert_eq!((audit.under_old, audit.under_new), (0, scene.values));
}
