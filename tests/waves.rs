//! PostgreSQL writes a page in several transactions, so that what the first of them leaves makes room for the rows of the next. Each of
//! them may be the last of a run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use reseal::rotation::{Options, RotationError, RotationReport};
use reseal::store::page::Swaps;
use reseal::store::waves::Waves;
use reseal::store::{Store, StoreError};
use support::faulty::{Faulty, Order, What, When};
use support::people::{FernetKey, Home, Live, Person};
use support::rotation::Rotation;
use support::storm::Storm;

/// Pages of several waves each.
const PAGE: usize = 800;
const PEOPLE: i64 = 2_000;

struct Scene<'a> {
    home: &'a Home,
    old: Arc<FernetKey>,
    new: Arc<FernetKey>,
    values: u64,
    /// Nobody writes: the ledger only remembers.
    still: Storm,
    live: Live,
}

impl<'a> Scene<'a> {
    fn new(home: &'a Home) -> Self {
        let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
        let people = home.fill(PEOPLE, &old);
        Self {
            home,
            values: people.iter().map(|(_, person): &(i64, Person)| person.values()).sum(),
            still: Storm::start(home, people, (&old, &new), 0, 0),
            live: home.connect(),
            old,
            new,
        }
    }

    fn rotate(&self, store: &Arc<dyn Store>, rows: usize) -> Result<RotationReport, RotationError> {
        let options = Options {
            batch_rows: Some(rows),
            ..Options::default()
        };
        Rotation::new(self.home, &self.old, &self.new).here_with(store, options)
    }

    /// Every value says what it did, and as many of them as the counters say are under the new key. At most one page is ahead of the
    /// cursor.
    fn assert_at_most_a_page_ahead(&mut self) {
        let (audit, snapshot) = self.still.audit(&mut self.live);
        let totals = snapshot.totals.unwrap_or_default();
        assert_eq!(totals.values_reencrypted, audit.under_new, "{audit:?}");
        assert_eq!(totals.rows_reencrypted, audit.rows_under_new, "{audit:?}");
        let ahead = audit.rows_under_new - totals.rows_scanned;
        assert!(ahead < PAGE as u64, "{ahead} rows are ahead: {audit:?}");
    }

    fn assert_complete(&mut self, report: &RotationReport) {
        assert!(report.verified);
        let counters = &report.counters;
        assert_eq!(counters.values_reencrypted, self.values);
        assert_eq!(counters.rows_scanned, PEOPLE as u64);
        assert_eq!(counters.values_already_current, 0);
        assert_eq!(counters.lost_races, 0);
        let (audit, _) = self.still.audit(&mut self.live);
        assert_eq!((audit.under_old, audit.under_new), (0, self.values));
    }

    /// Updates of people, those among them that wrote no index entry, and blocks of the table.
    async fn writing(&self) -> (i64, i64, i64) {
        let pool = self.home.database().unwrap().pool(1);
        sqlx::query_as(
            "SELECT pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid), pg_relation_size(c.oid) / 8192
               FROM pg_class c, pg_stat_force_next_flush() WHERE c.relname = 'people'",
        )
        .fetch_one(&pool)
        .await
        .unwrap()
    }
}

#[test]
fn heavy_most_rows_find_room_where_they_stood() {
    // Transactions of others, of whatever database, keep what they may still see.
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut scene = Scene::new(&home);
    let (updated_before, _, blocks_before) = runtime.block_on(scene.writing());
    let report = scene.rotate(&home.store(), PAGE).unwrap();
    scene.assert_complete(&report);
    // The counters of a session reach the view when it ends, or a second later.
    let mut writing = runtime.block_on(scene.writing());
    for _ in 0..100 {
        if writing.0 - updated_before >= PEOPLE {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        writing = runtime.block_on(scene.writing());
    }
    let (updated, hot, blocks) = (writing.0 - updated_before, writing.1, writing.2);
    assert_eq!(updated, PEOPLE);
    assert!(hot * 2 > updated, "only {hot} of {updated} updates stayed on their block");
    assert!(
        blocks * 2 < blocks_before * 3,
        "the table grew from {blocks_before} to {blocks} blocks"
    );
}

#[test]
fn every_wave_may_be_the_last_of_a_run() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home);
    let mut runs = 0;
    let report = loop {
        runs += 1;
        assert!(runs < 100, "no progress");
        // Ever later waves of a page end a run: not done, or done with their reply lost.
        let (last, when) = (runs / 2 % 7 + 1, if runs % 2 == 0 { When::After } else { When::Before });
        let order: Order = Arc::new(move |number| (number == last).then_some((when, What::Full)));
        let faulty: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
        match scene.rotate(&faulty, PAGE) {
            Ok(report) => break report,
            Err(RotationError::Store {
                cause: StoreError::Storage { .. },
                ..
            }) => scene.assert_at_most_a_page_ahead(),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(runs >= 6, "only {runs} runs");
    scene.assert_complete(&report);
}

#[test]
fn replies_to_waves_are_lost() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home);
    let order: Order = Arc::new(|number| match number % 5 {
        2 => Some((When::After, What::Lost)),
        4 => Some((When::Before, What::Lost)),
        _ => None,
    });
    let faulty = Arc::new(Faulty::new(home.store(), order));
    let report = scene.rotate(&(Arc::clone(&faulty) as Arc<dyn Store>), PAGE).unwrap();
    assert!(faulty.failed(When::Before) >= 2 && faulty.failed(When::After) >= 2);
    scene.assert_complete(&report);
}

proptest::proptest! {
    #[test]
    fn waves_are_a_partition_in_order(waves in 1usize..9, of in proptest::collection::vec(0usize..9, 0..300)) {
        let mut swaps = Swaps::new(1);
        for row in 0..of.len() {
            let start = swaps.byte_len();
            swaps.arena().push(0);
            swaps.assign(row, 0, start);
        }
        let mut arranged = Waves::default();
        arranged.whole(&swaps);
        arranged.arrange(&swaps, waves, |swap| of[swap]);
        let all: Vec<_> = arranged.iter().collect();
        assert!(!all.is_empty());
        assert!(all.len() == 1 || all.iter().all(|wave| !wave.swaps.is_empty()));
        for (at, wave) in all.iter().enumerate() {
            assert_eq!((wave.first, wave.last), (at == 0, at + 1 == all.len()));
            assert!(wave.swaps.is_sorted());
            let takes: Vec<usize> = wave.swaps.iter().map(|&swap| of[swap as usize].min(waves - 1)).collect();
            assert!(takes.windows(2).all(|pair| pair[0] == pair[1]));
        }
        let mut taken: Vec<u32> = all.iter().flat_map(|wave| wave.swaps.iter().copied()).collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..of.len() as u32));
    }
}
