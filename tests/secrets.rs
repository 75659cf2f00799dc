//! `reseal secrets` as a script sees it, and what it made in the hands of OpenSSL and Python.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::{Canary, python, reseal, skip, tempdir};

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempdir() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).unwrap().permissions().mode() & 0o777
    }

    /// Runs `reseal secrets ARGUMENTS`, expecting an exit code.
    fn secrets(&self, arguments: &str, exit: i32) -> Output {
        let mut command = reseal();
        command
            .current_dir(&self.folder)
            .arg("secrets")
            .args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {complaint}");
        output
    }
}

fn openssl(arguments: &[&str]) -> Option<Output> {
    let output = Command::new("openssl").args(arguments).output();
    if output.is_err() {
        skip("no OpenSSL on this machine");
    }
    output.ok()
}

#[test]
fn a_secret_goes_to_a_private_file_and_nowhere_else() {
    let desk = Desk::new();
    for kind in [
        "token-urlsafe",
        "fernet",
        "hex",
        "base64",
        "django",
        "laravel",
        "rails",
        "uuid",
        "password",
        "ed25519",
        "es256",
        "wireguard",
    ] {
        let output = desk.secrets(&format!("generate {kind} --out {kind} --json"), 0);
        let made = desk.read(kind);
        assert_eq!(desk.mode(kind), 0o600, "{kind}");
        let canary = Canary::new("the secret", made.trim_end().as_bytes());
        canary.assert_absent("standard output", &output.stdout);
        canary.assert_absent("standard error", &output.stderr);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&document["schema"], &document["kind"]),
            (&"reseal.secrets/1".into(), &kind.into())
        );

        desk.secrets(&format!("generate {kind} --out {kind}"), 4);
        assert_eq!(desk.read(kind), made, "an existing file was replaced");
        desk.secrets(&format!("generate {kind} --out {kind} --force"), 0);
        assert_ne!(desk.read(kind), made);
    }
}

#[test]
fn nothing_is_printed_unless_asked() {
    let desk = Desk::new();
    assert!(desk.secrets("generate hex", 2).stdout.is_empty());
    assert!(
        desk.secrets("generate hex --show --json", 2)
            .stdout
            .starts_with(b"{\"schema\":\"reseal.secrets/1\"")
    );
    let shown = desk.secrets("generate hex --bytes 16 --show", 0).stdout;
    assert_eq!((shown.len(), shown.last()), (33, Some(&b'\n')));
    assert_eq!(desk.secrets("generate hex --bytes 16 --out -", 0).stdout.len(), 33);
}

#[test]
fn senseless_recipes_are_usage_errors() {
    let desk = Desk::new();
    for arguments in [
        "generate nonsense",
        "generate hex --bytes 15",
        "generate hex --length 64",
        "generate password --bytes 32",
        "generate fernet --bytes 16",
        "generate rs256 --bits 1024",
        "generate hex --without digit",
        "generate password --length 12 --without upper --without digit --without symbol",
        "generate hex --public p",
        "generate wireguard --jwks j",
        "generate hex --bytes 32 --length 32",
    ] {
        desk.secrets(&format!("{arguments} --out x"), 2);
        assert!(!desk.file("x").exists(), "{arguments}");
    }
}

/// What OpenSSL and Python make of a generated key pair.
fn key_pair_is_usable(kind: &str, algorithm: &str) {
    let desk = Desk::new();
    desk.secrets(
        &format!("generate {kind} --out private.pem --public public.pem --jwks jwks.json"),
        0,
    );
    let path = |name| desk.file(name).to_str().unwrap().to_owned();
    let (private, public, jwks) = (path("private.pem"), path("public.pem"), path("jwks.json"));
    if let Some(derived) = openssl(&["pkey", "-in", &private, "-pubout"]) {
        assert!(derived.status.success(), "{}", String::from_utf8_lossy(&derived.stderr));
        assert_eq!(String::from_utf8(derived.stdout).unwrap(), desk.read("public.pem"));
    }
    let Some(mut command) = python("use_generated_key.py") else {
        return;
    };
    let output = command.args([algorithm, &private, &public, &jwks]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let jwks: Value = serde_json::from_str(&desk.read("jwks.json")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), jwks["keys"][0]["kid"]);
}

#[test]
fn ed25519_keys_work_in_openssl_and_python() {
    key_pair_is_usable("ed25519", "EdDSA");
}

#[test]
fn p256_keys_work_in_openssl_and_python() {
    key_pair_is_usable("es256", "ES256");
}

#[test]
fn rsa_keys_work_in_openssl_and_python() {
    key_pair_is_usable("rs256 --bits 2048", "RS256");
}

#[test]
fn wireguard_keys_are_x25519_keys() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let desk = Desk::new();
    desk.secrets("generate wireguard --out private --public public", 0);
    let private = STANDARD.decode(desk.read("private").trim_end()).unwrap();
    let public = STANDARD.decode(desk.read("public").trim_end()).unwrap();
    // RFC 8410: OneAsymmetricKey with id-X25519, before the 32 bytes of the key.
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20];
    fs::write(desk.file("der"), [prefix.as_slice(), &private].concat()).unwrap();
    let der = desk.file("der");
    let Some(derived) = openssl(&[
        "pkey",
        "-inform",
        "DER",
        "-in",
        der.to_str().unwrap(),
        "-pubout",
        "-outform",
        "DER",
    ]) else {
        return;
    };
    assert!(derived.status.success(), "{}", String::from_utf8_lossy(&derived.stderr));
    assert!(derived.stdout.ends_with(&public));
}
