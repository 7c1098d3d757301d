//! Measures what scheduling costs and gains.
//!
//! Pipelines whose stages wait are compared with one of them; stages that compute, with the number of cores; 10,000
//! stages that do nothing, with the cost of keeping their results. The runner only waits, computes, or returns; the
//! store is a real one. Each line is a ratio within one run.

#![expect(clippy::print_stdout, reason = "it prints its lines")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use osbc_benches::{catalog, graph, host, lowered, text};
use osbc_compiler::passes::{self, Request, Retention};
use osbc_executor::event::{Event, Monitor};
use osbc_executor::fake::success;
use osbc_executor::machine::Host;
use osbc_executor::record::{About, ManifestName};
use osbc_executor::{Parts, Settings, run};
use osbc_ir::{CachedSet, NodeId, Value};
use osbc_sandbox::client::{StageIo, StageRunner};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::request::{StageReply, StageRequest};
use osbc_store::{CommitInfo, Layers, Limit, StepRecord, Store, StoreSettings, Transaction};
use serde_json::json;

/// How long a stage that waits waits, and one that computes does.
const LONG: Duration = Duration::from_millis(200);
/// How many of those a pipeline has.
const STAGES: usize = 5;
/// How many stages do nothing.
const MANY: usize = 10_000;
/// How often they are timed, and keeping their results alone, in turns.
const TURNS: usize = 7;

/// Does the same for each stage.
struct Each(fn());

impl StageRunner for Each {
    fn run(&self, _: &StageRequest, _: &StageIo<'_>) -> StageReply {
        self.0();
        success()
    }
}

struct Silent;

impl Monitor for Silent {
    fn event(&mut self, _: Duration, _: &Event<'_>) {}
}

fn main() {
    let wait = Each(|| std::thread::sleep(LONG));
    let one = build(&pipelines(1, STAGES), 8, &wait);
    let eight = build(&pipelines(8, STAGES), 8, &wait);
    println!("eight pipelines of stages that wait, -j 8: {:.2} times one of them", ratio(eight, one));

    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let compute = Each(|| {
        let until = cpu_time() + LONG;
        while cpu_time() < until {
            std::hint::spin_loop();
        }
    });
    let alone = build(&pipelines(1, STAGES), 1, &compute);
    let all = build(&pipelines(cores, STAGES), cores, &compute);
    println!(
        "stages that compute on {cores} cores, -j {cores}: {:.0} % of {cores} times what one core does",
        100.0 * ratio(alone, all)
    );

    println!("{MANY} stages that do nothing, each, one at a time:");
    for (name, count, stages) in [("independent", MANY, 1), ("in chains of 10", MANY / 10, 10)] {
        let manifest = pipelines(count, stages);
        let turns: Vec<_> = (0..TURNS).map(|_| (keep(&manifest), build(&manifest, 1, &Each(|| ())))).collect();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / MANY as f64;
        println!(
            "  {name:16} {:5.0} µs, keeping their results alone {:5.0} µs: {:5.0} µs to schedule, report and record",
            median(turns.iter().map(|(_, built)| each(*built))),
            median(turns.iter().map(|(kept, _)| each(*kept))),
            median(turns.iter().map(|(kept, built)| each(*built) - each(*kept)))
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How often `other` goes into `one`.
fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// The time that the calling thread has computed.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Independent pipelines of that many stages, all different.
fn pipelines(count: usize, stages: usize) -> String {
    let stage = |pipeline: usize, stage: usize| json!({"type": "org.osbuild.hostname", "options": {"hostname": format!("h-{pipeline}-{stage}")}});
    let pipelines: Vec<Value> = (0..count)
        .map(|pipeline| {
            let stages: Vec<Value> = (0..stages).map(|number| stage(pipeline, number)).collect();
            json!({"name": format!("p{pipeline}"), "stages": stages})
        })
        .collect();
    json!({"version": "2", "pipelines": pipelines}).to_string()
}

fn new_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreSettings { layers: Layers::Auto, limit: Limit::Unlimited };
    let store = Store::open(&directory.path().join("store"), settings).expect("a store");
    (directory, store)
}

/// How long building a manifest takes in a new store, from the plan to the end.
fn build(manifest: &str, jobs: usize, runner: &dyn StageRunner) -> Duration {
    let catalog = catalog();
    let graph = graph(lowered(&text(manifest), &catalog));
    let exports = passes::default_exports(&graph).expect("no names");
    let request = Request::Exports(exports);
    let (_directory, store) = new_store();
    let transaction =
        Transaction::begin(store.lease(&graph, std::iter::empty::<NodeId>()).expect("a lease")).expect("begins");
    let about = About { manifest: ManifestName::new("-".as_ref(), &graph), arguments: Vec::new() };
    let plan = passes::plan(graph, request, &CachedSet::default(), Retention::Every, &|_, _| None);
    let settings = Settings {
        jobs: NonZeroUsize::new(jobs).expect("some"),
        keep_going: false,
        jobserver: None,
        stage_timeout: None,
        in_vm: BTreeSet::new(),
        host_runner: host(),
        always_run: None,
        environment: Default::default(),
        host_environment: Default::default(),
    };
    let interrupt = Interrupt::new().expect("an eventfd");
    let parts = Parts {
        runner,
        catalog: &catalog,
        monitor: &mut Silent,
        machine: &Host { disk: store.path().to_owned() },
        interrupt: &interrupt,
        settings: &settings,
        about: &about,
    };
    let start = Instant::now();
    assert!(run(&plan, &transaction, parts).expect("the disk takes it").success());
    start.elapsed()
}

/// How long it takes to keep as many results, one after the other and with nothing else.
fn keep(manifest: &str) -> Duration {
    let graph = graph(lowered(&text(manifest), &catalog()));
    let (_directory, store) = new_store();
    let transaction =
        Transaction::begin(store.lease(&graph, std::iter::empty::<NodeId>()).expect("a lease")).expect("begins");
    let start = Instant::now();
    for nodes in &graph.pipelines {
        let mut base = None;
        for node in &nodes.stages {
            let id = graph.stage_node(*node).expect("a stage").id;
            let work = transaction.work(base).expect("a work");
            work.stack().and_then(|_| work.scratch()).expect("is prepared");
            let module = "org.osbuild.hostname".to_owned();
            let step = StepRecord { id, module, metadata: Value::Null, duration: Duration::ZERO };
            work.commit(CommitInfo { source_epoch: None, steps: vec![step] }).expect("is kept");
            base = Some(id);
        }
    }
    transaction.settle().expect("reaches the disk");
    start.elapsed()
}
