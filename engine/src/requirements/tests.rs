use osbc_compiler::SourceText;
use serde_json::json;

use super::*;
use crate::{Environment, Request, Session, SessionConfig, builtin, exports};

/// What the plan of a manifest with these pipelines needs.
fn needed(pipelines: Value) -> BTreeMap<Need, Vec<String>> {
    let environment = Environment::default();
    let session = Session::open(SessionConfig { libraries: vec![builtin()], environment }).unwrap();
    let text = json!({"version": "2", "pipelines": pipelines}).to_string();
    let text = SourceText::from_bytes("test", text.into_bytes()).unwrap();
    let graph = session.compile(&text).unwrap_or_else(|report| panic!("{}", report.to_json()));
    let request = Request::results(exports(&graph, &[]).unwrap());
    let plan = session.preview(&graph, None, &request).unwrap();
    needs(&plan, session.catalog(), &BTreeSet::new()).unwrap()
}

fn swap() -> Value {
    json!({
        "type": "org.osbuild.mkswap",
        "options": {"uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d"},
        "devices": {"device": {"type": "org.osbuild.loopback", "options": {"filename": "x"}}}
    })
}

#[test]
fn tools_of_the_hosts_tree_are_needed_and_those_of_a_build_root_are_not() {
    let noop = json!({"type": "org.osbuild.noop"});
    let needs = needed(json!([{"name": "a", "stages": [swap()]}, {"name": "b", "stages": [noop, swap(), swap()]}]));
    assert_eq!(needs.keys().copied().collect::<Vec<_>>(), [Need::LoopDevices, Need::Tool("mkswap")]);
    for users in needs.values() {
        let users: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        assert_eq!(users, ["org.osbuild.mkswap of the pipeline `a`", "org.osbuild.mkswap of the pipeline `b`"].into());
    }
    let needs = needed(json!([
        {"name": "build", "runner": "org.osbuild.linux", "stages": [noop]},
        {"name": "b", "build": "name:build", "stages": [swap()]}
    ]));
    assert_eq!(needs.keys().copied().collect::<Vec<_>>(), [Need::LoopDevices]);
}

#[test]
fn options_decide_which_tools_are_called() {
    let disk = |filesystem: Value| {
        let options = json!({
            "filename": "x", "size": 1 << 24, "uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d",
            "partitions": [{"type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "filesystem": filesystem}]
        });
        needed(json!([{"name": "a", "stages": [{"type": "org.osbc.disk", "options": options}]}]))
    };
    let ext4 = disk(json!({"type": "ext4", "uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d"}));
    assert_eq!(ext4.keys().copied().collect::<Vec<_>>(), [Need::Tool("debugfs"), Need::Tool("mke2fs")]);
    let fat = disk(json!({"type": "fat", "volid": "7b7795e7"}));
    let tools = ["mcopy", "mdir", "mkfs.fat", "mmd"].map(Need::Tool);
    assert_eq!(fat.keys().copied().collect::<Vec<_>>(), tools);
}

#[test]
fn what_is_missing_is_reported_with_who_needs_it_and_how_to_get_it() {
    let users: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
    let need = Need::HostTool("skopeo");
    assert_eq!(need.name(&users), "the tool `skopeo`, for a, b, c, 1 other stage");
    assert_eq!(Need::Tool("no-such-tool").remedy().unwrap(), "install the package that has it");
    assert_eq!(Need::Tool("sh").remedy(), None);
}
