//! A proxy before PostgreSQL that cuts connections: before a statement reaches the server, after the server has done it and before
//! the reply is back, and in the middle of the message.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Where a request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of it.
    Before,
    /// The server has done it, the client never learns.
    ReplyLost,
    /// The server gets half of it.
    Middle,
    /// Nobody gets it, and nobody is told: the connection stays open, and silent.
    Swallowed,
}

/// Which requests are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prey {
    /// Batches that carry Fernet tokens to the server.
    Swaps,
    /// From the first batch on every request, whoever makes it.
    Anything,
    /// Each statement when a client sends it for the first time, of those whose number is this one among so many.
    News(usize, usize),
    /// What is asked for the first time on a connection about the record of a keyset's rotation, and about its instances.
    Record,
    /// How far the log of a server is: asked before a rotation, and of those whose replicas must have replayed it in the end.
    Position,
    /// Every request before the first batch; after [`EARLY_CUTS_MAX`] cuts the network is mended.
    Early,
}

/// What a server would impose on its sessions, whatever they ask for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// Nothing.
    AsAsked,
    /// A statement may take 0.3 s.
    ShortStatements,
    /// Between two statements of a transaction there may be 9 ms, and every session takes longer.
    ShortPauses,
}

impl Settings {
    /// What is said in place of what; both are of the same length.
    fn rewrite(self) -> Option<[&'static [u8]; 2]> {
        match self {
            Self::AsAsked => None,
            Self::ShortStatements => Some([b"statement_timeout = '30s'", b"statement_timeout = '.3s'"]),
            Self::ShortPauses => Some([
                b"idle_in_transaction_session_timeout = '10s'",
                b"idle_in_transaction_session_timeout = '9ms'",
            ]),
        }
    }

    fn impose(self, request: &mut [u8]) {
        let Some([asked, imposed]) = self.rewrite() else { return };
        if let Some(at) = request.windows(asked.len()).position(|window| window == asked) {
            request[at..at + asked.len()].copy_from_slice(imposed);
        }
    }
}

/// A proxy on a port of its own; it ends with the value.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    _runtime: Runtime,
}

struct State {
    upstream: Mutex<String>,
    prey: Prey,
    /// Every so many requests that match is cut. Of anything, up to two more in turn: whoever needs as many for an attempt as a constant
    /// distance has would be cut in every attempt.
    every: u32,
    /// How many to the next cut.
    distance: Mutex<u32>,
    swallows: bool,
    settings: Settings,
    /// Whether there was a batch already.
    armed: AtomicBool,
    cuts: [AtomicU32; 4],
    ended: AtomicU32,
    /// Bytes from the server to its clients.
    answered: AtomicU64,
    /// That were prepared, by whomever.
    statements: Mutex<Vec<Vec<u8>>>,
    /// Goes up when everybody has to connect again.
    switched: watch::Sender<u64>,
}

impl Proxy {
    /// Before the server of this URL. Cuts in turn in the three places.
    pub fn before(url: &str, prey: Prey, every: u32) -> Self {
        Self::start(url, prey, every, false, Settings::AsAsked)
    }

    /// Before the server of this URL. Swallows what it catches.
    pub fn swallowing(url: &str, prey: Prey, every: u32) -> Self {
        Self::start(url, prey, every, true, Settings::AsAsked)
    }

    /// Before the server of this URL, whose sessions get these settings. Cuts nothing.
    pub fn imposing(url: &str, settings: Settings) -> Self {
        Self::start(url, Prey::Swaps, u32::MAX, false, settings)
    }

    fn start(url: &str, prey: Prey, every: u32, swallows: bool, settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let state = Arc::new(State {
            upstream: Mutex::new(host_of(url).to_owned()),
            prey,
            every,
            distance: Mutex::new(every),
            swallows,
            settings,
            armed: AtomicBool::new(false),
            cuts: Default::default(),
            ended: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            statements: Mutex::default(),
            switched: watch::Sender::new(0),
        });
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&serving)));
            }
        });
        Self {
            port,
            state,
            _runtime: runtime,
        }
    }

    /// The same URL, through the proxy.
    pub fn url(&self, url: &str) -> String {
        url.replace(host_of(url), &format!("127.0.0.1:{}", self.port))
    }

    /// How often it has cut: before, after and in the middle.
    pub fn cuts(&self) -> [u32; 3] {
        [0, 1, 2].map(|at| self.state.cuts[at].load(Ordering::Relaxed))
    }

    /// Leads to the server of this URL from now on, and cuts every connection to the one before.
    pub fn switch(&self, url: &str) {
        *self.state.upstream.lock().unwrap() = host_of(url).to_owned();
        self.state.switched.send_modify(|times| *times += 1);
    }

    /// Leads whoever connects from now on to the server of this URL. Connections to the one before stay.
    pub fn lead(&self, url: &str) {
        *self.state.upstream.lock().unwrap() = host_of(url).to_owned();
    }

    /// How often a session was ended by its server while it was silent inside a transaction.
    pub fn ended(&self) -> u32 {
        self.state.ended.load(Ordering::Relaxed)
    }

    /// How many bytes the server has sent to its clients.
    pub fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::Relaxed)
    }

    /// How many requests it has swallowed.
    pub fn swallowed(&self) -> u32 {
        self.state.cuts[Cut::Swallowed as usize].load(Ordering::Relaxed)
    }
}

