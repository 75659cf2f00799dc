//! Tokens: signed and verified under a keyring that rotates, ended by marks that never move backwards.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use reseal::app::{HandleError, Keyring, MarkFile, NotBefore, TokenError, TokenHandle, TokenOptions};
use reseal::key::{self, Algorithm, Entry, ImportedKey, KeyId, KeyMaterial, KeyState, Keyring as Keys, Keyset, OldPrimary};
use ring::hmac;
use serde_json::{Value, json};
use support::{postgres, private_redis, python, random_bytes, reseal, tempdir};
use tempfile::TempDir;

const NAME: &str = "logins";

/// No mark was ever set.
struct Unmarked;

impl NotBefore for Unmarked {
    fn not_before(&self, _: Option<&str>, _: Option<&str>) -> Result<i64, reseal::app::MarksUnknown> {
        Ok(0)
    }
}

/// An HMAC or Ed25519 key that the test knows, too.
struct Known {
    bytes: Vec<u8>,
    algorithm: Algorithm,
}

impl Known {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            bytes: random_bytes::<64>()[..algorithm.key_bytes()].to_vec(),
            algorithm,
        }
    }

    fn imported(&self, id: u32, state: KeyState) -> ImportedKey {
        ImportedKey {
            id: Some(KeyId(id)),
            algorithm: self.algorithm,
            prefix: key::OutputPrefix::Tink,
            material: Some(KeyMaterial::import(&self.bytes).unwrap()),
            state,
            retired: false,
        }
    }

    /// A token of this HMAC key with whatever header and claims.
    fn forge(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }
}

fn keys_of(keys: Vec<ImportedKey>) -> Keys {
    let mut keyring = Keys::empty();
    keyring
        .insert(Keyset::import(NAME.parse().unwrap(), keys, Timestamp::now()).unwrap())
        .unwrap();
    keyring
}

fn handle(keys: Vec<ImportedKey>) -> TokenHandle {
    let keyring = Keyring::in_memory(keys_of(keys));
    keyring.tokens(NAME, TokenOptions::default()).unwrap()
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[test]
fn every_algorithm_signs_and_verifies_and_one_changed_bit_is_refused() {
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512, Algorithm::Ed25519] {
        let tokens = handle(vec![Known::new(algorithm).imported(7, KeyState::Primary)]);
        let token = tokens.sign(&json!({ "sub": "4711", "tenant": 12, "role": "admin" })).unwrap();
        let verified = tokens.verify(&token, &Unmarked).unwrap();
        assert_eq!((verified.user(), verified.tenant()), (Some("4711"), Some("12")));
        assert_eq!(
            (verified.claims()["role"].as_str(), verified.key_id()),
            (Some("admin"), KeyId(7))
        );
        assert!(!verified.is_due() && (now() - verified.issued_at()).abs() < 60);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).unwrap();
            assert!(tokens.verify(&altered, &Unmarked).is_err(), "{algorithm}: byte {at}");
        }
        for cut in 0..token.len() {
            assert!(tokens.verify(&token[..cut], &Unmarked).is_err(), "{algorithm}: cut at {cut}");
        }
        // Another key of the same name.
        let other = handle(vec![Known::new(algorithm).imported(7, KeyState::Primary)]);
        assert!(matches!(other.verify(&token, &Unmarked), Err(TokenError::Signature)));
    }
}

