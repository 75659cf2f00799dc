//! What a rotation would meet: the survey, a sample of values opened under both keys, estimates. Changes nothing.

use std::sync::Arc;

use super::census::{Census, Counter};
use super::error::RotationError;
use super::guard::own_plan;
use super::judge::Depth;
use super::preflight::{self, Finding, Purpose};
use super::recipe::Recipe;
use super::retry::{Before, before_the_first_write};
use super::{Job, Options};
use crate::store::page::Page;
use crate::store::survey::{Survey, Target};
use crate::store::{PageEnd, PageLimits, Store, StoreError};

/// What `reseal plan` reports.
#[derive(Debug)]
pub struct PlanReport {
    /// The catalogue's facts.
    pub survey: Arc<Survey>,
    /// What they mean.
    pub findings: Vec<Finding>,
    /// What the sampled values are.
    pub sample: Census,
    /// Bytes of an average row's encrypted values.
    pub mean_value_bytes: f64,
    /// The target key's name.
    pub target_label: String,
    /// Rows a second to reckon with on a busy server, an ordinary one and a fast one.
    pub rows_per_second: [u32; 3],
}

impl PlanReport {
    /// Bytes that would be rewritten.
    pub fn bytes_to_rewrite(&self) -> u64 {
        (self.mean_value_bytes * self.survey.rows_estimate as f64) as u64
    }
}

/// A job joined with its table.
pub struct Prepared {
    /// The catalogue's facts.
    pub survey: Arc<Survey>,
    /// Formats and keys, knowing where their columns stand.
    pub recipe: Arc<Recipe>,
    /// What was pointed at.
    pub target: Target,
    /// How to go about it.
    pub options: Options,
}

impl Prepared {
    /// Whether somebody else may hold an old key.
    pub(super) fn is_wary(&self) -> bool {
        self.options.compromised || self.recipe.distrusts()
    }
}

/// Reads the catalogue and tells the recipe where its columns stand. Writes nothing.
pub async fn prepare(store: &dyn Store, job: Job) -> Result<Prepared, RotationError> {
    let mut recipe = job.recipe;
    let mut target = Target {
        table: job.table,
        columns: recipe.columns.iter().map(|column| column.name.clone()).collect(),
        context_columns: Vec::new(),
        filter: job.filter,
    };
    let mut survey = before_the_first_write(store, Before::Unheard, || store.survey(&target)).await?;
    target.context_columns = recipe.context_columns(&survey)?;
    if !target.context_columns.is_empty() {
        survey = before_the_first_write(store, Before::Answered, || store.survey(&target)).await?;
    }
    recipe.bind(&survey)?;
    Ok(Prepared {
        survey: Arc::new(survey),
        recipe: Arc::new(recipe),
        target,
        options: job.options,
    })
}

/// Samples and judges. Writes nothing.
pub async fn plan(store: &Arc<dyn Store>, prepared: &Prepared, purpose: Purpose) -> Result<PlanReport, RotationError> {
    let (survey, recipe) = (&prepared.survey, &prepared.recipe);
    // The guard of this very rotation is no stranger.
    let own = preflight::guard_name(&own_plan(prepared));
    let accepted: Vec<String> = prepared.options.accepted.iter().cloned().chain([own]).collect();
    let mut findings = preflight::findings(survey, recipe, purpose, &accepted);
    let (sample, mean_value_bytes) = if findings.iter().any(blocks_reading) {
        (Census::default(), 0.0)
    } else {
        let limit = prepared.options.value_bytes_max;
        before_the_first_write(&**store, Before::Answered, || sample(&**store, survey, recipe, limit)).await?
    };
    let values = sample.current + sample.due + sample.unreadable;
    if purpose == Purpose::Write && values >= SAMPLE_JUDGED_MIN && sample.unreadable == values {
        findings.insert(0, nothing_opens(values));
    }
    if purpose == Purpose::Write && sample.too_wide > 0 {
        findings.insert(0, too_narrow(sample.too_wide, values));
    }
    let (options, proposed) = (&prepared.options, store.workers());
    let writers = options.workers_wished(proposed).clamp(1, proposed.max);
    Ok(PlanReport {
        rows_per_second: options.profile.rows_per_second(proposed.max == 1, writers),
        survey: Arc::clone(survey),
        findings,
        sample,
        mean_value_bytes,
        target_label: recipe.target_label.clone(),
    })
}

fn nothing_opens(values: u64) -> Finding {
    Finding {
        severity: preflight::Severity::Refuse,
        name: "no-value-opens".to_owned(),
        what: format!("none of {values} sampled values opens under the old or the new key"),
        advice: "check the keys, --format and --aad".to_owned(),
    }
}

fn too_narrow(too_wide: u64, values: u64) -> Finding {
    Finding {
        severity: preflight::Severity::Refuse,
        name: "too-narrow".to_owned(),
        what: format!("the new form of {too_wide} of {values} sampled values does not fit into their column"),
        advice: "widen the column first: ALTER TABLE … ALTER COLUMN … TYPE text".to_owned(),
    }
}

fn blocks_reading(finding: &Finding) -> bool {
    finding.severity == preflight::Severity::Refuse
        && matches!(
            finding.name.as_str(),
            "no-key" | "key-type" | "key-width" | "row-security" | "not-a-table" | "where" | "value-type"
        )
        || (finding.name == "privilege" && finding.what.contains("SELECT"))
}

/// About a thousand rows from several places of the table, each value opened.
async fn sample(
    store: &dyn Store,
    survey: &Survey,
    recipe: &Arc<Recipe>,
    value_bytes_max: u64,
) -> Result<(Census, f64), StoreError> {
    let intervals = store.intervals(survey, SAMPLE_PLACES, false).await?;
    let mut session = store.session(survey).await?;
    let mut page = Page::to_look_at(session.shape());
    let mut counter = Counter::new(Arc::clone(recipe), Depth::Open);
    let rows = (SAMPLE_ROWS / intervals.len().max(1)).max(1);
    let mut bytes = 0;
    for interval in intervals.iter().take(SAMPLE_PLACES * 2) {
        let limits = PageLimits {
            rows,
            bytes: SAMPLE_BYTES / SAMPLE_PLACES,
            value_bytes_max,
            stands_back: false,
        };
        let _: PageEnd = session.page(interval, None, limits, &mut page).await?;
        for row in 0..page.len() {
            bytes += (0..page.shape().values)
                .map(|at| page.value(row, at).bytes.len())
                .sum::<usize>();
        }
        counter.count(&interval.relation, &page);
    }
    let census = std::mem::take(&mut counter.census);
    let mean = if census.rows == 0 {
        0.0
    } else {
        bytes as f64 / census.rows as f64
    };
    Ok((census, mean))
}

const SAMPLE_ROWS: usize = 1_000;
const SAMPLE_PLACES: usize = 10;
const SAMPLE_BYTES: usize = 4 << 20;
/// A small table may be all broken and still deserves its list; a large one that opens nowhere was given the wrong key.
const SAMPLE_JUDGED_MIN: u64 = 100;
