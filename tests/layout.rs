//! The shape of the sources: imports run downwards, `main.rs` is one screen, nothing imports `super::*`, no module is named `utils`.
//!
//! Reads text, not syntax trees: comments and literals are dropped, the rest is cut into words, and every path that starts at
//! `crate`, `super` or `self` is followed to the top folder that it reaches. What it cannot follow (`use crate::*`,
//! `use crate as root`) it reports.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

mod layout {
    pub mod paths;
    pub mod words;
}

use layout::paths::{Import, imports};
use layout::words::words;

/// The floors of the house, from the top: a folder may import what stands below it.
const LAYERS: &[&str] = &[
    "cli", "config", "drill", "respond", "app", "rotation", "session", "secret", "store", "format", "key", "audit", "report",
];

/// Downward edges that are forbidden all the same: a store moves bytes and knows neither keys nor what the bytes mean.
const STRANGERS: &[(&str, &str)] = &[("store", "format"), ("store", "key")];

/// Names that say nothing about what a module holds.
const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc"];

const MAIN_LINES_MAX: usize = 30;

/// What is wrong with one source file; `path` is relative to `src/`. Each complaint begins with `src/path:line: `.
fn complaints(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let words = words(source);
    let mut found = Vec::new();
    let mut complain = |line: usize, what: String| found.push(format!("src/{path}:{line}: {what}"));

    if path == "main.rs" && source.lines().count() > MAIN_LINES_MAX {
        complain(MAIN_LINES_MAX + 1, format!("main.rs has more than {MAIN_LINES_MAX} lines"));
    }
    for name in module.iter().filter(|name| VAGUE.contains(&name.as_str())) {
        complain(1, format!("`{name}` says nothing about what is inside"));
    }
    for pair in words.windows(2) {
        if pair[0].text == "mod" && VAGUE.contains(&pair[1].text.as_str()) {
            complain(pair[1].line, format!("`{}` says nothing about what is inside", pair[1].text));
        }
    }
    let top = module.first().map(String::as_str);
    if let Some(top) = top.filter(|top| !LAYERS.contains(top)) {
        complain(1, format!("`{top}` has no place in the order of the layers"));
    }
    let is_test_file = module.iter().any(|name| name == "tests");
    for import in imports(&words, &module) {
        if import.is_super_glob && !import.in_tests && !is_test_file {
            complain(import.line, "`use super::*` outside tests hides what is used".to_owned());
        }
        if let Some(what) = top.and_then(|top| against_the_order(top, &import)) {
            complain(import.line, what);
        }
    }
    found
}

fn against_the_order(top: &str, import: &Import) -> Option<String> {
    let Some(target) = &import.target else {
        return Some("the whole crate is imported: name what is used".to_owned());
    };
    let height = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let (from, to) = (height(top)?, height(target)?);
    if to < from {
        return Some(format!("`{top}` imports `{target}`, which stands above it"));
    }
    let stranger = STRANGERS.contains(&(top, target));
    stranger.then(|| format!("`{top}` imports `{target}`, which it must not know"))
}

