//! Signs a token for a user, verifies it, and ends it.
//!
//! ```text
//! read -rs RESEAL_PASSPHRASE && export RESEAL_PASSPHRASE
//! reseal keys generate logins --algorithm ed25519
//! printf '[session.api]\nfile = "not-before.json"\n' > reseal.toml
//! cargo run --example sign_and_verify > token          # a user logs in
//! cargo run --example sign_and_verify -- "$(cat token)"   # and is known
//! reseal sessions invalidate api --user 4711 --yes     # the tokens of this user end
//! cargo run --example sign_and_verify -- "$(cat token)"
//! ```

use std::error::Error;

use reseal::app::{Keyring, MarkFile, TokenError, TokenOptions, Unlock};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let passphrase = std::env::var("RESEAL_PASSPHRASE").map_err(|_| "RESEAL_PASSPHRASE is not set")?;
    let file = std::env::var("RESEAL_KEYRING").unwrap_or_else(|_| "reseal.keyring".to_owned());
    let keyring = Keyring::open(file, Unlock::passphrase(passphrase.into()))?;
    let logins = keyring.tokens("logins", TokenOptions::default())?;
    let marks = MarkFile::open("not-before.json")?;

    let Some(token) = std::env::args().nth(1) else {
        println!("{}", logins.sign(&json!({ "sub": "4711", "tenant": "acme" }))?);
        return Ok(());
    };
    match logins.verify(token.trim(), &marks) {
        Ok(login) => println!("user {} is logged in", login.user().unwrap_or("unknown")),
        Err(TokenError::Ended { .. } | TokenError::Expired) => println!("log in again"),
        Err(error) => println!("refused: {error}"),
    }
    Ok(())
}
