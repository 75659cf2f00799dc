//! A rehearsal on the tables of a staging environment: the real rotation, watched by readers, and refused where it could do harm.

use serde_json::Value;

use super::house::{House, KEYSET, Kind, PATIENT, eventually};

const DRILL: [&str; 8] = [
    "drill",
    "--config",
    "reseal.toml",
    "--duration",
    "1s",
    "--readers",
    "2",
    "--seed",
];

fn drill(house: &House, more: &[&str]) -> crate::support::rotation::Finished {
    house.run(&[&DRILL[..], &["5"], more].concat())
}

fn findings(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["name"].as_str().unwrap()).collect()
}

fn rehearses(kind: Kind) {
    let Some(house) = House::build(kind, 3_000) else { return };
    let app = house.app("web-1");
    let [(old, ..)] = house.keys()[..] else { panic!("one key") };
    let before = house.values("customers", "email").len();
    let drilled = drill(&house, &["--staging-confirmed", "--probe", "true"]);
    let document = &drilled.document;
    assert_eq!(drilled.code, Some(0), "{}\n{document:#}", drilled.text());
    assert_eq!((&document["verdict"], &document["keyset"]), (&"good".into(), &KEYSET.into()));
    for field in ["failed_reads", "values_under_old_key", "unreadable_values", "writes", "exit"] {
        assert_eq!(document[field], 0, "{field}");
    }
    assert!(document["reads"].as_u64() > Some(20), "{document:#}");
    assert!(
        document["latency_ms"]["reads"]["re_encryption"]["p99"].as_f64() > Some(0.0),
        "{document:#}"
    );
    assert_eq!(
        document["lost_writes"],
        Value::Null,
        "nothing was written, so nothing is known of it"
    );
    assert_eq!(document["old_key"], old.0);
    let killed = document["faults"][0]["outcome"].as_str().unwrap();
    assert!(killed.contains("it went on from there"), "{killed}");
    let new = document["new_key"].as_u64().unwrap();
    assert_eq!(
        house.keys_in_data().iter().map(|key| u64::from(key.0)).collect::<Vec<_>>(),
        [new]
    );
    assert_eq!(document["census_after"][format!("{KEYSET}@{new}")], 6_000);
    assert_eq!(house.values("customers", "email").len(), before);
    eventually("the application follows", || {
        (u64::from(app.handle.primary().0) == new).then_some(())
    });
    house.assert_readable(&app);
}

#[test]
fn heavy_it_rotates_a_staging_environment_for_good_and_watches_on_sqlite() {
    rehearses(Kind::Sqlite);
}

#[test]
fn heavy_it_rotates_a_staging_environment_for_good_and_watches_on_postgres() {
    rehearses(Kind::Postgres);
}

#[test]
fn nothing_is_touched_without_the_word_or_where_it_is_called_production() {
    let Some(house) = House::build(Kind::Sqlite, 10) else { return };
    let before = (house.keys(), house.values("customers", "email"));
    let refused = drill(&house, &[]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("--staging-confirmed"), "{}", refused.text());
    std::fs::copy(house.path("reseal.toml"), house.path("reseal.production.toml")).unwrap();
    let refused = house.run(&["drill", "--config", "reseal.production.toml", "--staging-confirmed"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("called like a production"), "{}", refused.text());
    let unknown = drill(&house, &["--staging-confirmed", "nobody"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.text());
    let harmless = drill(&house, &["--staging-confirmed", "--faults", "kill,pause,lag"]);
    assert_eq!(harmless.code, Some(2), "{}", harmless.text());
    assert!(
        harmless.text().contains("pause,lag cannot be done in a staging environment"),
        "{}",
        harmless.text()
    );
    assert_eq!(before, (house.keys(), house.values("customers", "email")));
}

#[test]
fn heavy_an_instance_that_does_not_follow_holds_the_gate_and_is_named() {
    let Some(house) = House::build(Kind::Sqlite, 100) else {
        return;
    };
    let app = house.stale_app("web-1");
    let drilled = drill(&house, &["--staging-confirmed", "--gate-timeout", "2s"]);
    assert_eq!(drilled.code, Some(7), "{}", drilled.text());
    assert!(
        findings(&drilled.document).contains(&"not-acknowledged"),
        "{:#}",
        drilled.document
    );
    assert!(drilled.document["findings"].to_string().contains(app.reporting.instance()));
    assert!(
        drilled.text().contains("--gate-timeout 2s"),
        "what repeats it waits as long: {}",
        drilled.text()
    );
    house.assert_readable(&app);
}

#[test]
fn heavy_a_value_that_does_not_open_fails_the_readers() {
    let Some(house) = House::build(Kind::Sqlite, 100) else {
        return;
    };
    let _app = house.app("web-1");
    house.execute("UPDATE customers SET email = (SELECT email FROM customers WHERE id = 2) WHERE id = 1");
    let drilled = drill(&house, &["--staging-confirmed"]);
    assert_eq!(drilled.code, Some(7), "{}", drilled.text());
    let found = findings(&drilled.document);
    assert!(
        found.contains(&"failed-reads") && found.contains(&"unreadable-values"),
        "{found:?}"
    );
    assert!(drilled.document["failed_reads"].as_u64() > Some(0));
}

/// What production's rotation is going to be told, its rehearsal can be told.
#[test]
fn heavy_a_forgotten_column_fails_it_until_it_is_accepted() {
    let Some(house) = House::build(Kind::Sqlite, 3_000) else {
        return;
    };
    let _app = house.app("web-1");
    house.execute("CREATE TABLE legacy AS SELECT id, email FROM customers WHERE id <= 12");
    let drilled = drill(&house, &["--staging-confirmed", "--faults", "none"]);
    assert_eq!(drilled.code, Some(7), "{}", drilled.text());
    assert_eq!(findings(&drilled.document), ["rotation-failed"]);
    assert!(drilled.text().contains("legacy.email"), "{}", drilled.text());
    // What is left of that rotation is no rehearsal of one.
    let accept = ["--staging-confirmed", "--accept", "undeclared:legacy.email"];
    let refused = drill(&house, &accept);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("is unfinished (phase verify)"), "{}", refused.text());
    let ended = house.rotate(&[PATIENT, &accept[1..]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.text());

    house.execute("DROP TABLE legacy; CREATE TABLE legacy AS SELECT id, email FROM customers WHERE id <= 12");
    let drilled = drill(&house, &accept);
    assert_eq!(drilled.code, Some(0), "{}", drilled.text());
    assert_eq!(drilled.document["faults"][0]["name"], "kill -9 of the rotation");
}
