//! Redis and Valkey: standalone, TLS, ACL users, clusters.

mod connect;
mod spring;
mod sweep;
mod watch;

pub use connect::RedisServer;
pub use sweep::end_redis_sessions;
