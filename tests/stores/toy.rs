//! A toy format, because stores know none: `o:x` is under the old key (`o:late…` appeared there late), `n:x` under the new one, `stop` makes the rewriter give up and
//! anything else does not open. And the loop around a store, in its simplest form.

use reseal::store::control::{Advance, Fence, Interval};
use reseal::store::page::{Late, Page, Quarantined, Shape, Swaps, Tally};
use reseal::store::survey::Survey;
use reseal::store::value::{Key, Kind};
use reseal::store::waves::Waves;
use reseal::store::{
    Follow, PageEnd, PageLimits, RewriteStopped, Rewriter, Session, SetBatch, Store, StoreError, Witness, Writer, Written,
};

/// Rewrites `o:` to `n:`.
pub struct Toy;

impl Rewriter for Toy {
    fn rewrite(&mut self, page: &Page, swaps: &mut Swaps) -> Result<(), RewriteStopped> {
        for row in 0..page.len() {
            swaps.tally.rows += 1;
            for column in 0..page.shape().values {
                let value = page.value(row, column);
                let mut unreadable = |reason: &str| {
                    swaps.tally.quarantined += 1;
                    swaps.quarantined.push(Quarantined {
                        key: page.owned_key(row),
                        column,
                        reason: reason.to_owned(),
                    });
                };
                match (value.kind, value.bytes) {
                    (Kind::Null, _) => swaps.tally.nulls += 1,
                    (Kind::Oversize, _) => unreadable("too large"),
                    (Kind::Text | Kind::Bytes, b"stop") => return Err(RewriteStopped),
                    (Kind::Text | Kind::Bytes, [b'n', b':', ..]) => swaps.tally.current += 1,
                    (Kind::Text | Kind::Bytes, [b'o', b':', payload @ ..]) => {
                        if payload.starts_with(b"late") {
                            let key = page.owned_key(row);
                            swaps.late.push(Late { key, column });
                        }
                        swaps.tally.due += 1;
                        let start = swaps.arena().len();
                        swaps.arena().extend_from_slice(b"n:");
                        swaps.arena().extend_from_slice(payload);
                        swaps.assign(row, column, start);
                    }
                    (Kind::Text | Kind::Bytes, _) => unreadable("not a toy value"),
                    _ => unreadable("not text or bytes"),
                }
            }
        }
        Ok(())
    }
}

/// What a batch did, whichever way the database takes new values.
#[derive(Debug)]
pub struct Batch {
    pub cursor: Option<Key>,
    pub end: PageEnd,
    pub written: Written,
    pub tally: Tally,
    pub quarantined: Vec<Quarantined>,
}

/// Limits by rows only.
pub fn rows(rows: usize) -> PageLimits {
    PageLimits {
        rows,
        bytes: 1 << 20,
        value_bytes_max: 1 << 20,
        stands_back: false,
    }
}

/// The whole table as one interval.
pub fn whole(survey: &Survey) -> Interval {
    Interval {
        relation: survey.relations[0].sql_name.clone(),
        after: None,
        upto: None,
    }
}

/// One batch. Between reading and swapping nothing happens, unless the database reads and swaps at once anyway.
pub async fn batch(
    session: &mut dyn Session,
    interval: &Interval,
    cursor: Option<&Key>,
    limits: PageLimits,
    fence: Option<&Fence>,
    advance: bool,
) -> Result<Batch, StoreError> {
    batch_after(session, interval, cursor, limits, fence, advance, async || {}).await
}

