//! Batches wait while a replica is further behind than it may be, and while it is not known how far it is behind. And no key is taken
//! from readers while a replica on which they read has not replayed the last values that were moved from it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[allow(dead_code)]
#[path = "protocol/house.rs"]
mod house;

use std::sync::Arc;
use std::time::Duration;

use house::{House, KEYSET, PATIENT, TABLES};
use reseal::key::KeyState;
use reseal::rotation::Options;
use reseal::rotation::progress::Progress;
use reseal::rotation::throttle::Reason;
use reseal::store::Store;
use reseal::store::postgres::PostgresStore;
use reseal::store::replicas::{Lag, Replica};
use rustix::process::Signal;
use support::people::{FernetKey, Home, Live};
use support::rotation::{Rotation, Running, wait_until};
use support::{Database, replicated_postgres};

const LIMIT: Duration = Duration::from_millis(500);

#[test]
fn heavy_batches_wait_for_a_replica_that_lags_or_is_gone() {
    let Some((server, replica_url)) = replicated_postgres() else {
        return;
    };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(4_000, &old);
    pause(&replica_url);

    let progress: Arc<Progress> = Arc::default();
    let options = Options {
        max_replica_lag: Some(LIMIT),
        profile: reseal::rotation::profile::Profile::Gentle,
        ..Options::default()
    };
    let store = home.store();
    let rotation = Rotation::new(&home, &old, &new);
    let reason = || progress.throttle.closed().first().map(|(reason, _)| *reason);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| rotation.here_watched(&store, options, &progress));
        wait_until("the lag is seen", || reason() == Some(Reason::ReplicaLag));
        let (_, why) = progress.throttle.closed().remove(0);
        assert!(why.contains("lags") && why.contains("the limit is 0.5 s"), "{why}");
        let mut live = home.connect();
        let mut rows = || live.totals().map_or(0, |totals| totals.rows_reencrypted);
        wait_until("the batch under way has ended", || {
            let before = rows();
            std::thread::sleep(Duration::from_millis(300));
            rows() == before
        });
        let waiting = rows();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(rows(), waiting, "no batch is written while the replica lags");
        assert!(waiting < 4_000, "the lag came too late to prove anything");

        // A replica that goes away has not caught up.
        server.kill_replica();
        wait_until("it is noticed", || reason() == Some(Reason::ReplicaUnknown));
        assert_eq!(rows(), waiting, "nor while nothing is known of it");
        let (_, why) = progress.throttle.closed().remove(0);
        assert!(why.contains("not known"), "{why}");

        // Started again it replays.
        server.restart_replica();
        let report = running.join().unwrap().unwrap();
        assert!(report.verified);
    });
    assert_eq!(reason(), None);
    for (reason, waited) in progress.throttle.waited() {
        let is_expected = matches!(reason, Reason::ReplicaLag | Reason::ReplicaUnknown);
        assert_eq!(waited > Duration::ZERO, is_expected, "{}", reason.name());
    }
}

/// The replica replays nothing from now on.
fn pause(url: &str) {
    Live::open(url).execute("SELECT pg_wal_replay_pause()");
    let paused = "SELECT 'x' WHERE pg_get_wal_replay_pause_state() = 'paused'";
    wait_until("the replica stands still", || texts_at(url, paused).len() == 1);
}

/// The first column of an answer.
fn texts_at(url: &str, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection as _;
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
        query.fetch_all(&mut connection).await.unwrap()
    })
}

/// The URL of the same database for another user.
fn url_of(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}:{password}@{place}")
}

/// A user who owns the database and its tables and no more.
fn clerk(database: &Database, tables: &[&str]) -> String {
    let password = support::passphrase();
    let url = database.url();
    let (_, name) = url.rsplit_once('/').unwrap();
    database.execute(&format!(
        "CREATE ROLE clerk LOGIN PASSWORD '{password}'; ALTER DATABASE \"{name}\" OWNER TO clerk"
    ));
    for table in tables {
        database.execute(&format!("ALTER TABLE {table} OWNER TO clerk"));
    }
    url_of(&url, "clerk", &password)
}

