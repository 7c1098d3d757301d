//! On-disk modules that do what none should: each is a clear failure of its own stage, or none, and nothing is left.

use std::time::{Duration, Instant};

use osbc_fixtures::hostile::FAILING_SERVICES;
use osbc_fixtures::{hostile_libdir, libdir};
use osbc_module_api::{InputOrigin, Kind, json};
use osbc_sandbox::request::{DeviceRequest, InputRequest, MountRequest, ReferenceFrom, ReferenceRequest, StageFailure};
use osbc_store::TreeStack;

use crate::harness::tests;
use crate::place::{Place, on_disk};

tests![
    root_a_hostile_service_fails_its_stage_or_nothing,
    root_a_service_that_never_answers_ends_with_the_time_out,
    root_a_hostile_stage_fails_or_does_nothing,
    root_a_stage_that_never_ends_ends_with_the_time_out,
    root_a_stage_reaches_neither_its_parents_nor_the_services,
];

/// Far more than any of this takes, and less than anybody would wait.
const SOON: Duration = Duration::from_secs(50);

/// The kinds of modules that are services of a stage.
const KINDS: [Kind; 3] = [Kind::Input, Kind::Device, Kind::Mount];

/// A stage that a service of this kind does this to.
fn with_service(kind: Kind, how: &str) -> Place {
    let mut place = Place::on_disk(&libdir(), "org.example.write", json!({}));
    let mut module = on_disk(&hostile_libdir(), Kind::Input, "org.example.hostile");
    module.kind = kind;
    let (name, options) = ("files".to_owned(), json!({"how": how}));
    match kind {
        Kind::Device => place.request.devices = vec![DeviceRequest { name, module, parent: None, options }],
        Kind::Mount => {
            let (source, partition, target) = (None, None, Some("/".to_owned()));
            place.request.mounts = vec![MountRequest { name, module, source, partition, target, options }];
        }
        _ => {
            let tree = ReferenceRequest {
                id: "id".into(),
                options: json!({}),
                from: ReferenceFrom::Tree(TreeStack { lower: Vec::new(), upper: None }),
            };
            let origin = InputOrigin::Pipeline;
            place.request.inputs = vec![InputRequest { name, module, origin, references: vec![tree], options }];
        }
    }
    place
}

fn failure(place: &Place) -> String {
    let start = Instant::now();
    let (reply, output) = place.run();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    match reply.failure {
        Some(StageFailure::Environment(reason) | StageFailure::Module(reason) | StageFailure::Died(reason)) => reason,
        Some(failure @ StageFailure::Exited(_)) => failure.to_string(),
        other => panic!("{other:?}: {output}"),
    }
}

fn root_a_hostile_service_fails_its_stage_or_nothing() {
    for kind in KINDS {
        for (how, reason) in FAILING_SERVICES {
            let reported = failure(&with_service(kind, how));
            assert!(
                reported.starts_with(&format!("{kind} `files`: ")) && reported.contains(reason),
                "{kind} {how}: {reported}"
            );
        }
        for how in ["descriptors", "daemon"] {
            with_service(kind, how).succeed();
        }
    }
}

fn root_a_service_that_never_answers_ends_with_the_time_out() {
    for (kind, how) in KINDS.into_iter().flat_map(|kind| [(kind, "silent"), (kind, "floods")]) {
        let mut place = with_service(kind, how);
        let timeout = Duration::from_secs(1);
        place.request.timeout = Some(timeout);
        let start = Instant::now();
        assert_eq!(place.fail(), StageFailure::TimedOut(timeout), "{kind} {how}");
        assert!(start.elapsed() < SOON);
    }
}

fn stage(how: &str) -> Place {
    Place::on_disk(&hostile_libdir(), "org.example.hostile", json!({"how": how}))
}

fn root_a_hostile_stage_fails_or_does_nothing() {
    for (how, reason) in [
        ("closes", "it ended with exit status 1"),
        ("garbage", "Mess: made\nhere"),
        ("large", "it ended with exit status 1"),
        ("descriptors", "it ended with exit status 1"),
        ("connections", "it ended with exit status 1"),
        ("daemon", "it ended with exit status 1"),
        ("group", "its process was ended by SIGKILL"),
        ("tmp", "it ended with exit status 1"),
        ("meta", "cannot read the metadata that it wrote"),
        ("fifo", "it is no file any more"),
        ("no-json", "the metadata that it wrote is no JSON"),
        ("raises", "it ended with exit status 1"),
    ] {
        let reported = failure(&stage(how));
        assert!(reported.contains(reason), "{how}: {reported}");
    }
}

fn root_a_stage_that_never_ends_ends_with_the_time_out() {
    for how in ["silent", "floods"] {
        let mut place = stage(how);
        let timeout = Duration::from_secs(2);
        place.request.timeout = Some(timeout);
        let start = Instant::now();
        assert_eq!(place.fail(), StageFailure::TimedOut(timeout), "{how}");
        assert!(start.elapsed() < SOON);
    }
}

fn root_a_stage_reaches_neither_its_parents_nor_the_services() {
    let mut place = with_service(Kind::Input, "descriptors");
    place.request.module = stage("group").request.module;
    place.request.options = json!({"how": "group"});
    assert_eq!(failure(&place), "its process was ended by SIGKILL");
}
