//! Connections to a server or to every primary of a cluster, and errors without credentials and content.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisError, ServerErrorKind,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::session::SessionError;

/// How to reach a server or a cluster. Holds the password; `Debug` is not derived.
#[derive(Clone)]
pub struct RedisServer {
    info: ConnectionInfo,
    is_cluster: bool,
}

impl RedisServer {
    /// Parses `redis://` (plaintext) or `rediss://` (TLS, verified). Plaintext to another machine is refused unless it is allowed.
    pub fn parse(url: &str, is_cluster: bool, allow_plaintext: bool) -> Result<Self, SessionError> {
        let info = url.into_connection_info().map_err(|_| SessionError::Url)?;
        let refused = match info.addr() {
            ConnectionAddr::Tcp(host, _) if !allow_plaintext && !is_local(host) => Some(
                "the URL is redis://, which sends the password in clear text to another machine; use rediss://, or allow_plaintext = true",
            ),
            ConnectionAddr::TcpTls { insecure: true, .. } => Some("a URL with #insecure accepts any certificate; remove it"),
            _ => None,
        };
        match refused {
            Some(why) => Err(SessionError::Refused(why.to_owned())),
            None => Ok(Self { info, is_cluster }),
        }
    }

    /// The server without credentials.
    pub fn describe(&self) -> String {
        format!("Redis {}", self.info.addr())
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Whether keys of one command must be in one slot.
    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// A connection that sends what the server pushes to `pushes`. Servers before Redis 6 push nothing.
    pub(super) async fn connect(
        &self,
        pushes: Option<UnboundedSender<PushInfo>>,
    ) -> Result<MultiplexedConnection, SessionError> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut info = self.info.clone();
        if let Some(sender) = pushes {
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
            config = config.set_push_sender(sender);
        }
        let client = Client::open(info).map_err(|error| self.error(&error, "connect"))?;
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| self.error(&error, "connect"))
    }

    /// Every server that holds keys: this one, or the primaries of the cluster. Fails while slots are moving.
    pub(super) async fn nodes(&self) -> Result<Vec<Self>, SessionError> {
        Ok(self.topology().await?.0)
    }

    /// The same, with who has which slots since when: a slot that moved and came back is seen by the epoch of the nodes.
    pub(super) async fn topology(&self) -> Result<(Vec<Self>, Vec<String>), SessionError> {
        if !self.is_cluster {
            return Ok((vec![self.clone()], Vec::new()));
        }
        let mut connection = self.connect(None).await?;
        let told: redis::RedisResult<String> = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
        let told = told.map_err(|error| match self.error(&error, "read CLUSTER NODES") {
            SessionError::Server { .. } => {
                SessionError::Refused("the server is no cluster; leave out cluster = true".to_owned())
            }
            other => other,
        })?;
        let (mut nodes, mut places) = (Vec::new(), Vec::new());
        for line in told.lines() {
            // id address:port@bus[,host] flags primary ping pong epoch state slots…
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let (Some(address), Some(flags)) = (fields.get(1), fields.get(2)) else {
                continue;
            };
            let slots = fields.get(8..).unwrap_or_default();
            if slots.iter().any(|slot| slot.starts_with('[')) {
                return Err(SessionError::Moving);
            }
            let is_primary = flags.split(',').any(|flag| flag == "master");
            if !is_primary || slots.is_empty() {
                continue;
            }
            nodes.push(self.at(address)?);
            let epoch = fields.get(6).copied().unwrap_or_default();
            places.push(format!("{address} {epoch} {}", slots.join(" ")));
        }
        if nodes.is_empty() {
            return Err(SessionError::Refused("the cluster has no primary with slots".to_owned()));
        }
        nodes.sort_by_key(Self::describe);
        places.sort();
        Ok((nodes, places))
    }

    /// The same way to a node of the cluster.
    fn at(&self, address: &str) -> Result<Self, SessionError> {
        let unfit = || SessionError::Refused("CLUSTER NODES names an address that is not understood".to_owned());
        let (place, announced) = address.split_once(',').map_or((address, ""), |(place, host)| (place, host));
        let place = place.split('@').next().unwrap_or_default();
        let (host, port) = place.rsplit_once(':').ok_or_else(unfit)?;
        let port: u16 = port.parse().map_err(|_| unfit())?;
        // A node that does not know its own address leaves it empty; certificates name the announced host.
        let given = match self.info.addr() {
            ConnectionAddr::Tcp(given, _) | ConnectionAddr::TcpTls { host: given, .. } => given.clone(),
            _ => String::new(),
        };
        let host = [announced, host, given.as_str()]
            .into_iter()
            .find(|name| !name.is_empty())
            .ok_or_else(unfit)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls {
                insecure, tls_params, ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(Self {
            info: self.info.clone().set_addr(addr),
            is_cluster: true,
        })
    }

    /// An error of the client or server in our words. `what` is what was tried.
    pub(super) fn error(&self, error: &RedisError, what: &str) -> SessionError {
        let place = self.describe();
        match error.kind() {
            ErrorKind::AuthenticationFailed => SessionError::Credentials { place },
            ErrorKind::Server(ServerErrorKind::ReadOnly) => SessionError::ReadOnly { place },
            ErrorKind::Server(ServerErrorKind::NoPerm) => SessionError::Permission {
                place,
                what: what.to_owned(),
            },
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain) => {
                SessionError::Moving
            }
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => SessionError::Credentials { place },
            _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => SessionError::Unreachable {
                place,
                // The operating system's or the TLS library's words; neither knows credentials.
                why: error.to_string(),
            },
            _ => SessionError::Server {
                place,
                code: error.code().unwrap_or(error.category()).to_owned(),
            },
        }
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Far above what a batch of ours takes; a server that is busy saving may stall for seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
