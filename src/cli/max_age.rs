//! How old keys and secrets may become: the flag, or the policy of the configuration.

use std::path::Path;

use clap::Args;
use jiff::SignedDuration;

use super::arg::parse_days;
use super::config::ConfigArgs;
use super::{CliError, Exit};

/// The limit of an age check.
#[derive(Args)]
pub struct MaxAgeArgs {
    /// How old it may be, such as 90d [default: what the configuration says]
    #[arg(long, value_name = "TIME", value_parser = parse_max_age)]
    pub max_age: Option<SignedDuration>,

    #[command(flatten)]
    pub config: ConfigArgs,
}

impl MaxAgeArgs {
    /// The limit for keys. Without one there is nothing to check, and nothing passes.
    pub fn for_keys(&self) -> Result<SignedDuration, CliError> {
        if let Some(max_age) = self.max_age {
            return Ok(max_age);
        }
        let config = self.config.read_if_there()?;
        let limit = config.as_ref().and_then(|config| config.policy.max_key_age);
        limit.ok_or_else(|| no_limit("a key", self.config.path()))
    }
}

/// Nobody said how old `what` may become.
pub fn no_limit(what: &str, config: &Path) -> CliError {
    CliError::new(Exit::Unusable, format!("nobody said how old {what} may become"))
        .at(format!("configuration {}", config.display()))
        .next("pass --max-age 90d, or write max_key_age = \"90d\" under [policy] of the configuration")
}

/// A time for people: days, where there are some; hours and minutes before that.
pub fn describe(age: SignedDuration) -> String {
    let (hours, minutes) = (age.as_hours(), age.as_mins());
    let plural = |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match (hours / 24, hours) {
        (0, 0) => plural(minutes, "minute"),
        (0, hours) => plural(hours, "hour"),
        (days, _) => plural(days, "day"),
    }
}

fn parse_max_age(text: &str) -> Result<SignedDuration, &'static str> {
    match parse_days(text)? {
        none if none.is_zero() => Err("a time above 0"),
        max_age => Ok(max_age),
    }
}
