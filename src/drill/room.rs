//! The folder for temporary files, where a drill's files are: one that is full, or cannot be written, fails everything that needs it in
//! a way of its own. The folder is asked, and then is what failed.

use std::fs;
use std::io::{self, Write as _};

use super::DrillError;

/// The error, or that the folder for temporary files is behind it. To be asked before the drill's files are removed and make room.
pub(super) fn or_no_room(error: DrillError) -> DrillError {
    match error {
        DrillError::Cancelled | DrillError::NothingToCut | DrillError::Planned(_) => error,
        error => match write_something() {
            Ok(()) => error,
            Err(source) => DrillError::NoRoom {
                folder: std::env::temp_dir().display().to_string(),
                source,
            },
        },
    }
}

fn write_something() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("reseal-drill-room-{}", std::process::id()));
    let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(&vec![0; ROOM_BYTES]));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Less than the smallest drill needs for its journals.
const ROOM_BYTES: usize = 1 << 20;
