//! Values that are not what they should be: each stays as it is, named by key, column and reason, and all others are rotated.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reseal::format::by_name;
use reseal::key::{KeyId, KeyMaterial, Keyring, Unlock};

use super::desk::{Column, Desk, Pair, plaintext, seal};
use crate::support::salamander;

const GOOD: i64 = 40;

/// Fills `t` with good values under the old key, and with bad ones from 1001 on.
fn fill(desk: &Desk, column: Column, pair: &Pair, bad: &[(&str, Vec<u8>, &str)]) {
    desk.table(column);
    let good: Vec<_> = (1..=GOOD).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(column, 1, &good);
    let bad: Vec<_> = bad.iter().map(|(_, value, _)| Some(value.clone())).collect();
    desk.insert(column, 1001, &bad);
}

/// Rotates, and checks that exactly the bad values are quarantined, for the right reasons, untouched, and everything else is new.
fn check(desk: &Desk, column: Column, pair: &Pair, bad: &[(&str, Vec<u8>, &str)], more: &[&str]) {
    let before = desk.values(column);
    // A second run finds the same, and writes nothing.
    for round in 0..2 {
        let run = desk.on_t("rotate", pair, more);
        run.expect(7);
        let found = run.quarantined();
        let ids: Vec<i64> = found.keys().copied().collect();
        assert_eq!(ids, (1001..1001 + bad.len() as i64).collect::<Vec<_>>(), "{}", run.stdout);
        for (id, (what, _, reason)) in (1001..).zip(bad) {
            assert!(found[&id].contains(reason), "{}, {what}: {}", desk.name(), found[&id]);
        }
        assert_eq!(run.json["verified"], false);
        assert_eq!(run.json["values_reencrypted"], GOOD, "round {round}: {}", run.stdout);
        assert_eq!(run.json["census"]["unreadable"], bad.len());
        assert!(run.stderr.contains("NOT verified: keep the old key"), "{}", run.stderr);
    }
    let after = desk.values(column);
    for id in 1..=GOOD {
        assert_eq!(pair.open_new(after[&id].as_ref().unwrap(), b""), plaintext(id));
    }
    let untouched = |values: &BTreeMap<i64, Option<Vec<u8>>>| {
        values
            .iter()
            .filter(|(id, _)| **id > GOOD)
            .map(|(id, v)| (*id, v.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(untouched(&before), untouched(&after), "{}", desk.name());
    // What verify says alone.
    let verify = desk.on_t("verify", pair, more);
    assert_eq!(verify.expect(7).quarantined().len(), bad.len());
    // Entries are kept with the plan, and never hold content.
    let table = if desk.is_postgres() {
        "reseal.quarantine"
    } else {
        "reseal_quarantine"
    };
    let reasons = desk.texts(&format!("SELECT reason FROM {table}"));
    assert_eq!(reasons.len(), bad.len());
    let status = desk.run(&["status"], &[]);
    assert_eq!(status.expect(0).json["rotations"][0]["quarantined"], bad.len());
}

fn flipped(mut value: Vec<u8>, at: usize) -> Vec<u8> {
    let at = at % value.len();
    value[at] ^= 1;
    value
}

/// A Fernet token with its bytes changed.
fn token(value: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = URL_SAFE.decode(value).unwrap();
    change(&mut bytes);
    URL_SAFE.encode(bytes).into_bytes()
}

#[test]
fn fernet_values_that_do_not_open_stay_and_are_named() {
    for desk in Desk::each() {
        let (pair, stranger) = (Pair::of("fernet"), Pair::of("fernet"));
        let sealed = || pair.old_value(b"a plaintext of a row", b"");
        let authentication = "authentication failed";
        let bad = [
            (
                "a flipped bit of the ciphertext",
                token(&sealed(), |bytes| bytes[30] ^= 1),
                authentication,
            ),
            (
                "a flipped bit of the tag",
                token(&sealed(), |bytes| *bytes.last_mut().unwrap() ^= 1),
                authentication,
            ),
            (
                "a flipped bit of the time",
                token(&sealed(), |bytes| bytes[8] ^= 1),
                authentication,
            ),
            (
                "cut by a block",
                token(&sealed(), |bytes| bytes.truncate(bytes.len() - 16)),
                authentication,
            ),
            ("cut in the middle", sealed()[..40].to_vec(), "not a well-formed value"),
            ("cut to its first letters", sealed()[..7].to_vec(), "not a well-formed value"),
            ("a stranger's key", stranger.old_value(b"x", b""), authentication),
            (
                "another version",
                token(&sealed(), |bytes| bytes[0] = 0x81),
                "unknown format version 129",
            ),
            ("plaintext", b"Ada Lovelace, London".to_vec(), "not a sealed value"),
            (
                "plaintext that looks like a token",
                {
                    let mut text = b"gAAAAABlU_EA".to_vec();
                    text.resize(140, b'A');
                    text
                },
                authentication,
            ),
            ("empty", Vec::new(), "not a sealed value"),
            ("blanks", b"   ".to_vec(), "not a sealed value"),
            ("huge", pair.old_value(&[b'x'; 3000], b""), "larger than the limit"),
        ];
        fill(&desk, Column::Text, &pair, &bad);
        check(&desk, Column::Text, &pair, &bad, &["--max-value-bytes", "2000"]);
    }
}

#[test]
fn tink_values_have_five_distinct_errors() {
    for desk in Desk::each() {
        let (pair, stranger) = (Pair::of("tink"), Pair::of("tink"));
        let sealed = || pair.old_value(b"a plaintext of a row", b"");
        let len = sealed().len();
        let unknown = format!("sealed with key {}, which is neither", stranger.old_id.unwrap());
        let bad = [
            ("a flipped bit of the nonce", flipped(sealed(), 6), "authentication failed"),
            (
                "a flipped bit of the tag",
                flipped(sealed(), len - 1),
                "authentication failed",
            ),
            ("cut", sealed()[..len - 1].to_vec(), "authentication failed"),
            ("cut to its prefix", sealed()[..9].to_vec(), "not a well-formed value"),
            ("an unknown key", stranger.old_value(b"x", b""), unknown.as_str()),
            (
                "another version",
                [&[2][..], &sealed()[1..]].concat(),
                "unknown format version 2",
            ),
            ("plaintext", b"plain".to_vec(), "not a sealed value"),
            ("empty", Vec::new(), "not a sealed value"),
        ];
        fill(&desk, Column::Bytes, &pair, &bad);
        check(&desk, Column::Bytes, &pair, &bad, &[]);
    }
}

#[test]
fn values_under_a_destroyed_key_are_told_from_those_of_strangers() {
    use age::secrecy::ExposeSecret as _;
    for desk in Desk::each() {
        let identity = age::x25519::Identity::generate();
        let file = desk.folder.path().join("me.key");
        reseal::key::write_private(&file, identity.to_string().expose_secret().as_bytes(), false).unwrap();
        let keys = |arguments: &str| {
            let arguments: Vec<&str> = ["keys"]
                .into_iter()
                .chain(arguments.split(' '))
                .chain(["--identity", "me.key"])
                .collect();
            desk.run(&arguments, &[]).expect(0).json["key"].as_u64()
        };
        let path = desk.folder.path().join("reseal.keyring");
        let cipher = |id: u64| {
            let keyring = Keyring::open(&path, &Unlock::Identities(vec![identity.clone()]), 0).unwrap();
            let id = KeyId(u32::try_from(id).unwrap());
            let material = keyring.keysets()[0].get(id).unwrap().material().unwrap();
            by_name("tink").unwrap().cipher(material, Some(id)).unwrap()
        };
        let first = keys("generate cd").unwrap();
        let lost = seal(&*cipher(first), b"lost", b"");
        let second = keys("generate cd").unwrap();
        keys("promote cd");
        let old = seal(&*cipher(second), b"kept", b"");
        keys("retire cd");
        keys(&format!("destroy cd {first} --yes"));
        let third = keys("generate cd").unwrap();
        keys("promote cd");
        desk.table(Column::Bytes);
        desk.insert(
            Column::Bytes,
            1,
            &[Some(old), Some(lost.clone()), Some(Pair::of("tink").old_value(b"x", b""))],
        );
        let run = desk.run(
            &[
                "rotate",
                "--table",
                "t",
                "--column",
                "c",
                "--format",
                "tink",
                "--from",
                "keyring:cd",
                "--to",
                "keyring:cd",
                "--identity",
                "me.key",
                "--yes",
            ],
            &[],
        );
        let found = run.expect(7).quarantined();
        assert!(found[&2].contains(&format!("key {first}, which was destroyed")), "{found:?}");
        assert!(found[&3].contains("neither the old nor the new key"), "{found:?}");
        let values = desk.values(Column::Bytes);
        assert_eq!(values[&2].as_ref(), Some(&lost));
        let mut out = Vec::with_capacity(64);
        cipher(third).open(values[&1].as_ref().unwrap(), b"", &mut out).unwrap();
        assert_eq!(out, b"kept");
    }
}

#[test]
fn values_of_other_rows_are_not_laundered() {
    for desk in Desk::each() {
        for format in ["tink", "aes-gcm"] {
            desk.execute("DROP TABLE IF EXISTS t");
            let pair = Pair::of(format);
            desk.table(Column::Bytes);
            let place = |id: i64| format!("t.c:{id}").into_bytes();
            let value = |id: i64| Some(pair.old_value(&plaintext(id), &place(id)));
            // Rows 3 and 4 were swapped; row 5 holds a value of another column, row 6 a copy of row 1.
            let other_column = Some(pair.old_value(b"x", b"t.d:5"));
            desk.insert(
                Column::Bytes,
                1,
                &[value(1), value(2), value(4), value(3), other_column, value(1)],
            );
            let before = desk.values(Column::Bytes);
            let run = desk.on_t("rotate", &pair, &["--aad", "t.c:{id}"]);
            let found = run.expect(7).quarantined();
            assert_eq!(found.keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6], "{format}");
            assert!(
                found
                    .values()
                    .all(|reason| reason.contains("a value of another row or column")),
                "{found:?}"
            );
            let after = desk.values(Column::Bytes);
            assert!((3..=6).all(|id| before[&id] == after[&id]), "{format}");
            for id in 1..=2 {
                assert_eq!(pair.open_new(after[&id].as_ref().unwrap(), &place(id)), plaintext(id));
            }
            // Put back where they belong, they are rotated by the same command.
            desk.execute(
                "UPDATE t SET id = 100 WHERE id = 3; UPDATE t SET id = 3 WHERE id = 4; UPDATE t SET id = 4 WHERE id = 100",
            );
            desk.execute("DELETE FROM t WHERE id > 4");
            desk.on_t("rotate", &pair, &["--aad", "t.c:{id}"]).expect(0);
            let after = desk.values(Column::Bytes);
            assert!((1..=4).all(|id| pair.open_new(after[&id].as_ref().unwrap(), &place(id)) == plaintext(id)));
        }
    }
}

/// Both columns are rewritten at once: the one would be bound to what the other no longer holds.
#[test]
fn associated_data_of_a_column_that_is_rewritten_too_is_refused() {
    for desk in Desk::each() {
        desk.execute("CREATE TABLE t (id bigint PRIMARY KEY, c text, d text)");
        let pair = Pair::of("aes-gcm-base64");
        for template in ["{d}", "t.c:{id}:{c}", "{D}"] {
            for command in ["plan", "rotate"] {
                let run = desk.on_t(command, &pair, &["--column", "d", "--aad", "t", "--aad", template]);
                run.expect(2);
                assert!(
                    run.stderr.contains("rewritten together with it"),
                    "{template}: {}",
                    run.stderr
                );
            }
        }
    }
}

#[test]
fn a_value_that_both_keys_accept_is_refused() {
    for desk in Desk::each() {
        let [one, other] = [(); 2].map(|()| KeyMaterial::generate().unwrap());
        let forged = salamander(&one, &other);
        let text = |key: &KeyMaterial| STANDARD.encode(key.expose());
        let pair = Pair::join("aes-gcm", (&one, None, text(&one)), (&other, None, text(&other)));
        let bad = [("a salamander", forged, "opens under two different keys")];
        fill(&desk, Column::Bytes, &pair, &bad);
        check(&desk, Column::Bytes, &pair, &bad, &[]);
    }
}

#[test]
fn plaintext_follows_the_policy() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        let plain = || Some(b"Ada Lovelace".to_vec());
        let fill = || {
            desk.execute("DROP TABLE IF EXISTS t");
            desk.table(Column::Text);
            desk.insert(
                Column::Text,
                1,
                &[Some(pair.old_value(b"one", b"")), plain(), None, Some(Vec::new())],
            );
        };
        fill();
        let run = desk.on_t("rotate", &pair, &["--plaintext", "refuse", "--no-state"]);
        assert_eq!(run.expect(7).quarantined().keys().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(desk.values(Column::Text)[&2], plain());

        let run = desk.on_t("rotate", &pair, &["--plaintext", "skip", "--no-state"]);
        run.expect(7);
        assert_eq!(run.json["census"]["plaintext"], 2);
        for run in [run, desk.on_t("verify", &pair, &["--plaintext", "skip"])] {
            run.expect(7);
            assert_eq!(
                (&run.json["verified"], &run.json["values_plaintext"]),
                (&false.into(), &2.into())
            );
            assert!(run.stderr.contains("2 values are plaintext"), "{}", run.stderr);
            assert!(!run.stderr.contains("every value opens"), "{}", run.stderr);
        }
        assert_eq!(
            (&desk.values(Column::Text)[&2], &desk.values(Column::Text)[&4]),
            (&plain(), &Some(Vec::new()))
        );

        fill();
        let run = desk.on_t("rotate", &pair, &["--plaintext", "seal", "--no-state"]);
        run.expect(0);
        assert_eq!(
            (&run.json["values_reencrypted"], &run.json["values_null"]),
            (&3.into(), &1.into())
        );
        let verified = desk.on_t("verify", &pair, &["--plaintext", "skip"]);
        assert_eq!(verified.expect(0).json["values_plaintext"], 0);
        let values = desk.values(Column::Text);
        assert_eq!(pair.open_new(values[&2].as_ref().unwrap(), b""), b"Ada Lovelace");
        assert_eq!(
            pair.open_new(values[&4].as_ref().unwrap(), b""),
            b"",
            "the empty text and NULL stay two things"
        );
        assert_eq!(values[&3], None);
        // A broken token is no plaintext: it would be sealed and lost among the good ones.
        let broken = token(&pair.old_value(b"x", b""), |bytes| bytes[30] ^= 1);
        desk.insert(Column::Text, 5, &[Some(broken.clone())]);
        let run = desk.on_t("rotate", &pair, &["--plaintext", "seal", "--no-state"]);
        assert!(run.expect(7).quarantined()[&5].contains("authentication"));
        assert_eq!(desk.values(Column::Text)[&5], Some(broken));
    }
}

#[test]
fn a_table_that_was_migrated_halfway_is_a_normal_start() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        let inner = pair.old_value(b"the innermost", b"");
        let values: Vec<_> = (1..=30)
            .map(|id| match id % 3 {
                0 => Some(pair.new_value(&plaintext(id), b"")),
                1 => Some(pair.old_value(&plaintext(id), b"")),
                _ => None,
            })
            .chain([
                Some(pair.old_value(&inner, b"")),
                Some(pair.new_value(&inner, b"")),
                Some(pair.old_value(b"", b"")),
            ])
            .collect();
        desk.insert(Column::Text, 1, &values);
        let run = desk.on_t("rotate", &pair, &[]);
        run.expect(0);
        let count = |name: &str| run.json[name].as_u64().unwrap();
        assert_eq!(
            (
                count("values_reencrypted"),
                count("values_already_current"),
                count("values_null")
            ),
            (12, 11, 10)
        );
        assert_eq!(count("rows_scanned"), 33);
        // Encrypted twice: reported, and left with its inside as it was.
        let nested: Vec<i64> = run.json["nested"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["primary_key"]["id"].as_i64().unwrap())
            .collect();
        assert_eq!((nested, count("nested_total")), (vec![31, 32], 2));
        let after = desk.values(Column::Text);
        assert_eq!(pair.open_new(after[&31].as_ref().unwrap(), b""), inner);
        assert_eq!(pair.open_new(after[&33].as_ref().unwrap(), b""), b"");
        for id in (1..=30).filter(|id| id % 3 != 2) {
            assert_eq!(pair.open_new(after[&id].as_ref().unwrap(), b""), plaintext(id));
            if id % 3 == 0 {
                assert_eq!(after[&id], values[id as usize - 1], "a current value is not written again");
            }
        }
        // Again: nothing to do, nothing done.
        let again = desk.on_t("rotate", &pair, &[]);
        assert_eq!(again.expect(0).json["values_already_current"], 23);
        assert_eq!(desk.values(Column::Text), after);
    }
}

