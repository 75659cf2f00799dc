//! One worker's connection: reading pages and swapping batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::time::timeout;

use super::arrays::BinaryScalar;
use super::connect::{Server, no_answer};
use super::error::store_error;
use super::identity::Met;
use super::parameters::{self, add};
use super::statements::{self, Bounds, Parts, Sifted};
use super::tidy::{self, Tidy};
use super::wide::{self, Width};
use super::{late, rows, types};
use crate::store::control::Interval;
use crate::store::page::{Page, Shape, Swaps};
use crate::store::survey::{Column, Observation, Survey};
use crate::store::value::{Cell, Key};
use crate::store::waves::Waves;
use crate::store::{Follow, PageEnd, PageLimits, Session, SetBatch, SetWriter, Sieve, StoreError, Witness, Writer, Written};

/// A connection of one worker.
pub struct PostgresSession {
    server: Server,
    role: String,
    survey: Arc<Survey>,
    connection: Option<PgConnection>,
    met: Met,
    width: Width,
    texts: HashMap<StatementKey, Arc<str>>,
    tidy: Tidy,
    took: Option<Duration>,
    transaction: Option<u64>,
}

/// What a page is read of: the rest of an interval behind the cursor, all of it or what passes a sieve.
type Part<'a> = (&'a Interval, Option<&'a Key>, Option<&'a Sieve>);

#[derive(PartialEq, Eq, Hash)]
enum StatementKey {
    Page {
        relation: String,
        bounds: Bounds,
        versions: bool,
        wide: bool,
    },
    Swap {
        relation: String,
        witness: u8,
        parts: Parts,
    },
}

impl PostgresSession {
    /// Connects.
    pub async fn open(server: Server, role: String, survey: Arc<Survey>) -> Result<Self, StoreError> {
        let (mut connection, met) = server.connect_worker(&role).await?;
        super::survey::require_usable(&mut connection, &survey).await?;
        Ok(Self {
            server,
            role,
            survey,
            connection: Some(connection),
            met,
            width: Width::unknown(),
            texts: HashMap::new(),
            tidy: Tidy::default(),
            took: None,
            transaction: None,
        })
    }

    fn text(&mut self, key: StatementKey, build: impl FnOnce(&Survey) -> String) -> Arc<str> {
        let survey = &self.survey;
        self.texts.entry(key).or_insert_with(|| build(survey).into()).clone()
    }
}

fn live(connection: &mut Option<PgConnection>) -> Result<&mut PgConnection, StoreError> {
    connection
        .as_mut()
        .ok_or_else(|| StoreError::Disconnected("not reconnected yet".to_owned()))
}

#[async_trait]
impl Session for PostgresSession {
    fn shape(&self) -> Shape {
        Shape {
            keys: self.survey.key.len(),
            contexts: self.survey.contexts.len(),
            values: self.survey.values.len(),
        }
    }

    async fn page(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        self.page_of((interval, cursor, None), limits, page).await
    }

    async fn page_sifted(
        &mut self,
        sieve: &Sieve,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        self.page_of((interval, cursor, Some(sieve)), limits, page).await
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::Set(self)
    }

    async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.connection = None;
        let (connection, met) = self.server.connect_worker(&self.role).await?;
        (self.connection, self.met) = (Some(connection), met);
        Ok(())
    }
}

impl PostgresSession {
    /// A connection that swallows requests without closing is as lost as one that closed.
    fn give_up<T>(&mut self) -> Result<T, StoreError> {
        self.connection = None;
        Err(no_answer(self.server.answer_max()))
    }

    async fn page_of(&mut self, part: Part<'_>, limits: PageLimits, page: &mut Page) -> Result<PageEnd, StoreError> {
        self.server.require_latest(self.met)?;
        let answer_max = self.server.answer_max();
        let answer = timeout(answer_max, self.read_page(part, limits, page)).await;
        answer.unwrap_or_else(|_| self.give_up())
    }

    async fn read_page(
        &mut self,
        (interval, cursor, sieve): Part<'_>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        page.clear();
        let lower = cursor.or(interval.after.as_ref());
        let upper = interval.upto.as_ref();
        let bounds = Bounds {
            lower: lower.is_some(),
            upper: upper.is_some(),
            sifted: sieve.map(|sieve| match sieve {
                Sieve::Since(_) => Sifted::Since,
                Sieve::Except(_) => Sifted::Except,
            }),
        };
        let (versions, wide) = (page.is_for_swaps(), self.width.is_wide());
        let key = StatementKey::Page {
            relation: interval.relation.clone(),
            bounds,
            versions,
            wide,
        };
        let bound_parts = (usize::from(bounds.lower) + usize::from(bounds.upper)) * self.survey.key.len()
            + usize::from(bounds.sifted.is_some());
        let text = self.text(key, |survey| {
            let page = statements::page(survey, &interval.relation, bounds, versions);
            match wide {
                true => wide::bounded(survey, &page, versions, bound_parts + 3),
                false => page,
            }
        });
        let mut arguments = PgArguments::default();
        for bound in [lower, upper].into_iter().flatten() {
            self.add_key(&mut arguments, bound)?;
        }
        match sieve {
            // Rows bear its lower half.
            Some(Sieve::Since(position)) => add(&mut arguments, i64::from(*position as u32))?,
            Some(Sieve::Except(transactions)) => add(&mut arguments, parameters::transactions(transactions))?,
            None => {}
        }
        add(&mut arguments, i64::try_from(limits.rows).unwrap_or(i64::MAX))?;
        add(
            &mut arguments,
            i32::try_from(limits.value_bytes_max.min(PG_VALUE_BYTES_MAX)).unwrap_or(i32::MAX),
        )?;
        if wide {
            add(&mut arguments, i64::try_from(limits.bytes).unwrap_or(i64::MAX))?;
        }

        let survey = Arc::clone(&self.survey);
        let connection = live(&mut self.connection)?;
        let mut rows = sqlx::query_with(AssertSqlSafe(text), arguments).fetch(connection);
        // What is left of the answer when the byte cap ends the page early is read and dropped row by row by the driver.
        while let Some(row) = rows.try_next().await.map_err(store_error)? {
            rows::push(&survey, &row, page).map_err(store_error)?;
            rows::require_asked_for(page, limits)?;
            if page.byte_len() >= limits.bytes {
                self.width.learn(page.len(), limits.rows, true);
                return Ok(PageEnd::More);
            }
        }
        // The server counts fewer bytes than the page has, so that it never ends one that the page would go on with. Of rows that were
        // passed over nothing is learnt.
        if bounds.sifted.is_none() {
            self.width.learn(page.len(), limits.rows, false);
        }
        Ok(if page.len() < limits.rows {
            PageEnd::End
        } else {
            PageEnd::More
        })
    }

