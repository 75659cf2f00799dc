//! Thresholds and probes decide the exit code, and a probe's secrets stay its own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use super::drilled::drill;

#[test]
fn heavy_thresholds_and_probes_decide_the_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://user:secret-word@{}/health?token=secret-word",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        let mut answers = 0;
        while let Ok((mut client, _)) = listener.accept() {
            answers += 1;
            let status = if answers == 3 { "503 Service Unavailable" } else { "200 OK" };
            let _ = client.read(&mut [0; 4096]);
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let mut arguments = vec!["--faults", "none", "--probe", "true", "--probe", "exit 3", "--probe", &url];
    arguments.extend(["--max-p99-ratio", "0.000001", "--max-duration", "1s"]);
    arguments.extend(["--rows", "2000", "--duration", "4"]);
    let drilled = drill(None, &arguments);
    assert_eq!(drilled.code, Some(7), "{}", drilled.told);
    let findings = drilled.document["findings"].as_array().unwrap();
    let told: Vec<&str> = findings.iter().map(|finding| finding["sentence"].as_str().unwrap()).collect();
    for sentence in [
        "probe 2 (exit) failed",
        "exit status 3",
        "the drill took longer than the 1 s that it may",
    ] {
        assert!(told.iter().any(|told| told.contains(sentence)), "{sentence}: {told:#?}");
    }
    assert!(told.iter().all(|told| !told.contains("probe 1")), "{told:#?}");
    assert!(!drilled.told.contains("secret-word") && !drilled.document.to_string().contains("secret-word"));
    let evidence = drilled.document["evidence"].as_str().unwrap();
    assert!(Path::new(evidence).join("customers.db").exists());
    assert!(drilled.told.contains(&format!("Kept: {evidence}")));
    for repeated in [
        "--rows 2000 ",
        "--faults none ",
        "--max-p99-ratio 0.000001 --max-duration 1s",
        "--probe PROBE --probe PROBE --probe PROBE",
    ] {
        assert!(drilled.told.contains(repeated), "{repeated}: {}", drilled.told);
    }
}

#[test]
fn heavy_a_probe_that_is_a_url_fails_with_its_status_and_slow_reads_fail_with_their_ratio() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://user:secret-word@{}/health?token=secret-word",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.read(&mut [0; 4096]);
            let _ = write!(
                client,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    let mut arguments = vec!["--faults", "none", "--probe", &url, "--max-p99-ratio", "0.000001"];
    arguments.extend(["--rows", "2000", "--duration", "1"]);
    let drilled = drill(None, &arguments);
    assert_eq!(drilled.code, Some(7), "{}", drilled.told);
    let names: Vec<&str> = drilled.document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["p99-ratio", "p99-ratio", "probe-failed"], "{}", drilled.told);
    assert!(drilled.told.contains("HTTP status 503"), "{}", drilled.told);
    assert!(!drilled.told.contains("secret-word") && !drilled.document.to_string().contains("secret-word"));
}

#[test]
fn a_drill_that_cannot_begin_leaves_no_good_report_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let (junit, reports) = (folder.path().join("drill.xml"), folder.path().join("reports"));
    std::fs::create_dir(&reports).unwrap();
    let files = ["report.html", "report.md", "report.json"].map(|name| reports.join(name));
    for wrong in [
        &["--database", "env:RESEAL_TEST_NOT_SET"][..],
        &["--config", "missing.toml", "--staging-confirmed"],
    ] {
        for file in files.iter().chain([&junit]) {
            std::fs::write(file, "good").unwrap();
        }
        let output = crate::support::reseal()
            .arg("drill")
            .args(wrong)
            .arg("--junit")
            .arg(&junit)
            .arg("--report")
            .arg(&reports)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        for file in files.iter().chain([&junit]) {
            assert!(!file.exists(), "{}", file.display());
        }
    }
}

#[test]
fn an_empty_probe_and_a_limit_that_is_no_number_are_named() {
    for (arguments, named) in [
        (["--probe", ""], "--probe"),
        (["--probe", " "], "--probe"),
        (["--max-p99-ratio", "abc"], "--max-p99-ratio"),
    ] {
        let output = crate::support::reseal().arg("drill").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(named), "{told}");
    }
}
