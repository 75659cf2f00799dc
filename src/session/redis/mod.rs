//! Redis and Valkey: standalone, TLS, ACL users, clusters.

mod clock;
mod connect;
mod known;
mod mark;
mod narrow;
mod note;
mod spring;
mod sweep;
mod watch;

pub use connect::RedisServer;
pub(super) use known::{check, cut, end_known};
pub(super) use mark::raise_mark;
pub use sweep::end_redis_sessions;
