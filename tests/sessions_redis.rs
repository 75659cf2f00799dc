//! Sessions in Redis: the old ones end, the new ones stay, and no other key is touched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use redis::Commands;
use serde_json::Value;
use support::rotation::wait_until;
use support::{Canary, PrivateRedis, node, private_redis, python, random_bytes, reseal, tempdir};

/// A Redis server and a configuration that names its sessions `web`.
struct Desk {
    folder: tempfile::TempDir,
    redis: PrivateRedis,
}

impl Desk {
    fn new(section: &str) -> Option<Self> {
        let desk = Self {
            folder: tempdir(),
            redis: private_redis()?,
        };
        let config = desk.folder.path().join("reseal.toml");
        fs::write(&config, format!("[session.web]\nredis = \"env:REDIS_URL\"\n{section}\n")).unwrap();
        fs::set_permissions(&config, PermissionsExt::from_mode(0o600)).unwrap();
        Some(desk)
    }

    fn invalidate_at(&self, url: &str, arguments: &str, exit: i32) -> Output {
        let mut command = reseal();
        command.current_dir(&self.folder).env("REDIS_URL", url);
        command
            .args(["sessions", "invalidate", "web", "--yes", "--json"])
            .args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {complaint}");
        output
    }

    /// Runs it, expecting an exit code; gives the counts of the store.
    fn invalidate(&self, arguments: &str, exit: i32) -> Value {
        let output = self.invalidate_at(self.redis.url(), arguments, exit);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["stores"][0].clone()
    }

    fn set(&self, keys: impl IntoIterator<Item = String>) {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.set(key, "value").ignore();
        }
        pipeline.exec(&mut self.redis.connect()).unwrap();
    }

    fn keys(&self, pattern: &str) -> HashSet<Vec<u8>> {
        self.redis.run::<HashSet<Vec<u8>>>(&format!("KEYS {pattern}"))
    }
}

fn id() -> String {
    random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn sessions_end_and_every_other_key_stays() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let sessions: Vec<_> = (0..2500).map(|_| format!("session:{}", id())).collect();
    let others: Vec<_> = ["sessions:x", "session", "xsession:y", "cache:session:z"]
        .map(str::to_owned)
        .to_vec();
    desk.set(sessions.iter().chain(&others).cloned());
    // Other types, and a name that is no text.
    let mut connection = desk.redis.connect();
    let _: () = connection.hset("session:hash", "a", 1).unwrap();
    let _: () = connection.rpush("session:list", 1).unwrap();
    let _: () = connection.set(b"session:\xff\x00\n\"".as_slice(), 1).unwrap();
    let _: () = connection.set(b"\xffsession:".as_slice(), 1).unwrap();

    let counted = desk.invalidate("--dry-run", 0);
    assert_eq!((&counted["matched"], &counted["ended"]), (&2503.into(), &0.into()));
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 2508);

    let ended = desk.invalidate("", 0);
    assert_eq!(
        (&ended["ended"], &ended["left"], &ended["decided_by"]),
        (&2503.into(), &0.into(), &"new-key-events".into())
    );
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 5);
    for key in others {
        assert!(connection.exists::<_, bool>(&key).unwrap(), "{key} is gone");
    }
    // The setting that tells new keys is as it was.
    assert_eq!(desk.redis.run::<Vec<String>>("CONFIG GET notify-keyspace-events")[1], "");
    assert_eq!(desk.invalidate("", 0)["ended"], 0);
}

