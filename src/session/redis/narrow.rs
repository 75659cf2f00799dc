//! Which keys are meant: those of everybody, of a tenant, or of a user.

use super::connect::RedisServer;
use crate::session::{ByUser, EndingOptions, Glob, RedisLayout, SessionError};

/// The layout with the pattern of the user or tenant that is meant. Refuses what the store cannot tell.
pub(super) fn narrowed(
    server: &RedisServer,
    layout: &RedisLayout,
    options: &EndingOptions,
) -> Result<RedisLayout, SessionError> {
    let refused = |why: &str| Err(SessionError::Refused(why.to_owned()));
    let selection = &options.selection;
    let mut layout = layout.clone();
    if selection.before.is_some() {
        return refused(
            "Redis keeps no creation times: without --before, the sessions that exist now are ended and new ones stay",
        );
    }
    if let Some(tenant) = &selection.tenant {
        let Some(pattern) = &layout.by_tenant else {
            return refused(
                "these keys do not tell tenants apart; configure tenant_match, or end the sessions of each user of the tenant",
            );
        };
        layout.pattern = Glob::new(pattern.replace("{tenant}", &Glob::escape(tenant)));
    }
    match (&selection.user, &layout.by_user) {
        (None, _) | (Some(_), ByUser::Json(_) | ByUser::SpringIndex(_)) => {}
        (Some(_), ByUser::Unknown) => {
            return refused(
                "this store does not tell whose a session is; configure user_match or user_json, or end all sessions",
            );
        }
        (Some(user), ByUser::Pattern(pattern)) => {
            if selection.tenant.is_some() {
                return refused("--user and --tenant exclude each other where both are patterns");
            }
            layout.pattern = Glob::new(pattern.replace("{user}", &Glob::escape(user)));
        }
    }
    if server.is_cluster() && matches!(layout.by_user, ByUser::SpringIndex(_)) {
        return refused(
            "the indexes of spring-indexed spread over the nodes of a cluster; use the preset spring, and let the indexes expire",
        );
    }
    if layout.pattern.matches_everything() && !options.all_sessions {
        return refused("the pattern matches every key of the database; if all of them are sessions, say --all-sessions");
    }
    Ok(layout)
}
