//! Sessions inside a rotation: in Redis, in a table, and those of tokens.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Commands;
use reseal::key::{KeyState, write_private};
use reseal::store::ledger::ending::EndingRecord;
use serde_json::Value;

use super::house::{House, Kind, PATIENT, eventually};
use crate::support::{PrivateRedis, private_redis};

const HOUR: Duration = Duration::from_secs(3600);
const AT_ONCE: &[&str] = &["--compromised", "--evict-after", "60s", "--gate-timeout", "60s"];
const OLD: i64 = 3_000;

/// A house with sessions of before everywhere.
struct Site {
    house: House,
    redis: PrivateRedis,
}

/// The times at which users logged in, by the clock of Redis in microseconds, and their keys.
type Logins = Vec<(i128, String)>;

impl Site {
    fn build(kind: Kind, web: &str, rest: &str) -> Option<Self> {
        let redis = private_redis()?;
        let house = House::build(kind, 100)?;
        write_private(&house.path("redis-url"), redis.url().as_bytes(), false).unwrap();
        house.configure(&format!(
            "[policy]\nbackup_horizon = \"35d\"\n\
             [session.web]\nredis = \"file:redis-url\"\nmatch = \"session:*\"\n{web}\
             [session.web_rows]\ndatabase = \"main\"\ntable = \"shop_session\"\nkey = \"id\"\n{rest}"
        ));
        let mut connection = redis.connect();
        let mut pipeline = redis::pipe();
        for number in 0..OLD {
            pipeline.set(format!("session:old-{number}"), "a user").ignore();
        }
        pipeline.set("cart:1", "no session").ignore();
        pipeline.exec(&mut connection).unwrap();
        house.execute("CREATE TABLE shop_session (id VARCHAR(40) PRIMARY KEY, data TEXT)");
        let rows: Vec<String> = (0..OLD).map(|number| format!("('old-{number}', 'a user')")).collect();
        house.execute(&format!("INSERT INTO shop_session VALUES {}", rows.join(", ")));
        Some(Self { house, redis })
    }

    fn in_redis(&self) -> HashSet<String> {
        let keys: Vec<String> = self.redis.connect().keys("session:*").unwrap();
        keys.into_iter().collect()
    }

    fn in_table(&self) -> HashSet<String> {
        let rows = self.house.texts("SELECT id FROM shop_session");
        rows.into_iter().collect()
    }

    fn count_old(sessions: &HashSet<String>) -> usize {
        sessions.iter().filter(|key| key.contains("old-")).count()
    }

    /// A user logs in, in both stores, under this name.
    fn log_in(&self, name: &str) {
        let () = self.redis.connect().set(format!("session:{name}"), "a user").unwrap();
        self.house
            .execute(&format!("INSERT INTO shop_session VALUES ('{name}', 'a user')"));
    }

    /// Users log in to Redis all along, until they are told to stop.
    fn storm(&self, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Logins> {
        let (mut connection, stop) = (self.redis.connect(), Arc::clone(stop));
        std::thread::spawn(move || {
            let mut logins = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let key = format!("session:new-{}", logins.len());
                let mut pipeline = redis::pipe();
                pipeline.atomic().cmd("TIME").set(&key, "a user").ignore();
                let ((seconds, microseconds),): ((i128, i128),) = pipeline.query(&mut connection).unwrap();
                logins.push((seconds * 1_000_000 + microseconds, key));
                std::thread::sleep(Duration::from_millis(1));
            }
            logins
        })
    }

    /// Whether a run has recorded the cut-off of these sessions, and not their end.
    fn is_under_way(&self, session: &str) -> bool {
        let endings = self.house.endings();
        endings
            .iter()
            .any(|ending| ending.name.session == session && ending.ended_at.is_none())
    }
}

/// What a document says of the sessions of one store.
fn sessions<'d>(document: &'d Value, name: &str) -> &'d Value {
    let all = document["sessions"].as_array();
    let all = all.unwrap_or_else(|| panic!("no sessions: {document}"));
    all.iter()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {document}"))
}

fn microseconds(document: &Value, name: &str) -> i128 {
    let cut_off: jiff::Timestamp = sessions(document, name)["cut_off"].as_str().unwrap().parse().unwrap();
    i128::from(cut_off.as_microsecond())
}

