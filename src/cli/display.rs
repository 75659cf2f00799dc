//! Progress while a rotation runs: a bar on a terminal, a plain line every ten seconds elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::output;
use crate::rotation::progress::{Progress, Step};

/// A display that is drawing.
pub struct Display {
    end: oneshot::Sender<()>,
    drawing: JoinHandle<()>,
}

impl Display {
    /// Starts drawing.
    pub fn start(progress: Arc<Progress>, terminal: bool) -> Self {
        let (end, ended) = oneshot::channel();
        let drawing = tokio::spawn(async move {
            if terminal {
                draw_bar(&progress, ended).await;
            } else {
                print_lines(&progress, ended).await;
            }
        });
        Self { end, drawing }
    }

    /// Clears the bar.
    pub async fn end(self) {
        // Both fail only when the display ended by itself.
        let _ = self.end.send(());
        let _ = self.drawing.await;
    }
}

async fn draw_bar(progress: &Progress, mut ended: oneshot::Receiver<()>) {
    let bar = ProgressBar::new(0);
    // The template is a constant of ours; a display without it is plain, not wrong.
    if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {bar:30} {percent:>3}%  {msg}") {
        bar.set_style(style);
    }
    let mut rate = Rate::default();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = tokio::time::sleep(REDRAW) => {}
        }
        let now = Snapshot::of(progress);
        bar.set_prefix(now.step.name());
        bar.set_length(now.expected.max(now.scanned).max(1));
        bar.set_position(now.scanned);
        bar.set_message(now.describe(rate.update(&now)));
    }
    bar.finish_and_clear();
}

async fn print_lines(progress: &Progress, mut ended: oneshot::Receiver<()>) {
    let mut rate = Rate::default();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = tokio::time::sleep(LINE_EVERY) => {}
        }
        let now = Snapshot::of(progress);
        output::tell(&format!("{}: {}", now.step.name(), now.describe(rate.update(&now))));
    }
}

struct Snapshot {
    step: Step,
    since: Duration,
    scanned: u64,
    expected: u64,
    ranges: (u64, u64),
    reencrypted: u64,
    lost: u64,
    quarantined: u64,
    batch: u64,
    waited: Duration,
    waits: Vec<String>,
    limit: Option<u64>,
}

impl Snapshot {
    fn of(progress: &Progress) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (step, since) = progress.now();
        Self {
            step,
            since,
            scanned: get(&progress.rows_scanned),
            expected: get(&progress.rows_expected),
            ranges: (get(&progress.ranges_done), get(&progress.ranges)),
            reencrypted: get(&progress.values_reencrypted),
            lost: get(&progress.lost_races),
            quarantined: get(&progress.quarantined),
            batch: get(&progress.batch_rows),
            waited: Duration::from_millis(get(&progress.waited_ms)),
            waits: progress.throttle.closed().into_iter().map(|(_, why)| why).collect(),
            limit: progress.throttle.rows_per_second(),
        }
    }

    fn describe(&self, rate: f64) -> String {
        if self.step == Step::Vacuum {
            return format!(
                "{} of {} tables; what is verified stays so if this is stopped",
                self.ranges.0, self.ranges.1
            );
        }
        let mut text = format!(
            "{} of ~{} rows, {}/s, ranges {}/{}",
            HumanCount(self.scanned),
            HumanCount(self.expected),
            HumanCount(rate as u64),
            self.ranges.0,
            self.ranges.1
        );
        let left = self.expected.saturating_sub(self.scanned);
        if rate > 0.0 && self.since > ETA_AFTER && left > 0 {
            text.push_str(&format!(
                ", about {} left",
                HumanDuration(Duration::from_secs_f64(left as f64 / rate))
            ));
        }
        for (count, what) in [
            (self.reencrypted, "values re-encrypted"),
            (self.lost, "lost races"),
            (self.quarantined, "QUARANTINED"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {} {what}", HumanCount(count)));
            }
        }
        if self.waited >= WAITED_TOLD_MIN {
            text.push_str(&format!(", waited {} for others", HumanDuration(self.waited)));
        }
        for why in &self.waits {
            text.push_str(&format!(", WAITING: {}", crate::report::escaped(why)));
        }
        if let Some(limit) = self.limit {
            text.push_str(&format!(", at most {} rows/s", HumanCount(limit)));
        }
        if self.step == Step::ReEncrypt && self.batch > 0 {
            text.push_str(&format!(", batches of {}", HumanCount(self.batch)));
        }
        text
    }
}

/// Rows per second over the last moments.
#[derive(Default)]
struct Rate {
    last: Option<(Step, Duration, u64)>,
    smooth: f64,
}

impl Rate {
    fn update(&mut self, now: &Snapshot) -> f64 {
        let (since, scanned) = match self.last {
            Some((step, since, scanned)) if step == now.step && now.since > since => (since, scanned),
            _ => {
                self.smooth = 0.0;
                (Duration::ZERO, 0)
            }
        };
        let elapsed = (now.since - since).as_secs_f64();
        if elapsed > 0.0 {
            let present = now.scanned.saturating_sub(scanned) as f64 / elapsed;
            self.smooth = if self.smooth == 0.0 {
                present
            } else {
                0.8 * self.smooth + 0.2 * present
            };
        }
        self.last = Some((now.step, now.since, now.scanned));
        self.smooth
    }
}

const REDRAW: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Less is the ordinary give and take.
const WAITED_TOLD_MIN: Duration = Duration::from_secs(1);
/// Before this an estimate is a guess.
const ETA_AFTER: Duration = Duration::from_secs(3);
