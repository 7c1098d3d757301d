//! The stage's tree, trees that it refers to, and what it gives back.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use osbc_module_api::{InputOrigin, Kind, json};
use osbc_sandbox::request::{InputRequest, ReferenceFrom, ReferenceRequest, StageFailure};
use osbc_store::TreeStack;
use osbc_store::fs::overlay;
use rustix::fs::{FileType, Mode, XattrFlags};

use crate::harness::tests;
use crate::place::{Place, module};

tests![
    root_a_plain_tree_is_changed_in_place,
    root_layers_show_as_one_tree_and_changes_go_on_top,
    root_a_stack_can_be_mounted_again_at_once,
    root_a_stage_ends_where_it_makes_what_no_layer_holds,
    root_referenced_trees_and_items_are_visible_and_read_only,
    root_inputs_that_point_elsewhere_are_refused,
    root_links_in_a_tree_lead_nowhere_else,
    root_large_requests_and_replies_pass,
    root_many_stages_at_once_do_not_disturb_each_other,
];

const TREE: &str = "/run/osbuild/tree";

fn root_a_plain_tree_is_changed_in_place() {
    let place = Place::new("write", json!({"path": "file", "text": "content"}));
    place.succeed();
    let file = place.tree().join("file");
    assert_eq!(fs::read_to_string(&file).expect("it was written"), "content");
    let metadata = fs::metadata(&file).expect("it was written");
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 0, 0o644));
}

