//! `[session.NAME]`: where sessions are, and how they are laid out.

use std::path::PathBuf;
use std::time::Duration;

use super::file::ConfigFault;
use super::sections::Database;
use super::table::Section;
use super::{SecretRef, UrlRef};
use crate::session::{Action, ByUser, CreatedAs, REDIS_PRESETS, RedisLayout, TABLE_PRESETS, TableLayout};

/// `[session.NAME]`.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Its name in the configuration.
    pub name: String,
    /// Where the sessions are.
    pub place: SessionPlace,
    /// Whether a scheduled rotation ends them, too. When a key has leaked, all sessions of the configuration end.
    pub in_scheduled: bool,
}

/// Where sessions are.
#[derive(Debug, Clone)]
pub enum SessionPlace {
    /// In Redis or Valkey.
    Redis {
        /// Where its URL is read from.
        url: SecretRef,
        /// Whether it is a cluster.
        cluster: bool,
        /// Whether the password may cross a network in clear text.
        allow_plaintext: bool,
        /// Which keys.
        layout: RedisLayout,
    },
    /// In a table.
    Table {
        /// Where the database is.
        url: UrlRef,
        /// Which table.
        layout: TableLayout,
    },
    /// Nowhere: tokens, which a "not before" mark ends.
    Tokens {
        /// Where the marks are kept.
        marks: MarksAt,
        /// How far clocks of issuers may be ahead.
        clock_skew: Duration,
        /// How long tokens live at most.
        token_lifetime: Option<Duration>,
    },
}

/// Where marks are kept.
#[derive(Debug, Clone)]
pub enum MarksAt {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// In a Redis hash.
    Redis {
        /// Where its URL is read from.
        url: SecretRef,
        /// Whether it is a cluster.
        cluster: bool,
        /// Whether the password may cross a network in clear text.
        allow_plaintext: bool,
        /// The key of the hash.
        key: String,
    },
    /// In a table.
    Table {
        /// Where the database is.
        url: UrlRef,
        /// Its name.
        table: String,
    },
}

pub(super) fn session(name: String, mut section: Section<'_>, databases: &[Database]) -> Result<SessionSettings, ConfigFault> {
    let redis: Option<SecretRef> = section.parsed("redis")?;
    let database = section.text("database")?;
    let preset = section.text("preset")?;
    let in_scheduled = section.flag("in_scheduled")?.unwrap_or(false);
    let file = section.file("file")?;
    let tokens = section.flag("tokens")?.unwrap_or(file.is_some());
    if file.is_some() && !tokens {
        return Err(section.wrong("file", "is where the marks of tokens are kept: it needs tokens = true"));
    }
    if tokens {
        if preset.is_some() {
            return Err(section.wrong(
                "preset",
                "is for sessions that are stored; tokens = true is for those that are not",
            ));
        }
        let place = tokens_place(&mut section, file, redis, database, databases)?;
        section.finish()?;
        return Ok(SessionSettings {
            name,
            place,
            in_scheduled,
        });
    }
    let place = match (redis, database) {
        (Some(url), None) => SessionPlace::Redis {
            url,
            cluster: section.flag("cluster")?.unwrap_or(false),
            allow_plaintext: section.flag("allow_plaintext")?.unwrap_or(false),
            layout: redis_layout(&mut section, preset.as_deref())?,
        },
        (None, Some(database)) => SessionPlace::Table {
            url: url_of(&section, &database, databases)?,
            layout: table_layout(&mut section, preset.as_deref())?,
        },
        _ => return Err(section.wrong("redis", "or database: exactly one of them says where the sessions are")),
    };
    section.finish()?;
    Ok(SessionSettings {
        name,
        place,
        in_scheduled,
    })
}

fn url_of(section: &Section<'_>, database: &str, databases: &[Database]) -> Result<UrlRef, ConfigFault> {
    let known = databases.iter().find(|known| known.name == database);
    let known = known.ok_or_else(|| section.wrong("database", "names a database that is not in the configuration"))?;
    Ok(known.url.clone())
}