pub fn a_leak_ends_every_session_before_values_are_moved_and_no_login_of_after(kind: Kind) {
    let Some(place) = Site::build(kind, "", "[session.api]\nfile = \"not-before.json\"\n") else {
        return;
    };
    let house = &place.house;
    let app = house.app("web-1");
    let planned = house.run(&["plan"]);
    assert_eq!(planned.code, Some(0), "{}", planned.text());
    assert_eq!(sessions(&planned.document, "web")["sessions"], OLD);
    assert_eq!(sessions(&planned.document, "web_rows")["sessions"], OLD);
    assert_eq!(place.in_table().len(), OLD as usize, "a plan ends nothing");

    let stop = Arc::new(AtomicBool::new(false));
    let storm = place.storm(&stop);
    // Somebody has not switched yet: the holder of the leaked key could still log in there.
    house.ack("php-1", 2, HOUR);
    let mut running = house.rotate_until("promote", AT_ONCE);
    eventually("the promotion is durable", || {
        (house.keys()[1].1 == KeyState::Primary).then_some(())
    });
    eventually("the application follows", || (app.handle.revision() == 3).then_some(()));
    assert!(running.is_running());
    assert!(
        house.endings().is_empty(),
        "no cut-off is taken before every writer has switched"
    );
    assert_eq!(Site::count_old(&place.in_redis()), OLD as usize);
    house.ack("php-1", 99, HOUR);
    eventually("values are moved", || (house.moved() > 0).then_some(()));
    assert_eq!(Site::count_old(&place.in_redis()), 0, "before the first value is moved");
    assert_eq!(Site::count_old(&place.in_table()), 0);
    let finished = running.wait();
    stop.store(true, Ordering::SeqCst);
    let logins = storm.join().unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.text());

    let cut_off = microseconds(&finished.document, "web");
    let alive = place.in_redis();
    assert!(logins.iter().any(|(at, _)| *at < cut_off) && logins.iter().any(|(at, _)| *at > cut_off));
    for (at, key) in &logins {
        assert_eq!(alive.contains(key), *at > cut_off, "{key} at {at}, cut off at {cut_off}");
    }
    let web = sessions(&finished.document, "web");
    assert_eq!(
        (&web["state"], &web["left"], &web["decided_by"]),
        (&"ended".into(), &0.into(), &"new-key-events".into())
    );
    assert_eq!(web["matched"], web["ended"], "{web}");
    assert_eq!(sessions(&finished.document, "web_rows")["ended"], OLD);
    // Tokens that were issued before the mark are dead, and the mark has passed.
    let marks: Value = serde_json::from_slice(&std::fs::read(house.path("not-before.json")).unwrap()).unwrap();
    let api: jiff::Timestamp = sessions(&finished.document, "api")["cut_off"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(marks["all"], api.as_second());
    assert!(api <= jiff::Timestamp::now());
    assert_eq!(place.redis.run::<String>("GET cart:1"), "no session");
    assert_eq!(house.snapshots(), 0, "nothing is kept of what existed");
    house.assert_readable(&app);
}

