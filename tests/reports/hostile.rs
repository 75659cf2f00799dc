//! Names, paths, error texts and the output of probes may hold anything. It is shown, and it does nothing.

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use reseal::report::{
    Fault, Finding, KeyCount, Phase, Probe, Proof, Rehearsal, Size, Standing, Verdict, Version, escaped, html, is_deceptive,
    json, junit, markdown, terminal,
};
use roxmltree::Document;
use scraper::Html;

use super::example::good;
use super::page::{parsed, select};

/// A rehearsal every text of which is `text`.
fn all_of(text: &str) -> Rehearsal {
    let it = || text.to_owned();
    let mut rehearsal = good();
    rehearsal.series.points.truncate(20);
    rehearsal.title = it();
    rehearsal.begun = format!("2026 {text}");
    rehearsal.database = it();
    rehearsal.command = it();
    rehearsal.evidence = Some(it());
    rehearsal.incidents = vec![it()];
    rehearsal.findings = vec![Finding::new(it(), it())];
    rehearsal.proofs = vec![Proof::stated("promise", text, Standing::Held)];
    rehearsal.versions = vec![Version {
        name: it(),
        version: it(),
    }];
    rehearsal.sizes = vec![Size { name: it(), count: 1 }];
    rehearsal.keys = vec![KeyCount {
        key: it(),
        role: it(),
        values_before: 1,
        values_after: 1,
    }];
    rehearsal.phases = vec![Phase {
        name: it(),
        begin_seconds: 9.0,
        end_seconds: 12.0,
    }];
    rehearsal.faults = vec![Fault {
        name: it(),
        at_seconds: 13.0,
        until_seconds: None,
        outcome: it(),
        survived: true,
    }];
    rehearsal.probes = vec![Probe {
        name: it(),
        runs: 1,
        failed: 1,
        first_failure_seconds: Some(1.0),
        first_failure: Some(it()),
        longest_outage_seconds: None,
    }];
    rehearsal.verdict = Verdict::Bad;
    rehearsal
}

/// Tags, attributes and text of the page, without the style sheet.
fn skeleton(page: &Html) -> Vec<String> {
    let elements = page.root_element().descendants().filter_map(|node| node.value().as_element());
    let skeleton = elements.map(|element| {
        let mut names: Vec<&str> = element.attrs().map(|(name, _)| name).collect();
        names.sort_unstable();
        format!("{} {names:?}", element.name())
    });
    // Labels of plots come and go with their length.
    skeleton.filter(|element| !element.starts_with("text ")).collect()
}

fn assert_harmless(text: &str) {
    let rehearsal = all_of(text);
    let shown = escaped(text);

    let page = html(&rehearsal).unwrap();
    assert!(!page.chars().any(|c| is_deceptive(c) && c != '\n'));
    assert_eq!(
        skeleton(&parsed(&rehearsal)),
        skeleton(&parsed(&all_of("plain"))),
        "the page got elements from {text:?}"
    );
    let finding: String = select(&parsed(&rehearsal), ".verdict li")[0].text().collect();
    assert_eq!(finding, format!("{shown} {shown}"));

    let xml = junit(&rehearsal).unwrap();
    let (document, plain) = (Document::parse(&xml).unwrap(), junit(&all_of("plain")).unwrap());
    let plain = Document::parse(&plain).unwrap();
    assert_eq!(
        document.descendants().filter(|node| node.is_element()).count(),
        plain.descendants().filter(|node| node.is_element()).count()
    );

    let said = terminal(&rehearsal);
    assert!(!said.chars().any(|c| is_deceptive(c) && c != '\n'), "{said:?}");

    let text_of_json = json(&rehearsal).unwrap();
    assert!(!text_of_json.chars().any(|c| is_deceptive(c) && c != '\n'));
    let read: Rehearsal = serde_json::from_str(&text_of_json).unwrap();
    assert!(read == rehearsal, "JSON does not keep {text:?}");

    let written = markdown(&rehearsal);
    assert!(!written.chars().any(|c| is_deceptive(c) && c != '\n'), "{written:?}");
    assert_eq!(
        structure(&written),
        structure(&markdown(&all_of("plain"))),
        "{text:?} became markup:\n{written}"
    );
    let whole = |written: &str, text: &str| texts(written).1.iter().filter(|cell| cell.contains(text)).count();
    let expected = whole(&markdown(&all_of("plain")), "plain");
    assert_eq!(whole(&written, &shown), expected, "{text:?} was cut:\n{written}");
}

