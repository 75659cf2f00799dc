//! Whole rotations beside the database's own floor, measured in turn in the same run. Run by `scripts/bench`.
//!
//! The floor is what the database itself needs to rewrite the same column of the same table in batches, with no cryptography, no
//! comparison, no cursor and no verification. Figures are ratios of the two; absolute numbers belong to the machine.

mod postgres;
mod process;
mod sample;
mod sqlite;

use std::error::Error;

use process::Run;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1))
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (rows, rounds) = (value("--rows", 500_000), value("--rounds", 3));
    match arguments.first().map(String::as_str) {
        Some("postgres") => {
            let has = |name: &str| arguments.iter().any(|argument| argument == name);
            let extent = postgres::Extent {
                vacuum: has("--vacuum"),
                second_column: has("--second-column"),
            };
            postgres::measure(rows, rounds, value("--connections", 4), &extent)
        }
        Some("sqlite") => sqlite::measure(rows, rounds),
        // `cargo bench` and `cargo test --benches` call every bench without arguments: whole runs only on request.
        _ => {
            println!("whole rotations: run scripts/bench");
            Ok(())
        }
    }
}

/// Prints one line per round, then the medians.
fn report(what: &str, rounds: &[(f64, Run)]) {
    let mut ratios = Vec::new();
    for (floor, run) in rounds {
        let ratio = run.rows_per_second / floor;
        println!(
            "{what}: floor {floor:.0} rows/s, reseal {:.0} rows/s, ratio {ratio:.2}; whole command {:.2} x its re-encrypt phase; peak {} MiB",
            run.rows_per_second,
            run.whole_over_reencrypt,
            run.peak_kib >> 10
        );
        ratios.push(ratio);
    }
    println!(
        "{what}: MEDIAN ratio {:.2}, whole command {:.2} x re-encrypt, peak {} MiB",
        median(ratios),
        median(rounds.iter().map(|(_, run)| run.whole_over_reencrypt).collect()),
        rounds.iter().map(|(_, run)| run.peak_kib >> 10).max().unwrap_or(0)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
