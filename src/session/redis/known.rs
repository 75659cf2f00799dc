//! Ending the sessions of a cut-off that was taken before, in Redis: first all of them are counted in, then they are ended, however
//! often it takes.

use super::clock::server_time;
use super::connect::RedisServer;
use super::narrow::narrowed;
use super::sweep::Sweep;
use crate::session::snapshot::Gathering;
use crate::session::{CutOff, DecidedBy, Ended, EndingOptions, RedisLayout, SETTLE, SessionError};

/// Asks whether the server can be reached and the layout can be used. Reads no session.
pub(in crate::session) async fn check(server: &RedisServer, layout: &RedisLayout) -> Result<(), SessionError> {
    narrowed(server, layout, &EndingOptions::of_everybody(SETTLE))?;
    for node in server.nodes().await? {
        let mut connection = node.connect(None).await?;
        server_time(&node, &mut connection).await?;
    }
    Ok(())
}

/// Takes the cut-off on every node. Ends nothing.
pub(in crate::session) async fn cut(server: &RedisServer, layout: &RedisLayout, salt: &str) -> Result<CutOff, SessionError> {
    let options = EndingOptions::of_everybody(SETTLE);
    let layout = narrowed(server, layout, &options)?;
    let (nodes, places) = server.topology().await?;
    let mut gathering = Gathering::under(salt);
    let mut taken = None;
    for node in &nodes {
        let sweep = Sweep::begin(node, &layout, &options, None).await?;
        let (gathered, at, decided_by) = sweep.gather(gathering).await?;
        gathering = gathered;
        taken = Some(match taken {
            None => (at, decided_by),
            Some((first, DecidedBy::Scan)) => (at.min(first), DecidedBy::Scan),
            Some((first, _)) => (at.min(first), decided_by),
        });
    }
    // A slot that wandered meanwhile may have taken sessions past the scan.
    if server.topology().await?.1 != places {
        return Err(SessionError::Moving);
    }
    let (at, decided_by) = taken.ok_or(SessionError::Moving)?;
    Ok(CutOff {
        at,
        decided_by,
        sessions: gathering.finish(),
    })
}

/// Ends what was there at the cut-off, on every node. Whatever was ended before, the same call continues.
pub(in crate::session) async fn end_known(
    server: &RedisServer,
    layout: &RedisLayout,
    cut_off: &CutOff,
) -> Result<Ended, SessionError> {
    let options = EndingOptions::of_everybody(SETTLE);
    let layout = narrowed(server, layout, &options)?;
    let (nodes, places) = server.topology().await?;
    let mut total: Option<Ended> = None;
    for node in &nodes {
        let ended = Sweep::begin(node, &layout, &options, Some(&cut_off.sessions))
            .await?
            .end()
            .await?;
        total = Some(match total {
            None => ended,
            Some(total) => total.and(ended),
        });
    }
    if server.topology().await?.1 != places {
        return Err(SessionError::Moving);
    }
    let total = total.ok_or(SessionError::Moving)?;
    Ok(Ended {
        cut_off: cut_off.at,
        decided_by: cut_off.decided_by,
        matched: cut_off.sessions.len(),
        ..total
    })
}
