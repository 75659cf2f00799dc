//! PostgreSQL for tests: an empty database for each test, and whole servers for tests that crash them.
//!
//! Nothing here is async: a test without a runtime of its own uses it as well as one that has one.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};

use super::services::{Address, Services};

/// An empty database on the server that all tests share, or `None` after saying that the test is skipped.
///
/// The server is that of `scripts/test`; a plain `cargo test` starts one, which ends with the test process.
pub fn postgres() -> Option<Database> {
    static STARTED: OnceLock<Option<(Services, Address)>> = OnceLock::new();
    let address = Address::from_environment().or_else(|| Some(STARTED.get_or_init(Services::start).as_ref()?.1.clone()));
    if address.is_none() {
        super::skip("no PostgreSQL server on this machine");
    }
    address.map(Database::create)
}

/// A server that belongs to one test, which may crash and restart it, or `None` after saying that the test is skipped.
pub fn private_postgres() -> Option<PrivatePostgres> {
    let started = Services::start();
    if started.is_none() {
        super::skip("no PostgreSQL server on this machine");
    }
    started.map(|(services, address)| PrivatePostgres { services, address })
}

/// A server of one test's own with a streaming replica, whose URL comes with it, or `None` after saying that the test is skipped.
pub fn replicated_postgres() -> Option<(PrivatePostgres, String)> {
    let started = Services::start_with_replica();
    if started.is_none() {
        super::skip("no PostgreSQL server on this machine");
    }
    started.map(|(services, address, replica)| (PrivatePostgres { services, address }, replica))
}

/// One test's database. Dropped with everything in it when the value is.
pub struct Database {
    server: Address,
    name: String,
}

impl Database {
    fn create(server: Address) -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        // A killed test of an earlier process of this number may have left its database behind.
        let statements = [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name}"),
        ];
        blocking(run(&server.url, &statements)).expect("a database is created");
        Self { server, name }
    }

    /// The URL of this database, password included.
    pub fn url(&self) -> String {
        let (server, _) = self.server.url.rsplit_once('/').expect("the URL ends in a database");
        format!("{server}/{}", self.name)
    }

    /// Up to `connections` connections, on the runtime of the calling test.
    pub fn pool(&self, connections: u32) -> PgPool {
        let options = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(30));
        options.connect_lazy(&self.url()).expect("the URL is well-formed")
    }

    /// Runs one or several statements, separated by `;`.
    pub fn execute(&self, sql: &str) {
        blocking(run(&self.url(), &[sql.to_owned()])).unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }

    /// The same, telling what the server refused.
    pub fn try_execute(&self, sql: &str) -> Result<(), String> {
        blocking(run(&self.url(), &[sql.to_owned()])).map_err(|error| error.to_string())
    }

    /// The first column of every row as text; the query casts it (`id::text`).
    pub fn texts(&self, sql: &str) -> Vec<Option<String>> {
        blocking(async {
            let mut connection = PgConnection::connect(&self.url()).await?;
            let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok(rows)
        })
        .unwrap_or_else(|error: sqlx::Error| panic!("{error}\nin: {sql}"))
    }

    /// The one number that a query like `SELECT count(*) …` answers.
    pub fn count(&self, sql: &str) -> i64 {
        let rows = self.texts(&format!("SELECT ({sql})::text"));
        rows[0].as_deref().expect("not null").parse().expect("a number")
    }

    /// What the server has logged so far, of all databases: every statement with its parameters.
    pub fn log(&self) -> Vec<u8> {
        std::fs::read(&self.server.log).expect("the log is readable")
    }

    /// Where the server logs.
    pub fn log_path(&self) -> &Path {
        &self.server.log
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be gone on purpose, and its data with it.
        let _ = blocking(run(
            &self.server.url,
            &[format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)],
        ));
    }
}

/// A server of one test's own.
pub struct PrivatePostgres {
    services: Services,
    address: Address,
}

impl PrivatePostgres {
    /// A new, empty database on it.
    pub fn database(&self) -> Database {
        Database::create(self.address.clone())
    }

    /// `kill -9` of the server and its children, as a crash of the machine would. Returns when they are gone.
    pub fn kill(&self) {
        self.services.kill();
    }

    /// Stops the server if it runs, and starts it on the same data and port. Returns when it accepts connections.
    pub fn restart(&self) {
        self.services.restart();
    }

    /// `kill -9` of its replica.
    pub fn kill_replica(&self) {
        self.services.kill_replica();
    }

    /// Starts its replica again, on the same port.
    pub fn restart_replica(&self) {
        self.services.restart_replica();
    }

    /// Where it logs.
    pub fn log_path(&self) -> PathBuf {
        self.address.log.clone()
    }

    /// A physical copy of the running server, promoted: the primary after a failover, while this one goes on as if nothing had happened.
    pub fn promoted_copy(&self, database: &Database) -> PromotedCopy {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let (user, place) = self.address.url.rsplit_once('@').expect("the URL has a user");
        let (_, password) = user.rsplit_once(':').expect("the URL has a password");
        let (host, _) = place.split_once('/').expect("the URL has a database");
        let copy = PromotedCopy {
            url: database.url().replace(host, &format!("127.0.0.1:{port}")),
            data: self.address.log.with_file_name("copy"),
        };
        let (_, from) = host.split_once(':').expect("the URL has a port");
        let script = "set -e
            pg_basebackup --host=127.0.0.1 --port=$FROM --username=reseal --pgdata=$DATA --wal-method=stream --write-recovery-conf --checkpoint=fast
            pg_ctl start --wait --silent --pgdata=$DATA --log=$DATA.log --options=\"-p $PORT -c unix_socket_directories=''\" </dev/null >/dev/null 2>&1
            pg_ctl promote --wait --silent --pgdata=$DATA";
        let environment = [("FROM", from), ("PORT", &port.to_string()), ("PGPASSWORD", password)];
        copy.as_postgres(script, &environment);
        copy
    }
}

/// A server that a test has copied and promoted. It ends with the value.
pub struct PromotedCopy {
    url: String,
    data: PathBuf,
}

impl PromotedCopy {
    /// The URL of the database that was copied.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// PostgreSQL refuses to run as root.
    fn as_postgres(&self, script: &str, environment: &[(&str, &str)]) {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = std::process::Command::new("runuser");
            command.args(["-u", "postgres", "--", "bash", "-c"]);
            command
        } else {
            let mut command = std::process::Command::new("bash");
            command.arg("-c");
            command
        };
        let path = "PATH=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1):$PATH; ";
        let output = command
            .arg(format!("{path}{script}"))
            .env("DATA", &self.data)
            .envs(environment.iter().copied())
            .current_dir("/")
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for PromotedCopy {
    fn drop(&mut self) {
        self.as_postgres("pg_ctl stop --mode=immediate --silent --pgdata=$DATA || true", &[]);
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.services.stop();
    }
}

async fn run(url: &str, statements: &[String]) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.as_str()))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await
}

/// Waits for a future on a thread of its own, because a runtime cannot be started inside another.
fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(future)
        });
        waiting.join().expect("the database answers")
    })
}
