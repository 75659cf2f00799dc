//! From end to end: a Django application with encrypted customers and logins is served under load while its keys are rotated, once
//! by schedule, with nobody logged out, and once for a compromise, with every old session dead.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod django {
    pub mod rolling;
}

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Database, PrivateRedis, passphrase, postgres, private_redis, reseal, tempdir};
use tempfile::TempDir;

const ROWS: u32 = 3000;
const USERS: u32 = 8;

/// The application with its servers; what it was started with ends with it.
struct Shop {
    folder: TempDir,
    python: PathBuf,
    passphrase: String,
    database: Database,
    redis: PrivateRedis,
    server: Option<Child>,
    port: u16,
}

impl Shop {
    fn open() -> Option<Self> {
        let Some(python) = std::env::var_os("RESEAL_TEST_PYTHON") else {
            support::skip("no Python with Django (scripts/test prepares one)");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let shop = Self {
            folder: tempdir(),
            python: python.into(),
            passphrase: passphrase(),
            database: postgres()?,
            redis: private_redis()?,
            server: None,
            port,
        };
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/django/shop.py");
        fs::copy(app, shop.path("shop.py")).unwrap();
        fs::copy(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/django/reseal.toml"),
            shop.path("reseal.toml"),
        )
        .unwrap();
        Some(shop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A Python program of the application, in an environment of its own.
    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.args(arguments).current_dir(&self.folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("DATABASE_URL", self.database.url())
            .env("REDIS_URL", self.redis.url());
        command
    }

    /// One `reseal` command as it is typed.
    fn reseal(&self, arguments: &str) -> Value {
        let mut command = reseal();
        command.current_dir(&self.folder);
        command
            .env("DATABASE_URL", self.database.url())
            .env("REDIS_URL", self.redis.url());
        command.env("RESEAL_PASSPHRASE", &self.passphrase);
        let output = command.args(arguments.split_whitespace()).arg("--json").output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "reseal {arguments}: {complaint}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Gives the application the keys of the keyring, as they stand.
    fn export(&self) {
        self.reseal("keys export customers --as multifernet --variable FERNET_KEYS --out keys.env --force");
    }

    fn serve(&mut self) {
        let bind = format!("127.0.0.1:{}", self.port);
        let arguments = ["-m", "gunicorn", "--workers", "2", "--bind", &bind, "shop:application"];
        let log = fs::File::create(self.path("server.log")).unwrap();
        let mut command = self.python(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the application does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many of these sessions are logged in.
    fn alive(&self, sessions: &[String]) -> usize {
        let mut command = assert_cmd::Command::from_std(self.python(&["shop.py", "alive", &self.url()]));
        let output = command.write_stdin(serde_json::to_vec(sessions).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Logs users in and keeps their sessions.
    fn log_in(&self, count: u32) -> Vec<String> {
        let load = self.load();
        std::thread::sleep(Duration::from_secs(2));
        let sessions = load.end().sessions;
        assert_eq!(sessions.len(), usize::try_from(count).unwrap());
        sessions
    }

    fn load(&self) -> Load {
        let (rows, users) = (ROWS.to_string(), USERS.to_string());
        let mut command = self.python(&["shop.py", "load", &self.url(), &rows, &users]);
        Load(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // Its workers notice within a second that their parent is gone; asked, it takes them along.
            let pid = i32::try_from(server.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = server.wait();
        }
    }
}

/// Users at work.
struct Load(Child);

/// What happened to them.
struct Happened {
    requests: u64,
    failed: u64,
    logged_out: u64,
    /// Logins whose session ended before they did.
    interrupted: u64,
    why: String,
    sessions: Vec<String>,
}

impl Load {
    fn end(mut self) -> Happened {
        self.0.stdin.take().unwrap().flush().unwrap();
        let output = self.0.wait_with_output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| result[name].as_u64().unwrap();
        let sessions = result["sessions"].as_array().unwrap().iter();
        Happened {
            requests: count("requests"),
            failed: count("failed"),
            logged_out: count("logged_out"),
            interrupted: count("interrupted"),
            why: result["why"].to_string(),
            sessions: sessions.filter_map(|session| session.as_str().map(str::to_owned)).collect(),
        }
    }
}

/// The id of the key that a command made.
fn made(document: &Value) -> String {
    document["key"].to_string()
}

const ROTATE: &str = "rotate --table customers --column email --format fernet --from keyring:customers --to keyring:customers --dual-read-confirmed --yes";

#[test]
fn heavy_a_django_application_is_rotated_under_load_by_schedule_and_for_a_compromise() {
    let Some(mut shop) = Shop::open() else { return };
    // Its first keys.
    fs::write(shop.path(".env"), "DEBUG=0\nSECRET_KEY=\nSECRET_KEY_FALLBACKS=\n").unwrap();
    shop.reseal("secrets rotate SECRET_KEY --compromised --yes");
    let first = made(&shop.reseal("keys generate customers --algorithm fernet"));
    shop.export();
    let prepared = shop
        .python(&["shop.py", "prepare", &ROWS.to_string(), &USERS.to_string()])
        .output()
        .unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    shop.serve();
    let early = shop.log_in(USERS);
    assert_eq!(shop.alive(&early), early.len());

    // By schedule: readers get every key before a writer uses it, and nobody notices anything.
    let load = shop.load();
    std::thread::sleep(Duration::from_secs(1));
    let second = made(&shop.reseal("keys generate customers --algorithm fernet"));
    shop.export();
    std::thread::sleep(Duration::from_secs(1));
    shop.reseal(&format!("keys promote customers {second}"));
    shop.export();
    shop.reseal("secrets rotate SECRET_KEY --introduce --yes");
    shop.reseal("secrets rotate SECRET_KEY --promote --yes");
    let rotated = shop.reseal(ROTATE);
    assert_eq!(rotated["verified"], true);
    shop.reseal(&format!("keys retire customers {first}"));
    shop.export();
    std::thread::sleep(Duration::from_secs(1));
    let happened = load.end();
    assert_eq!(
        (happened.failed, happened.logged_out, happened.interrupted),
        (0, 0, 0),
        "{}",
        happened.why
    );
    assert!(happened.requests > 200, "only {} requests", happened.requests);
    assert_eq!(shop.alive(&happened.sessions), happened.sessions.len());
    assert_eq!(shop.alive(&early), early.len(), "the rotation logged somebody out");
    // Every session of the load was used since, and bears the new value's signature.
    shop.reseal("secrets rotate SECRET_KEY --retire --yes");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(shop.alive(&happened.sessions), happened.sessions.len());

    // For a compromise: sessions first, then data; the old key goes when nothing needs it.
    let before = [early, happened.sessions].concat();
    let load = shop.load();
    std::thread::sleep(Duration::from_secs(1));
    let third = made(&shop.reseal("keys generate customers --algorithm fernet"));
    shop.export();
    shop.reseal("secrets rotate SECRET_KEY --compromised --yes");
    let ended = shop.reseal("sessions invalidate web --yes");
    assert_eq!(ended["stores"][0]["left"], 0);
    shop.reseal(&format!("keys promote customers {third}"));
    shop.export();
    let rotated = shop.reseal(ROTATE);
    assert_eq!(
        (&rotated["verified"], rotated["census"].as_object().unwrap().len()),
        (&true.into(), 1),
        "{rotated}"
    );
    shop.reseal(&format!("keys compromise customers {second}"));
    shop.export();
    std::thread::sleep(Duration::from_secs(1));
    let happened = load.end();
    assert_eq!(happened.failed, 0, "{}", happened.why);
    assert!(happened.logged_out >= u64::from(USERS), "somebody was not logged out");
    // There is one cut-off, and a user is in one login at that moment at most.
    assert!(happened.interrupted <= u64::from(USERS));
    assert_eq!(shop.alive(&before), 0, "old sessions live");
    assert_eq!(happened.sessions.len(), usize::try_from(USERS).unwrap());
    assert_eq!(
        shop.alive(&happened.sessions),
        happened.sessions.len(),
        "new sessions are dead"
    );
    // Under the new key alone.
    let keys = fs::read_to_string(shop.path("keys.env")).unwrap();
    assert_eq!(keys.matches(',').count(), 0, "old keys are still given out");
    let env = fs::read_to_string(shop.path(".env")).unwrap();
    assert!(
        env.contains("DEBUG=0\n") && env.contains("SECRET_KEY_FALLBACKS=''\n"),
        "an old SECRET_KEY is still accepted"
    );
}
