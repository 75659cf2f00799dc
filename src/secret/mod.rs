//! Secrets of applications: making them, and writing them where an application reads them.
//!
//! Nothing here prints a secret, and nothing here knows a database.

mod accepted;
mod assignment;
mod check;
mod child;
mod credential;
mod delivery;
mod dotenv;
mod fields;
mod file;
mod generate;
mod in_file;
mod keypair;
mod keyset_file;
mod kind;
mod list;
mod manifest;
mod prepare;
mod record;
mod rotate;
mod scalar;
mod settings;
mod text;
mod waiting;

pub use check::{SecretAge, Unfinished, age, unfinished};
pub use child::ChildFault;
pub use dotenv::Dotenv;
pub use fields::{FieldError, Fields};
pub use file::{FileFault, SecretFile};
pub use generate::{GenerateError, Generated};
pub use keypair::{PublicKey, jwks};
pub use kind::{Classes, Kind, Recipe, RecipeError, UnknownKind};
pub use manifest::Manifest;
pub use record::{Record, RecordFault};
pub use rotate::{Occasion, OrderFault, RotateError, RotateFault, Rotated, Surroundings, rotate};
pub use settings::{History, ListForm, SecretSettings, Target};
pub use text::SecretText;
