//! A rotation that was led back, with its keys exchanged, while it was under way: that is another plan of the same table.

use rustix::process::Signal;

use crate::support::people::Home;
use crate::support::rotation::{Rotation, SLOWLY};
use crate::{PEOPLE, Scene, stop_between_batches};

impl Scene {
    fn rotation_back<'a>(&'a self, home: &'a Home) -> Rotation<'a> {
        Rotation::new(home, &self.new, &self.old)
    }
}

#[test]
fn heavy_a_frozen_run_that_was_led_back_cannot_write_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    wake_after_the_way_back(&home);
}

#[test]
fn heavy_a_frozen_run_that_was_led_back_cannot_write_on_sqlite() {
    wake_after_the_way_back(&Home::sqlite("wal"));
}

fn wake_after_the_way_back(home: &Home) {
    let mut scene = Scene::new(home, PEOPLE);
    let first = scene.rotation(home).start_and_get_going(SLOWLY);
    stop_between_batches(&first, &mut scene.live);
    scene.rotation_back(home).complete(&["--take-over"]);
    let before = (scene.live.snapshot().rows, scene.live.control());
    first.signal(Signal::CONT);
    let first = first.wait();
    assert!(scene.live.snapshot().rows == before.0, "a stale run has written rows");
    assert_eq!(scene.live.control(), before.1, "a stale run has moved a cursor");
    assert_eq!(first.code, Some(6), "{}", first.text());
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert_eq!((audit.under_old, audit.under_new), (scene.values, 0));
}

#[test]
fn a_take_over_fences_off_every_plan_even_where_nothing_is_to_be_done() {
    let home = Home::sqlite("wal");
    let scene = Scene::new(&home, 60);
    let generations = || -> Vec<i64> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let plans = runtime.block_on(async { home.store().control().await?.plans().await });
        plans.unwrap().iter().map(|plan| plan.generation).collect()
    };
    scene.rotation(&home).complete(&[]);
    scene.rotation_back(&home).complete(&[]);
    let before = generations();
    scene.rotation_back(&home).complete(&[]);
    assert_eq!(generations(), before, "what is verified again is not claimed");
    scene.rotation_back(&home).complete(&["--take-over"]);
    let raised: Vec<i64> = before.iter().map(|generation| generation + 1).collect();
    assert_eq!(generations(), raised);
}

#[test]
fn heavy_a_rotation_that_was_led_back_begins_afresh_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    forth_back_and_forth(&home);
}

#[test]
fn heavy_a_rotation_that_was_led_back_begins_afresh_on_sqlite() {
    forth_back_and_forth(&Home::sqlite("delete"));
}

fn forth_back_and_forth(home: &Home) {
    let mut scene = Scene::new(home, PEOPLE);
    let first = scene.rotation(home).start_and_get_going(SLOWLY);
    first.signal(Signal::INT);
    assert_eq!(first.wait().code, Some(5));
    scene.rotation_back(home).complete(&[]);
    let last = scene.rotation(home).complete(&[]);
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert_eq!((audit.under_old, audit.under_new), (0, scene.values));
    assert_eq!(last.count("late_values_total"), 0, "nobody is accused of what was led back");
}

/// It was this program that moved the values back: after a compromise, too, they are no forgeries.
#[test]
fn heavy_a_verified_rotation_that_was_led_back_begins_afresh_when_the_old_key_has_leaked() {
    for home in [Some(Home::sqlite("wal")), Home::postgres()].into_iter().flatten() {
        let mut scene = Scene::new(&home, 60);
        scene.rotation(&home).complete(&[]);
        scene.rotation_back(&home).complete(&[]);
        let last = scene.rotation(&home).complete(&["--compromised"]);
        let (audit, _) = scene.still.audit(&mut scene.live);
        assert_eq!((audit.under_old, audit.under_new), (0, scene.values));
        assert_eq!(last.count("late_values_total"), 0, "nobody is accused of what was led back");
    }
}

#[test]
fn a_run_does_not_sweep_under_the_epoch_of_another_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    sweep_after_a_claim(
        &home,
        "CREATE FUNCTION claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {claim} RETURN NULL; END $$;
         CREATE TRIGGER claim AFTER UPDATE ON reseal.plan FOR EACH ROW
           WHEN (OLD.status = 'running' AND NEW.status = 'swept') EXECUTE FUNCTION claim()",
    );
}

#[test]
fn a_run_does_not_sweep_under_the_epoch_of_another_on_sqlite() {
    sweep_after_a_claim(
        &Home::sqlite("wal"),
        "CREATE TRIGGER claim AFTER UPDATE ON reseal_plan WHEN OLD.status = 'running' AND NEW.status = 'swept' BEGIN {claim} END",
    );
}

/// The plan is claimed when its ranges are done: no batch is under way that could be refused.
fn sweep_after_a_claim(home: &Home, trigger: &str) {
    let mut scene = Scene::new(home, 120);
    let before = scene.live.snapshot().rows.swap_remove(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(async { home.store().control().await?.migrate().await })
        .unwrap();
    let mut claim = format!(
        "UPDATE reseal.plan SET generation = generation + 1;
         UPDATE reseal.range SET epoch = epoch + 1;
         UPDATE people SET email = '{}' WHERE id = {};",
        before.email, before.id
    );
    if home.database().is_none() {
        claim = claim.replace("reseal.", "reseal_");
    }
    scene.live.execute(&trigger.replace("{claim}", &claim));
    let stale = scene.rotation(home).run(&[]);
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert_eq!(audit.under_old, 1, "a stale run has written a row");
    assert_eq!(stale.code, Some(6), "{}", stale.text());
}
