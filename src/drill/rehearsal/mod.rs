//! The script: what happens after what, with the gates between.

mod rollout;
mod rotating;
pub(super) mod timeline;

use std::fs;
use std::time::{Duration, Instant};

use crate::drill::checker::{Checker, Checking};
use crate::drill::clock::now;
use crate::drill::faults::FaultKind;
use crate::drill::fleet::Fleet;
use crate::drill::inspect::{Inspection, inspect};
use crate::drill::logins::{LoginPlace, LoginReport, Logins};
use crate::drill::model::Deviation;
use crate::drill::nemesis::Nemesis;
use crate::drill::operator::Operator;
use crate::drill::probe::{ProbeReport, Probes};
use crate::drill::proxy::Proxy;
use crate::drill::report::{LatencyReport, Phase, RatioReport, Report, seconds};
use crate::drill::room::or_no_room;
use crate::drill::sabotage::Sabotage;
use crate::drill::stage::Stage;
use crate::drill::table::Place;
use crate::drill::tally::Tally;
use crate::drill::verdict::{Finding, Verdict, judge, judge_logins, judge_probes, lost_writes, total};
use crate::drill::watch::Watch;
use crate::drill::{Cancel, DrillError, Settings};
use crate::key::KeyId;

/// Rehearses a rotation; `say` is told, for people, what is going on. Nothing is left behind unless the settings or the verdict say so.
pub fn run(settings: &Settings, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> Result<Report, DrillError> {
    let mut settings = settings.clone();
    settings.sabotage = settings.sabotage.filter(|_| Sabotage::IS_POSSIBLE);
    let settings = &settings;
    let mut script = Script {
        settings,
        cancel,
        say,
        begun: Instant::now(),
        origin: now(),
        phases: Vec::new(),
        findings: Vec::new(),
        rows_per_second: 0.0,
        new: None,
    };
    let mut stage = Stage::build(&settings.program, settings.postgres.as_deref()).map_err(or_no_room)?;
    let mut report = script.rehearse(&stage).map_err(or_no_room)?;
    if report.verdict == Verdict::Bad || settings.keep {
        report.evidence_schema = stage.keep();
        report.evidence = Some(stage.folder().to_owned());
        fs::write(stage.folder().join("incidents.txt"), report.incidents.join("\n")).map_err(DrillError::Stage)?;
    }
    if !stage.leave() {
        (script.say)(&format!(
            "warning: not everything could be removed: see {}",
            stage.folder().display()
        ));
    }
    report.elapsed_seconds = seconds(script.begun.elapsed());
    Ok(report)
}

struct Script<'a> {
    settings: &'a Settings,
    cancel: &'a Cancel,
    say: &'a mut dyn FnMut(&str),
    begun: Instant,
    origin: u64,
    phases: Vec<Phase>,
    findings: Vec<Finding>,
    rows_per_second: f64,
    /// The new key, from the moment that it exists.
    new: Option<KeyId>,
}

/// What the rotation is played with.
struct Scene<'a, 'p> {
    stage: &'a Stage,
    fleet: Fleet<'a>,
    operator: Operator<'a>,
    nemesis: Nemesis<'p>,
    checking: &'a Checking,
    logins: Logins,
    login_place: &'a LoginPlace,
}

