//! osbuild's ids. The expected values were taken by running osbuild v190's own classes on the same facts.

use osbc_ir::{PipelineIndex, Reference, Target, compat};
use serde_json::json;

use crate::sample::*;

fn compat_of(pipeline: usize, position: usize) -> String {
    let graph = everything().finalize();
    let node = graph.pipelines[pipeline].stages[position];
    graph.stage_node(node).expect("a stage").compat.to_string()
}

#[test]
fn stages() {
    for (pipeline, position, expected) in [
        (BUILD, 0, "c6e674e9ba8a0841b7a165f4e2ee22a58103f9d51078cd0662b6ea193a6863af"),
        (OS, 0, "3d9fe5c1ec30df7cacc78832cd7d717b10cb782242b131c13b0a8323741b5db5"),
        (OS, 1, "516280d8dc3e279206979a9a21cede66e4ae114e29efbe2ed0d63c7977041e49"),
        (IMAGE, 0, "461eb83a9d39aaeb348dbad697de33eb65d0317b9592423331c4ee3779e37cd4"),
        (IMAGE, 1, "fd01ca8be3075446d83d5e89f9f05e697357acefdd572702acd6590b161c59e4"),
        (IMAGE, 2, "46209928ee035f567cd2734cfe3216a72eb4fe172fa09b3d4f50e17fdd239801"),
        (ON_EMPTY, 0, "beda46704765a47e6d4f44aff22168ae36866c9c0e6e11552b775b77776b2969"),
    ] {
        assert_eq!(compat_of(pipeline, position), expected, "pipeline {pipeline}, stage {position}");
    }
}

#[test]
fn a_build_pipeline_without_stages_counts_as_none() {
    let mut manifest = everything();
    manifest.pipelines[ON_EMPTY].build = None;
    let graph = manifest.finalize();
    let node = graph.pipelines[ON_EMPTY].last().expect("one stage");
    assert_eq!(graph.stage_node(node).expect("a stage").compat.to_string(), compat_of(ON_EMPTY, 0));
}

#[test]
fn inputs() {
    let graph = everything().finalize();
    let trees: Vec<_> = graph
        .pipelines
        .iter()
        .map(|nodes| nodes.last().and_then(|node| graph.stage_node(node)).map(|node| node.compat))
        .collect();
    let of = |pipeline: usize, stage: usize, input: usize| {
        let input = &graph.manifest.pipelines[pipeline].stages[stage].inputs[input];
        compat::input_id(input, &trees).to_string()
    };
    assert_eq!(of(OS, 0, 0), "118f9d1dc858be2d02c8c1a8c402a5c689f3652cba4899c194fb3f75ea4c7a8a");
    assert_eq!(of(IMAGE, 2, 0), "d756f44eed01bb6c563d7f853222bb3f20c187d9507b2ee7042020976b2ccd15");
    assert_eq!(of(IMAGE, 2, 1), "376d65cd22fcc8d61d0e3865c89435b16a11655a08867399a5f5bddf2565d1fe");
}

#[test]
fn of_two_references_to_the_same_id_the_last_counts() {
    let mut manifest = everything();
    let twin = manifest.pipelines[OS].clone();
    manifest.pipelines.push(twin);
    let graph = manifest.finalize();
    let trees: Vec<_> = graph
        .pipelines
        .iter()
        .map(|nodes| nodes.last().and_then(|node| graph.stage_node(node)).map(|node| node.compat))
        .collect();
    let single = tree_input("tree", OS, json!({}));
    let mut double = single.clone();
    let target = Target::Pipeline(PipelineIndex(trees.len() - 1));
    double.references.entries[0].options = json!({"overridden": true});
    double.references.entries.push(Reference { target, options: json!({}) });
    assert_eq!(compat::input_id(&double, &trees), compat::input_id(&single, &trees));
}

#[test]
fn devices_and_mounts() {
    let devices = compat::device_ids(&devices());
    let texts: Vec<_> = devices.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "5bd54bf037e7d70b8636c5c418317cab6d2d76dcd9d10b198f4981e6619aa35a",
            "439f5b9e7412ca0b43cba435b9583003cfab0d103c992604a12b3f8bad11392e",
        ]
    );
    let mounts: Vec<_> = mounts().iter().map(|mount| compat::mount_id(mount, &devices).to_string()).collect();
    assert_eq!(
        mounts,
        [
            "01ad2eec6b4ca8af26eb2501aa75a3eada373a5c3e7a08fe7bf998c91b6157cb",
            "891966cbc6e461b09df6e40c7dc9a52c1ddef7f60b887eb3dc8f56b7647c843d",
            "2f3e61b545223c280a51fbcdf813fa80d04f23a46d78abe043eca9383fa23f56",
        ]
    );
}

#[test]
fn partition_zero_and_an_empty_target_are_not_set() {
    for zero in ["0", "0.0", "-0.0", "0e5"] {
        let mut mount = mounts().remove(2);
        mount.partition = Some(zero.parse().expect("a number"));
        let set = compat::mount_id(&mount, &[]);
        mount.partition = None;
        mount.target = None;
        assert_eq!(set, compat::mount_id(&mount, &[]), "{zero}");
    }
}

#[test]
fn sources() {
    assert_eq!(
        compat::source_id(&everything().sources[0]).to_string(),
        "eb3deaf573e98c27ede175c63d4e0c50df7ebf979f158e90c347bfd56d162b66"
    );
}

#[test]
fn texts_of_any_size_are_hashed_whole() {
    // printf '"org.osbuild.noop"nullnull{"text": "xxx…"}' | sha256sum, with so many x
    for (len, expected) in [
        (0, "483bcc4f0c87638e2f4e192786fc471d64515b7cc347e50e7dedbba42f268cef"),
        (511, "62b8761900f31c5a871d2664f108c398ed782d2d085fd1e40c718383615b99fb"),
        (512, "863f1e064346726943830acd48c2880f0ab67bef7a8fbe3854f9143296c8e81c"),
        (513, "80e2402d189877e2b82dc755f9d7b1e603c290997d248849c6653c9e4c11c6ab"),
        (100_000, "5d537ee1efcd8da29b66206138d939fab4456e1a9951416b34e7d508bd82618b"),
    ] {
        let stages = vec![stage("noop", json!({"text": "x".repeat(len)}))];
        let graph = manifest(vec![], vec![pipeline("os", None, stages)]).finalize();
        let id = graph.stage_node(graph.pipelines[0].stages[0]).expect("a stage").compat;
        assert_eq!(id.to_string(), expected, "{len}");
    }
}