/// One batch; `meanwhile` runs when the rows have been read and not been written, or before an in-place batch.
pub async fn batch_after(
    session: &mut dyn Session,
    interval: &Interval,
    cursor: Option<&Key>,
    limits: PageLimits,
    fence: Option<&Fence>,
    advance: bool,
    meanwhile: impl AsyncFnOnce(),
) -> Result<Batch, StoreError> {
    if let Writer::InPlace(writer) = session.writer() {
        meanwhile().await;
        let (_, swaps, done) = writer
            .rewrite_and_advance(interval, cursor, limits, Box::new(Toy), fence, advance)
            .await;
        let done = done?;
        return Ok(Batch {
            cursor: done.cursor,
            end: done.end,
            written: done.written,
            tally: swaps.tally,
            quarantined: swaps.quarantined.clone(),
        });
    }
    let mut page = Page::new(session.shape());
    let mut swaps = Swaps::new(session.shape().values);
    let end = session.page(interval, cursor, limits, &mut page).await?;
    meanwhile().await;
    Toy.rewrite(&page, &mut swaps)
        .map_err(|RewriteStopped| StoreError::Rewriter)?;
    let last = (!page.is_empty()).then(|| page.owned_key(page.len() - 1));
    let moved = Advance {
        cursor: last.clone(),
        done: end == PageEnd::End,
    };
    let Writer::Set(writer) = session.writer() else {
        panic!("a session takes new values in one way only");
    };
    let mut waves = Waves::default();
    writer.arrange(&page, &swaps, &mut waves);
    let mut written = Written::default();
    for wave in waves.iter() {
        let set = SetBatch {
            relation: &interval.relation,
            page: &page,
            swaps: &swaps,
            wave,
            fence,
            follow: match (advance, wave.last) {
                (false, _) => Follow::Stays,
                (true, false) => Follow::Later,
                (true, true) => Follow::Now {
                    advance: &moved,
                    ahead: written.values,
                    only_whole: false,
                },
            },
        };
        written += writer.swap_and_advance(&set, Witness::Version).await?;
    }
    Ok(Batch {
        cursor: last,
        end,
        written,
        tally: swaps.tally,
        quarantined: swaps.quarantined.clone(),
    })
}

/// Batches of `rows` from the beginning of the interval to its end.
pub async fn rotate(session: &mut dyn Session, interval: &Interval, limits: PageLimits) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut cursor = None;
    for _ in 0..BATCHES_MAX {
        let batch = batch(session, interval, cursor.as_ref(), limits, None, false).await.unwrap();
        let end = batch.end;
        cursor = batch.cursor.clone().or(cursor);
        batches.push(batch);
        if end == PageEnd::End {
            return batches;
        }
    }
    panic!("the interval does not end");
}

/// Every row's first context column, in the order of the pages. Pages that are only looked at have the same rows.
pub async fn read_numbers(session: &mut dyn Session, interval: &Interval, limits: PageLimits) -> Vec<i64> {
    let mut page = Page::new(session.shape());
    let mut looked_at = Page::to_look_at(session.shape());
    let mut numbers = Vec::new();
    let mut cursor = None;
    for _ in 0..BATCHES_MAX {
        let end = session.page(interval, cursor.as_ref(), limits, &mut page).await.unwrap();
        assert!(page.len() <= limits.rows);
        let same_end = session.page(interval, cursor.as_ref(), limits, &mut looked_at).await.unwrap();
        assert_eq!((same_end, cells(&looked_at)), (end, cells(&page)));
        numbers.extend((0..page.len()).map(|row| page.context(row, 0).as_int().unwrap()));
        if end == PageEnd::End {
            return numbers;
        }
        cursor = Some(page.owned_key(page.len() - 1));
    }
    panic!("the interval does not end");
}

/// Everything in a page but the versions of its rows.
fn cells(page: &Page) -> Vec<(Kind, Vec<u8>)> {
    let Shape { keys, contexts, values } = page.shape();
    let of_row = |row| {
        let keys = (0..keys).map(move |at| page.key(row, at));
        let contexts = (0..contexts).map(move |at| page.context(row, at));
        keys.chain(contexts).chain((0..values).map(move |at| page.value(row, at)))
    };
    (0..page.len())
        .flat_map(of_row)
        .map(|cell| (cell.kind, cell.bytes.to_vec()))
        .collect()
}

/// A session on a surveyed table.
pub async fn session(store: &dyn Store, target: &reseal::store::survey::Target) -> (Survey, Box<dyn Session>) {
    let survey = store.survey(target).await.unwrap();
    let session = store.session(&survey).await.unwrap();
    (survey, session)
}

/// Far more than any test needs.
const BATCHES_MAX: usize = 10_000;
