//! The disk before a rehearsal. What others have left to be written there (a build that has just ended, say) is waited for by whatever the
//! application syncs, under SQLite's only lock: the rehearsal would blame the rotation for it.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Waits until the file system of this folder has written what it was given so far, or for [`SETTLE_MAX`].
pub fn settle(folder: &Path) {
    let Ok(folder) = File::open(folder) else { return };
    let (sender, done) = mpsc::channel();
    std::thread::spawn(move || {
        let synced = sync(&folder);
        // Nobody listens any more where it took longer.
        let _ = sender.send(synced);
    });
    match done.recv_timeout(SETTLE_MAX) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the disk was not waited for"),
        Err(_) => tracing::warn!("the disk is busy with the work of others: latencies will be theirs, too"),
    }
}

#[cfg(target_os = "linux")]
fn sync(folder: &File) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

#[cfg(not(target_os = "linux"))]
fn sync(folder: &File) -> std::io::Result<()> {
    folder.sync_all()
}

/// A rehearsal takes about as long.
const SETTLE_MAX: Duration = Duration::from_secs(15);
