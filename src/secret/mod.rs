//! Secrets of applications: making them, and writing them where an application reads them.
//!
//! Nothing here prints a secret, and nothing here knows a database.

mod check;
mod child;
mod credential;
mod dotenv;
mod fields;
mod file;
mod generate;
mod keypair;
mod keyset_file;
mod kind;
mod list;
mod manifest;
mod record;
mod rotate;
mod settings;
mod text;

pub use check::{SecretAge, age};
pub use child::ChildFault;
pub use dotenv::Dotenv;
pub use fields::{FieldError, Fields};
pub use file::{FileFault, SecretFile};
pub use generate::{GenerateError, Generated};
pub use keypair::{PublicKey, jwks};
pub use kind::{Classes, Kind, Recipe, RecipeError, UnknownKind};
pub use manifest::Manifest;
pub use record::{Record, RecordFault};
pub use rotate::{Occasion, RotateError, RotateFault, Rotated, Surroundings, rotate};
pub use settings::{History, ListForm, SecretSettings, Target};
pub use text::SecretText;