#[test]
fn the_header_chooses_one_key_and_no_algorithm() {
    let (first, second, pair) = (
        Known::new(Algorithm::Hs256),
        Known::new(Algorithm::Hs256),
        Known::new(Algorithm::Ed25519),
    );
    let tokens = handle(vec![
        first.imported(1, KeyState::Primary),
        second.imported(2, KeyState::Retiring),
        pair.imported(3, KeyState::Staged),
    ]);
    let claims = json!({ "sub": "x", "iat": now(), "exp": now() + 60 });
    let verify = |known: &Known, header: Value| tokens.verify(&known.forge(&header, &claims), &Unmarked);
    assert!(verify(&first, json!({ "alg": "HS256", "kid": "1" })).is_ok());
    assert!(verify(&second, json!({ "alg": "HS256", "kid": "2" })).unwrap().is_due());
    for (known, header) in [
        // Signed by a key that is accepted, under the name of another.
        (&first, json!({ "alg": "HS256", "kid": "2" })),
        (&second, json!({ "alg": "HS256", "kid": "1" })),
        // No name, an unknown one, other spellings of a known one.
        (&first, json!({ "alg": "HS256" })),
        (&first, json!({ "alg": "HS256", "kid": "4" })),
        (&first, json!({ "alg": "HS256", "kid": "01" })),
        (&first, json!({ "alg": "HS256", "kid": "+1" })),
        (&first, json!({ "alg": "HS256", "kid": 1 })),
        (&first, json!({ "alg": "HS256", "kid": "1\u{0}" })),
        // Another algorithm than the key's.
        (&first, json!({ "alg": "HS512", "kid": "1" })),
        (&first, json!({ "alg": "none", "kid": "1" })),
        (&first, json!({ "alg": "hs256", "kid": "1" })),
        (&first, json!({ "alg": "HS256", "kid": "3" })),
        (&first, json!({ "alg": "EdDSA", "kid": "1" })),
        // Extensions that must be understood.
        (&first, json!({ "alg": "HS256", "kid": "1", "crit": ["exp"] })),
        (&first, json!({ "alg": "HS256", "kid": "1", "zip": "DEF" })),
    ] {
        assert!(verify(known, header.clone()).is_err(), "{header}");
    }
    // The public key of the pair as an HMAC secret: what made libraries infamous.
    let public = ring::signature::Ed25519KeyPair::from_seed_unchecked(&pair.bytes).unwrap();
    let public = Known {
        bytes: ring::signature::KeyPair::public_key(&public).as_ref().to_vec(),
        algorithm: Algorithm::Hs256,
    };
    let confused = verify(&public, json!({ "alg": "HS256", "kid": "3" }));
    assert!(matches!(confused, Err(TokenError::Algorithm)), "{confused:?}");
    // Without a signature, and with a key of its own in the header.
    let token = first.forge(&json!({ "alg": "none", "kid": "1" }), &claims);
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    assert!(tokens.verify(&unsigned, &Unmarked).is_err());
    let own = Known::new(Algorithm::Hs256);
    let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(&own.bytes) });
    assert!(verify(&own, json!({ "alg": "HS256", "kid": "1", "jwk": jwk })).is_err());
}

