//! Redis and Valkey: standalone, TLS, ACL users, clusters.

mod connect;
mod mark;
mod spring;
mod sweep;
mod watch;

pub use connect::RedisServer;
pub(super) use mark::raise_mark;
pub use sweep::end_redis_sessions;