/// The blocks of a document, its markup, and no text. Code spans are text that stands for itself.
fn structure(markdown: &str) -> Vec<String> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_FOOTNOTES;
    let is_text = |event: &Event<'_>| matches!(event, Event::Text(_) | Event::Code(_));
    let events = Parser::new_ext(markdown, options).filter(|event| !is_text(event));
    let named = events.map(|event| match event {
        Event::Start(Tag::CodeBlock(_)) => "code".to_owned(),
        event => format!("{event:?}"),
    });
    named.collect()
}

#[test]
fn known_attacks_do_nothing() {
    for text in [
        "<script>alert(1)</script>",
        "</title></style><img src=x onerror=alert(1)>",
        "]]>\" onmouseover='x' <!--",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "safe\u{202e}gnp.exe",
        "\u{0}\u{ffff}\u{fffe}\u{feff}\u{2028}",
        "| a | b |\n|---|---|\n# heading\n- item",
        "`code` ``more`` ``` fence\n```\nout",
        "@everyone fixes #1 and GH-2, see https://example.org www.example.org mailto:a@b.c",
        "[link](javascript:alert(1)) ![image](x) <b>bold</b> &lt; &#64;",
        "<details><summary>x</summary>",
        "*strong* _em_ ~~gone~~ \\| \\",
        "{{ template }} {% block %}",
        "1. one",
        "+ item",
        "=====",
        "\t    indented",
        "- [ ] task",
        "``",
    ] {
        assert_harmless(text);
    }
}

#[test]
fn nobody_is_mentioned_and_nothing_is_linked() {
    let written = markdown(&all_of("@someone and #12 and https://example.org and www.example.org"));
    for text in texts(&written).0 {
        for token in ["@", "#", "://", "www."] {
            assert!(!text.contains(token), "{token} in {text:?}");
        }
    }
}

/// What a reader makes links of, and the whole text of every cell of a table.
fn texts(markdown: &str) -> (Vec<String>, Vec<String>) {
    let (mut texts, mut cells) = (Vec::new(), Vec::new());
    let (mut is_block, mut is_cell) = (false, false);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => is_block = true,
            Event::End(TagEnd::CodeBlock) => is_block = false,
            Event::Start(Tag::TableCell) => {
                is_cell = true;
                cells.push(String::new());
            }
            Event::End(TagEnd::TableCell) => is_cell = false,
            Event::Text(ref text) | Event::Code(ref text) => {
                if let Some(cell) = cells.last_mut().filter(|_| is_cell) {
                    cell.push_str(text);
                }
                if matches!(event, Event::Text(_)) && !is_block {
                    texts.push(text.to_string());
                }
            }
            _ => {}
        }
    }
    (texts, cells)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_breaks_out_of_any_form(text in hostile_text()) {
        assert_harmless(&text);
    }
}

/// Pieces of markup and characters that deceive, between any others. Begins with a letter: an empty text is no text.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(
            &[
                "<",
                ">",
                "&",
                "\"",
                "'",
                "]]>",
                "<!--",
                "-->",
                "</td>",
                "`",
                "``",
                "|",
                "\\",
                "*",
                "_",
                "~~",
                "[",
                "](",
                "!",
                "#",
                "@",
                "://",
                "www.",
                "\n",
                "\r\n",
                "\t",
                "\u{1b}[31m",
                "\u{202e}",
                "\u{200b}",
                "\u{7f}",
                "\u{9b}",
                "{{",
                "{%",
                "$",
                "&#x3c;",
            ][..]
        )
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        "[a-z ]{1,5}",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| format!("x{}x", pieces.concat()))
}
