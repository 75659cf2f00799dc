//! Redis for tests: a server of one test's own, because its settings are part of what is tested.

use redis::{Client, Connection, FromRedisValue};

use super::services::Services;

/// A server that belongs to one test, or `None` after saying that the test is skipped.
pub fn private_redis() -> Option<PrivateRedis> {
    let started = Services::start_redis();
    if started.is_none() {
        super::skip("no Redis server on this machine");
    }
    started.map(|(services, url)| PrivateRedis { services, url })
}

/// A server of one test's own. Ends when the value is dropped.
pub struct PrivateRedis {
    services: Services,
    url: String,
}

impl PrivateRedis {
    /// `redis://default:password@127.0.0.1:port/0`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection.
    pub fn connect(&self) -> Connection {
        let client = Client::open(self.url.as_str()).expect("the URL is well-formed");
        client.get_connection().expect("the server answers")
    }

    /// Runs one command, written as it is typed.
    pub fn run<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split_ascii_whitespace();
        let mut typed = redis::cmd(words.next().expect("a command"));
        typed.arg(words.collect::<Vec<_>>());
        typed
            .query(&mut self.connect())
            .unwrap_or_else(|error| panic!("{error}\nin: {command}"))
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.services.stop();
    }
}
