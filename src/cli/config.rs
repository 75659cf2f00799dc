//! The configuration file as an argument of several commands.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, Exit};
use crate::config::{Config, ConfigError, ConfigFault};

/// Which configuration.
#[derive(Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT, env = "RESEAL_CONFIG")]
    config: PathBuf,
}

impl ConfigArgs {
    /// Reads it.
    pub fn read(&self) -> Result<Config, CliError> {
        Ok(Config::read(&self.config)?)
    }

    /// Reads it, for commands that can do without one.
    pub fn read_if_there(&self) -> Result<Option<Config>, CliError> {
        read_if_there(&self.config)
    }

    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.config
    }
}

/// Looked for where one works.
pub const CONFIG_DEFAULT: &str = "reseal.toml";

/// Reads a configuration that may be absent.
pub fn read_if_there(path: &Path) -> Result<Option<Config>, CliError> {
    match Config::read(path) {
        Ok(config) => Ok(Some(config)),
        Err(ConfigError {
            fault: ConfigFault::Absent,
            ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let next = match error.fault {
            ConfigFault::Absent => "name the file with --config FILE",
            ConfigFault::LooksSecret { .. } => {
                "put the secret into a file of mode 0600 and write file:PATH, or export it and write env:NAME"
            }
            ConfigFault::Read(_)
            | ConfigFault::TooLarge(_)
            | ConfigFault::Syntax { .. }
            | ConfigFault::Unknown { .. }
            | ConfigFault::Missing { .. }
            | ConfigFault::Value { .. } => "correct the file",
        };
        Self::from_error(Exit::Unusable, &error.fault)
            .at(format!("configuration {}", error.path.display()))
            .next(next)
    }
}
