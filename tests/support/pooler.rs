//! A real PgBouncer before a test's database.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A PgBouncer that ends with the value.
pub struct Pooler {
    process: Child,
    port: u16,
    _folder: TempDir,
}

/// PgBouncer before the database of `url`, in the pool mode `mode`, with at most `size` server connections; or `None` after saying that
/// the test is skipped.
pub fn pgbouncer(url: &str, mode: &str, size: u32) -> Option<Pooler> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let Some(program) = folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
    else {
        super::skip("no PgBouncer on this machine");
        return None;
    };
    let (user, rest) = url.strip_prefix("postgres://").unwrap().split_once(':').unwrap();
    let (password, rest) = rest.split_once('@').unwrap();
    let (host, database) = rest.split_once('/').unwrap();
    let (host, server_port) = host.split_once(':').unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = super::tempdir();
    // It gives root away before it reads its file; the password is this test's alone.
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.path().join("pgbouncer.ini");
    let settings = format!(
        "[databases]\n{database} = host={host} port={server_port} dbname={database} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
         default_pool_size = {size}\nignore_startup_parameters = extra_float_digits\n"
    );
    fs::write(&file, settings).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    let process = command
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "PgBouncer does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Pooler {
        process,
        port,
        _folder: folder,
    })
}

impl Pooler {
    /// The same URL, through the pooler.
    pub fn url(&self, url: &str) -> String {
        let host = url.split('@').next_back().unwrap().split('/').next().unwrap();
        url.replace(host, &format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
