//! Columns that nobody declared, and that need a key all the same.

use jiff::Timestamp;
use reseal::format::{Carried, by_name, seeded};
use reseal::key::{Algorithm, KeyState, Keyset};

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT};
use super::retirement::needs;

/// The column as the program names it.
fn named(kind: Kind, column: &str) -> String {
    match kind {
        Kind::Sqlite => column.to_owned(),
        Kind::Postgres => format!("public.{column}"),
    }
}

/// Twelve customers were copied aside, once upon a time.
fn with_a_copy(kind: Kind) -> Option<House> {
    let house = House::build(kind, 20)?;
    house.execute("CREATE TABLE legacy AS SELECT id, email FROM customers WHERE id <= 12");
    Some(house)
}

pub fn a_forgotten_column_keeps_its_key_with_readers(kind: Kind) {
    let Some(house) = with_a_copy(kind) else { return };
    let app = house.app("web-1");
    let (old, name) = (house.keys()[0].0.to_string(), named(kind, "legacy.email"));
    let copies = house.values("legacy", "email");

    // It is told beforehand, and stops nothing.
    let plan = house.run(&["plan", KEYSET]);
    assert_eq!(plan.code, Some(0), "{}", plan.text());
    assert_eq!(plan.document["undeclared"][0]["count"], 12, "{}", plan.text());
    assert!(plan.stderr.contains(&name), "{}", plan.stderr);
    let kept = house.rotate(PATIENT);
    assert_eq!(kept.code, Some(7), "{}", kept.text());
    assert_eq!(needs(&kept.document), [("undeclared", 12)]);
    let early = kept.stderr.find("before the old key can be retired: 12 sampled values");
    assert!(early.is_some() && early < kept.stderr.find("is primary"), "{}", kept.stderr);
    let what = kept.document["needs"][0]["what"].as_str().unwrap();
    for part in [name.clone(), "reseal.toml".to_owned(), format!("--accept undeclared:{name}")] {
        assert!(what.contains(&part), "{part}: {what}");
    }
    assert_eq!((house.keys()[0].1, house.keys()[0].2), (KeyState::Retiring, false));
    House::assert_opens(&app, ("customers", "email"), copies.clone());

    // Another keyset's dataset needs the key, too.
    let of_orders = "database = \"main\"\ntable = \"legacy\"\nkeyset = \"orders\"\ncolumns = [{ name = \"email\", format = \"tink-base64\" }]\n";
    house.configure(&format!("[policy]\nbackup_horizon = \"35d\"\n[dataset.legacy]\n{of_orders}"));
    assert_eq!(needs(&house.rotate(PATIENT).document), [("undeclared", 12)]);
    let retire = house.run(&["keys", "retire", KEYSET, &old]);
    assert_eq!(retire.code, Some(4), "{}", retire.text());
    assert_eq!(needs(&retire.document), [("rotation", 1), ("undeclared", 12)]);

    let other = house.rotate(&[PATIENT, &["--accept", "undeclared:legacy.name"]].concat());
    assert_eq!(needs(&other.document), [("undeclared", 12)]);
    let done = house.rotate(&[PATIENT, &["--accept", &format!("undeclared:{name}")]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert!(house.keys()[0].2);
    assert_eq!(house.values("legacy", "email"), copies, "nobody has touched it");
}

pub fn a_forgotten_column_keeps_a_key_from_being_given_up(kind: Kind) {
    let Some(house) = with_a_copy(kind) else { return };
    let _app = house.app("web-1");
    let (old, accepted) = (
        house.keys()[0].0.to_string(),
        format!("undeclared:{}", named(kind, "legacy.email")),
    );
    let done = house.rotate(&[PATIENT, &["--no-retire"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    let step = |command: &str, more: &[&str]| house.run(&[&["keys", command, KEYSET, &old], more].concat());
    let refused = step("retire", &[]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(needs(&refused.document), [("undeclared", 12)]);
    assert!(refused.stderr.contains(&accepted), "{}", refused.stderr);
    let retired = step("retire", &["--accept", &accepted]);
    assert_eq!(retired.code, Some(0), "{}", retired.text());

    house.configure("[policy]\nbackup_horizon = \"1s\"\n");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let refused = step("destroy", &["--yes"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(needs(&refused.document), [("undeclared", 12)]);
    assert!(house.keys()[0].1 != KeyState::Destroyed);
    // Alone, it is the word that nobody need look.
    let destroyed = step("destroy", &["--yes", "--accept", "undeclared"]);
    assert_eq!(destroyed.code, Some(0), "{}", destroyed.text());
    assert_eq!(house.keys()[0].1, KeyState::Destroyed);

    std::fs::remove_file(house.path("reseal.toml")).unwrap();
    let refused = step("retire", &["--accept", &accepted]);
    assert_eq!(refused.code, Some(2), "{}", refused.text());
}

/// Values that name no key are opened.
pub fn forgotten_values_that_name_no_key_are_opened(kind: Kind) {
    let Some(house) = House::build(kind, 0) else { return };
    house.add(Keyset::generate("letters".parse().unwrap(), Algorithm::Fernet, Timestamp::now()).unwrap());
    house.configure(
        "[policy]\nbackup_horizon = \"35d\"\n[dataset.letters]\ndatabase = \"main\"\ntable = \"letters\"\nkeyset = \"letters\"\n\
         columns = [{ name = \"body\", format = \"fernet\" }]\n",
    );
    let keyring = house.keyring();
    let key = keyring.keyset(&"letters".parse().unwrap()).unwrap().primary();
    let cipher = by_name("fernet").unwrap().cipher(key.material().unwrap(), None).unwrap();
    let token = |text: &str| {
        let (mut out, carried) = (
            Vec::new(),
            Carried {
                timestamp: Some(1_700_000_000),
                ..Carried::default()
            },
        );
        cipher.seal(text.as_bytes(), b"", carried, &mut seeded().unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    };
    house.execute(
        "CREATE TABLE letters (id BIGINT PRIMARY KEY, body TEXT); CREATE TABLE drafts (id BIGINT PRIMARY KEY, body TEXT)",
    );
    for id in 1..=5 {
        house.execute(&format!(
            "INSERT INTO letters VALUES ({id}, '{}'); INSERT INTO drafts VALUES ({id}, '{}')",
            token("a letter"),
            if id <= 3 { token("a draft") } else { "plain".to_owned() }
        ));
    }
    let rotate = |more: &[&str]| {
        let arguments = ["rotate", "letters", "--yes", "--expect-instances", "0"];
        house.run(&[&arguments[..], BRIEF, more].concat())
    };
    let kept = rotate(&[]);
    assert_eq!(kept.code, Some(7), "{}", kept.text());
    assert_eq!(needs(&kept.document), [("undeclared", 3)]);
    assert!(kept.stderr.contains(&named(kind, "drafts.body")), "{}", kept.stderr);
    // Without them nothing keeps the key.
    house.execute("DELETE FROM drafts WHERE id = 2 OR id = 3; UPDATE drafts SET body = 'plain' WHERE id = 1");
    let done = rotate(&[]);
    assert_eq!(done.code, Some(0), "{}", done.text());
}

/// Rows beyond the condition of a dataset are nobody's.
pub fn rows_beyond_a_condition_keep_the_key(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let _app = house.app("web-1");
    let path = house.path("reseal.toml");
    let table = "table = \"customers\"\n";
    let restricted = std::fs::read_to_string(&path)
        .unwrap()
        .replace(table, &format!("{table}where = \"id <= 5\"\n"));
    std::fs::write(&path, restricted).unwrap();
    let plan = house.run(&["plan", KEYSET]);
    assert_eq!(plan.document["undeclared"].as_array().unwrap().len(), 0, "{}", plan.text());
    let kept = house.rotate(PATIENT);
    assert_eq!(kept.code, Some(7), "{}", kept.text());
    assert_eq!(needs(&kept.document), [("undeclared", 15)]);
    assert!(kept.stderr.contains(&named(kind, "customers.email")), "{}", kept.stderr);
}

/// On PostgreSQL, where somebody may hold a table.
pub fn a_column_that_cannot_be_looked_at_keeps_the_key() {
    let Some(house) = House::build(Kind::Postgres, 20) else {
        return;
    };
    // Before there is a schema of Reseal's own, which may be named like the user.
    house.execute("CREATE TABLE held (note text)");
    let _app = house.app("web-1");
    let old = house.keys()[0].0.to_string();
    let done = house.rotate(&[PATIENT, &["--no-retire"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    let retire = |more: &[&str]| house.run(&[&["keys", "retire", KEYSET, &old], more].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (refused, planned) = runtime.block_on(async {
        let pool = house.database().unwrap().pool(1);
        let mut holder = pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *holder)
            .await
            .unwrap();
        let answers = (retire(&[]), house.run(&["plan", KEYSET]));
        holder.rollback().await.unwrap();
        answers
    });
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(needs(&refused.document), [("unseen", 1)]);
    for part in ["public.held.note", "55P03", "--accept undeclared:public.held.note"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(planned.code, Some(0), "{}", planned.text());
    assert_eq!(planned.document["undeclared"][0]["name"], "unseen", "{}", planned.text());
    assert_eq!(retire(&[]).code, Some(0));
}
