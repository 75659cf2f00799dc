//! `reseal rotate` of a keyset.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use super::error::{protocol_error, protocol_error_once_begun};
use super::report::{self, GateEntry};
use super::sessions::SessionsEntry;
use super::{GateArgs, ManagedArgs};
use crate::cli::arg::KeyringArgs;
use crate::cli::{CliError, Context, Exit, output, tuning};
use crate::rotation::Options;
use crate::rotation::progress::Progress;
use crate::rotation::protocol::{Direction, GateRules, Policy, ProtocolError, Watch, Wish, rotate};

/// What is wanted of the rotation of a keyset.
#[derive(Args)]
#[command(next_help_heading = "Managed use: what for")]
pub struct WishArgs {
    /// What applications may still do with a key that has leaked (--compromised)
    #[arg(long, value_enum, value_name = "POLICY", requires = "compromised", conflicts_with = "table", default_value_t = PolicyArg::AvailabilityFirst)]
    policy: PolicyArg,

    /// Back to the old key, from wherever the rotation stands; not from a key that has leaked
    #[arg(long, conflicts_with_all = ["supersede", "table"])]
    rollback: bool,

    /// End the open rotation in favour of a third key; both older keys are then sources
    #[arg(long, conflicts_with = "table")]
    supersede: bool,

    /// Leave the old key with readers in the end
    #[arg(long, conflicts_with = "table")]
    no_retire: bool,

    /// End no sessions: I see to them myself (reseal sessions invalidate)
    #[arg(long, conflicts_with = "table")]
    no_sessions: bool,

    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PolicyArg {
    /// They open values with it until these are moved
    AvailabilityFirst,
    /// Nothing: values are unreadable to them until they are moved
    LockDown,
}

impl WishArgs {
    /// What is wanted; `compromised` is an option of single tables, too.
    pub fn wish(&self, compromised: bool) -> Wish {
        let policy = match self.policy {
            PolicyArg::AvailabilityFirst => Policy::AvailabilityFirst,
            PolicyArg::LockDown => Policy::LockDown,
        };
        Wish {
            direction: if self.rollback { Direction::Back } else { Direction::Forward },
            compromised: compromised.then_some(policy),
            supersede: self.supersede,
            retire: !self.no_retire,
            sessions: !self.no_sessions,
        }
    }

    /// How gates wait.
    pub fn rules(&self) -> GateRules {
        self.gates.rules()
    }
}

/// Rotates the keyset.
pub fn run(
    args: &ManagedArgs,
    wish: Wish,
    rules: GateRules,
    keyring: &KeyringArgs,
    options: Options,
    context: &mut Context<'_>,
) -> Result<Exit, CliError> {
    let begun = Instant::now();
    #[cfg(debug_assertions)]
    super::broken_gates::break_as_ordered();
    let managed = args.managed(keyring, rules, options, wish.sessions, context)?;
    let progress_of_run: Mutex<Option<Arc<Progress>>> = Mutex::default();
    let seen = || progress_of_run.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut gate, mut sessions, terminal) = (None, Vec::new(), Terminal::default());
    let outcome = tuning::run(context.output.is_json(), async |progress, stop| {
        *seen() = Some(Arc::clone(&progress));
        let report = rotate(&managed, &wish, &progress, &stop, &terminal).await;
        report.map_err(|error| {
            match &error {
                ProtocolError::Gate { gate: stood, .. } => gate = Some(GateEntry::of(stood)),
                ProtocolError::Held { rotation: Some(id), .. } => terminal.rotation(id),
                ProtocolError::Sessions { reports, .. } => sessions = reports.iter().map(SessionsEntry::of).collect(),
                _ => {}
            }
            // Only a rotation that is on record has an id.
            if terminal.id().is_some() {
                protocol_error_once_begun(error)
            } else {
                protocol_error(error)
            }
        })
    });
    let progress = seen().take().unwrap_or_default();
    let keyset = managed.keyset.as_str();
    match outcome {
        Ok(report) => {
            let (document, exit) = report::finished(keyset, report, &progress, begun, &mut context.output);
            Ok(context.output.outcome("reseal.rotate/1", &document, exit))
        }
        Err(error) => {
            context.output.say(&error.text());
            let rotation = terminal.id();
            let document = report::unfinished(rotation.as_deref(), keyset, &error, (gate, sessions), &progress, begun);
            Ok(context.output.outcome("reseal.rotate/1", &document, error.exit()))
        }
    }
}

/// What goes on, on standard error, as it happens.
#[derive(Default)]
struct Terminal {
    rotation: Mutex<Option<String>>,
}

impl Terminal {
    fn id(&self) -> Option<String> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watch for Terminal {
    fn say(&self, line: &str) {
        output::tell(line);
    }

    fn rotation(&self, id: &str) {
        *self.rotation.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
    }
}