fn tokens_place(
    section: &mut Section<'_>,
    file: Option<PathBuf>,
    redis: Option<SecretRef>,
    database: Option<String>,
    databases: &[Database],
) -> Result<SessionPlace, ConfigFault> {
    let skew = section.text("clock_skew")?;
    let clock_skew = match skew.as_deref() {
        None => CLOCK_SKEW_DEFAULT,
        // `duration` knows no zero.
        Some(text) => {
            let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
            let skew = seconds.map(Duration::from_secs).filter(|skew| *skew <= CLOCK_SKEW_MAX);
            skew.ok_or_else(|| section.wrong("clock_skew", "is not a time from 0s to 60s"))?
        }
    };
    let marks = match (file, redis, database) {
        (Some(path), None, None) => MarksAt::File { path },
        (None, Some(url), None) => MarksAt::Redis {
            url,
            cluster: section.flag("cluster")?.unwrap_or(false),
            allow_plaintext: section.flag("allow_plaintext")?.unwrap_or(false),
            key: section.text("key")?.unwrap_or_else(|| MARKS_KEY.to_owned()),
        },
        (None, None, Some(database)) => MarksAt::Table {
            url: url_of(section, &database, databases)?,
            table: section.text("table")?.unwrap_or_else(|| MARKS_TABLE.to_owned()),
        },
        _ => {
            let why = "or redis or database: exactly one of them says where the marks of the tokens are kept";
            return Err(section.wrong("file", why));
        }
    };
    let lifetime = section.duration("token_lifetime")?;
    Ok(SessionPlace::Tokens {
        marks,
        clock_skew,
        // A time of a configuration is positive.
        token_lifetime: lifetime.map(|lifetime| lifetime.unsigned_abs()),
    })
}

fn redis_layout(section: &mut Section<'_>, preset: Option<&str>) -> Result<RedisLayout, ConfigFault> {
    let pattern = section.text("match")?;
    let prefix = section.text("prefix")?;
    let mut layout = match (preset, pattern) {
        (None, Some(pattern)) => {
            if prefix.is_some() {
                return Err(section.wrong("prefix", "is for a preset; write it into match"));
            }
            RedisLayout::of_pattern(&pattern)
        }
        (Some(name), None) => {
            let preset = REDIS_PRESETS.iter().find(|preset| preset.name == name);
            let preset =
                preset.ok_or_else(|| section.wrong("preset", one_of(REDIS_PRESETS.iter().map(|preset| preset.name))))?;
            let prefix = prefix.as_deref().or(preset.prefix);
            let prefix = prefix
                .filter(|prefix| !prefix.is_empty())
                .ok_or_else(|| ConfigFault::Missing {
                    key: section.path("prefix"),
                })?;
            RedisLayout::of_preset(preset, prefix)
        }
        _ => return Err(section.wrong("match", "or preset: exactly one of them says which keys are sessions")),
    };
    if let Some(pattern) = template(section, "user_match", "{user}")? {
        layout.by_user = ByUser::Pattern(pattern);
    }
    if let Some(path) = section.text("user_json")? {
        layout.by_user = ByUser::Json(path.split('.').map(str::to_owned).collect());
    }
    layout.by_tenant = template(section, "tenant_match", "{tenant}")?;
    Ok(layout)
}

/// A pattern with a place for a name in it.
fn template(section: &mut Section<'_>, key: &'static str, place: &str) -> Result<Option<String>, ConfigFault> {
    match section.text(key)? {
        Some(pattern) if !pattern.contains(place) => Err(section.wrong(key, format!("has no {place} in it"))),
        pattern => Ok(pattern),
    }
}

fn table_layout(section: &mut Section<'_>, preset: Option<&str>) -> Result<TableLayout, ConfigFault> {
    let (table, key) = (section.text("table")?, section.text("key")?);
    let mut layout = match preset {
        Some(name) => {
            let preset = TABLE_PRESETS.iter().find(|preset| preset.name == name);
            let preset =
                preset.ok_or_else(|| section.wrong("preset", one_of(TABLE_PRESETS.iter().map(|preset| preset.name))))?;
            preset.layout()
        }
        None => TableLayout {
            table: table.clone().ok_or_else(|| ConfigFault::Missing {
                key: section.path("table"),
            })?,
            key: key.clone().ok_or_else(|| ConfigFault::Missing {
                key: section.path("key"),
            })?,
            user: None,
            tenant: None,
            created: None,
            action: Action::Delete,
        },
    };
    layout.table = table.unwrap_or(layout.table);
    layout.key = key.unwrap_or(layout.key);
    layout.user = section.text("user")?.or(layout.user);
    layout.tenant = section.text("tenant")?;
    let form = match section.text("created_as")?.as_deref() {
        None | Some("timestamp") => CreatedAs::Timestamp,
        Some("seconds") => CreatedAs::Seconds,
        Some("milliseconds") => CreatedAs::Milliseconds,
        Some(_) => return Err(section.wrong("created_as", "is none of timestamp, seconds and milliseconds")),
    };
    if let Some(column) = section.text("created")? {
        layout.created = Some((column, form));
    }
    if let Some(column) = section.text("revoke")? {
        layout.action = Action::Revoke(column);
    }
    Ok(layout)
}

fn one_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    format!("is none of {}", names.collect::<Vec<_>>().join(", "))
}

/// The key of the hash, and the name of the table, in which marks are kept.
const MARKS_KEY: &str = "reseal:not-before";
const MARKS_TABLE: &str = "token_not_before";

/// As the crate's verifying side has it: `TokenOptions::leeway`.
const CLOCK_SKEW_DEFAULT: Duration = Duration::from_secs(2);

/// Nobody can log in for so long; clocks that differ by more want mending.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