/// Three layers, lowest first: the middle one removes a file and replaces a directory, the last one replaces a file.
fn layers(place: &Place) -> Vec<PathBuf> {
    let layer = |name: &str, files: &[&str]| {
        let layer = place.path(name);
        for file in files {
            let path = layer.join(file);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(path, format!("{file} of {name}")).expect("a file");
        }
        layer
    };
    let lowest = layer("lowest", &["kept", "removed", "replaced", "directory/hidden"]);
    let middle = layer("middle", &["replaced", "directory/new"]);
    let nothing = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(rustix::fs::CWD, middle.join("removed"), FileType::CharacterDevice, Mode::empty(), nothing)
        .expect("a whiteout");
    rustix::fs::setxattr(middle.join("directory"), "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .expect("an opaque directory");
    let last = layer("last", &["replaced"]);
    vec![lowest, middle, last]
}

fn root_layers_show_as_one_tree_and_changes_go_on_top() {
    let mut place = Place::new("list", json!({"directory": TREE}));
    place.request.tree.lower = layers(&place);
    let merged = json!({
        "directory": null,
        "directory/new": "directory/new of middle",
        "kept": "kept of lowest",
        "replaced": "replaced of last",
    });
    assert_eq!(place.succeed(), merged);
    // Without an upper end, the same tree to be read only.
    place.request.tree.upper = None;
    assert_eq!(place.succeed(), merged);
    place.request.module.name = "write".into();
    place.request.options = json!({"path": "kept", "text": "changed"});
    assert!(matches!(place.fail(), StageFailure::Module(reason) if reason.contains("Read-only file system")));

    let mut place = Place::new("write", json!({"path": "kept", "text": "changed"}));
    place.request.tree.lower = layers(&place);
    place.succeed();
    assert_eq!(fs::read_to_string(place.tree().join("kept")).expect("in the upper directory"), "changed");
    assert_eq!(fs::read_to_string(place.path("lowest/kept")).expect("untouched"), "kept of lowest");
}

fn root_a_stack_can_be_mounted_again_at_once() {
    let mut place = Place::new("shell", json!({"script": ""}));
    place.request.tree.lower = layers(&place);
    for round in 0..10 {
        place.request.options = json!({"script": format!("test ! -e {TREE}/{round}; touch {TREE}/{round}")});
        place.succeed();
        overlay::settle(&place.path("work")).expect("the rest of the mount can be removed");
    }
    assert_eq!(fs::read_dir(place.tree()).expect("the upper directory").count(), 10);
}

fn root_a_stage_ends_where_it_makes_what_no_layer_holds() {
    // In the background, so that the stage itself would succeed.
    let whiteout = format!("(mknod {TREE}/whiteout c 0 0); true");
    let renamed = format!(
        "touch {TREE}/one; python3 -c 'import ctypes; ctypes.CDLL(None).renameat2(-100, b\"{TREE}/one\", -100, b\"{TREE}/two\", 4)'"
    );
    for script in [whiteout, renamed] {
        let mut place = Place::new("shell", json!({"script": script}));
        place.request.tree.lower = layers(&place);
        assert_eq!(place.fail(), StageFailure::NeedsPlainTree, "{script}");
        // On a plain directory it runs to its end.
        Place::new("shell", json!({"script": script})).succeed();
    }
    let mut place = Place::new("shell", json!({"script": format!("mknod {TREE}/null c 1 3; mkfifo {TREE}/pipe")}));
    place.request.tree.lower = layers(&place);
    place.succeed();
}

fn input(name: &str, module_name: &str, references: Vec<ReferenceFrom>) -> InputRequest {
    let references =
        references.into_iter().map(|from| ReferenceRequest { id: "some".into(), options: json!({}), from }).collect();
    let (module, origin) = (module(Kind::Input, module_name), InputOrigin::Pipeline);
    InputRequest { name: name.into(), module, origin, references, options: json!({}) }
}

fn root_referenced_trees_and_items_are_visible_and_read_only() {
    let mut place = Place::new("list", json!({"directory": "/run/osbuild/inputs"}));
    let layers = layers(&place);
    fs::write(place.path("item"), "an item").expect("a file");
    let references = vec![
        ReferenceFrom::Tree(TreeStack { lower: layers.clone(), upper: None }),
        ReferenceFrom::Tree(TreeStack { lower: vec![layers[0].clone()], upper: None }),
        ReferenceFrom::Tree(TreeStack { lower: Vec::new(), upper: None }),
        ReferenceFrom::Item(place.path("item")),
    ];
    place.request.inputs = vec![input("all", "trees", references)];
    let seen = place.succeed();
    assert_eq!(seen["all/shown/0/replaced"], "replaced of last");
    assert_eq!(seen["all/shown/1/replaced"], "replaced of lowest");
    assert!(seen.get("all/shown/2").is_some_and(serde_json::Value::is_null));
    assert_eq!(seen["all/shown/3"], "an item");
    assert_eq!(seen.as_object().expect("an object").keys().filter(|key| key.starts_with("all/shown/2/")).count(), 0);

    let script = "for path in 0 0/new 1/new 1/kept 2/new 3; do \
                      if echo x > /run/osbuild/inputs/all/shown/$path; then exit 1; fi; \
                  done 2>/dev/null; \
                  if rm /run/osbuild/inputs/all/shown/1/kept; then exit 1; fi";
    place.request.module.name = "shell".into();
    place.request.options = json!({"script": script});
    fs::remove_dir_all(place.request.scratch.join("inputs")).expect("the last stage made it");
    place.succeed();
    assert_eq!(fs::read_to_string(layers[0].join("kept")).expect("untouched"), "kept of lowest");
}

fn root_inputs_that_point_elsewhere_are_refused() {
    let mut place = Place::new("write", json!({"path": "file"}));
    place.request.inputs = vec![input("one", "elsewhere", Vec::new())];
    let StageFailure::Environment(reason) = place.fail() else { panic!("the environment is to blame") };
    assert!(reason.starts_with("input `one`: the module returned "), "{reason}");
    for name in ["../one", "/one", ".."] {
        place.request.inputs = vec![input(name, "trees", Vec::new())];
        assert!(matches!(place.fail(), StageFailure::Environment(reason) if reason.contains("name")));
    }
    place.request.inputs = vec![input("one", "thread", Vec::new())];
    assert!(matches!(place.fail(), StageFailure::Environment(reason) if reason.contains("left a thread running")));
    assert!(!place.tree().join("file").exists());
}

fn root_links_in_a_tree_lead_nowhere_else() {
    let mut place = Place::new("write", json!({"path": "link/written", "text": "content"}));
    let tree = place.tree();
    symlink("/", tree.join("link")).expect("a link");
    symlink("/", tree.join("run")).expect("a link");
    place.succeed();
    assert_eq!(fs::read_to_string(tree.join("written")).expect("inside"), "content");
    assert!(!Path::new("/written").exists());
    place.request.options = json!({"path": format!("link/../../../../../../{}/deep", tree.display()), "text": ""});
    assert!(matches!(place.fail(), StageFailure::Module(_)));
    // A program that does follow links gets to the sandbox, not to the host.
    place.request.module.name = "shell".into();
    place.request.options = json!({"script": format!("echo x > {TREE}/link/root-of-sandbox")});
    place.succeed();
    assert!(!Path::new("/root-of-sandbox").exists());
}

fn root_large_requests_and_replies_pass() {
    let options = json!({"text": "x".repeat(3 << 20), "number": 12345678901234567890123456789u128.to_string()});
    let place = Place::new("echo", options.clone());
    assert_eq!(place.succeed(), options);
}

fn root_many_stages_at_once_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                for round in 0..5 {
                    let text = format!("{thread} {round}");
                    let place = Place::new("write", json!({"path": "file", "text": text}));
                    place.succeed();
                    assert_eq!(fs::read_to_string(place.tree().join("file")).expect("it was written"), text);
                }
            });
        }
    });
}
