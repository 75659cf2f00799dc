//! What operators ask of rotations, and what runs say of themselves.

use reseal::store::Control;
use reseal::store::control::PlanStatus;
use reseal::store::ledger::request::{Asked, Order, Requests, Subject};
use reseal::store::ledger::rotation::{Change, Rotations};
use reseal::store::ledger::running::Runs;

use super::fencing::identity;
use super::ledger::{control, rotation};
use crate::stores::fixture::Fixture;

fn order(order: Option<Order>) -> Asked {
    Asked {
        order: Some(order),
        speed: None,
    }
}

fn speed(rows: Option<u64>, profile: Option<&str>) -> Asked {
    Asked {
        order: None,
        speed: Some((rows, profile.map(str::to_owned))),
    }
}

pub async fn what_is_asked_stands_beside_what_was_asked_before(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let mut requests = Requests::of(&mut *control);
    let (plan, keyset) = (Subject::Plan("x".to_owned()), Subject::Keyset("x".to_owned()));
    assert_eq!(requests.of_subject(&plan).await.unwrap(), None);
    let asked = requests.ask(&plan, &order(Some(Order::Pause)), "ada@host").await.unwrap();
    assert_eq!((asked.order, asked.by.as_str()), (Some(Order::Pause), "ada@host"));
    assert!(asked.at.contains('T') && asked.at.ends_with('Z'), "{}", asked.at);
    let limited = speed(Some(70), Some("gentle"));
    let asked = requests.ask(&plan, &limited, "bob@host").await.unwrap();
    assert_eq!(
        (
            asked.order,
            asked.rows_per_second,
            asked.profile.as_deref(),
            asked.by.as_str()
        ),
        (Some(Order::Pause), Some(70), Some("gentle"), "bob@host")
    );
    let asked = requests.ask(&plan, &speed(Some(u64::MAX), None), "bob@host").await.unwrap();
    assert_eq!(
        (asked.order, asked.rows_per_second, asked.profile),
        (Some(Order::Pause), Some(i64::MAX.unsigned_abs()), None),
        "a limit and a profile replace both"
    );
    // A keyset of the same name as a plan is another matter.
    assert_eq!(requests.of_subject(&keyset).await.unwrap(), None);
    requests.ask(&keyset, &order(Some(Order::Abort)), "cy@host").await.unwrap();
    // A pause is not obeyed by ending, and an order to end only once.
    requests.obeyed(&plan).await.unwrap();
    requests.obeyed(&keyset).await.unwrap();
    let left = requests.list().await.unwrap();
    assert_eq!(left.len(), 1, "what asks nothing any more is not listed");
    assert_eq!((&left[0].subject, left[0].order), (&plan, Some(Order::Pause)));
    requests.ask(&plan, &order(None), "ada@host").await.unwrap();
    requests.ask(&plan, &speed(None, None), "ada@host").await.unwrap();
    assert!(requests.list().await.unwrap().is_empty());
}

async fn says(control: &mut dyn Control) -> Vec<(Subject, String, Vec<String>)> {
    let runs = Runs::of(control).list().await.unwrap();
    runs.into_iter().map(|run| (run.subject, run.owner, run.waits_for)).collect()
}

pub async fn a_rotation_runs_while_it_is_unfinished_and_heard(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let (plan, keyset) = (Subject::Plan("p".to_owned()), Subject::Keyset("customer-data".to_owned()));
    for subject in [&plan, &keyset] {
        Runs::of(&mut *control).report(subject, "ada@host", &[]).await.unwrap();
    }
    assert_eq!(says(&mut *control).await, [], "nobody runs what is not there");

    let claimed = control.claim_plan(&identity("p"), "ada@host").await.unwrap();
    let record = Rotations::of(&mut *control)
        .begin(&rotation("r1", "customer-data"))
        .await
        .unwrap()
        .unwrap();
    let waits = ["a replica lags".to_owned(), "paused by bob".to_owned()];
    Runs::of(&mut *control).report(&plan, "ada@host", &waits).await.unwrap();
    Runs::of(&mut *control).report(&keyset, "ada@host", &[]).await.unwrap();
    let run = |subject: &Subject, owner: &str, waits: &[String]| (subject.clone(), owner.to_owned(), waits.to_vec());
    let (plan_runs, keyset_runs) = (run(&plan, "ada@host", &waits), run(&keyset, "ada@host", &[]));
    assert_eq!(says(&mut *control).await, [keyset_runs.clone(), plan_runs]);
    // The word of whoever took it over is not taken back by the one who lost it.
    Runs::of(&mut *control).report(&plan, "bob@host", &[]).await.unwrap();
    Runs::of(&mut *control).end(&plan, "ada@host").await.unwrap();
    assert_eq!(says(&mut *control).await, [keyset_runs.clone(), run(&plan, "bob@host", &[])]);
    Runs::of(&mut *control).end(&plan, "bob@host").await.unwrap();
    assert_eq!(says(&mut *control).await, [keyset_runs]);

    // Who is silent was killed.
    let silent = format!(
        "UPDATE {} SET heard_at = '2020-01-01T00:00:00.000Z'",
        fixture.control_table("run")
    );
    fixture.execute(&silent).await;
    assert_eq!(says(&mut *control).await, []);

    // What is finished does not run, whoever says so.
    control.set_status(&claimed, PlanStatus::Verified).await.unwrap();
    let end = Change {
        is_end: true,
        ..Change::default()
    };
    Rotations::of(&mut *control).change(&record, &end).await.unwrap();
    for subject in [&plan, &keyset] {
        Runs::of(&mut *control).report(subject, "ada@host", &[]).await.unwrap();
    }
    assert_eq!(says(&mut *control).await, []);
}
