//! Servers of a test's own, started and stopped through `scripts/services`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a PostgreSQL server is reached, and what it logs.
#[derive(Clone)]
pub struct Address {
    /// `postgres://user:password@127.0.0.1:port/postgres`, a superuser.
    pub url: String,
    /// Every statement with its parameters.
    pub log: PathBuf,
}

impl Address {
    /// The server that `scripts/test` has started for the whole run.
    pub fn from_environment() -> Option<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            url: lookup("RESEAL_TEST_POSTGRES")?,
            log: lookup("RESEAL_TEST_POSTGRES_LOG")?.into(),
        })
    }
}

/// One `scripts/services` set. It ends by itself when this process ends, however that happens.
pub struct Services {
    state: PathBuf,
}

impl Services {
    /// Starts PostgreSQL alone; `None` when the machine has none.
    pub fn start() -> Option<(Self, Address)> {
        let (services, value) = Self::start_server("postgres");
        Address::from_lookup(value).map(|address| (services, address))
    }

    /// Starts PostgreSQL and a streaming replica of it, and gives the replica's URL, too; `None` when the machine has none.
    pub fn start_with_replica() -> Option<(Self, Address, String)> {
        let (services, value) = Self::start_servers(&["postgres", "replica"]);
        let replica = value("RESEAL_TEST_REPLICA")?;
        Address::from_lookup(value).map(|address| (services, address, replica))
    }

    /// Starts Redis alone, and gives its URL; `None` when the machine has none.
    pub fn start_redis() -> Option<(Self, String)> {
        let (services, value) = Self::start_server("redis");
        value("RESEAL_TEST_REDIS").map(|url| (services, url))
    }

    /// Starts one server; gives what its exports say.
    fn start_server(server: &str) -> (Self, impl Fn(&str) -> Option<String> + use<>) {
        Self::start_servers(&[server])
    }

    /// Starts servers in this order; gives what their exports say.
    fn start_servers(servers: &[&str]) -> (Self, impl Fn(&str) -> Option<String> + use<>) {
        static SETS: AtomicU32 = AtomicU32::new(0);
        let set = SETS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("services-{process}-{set}.env"));
        let services = Self { state };
        let process = process.to_string();
        let options = ["start", "--no-install", "--owner", &process];
        let started = services.run(&[&options[..], servers].concat());
        let exports = String::from_utf8_lossy(&started.stdout).into_owned();
        let value = move |name: &str| {
            let prefix = format!("export {name}=");
            exports.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        (services, value)
    }

    /// `kill -9` of the server and of its children.
    pub fn kill(&self) {
        self.run(&["kill", "postgres"]);
    }

    /// Stops the server if it runs, and starts it on the same data and port.
    pub fn restart(&self) {
        self.run(&["restart", "postgres"]);
    }

    /// The same for its replica.
    pub fn kill_replica(&self) {
        self.run(&["kill", "replica"]);
    }

    /// The same for its replica.
    pub fn restart_replica(&self) {
        self.run(&["restart", "replica"]);
    }

    /// Stops everything and removes its files.
    pub fn stop(&self) {
        self.run(&["stop"]);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"))
            .args(arguments)
            .env("RESEAL_SERVICES_STATE", &self.state)
            .output()
            .expect("scripts/services runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/services {}: {complaint}", arguments[0]);
        output
    }
}