    /// Adds the parts of a stored key; a key of another shape is a damaged cursor.
    fn add_key(&self, arguments: &mut PgArguments, key: &Key) -> Result<(), StoreError> {
        let columns = &self.survey.key;
        let is_of = |(column, cell): (&Column, Cell<'_>)| types::is_of(column.class, cell);
        if key.cells().count() != columns.len() || !columns.iter().zip(key.cells()).all(is_of) {
            return Err(StoreError::State(
                "a stored cursor does not fit the table's key: the table changed, or the state is damaged".to_owned(),
            ));
        }
        let mut wire = Vec::new();
        for (column, cell) in columns.iter().zip(key.cells()) {
            wire.clear();
            types::push_wire(column, cell, &mut wire);
            add(
                arguments,
                BinaryScalar {
                    oid: column.type_oids.0,
                    bytes: Some(&wire),
                },
            )?;
        }
        Ok(())
    }

    async fn swap(&mut self, batch: &SetBatch<'_>, witness: Witness) -> Result<Written, StoreError> {
        self.tidy.choose(batch);
        let parts = Parts {
            fenced: batch.fence.is_some(),
            quarantines: batch.fence.is_some() && batch.wave.last && !batch.swaps.quarantined.is_empty(),
            ahead: batch.fence.is_some() && matches!(batch.follow, Follow::Later),
            only_whole: batch.fence.is_some() && matches!(batch.follow, Follow::Now { only_whole: true, .. }),
            tidies: !self.tidy.swaps().is_empty(),
        };
        let key = StatementKey::Swap {
            relation: batch.relation.to_owned(),
            witness: witness as u8,
            parts,
        };
        let text = self.text(key, |survey| statements::swap(survey, batch.relation, witness, parts));
        let arguments = parameters::swap(&self.survey, batch, self.tidy.swaps(), witness, parts)?;
        let swap = sqlx::query_with(AssertSqlSafe(text), arguments);
        let row = match batch.fence {
            // Rare: only sweeps meet late values, and few of them. Their record commits with the rows.
            Some(fence) if !batch.swaps.late.is_empty() => {
                let mut transaction = live(&mut self.connection)?.begin().await.map_err(store_error)?;
                let row = swap.fetch_one(&mut *transaction).await.map_err(store_error)?;
                if row.try_get::<i64, _>(MOVED).map_err(store_error)? > 0 {
                    late::record(&mut transaction, &fence.plan, batch.relation, &batch.swaps.late).await?;
                    transaction.commit().await.map_err(store_error)?;
                }
                row
            }
            _ => swap.fetch_one(live(&mut self.connection)?).await.map_err(store_error)?,
        };
        let count = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs).map_err(store_error);
        let (rows, values, moved) = (count(0)?, count(1)?, count(MOVED)?);
        if moved == 0 {
            return Err(StoreError::Superseded);
        }
        self.took = Some(Duration::from_micros(count(TOOK)?));
        self.transaction = Some(count(TRANSACTION)?);
        let sent = batch.wave.swaps.len() as u64;
        let lost_races = sent
            .checked_sub(rows)
            .filter(|_| values <= sent * self.survey.values.len() as u64);
        let lost_races = lost_races
            .ok_or_else(|| StoreError::Implausible(format!("{rows} rows written, with {values} values, of {sent} sent")))?;
        Ok(Written {
            rows,
            values,
            lost_races,
        })
    }
}

#[async_trait]
impl SetWriter for PostgresSession {
    async fn swap_and_advance(&mut self, batch: &SetBatch<'_>, witness: Witness) -> Result<Written, StoreError> {
        self.server.require_latest(self.met)?;
        let answer_max = self.server.answer_max();
        let answer = timeout(answer_max, self.swap(batch, witness)).await;
        answer.unwrap_or_else(|_| self.give_up())
    }

    fn took(&self) -> Option<Duration> {
        self.took
    }

    fn transaction(&self) -> Option<u64> {
        self.transaction
    }

    fn arrange(&mut self, page: &Page, swaps: &Swaps, waves: &mut Waves) {
        let indexed = |observation: &Observation| matches!(observation, Observation::IndexOnValue { .. });
        if self.survey.observations.iter().any(indexed) {
            // Every update writes index entries, wherever the row is.
            waves.whole(swaps);
        } else {
            tidy::arrange(page, swaps, waves);
        }
    }
}

/// The column of a swap's answer that says whether the range is still ours.
const MOVED: usize = 2;
/// The column of the microseconds that the server worked.
const TOOK: usize = 3;
/// The column of the transaction that it was.
const TRANSACTION: usize = 4;
/// PostgreSQL's own limit of a field.
const PG_VALUE_BYTES_MAX: u64 = 1 << 30;
