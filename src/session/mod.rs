//! Ending sessions: in Redis and in SQL tables.
//!
//! Counts leave this module, never keys or contents.

mod ended;
mod error;
mod glob;
mod layout;
mod redis;
mod sql;

pub use ended::{DecidedBy, Ended, EndingOptions, Selection};
pub use error::SessionError;
pub use glob::Glob;
pub use layout::{ByUser, Preset, REDIS_PRESETS, RedisLayout, Shape};
pub use redis::{RedisServer, end_redis_sessions};
pub use sql::{Action, CreatedAs, TABLE_PRESETS, TableLayout, TablePreset, end_table_sessions};
