//! Runs on while keys change: in another terminal generate, promote and retire keys, and watch.
//!
//! ```text
//! read -rs RESEAL_PASSPHRASE && export RESEAL_PASSPHRASE
//! reseal keys generate customer-data
//! cargo run --example follow_keyring
//! # meanwhile: reseal keys generate customer-data; reseal keys promote customer-data
//! ```
//!
//! With DATABASE_URL it also reports there which keys it seals with: see it in `reseal status`.

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use reseal::app::{Keyring, Unlock};

fn main() -> Result<(), Box<dyn Error>> {
    let passphrase = std::env::var("RESEAL_PASSPHRASE").map_err(|_| "RESEAL_PASSPHRASE is not set")?;
    let file = std::env::var("RESEAL_KEYRING").unwrap_or_else(|_| "reseal.keyring".to_owned());
    let keyring = Keyring::open(file, Unlock::passphrase(passphrase.into()))?;
    let customers = keyring.keyset("customer-data")?;
    // Kept until the end: dropping it takes the report away.
    let _reporting = match std::env::var("DATABASE_URL") {
        Ok(database) => Some(keyring.report_to(&database, "example")?),
        Err(_) => None,
    };

    // A value from the start: it stays readable while its key is rotated, and says when it is due.
    let stored = customers.seal(b"a value of long ago", b"example")?;
    let mut last = String::new();
    loop {
        let value = match customers.open(&stored, b"example") {
            Ok(value) if value.is_due() => format!("opens under the old key {}, due for re-sealing", value.key_id()),
            Ok(value) => format!("opens under the primary key {}", value.key_id()),
            Err(error) => format!("does not open: {error}"),
        };
        let fault = keyring
            .status()
            .fault
            .map_or("in use".to_owned(), |fault| format!("NOT in use: {fault}"));
        let now = format!(
            "revision {}; the first value {value}; the file is {fault}",
            customers.revision()
        );
        if now != last {
            println!("{now}");
            last = now;
        }
        sleep(Duration::from_millis(250));
    }
}
