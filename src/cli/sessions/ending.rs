//! Ending the sessions of the configuration, store after store, and what they end in: `reseal sessions invalidate`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::cli::{CliError, Context};
use crate::config::{MarksAt, SecretRef, SessionPlace, SessionSettings, UrlRef};
use crate::session::{
    DecidedBy, Ended, EndingOptions, MARK_LOCK_WAIT, MarkOptions, MarkPlace, MarkScope, Marked, RedisServer, SessionStore,
    end_redis_sessions, end_table_sessions, raise_mark,
};

/// What was done with one store.
#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::cli) enum StoreView {
    /// Sessions that are stored.
    Stored(StoredView),
    /// Tokens that are not.
    Tokens(TokensView),
}

#[derive(Serialize)]
pub(in crate::cli) struct StoredView {
    name: String,
    kind: &'static str,
    cut_off: Timestamp,
    decided_by: &'static str,
    matched: u64,
    ended: u64,
    created_since: u64,
    index_entries: u64,
    unreadable: u64,
    left: u64,
    passes: u32,
    slowest_batch_ms: u128,
    elapsed_seconds: f64,
    #[serde(skip)]
    is_complete: bool,
}

#[derive(Serialize)]
pub(in crate::cli) struct TokensView {
    name: String,
    kind: &'static str,
    /// Tokens that were issued before are dead. In a dry run: would be.
    not_before: Option<Timestamp>,
    previous: Option<Timestamp>,
    is_raised: bool,
    elapsed_seconds: f64,
}

/// Ends the sessions of these stores, in order. A store that fails does not save the sessions of the next: all are tried, and the
/// first failure is returned, with what was ended all the same.
pub(in crate::cli) fn end_sessions(
    chosen: &[&SessionSettings],
    options: &EndingOptions,
    context: &mut Context<'_>,
) -> Result<Vec<StoreView>, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut views: Vec<StoreView> = Vec::new();
    let mut failed: Option<CliError> = None;
    for session in chosen {
        let began = Instant::now();
        match end_store(session, options, &runtime, began, context) {
            Ok(view) => views.push(view),
            Err(error) => {
                let error = error.at(format!("sessions {}", session.name));
                match failed {
                    None => failed = Some(error),
                    // The first one decides the exit code; nobody shall miss the others.
                    Some(_) => context.output.say(&error.text()),
                }
            }
        }
    }
    match failed {
        None => Ok(views),
        Some(error) if views.is_empty() || options.dry_run => Err(error),
        Some(error) => {
            let done: Vec<_> = views.iter().map(StoreView::name).collect();
            Err(error.durable(format!("sessions {} are ended", done.join(", "))))
        }
    }
}

fn end_store(
    session: &SessionSettings,
    options: &EndingOptions,
    runtime: &Runtime,
    began: Instant,
    context: &mut Context<'_>,
) -> Result<StoreView, CliError> {
    let ended = match store_of(&session.place, context)? {
        SessionStore::Redis { server, layout } => runtime.block_on(end_redis_sessions(&server, &layout, options))?,
        SessionStore::Table { url, layout } => runtime.block_on(end_table_sessions(&url, &layout, options))?,
        SessionStore::Tokens {
            place,
            clock_skew,
            token_lifetime,
        } => {
            let marking = MarkOptions {
                scope: MarkScope::of(&options.selection)?,
                at: options.selection.before,
                clock_skew,
                dry_run: options.dry_run,
                lock_wait: MARK_LOCK_WAIT,
                token_lifetime,
            };
            let marked = runtime.block_on(raise_mark(&place, &marking, context.now))?;
            tell_mark(&session.name, &marked, options.dry_run, context);
            return Ok(StoreView::Tokens(TokensView {
                name: session.name.clone(),
                kind: "tokens",
                not_before: second(marked.not_before),
                previous: marked.previous.and_then(second),
                is_raised: marked.previous.is_none_or(|previous| previous < marked.not_before),
                elapsed_seconds: began.elapsed().as_secs_f64(),
            }));
        }
    };
    tell(&session.name, &ended, options.dry_run, context);
    Ok(StoreView::Stored(StoredView::of(&session.name, &ended, began.elapsed())))
}

