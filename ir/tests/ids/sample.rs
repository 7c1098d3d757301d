//! One manifest with everything that an id can depend on, and short ways to write others.

use osbc_ir::{
    Device, FormatVersion, Input, InputOrigin, ItemKey, Kind, Manifest, ModuleRef, Mount, Pipeline, PipelineIndex,
    Reference, References, Revision, Runner, Source, SourceItem, Stage, Target, Value,
};
use serde_json::json;

pub(crate) const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

pub(crate) fn module(kind: Kind, name: &str) -> ModuleRef {
    ModuleRef { kind, name: format!("org.osbuild.{name}"), revision: Revision::BuiltIn(1) }
}

pub(crate) fn stage(name: &str, options: Value) -> Stage {
    let module = module(Kind::Stage, name);
    Stage { module, options, inputs: vec![], devices: vec![], mounts: vec![], host: vec![], writes_id: false }
}

pub(crate) fn pipeline(name: &str, build: Option<usize>, stages: Vec<Stage>) -> Pipeline {
    let runner = Runner { name: "org.osbuild.fedora39".into(), exec: "org.osbuild.fedora38".into() };
    Pipeline {
        name: name.into(),
        build: build.map(PipelineIndex),
        empty_build: false,
        runner,
        source_epoch: None,
        stages,
    }
}

pub(crate) fn manifest(sources: Vec<Source>, pipelines: Vec<Pipeline>) -> Manifest {
    Manifest { version: FormatVersion::V2, metadata: Default::default(), sources, pipelines }
}

pub(crate) fn source(name: &str, items: &[(&str, Value)]) -> Source {
    let items = items.iter().map(|(checksum, description)| SourceItem {
        key: ItemKey::new("org.osbuild.files", *checksum),
        description: description.clone(),
        size: None,
    });
    Source { module: module(Kind::Source, name), items: items.collect(), options: json!({}) }
}

pub(crate) fn tree_input(name: &str, pipeline: usize, options: Value) -> Input {
    let target = Target::Pipeline(PipelineIndex(pipeline));
    Input {
        name: name.into(),
        module: module(Kind::Input, "tree"),
        origin: InputOrigin::Pipeline,
        references: References { ordered: true, entries: vec![Reference { target, options: json!({}) }] },
        options,
    }
}

pub(crate) fn files_input(name: &str, ordered: bool, items: &[(&str, Value)]) -> Input {
    let entries = items
        .iter()
        .map(|(checksum, options)| Reference { target: Target::Item((*checksum).into()), options: options.clone() });
    Input {
        name: name.into(),
        module: module(Kind::Input, "files"),
        origin: InputOrigin::Source,
        references: References { ordered, entries: entries.collect() },
        options: json!({}),
    }
}

pub(crate) fn devices() -> Vec<Device> {
    vec![
        Device {
            name: "disk".into(),
            module: module(Kind::Device, "loopback"),
            parent: None,
            options: json!({"filename": "disk.img", "start": 2048}),
        },
        Device {
            name: "vg".into(),
            module: module(Kind::Device, "lvm2.lv"),
            parent: Some(0),
            options: json!({"volume": "root"}),
        },
    ]
}

pub(crate) fn mounts() -> Vec<Mount> {
    let mount = |name: &str, fs, source, partition: Option<u32>, target: &str, options| Mount {
        name: name.into(),
        module: module(Kind::Mount, fs),
        source,
        partition: partition.map(Into::into),
        target: Some(target.into()),
        options,
    };
    vec![
        mount("root", "ext4", Some(1), None, "/", json!({})),
        mount("boot", "xfs", Some(0), Some(1), "/boot", json!({"readonly": true})),
        mount("bare", "noop", None, Some(0), "", json!({})),
    ]
}

/// The pipelines of [`everything`], by position.
pub(crate) const BUILD: usize = 0;
pub(crate) const EMPTY: usize = 1;
pub(crate) const OS: usize = 2;
pub(crate) const IMAGE: usize = 3;
pub(crate) const ON_EMPTY: usize = 4;

/// A build root, a pipeline without stages, a tree built from items, an image made from the tree through devices
/// and mounts, and a pipeline that builds in the empty one.
pub(crate) fn everything() -> Manifest {
    let mut rpm = stage("rpm", json!({"gpgkeys": ["é\u{7f}😀\"\\\n\t\u{1}/"]}));
    rpm.inputs =
        vec![files_input("packages", true, &[(B, json!({"metadata": {"rpm.check_gpg": true}})), (A, json!({}))])];
    let mut os = pipeline("os", Some(BUILD), vec![rpm, stage("noop", json!({}))]);
    os.source_epoch = Some(1_700_000_000);

    let numbers = r#"{"label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
                      "f": 1e22, "n": -0.0, "x": 1e-7}"#;
    let mut numbers: Value = serde_json::from_str(numbers).expect("valid JSON");
    osbc_ir::value::canonicalize(&mut numbers).expect("finite numbers");
    let mut sfdisk = stage("sfdisk", numbers);
    sfdisk.devices = devices();
    let mut copy = stage("copy", json!({"paths": []}));
    copy.devices = devices();
    copy.mounts = mounts();
    copy.inputs = vec![tree_input("tree", OS, json!({"a": null})), tree_input("empty", EMPTY, json!({}))];
    let truncate = stage("truncate", json!({"filename": "disk.img", "size": "10000000000000000000000"}));

    let mkdir = stage("mkdir", json!({"paths": [{"path": "/usr", "mode": 0o755}]}));
    manifest(
        vec![source("curl", &[(B, json!({"url": "https://host.invalid/b"})), (A, json!("https://host.invalid/a"))])],
        vec![
            pipeline("build", None, vec![mkdir]),
            pipeline("empty", None, vec![]),
            os,
            pipeline("image", Some(BUILD), vec![truncate, sfdisk, copy]),
            pipeline("on-empty", Some(EMPTY), vec![stage("noop", json!({}))]),
        ],
    )
}