fn wait_until_followed(database: &Database) {
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL";
    wait_until("the replica follows", || database.count(follows) == 1);
}

const GRANT: &str = "GRANT pg_monitor TO \"clerk\"";

/// The values of a table as they are on the replica.
fn on_replica(url: &str, database: &str, (table, column): (&str, &str)) -> Vec<(i64, String)> {
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/{database}");
    let lines = texts_at(&url, &format!("SELECT id || '|' || {column} FROM {table} ORDER BY id"));
    House::by_id(lines)
}

#[test]
fn heavy_a_key_stays_with_readers_until_their_replica_has_replayed_what_was_moved() {
    let Some((server, replica_url)) = replicated_postgres() else {
        return;
    };
    let house = House::build_in(server.database(), 30);
    let app = house.app("web-1");
    let url = house.url();
    let (_, database) = url.rsplit_once('/').unwrap();
    let mut replica = Live::open(&replica_url);
    let caught_up = "SELECT 'x' FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_flush_lsn()";
    wait_until("the replica has the tables", || house.texts(caught_up).len() == 1);
    pause(&replica_url);

    // Everything is moved and verified, and still the replica shows values under the old key.
    let waited = house.rotate(&["--gate-timeout", "10s"]);
    assert_eq!(waited.code, Some(7), "{}", waited.text());
    assert_eq!(waited.document["verified"], true, "{}", waited.text());
    let needs = waited.document["needs"].as_array().unwrap();
    assert_eq!((needs.len(), &needs[0]["name"]), (1, &"replicas".into()), "{}", waited.text());
    assert!(waited.text().contains("bytes to replay"), "{}", waited.text());
    assert!(
        waited.document["throttled_seconds"]["replica-replay"].as_f64().unwrap() > 5.0,
        "{}",
        waited.text()
    );
    let old = house.keys()[0];
    assert!(old.1 == KeyState::Retiring && !old.2 && old.3, "{old:?}");
    for at in TABLES {
        let values = on_replica(&replica_url, database, at);
        assert_ne!(values, house.values(at.0, at.1), "the replica is behind");
        House::assert_opens(&app, at, values);
    }
    // That is what status says meanwhile, and Ctrl-C ends the wait.
    let waiting = house.start(&["rotate", KEYSET, "--yes", "--gate-timeout", "80s"]);
    let status = || house.run(&["status", "--database", "env:DATABASE_URL"]);
    wait_until("status says it", || {
        let status = status();
        let runs = status.document["runs"].as_array().unwrap();
        runs.iter()
            .any(|run| run["keyset"] == KEYSET && run["waits_for"].to_string().contains("bytes to replay"))
    });
    waiting.signal(Signal::INT);
    let stopped = waiting.wait();
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    assert_eq!(status().document["runs"], serde_json::json!([]), "nobody runs it any more");
    let by_hand = ["keys", "retire", KEYSET, "--config", "reseal.toml"];
    let refused = house.run(&by_hand);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(
        refused.text().contains("replicas are not known to have replayed"),
        "{}",
        refused.text()
    );

    // One that is away has not caught up either, as long as the server keeps its place.
    house.execute("SELECT pg_create_physical_replication_slot('away', true)");
    replica.execute("SELECT pg_wal_replay_resume()");
    house.execute("CREATE TABLE later (x int)");
    let refused = house.rotate(&["--gate-timeout", "10s", "--accept", "slot:away"]);
    assert_eq!(refused.code, Some(7), "{}", refused.text());
    assert!(refused.text().contains("slot away"), "{}", refused.text());
    house.execute("SELECT pg_drop_replication_slot('away')");

    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let old = house.keys()[0];
    assert!(old.2 && !old.3, "{old:?}");
    for at in TABLES {
        House::assert_opens(&app, at, on_replica(&replica_url, database, at));
    }

    // And none is wiped while a replica stands still, wherever it stands.
    house.configure("[policy]\nbackup_horizon = \"1s\"\n");
    std::thread::sleep(Duration::from_millis(1_100));
    pause(&replica_url);
    house.execute("INSERT INTO later VALUES (1)");
    let destroy = [
        "keys",
        "destroy",
        KEYSET,
        &old.0.to_string(),
        "--config",
        "reseal.toml",
        "--yes",
    ];
    let refused = house.run(&destroy);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(refused.document["needs"][0]["name"], "replicas", "{}", refused.text());
    let wiped = house.run(&[&destroy[..], &["--no-replica-check"]].concat());
    assert_eq!(wiped.code, Some(0), "{}", wiped.text());
}