impl State {
    /// How many cuts it has made.
    fn made(&self) -> u32 {
        self.cuts.iter().map(|cuts| cuts.load(Ordering::Relaxed)).sum()
    }

    /// What happens to this request.
    fn fate(&self, request: &[u8]) -> Option<Cut> {
        let is_swap = request.windows(TOKEN.len()).any(|window| window == TOKEN);
        let armed = self.armed.fetch_or(is_swap, Ordering::Relaxed) || is_swap;
        let matches = match self.prey {
            Prey::Swaps => is_swap,
            Prey::Anything => armed,
            Prey::News(number, of) => statement(request).is_some_and(|sql| {
                let mut known = self.statements.lock().unwrap();
                !known.iter().any(|one| one == sql) && {
                    known.push(sql.to_vec());
                    known.len() % of == number
                }
            }),
            Prey::Record => RECORD
                .iter()
                .any(|table| request.windows(table.len()).any(|window| window == *table)),
            Prey::Position => request.windows(POSITION.len()).any(|window| window == POSITION),
            Prey::Early => !armed && self.made() < EARLY_CUTS_MAX,
        };
        if !matches || !is_extended(request) {
            return None;
        }
        let mut distance = self.distance.lock().unwrap();
        *distance -= 1;
        if *distance > 0 {
            return None;
        }
        let cuts = self.made();
        *distance = self.every
            + match self.prey {
                Prey::Anything => cuts % 3,
                _ => 0,
            };
        let cut = match self.swallows {
            true => Cut::Swallowed,
            false => [Cut::ReplyLost, Cut::Middle, Cut::Before][cuts as usize % 3],
        };
        self.cuts[cut as usize].fetch_add(1, Ordering::Relaxed);
        Some(cut)
    }
}

/// Passes bytes on until one side ends or the connection is cut; both sockets close when this returns.
async fn serve(mut client: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    let mut switched = state.switched.subscribe();
    let upstream = state.upstream.lock().unwrap().clone();
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut request: Vec<u8> = Vec::new();
    let (mut losing_replies, mut in_transaction) = (false, false);
    loop {
        tokio::select! {
            _ = switched.changed() => return Ok(()),
            read = client.read(&mut from_client) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                request.extend_from_slice(&from_client[..read]);
                if !is_whole(&request) {
                    continue;
                }
                state.settings.impose(&mut request);
                if in_transaction && state.settings == Settings::ShortPauses && state.ended.load(Ordering::Relaxed) < ENDED_MAX {
                    // Held back until the server has had enough.
                    while server.read(&mut from_server).await? > 0 {}
                    state.ended.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                match state.fate(&request) {
                    None => server.write_all(&request).await?,
                    Some(Cut::Before) => return Ok(()),
                    Some(Cut::Swallowed) => {
                        // Until the client has had enough.
                        while client.read(&mut from_client).await? > 0 {}
                        return Ok(());
                    }
                    Some(Cut::Middle) => return server.write_all(&request[..request.len() / 2]).await,
                    Some(Cut::ReplyLost) => {
                        server.write_all(&request).await?;
                        losing_replies = true;
                    }
                }
                request.clear();
            }
            read = server.read(&mut from_server) => {
                let read = read?;
                // Ready for the next query: what was asked is done.
                if read == 0 || losing_replies && is_ready(&from_server[..read]) {
                    return Ok(());
                }
                state.answered.fetch_add(read as u64, Ordering::Relaxed);
                in_transaction = is_ready(&from_server[..read]) && from_server[read - 1] == b'T';
                if !losing_replies {
                    client.write_all(&from_server[..read]).await?;
                }
            }
        }
    }
}

/// Whether the client waits for an answer now: the extended protocol ends a request with Sync; everything else is short.
fn is_whole(request: &[u8]) -> bool {
    !is_extended(request) || request.ends_with(SYNC)
}

/// Whether it begins with Parse, Bind, Describe, Execute, Close or Sync.
fn is_extended(request: &[u8]) -> bool {
    request.first().is_some_and(|kind| b"PBDECS".contains(kind))
}

/// What is prepared, if something is: a Parse message has a kind, a length, a name and then the statement, which ends with a zero.
fn statement(request: &[u8]) -> Option<&[u8]> {
    let name = request.strip_prefix(b"P")?.get(4..)?;
    let sql = &name[name.iter().position(|byte| *byte == 0)? + 1..];
    Some(&sql[..sql.iter().position(|byte| *byte == 0)?])
}

/// Whether the server's answer ends in ReadyForQuery.
fn is_ready(answer: &[u8]) -> bool {
    answer.len() >= 6 && answer[..answer.len() - 1].ends_with(READY)
}

fn host_of(url: &str) -> &str {
    url.split('@').next_back().unwrap().split('/').next().unwrap()
}

/// After so many sessions ended in their silence, pauses are short again.
pub const ENDED_MAX: u32 = 3;
/// What [`Prey::Early`] cuts at most.
pub const EARLY_CUTS_MAX: u32 = 6;

/// Every Fernet token begins with version 80 and a time before the year 2100.
const TOKEN: &[u8] = b"gAAAAA";
const RECORD: [&[u8]; 2] = [b"reseal.rotation", b"reseal.instance"];
const POSITION: &[u8] = b"pg_current_wal_flush_lsn";
const SYNC: &[u8] = b"S\0\0\0\x04";
/// ReadyForQuery; one byte says whether a transaction is open.
const READY: &[u8] = b"Z\0\0\0\x05";
