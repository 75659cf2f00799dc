//! Errors of a keyset's rotation in the four parts that an operator needs.

use crate::cli::rotation_error::{rotation_error, store_error};
use crate::cli::{CliError, Exit};
use crate::rotation::RotationError;
use crate::rotation::protocol::ProtocolError;
use crate::store::StoreError;

/// What a failed rotation of a keyset says.
pub fn protocol_error(error: ProtocolError) -> CliError {
    match error {
        ProtocolError::Refused { why, next } => CliError::new(Exit::Refused, why)
            .durable("what was there before: this run has touched nothing")
            .next(next),
        ProtocolError::Preflight { dataset, findings } => {
            rotation_error(&RotationError::Refused(findings)).at(format!("dataset {dataset}"))
        }
        ProtocolError::Dataset { dataset, cause } => rotation_error(&cause).within(&format!("dataset {dataset}")),
        ProtocolError::Held { .. } => CliError::from_error(Exit::Conflict, &error)
            .durable("nothing was touched by this run")
            .next("wait for it; or, if it hangs, run again with --take-over; or lead it to a third key with --supersede"),
        ProtocolError::Gate { .. } => CliError::new(Exit::Incomplete, error.to_string()).durable(DURABLE).next(
            "give those instances the keyring file, or end them and their entries (reseal ack --gone); then run the same command again",
        ),
        ProtocolError::Keyring(cause) => CliError::from(cause),
        ProtocolError::Keyset(cause) => CliError::from(cause),
        ProtocolError::Store {
            step: "lock",
            cause: StoreError::Held { holder },
        } => CliError::new(Exit::Conflict, format!("{holder} took this rotation over"))
            .durable(DURABLE)
            .next("see reseal status"),
        ProtocolError::Store { step, cause } => store_error(&cause, step),
        ProtocolError::Sessions { name, cause, begun, reports } => {
            let error = CliError::from(cause).at(format!("sessions {name}"));
            let others = "or see to those sessions yourself: --no-sessions";
            if !begun {
                return error
                    .durable("what was there before: this run has touched nothing")
                    .next_or(others);
            }
            let ended: Vec<&str> = reports.iter().filter(|report| report.is_ended()).map(|report| report.name.as_str()).collect();
            let ended = if ended.is_empty() {
                String::new()
            } else {
                format!("; the sessions {} are ended", ended.join(", "))
            };
            error
                .durable(format!("the new key is primary for every writer, and the cut-offs of sessions stand{ended}; no value is moved yet"))
                .next_or(others)
        }
        ProtocolError::Phase(_) => CliError::from_error(Exit::Bug, &error).durable(DURABLE).next("look at reseal status, and report this"),
        ProtocolError::Ended(_) => CliError::from_error(Exit::Incomplete, &error)
            .durable(DURABLE)
            .next("run the same command again: it goes on where it ended; or go back with --rollback"),
        ProtocolError::Stopped => CliError::new(Exit::Incomplete, "stopped on request")
            .durable(DURABLE)
            .next("run the same command again: it goes on where it stopped"),
    }
}

/// The same of a rotation that is on record.
pub fn protocol_error_once_begun(error: ProtocolError) -> CliError {
    protocol_error(error).once_begun(DURABLE, "then run the same command again: it goes on where it ended")
}

const DURABLE: &str = "every key that was made, every phase that was passed and every batch that was committed; each value opens under a key of the keyset";
