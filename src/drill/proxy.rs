//! A proxy before PostgreSQL that cuts connections when it is told to: inside a transaction, before a request reaches the server, in the
//! middle of it, or after the server has done it and before the reply is back.
//!
//! It follows the server's messages just far enough to know whether a transaction is open (PostgreSQL documentation, section 55.7:
//! ReadyForQuery). On a connection that turns to TLS it sees nothing, and cuts nothing but everything.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use url::Url;

/// Where a request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of it.
    Before,
    /// The server has done it, the client never learns.
    ReplyLost,
    /// The server gets half of it.
    Middle,
}

/// A proxy on a port of its own; it ends with the value.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    everything: watch::Sender<u64>,
    _runtime: Runtime,
}

struct State {
    upstream: Upstream,
    /// [`Cut`] plus one, or 0.
    armed: AtomicU8,
    cuts: AtomicU64,
    open: AtomicU64,
}

enum Upstream {
    Tcp(String, u16),
    Socket(PathBuf),
}

impl Cut {
    /// For a list of faults.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Before => "connection cut in a transaction, before a request",
            Self::ReplyLost => "connection cut at a commit, its reply lost",
            Self::Middle => "connection cut in a transaction, in the middle of a request",
        }
    }
}

impl Proxy {
    /// Before the server of this URL; `None` when that is not on this machine, where passwords would go through the proxy in the clear.
    pub fn before(url: &str) -> io::Result<Option<Self>> {
        let Some(upstream) = Upstream::of(url) else { return Ok(None) };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            upstream,
            armed: AtomicU8::new(0),
            cuts: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let (everything, cut) = watch::channel(0);
        let serving = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, mut cut) = (Arc::clone(&serving), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        // However a connection ends, both its sides see it end.
                        _ = serve(client, &state) => {}
                        _ = cut.changed() => {}
                    }
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Some(Self {
            address,
            state,
            everything,
            _runtime: runtime,
        }))
    }

    /// The same database, through the proxy.
    pub fn url(&self, url: &str) -> Option<String> {
        let mut through = Url::parse(url).ok()?;
        let kept: Vec<(String, String)> = through
            .query_pairs()
            .filter(|(name, _)| !matches!(&**name, "host" | "hostaddr" | "port"))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        through.set_query(None);
        if !kept.is_empty() {
            through.query_pairs_mut().extend_pairs(&kept);
        }
        if !kept.iter().any(|(name, _)| name == "sslmode" || name == "ssl-mode") {
            // What stays on this machine needs no TLS, and what is encrypted cannot be cut at a chosen place.
            through.query_pairs_mut().append_pair("sslmode", "disable");
        }
        through.set_host(Some("127.0.0.1")).ok()?;
        through.set_port(Some(self.address.port())).ok()?;
        Some(through.into())
    }

    /// Orders a cut: the next request in an open transaction, whoever makes it.
    pub fn arm(&self, cut: Cut) {
        self.state.armed.store(cut as u8 + 1, Ordering::SeqCst);
    }

    /// Takes the order back.
    pub fn disarm(&self) {
        self.state.armed.store(0, Ordering::SeqCst);
    }

    /// How many ordered cuts have come.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Cuts all connections at once. Returns how many there were.
    pub fn cut_all(&self) -> u64 {
        let open = self.state.open.load(Ordering::SeqCst);
        self.everything.send_modify(|cut| *cut += 1);
        open
    }
}

impl Upstream {
    fn of(url: &str) -> Option<Self> {
        let options = PgConnectOptions::from_str(url).ok()?;
        let (host, port) = (options.get_host(), options.get_port());
        let folder = options
            .get_socket()
            .cloned()
            .or_else(|| host.starts_with('/').then(|| PathBuf::from(host)));
        match folder {
            Some(folder) => Some(Self::Socket(folder.join(format!(".s.PGSQL.{port}")))),
            None => {
                let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                is_local.then(|| Self::Tcp(host.to_owned(), port))
            }
        }
    }
}