/// `store/sqlite/mod.rs` is the module `store::sqlite`; `lib.rs` and `main.rs` are the roof, which may see everything.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// Every `.rs` file below `folder`, with its path relative to `root`.
fn sources(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_sources_keep_the_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &root, &mut files);
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "the sources were not found");
    let found: Vec<String> = files.iter().flat_map(|(path, source)| complaints(path, source)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[track_caller]
fn accepted(path: &str, source: &str) {
    assert_eq!(complaints(path, source), Vec::<String>::new());
}

#[track_caller]
fn rejected(path: &str, source: &str, expected: &str) {
    assert_eq!(complaints(path, source), [expected]);
}

#[test]
fn downward_imports_pass() {
    accepted(
        "cli/rotate.rs",
        "use crate::rotation::{plan::Plan, verify};\nuse crate::store;",
    );
    accepted(
        "rotation/plan.rs",
        "use super::ranges::Range;\nuse crate::{format::Format, key::{KeyId, KeyMaterial}};",
    );
    accepted("format/fernet.rs", "fn f() { crate::key::KeyMaterial::generate::<u8>(); }");
    accepted("lib.rs", "pub use crate::cli::run;\npub mod cli;");
    accepted(
        "app/mod.rs",
        "use crate::app::follow::Follow;\nuse super::rotation::Rotation;\nuse self::follow::Other;",
    );
}

#[test]
fn an_upward_import_is_named_with_its_line() {
    rejected(
        "key/id.rs",
        "\nuse crate::format::Format;",
        "src/key/id.rs:2: `key` imports `format`, which stands above it",
    );
    rejected(
        "store/mod.rs",
        "use crate::cli;",
        "src/store/mod.rs:1: `store` imports `cli`, which stands above it",
    );
}

#[test]
fn nested_groups_are_followed() {
    let source = "use crate::{\n    key::KeyId,\n    audit::{record::Entry},\n    rotation::{self, plan::{Plan, Range}},\n};";
    let expected = "src/format/mod.rs:4: `format` imports `rotation`, which stands above it";
    let found = complaints("format/mod.rs", source);
    assert!(
        !found.is_empty() && found.iter().all(|complaint| complaint == expected),
        "{found:?}"
    );
}

#[test]
fn super_that_leaves_the_folder_is_followed() {
    let upward = "src/store/sqlite/page.rs:1: `store` imports `rotation`, which stands above it";
    rejected("store/sqlite/page.rs", "use super::super::super::rotation::Plan;", upward);
    rejected("store/sqlite/page.rs", "use super::{super::super::rotation::Plan};", upward);
    rejected(
        "store/sqlite/page.rs",
        "use self::super::super::super::rotation::Plan;",
        upward,
    );
    accepted("store/sqlite/page.rs", "use super::super::rotation::Plan;");
    // One `super` of an inline module stays in its file.
    rejected(
        "key/id.rs",
        "mod inner { use super::super::super::cli::run; }",
        "src/key/id.rs:1: `key` imports `cli`, which stands above it",
    );
    accepted(
        "key/id.rs",
        "mod inner { fn f() {} }\nmod other { use super::super::cli::run; }",
    );
}

#[test]
fn paths_inside_expressions_and_types_count() {
    let expected = "src/key/mod.rs:1: `key` imports `cli`, which stands above it";
    rejected("key/mod.rs", "fn f(x: &crate::cli::Arguments) {}", expected);
    rejected("key/mod.rs", "fn f() -> u8 { super::cli::code::<u8>() }", expected);
    rejected("key/mod.rs", "pub(in crate::cli) fn f() {}", expected);
    accepted("key/mod.rs", "pub(crate) fn f() {}\npub(super) fn g() {}");
}

#[test]
fn comments_and_literals_do_not_count() {
    accepted(
        "key/mod.rs",
        "//! See [`crate::cli`].\n/* use crate::cli; /* nested */ use crate::cli; */\nfn f() {}",
    );
    accepted(
        "key/mod.rs",
        r##"const A: &str = "use crate::cli; \" crate::cli"; const B: &str = r#"crate::cli " "#;"##,
    );
    // A quote character must not open a string that hides the rest, nor must a lifetime.
    let hidden = "fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }\nuse crate::cli;";
    rejected(
        "key/mod.rs",
        hidden,
        "src/key/mod.rs:2: `key` imports `cli`, which stands above it",
    );
}

#[test]
fn a_store_knows_no_keys() {
    let expected = "src/store/mod.rs:1: `store` imports `key`, which it must not know";
    rejected("store/mod.rs", "use crate::key::KeyId;", expected);
}

#[test]
fn imports_that_hide_their_target_are_rejected() {
    let expected = "src/key/mod.rs:1: the whole crate is imported: name what is used";
    rejected("key/mod.rs", "use crate::*;", expected);
    rejected("key/mod.rs", "use crate as root;", expected);
    rejected("key/mod.rs", "use crate::{self as root};", expected);
    rejected(
        "key/id.rs",
        "use super::super as root;",
        "src/key/id.rs:1: the whole crate is imported: name what is used",
    );
}

#[test]
fn super_globs_belong_to_tests() {
    rejected(
        "key/id.rs",
        "use super::*;",
        "src/key/id.rs:1: `use super::*` outside tests hides what is used",
    );
    rejected(
        "key/id.rs",
        "mod inner {\n use super::*; }",
        "src/key/id.rs:2: `use super::*` outside tests hides what is used",
    );
    accepted("key/id.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}");
    accepted("key/id/tests.rs", "use super::*;");
}

#[test]
fn a_long_main_is_rejected() {
    accepted("main.rs", &"\n".repeat(30));
    rejected("main.rs", &"\n".repeat(31), "src/main.rs:31: main.rs has more than 30 lines");
}

#[test]
fn vague_names_and_unknown_floors_are_rejected() {
    rejected(
        "store/utils.rs",
        "",
        "src/store/utils.rs:1: `utils` says nothing about what is inside",
    );
    rejected(
        "store/mod.rs",
        "\nmod helpers {}",
        "src/store/mod.rs:2: `helpers` says nothing about what is inside",
    );
    rejected(
        "attic/mod.rs",
        "",
        "src/attic/mod.rs:1: `attic` has no place in the order of the layers",
    );
}
