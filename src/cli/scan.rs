//! `reseal scan`.

use clap::Args;
use serde::Serialize;

use super::arg::{KeyringArgs, parse_key_id};
use super::rotation_error::rotation_error;
use super::selection::DatabaseArg;
use super::tuning;
use super::{CliError, Context, Exit};
use crate::format::Verdict;
use crate::key::KeyId;
use crate::rotation::detect;

/// Find encrypted columns and their formats in a database; changes nothing
///
/// A sample of every text and bytes column is looked at. Fernet tokens and the envelopes of other systems give themselves away; Tink
/// values are recognised by the ids of their keys (--key-id, or the keyring's with --keyring-ids). A column that cannot be read is
/// named, and the exit code is 5. Columns that this user may not read are not looked at.
#[derive(Args)]
pub struct ScanArgs {
    #[command(flatten)]
    database: DatabaseArg,

    /// A key id that may stand in Tink values; repeat for more
    #[arg(long, value_name = "KEYID", value_parser = parse_key_id)]
    key_id: Vec<KeyId>,

    /// Look for the key ids of the keyring
    #[arg(long)]
    keyring_ids: bool,

    /// Also list columns whose values merely have the shape of a format
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    keyring: KeyringArgs,
}

#[derive(Serialize)]
struct ScanDocument {
    columns_sampled: usize,
    found: Vec<FoundEntry>,
    not_looked_at: Vec<UnseenEntry>,
    exit: u8,
}

#[derive(Serialize)]
struct FoundEntry {
    table: String,
    column: String,
    /// Whether the values leave no doubt.
    certain: bool,
    formats: Vec<&'static str>,
    sampled: usize,
}

/// A column that could not be read.
#[derive(Serialize)]
struct UnseenEntry {
    table: String,
    column: String,
    why: String,
}

pub(super) fn run(args: ScanArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let mut ids = args.key_id.clone();
    if args.keyring_ids {
        let keyring = args.keyring.open(context)?;
        ids.extend(keyring.keysets().iter().flat_map(|keyset| keyset.keys()).map(|key| key.id()));
    }
    let store = args.database.open(context, "reseal scan")?;
    let found = tuning::run(context.output.is_json(), async |_progress, _stop| {
        detect::scan(&*store, &ids).await.map_err(|error| rotation_error(&error))
    })?;
    let (mut entries, mut unseen) = (Vec::new(), Vec::new());
    let columns = found.len();
    for found in found {
        match found.verdict {
            Ok(verdict) => entries.extend(formats(verdict, args.all).map(|(certain, formats)| FoundEntry {
                table: found.table,
                column: found.column,
                certain,
                formats,
                sampled: found.sampled,
            })),
            Err(why) => unseen.push(UnseenEntry {
                table: found.table,
                column: found.column,
                why,
            }),
        }
    }
    let columns_sampled = columns - unseen.len();
    let exit = if unseen.is_empty() { Exit::Done } else { Exit::Incomplete };
    for entry in &entries {
        context.output.say(&format!(
            "{:<40} {} {} ({} values looked at)",
            format!("{}.{}", entry.table, entry.column),
            if entry.certain { "holds" } else { "may hold" },
            entry.formats.join(" or "),
            entry.sampled
        ));
    }
    context.output.say(&format!(
        "{columns_sampled} columns looked at, {} with sealed values",
        entries.iter().filter(|entry| entry.certain).count()
    ));
    for column in &unseen {
        context.output.say(&format!(
            "{}.{} could not be looked at: {}",
            column.table, column.column, column.why
        ));
    }
    let document = ScanDocument {
        columns_sampled,
        found: entries,
        not_looked_at: unseen,
        exit: exit.code(),
    };
    context.output.document("reseal.scan/1", &document)?;
    Ok(exit)
}

/// The formats that a column holds or may hold, and whether its values leave no doubt.
fn formats(verdict: Verdict, all: bool) -> Option<(bool, Vec<&'static str>)> {
    match verdict {
        Verdict::Certain(name) | Verdict::Foreign(name) => Some((true, vec![name])),
        Verdict::Mixed(names) => Some((true, names)),
        Verdict::Ask(names) if all => Some((false, names)),
        Verdict::Ask(_) | Verdict::Plain | Verdict::Nothing => None,
    }
}