impl Script<'_> {
    fn rehearse(&mut self, stage: &Stage) -> Result<Report, DrillError> {
        let settings = self.settings;
        let proxy = self.proxy(stage)?;
        let place = through(stage.place(), proxy.as_ref())?;
        let mut watch = Watch::new(stage)?;
        watch.position()?;
        let login_place = self.login_place(stage);
        let is_forgotten = settings.sabotage == Some(Sabotage::SessionsForgotten);
        stage.configure(Some(&login_place).filter(|_| !is_forgotten))?;
        let mut operator = Operator::new(&settings.program, stage, &place, settings.redis.as_deref());
        let mut checker = Checker::new(self.origin)?;
        let census = self.phase("prepare", |script| {
            operator.make_keyring(script.cancel)?;
            stage.fill(i64::from(settings.rows), settings.seed, &mut checker.model)?;
            inspect(stage, &checker.model, now())
        })?;
        let (old, first) = stage.keyset(|keyset| (keyset.primary().id(), keyset.revision()))?;
        let mut checking = Checking::start(checker).map_err(DrillError::Stage)?;
        let mut fleet = Fleet::start(stage, settings, place.clone(), &checking)?;
        let instances = fleet.len();
        let missing = fleet.wait_for(first, STARTED_WITHIN, self.cancel)?;
        if !missing.is_empty() {
            return Err(DrillError::InstanceDied(missing.join(", "), "it does not start".to_owned()));
        }
        let logins = Logins::start(&login_place, stage.place(), &stage.role("logins"), settings.seed)?;
        let probes = Probes::start(&settings.probes, &settings.hidden_variables, &settings.program, self.origin)
            .map_err(DrillError::Stage)?;
        let nemesis = Nemesis::plan(&settings.faults, &fleet, proxy.as_ref(), settings.seed, self.origin);
        let mut scene = Scene {
            stage,
            fleet,
            operator,
            nemesis,
            checking: &checking,
            logins,
            login_place: &login_place,
        };
        checking.checker().tally.traffic_begins(now(), settings.duration / 2);
        self.phase("before", |script| script.traffic(settings.duration / 2, &mut scene))?;
        checking.checker().tally.rotation_begins(now());
        self.add_laggard(&mut scene, first)?;
        self.rotate(&mut scene, &mut watch, old, instances)?;
        checking.checker().tally.rotation_ends(now());
        self.phase("after", |script| script.traffic(settings.duration / 2, &mut scene))?;
        let Scene {
            fleet, nemesis, logins, ..
        } = scene;
        let sessions = logins.finish()?;
        let end = self.phase("check", |_| {
            fleet.finish()?;
            inspect(stage, &checking.checker().model, now())
        })?;
        let probes = probes.finish();
        checking.stop().map_err(DrillError::Stage)?;
        let checker = checking.checker();
        let faults = nemesis.done();
        if checker.tally.interrupted > 0 && proxy.is_none() {
            self.findings.push(Finding::new(
                "connections-lost",
                format!(
                    "{} times a connection was lost that nobody had cut",
                    checker.tally.interrupted
                ),
            ));
        }
        self.findings
            .extend(judge_logins(&sessions, settings.compromised, &settings.thresholds));
        let mut report = self.report(&checker.tally, &census, &end, old, (instances, probes, sessions));
        report.faults = faults;
        Ok(report)
    }

    fn login_place(&self, stage: &Stage) -> LoginPlace {
        match &self.settings.redis {
            None => LoginPlace::Table,
            Some(url) => LoginPlace::Redis {
                url: url.clone(),
                prefix: format!("{}:session:", stage.keyset_name()),
            },
        }
    }

    /// The way to the server that can be cut, if it is to be.
    fn proxy(&self, stage: &Stage) -> Result<Option<Proxy>, DrillError> {
        if !self.settings.faults.contains(FaultKind::Cut) {
            return Ok(None);
        }
        if !stage.place().is_postgres() {
            return Err(DrillError::NothingToCut);
        }
        let proxy = Proxy::before(&stage.place().url).map_err(DrillError::Stage)?;
        proxy.ok_or(DrillError::NothingToCut).map(Some)
    }

    fn phase<T>(&mut self, name: &'static str, act: impl FnOnce(&mut Self) -> Result<T, DrillError>) -> Result<T, DrillError> {
        self.cancel.check()?;
        (self.say)(name);
        let begun = Instant::now();
        let began = now();
        let done = act(self);
        self.phases.push(Phase {
            name,
            at_seconds: seconds(Duration::from_nanos(began - self.origin)),
            seconds: seconds(begun.elapsed()),
        });
        done
    }

    /// Lets the application work for a while.
    fn traffic(&mut self, time: Duration, scene: &mut Scene<'_, '_>) -> Result<(), DrillError> {
        let begun = Instant::now();
        while let Some(left) = time.checked_sub(begun.elapsed()) {
            scene.fleet.check()?;
            if self.is_out_of_time() {
                break;
            }
            self.cancel.sleep(left.min(LOOK_AT_TRAFFIC_EVERY))?;
        }
        Ok(())
    }

    fn is_out_of_time(&self) -> bool {
        self.time_left().is_zero()
    }

    fn time_left(&self) -> Duration {
        let max = self.settings.thresholds.duration_max.unwrap_or(Duration::MAX);
        max.saturating_sub(self.begun.elapsed())
    }

    fn report(
        &mut self,
        tally: &Tally,
        before: &Inspection,
        end: &Inspection,
        old: KeyId,
        (instances, probes, sessions): (usize, Vec<ProbeReport>, LoginReport),
    ) -> Report {
        let mut findings = std::mem::take(&mut self.findings);
        findings.extend(judge(tally, end, old, &self.settings.thresholds));
        findings.extend(judge_probes(&probes));
        if self.is_out_of_time() {
            let max = self.settings.thresholds.duration_max.unwrap_or_default();
            findings.push(Finding::new(
                "too-long",
                format!("the drill took longer than the {} s that it may", max.as_secs_f64()),
            ));
        }
        let verdict = if findings.is_empty() { Verdict::Good } else { Verdict::Bad };
        let (reads, writes) = (tally.read_latencies.windows(), tally.write_latencies.windows());
        Report {
            database: if self.settings.postgres.is_some() {
                "postgres"
            } else {
                "sqlite"
            },
            reads: tally.reads,
            writes: tally.writes,
            failed_reads: total(&tally.failed_reads),
            failed_writes: total(&tally.failed_writes),
            lost_writes: lost_writes(end),
            resurrected_rows: end.deviating(Deviation::Resurrected),
            wrong_values: end.deviating(Deviation::Wrong),
            values_under_old_key: end.under(old),
            unreadable_values: end.unreadable,
            interrupted_operations: tally.interrupted,
            unconfirmed_writes_done: tally.settled[0],
            unconfirmed_writes_undone: tally.settled[1],
            rows_checked: tally.rows_checked,
            instances,
            rows_before: before.rows,
            rows_after: end.rows,
            old_key: old.0,
            new_key: self.new.map(|id| id.0),
            census_before: before.per_key.clone(),
            census_after: end.per_key.clone(),
            rows_per_second: self.rows_per_second,
            phases: std::mem::take(&mut self.phases),
            latency_ms: LatencyReport { reads, writes },
            p99_ratio: RatioReport {
                reads: reads.p99_ratio(),
                writes: writes.p99_ratio(),
            },
            series: tally.series.points(),
            series_bucket_seconds: tally.series.bucket_seconds(),
            probes,
            faults: Vec::new(),
            seed: self.settings.seed,
            verdict,
            findings,
            incidents: (tally.incidents.iter())
                .chain(&end.incidents)
                .chain(&sessions.incidents)
                .cloned()
                .collect(),
            compromised: self.settings.compromised,
            profile: self.settings.profile.as_str(),
            sessions,
            evidence: None,
            evidence_schema: None,
            elapsed_seconds: seconds(self.begun.elapsed()),
        }
    }
}

/// The table, as instances and operator reach it.
fn through(place: &Place, proxy: Option<&Proxy>) -> Result<Place, DrillError> {
    let mut place = place.clone();
    if let Some(proxy) = proxy {
        place.url = proxy.url(&place.url).ok_or(DrillError::NothingToCut)?;
    }
    Ok(place)
}

/// A process, its keyring and its connection.
const STARTED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AT_TRAFFIC_EVERY: Duration = Duration::from_millis(100);
