//! Seals a value with a keyset and opens it again.
//!
//! ```text
//! read -rs RESEAL_PASSPHRASE && export RESEAL_PASSPHRASE
//! reseal keys generate customer-data
//! cargo run --example seal_and_open
//! ```

use std::error::Error;

use reseal::app::{Keyring, OpenError, Unlock};

fn main() -> Result<(), Box<dyn Error>> {
    let passphrase = std::env::var("RESEAL_PASSPHRASE").map_err(|_| "RESEAL_PASSPHRASE is not set")?;
    let file = std::env::var("RESEAL_KEYRING").unwrap_or_else(|_| "reseal.keyring".to_owned());
    let keyring = Keyring::open(file, Unlock::passphrase(passphrase.into()))?;
    let customers = keyring.keyset("customer-data")?;

    // The second argument names the value's place. It is not stored; the value opens with the same one only.
    let stored = customers.seal(b"ada@example.org", b"customers.email:42")?;
    println!("{} bytes for the column", stored.len());

    let email = customers.open(&stored, b"customers.email:42")?;
    println!("opens under key {}; due for re-sealing: {}", email.key_id(), email.is_due());

    match customers.open(&stored, b"customers.email:43") {
        Err(OpenError::Authentication) => println!("and not in another row"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("a value opened in the wrong place".into()),
    }
    Ok(())
}