#[test]
fn times_and_parties_are_checked() {
    let known = Known::new(Algorithm::Hs256);
    let keyring = Keyring::in_memory(keys_of(vec![known.imported(1, KeyState::Primary)]));
    let header = json!({ "alg": "HS256", "kid": "1" });
    let check = |options: &TokenOptions, claims: Value| {
        let tokens = keyring.tokens(NAME, options.clone()).unwrap();
        tokens.verify(&known.forge(&header, &claims), &Unmarked).map(|_| ())
    };
    let plain = TokenOptions::default();
    let now = now();
    assert!(check(&plain, json!({ "iat": now, "exp": now + 60 })).is_ok());
    assert!(check(&plain, json!({ "iat": now as f64 - 0.5, "exp": now + 60, "nbf": now })).is_ok());
    for (claims, expected) in [
        (json!({ "exp": now + 60 }), "the token has no claim iat"),
        (json!({ "iat": now }), "the token has no claim exp"),
        (
            json!({ "iat": now + 30, "exp": now + 60 }),
            "the token is from the future (iat)",
        ),
        (json!({ "iat": now - 60, "exp": now - 1 }), "the token has expired"),
        (
            json!({ "iat": now, "exp": now + 60, "nbf": now + 30 }),
            "the token is from the future (nbf)",
        ),
        (
            json!({ "iat": now.to_string(), "exp": now + 60 }),
            "not a token: a time is no number",
        ),
        (
            json!({ "iat": 1e300, "exp": now + 60 }),
            "not a token: a time is out of range",
        ),
        (
            json!({ "iat": now, "exp": now + 60, "sub": ["a"] }),
            "not a token: its user is no text",
        ),
        (
            json!({ "iat": now, "exp": now + 60, "aud": "shop" }),
            "the token has another audience than is expected here",
        ),
    ] {
        let refused = check(&plain, claims.clone()).unwrap_err();
        assert_eq!(refused.to_string(), expected, "{claims}");
    }
    let strict = TokenOptions {
        issuer: Some("login".to_owned()),
        audience: Some("shop".to_owned()),
        ..TokenOptions::default()
    };
    let with = |iss: &str, aud: Value| json!({ "iat": now, "exp": now + 60, "iss": iss, "aud": aud });
    assert!(check(&strict, with("login", json!("shop"))).is_ok());
    assert!(check(&strict, with("login", json!(["other", "shop"]))).is_ok());
    assert!(check(&strict, with("login", json!(["other"]))).is_err());
    assert!(check(&strict, with("elsewhere", json!("shop"))).is_err());
    assert!(check(&strict, json!({ "iat": now, "exp": now + 60 })).is_err());
    let tokens = keyring.tokens(NAME, strict).unwrap();
    assert!(tokens.verify(&tokens.sign(&json!({})).unwrap(), &Unmarked).is_ok());
    assert!(matches!(tokens.sign(&json!({ "iat": 1 })), Err(TokenError::Reserved("iat"))));
    assert!(matches!(tokens.sign(&json!("text")), Err(TokenError::Claims)));
    let huge = "x".repeat(20_000);
    assert!(matches!(tokens.sign(&json!({ "x": huge })), Err(TokenError::Malformed(_))));
}

#[test]
fn with_grace_both_keys_verify_and_without_it_the_old_one_verifies_nothing() {
    let fresh = || Keyset::generate(NAME.parse().unwrap(), Algorithm::Ed25519, Timestamp::now()).unwrap();
    for (grace, retire) in [
        (OldPrimary::Retires, true),
        (OldPrimary::IsCompromised, false),
        // Applications may still open values under it; it verifies nothing all the same.
        (OldPrimary::IsCompromisedButOffered, false),
    ] {
        let keyset = fresh();
        let old = keyset.primary().id();
        let bytes = keyset.primary().material().unwrap().expose().to_vec();
        // What the keyring says in each step, built from the same bytes.
        let known = Known {
            bytes,
            algorithm: Algorithm::Ed25519,
        };
        let stepped = |steps: &dyn Fn(&mut Keyset)| {
            let mut keyset = Keyset::import(
                NAME.parse().unwrap(),
                vec![known.imported(old.0, KeyState::Primary)],
                Timestamp::now(),
            )
            .unwrap();
            steps(&mut keyset);
            let mut keyring = Keys::empty();
            keyring.insert(keyset).unwrap();
            keyring
        };
        let next = |keyset: &mut Keyset| keyset.add(Algorithm::Ed25519, Entry::Staged, Timestamp::now()).unwrap();
        let keyring = Keyring::in_memory(stepped(&|_| {}));
        let tokens = keyring.tokens(NAME, TokenOptions::default()).unwrap();
        let before = tokens.sign(&json!({ "sub": "1" })).unwrap();

        keyring
            .replace(stepped(&|keyset| {
                let new = next(keyset);
                keyset.promote(new, grace, Timestamp::now()).unwrap();
            }))
            .unwrap();
        let after = tokens.sign(&json!({ "sub": "2" })).unwrap();
        assert!(!tokens.verify(&after, &Unmarked).unwrap().is_due());
        let outcome = tokens.verify(&before, &Unmarked);
        match grace {
            OldPrimary::Retires => assert!(outcome.unwrap().is_due()),
            OldPrimary::IsCompromised | OldPrimary::IsCompromisedButOffered => {
                let refused = outcome.unwrap_err();
                assert!(
                    matches!(refused, TokenError::Withheld { standing: "compromised", id, .. } if id == old),
                    "{refused}"
                );
            }
        }
        if retire {
            keyring
                .replace(stepped(&|keyset| {
                    let new = next(keyset);
                    keyset.promote(new, grace, Timestamp::now()).unwrap();
                    keyset.retire(old, Timestamp::now()).unwrap();
                }))
                .unwrap();
            let refused = tokens.verify(&before, &Unmarked).unwrap_err();
            assert!(
                matches!(refused, TokenError::Withheld { standing: "retired", .. }),
                "{refused}"
            );
        }
    }
}

