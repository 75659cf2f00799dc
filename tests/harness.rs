//! The ground that other tests stand on: databases that are the test's own, servers that crash and come back, a search that finds
//! leaks in every spelling, and Python peers that agree about what they wrote and read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;
use support::Canary;

#[test]
fn each_test_has_an_empty_database_of_its_own() {
    let Some(first) = support::postgres() else { return };
    let Some(second) = support::postgres() else { return };
    first.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)");
    assert_eq!(first.count("SELECT count(*) FROM t"), 2);
    assert_eq!(second.count("SELECT count(*) FROM pg_tables WHERE tablename = 't'"), 0);

    let name = first.url().rsplit_once('/').unwrap().1.to_owned();
    drop(first);
    assert_eq!(
        second.count(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")),
        0
    );
}

#[tokio::test]
async fn databases_serve_tests_with_a_runtime() {
    let Some(database) = support::postgres() else { return };
    let pool = database.pool(2);
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await.unwrap();
    assert_eq!(one, 1);
}

#[tokio::test]
async fn the_server_log_holds_statements_and_their_parameters() {
    let Some(database) = support::postgres() else { return };
    let in_statement = support::passphrase();
    let in_parameter = support::passphrase();
    database.execute(&format!("SELECT '{in_statement}'"));
    let pool = database.pool(1);
    let _: String = sqlx::query_scalar("SELECT $1")
        .bind(&in_parameter)
        .fetch_one(&pool)
        .await
        .unwrap();

    let log = database.log();
    for secret in [in_statement, in_parameter] {
        assert_eq!(
            Canary::new("the passphrase", secret.as_bytes()).found_in(&log),
            Some("raw bytes")
        );
    }
}

#[test]
fn heavy_a_private_server_loses_nothing_committed_in_a_crash() {
    let Some(server) = support::private_postgres() else { return };
    let database = server.database();
    database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    server.kill();
    assert!(
        std::net::TcpStream::connect(address_of(&database.url())).is_err(),
        "the server is still there"
    );
    server.restart();
    assert_eq!(database.count("SELECT count(*) FROM t"), 1);
}

fn address_of(url: &str) -> String {
    url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned()
}

#[test]
fn a_canary_is_found_in_every_spelling() {
    let secret: [u8; 32] = support::aes256_key();
    let canary = Canary::new("the key", &secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.iter().map(|byte| format!("%{byte:02x}")).collect();
    let mut spellings = vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        format!("\\x{hex}").into_bytes(),
        percent.to_uppercase().into_bytes(),
        percent.into_bytes(),
        format!("{secret:?}").into_bytes(),
        serde_json::to_vec(&secret.to_vec()).unwrap(),
    ];
    for before in 0..4 {
        let longer = [
            support::random_bytes::<4>()[..before].to_vec(),
            secret.to_vec(),
            vec![0xff; before],
        ]
        .concat();
        spellings.push(STANDARD.encode(&longer).into_bytes());
        spellings.push(URL_SAFE.encode(&longer).into_bytes());
    }
    for spelling in spellings {
        let text = [b"error: ".to_vec(), spelling.clone(), b" at line 1".to_vec()].concat();
        assert!(canary.found_in(&text).is_some(), "not found in {} bytes", spelling.len());
    }
    assert_eq!(canary.found_in(&support::random_bytes::<4096>()), None);
}

#[test]
fn a_fernet_key_is_found_as_text_and_as_bytes() {
    let text = support::fernet_key();
    let canary = Canary::base64url_key("the key", &text);
    assert!(canary.found_in(format!("key={text}").as_bytes()).is_some());
    assert_eq!(canary.found_in(&URL_SAFE.decode(&text).unwrap()), Some("raw bytes"));
    let percent = text.replace('=', "%3D");
    assert!(canary.found_in(percent.as_bytes()).is_some());
}

#[test]
#[should_panic(expected = "the key leaked into the log as raw bytes")]
fn a_leak_fails_without_printing_the_secret() {
    let secret: [u8; 32] = support::aes256_key();
    Canary::new("the key", &secret).assert_absent("the log", &secret);
}

#[test]
fn fernet_peers_agree_in_sqlite_and_postgresql() {
    let directory = support::tempdir();
    let sqlite = format!("sqlite:{}", directory.path().join("customers.db").display());
    let postgres = support::postgres();
    let urls = [Some(sqlite), postgres.as_ref().map(support::Database::url)];
    for url in urls.into_iter().flatten() {
        let (key, other) = (support::fernet_key(), support::fernet_key());
        let Some(written) = peer(
            "write_fernet.py",
            &["--rows", "50"],
            &[("DATABASE_URL", &url), ("FERNET_KEY", &key)],
        ) else {
            return;
        };
        assert_eq!(
            (&written.1["values"], &written.1["nulls"]),
            (&Value::from(95), &Value::from(5))
        );

        let both = format!("{other},{key}");
        let read = peer("read_fernet.py", &[], &[("DATABASE_URL", &url), ("FERNET_KEYS", &both)]).unwrap();
        assert_eq!((read.0, &read.1["digest"]), (true, &written.1["digest"]));
        assert_eq!(read.1["per_key"], serde_json::json!([0, 95]));

        let wrong = peer("read_fernet.py", &[], &[("DATABASE_URL", &url), ("FERNET_KEYS", &other)]).unwrap();
        assert_eq!((wrong.0, wrong.1["unreadable"].as_array().unwrap().len()), (false, 95));
        assert_ne!(wrong.1["digest"], written.1["digest"]);
    }
}

#[test]
fn tink_peers_agree_and_bind_values_to_their_rows() {
    let directory = support::tempdir();
    let keyset = directory.path().join("keyset.json");
    let keyset = keyset.to_str().unwrap();
    let url = format!("sqlite:{}", directory.path().join("customers.db").display());
    let environment = [("DATABASE_URL", url.as_str())];
    for (table, more) in [("as_bytes", vec!["--create-keyset"]), ("as_text", vec!["--text"])] {
        let common = ["--table", table, "--keyset", keyset];
        let Some(written) = peer(
            "tink_write.py",
            &[&common[..], &["--rows", "20"], &more].concat(),
            &environment,
        ) else {
            return;
        };
        let read = peer("tink_read.py", &common, &environment).unwrap();
        assert_eq!((read.0, &read.1["digest"]), (true, &written.1["digest"]));

        let moved = peer(
            "tink_read.py",
            &[&common[..], &["--aad", "customers.{column}:1"]].concat(),
            &environment,
        )
        .unwrap();
        // Row 1 alone has that associated data.
        assert_eq!((moved.0, &moved.1["values"]), (false, &Value::from(2)));
    }
}

/// Runs a Python peer; whether it succeeded, and the JSON that it printed.
fn peer(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Option<(bool, Value)> {
    let output = support::python(script)?
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{script}: {error}\n{complaint}"));
    Some((output.status.success(), report))
}
