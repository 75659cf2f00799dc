//! A drill that cannot take place: what is left of earlier reports, and what is said of a folder that is full.

use std::fs;
use std::process::{Command, Output};

use crate::support::{reseal_process, tempdir};

const SMALL: &[&str] = &["--rows", "2000", "--duration", "1s", "--faults", "none"];

#[test]
fn a_command_line_that_is_no_drill_leaves_no_report_of_an_earlier_one() {
    let folder = tempdir();
    let drill = |arguments: &[&str]| {
        for page in ["report.html", "report.md", "report.json"] {
            fs::write(folder.path().join(page), "good").unwrap();
        }
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        fs::write(
            folder.path().join("drill.xml"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"reseal drill\">",
        )
        .unwrap();
        let mut process = reseal_process();
        let output = process.current_dir(&folder).arg("drill").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let mut left: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        left.join(" ")
    };
    assert_eq!(drill(&["--junit", "drill.xml", "--report", ".", "--bogus"]), "notes.txt");
    assert_eq!(drill(&["--rows", "many", "--junit=drill.xml", "--report=."]), "notes.txt");
    // What is no report stays, whatever option it stands behind.
    assert_eq!(
        drill(&["--bogus", "--junit", "notes.txt"]),
        "drill.xml notes.txt report.html report.json report.md"
    );
    assert_eq!(
        drill(&["--report", "--junit"]),
        "drill.xml notes.txt report.html report.json report.md"
    );
}

#[test]
fn heavy_a_drill_whose_folder_is_full_or_missing_says_which_one_it_is() {
    let folder = tempdir();
    let in_folder = |place: &str| {
        let mut process = reseal_process();
        process.arg("drill").args(SMALL).env("TMPDIR", place).output().unwrap()
    };
    let missing = folder.path().join("missing").display().to_string();
    says(&in_folder(&missing), &missing);

    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    let mount = |size: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&full);
        mount.output().is_ok_and(|output| output.status.success())
    };
    for size in ["size=64k", "size=600k", "size=3m"] {
        if !mount(size) {
            eprintln!("skipped: this user cannot make a small file system");
            return;
        }
        let output = in_folder(&full.display().to_string());
        let _ = Command::new("umount").arg(&full).status();
        says(&output, &full.display().to_string());
    }
}

#[track_caller]
fn says(output: &Output, folder: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(folder) && said.contains("TMPDIR"), "{said}");
}