#[test]
fn keysets_for_values_sign_nothing_and_signing_keys_seal_nothing() {
    let values = Known::new(Algorithm::Aes256Gcm);
    let keyring = Keyring::in_memory(keys_of(vec![values.imported(1, KeyState::Primary)]));
    let refused = keyring.tokens(NAME, TokenOptions::default()).err().unwrap();
    assert!(matches!(refused, HandleError::SignsNothing { .. }));
    for algorithm in [Algorithm::Hs256, Algorithm::Ed25519] {
        let signing = Known::new(algorithm);
        let keyring = Keyring::in_memory(keys_of(vec![signing.imported(1, KeyState::Primary)]));
        assert!(matches!(keyring.keyset(NAME).err().unwrap(), HandleError::Algorithm { .. }));
        let fernet = reseal::format::by_name("fernet").unwrap();
        assert!(matches!(
            keyring.keyset_in(NAME, fernet).err().unwrap(),
            HandleError::Algorithm { .. }
        ));
    }
}

/// A configuration that keeps the marks of `api` somewhere.
struct Desk {
    folder: TempDir,
    url: String,
    section: String,
    what: &'static str,
}

impl Desk {
    fn new(what: &'static str, url: String, section: &str) -> Self {
        let desk = Self {
            folder: tempdir(),
            url,
            section: section.to_owned(),
            what,
        };
        desk.configure("");
        desk
    }

