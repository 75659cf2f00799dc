//! How frameworks lay out their sessions in Redis.

use super::glob::Glob;

/// Which keys are sessions, and what hangs on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisLayout {
    /// Every session key matches it.
    pub pattern: Glob,
    /// What a key must look like beyond the pattern.
    pub shape: Shape,
    /// How the sessions of one user are found.
    pub by_user: ByUser,
    /// The pattern of the sessions of one tenant, with `{tenant}` in it, where keys tell tenants apart.
    pub by_tenant: Option<String>,
}

/// What a session key must look like beyond its pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Any,
    /// Ends in this many letters and digits: tells sessions from other entries of a cache.
    AlphanumericTail(usize),
    /// `sessions:<id>` of Spring's indexed repository, not its `sessions:expires:<id>`.
    SpringSession,
}

/// How the sessions of one user are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByUser {
    /// The store does not tell.
    Unknown,
    /// The keys hold the user: a pattern with `{user}` in it.
    Pattern(String),
    /// The values are JSON objects that name the user at this path of members.
    Json(Vec<String>),
    /// Spring's index: a set for each principal. Its namespace.
    SpringIndex(String),
}

/// A layout that is known by name.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What comes before the session ids when nothing else is configured; `None` when it must be configured.
    pub prefix: Option<&'static str>,
    shape: Shape,
    by_user: fn(&str) -> ByUser,
}

/// The presets for Redis.
pub const REDIS_PRESETS: &[Preset] = &[
    // Key: `<KEY_PREFIX>:<VERSION>:` and then `django.contrib.sessions.cache` or `…cached_db`, and 32 characters.
    Preset {
        name: "django",
        prefix: Some(":1:django.contrib.sessions.cache"),
        shape: Shape::AlphanumericTail(32),
        by_user: |_| ByUser::Unknown,
    },
    Preset {
        name: "flask-session",
        prefix: Some("session:"),
        shape: Shape::Any,
        by_user: |_| ByUser::Unknown,
    },
    Preset {
        name: "connect-redis",
        prefix: Some("sess:"),
        shape: Shape::Any,
        by_user: |_| ByUser::Json(vec!["passport".to_owned(), "user".to_owned()]),
    },
    // redis-rack: new entries under the private id `2::…`, old ones under the public id.
    Preset {
        name: "rails",
        prefix: Some("rack:session:"),
        shape: Shape::Any,
        by_user: |_| ByUser::Unknown,
    },
    // ActionDispatch's cache store.
    Preset {
        name: "rails-cache",
        prefix: Some("_session_id:"),
        shape: Shape::Any,
        by_user: |_| ByUser::Unknown,
    },
    // Shares its prefix, which holds the application's name, with other entries of the cache.
    Preset {
        name: "laravel",
        prefix: None,
        shape: Shape::AlphanumericTail(40),
        by_user: |_| ByUser::Unknown,
    },
    Preset {
        name: "spring",
        prefix: Some("spring:session"),
        shape: Shape::Any,
        by_user: |_| ByUser::Unknown,
    },
    Preset {
        name: "spring-indexed",
        prefix: Some("spring:session"),
        shape: Shape::SpringSession,
        by_user: |namespace| ByUser::SpringIndex(namespace.to_owned()),
    },
];

impl RedisLayout {
    /// A free pattern.
    pub fn of_pattern(pattern: &str) -> Self {
        Self {
            pattern: Glob::new(pattern),
            shape: Shape::Any,
            by_user: ByUser::Unknown,
            by_tenant: None,
        }
    }

    /// A preset, with its own prefix or another one.
    pub fn of_preset(preset: &Preset, prefix: &str) -> Self {
        let spring = matches!(preset.name, "spring" | "spring-indexed");
        let begin = Glob::escape(prefix);
        let pattern = if spring {
            format!("{begin}:sessions:*")
        } else {
            format!("{begin}*")
        };
        Self {
            pattern: Glob::new(pattern),
            shape: preset.shape,
            by_user: (preset.by_user)(prefix),
            by_tenant: None,
        }
    }

    /// Whether a key is a session.
    pub fn is_session(&self, key: &[u8]) -> bool {
        self.pattern.matches(key) && self.shape.fits(key)
    }
}

impl Shape {
    fn fits(self, key: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::AlphanumericTail(length) => {
                let (head, tail) = key.split_at(key.len().saturating_sub(length));
                // `cached_db` and `cache` are followed by the id without a separator.
                let is_whole = head.ends_with(b"cache") || head.ends_with(b"cached_db") || !ends_alphanumeric(head);
                tail.len() == length && tail.iter().all(u8::is_ascii_alphanumeric) && is_whole
            }
            Self::SpringSession => key
                .rsplit(|byte| *byte == b':')
                .nth(1)
                .is_some_and(|segment| segment == b"sessions"),
        }
    }
}

fn ends_alphanumeric(text: &[u8]) -> bool {
    text.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn preset(name: &str, prefix: Option<&str>) -> RedisLayout {
        let preset = REDIS_PRESETS.iter().find(|preset| preset.name == name).unwrap();
        RedisLayout::of_preset(preset, prefix.or(preset.prefix).unwrap())
    }

    #[test]
    fn presets_know_sessions_from_their_neighbours() {
        let (id32, id40) = ("a1".repeat(16), "Z9".repeat(20));
        for (layout, key, expected) in [
            (
                preset("django", None),
                format!(":1:django.contrib.sessions.cache{id32}"),
                true,
            ),
            (
                preset("django", None),
                format!(":1:django.contrib.sessions.cached_db{id32}"),
                true,
            ),
            (
                preset("django", None),
                format!(":1:django.contrib.sessions.cache{id32}x"),
                false,
            ),
            (
                preset("django", None),
                format!(":2:django.contrib.sessions.cache{id32}"),
                false,
            ),
            (
                preset("laravel", Some("app_database_app_cache_")),
                format!("app_database_app_cache_{id40}"),
                true,
            ),
            (
                preset("laravel", Some("app_database_app_cache_")),
                format!("app_database_app_cache_users_{id32}"),
                false,
            ),
            (preset("flask-session", None), "session:x".to_owned(), true),
            (preset("spring-indexed", None), "spring:session:sessions:8f".to_owned(), true),
            (
                preset("spring-indexed", None),
                "spring:session:sessions:expires:8f".to_owned(),
                false,
            ),
            (preset("rails", None), "rack:session:2::ab".to_owned(), true),
        ] {
            assert_eq!(layout.is_session(key.as_bytes()), expected, "{key}");
        }
    }
}