#[test]
fn whoever_logs_in_meanwhile_stays_and_what_comes_back_is_ended_again() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let old: HashSet<Vec<u8>> = (0..60_000).map(|_| format!("session:{}", id()).into_bytes()).collect();
    desk.set(old.iter().map(|key| String::from_utf8(key.clone()).unwrap()));
    let stop = AtomicBool::new(false);
    let (logins, ended) = std::thread::scope(|scope| {
        // Each with its time on the server's clock, which is the clock of the cut-off.
        let logins = scope.spawn(|| {
            let mut connection = desk.redis.connect();
            let mut logins = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let key = format!("session:{}", id());
                let mut login = redis::pipe();
                login.atomic().cmd("TIME").set(&key, 1).ignore();
                let ((seconds, microseconds),): ((i64, i64),) = login.query(&mut connection).unwrap();
                logins.push((seconds * 1_000_000 + microseconds, key.into_bytes()));
            }
            logins
        });
        // Requests under way: each writes old sessions back as soon as they are gone.
        let requests = scope.spawn(|| {
            let mut connection = desk.redis.connect();
            let mut came_back = 0;
            for key in old.iter().take(300) {
                for _ in 0..20_000 {
                    if stop.load(Ordering::Relaxed) || !connection.exists::<_, bool>(key).unwrap() {
                        break;
                    }
                }
                if !stop.load(Ordering::Relaxed) {
                    let _: () = connection.set(key, 1).unwrap();
                    came_back += 1;
                }
                if came_back == 20 {
                    break;
                }
            }
            came_back
        });
        let ended = desk.invalidate("", 0);
        stop.store(true, Ordering::Relaxed);
        assert!(requests.join().unwrap() > 0, "no request was under way");
        (logins.join().unwrap(), ended)
    });
    let present = desk.keys("session:*");
    let cut_off: jiff::Timestamp = ended["cut_off"].as_str().unwrap().parse().unwrap();
    let new = logins.into_iter().filter(|(at, _)| *at > cut_off.as_microsecond());
    let new: Vec<_> = new.map(|(_, key)| key).collect();
    assert!(new.len() > 100, "only {} logins happened", new.len());
    let lost = new.iter().filter(|key| !present.contains(*key)).count();
    assert_eq!(lost, 0, "of {} new sessions: {ended}", new.len());
    assert_eq!(present.intersection(&old).count(), 0, "old sessions are left: {ended}");
    assert_eq!(ended["left"], 0);
    assert!(ended["created_since"].as_u64().unwrap() > 0);
}

#[test]
fn a_pattern_that_matches_everything_must_be_meant() {
    let Some(desk) = Desk::new("match = \"*\"") else { return };
    desk.set(["a".to_owned(), "b".to_owned()]);
    desk.invalidate("", 4);
    desk.invalidate("--dry-run", 4);
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 2);
    assert_eq!(desk.invalidate("--all-sessions", 0)["ended"], 2);
}

#[test]
fn a_user_who_may_not_configure_is_served_and_told() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let secret = id();
    desk.redis.run::<()>(&format!(
        "ACL SETUSER ender on >{secret} ~session:* &* -@all +scan +unlink +time +hello +client +auth +ping +select"
    ));
    desk.set((0..10).map(|at| format!("session:{at}")));
    let url = desk.redis.url().replace("default:", "ender:");
    let (head, tail) = url.split_once("ender:").unwrap();
    let host = tail.split_once('@').unwrap().1;
    let url = |password: &str| format!("{head}ender:{password}@{host}");
    let output = desk.invalidate_at(&url(&secret), "", 0);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&document["stores"][0]["ended"], &document["stores"][0]["decided_by"]),
        (&10.into(), &"scan".into())
    );

    let wrong = id();
    let output = desk.invalidate_at(&url(&wrong), "", 3);
    for text in [&output.stdout, &output.stderr] {
        Canary::new("the password", wrong.as_bytes()).assert_absent("output", text);
    }
    desk.redis.run::<()>("ACL SETUSER ender -unlink");
    desk.set(["session:x".to_owned()]);
    desk.invalidate_at(&url(&secret), "", 3);
}

#[test]
fn servers_that_cannot_be_used_are_named_and_nothing_is_lost() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    desk.set(["session:x".to_owned()]);
    desk.invalidate_at("redis://default:x@127.0.0.1:1/0", "", 8);
    desk.invalidate_at(&desk.redis.url().replace("redis://", "rediss://"), "", 8);
    desk.invalidate_at("redis://default:x@redis.example.org/0", "", 4);
    desk.invalidate_at("rediss://default:x@127.0.0.1/0#insecure", "", 4);
    desk.invalidate_at("http://127.0.0.1", "", 3);
    // No password at all.
    let (head, tail) = desk.redis.url().split_once("default:").unwrap();
    desk.invalidate_at(&format!("{head}{}", tail.split_once('@').unwrap().1), "", 3);
    desk.redis.run::<()>("REPLICAOF 127.0.0.1 1");
    // Never the primary in this run: nothing was touched.
    desk.invalidate("", 4);
    desk.redis.run::<()>("REPLICAOF NO ONE");
    assert_eq!(desk.invalidate("", 0)["ended"], 1);
}