impl State {
    /// What happens to this request, made while a transaction was open.
    fn fate(&self, request: &[u8]) -> Option<Cut> {
        let armed = self.armed.load(Ordering::SeqCst);
        let cut = [Cut::Before, Cut::ReplyLost, Cut::Middle]
            .into_iter()
            .find(|cut| *cut as u8 + 1 == armed)?;
        if cut == Cut::ReplyLost && !is_commit(request) {
            return None;
        }
        let is_ours = self
            .armed
            .compare_exchange(armed, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if is_ours {
            self.cuts.fetch_add(1, Ordering::SeqCst);
        }
        is_ours.then_some(cut)
    }
}

async fn serve(client: TcpStream, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    match &state.upstream {
        Upstream::Tcp(host, port) => {
            let server = TcpStream::connect((host.as_str(), *port)).await?;
            server.set_nodelay(true)?;
            pass(client, server, state).await
        }
        Upstream::Socket(path) => pass(client, UnixStream::connect(path).await?, state).await,
    }
}

/// Passes bytes on until one side ends or the connection is cut; both sockets close when this returns.
async fn pass(mut client: TcpStream, mut server: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> io::Result<()> {
    let (mut from_client, mut from_server) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut messages = Messages::default();
    let mut is_losing_replies = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let request = &from_client[..read?];
                if request.is_empty() {
                    return Ok(());
                }
                messages.is_blind |= request.starts_with(SSL_REQUEST);
                let fate = if messages.in_transaction { state.fate(request) } else { None };
                match fate {
                    None => server.write_all(request).await?,
                    Some(Cut::Before) => return Ok(()),
                    Some(Cut::Middle) => return server.write_all(&request[..request.len() / 2]).await,
                    Some(Cut::ReplyLost) => {
                        server.write_all(request).await?;
                        is_losing_replies = true;
                    }
                }
            }
            read = server.read(&mut from_server) => {
                let reply = &from_server[..read?];
                let is_done = messages.follow(reply);
                if reply.is_empty() || is_losing_replies && is_done {
                    return Ok(());
                }
                if !is_losing_replies {
                    client.write_all(reply).await?;
                }
            }
        }
    }
}

/// The server's messages: a byte for the kind, four for the length, the rest.
#[derive(Default)]
struct Messages {
    in_transaction: bool,
    /// What passes is encrypted.
    is_blind: bool,
    head: Vec<u8>,
    /// Bytes of the present message that are still to come.
    left: usize,
}

impl Messages {
    /// Returns whether the server said that it is ready for the next request.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_ready = false;
        while !self.is_blind && !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                if self.head[0] == READY_FOR_QUERY {
                    // One byte: idle, in a transaction, or in one that failed.
                    self.in_transaction = bytes[0] != b'I';
                    is_ready = true;
                }
                self.left -= passed;
                bytes = &bytes[passed..];
                if self.left == 0 {
                    self.head.clear();
                }
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let [_, a, b, c, d] = self.head[..] {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                self.left = length.saturating_sub(4);
                if self.left == 0 {
                    self.head.clear();
                }
            }
        }
        is_ready
    }
}

fn is_commit(request: &[u8]) -> bool {
    request
        .windows(COMMIT.len())
        .any(|window| window.eq_ignore_ascii_case(COMMIT))
}

/// Length 8, then the code of SSLRequest.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const READY_FOR_QUERY: u8 = b'Z';
const COMMIT: &[u8] = b"COMMIT";
const BUFFER_BYTES: usize = 1 << 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_seen_however_messages_are_cut_up() {
        // ParameterStatus without content, ReadyForQuery idle, NoData, ReadyForQuery in a transaction.
        let stream = b"S\0\0\0\x06ab\
            Z\0\0\0\x05I\
            n\0\0\0\x04\
            Z\0\0\0\x05T";
        for piece in 1..stream.len() {
            let mut messages = Messages::default();
            let mut ready = 0;
            for bytes in stream.chunks(piece) {
                ready += usize::from(messages.follow(bytes));
            }
            assert!(messages.in_transaction, "in pieces of {piece}");
            assert!(ready >= 1);
        }
        let mut messages = Messages::default();
        messages.follow(&stream[..13]);
        assert!(!messages.in_transaction);
    }

    #[test]
    fn urls_lead_through_the_proxy_and_only_from_this_machine() {
        let proxy = Proxy::before("postgres://app:p%40ss@127.0.0.1:5432/app").unwrap().unwrap();
        let port = proxy.address.port();
        let through = |url| proxy.url(url).unwrap();
        assert_eq!(
            through("postgres://app:p%40ss@127.0.0.1:5432/app"),
            format!("postgres://app:p%40ss@127.0.0.1:{port}/app?sslmode=disable")
        );
        assert_eq!(
            through("postgres://app@localhost/app?host=/run/postgresql&port=5433&sslmode=prefer&application_name=x"),
            format!("postgres://app@127.0.0.1:{port}/app?sslmode=prefer&application_name=x")
        );
        assert!(Proxy::before("postgres://app@db.example.org/app").unwrap().is_none());
        assert!(
            Proxy::before("postgres://app@localhost/app?host=/run/postgresql")
                .unwrap()
                .is_some()
        );
    }
}