#[test]
fn heavy_whoever_waits_for_a_replica_says_so_everywhere_and_can_be_stopped() {
    let Some((server, replica_url)) = replicated_postgres() else {
        return;
    };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(5_000, &old);
    wait_until_followed(home.database().unwrap());
    pause(&replica_url);
    let rotation = Rotation::new(&home, &old, &new);
    // Seconds of work, so that lag has grown beyond its limit long before the end.
    let slowly = ["--profile", "gentle", "--batch-rows", "2", "--workers", "1"];
    let waiting = Running::start(rotation.command(&[&slowly[..], &["--max-replica-lag", "500ms"]].concat()));
    let status = || {
        let mut command = support::reseal_process();
        command.args(["status", "--database", "env:DATABASE_URL", "--json"]);
        Running::start({
            command.env("DATABASE_URL", home.url());
            command
        })
        .wait()
    };
    let waits = || status().document["runs"][0]["waits_for"][0].as_str().map(str::to_owned);
    wait_until("status says it", || {
        waits().is_some_and(|why| why.contains("the limit is 0.5 s"))
    });
    assert!(status().stderr.contains("WAITS: replica"), "{}", status().text());
    // A line is printed every ten seconds.
    std::thread::sleep(Duration::from_secs(11));
    waiting.signal(Signal::INT);
    let stopped = waiting.wait();
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    assert!(stopped.stderr.contains("WAITING: replica"), "{}", stopped.stderr);
    let waited = &stopped.document["throttled_seconds"]["replica-lag"];
    assert!(waited.as_f64().unwrap() > 5.0, "{}", stopped.text());
    assert_eq!(status().document["runs"], serde_json::json!([]), "nobody runs it any more");
    assert!(home.connect().rows_moved() < 5_000);

    Live::open(&replica_url).execute("SELECT pg_wal_replay_resume()");
    rotation.complete(&["--max-replica-lag", "30s"]);
}

