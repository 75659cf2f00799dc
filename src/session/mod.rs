//! Ending sessions: in Redis, in SQL tables, and those of tokens that are stored nowhere.
//!
//! Counts leave this module, never keys or contents.

mod ended;
mod error;
mod glob;
mod layout;
mod mark;
mod redis;
mod snapshot;
mod sql;
mod store;

pub use ended::{DecidedBy, Ended, EndingOptions, SETTLE, Selection};
pub use error::SessionError;
pub use glob::Glob;
pub use layout::{ByUser, Preset, REDIS_PRESETS, RedisLayout, Shape};
pub(crate) use mark::MARK_FILE_BYTES_MAX;
pub use mark::{MARK_FILE_SCHEMA, MARK_LOCK_WAIT, MarkOptions, MarkPlace, MarkScope, Marked, Marks, MarksFault, raise_mark};
pub use redis::{RedisServer, end_redis_sessions};
pub use snapshot::{CutOff, KnownSessions};
pub use sql::{Action, CreatedAs, TABLE_PRESETS, TableLayout, TablePreset, end_table_sessions};
pub use store::SessionStore;