/// Line breaks, the other alphabet, padding, upper case: what a lenient reader accepts is rewritten in the one canonical form, and what
/// it does not accept stays.
#[test]
fn text_that_is_not_canonical_is_read_as_it_was_meant_or_stays() {
    for desk in Desk::each() {
        for format in ["fernet", "aes-gcm-base64", "aes-gcm-hex"] {
            desk.execute("DROP TABLE IF EXISTS t");
            desk.table(Column::Text);
            let pair = Pair::of(format);
            let sealed = |id: i64| String::from_utf8(pair.old_value(&plaintext(id), b"")).unwrap();
            let wrapped = |id: i64| {
                let text = sealed(id);
                let (front, back) = text.split_at(20);
                format!("{front}\n{back}\n")
            };
            let variants = [
                sealed(1),
                wrapped(2),
                format!("{}\n", sealed(3)),
                sealed(4).trim_end_matches('=').to_owned(),
                if format == "aes-gcm-hex" {
                    sealed(5).to_uppercase()
                } else {
                    sealed(5).replace('-', "+").replace('_', "/")
                },
                format!(" {}", sealed(6)),
            ];
            let values: Vec<_> = variants.iter().map(|text| Some(text.clone().into_bytes())).collect();
            desk.insert(Column::Text, 1, &values);
            let run = desk.on_t("rotate", &pair, &["--no-state"]);
            assert!(matches!(run.exit, 0 | 7), "{}", run.stderr);
            let quarantined = run.quarantined();
            assert!(!quarantined.contains_key(&1));
            let after = desk.values(Column::Text);
            for (id, before) in (1..).zip(&values) {
                if quarantined.contains_key(&id) {
                    assert_eq!(&after[&id], before, "{format}, {id}");
                } else {
                    let stored = after[&id].as_ref().unwrap();
                    assert_eq!(pair.open_new(stored, b""), plaintext(id), "{format}, {id}");
                    assert!(
                        stored
                            .iter()
                            .all(|c| c.is_ascii_graphic() && (format != "aes-gcm-hex" || !c.is_ascii_uppercase()))
                    );
                }
            }
        }
    }
}

