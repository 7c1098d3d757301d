//! Builds through the library alone. Their stages run in processes of this very program, so it brings its own harness.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use osbc_engine::{
    BuildOptions, Built, Environment, Event, Interrupt, Monitor, Request, Session, SessionConfig, Silent, SourceText,
    StoreConfig, Warning, builtin, child_main, exports,
};
use osbc_fixtures::has_root;
use osbc_ir::Graph;
use serde_json::json;

const TESTS: &[(&str, fn())] = &[
    ("a_second_build_has_nothing_to_do", a_second_build_has_nothing_to_do),
    ("what_was_damaged_is_a_warning_and_made_anew", what_was_damaged_is_a_warning_and_made_anew),
    ("a_stage_that_always_runs_does_so_with_its_result_there", a_stage_that_always_runs_does_so_with_its_result_there),
    ("results_are_exported_during_and_after_a_build", results_are_exported_during_and_after_a_build),
    ("a_raised_interrupt_ends_a_build", a_raised_interrupt_ends_a_build),
];

fn main() -> ExitCode {
    if let Some(code) = child_main(std::env::args_os()) {
        return code;
    }
    if !has_root() {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            say(name);
            test();
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "a harness says what it runs")]
fn say(name: &str) {
    println!("test builds::{name}");
}

fn session() -> Session {
    Session::open(SessionConfig { libraries: vec![builtin()], environment: Environment::default() }).expect("opens")
}

/// The graph of a pipeline `tree` that makes the directories `/a` and `/b`, each in a stage.
fn graph(session: &Session) -> Arc<Graph> {
    let stage = |path: &str| json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}});
    let manifest = json!({"version": "2", "pipelines": [{"name": "tree", "stages": [stage("/a"), stage("/b")]}]});
    let text = SourceText::from_bytes("manifest.json", manifest.to_string().into_bytes()).expect("text");
    session.compile(&text).expect("a manifest")
}

/// How many stages began.
#[derive(Default)]
struct Begun(usize);

impl Monitor for Begun {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        self.0 += usize::from(matches!(event, Event::StageStarted { .. }));
    }
}

/// Builds, and returns how many stages began.
fn build(session: &Session, store: &Path, request: &Request, options: &BuildOptions<'_>) -> (Built, usize) {
    let planned = session.plan(&graph(session), &StoreConfig::own(store), request).expect("a plan");
    assert_eq!(planned.warnings(), []);
    planned.check_machine(&BTreeSet::new()).expect("it has all");
    let mut begun = Begun::default();
    let built = planned.run(options, &mut begun, &Interrupt::new().expect("one")).expect("it runs");
    assert!(built.outcome.success());
    (built, begun.0)
}

fn results(session: &Session) -> Request {
    Request::results(exports(&graph(session), &[]).expect("the default"))
}

fn a_second_build_has_nothing_to_do() {
    let (session, place) = (session(), tempfile::tempdir().expect("a directory"));
    let store = place.path().join("store");
    let request = results(&session);
    let before = session.preview(&graph(&session), None, &request).expect("a plan");
    assert_eq!(before.segments.iter().map(|segment| segment.steps.len()).sum::<usize>(), 2);
    assert_eq!(build(&session, &store, &request, &BuildOptions::default()).1, 2);
    assert_eq!(build(&session, &store, &request, &BuildOptions::default()).1, 0);
}

fn what_was_damaged_is_a_warning_and_made_anew() {
    let (session, place) = (session(), tempfile::tempdir().expect("a directory"));
    let store = place.path().join("store");
    let request = results(&session);
    let (built, _) = build(&session, &store, &request, &BuildOptions::default());
    let last = built.plan().exports[0].node.expect("it has stages");
    let tree =
        built.lease().tree(built.plan().graph.stage_node(last).expect("a stage").id).expect("reads").expect("its tree");
    let layer = tree.lower.last().expect("a layer").clone();
    drop(built);
    std::fs::write(layer.join("more"), "").expect("a file");

    let plan = |request: &Request| session.plan(&graph(&session), &StoreConfig::own(&store), request).expect("a plan");
    assert_eq!(plan(&request).warnings(), [], "what stays in the store is not looked at");
    let planned = plan(&request.exported());
    assert!(matches!(planned.warnings(), [Warning::Damaged(_)]), "{:?}", planned.warnings());
    assert!(!planned.plan().segments.is_empty());
    let built = planned.run(&BuildOptions::default(), &mut Silent, &Interrupt::new().expect("one")).expect("it runs");
    assert!(built.outcome.success());
}

fn a_stage_that_always_runs_does_so_with_its_result_there() {
    let (session, place) = (session(), tempfile::tempdir().expect("a directory"));
    let store = place.path().join("store");
    let request = results(&session);
    build(&session, &store, &request, &BuildOptions::default());
    let stage = exports(&graph(&session), &[]).expect("the default").remove(0);
    assert_eq!(build(&session, &store, &Request::stage(stage), &BuildOptions::default()).1, 1);
}

fn results_are_exported_during_and_after_a_build() {
    let (session, place) = (session(), tempfile::tempdir().expect("a directory"));
    let (store, during, after) = (place.path().join("store"), place.path().join("during"), place.path().join("after"));
    let options = BuildOptions { output: Some(&during), ..BuildOptions::default() };
    let (built, _) = build(&session, &store, &results(&session), &options);
    let later = built.export(&after).expect("it exports");
    for (exported, output) in [(&built.exported, during), (&later, after)] {
        let [one] = exported.as_slice() else { panic!("{exported:?}") };
        assert_eq!((one.export.name.as_str(), &one.directory), ("tree", &output.join("tree")));
        assert!(one.directory.join("a").is_dir() && one.directory.join("b").is_dir());
    }
}

fn a_raised_interrupt_ends_a_build() {
    let (session, place) = (session(), tempfile::tempdir().expect("a directory"));
    let store = StoreConfig::own(place.path().join("store"));
    let planned = session.plan(&graph(&session), &store, &results(&session)).expect("a plan");
    let interrupt = Interrupt::new().expect("one");
    interrupt.raise();
    let mut begun = Begun::default();
    let built = planned.run(&BuildOptions::default(), &mut begun, &interrupt).expect("it runs");
    assert!(built.outcome.interrupted && !built.outcome.success());
    assert_eq!(begun.0, 0);
}