/// The store of a section of the configuration, with what its references say. Connects to nothing yet.
pub(in crate::cli) fn store_of(place: &SessionPlace, context: &mut Context<'_>) -> Result<SessionStore, CliError> {
    Ok(match place {
        SessionPlace::Redis {
            url,
            cluster,
            allow_plaintext,
            layout,
        } => SessionStore::Redis {
            server: Box::new(redis_at(url, *cluster, *allow_plaintext, context)?),
            layout: layout.clone(),
        },
        SessionPlace::Table { url, layout } => SessionStore::Table {
            url: read_url(url, context)?,
            layout: layout.clone(),
        },
        SessionPlace::Tokens {
            marks,
            clock_skew,
            token_lifetime,
        } => SessionStore::Tokens {
            place: mark_place(marks, context)?,
            clock_skew: *clock_skew,
            token_lifetime: *token_lifetime,
        },
    })
}

fn mark_place(marks: &MarksAt, context: &mut Context<'_>) -> Result<MarkPlace, CliError> {
    Ok(match marks {
        MarksAt::File { path } => MarkPlace::File { path: path.clone() },
        MarksAt::Redis {
            url,
            cluster,
            allow_plaintext,
            key,
        } => MarkPlace::Redis {
            server: Box::new(redis_at(url, *cluster, *allow_plaintext, context)?),
            key: key.clone(),
        },
        MarksAt::Table { url, table } => MarkPlace::Table {
            url: read_url(url, context)?,
            table: table.clone(),
        },
    })
}

fn redis_at(
    url: &SecretRef,
    is_cluster: bool,
    allow_plaintext: bool,
    context: &mut Context<'_>,
) -> Result<RedisServer, CliError> {
    let url = read_url(&UrlRef::Secret(url.clone()), context)?;
    Ok(RedisServer::parse(&url, is_cluster, allow_plaintext)?)
}

fn read_url(url: &UrlRef, context: &mut Context<'_>) -> Result<Zeroizing<String>, CliError> {
    if let UrlRef::Secret(reference) = url {
        context.secrets.keep_from_children(reference);
    }
    Ok(context.secrets.read_url(url)?)
}

fn tell(name: &str, ended: &Ended, dry_run: bool, context: &mut Context<'_>) {
    let cut_off = ended.cut_off.strftime("%Y-%m-%d %H:%M:%SZ");
    if dry_run {
        context
            .output
            .say(&format!("{name}: {} sessions at {cut_off} would be ended.", ended.matched));
    } else {
        context.output.say(&format!(
            "{name}: {} sessions from before {cut_off} ended, {} left; {} created since stay.",
            ended.ended, ended.left, ended.created_since
        ));
    }
    if ended.unreadable > 0 {
        context.output.say(&format!(
            "  {} values do not tell whose they are (too large, or not JSON); they were left. Ending all sessions ends them, too.",
            ended.unreadable
        ));
    }
    if ended.decided_by == DecidedBy::Scan {
        context.output.say(
            "  The server does not announce new keys: sessions that were created while the scan ran may have been ended, and those left may be new.",
        );
    }
}

fn tell_mark(name: &str, marked: &Marked, dry_run: bool, context: &mut Context<'_>) {
    let mark = second(marked.not_before).map_or_else(String::new, |mark| mark.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    let said = match marked.previous {
        _ if dry_run => format!("{name}: tokens issued before {mark} would be dead."),
        Some(previous) if previous == marked.not_before => {
            format!("{name}: tokens issued before {mark} were dead already; a mark never moves backwards.")
        }
        _ => format!("{name}: tokens issued before {mark} are dead."),
    };
    context.output.say(&said);
}

fn second(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}

impl StoreView {
    /// Whether nothing is left that should be gone.
    pub(in crate::cli) fn is_complete(&self) -> bool {
        match self {
            Self::Stored(view) => view.is_complete,
            Self::Tokens(_) => true,
        }
    }

    /// The name of the store in the configuration.
    pub(in crate::cli) fn name(&self) -> &str {
        match self {
            Self::Stored(view) => &view.name,
            Self::Tokens(view) => &view.name,
        }
    }
}

impl StoredView {
    fn of(name: &str, ended: &Ended, elapsed: Duration) -> Self {
        Self {
            name: name.to_owned(),
            kind: "stored",
            cut_off: ended.cut_off,
            decided_by: ended.decided_by.as_str(),
            matched: ended.matched,
            ended: ended.ended,
            created_since: ended.created_since,
            index_entries: ended.index_entries,
            unreadable: ended.unreadable,
            left: ended.left,
            passes: ended.passes,
            slowest_batch_ms: ended.slowest_batch.as_millis(),
            elapsed_seconds: elapsed.as_secs_f64(),
            is_complete: ended.is_complete(),
        }
    }
}