#[test]
fn no_row_and_one_row_are_counted_exactly() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        for command in ["plan", "rotate", "verify", "rotate"] {
            let run = desk.on_t(command, &pair, &[]);
            run.expect(0);
            if command != "plan" {
                assert_eq!((&run.json["rows_scanned"], &run.json["verified"]), (&0.into(), &true.into()));
            }
        }
        desk.insert(Column::Text, -7, &[Some(pair.old_value(b"only", b""))]);
        // The plan was verified when the table was empty: what came later is found all the same.
        let run = desk.on_t("rotate", &pair, &[]);
        assert_eq!(run.expect(0).json["census"].as_object().unwrap().values().sum_u64(), 1);
        let values = desk.values(Column::Text);
        assert_eq!(pair.open_new(values[&-7].as_ref().unwrap(), b""), b"only");
    }
}

trait SumU64 {
    fn sum_u64(self) -> u64;
}

impl<'a, I: Iterator<Item = &'a serde_json::Value>> SumU64 for I {
    fn sum_u64(self) -> u64 {
        self.map(|value| value.as_u64().unwrap()).sum()
    }
}

#[test]
fn one_unreadable_value_stops_the_run_when_asked_to() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        let broken = token(&pair.old_value(b"x", b""), |bytes| bytes[30] ^= 1);
        desk.insert(Column::Text, 1, &[Some(pair.old_value(b"one", b"")), Some(broken.clone())]);
        let run = desk.on_t("rotate", &pair, &["--on-unreadable", "stop"]);
        run.expect(7);
        let failed = run.json["error"]["failed"].as_str().unwrap();
        assert!(failed.contains("row 2") && failed.contains("authentication"), "{failed}");
        assert_eq!(desk.values(Column::Text)[&2], Some(broken));
    }
}