#[test]
fn heavy_a_user_who_may_not_see_replicas_is_told_what_to_grant() {
    let Some((server, _)) = replicated_postgres() else {
        return;
    };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(30, &old);
    let database = home.database().unwrap();
    wait_until_followed(database);
    let url = clerk(database, &["people"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let look = |url: &str| -> Vec<Replica> {
        let store = PostgresStore::new(url, "reseal test").unwrap();
        runtime.block_on(async { store.replicas().unwrap().look().await.unwrap() })
    };
    assert!(matches!(look(&database.url())[..], [Replica { lag: Lag::Is(_), .. }]));
    assert!(matches!(look(&url)[..], [Replica { lag: Lag::Hidden, .. }]));

    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(url);
    let refused = rotation.run(&["--max-replica-lag", "2s"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(
        refused.stderr.contains(GRANT) && refused.stderr.contains("nothing was touched"),
        "{}",
        refused.text()
    );
    assert!(home.connect().totals().is_none(), "nothing was touched");
    database.execute(GRANT);
    rotation.complete(&["--max-replica-lag", "2s"]);
}

#[test]
fn heavy_a_replica_that_goes_away_during_a_rotation_has_not_caught_up() {
    let Some((server, _)) = replicated_postgres() else {
        return;
    };
    let database = server.database();
    wait_until_followed(&database);
    drop(database);
    let house = House::build_in(server.database(), 30);
    let hour = Duration::from_secs(3600);
    house.ack("php-1", 1, hour);
    let running = house.rotate_until("introduce", &["--gate-timeout", "15s"]);
    server.kill_replica();
    let followed = "SELECT 'x' FROM pg_stat_replication";
    wait_until("the server notices", || house.texts(followed).is_empty());
    house.ack("php-1", 99, hour);
    let left = running.wait();
    assert_eq!(left.code, Some(7), "{}", left.text());
    assert_eq!(left.document["needs"][0]["name"], "replicas", "{}", left.text());
    assert!(left.text().contains("is away"), "{}", left.text());
    assert!(!house.keys()[0].2, "{:?}", house.keys());
    server.restart_replica();
    let database = server.database();
    wait_until_followed(&database);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(house.keys()[0].2, "{:?}", house.keys());
}

#[test]
fn heavy_a_keyset_is_not_rotated_for_hours_to_find_that_replicas_are_hidden() {
    let Some((server, _)) = replicated_postgres() else {
        return;
    };
    let database = server.database();
    wait_until_followed(&database);
    let house = House::build_in(server.database(), 30);
    drop(database);
    let database = house.database().unwrap();
    let url = clerk(database, &TABLES.map(|(table, _)| table));
    let run = |arguments: &[&str]| {
        let mut command = house.command(arguments);
        command.env("DATABASE_URL", &url);
        Running::start(command).wait()
    };
    let rotate = ["rotate", KEYSET, "--yes", "--expect-instances", "0"];
    let refused = run(&rotate);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    for said in [GRANT, "--no-replica-check", "touched nothing"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.text());
    }
    assert!(!house.has_state() && house.keys().len() == 1, "nothing was touched");
    let refused = run(&[&rotate[..], &["--no-replica-check", "--max-replica-lag", "2s"]].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.stderr.contains(GRANT), "{}", refused.text());
    assert!(!house.has_state() && house.keys().len() == 1, "nothing was touched");

    // An emergency is not put off for that; only the old key stays, and nobody waits for what cannot come to light.
    let left = run(&[&rotate[..], &["--compromised"]].concat());
    assert_eq!(left.code, Some(7), "{}", left.text());
    assert_eq!(left.document["needs"][0]["name"], "replicas", "{}", left.text());
    assert_eq!(left.document["throttled_seconds"]["replica-replay"], 0.0, "{}", left.text());
    assert!(left.stderr.contains(GRANT), "{}", left.text());
    assert!(!house.keys()[0].2, "{:?}", house.keys());
    let by_hand = run(&["keys", "retire", KEYSET, "--config", "reseal.toml"]);
    assert_eq!(by_hand.code, Some(4), "{}", by_hand.text());
    assert!(by_hand.stderr.contains(GRANT), "{}", by_hand.text());
    database.execute(GRANT);
    let finished = run(&[&rotate[..], &["--compromised"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(house.keys()[0].2, "{:?}", house.keys());
}

#[test]
fn the_option_is_for_databases_that_have_replicas() {
    let home = Home::sqlite("wal");
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(3, &old);
    let rotation = Rotation::new(&home, &old, &new);
    let refused = rotation.run(&["--max-replica-lag", "2s"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("without --max-replica-lag"), "{}", refused.text());
    for nonsense in ["2", "0s", "99ms", "2h", "-1s", "soon"] {
        let refused = rotation.run(&[&format!("--max-replica-lag={nonsense}")]);
        assert_eq!(refused.code, Some(2), "{nonsense}: {}", refused.text());
    }
    assert!(home.connect().totals().is_none(), "nothing was touched");

    let Some(home) = Home::postgres() else { return };
    home.fill(3, &old);
    let finished = Rotation::new(&home, &old, &new).complete(&["--max-replica-lag", "500ms"]);
    assert_eq!(
        finished.document["throttled_seconds"],
        serde_json::json!({ "replica-lag": 0.0, "replica-unknown": 0.0, "replica-replay": 0.0, "paused": 0.0, "open-transactions": 0.0 })
    );
}
