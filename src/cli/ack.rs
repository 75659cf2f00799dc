//! `reseal ack`: reporting for an application that does not use the crate.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::arg::{KeyringArgs, keyset, parse_time};
use super::selection::DatabaseArg;
use super::tuning;
use super::{CliError, Context, Exit};
use crate::key::KeysetName;
use crate::store::ledger::instance::{Instances, Report};

/// Report which revision of a keyset an application instance has loaded, so that rotations wait for it
///
/// For applications that do not use the reseal crate: run it after the instance has taken its keys and before it serves, run it again
/// within each lease, and once with --gone when the instance ends. The revision is that of the keys which the instance's next seal
/// will use; without --revision it is that of the keyring file as it is now. Where the keyring can be opened, a revision that it has not
/// reached is refused.
///
/// An instance whose lease ends, by the database's clock, is named as gone and no longer waited for; what is left of the lease, or 10 s
/// of it at least, must have passed by the clock of the rotation, too.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct AckArgs {
    #[command(flatten)]
    database: DatabaseArg,

    /// The keyset
    #[arg(long, value_name = "KEYSET")]
    keyset: KeysetName,

    /// The name of the instance: no two that run at once have the same
    #[arg(long, value_name = "NAME", value_parser = parse_instance)]
    instance: String,

    /// The revision that it has loaded [default: that of the keyring file]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,

    /// How long to count on it without hearing from it again
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    lease: Duration,

    /// It has ended and will not seal again: take its entry away
    #[arg(long, conflicts_with_all = ["revision", "lease"])]
    gone: bool,

    #[command(flatten)]
    keyring: KeyringArgs,
}

#[derive(Serialize)]
struct AckDocument<'a> {
    keyset: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_seconds: Option<u64>,
    gone: bool,
    exit: u8,
}

pub(super) fn run(args: AckArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let loaded = match (args.gone, args.revision) {
        (true, _) => None,
        (false, Some(revision)) => {
            // A gate would open for a revision that nobody can have. A host that cannot open the keyring is believed.
            if args.keyring.opens_unasked()? {
                let newest = keyset(&args.keyring.open(context)?, &args.keyset)?.revision();
                if revision > newest {
                    let what = format!(
                        "keyset {} has revision {newest}; nobody has loaded revision {revision}",
                        args.keyset
                    );
                    return Err(CliError::new(Exit::Refused, what)
                        .durable("nothing was reported")
                        .next("report the revision of the keys that the instance has loaded; or leave --revision out"));
                }
            }
            Some((revision, None))
        }
        (false, None) => {
            let keyring = args.keyring.open(context)?;
            let keyset = keyset(&keyring, &args.keyset)?;
            Some((keyset.revision(), Some(keyset.primary().id().0)))
        }
    };
    let store = args.database.open(context, "reseal ack")?;
    let was_there = tuning::ask(context.output.is_json(), &*store, "ack", async || {
        let mut control = store.control().await?;
        let Some((revision, seals_with)) = loaded else {
            if !control.exists().await? {
                return Ok(false);
            }
            control.migrate().await?;
            let mut instances = Instances::of(&mut *control);
            return Ok(instances.leave(&args.instance, args.keyset.as_str()).await?);
        };
        control.migrate().await?;
        let mut instances = Instances::of(&mut *control);
        instances.forget().await?;
        let report = Report {
            instance: &args.instance,
            keyset: args.keyset.as_str(),
            revision,
            seals_with,
            compromised_opens: 0,
            version: concat!("reseal ack ", env!("CARGO_PKG_VERSION")),
            lease: args.lease,
        };
        instances.report(&report).await?;
        Ok(true)
    })?;
    context.output.say(&match loaded {
        Some((revision, _)) => format!(
            "{} has revision {revision} of {}; counted on for {} s",
            args.instance,
            args.keyset,
            args.lease.as_secs()
        ),
        None if was_there => format!("{} no longer uses {}", args.instance, args.keyset),
        None => format!("{} was not listed for {}", args.instance, args.keyset),
    });
    let document = AckDocument {
        keyset: args.keyset.as_str(),
        instance: &args.instance,
        revision: loaded.map(|(revision, _)| revision),
        lease_seconds: loaded.map(|_| args.lease.as_secs()),
        gone: args.gone,
        exit: Exit::Done.code(),
    };
    context.output.document("reseal.ack/1", &document)?;
    Ok(Exit::Done)
}

fn parse_instance(text: &str) -> Result<String, &'static str> {
    if (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name of 1 to 200 characters, without control characters")
    }
}

/// As for instances that report themselves.
const NAME_CHARS_MAX: usize = 200;

const EXAMPLES: &str = "\
Examples:
  In an entrypoint, before the application starts (DATABASE_URL and RESEAL_PASSPHRASE are set):
    reseal keys export customer-data --as multifernet --out keys && \\
    reseal ack --keyset customer-data --instance \"$HOSTNAME\" --lease 10m

  When it has ended:
    reseal ack --keyset customer-data --instance \"$HOSTNAME\" --gone";