pub fn a_killed_ending_goes_on_with_its_cut_off(kind: Kind) {
    let Some(place) = Site::build(kind, "", "") else { return };
    let house = &place.house;
    let app = house.app("web-1");
    // It announces new keys already, and takes no writes for now: nothing can be ended, and the cut-offs stand.
    let () = place.redis.run("CONFIG SET notify-keyspace-events En");
    let () = place.redis.run("CLIENT PAUSE 60000 WRITE");
    let mut running = house.rotate_until("promote", AT_ONCE);
    eventually("the cut-offs are durable", || {
        (place.is_under_way("web") && place.is_under_way("web_rows")).then_some(())
    });
    assert!(running.kill());
    eventually("its connections are closed", || {
        let clients: String = place.redis.run("CLIENT LIST");
        (!clients.contains("cmd=unlink")).then_some(())
    });
    let () = place.redis.run("CLIENT UNPAUSE");
    assert_eq!(Site::count_old(&place.in_redis()), OLD as usize, "none was ended");
    let before = house.endings();
    // Whoever logs in while nobody is there to watch stays.
    place.log_in("while-dead");

    // The next run ends the first store, and dies while it waits for requests that were under way in the second.
    let mut running = house.rotate_until("promote", AT_ONCE);
    eventually("the table is next", || {
        (!place.is_under_way("web") && place.is_under_way("web_rows") && Site::count_old(&place.in_table()) == 0).then_some(())
    });
    assert!(running.kill());
    assert_eq!(Site::count_old(&place.in_redis()), 0);
    assert_eq!(house.moved(), 0);
    place.log_in("while-dead-again");
    // A request that hung since then writes an old session back.
    house.execute("INSERT INTO shop_session VALUES ('old-7', 'a user')");

    let finished = house.rotate(AT_ONCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let new = |prefix: &str| HashSet::from(["while-dead", "while-dead-again"].map(|name| format!("{prefix}{name}")));
    assert_eq!(place.in_redis(), new("session:"));
    assert_eq!(place.in_table(), new(""));
    let after = house.endings();
    let cut_offs = |endings: &[EndingRecord]| endings.iter().map(|ending| ending.cut_off_us).collect::<Vec<_>>();
    assert_eq!(cut_offs(&after), cut_offs(&before), "one cut-off, whoever goes on");
    assert_eq!(sessions(&finished.document, "web")["state"], "ended");
    assert_eq!(house.snapshots(), 0);
    house.assert_readable(&app);
}

pub fn without_the_store_of_sessions_no_value_is_moved(kind: Kind) {
    let Some(place) = Site::build(kind, "", "") else { return };
    let house = &place.house;
    let app = house.app("web-1");
    let leaked = app.handle.primary();
    // Nobody listens there.
    write_private(&house.path("redis-url"), b"redis://127.0.0.1:1/0", true).unwrap();
    let brief = [AT_ONCE, &["--retry-for", "1"]].concat();
    let stopped = house.rotate(&brief);
    assert_eq!(stopped.code, Some(8), "{}", stopped.text());
    let text = stopped.text();
    for part in [
        "sessions web",
        "sessions web_rows are ended",
        "no value is moved",
        "--no-sessions",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(sessions(&stopped.document, "web")["state"], "not-ended");
    assert_eq!(sessions(&stopped.document, "web_rows")["state"], "ended");
    // The leak is acted on all the same, and no other store waits.
    assert_eq!(house.keys()[0], (leaked, KeyState::Compromised, false, true));
    assert_eq!(house.moved(), 0);
    assert!(place.in_table().is_empty());

    // By schedule, where nothing is urgent, nothing would have begun. Here the operator gives his word instead.
    let alone = house.rotate(&[AT_ONCE, &["--no-sessions"]].concat());
    assert_eq!(alone.code, Some(0), "{}", alone.text());
    assert_eq!(sessions(&alone.document, "web")["state"], "not-ended");
    assert_eq!(place.in_redis().len(), OLD as usize);
    house.assert_readable(&app);
}

pub fn a_schedule_ends_only_what_it_is_told_to(kind: Kind) {
    let Some(place) = Site::build(kind, "in_scheduled = true\n", "") else {
        return;
    };
    let house = &place.house;
    let app = house.app("web-1");
    let reachable = std::fs::read(house.path("redis-url")).unwrap();
    write_private(&house.path("redis-url"), b"redis://127.0.0.1:1/0", true).unwrap();
    let refused = house.rotate(&[PATIENT, &["--retry-for", "1"]].concat());
    assert_eq!(refused.code, Some(8), "{}", refused.text());
    assert!(refused.text().contains("touched nothing"), "{}", refused.text());
    assert_eq!(house.keys().len(), 1);
    write_private(&house.path("redis-url"), &reachable, true).unwrap();

    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(place.in_redis().is_empty());
    assert_eq!(place.in_table().len(), OLD as usize);
    assert_eq!(finished.document["sessions"].as_array().unwrap().len(), 1);
    // The way back ends nothing.
    place.log_in("since");
    let back = house.rotate(&[PATIENT, &["--rollback"]].concat());
    assert_eq!(back.code, Some(0), "{}", back.text());
    assert_eq!(back.document["sessions"], serde_json::json!([]));
    assert_eq!(place.in_redis(), HashSet::from(["session:since".to_owned()]));
    house.assert_readable(&app);
}

pub fn while_sessions_are_left_no_value_is_moved(kind: Kind) {
    let Some(place) = Site::build(kind, "", "") else { return };
    let house = &place.house;
    let app = house.app("web-1");
    // Something keeps one session alive, whoever ends it.
    let (keep, let_go) = match kind {
        Kind::Sqlite => (
            "CREATE TRIGGER keep BEFORE DELETE ON shop_session WHEN old.id = 'old-7' BEGIN SELECT RAISE(IGNORE); END",
            "DROP TRIGGER keep",
        ),
        Kind::Postgres => (
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF old.id = 'old-7' THEN RETURN NULL; END IF; RETURN old; END $$;
             CREATE TRIGGER keep BEFORE DELETE ON shop_session FOR EACH ROW EXECUTE FUNCTION keep()",
            "DROP TRIGGER keep ON shop_session",
        ),
    };
    house.execute(keep);
    let stopped = house.rotate(AT_ONCE);
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    let rows = sessions(&stopped.document, "web_rows");
    assert_eq!((&rows["state"], &rows["left"]), (&"begun".into(), &1.into()), "{rows}");
    assert_eq!(sessions(&stopped.document, "web")["state"], "ended");
    assert_eq!(house.moved(), 0);
    assert_eq!(place.in_table(), HashSet::from(["old-7".to_owned()]));

    place.log_in("since");
    house.execute(let_go);
    let finished = house.rotate(AT_ONCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(place.in_table(), HashSet::from(["since".to_owned()]));
    let rows = sessions(&finished.document, "web_rows");
    assert_eq!((&rows["ended"], &rows["left"]), (&OLD.into(), &0.into()), "{rows}");
    house.assert_readable(&app);
}

pub fn a_rotation_that_becomes_an_emergency_ends_sessions_again(kind: Kind) {
    let Some(place) = Site::build(kind, "in_scheduled = true\n", "") else {
        return;
    };
    let house = &place.house;
    let app = house.app("web-1");
    let slowly = [
        "--profile",
        "gentle",
        "--batch-rows",
        "5",
        "--workers",
        "1",
        "--gate-timeout",
        "60s",
    ];
    let mut running = house.rotate_until("re-encrypt", &slowly);
    assert!(running.kill());
    assert!(place.in_redis().is_empty());
    place.log_in("the-attacker");
    let finished = house.rotate(AT_ONCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(place.in_redis().is_empty() && place.in_table().is_empty());
    house.assert_readable(&app);
}
