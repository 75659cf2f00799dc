//! The page: well-formed, self-contained, and usable without eyes, colours, scripts or a network.

use reseal::report::{Finding, Proof, Rehearsal, Standing, Verdict, html};
use scraper::{ElementRef, Html, Selector};

use super::example::{bad, good};

pub fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

/// The page as a browser reads it; fails on anything that the parser had to mend.
pub fn parsed(rehearsal: &Rehearsal) -> Html {
    let text = html(rehearsal).unwrap();
    let page = Html::parse_document(&text);
    assert_eq!(page.errors, Vec::<String>::new());
    page
}

fn text(element: &ElementRef<'_>) -> String {
    element.text().collect::<String>().trim().to_owned()
}

#[test]
fn the_page_is_well_formed_in_every_state() {
    let empty = Rehearsal::broken_off("nothing", "it was killed");
    for rehearsal in [good(), bad(), empty] {
        parsed(&rehearsal);
        // Every element is closed where it should be: a parser of XML, which mends nothing, reads it too.
        let text = html(&rehearsal).unwrap().replace("<!DOCTYPE html>", "");
        roxmltree::Document::parse(&text).unwrap();
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    for rehearsal in [good(), bad()] {
        let text = html(&rehearsal).unwrap();
        let page = parsed(&rehearsal);
        assert_eq!(
            select(&page, "script, link, img, iframe, object, embed, audio, video, form, a").len(),
            0
        );
        for attribute in ["src", "href", "srcset", "style", "onload", "onclick", "onerror"] {
            assert_eq!(select(&page, &format!("[{attribute}]")).len(), 0, "{attribute}");
        }
        let css: String = select(&page, "style").iter().map(text_of).collect();
        assert!(
            !css.contains("url(") && !css.contains("@import"),
            "the style sheet loads something"
        );
        assert!(text.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    }
}

fn text_of(element: &ElementRef<'_>) -> String {
    element.text().collect()
}

#[test]
fn the_verdict_comes_first_and_every_reason_stands_beside_it() {
    let rehearsal = bad();
    let page = parsed(&rehearsal);
    let verdict = select(&page, "header .verdict");
    let words: String = text(&verdict[0]);
    assert!(words.starts_with("BAD"), "{words}");
    for finding in &rehearsal.findings {
        assert!(words.contains(&finding.sentence), "{}", finding.sentence);
    }
    assert!(text(&select(&page, "title")[0]).starts_with("BAD: "));

    let page = parsed(&good());
    assert!(text(&select(&page, "header .verdict.good")[0]).starts_with("Good"));
    assert_eq!(select(&page, "header li").len(), 0);
}

#[test]
fn a_rehearsal_that_broke_off_looks_neither_good_nor_bad() {
    let page = parsed(&Rehearsal::broken_off("drill", "the disk is full"));
    let words = text(&select(&page, "header .verdict.open")[0]);
    assert!(
        words.starts_with("NO VERDICT") && words.contains("the disk is full"),
        "{words}"
    );
    assert_eq!(select(&page, ".good, .bad, svg").len(), 0);
}

#[test]
fn headings_tables_and_plots_have_names() {
    let page = parsed(&bad());
    assert_eq!(select(&page, "html[lang=en]").len(), 1);
    assert_eq!(select(&page, "h1").len(), 1);
    for section in select(&page, "section") {
        let label = section.value().attr("aria-labelledby").unwrap();
        assert_eq!(select(&page, &format!("h2[id='{label}']")).len(), 1, "{label}");
    }
    for table in select(&page, "table") {
        let columns = table.select(&Selector::parse("thead th[scope=col]").unwrap()).count();
        assert!(columns >= 2);
        for row in table.select(&Selector::parse("tbody tr").unwrap()) {
            assert_eq!(row.select(&Selector::parse("th[scope=row]").unwrap()).count(), 1);
        }
    }
    let plots = select(&page, "svg");
    assert_eq!(plots.len(), 6, "three, each for a wide page and for a phone");
    for plot in plots {
        assert_eq!(plot.value().attr("role"), Some("img"));
        for id in plot.value().attr("aria-labelledby").unwrap().split(' ') {
            let named = select(&page, &format!("[id='{id}']"));
            assert_eq!(named.len(), 1, "{id}");
            assert!(!text(&named[0]).is_empty());
        }
    }
    let ids: Vec<&str> = select(&page, "[id]")
        .iter()
        .filter_map(|element| element.value().id())
        .collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn plots_show_phases_and_faults() {
    let rehearsal = bad();
    let page = parsed(&rehearsal);
    for plot in select(&page, ".wide svg") {
        let words: Vec<String> = plot.select(&Selector::parse("text").unwrap()).map(|it| text(&it)).collect();
        for phase in &rehearsal.phases[1..9] {
            assert!(words.contains(&phase.name), "{}: {words:?}", phase.name);
        }
        for (at, fault) in rehearsal.faults.iter().enumerate() {
            assert!(words.contains(&(at + 1).to_string()), "{words:?}");
            assert!(words.contains(&format!("{} {}", at + 1, fault.name)), "{words:?}");
        }
    }
    let failures = select(&page, ".wide svg circle[fill='#B3001C']").len();
    let stretches = rehearsal.series.points.iter().filter(|point| point.failed > 0).count();
    assert_eq!(
        failures,
        stretches + 1,
        "a dot for each stretch with failures, and one in the key"
    );
}

#[test]
fn every_colour_of_a_plot_has_its_counterpart_on_a_dark_page() {
    let page = parsed(&bad());
    let css: String = select(&page, "style").iter().map(text_of).collect();
    for element in select(&page, "svg *") {
        for attribute in ["fill", "stroke"] {
            let Some(color) = element.value().attr(attribute).filter(|color| color.starts_with('#')) else {
                continue;
            };
            assert!(css.contains(&format!("[{attribute}=\"{color}\"]")), "{attribute} {color}");
        }
    }
}

#[test]
fn a_plot_of_many_days_stays_small() {
    let mut rehearsal = good();
    let point = rehearsal.series.points[0];
    rehearsal.series.points = (0..200_000)
        .map(|at| {
            let mut point = point;
            point.begin_seconds = f64::from(at);
            point
        })
        .collect();
    rehearsal.series.bucket_seconds = 1.0;
    rehearsal.series.points[123_456].reads.latency_ms.as_mut().unwrap().max = 98_765.0;
    let text = html(&rehearsal).unwrap();
    assert!(text.len() < 400_000, "{} bytes", text.len());
    assert!(text.contains("The slowest took 98,765 ms"), "the worst is not thinned away");
}

#[test]
fn a_series_that_makes_no_sense_still_makes_a_page() {
    for (bucket, begin) in [(0.0, 0.0), (1.0, f64::NAN), (f64::INFINITY, 0.0), (1e-300, 1e300)] {
        let mut rehearsal = good();
        rehearsal.series.bucket_seconds = bucket;
        rehearsal.series.points.truncate(3);
        for point in &mut rehearsal.series.points {
            point.begin_seconds = begin;
            point.reads.latency_ms = None;
        }
        parsed(&rehearsal);
    }
}

#[test]
fn what_was_not_tested_is_not_shown_as_held() {
    let mut rehearsal = good();
    rehearsal.proofs = vec![Proof::stated(
        "guard",
        "the database itself refuses old values",
        Standing::NotTested,
    )];
    rehearsal.findings = vec![Finding::new("guard", "it was never asked to")];
    rehearsal.settle();
    assert_eq!(rehearsal.verdict, Verdict::Bad);
    let page = parsed(&rehearsal);
    assert_eq!(text(&select(&page, "td.standing")[0]), "not tested");
    assert_eq!(select(&page, "td.good").len(), 0);
}