    /// Writes the configuration, with more in its section.
    fn configure(&self, more: &str) {
        let section = &self.section;
        let config = format!("[database.main]\nurl = \"env:MARKS_URL\"\n[session.api]\n{section}\n{more}\n");
        let path = self.path("reseal.toml");
        fs::write(&path, config).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> assert_cmd::Command {
        let mut command = reseal();
        command.current_dir(&self.folder).env("MARKS_URL", &self.url);
        command
            .args(["sessions", "invalidate", "api", "--yes", "--json"])
            .args(arguments.split_whitespace());
        command
    }

    fn invalidate(&self, arguments: &str, exit: i32) -> Value {
        let output = self.command(arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{}: {arguments}: {complaint}", self.what);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        if exit == 0 { document["stores"][0].clone() } else { document }
    }

    /// The mark after an invalidation, in seconds.
    fn raise(&self, arguments: &str) -> i64 {
        let view = self.invalidate(arguments, 0);
        assert_eq!(view["kind"], "tokens");
        let mark: Timestamp = view["not_before"].as_str().unwrap().parse().unwrap();
        mark.as_second()
    }
}

/// Every kind of store that the machine has, each with what reads its marks. What the second part keeps alive ends with it.
fn desks() -> Vec<(Desk, Box<dyn std::any::Any>)> {
    let mut desks: Vec<(Desk, Box<dyn std::any::Any>)> = Vec::new();
    let file = Desk::new("file", String::new(), "file = \"not-before.json\"\nclock_skew = \"0s\"");
    desks.push((file, Box::new(())));
    let sqlite = Desk::new(
        "SQLite",
        "sqlite:app.db".to_owned(),
        "tokens = true\ndatabase = \"main\"\nclock_skew = \"0s\"",
    );
    rusqlite::Connection::open(sqlite.path("app.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (a)")
        .unwrap();
    desks.push((sqlite, Box::new(())));
    if let Some(database) = postgres() {
        let section = "tokens = true\ndatabase = \"main\"\ntable = \"public.marks\"\nclock_skew = \"0s\"";
        desks.push((Desk::new("PostgreSQL", database.url(), section), Box::new(database)));
    }
    if let Some(redis) = private_redis() {
        let section = "tokens = true\nredis = \"env:MARKS_URL\"\nclock_skew = \"0s\"";
        desks.push((Desk::new("Redis", redis.url().to_owned(), section), Box::new(redis)));
    }
    desks
}

#[test]
fn marks_lie_behind_now_and_never_move_backwards() {
    for (desk, _alive) in desks() {
        let before = now();
        let would = desk.raise("--dry-run");
        assert!(would > before, "{}", desk.what);
        assert_eq!(
            desk.invalidate("--dry-run", 0)["previous"],
            Value::Null,
            "{}: a dry run wrote",
            desk.what
        );

        let first = desk.raise("");
        // The whole second of the cut-off is behind the mark, and has passed when the command returns.
        assert!(first > before && first <= now(), "{}: {first} at {}", desk.what, now());
        let lower = desk.invalidate("--before 2020-01-01T00:00:00Z", 0);
        assert_eq!(
            (&lower["is_raised"], &lower["previous"]),
            (&false.into(), &lower["not_before"]),
            "{}",
            desk.what
        );
        assert_eq!(desk.raise("--before 2020-01-01T00:00:00Z"), first, "{}", desk.what);
        desk.invalidate("--before 2100-01-01T00:00:00Z", 4);

        // Each scope has a mark of its own.
        let user = desk.raise("--user 4711 --before 2020-01-01T00:00:00Z");
        assert_eq!(user, 1_577_836_800, "{}", desk.what);
        assert_eq!(
            desk.raise("--tenant acme --before 2020-01-01T00:00:00.5Z"),
            user + 1,
            "{}",
            desk.what
        );
        desk.invalidate("--user 1 --tenant acme", 4);
    }
}

#[test]
fn marks_that_no_living_token_needs_are_dropped_where_the_life_of_tokens_is_known() {
    for (desk, _alive) in desks() {
        let raise = |whose: &str, days: i64| {
            let at = Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
            desk.raise(&format!("{whose} --before {at}"))
        };
        let kept = |whose: &str| !desk.invalidate(&format!("{whose} --dry-run"), 0)["previous"].is_null();
        let everybody = raise("", 40);
        for (whose, days) in [
            ("--user old", 31),
            ("--tenant old", 31),
            ("--user young", 29),
            ("--tenant young", 29),
        ] {
            raise(whose, days);
        }
        // Nobody says how long tokens live: any of them may still be out.
        desk.raise("--user first");
        assert!(kept("--user old") && kept("--tenant old"), "{}", desk.what);

        desk.configure("token_lifetime = \"30d\"");
        desk.invalidate("--user second --dry-run", 0);
        assert!(kept("--user old"), "{}: a dry run wrote", desk.what);
        desk.raise("--user second");
        let left = [
            "--user old",
            "--tenant old",
            "--user young",
            "--tenant young",
            "--user first",
            "--user second",
        ]
        .map(kept);
        assert_eq!(left, [false, false, true, true, true, true], "{}", desk.what);
        assert_eq!(raise("", 50), everybody, "{}: everybody's mark stays, however old", desk.what);
    }
    let wrong = Desk::new("configuration", String::new(), "file = \"a\"\ntoken_lifetime = \"soon\"");
    wrong.invalidate("", 3);
}

#[test]
fn two_writers_leave_the_higher_mark() {
    for (desk, _alive) in desks() {
        let marks: Vec<i64> = std::thread::scope(|scope| {
            let writer = |years: &'static [u32]| {
                let desk = &desk;
                scope.spawn(move || {
                    let raise = |year: &u32| desk.raise(&format!("--user u --before {year}-01-01T00:00:00Z"));
                    years.iter().map(raise).collect::<Vec<_>>()
                })
            };
            let writers = [
                writer(&[2001, 2009, 2003, 2019, 2005]),
                writer(&[2002, 2004, 2018, 2006, 2007]),
                writer(&[2010, 2011, 2012]),
            ];
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        let highest: Timestamp = "2019-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(marks.iter().max(), Some(&highest.as_second()), "{}", desk.what);
        assert_eq!(
            desk.raise("--user u --before 2000-01-01T00:00:00Z"),
            highest.as_second(),
            "{}",
            desk.what
        );
    }
}

#[test]
fn a_mark_ends_the_tokens_of_a_user_a_tenant_or_everybody_and_new_ones_live() {
    let desk = Desk::new("file", String::new(), "file = \"not-before.json\"");
    let tokens = handle(vec![Known::new(Algorithm::Ed25519).imported(1, KeyState::Primary)]);
    let marks = MarkFile::open(desk.path("not-before.json")).unwrap();
    let login = |tenant: &str, user: &str| tokens.sign(&json!({ "sub": user, "tenant": tenant })).unwrap();
    let (ada, bob, eve) = (login("acme", "ada"), login("acme", "bob"), login("other", "eve"));
    let alive = |token: &str| match tokens.verify(token, &marks) {
        Ok(_) => true,
        Err(TokenError::Ended { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    assert!(alive(&ada) && alive(&bob) && alive(&eve));
    desk.invalidate("--user ada", 0);
    assert!(!alive(&ada) && alive(&bob) && alive(&eve));
    // Issued right after the command has returned.
    let ada = login("acme", "ada");
    assert!(alive(&ada), "a new login is dead");
    desk.invalidate("--tenant acme", 0);
    assert!(!alive(&ada) && !alive(&bob) && alive(&eve));
    desk.invalidate("", 0);
    assert!(!alive(&eve) && alive(&login("other", "eve")));

    // A user of the name of a tenant is another matter.
    desk.invalidate("--user other", 0);
    assert!(alive(&login("other", "eve")));
    // The file may be read by the application, and holds no more than marks.
    let mode = fs::metadata(desk.path("not-before.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_file_that_vanishes_or_goes_back_brings_no_token_back() {
    let folder = tempdir();
    let path = folder.path().join("marks.json");
    let write = |path: &Path, text: &str| {
        let beside = folder.path().join("next");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    };
    let marked = |all: i64| {
        format!(
            "{{\"schema\":\"reseal.not-before/1\",\"all\":{all},\"users\":{{\"u\":{}}}}}",
            all + 5
        )
    };
    write(&path, &marked(100));
    let marks = MarkFile::open(&path).unwrap();
    let at = |user: Option<&str>| marks.not_before(None, user).unwrap();
    assert_eq!((at(None), at(Some("u")), at(Some("v"))), (100, 105, 100));
    write(&path, &marked(50));
    assert_eq!((at(None), at(Some("u"))), (100, 105));
    fs::remove_file(&path).unwrap();
    assert_eq!((at(None), at(Some("u"))), (100, 105));
    for broken in [
        "",
        "{",
        "[]",
        "{\"schema\":\"reseal.not-before/2\"}",
        "{\"schema\":\"reseal.not-before/1\",\"al\":1}",
    ] {
        write(&path, broken);
        assert!(marks.not_before(None, None).is_err(), "{broken}");
        assert!(MarkFile::open(&path).is_err(), "{broken}");
    }
    write(&path, &marked(200));
    assert_eq!((at(None), at(Some("u"))), (200, 205));
}

#[test]
fn files_of_marks_that_cannot_be_used_are_left_as_they_are() {
    let desk = Desk::new("file", String::new(), "file = \"not-before.json\"\nclock_skew = \"0s\"");
    let path = desk.path("not-before.json");
    fs::write(&path, "{\"something\": \"else\"}").unwrap();
    desk.invalidate("", 3);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"something\": \"else\"}");
    fs::remove_file(&path).unwrap();
    // Whoever may write it could lower it.
    desk.raise("");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    desk.invalidate("", 3);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(desk.path("elsewhere"), &path).unwrap();
    desk.invalidate("", 3);
    assert!(!desk.path("elsewhere").exists());
}

#[test]
fn stores_of_marks_that_cannot_be_used_are_told_apart() {
    let nowhere = Desk::new(
        "Redis",
        "redis://default:x@127.0.0.1:1/0".to_owned(),
        "tokens = true\nredis = \"env:MARKS_URL\"",
    );
    nowhere.invalidate("", 8);
    let missing = Desk::new("SQLite", "sqlite:missing.db".to_owned(), "tokens = true\ndatabase = \"main\"");
    missing.invalidate("", 3);
    assert!(!missing.path("missing.db").exists(), "a database was made");
    if let Some(redis) = private_redis() {
        let desk = Desk::new("Redis", redis.url().to_owned(), "tokens = true\nredis = \"env:MARKS_URL\"");
        redis.run::<()>("SET reseal:not-before something");
        desk.invalidate("", 8);
        redis.run::<()>("DEL reseal:not-before");
        redis.run::<()>("HSET reseal:not-before all nonsense");
        desk.invalidate("", 8);
        assert_eq!(redis.run::<String>("HGET reseal:not-before all"), "nonsense");
        redis.run::<()>("DEL reseal:not-before");
        redis.run::<()>("REPLICAOF 127.0.0.1 1");
        desk.invalidate("", 8);
    }
    for section in [
        "tokens = true",
        "tokens = true\nfile = \"a\"\nredis = \"env:MARKS_URL\"",
        "tokens = true\nfile = \"a\"\nclock_skew = \"90s\"",
        "tokens = true\nfile = \"a\"\npreset = \"django\"",
        "tokens = false\nfile = \"a\"",
        "tokens = true\nfile = \"a\"\nmatch = \"x\"",
    ] {
        Desk::new("configuration", String::new(), section).invalidate("", 3);
    }
}

/// Runs PyJWT.
fn pyjwt(arguments: &[&str], input: &str) -> Option<String> {
    let mut command = assert_cmd::Command::from_std(python("tokens.py")?);
    let output = command.args(arguments).write_stdin(input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn pyjwt_and_reseal_verify_each_other() {
    let folder = tempdir();
    for (algorithm, name) in [
        (Algorithm::Hs256, "HS256"),
        (Algorithm::Hs384, "HS384"),
        (Algorithm::Hs512, "HS512"),
        (Algorithm::Ed25519, "EdDSA"),
    ] {
        let known = Known::new(algorithm);
        let secret = folder.path().join(name);
        fs::write(&secret, STANDARD.encode(&known.bytes)).unwrap();
        let secret = secret.to_str().unwrap();
        let tokens = handle(vec![known.imported(4_000_000_001, KeyState::Primary)]);
        let Some(theirs) = pyjwt(&["sign", name, "4000000001", secret], "") else {
            return;
        };
        let verified = tokens.verify(&theirs, &Unmarked).unwrap();
        assert_eq!((verified.user(), verified.tenant()), (Some("4711"), Some("acme")), "{name}");
        let ours = tokens.sign(&json!({ "sub": "4712" })).unwrap();
        assert_eq!(
            pyjwt(&["verify", name, "4000000001", secret], &ours).unwrap(),
            "4712",
            "{name}"
        );
        let keyset = Keyset::import(
            NAME.parse().unwrap(),
            vec![known.imported(4_000_000_001, KeyState::Primary)],
            Timestamp::now(),
        )
        .unwrap();
        match key::write_jwks(&keyset) {
            Ok(jwks) => {
                assert_eq!(name, "EdDSA");
                let path = folder.path().join("jwks.json");
                fs::write(&path, jwks).unwrap();
                let user = pyjwt(&["verify-jwks", "4000000001", path.to_str().unwrap()], &ours).unwrap();
                assert_eq!(user, "4712");
            }
            // Whoever verifies with an HMAC key can sign: it has no public form.
            Err(_) => assert_ne!(name, "EdDSA"),
        }
    }
}

#[test]
fn keysets_of_the_command_line_sign_and_their_public_keys_are_exported() {
    let folder = tempdir();
    let run = |arguments: &str, exit: i32| {
        let mut command = reseal();
        command
            .current_dir(&folder)
            .env("RESEAL_PASSPHRASE", "only for this test, not secret")
            .args(arguments.split_whitespace());
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    for algorithm in ["hs256", "hs384", "hs512", "ed25519"] {
        run(&format!("keys generate {algorithm} --algorithm {algorithm}"), 0);
    }
    let unlock = reseal::app::Unlock::passphrase("only for this test, not secret".to_owned().into());
    let keyring = Keyring::open(folder.path().join("reseal.keyring"), unlock).unwrap();
    for name in ["hs256", "hs384", "hs512", "ed25519"] {
        let tokens = keyring.tokens(name, TokenOptions::default()).unwrap();
        assert!(tokens.verify(&tokens.sign(&json!({})).unwrap(), &Unmarked).is_ok(), "{name}");
    }
    run("keys export ed25519 --as jwks --out jwks.json", 0);
    let jwks: Value = serde_json::from_slice(&fs::read(folder.path().join("jwks.json")).unwrap()).unwrap();
    let id = keyring.tokens("ed25519", TokenOptions::default()).unwrap().primary();
    assert_eq!(
        (&jwks["keys"][0]["kid"], &jwks["keys"][0]["d"]),
        (&id.to_string().into(), &Value::Null)
    );
    run("keys export hs256 --as jwks --out secret.json", 4);
    assert!(!folder.path().join("secret.json").exists());
}

#[test]
fn hmac_keys_of_every_length_are_imported_and_sign_as_pyjwt_does() {
    let folder = tempdir();
    let run = |arguments: &str, exit: i32| {
        let mut command = reseal();
        command
            .current_dir(&folder)
            .env("RESEAL_PASSPHRASE", "only for this test, not secret")
            .args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{text}");
        text
    };
    let unlock = || reseal::app::Unlock::passphrase("only for this test, not secret".to_owned().into());
    for (algorithm, word, name) in [
        (Algorithm::Hs256, "hs256", "HS256"),
        (Algorithm::Hs384, "hs384", "HS384"),
        (Algorithm::Hs512, "hs512", "HS512"),
    ] {
        // Auto finds the form by the length that the algorithm has.
        for (form, keyset) in [("base64", word.to_owned()), ("auto", format!("{word}-hex"))] {
            let known = Known::new(algorithm);
            let secret = folder.path().join(&keyset);
            key::write_private(&secret, STANDARD.encode(&known.bytes).as_bytes(), false).unwrap();
            let text = match form {
                "base64" => STANDARD.encode(&known.bytes),
                _ => known.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            };
            key::write_private(&folder.path().join("text"), text.as_bytes(), true).unwrap();
            run(
                &format!("keys import {keyset} --from file:text --format {form} --algorithm {word}"),
                0,
            );
            let keyring = Keyring::open(folder.path().join("reseal.keyring"), unlock()).unwrap();
            let tokens = keyring.tokens(&keyset, TokenOptions::default()).unwrap();
            let (kid, secret) = (tokens.primary().to_string(), secret.to_str().unwrap());
            let ours = tokens.sign(&json!({ "sub": "4713" })).unwrap();
            let Some(read) = pyjwt(&["verify", name, &kid, secret], &ours) else {
                return;
            };
            assert_eq!(read, "4713", "{keyset}");
            let theirs = pyjwt(&["sign", name, &kid, secret], "").unwrap();
            assert_eq!(tokens.verify(&theirs, &Unmarked).unwrap().user(), Some("4711"), "{keyset}");
        }
    }
    // A key of another length is none of this algorithm, and is not repeated.
    let text = run("keys import short --from file:hs256 --format base64 --algorithm hs512", 3);
    assert!(text.contains("64 bytes"), "{text}");
    let secret = fs::read_to_string(folder.path().join("hs256")).unwrap();
    assert!(!text.contains(&secret));
}
