//! Causes, in the words of a person who reads them.

use osbc_ir::{FileDigest, HostFile, Revision};
use serde_json::json;

use super::*;
use crate::passes::share;
use crate::passes::sketch::manifest;

const MANIFEST: &str = "
    build: packages
    os(build): tree<#a hostname users
    image(build): truncate copy@<os
    other: noop
";

fn graph(text: &str, change: impl FnOnce(&mut osbc_ir::Manifest)) -> Graph {
    let mut manifest = manifest(text);
    change(&mut manifest);
    share(manifest.finalize())
}

fn plain(text: &str) -> Graph {
    graph(text, |_| {})
}

fn label(graph: &Graph, node: NodeIndex) -> String {
    let stage = graph.stage_node(node).expect("a stage");
    let (pipeline, stage) = graph.stage(stage);
    format!("{}/{}", pipeline.name, stage.module.name.trim_start_matches("org.osbuild."))
}

/// A line for each stage that is not the same.
fn causes(old: &Graph, new: &Graph) -> Vec<String> {
    let comparison = Comparison::new(old, new);
    let stages = new.dag.node_indices().filter(|node| new.stage_node(*node).is_some());
    let causes = stages.filter_map(|node| {
        let cause = match comparison.cause(node) {
            Cause::Same => return None,
            Cause::New => "new".to_owned(),
            Cause::Changed { changes } => {
                changes.iter().map(|change| change.path.clone()).collect::<Vec<_>>().join(", ")
            }
            Cause::Tree { edge, pipeline, old, new } => format!("{edge:?} {pipeline}: {old:?} > {new:?}"),
            Cause::Follows { .. } => {
                let roots: Vec<_> = comparison.roots(node).into_iter().map(|root| label(new, root)).collect();
                format!("follows {}", roots.join(", "))
            }
        };
        Some(format!("{}: {cause}", label(new, node)))
    });
    causes.collect()
}

#[test]
fn equal_manifests_have_no_causes() {
    assert_eq!(causes(&plain(MANIFEST), &plain(MANIFEST)), Vec::<String>::new());
    assert_eq!(causes(&plain(MANIFEST), &plain(&MANIFEST.replace("image(", "disk("))), Vec::<String>::new());
}

#[test]
fn the_first_cause_is_distinguished_from_what_follows() {
    let new = graph(MANIFEST, |manifest| manifest.pipelines[1].stages[1].options = json!({"hostname": "web"}));
    assert_eq!(
        causes(&plain(MANIFEST), &new),
        ["os/hostname: /options/hostname", "os/users: follows os/hostname", "image/copy: follows os/hostname"]
    );
}

#[test]
fn every_kind_of_first_cause_has_its_name() {
    let old = plain(MANIFEST);
    let with = |change: fn(&mut osbc_ir::Manifest)| causes(&old, &graph(MANIFEST, change));
    let first = |lines: Vec<String>| lines[0].clone();
    assert_eq!(
        first(with(|manifest| manifest.pipelines[2].stages[0].module.revision = Revision::BuiltIn(2))),
        "image/truncate: /revision"
    );
    assert_eq!(with(|manifest| manifest.pipelines[3].source_epoch = Some(1)), ["other/noop: /source-epoch"]);
    assert_eq!(with(|manifest| manifest.pipelines[3].build = Some(PipelineIndex(0))), ["other/noop: /build, /runner"]);
    assert_eq!(first(with(|manifest| manifest.pipelines[0].runner.name = "other".into())), "os/tree: /runner");
    assert_eq!(with(|manifest| drop(manifest.pipelines[2].stages[1].inputs.pop())), ["image/copy: /inputs/os"]);
    assert_eq!(
        with(|manifest| manifest.pipelines[2].stages[1].devices[0].options = json!({"start": 1})),
        ["image/copy: /devices/disk/options/start"]
    );
}

#[test]
fn stages_that_come_and_go_are_causes_for_those_behind_them() {
    let old = plain(MANIFEST);
    let more = plain(&MANIFEST.replace("hostname", "hostname locale"));
    assert_eq!(causes(&old, &more), ["os/locale: new", "os/users: follows os/locale", "image/copy: follows os/locale"]);
    let less = plain(&MANIFEST.replace("hostname ", ""));
    assert_eq!(
        causes(&old, &less),
        [
            r#"os/users: Base os: Some("org.osbuild.hostname") > Some("org.osbuild.tree")"#,
            "image/copy: follows os/users"
        ]
    );
    let shorter = plain(&MANIFEST.replace(" users", ""));
    assert_eq!(
        causes(&old, &shorter),
        [r#"image/copy: Input os: Some("org.osbuild.users") > Some("org.osbuild.hostname")"#]
    );
}

#[test]
fn equal_causes_of_one_pipeline_are_one_and_say_how_many_follow() {
    let old = plain(MANIFEST);
    let new = graph(MANIFEST, |manifest| {
        manifest.pipelines[1].source_epoch = Some(1);
        manifest.pipelines[3].stages[0].options = json!({"a": 1});
    });
    let comparison = Comparison::new(&old, &new);
    let causes: Vec<_> = comparison
        .first_causes(|_| true)
        .into_iter()
        .map(|cause| (cause.stages.into_iter().map(|node| label(&new, node)).collect::<Vec<_>>(), cause.follow))
        .collect();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(causes, [(names(&["os/tree", "os/hostname", "os/users"]), 1), (names(&["other/noop"]), 0)]);
}

#[test]
fn a_pipeline_that_is_called_otherwise_is_still_the_same() {
    let old = plain(MANIFEST);
    let new = graph(&MANIFEST.replace("os(", "tree(").replace("<os", "<tree"), |manifest| {
        manifest.pipelines[1].stages[2].options = json!({"more": true});
    });
    // The input is called after its pipeline here.
    assert_eq!(causes(&old, &new), ["tree/users: /options/more", "image/copy: /inputs/tree, /inputs/os"]);
}

#[test]
fn source_items_are_compared_by_source_and_checksum() {
    let old = plain("os: tree<#a,#b");
    let new = graph("os: tree<#a,#c", |manifest| manifest.sources[0].items[0].description = json!({"url": "x"}));
    let causes: Vec<_> =
        items(&old, &new).into_iter().map(|item| (item.checksum, item.was, item.is, item.changes.len())).collect();
    assert_eq!(
        causes,
        [("#a".to_owned(), true, true, 1), ("#b".to_owned(), true, false, 0), ("#c".to_owned(), false, true, 0)]
    );
}

#[test]
fn a_tool_of_the_host_is_a_cause() {
    let with = |digest: Option<u8>| {
        graph(MANIFEST, |manifest| {
            let digest = digest.map(|byte| FileDigest::from_bytes([byte; 32]));
            manifest.pipelines[0].stages[0].host = vec![HostFile { name: "mkfs.ext4".to_owned(), digest }];
        })
    };
    let follow = ["os/tree: follows build/packages", "os/hostname: follows build/packages"];
    let first = |old: &Graph, new: &Graph| {
        let causes = causes(old, new);
        assert_eq!(causes[1..3], follow);
        causes[0].clone()
    };
    let (absent, present, changed) = (with(None), with(Some(1)), with(Some(2)));
    for (old, new) in [(&absent, &present), (&present, &changed), (&present, &absent)] {
        assert_eq!(first(old, new), "build/packages: /host/mkfs.ext4/content");
    }
    assert_eq!(first(&plain(MANIFEST), &present), "build/packages: /host/mkfs.ext4");
}