#[test]
fn one_user_or_one_tenant() {
    let Some(desk) = Desk::new("preset = \"connect-redis\"\ntenant_match = \"sess:{tenant}:*\"") else {
        return;
    };
    let mut connection = desk.redis.connect();
    for (key, value) in [
        ("sess:a", r#"{"cookie":{},"passport":{"user":4711}}"#),
        ("sess:b", r#"{"cookie":{},"passport":{"user":"4711"}}"#),
        ("sess:c", r#"{"cookie":{},"passport":{"user":47110}}"#),
        ("sess:d", r#"{"cookie":{}}"#),
        ("sess:acme:e", r#"{"cookie":{},"passport":{"user":1}}"#),
        ("sess:a*:f", r#"{"cookie":{},"passport":{"user":1}}"#),
    ] {
        let _: () = connection.set(key, value).unwrap();
    }
    assert_eq!(desk.invalidate("--user 4711", 0)["ended"], 2);
    // What does not tell whose it is stays, and the exit code says so.
    let _: () = connection
        .set("sess:large", format!("{{\"x\":\"{}\"}}", "x".repeat(100_000)))
        .unwrap();
    let _: () = connection.rpush("sess:list", 1).unwrap();
    assert_eq!(desk.invalidate("--user 1 --tenant nobody", 0)["ended"], 0);
    let unclear = desk.invalidate("--user 47110", 7);
    assert_eq!(unclear["ended"], 1);
    assert_eq!(desk.invalidate("--tenant a*", 0)["ended"], 1);
    assert!(connection.exists::<_, bool>("sess:acme:e").unwrap());
    desk.invalidate("--before 2026-01-01T00:00:00Z", 4);
}

#[test]
fn spring_indexes_go_with_their_sessions() {
    let Some(desk) = Desk::new("preset = \"spring-indexed\"") else {
        return;
    };
    let index = "spring:session:index:org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME";
    let mut connection = desk.redis.connect();
    let uuid = |number: u32| format!("8f14e45f-ceea-467f-9575-{number:012}");
    for (number, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        let id = uuid(number);
        let _: () = connection
            .hset(format!("spring:session:sessions:{id}"), "creationTime", 1)
            .unwrap();
        let _: () = connection.set(format!("spring:session:sessions:expires:{id}"), "").unwrap();
        // As the JDK serializes a string: magic, version, TC_STRING, length.
        let serialized = |text: &str| {
            [
                b"\xac\xed\x00\x05t\x00".as_slice(),
                &[u8::try_from(text.len()).unwrap()],
                text.as_bytes(),
            ]
            .concat()
        };
        let _: () = connection
            .sadd(
                "spring:session:expirations:1700000000000",
                serialized(&format!("expires:{id}")),
            )
            .unwrap();
        let _: () = connection.sadd(format!("{index}:{user}"), serialized(&id)).unwrap();
    }
    let ended = desk.invalidate("--user ada", 0);
    assert_eq!(ended["ended"], 2, "{ended}");
    let left = desk.keys("*");
    assert_eq!(left.len(), 4, "{}", left.len());
    assert!(left.contains(format!("spring:session:sessions:{}", uuid(3)).as_bytes()));
    assert_eq!(
        connection
            .scard::<_, u64>("spring:session:expirations:1700000000000")
            .unwrap(),
        1
    );
    assert_eq!(desk.invalidate("", 0)["ended"], 1);
    assert!(desk.keys("*").is_empty());
}

/// Runs the libraries of a framework against the server.
fn library(desk: &Desk, arguments: &str, input: &[u8]) -> Option<Vec<u8>> {
    let peer = if arguments.contains("express") {
        node("sessions.js")?
    } else {
        python("sessions.py")?
    };
    let mut command = assert_cmd::Command::from_std(peer);
    command.env("REDIS_URL", desk.redis.url()).args(arguments.split_whitespace());
    let output = command.write_stdin(input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

fn real_sessions_end(framework: &str, preset: &str) {
    let Some(desk) = Desk::new(&format!("preset = \"{preset}\"")) else {
        return;
    };
    let Some(old) = library(&desk, &format!("write {framework} 20"), b"") else {
        return;
    };
    let alive = |held: &[u8]| String::from_utf8(library(&desk, &format!("alive {framework}"), held).unwrap()).unwrap();
    assert_eq!(alive(&old).trim(), "20");
    // Neighbours in the same database.
    desk.set([
        ":1:users".to_owned(),
        "sessions".to_owned(),
        "django.contrib.sessions.cache".to_owned(),
    ]);
    assert_eq!(desk.invalidate("", 0)["ended"], 20);
    assert_eq!(alive(&old).trim(), "0");
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 3);
    let new = library(&desk, &format!("write {framework} 5"), b"").unwrap();
    assert_eq!(alive(&new).trim(), "5");
}

#[test]
fn sessions_of_django_end() {
    real_sessions_end("django", "django");
}

#[test]
fn sessions_of_flask_end() {
    real_sessions_end("flask", "flask-session");
}

#[test]
fn sessions_of_express_end() {
    real_sessions_end("express", "connect-redis");
}

#[test]
fn a_setting_that_a_killed_run_changed_is_restored_by_the_next() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let flags = || desk.redis.run::<Vec<String>>("CONFIG GET notify-keyspace-events")[1].clone();
    let noted = || desk.redis.run::<bool>("EXISTS reseal:notify-keyspace-events");
    desk.redis.run::<()>("CONFIG SET notify-keyspace-events Kx");
    let before = flags();
    let killed = || {
        desk.set((0..100).map(|number| format!("session:{number}")));
        let mut command = support::reseal_process();
        command.current_dir(&desk.folder).env("REDIS_URL", desk.redis.url());
        command.args(["sessions", "invalidate", "web", "--yes"]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        // It waits a second for requests that are under way.
        while desk.redis.run::<u64>("DBSIZE") > 1 || !noted() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(flags(), before, "what it changed is left");
    };
    killed();
    assert_eq!(desk.invalidate("", 0)["decided_by"], "new-key-events");
    assert_eq!((flags(), noted()), (before.clone(), false));
    // Whoever has set it himself meanwhile keeps what he set.
    killed();
    desk.redis.run::<()>("CONFIG SET notify-keyspace-events KEA");
    let own = flags();
    desk.invalidate("", 0);
    assert_eq!((flags(), noted()), (own, false));
}

/// A node of a cluster. Ends with the value.
struct Node {
    server: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let first = 20_000 + u16::from(random_bytes::<1>()[0]) * 16;
        let port = (first..).find(|port| is_free(*port) && is_free(port + 10_000)).unwrap();
        let folder = tempdir();
        let server = std::process::Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--cluster-enabled",
                "yes",
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .arg("--dir")
            .arg(folder.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let node = Self {
            server,
            port,
            _folder: folder,
        };
        node.until(&["PING"]);
        node
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn run(&self, words: &[&str]) -> redis::RedisResult<String> {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// Who has which slots since which epoch, as this node has heard.
    fn places(&self) -> Vec<String> {
        let told = self.run(&["CLUSTER", "NODES"]).unwrap();
        let mut places: Vec<String> = told
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                format!("{} {} {}", fields[0], fields[6], fields[8..].join(" "))
            })
            .collect();
        places.sort();
        places
    }

    /// Tries until the node does it: it starts, and a cluster takes seconds to agree.
    fn until(&self, words: &[&str]) -> String {
        for _ in 0..400 {
            if let Ok(answer) = self.run(words) {
                return answer;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the node never does {words:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn heavy_a_cluster_is_swept_node_by_node_and_not_while_slots_move() {
    let Some(desk) = Desk::new("match = \"session:*\"\ncluster = true") else {
        return;
    };
    // A server that is no cluster.
    desk.invalidate("", 4);
    let (one, two) = (Node::start(), Node::start());
    one.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).unwrap();
    two.run(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).unwrap();
    one.run(&["CLUSTER", "MEET", "127.0.0.1", &two.port.to_string()]).unwrap();
    let set = |key: &str| {
        let is_set = (0..400).any(|_| {
            let is_set = one.run(&["SET", key, "1"]).or_else(|_| two.run(&["SET", key, "1"])).is_ok();
            if !is_set {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            is_set
        });
        assert!(is_set, "the cluster never takes {key}");
    };
    set("other");
    for number in 0..300 {
        set(&format!("session:{number}"));
    }
    let output = desk.invalidate_at(&one.url(), "", 0);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&document["stores"][0]["ended"], &document["stores"][0]["left"]),
        (&300.into(), &0.into())
    );
    assert_eq!(document["stores"][0]["decided_by"], "new-key-events");

    set("session:x");
    let target = two.until(&["CLUSTER", "MYID"]);
    one.run(&["CLUSTER", "SETSLOT", "0", "MIGRATING", &target]).unwrap();
    desk.invalidate_at(&one.url(), "", 5);
    one.run(&["CLUSTER", "SETSLOT", "0", "STABLE"]).unwrap();
    desk.invalidate_at(&one.url(), "", 0);
}

/// Moves a slot with its keys from one node to the other, as `redis-cli --cluster reshard` does.
fn move_slot(slot: u16, from: &Node, to: &Node) -> redis::RedisResult<()> {
    let slot = slot.to_string();
    let (from_id, to_id) = (from.run(&["CLUSTER", "MYID"])?, to.run(&["CLUSTER", "MYID"])?);
    to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
    from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
    let mut connection = redis::Client::open(from.url()).unwrap().get_connection()?;
    loop {
        let mut keys = redis::cmd("CLUSTER");
        keys.arg("GETKEYSINSLOT").arg(&slot).arg(100);
        let keys: Vec<Vec<u8>> = keys.query(&mut connection)?;
        if keys.is_empty() {
            break;
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate
            .arg("127.0.0.1")
            .arg(to.port)
            .arg("")
            .arg(0)
            .arg(5000)
            .arg("KEYS")
            .arg(keys);
        migrate.exec(&mut connection)?;
    }
    to.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
    from.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
    Ok(())
}

#[test]
fn heavy_while_slots_move_nothing_is_called_done_that_is_not() {
    let Some(desk) = Desk::new("match = \"session:*\"\ncluster = true") else {
        return;
    };
    let (one, two) = (Node::start(), Node::start());
    one.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).unwrap();
    two.run(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).unwrap();
    one.run(&["CLUSTER", "MEET", "127.0.0.1", &two.port.to_string()]).unwrap();
    for node in [&one, &two] {
        wait_until("the cluster is whole", || {
            node.run(&["CLUSTER", "INFO"]).unwrap().contains("cluster_state:ok")
        });
    }
    let count = |node: &Node| {
        let mut connection = redis::Client::open(node.url()).unwrap().get_connection().unwrap();
        redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap()
    };
    // Sessions in one slot, which moves to and fro, and in others.
    let fill = |slots: &[&str]| {
        for (number, tag) in slots.iter().cycle().take(6000).enumerate() {
            let key = format!("session:{{{tag}}}:{number}");
            let set = one.run(&["SET", &key, "1"]).or_else(|_| two.run(&["SET", &key, "1"]));
            set.unwrap();
        }
    };
    fill(&["a", "b", "c"]);
    let slot = one.run(&["CLUSTER", "NODES"]).map(|_| {
        let mut connection = redis::Client::open(one.url()).unwrap().get_connection().unwrap();
        redis::cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg("a")
            .query::<u16>(&mut connection)
            .unwrap()
    });
    let slot = slot.unwrap();
    let (stop, moves) = (AtomicBool::new(false), AtomicU32::new(0));
    let exits = std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_with_one = slot < 8192;
            let (mut from, mut to) = if is_with_one { (&one, &two) } else { (&two, &one) };
            while !stop.load(Ordering::Relaxed) && moves.load(Ordering::Relaxed) < 200 {
                move_slot(slot, from, to).unwrap();
                // A node that moves on before it has heard of the other's epoch claims the slot with an older one, and in the end each
                // believes that the other has it.
                wait_until("both nodes have heard of it", || from.places() == to.places());
                std::mem::swap(&mut from, &mut to);
                moves.fetch_add(1, Ordering::Relaxed);
            }
        });
        // On a busy machine a command could end before the first key has moved.
        wait_until("the slot has moved", || moves.load(Ordering::Relaxed) > 1);
        let mut exits = Vec::new();
        for _ in 0..6 {
            let mut command = reseal();
            command.current_dir(&desk.folder).env("REDIS_URL", one.url());
            command.args(["sessions", "invalidate", "web", "--yes", "--json"]);
            let output = command.output().unwrap();
            let exit = output.status.code().unwrap();
            assert!(matches!(exit, 0 | 5), "{exit}: {}", String::from_utf8_lossy(&output.stderr));
            if exit == 0 {
                assert_eq!(count(&one) + count(&two), 0, "called done, and sessions are left");
                break;
            }
            exits.push(exit);
        }
        stop.store(true, Ordering::Relaxed);
        exits
    });
    assert!(exits.contains(&5), "no run met a moving slot");
    // Stable again: the same command finishes.
    desk.invalidate_at(&one.url(), "", 0);
    assert_eq!(count(&one) + count(&two), 0);
}

#[test]
fn heavy_a_run_that_is_killed_is_continued_by_the_same_command() {
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let sessions = 300_000;
    for first in (0..sessions).step_by(10_000) {
        desk.set((first..first + 10_000).map(|number| format!("session:{number}")));
    }
    desk.set(["other".to_owned()]);
    let mut command = support::reseal_process();
    command.current_dir(&desk.folder).env("REDIS_URL", desk.redis.url());
    command.args(["sessions", "invalidate", "web", "--yes"]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let size = || desk.redis.run::<u64>("DBSIZE");
    while size() > sessions * 9 / 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Beside the other key stands the note of what the server announced.
    let left = size() - 2;
    assert!(left > 0, "it had finished before it was killed");
    let ended = desk.invalidate("", 0);
    assert_eq!((&ended["ended"], &ended["left"]), (&left.into(), &0.into()));
    assert_eq!(size(), 1);
}

#[test]
fn heavy_a_value_of_half_a_gigabyte_is_neither_fetched_nor_waited_for() {
    let Some(desk) = Desk::new("preset = \"connect-redis\"") else {
        return;
    };
    // The largest value that a server takes.
    desk.redis.run::<()>("SETRANGE sess:huge 536870911 x");
    desk.redis.run::<()>("SET sess:small {\"passport\":{\"user\":1}}");
    let one = desk.invalidate("--user 1", 7);
    assert_eq!((&one["ended"], &one["unreadable"]), (&1.into(), &2.into()));
    let all = desk.invalidate("", 0);
    assert_eq!((&all["ended"], &all["left"]), (&1.into(), &0.into()));
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 0);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let folder = tempdir();
    let in_folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (in_folder("key.pem"), in_folder("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .args(["-keyout", &key, "-out", &certificate])
        .output();
    let Ok(made) = made else {
        return support::skip("no openssl on this machine");
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let Some(desk) = Desk::new("match = \"session:*\"") else {
        return;
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (name, value) in [
        ("tls-cert-file", certificate.as_str()),
        ("tls-key-file", key.as_str()),
        ("tls-ca-cert-file", certificate.as_str()),
        ("tls-auth-clients", "no"),
        ("tls-port", &port.to_string()),
    ] {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        if let Err(error) = set.exec(&mut desk.redis.connect()) {
            assert!(name != "tls-port", "{error}");
            if error.to_string().contains("Unsupported") || error.to_string().contains("Unknown") {
                return support::skip("the Redis server was built without TLS");
            }
            // The certificate and its key are checked together when both are there.
        }
    }
    desk.set(["session:x".to_owned()]);
    let host = desk.redis.url().rsplit_once(':').unwrap().0.replace("redis://", "rediss://");
    let url = format!("{host}:{port}/0");
    let output = desk.invalidate_at(&url, "", 8);
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 1);

    // And with a name that is vouched for, the same server is used.
    let mut trusting = reseal();
    trusting
        .current_dir(&desk.folder)
        .env("REDIS_URL", &url)
        .env("SSL_CERT_FILE", &certificate);
    let output = trusting.args(["sessions", "invalidate", "web", "--yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(desk.redis.run::<u64>("DBSIZE"), 0);
}
