//! What osbuild's monitors show, compared with what osbuild showed for the same manifest.

use std::collections::{HashMap, HashSet};

use osbc_fixtures::has_root;
use serde_json::{Value, json};

use super::{copy_tree, files, greet, image_of_tree, installed, item, link, mkdir, osbuild, run, sources};
use crate::harness::{Place, checksum};

/// As osbuild wrote it, without the moments and what its runner and its copy stage say.
const LOG: &str = r#"starting manifest.jsonPipeline source org.osbuild.inline: b8a04e4042cdd6b31d19a5b3e80821088521893f35b6a9903a643d454adaad86
Build
  root: <host>
Pipeline tree: TREE
Build
  root: <host>
  runner: RUNNER
  source-epoch: Mon Aug  1 23:42:11 2022 [1659397331]
org.osbuild.mkdir: MKDIR {
  "paths": [
    {
      "path": "/x"
    }
  ]
}

⏱  Duration: 0.00s
org.osbuild.copy: TREE {
  "paths": [
    {
      "from": "input://items/ITEM",
      "to": "tree:///x/hello"
    }
  ]
}

⏱  Duration: 0.00s
Pipeline image: IMAGE
Build
  root: <host>
  runner: RUNNER
org.osbuild.copy: IMAGE {
  "paths": [
    {
      "from": "input://tree/x/hello",
      "to": "tree:///disk.img"
    }
  ]
}

⏱  Duration: 0.00s
manifest manifest.json finished successfully

Pipelines
  tree:     	TREE
  image:    	IMAGE

Checkpoints
"#;

/// The ids and names that differ between machines and manifests, by the words that stand for them.
fn normal(text: &str, place: &Place) -> String {
    let ran = run(osbuild(place), ["manifest.json", "--inspect"]).document(0);
    let id = |pipeline: usize, stage: usize| {
        ran["pipelines"][pipeline]["stages"][stage]["id"].as_str().expect("an id").to_owned()
    };
    let mut text = text
        .replace(&id(0, 1), "TREE")
        .replace(&id(0, 0), "MKDIR")
        .replace(&id(1, 0), "IMAGE")
        .replace(&item(), "ITEM");
    for (before, after, word) in [("Duration: ", "s\n", "0.00"), ("  runner: ", "\n", "RUNNER")] {
        let mut done = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find(before) {
            let start = start + before.len();
            let end = start + rest[start..].find(after).expect("ends");
            done += &rest[..start];
            done += word;
            rest = &rest[end..];
        }
        done += rest;
        text = done;
    }
    text
}

#[test]
fn the_log_reads_like_osbuilds() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_tree());
    // With the sources there, what comes first does not hang on how long they take.
    run(osbuild(&place), ["-q", "manifest.json"]).with(0);
    let mut command = osbuild(&place);
    command.env("TZ", "UTC");
    let out = run(command, ["--output-directory", "o", "--export", "image", "manifest.json"]).with(0);
    assert_eq!(normal(&out, &place), LOG);
}

/// The documents of a sequence.
fn sequence(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let line = line.strip_prefix('\u{1e}').unwrap_or_else(|| panic!("begins with a record separator: {line}"));
        assert!(line.len() < 64_000, "{} bytes", line.len());
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    text.lines().map(line).collect()
}

/// A document in short: message, whose it is, and how far things are.
fn short(entry: &Value) -> String {
    let progress = &entry["progress"];
    let inner =
        progress.get("progress").map(|inner| format!(" {} {}/{}", inner["name"], inner["done"], inner["total"]));
    let message = entry.get("message").and_then(Value::as_str).unwrap_or_default();
    format!("{message:?} {}/{}{}", progress["done"], progress["total"], inner.unwrap_or_default().replace('"', ""))
}

#[test]
fn the_sequence_says_what_osbuilds_says() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_tree());
    run(osbuild(&place), ["-q", "manifest.json"]).with(0);
    let arguments = ["--out", "o", "--export", "image", "--monitor", "JSONSeqMonitor", "-q", "manifest.json"];
    let all = sequence(&run(osbuild(&place), arguments).with(0));
    let lines: Vec<String> = all.iter().map(short).collect();
    // As osbuild wrote it, but for what its runner and its copy stage say.
    let expected = [
        r#""starting manifest.json" 0/3"#,
        r#""Starting pipeline source org.osbuild.inline" 0/3"#,
        r#""Finished module source org.osbuild.inline" 0/3"#,
        r#""Finished pipeline org.osbuild.inline" 1/3"#,
        r#""Starting pipeline tree" 1/3 pipeline: tree 0/2"#,
        r#""Starting module org.osbuild.mkdir" 1/3 pipeline: tree 0/2"#,
        r#""" 1/3 pipeline: tree 0/2"#,
        r#""Finished module org.osbuild.mkdir" 1/3 pipeline: tree 1/2"#,
        r#""Starting module org.osbuild.copy" 1/3 pipeline: tree 1/2"#,
        r#""" 1/3 pipeline: tree 1/2"#,
        r#""Finished module org.osbuild.copy" 1/3 pipeline: tree 2/2"#,
        r#""Finished pipeline tree" 2/3"#,
        r#""Starting pipeline image" 2/3 pipeline: image 0/1"#,
        r#""Starting module org.osbuild.copy" 2/3 pipeline: image 0/1"#,
        r#""" 2/3 pipeline: image 0/1"#,
        r#""Finished module org.osbuild.copy" 2/3 pipeline: image 1/1"#,
        r#""Finished pipeline image" 3/3"#,
        r#""manifest manifest.json finished successfully\n" 3/3"#,
    ];
    assert_eq!(lines, expected);
    let image = all.iter().find(|entry| entry["message"] == "Starting pipeline image").expect("it is reported");
    assert_eq!(
        image["context"]["pipeline"]["stage"]["name"], "org.osbuild.copy",
        "the stage before it, as osbuild has it"
    );
    let finished = &all[7];
    assert_eq!(finished["result"]["success"], true);
    assert_eq!(finished["options"], json!({"paths": [{"path": "/x"}]}));
    assert!(finished["duration"].is_f64() && finished["timestamp"].is_f64());
}

#[test]
fn pipelines_that_run_side_by_side_keep_their_contexts() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let mut pipelines = vec![json!({"name": "base", "stages": [mkdir("/a")]})];
    for number in 0..12 {
        pipelines.push(json!({"name": format!("p{number}"), "stages": [
            mkdir("/same"), mkdir(&format!("/{number}")), copy_tree("base", "/a", "/"),
        ]}));
    }
    place.manifest(&json!({"version": "2", "sources": sources(), "pipelines": pipelines}));
    let mut arguments =
        vec!["--out".to_owned(), "o".to_owned(), "--monitor=JSONSeqMonitor".to_owned(), "-q".to_owned()];
    arguments.extend((0..12).map(|number| format!("--export=p{number}")));
    arguments.push("manifest.json".to_owned());
    let mut command = osbuild(&place);
    command.env("OSBC_JOBS", "8");
    let all = sequence(&run(command, &arguments).with(0));
    let mut contexts: HashMap<String, Value> = HashMap::new();
    let mut open: HashSet<String> = HashSet::new();
    let mut stages: HashMap<String, usize> = HashMap::new();
    for entry in &all {
        let id = entry["context"]["id"].as_str().expect("an id").to_owned();
        let context = match contexts.get(&id) {
            Some(context) => context.clone(),
            None => {
                assert!(entry["context"].get("origin").is_some(), "said in full the first time: {entry}");
                contexts.insert(id, entry["context"].clone());
                entry["context"].clone()
            }
        };
        let message = entry.get("message").and_then(Value::as_str).unwrap_or_default();
        let pipeline = context["pipeline"]["name"].as_str().unwrap_or_default();
        if let Some(inner) = entry["progress"].get("progress") {
            assert_eq!(inner["name"], format!("pipeline: {pipeline}"), "{entry}");
            assert!(inner["total"].as_u64() > Some(0), "{entry}");
        }
        if let Some(name) = message.strip_prefix("Starting pipeline ") {
            assert_eq!(name, pipeline);
            assert!(open.insert(name.to_owned()), "begins once: {name}");
        } else if let Some(module) = message.strip_prefix("Finished module org.osbuild.") {
            assert_eq!(context["pipeline"]["stage"]["name"], format!("org.osbuild.{module}"));
            assert_eq!(context["pipeline"]["stage"]["id"], entry["result"]["id"]);
            *stages.entry(pipeline.to_owned()).or_default() += 1;
        } else if let Some(name) = message.strip_prefix("Finished pipeline ") {
            open.remove(name);
        }
    }
    // The source closes under the name of its module alone, as osbuild has it.
    assert_eq!(open.into_iter().collect::<Vec<_>>(), ["source org.osbuild.inline"]);
    let expected = (0..12).map(|number| (format!("p{number}"), 3)).chain([("base".to_owned(), 1)]).collect();
    assert_eq!(stages, expected, "a shared stage is reported in each of its pipelines");
    assert_eq!(all.last().map(short), Some("\"manifest manifest.json finished successfully\\n\" 14/14".to_owned()));
}

#[test]
fn a_failed_stage_says_why_and_closes_what_was_open() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "tree", "stages": [mkdir("/x"), mkdir("/x"), mkdir("/y")]},
    ]}));
    let common = ["--out", "o", "--export", "tree", "manifest.json"];
    let out = run(osbuild(&place), common).with(1);
    assert!(out.ends_with("manifest manifest.json failed\nFailed\n"), "{out}");
    assert!(!out.contains("/y"), "{out}");
    let all = sequence(&run(osbuild(&place), common.into_iter().chain(["-q", "--monitor=JSONSeqMonitor"])).with(1));
    let failed = all.iter().find(|entry| entry["result"]["success"] == false).expect("it is reported");
    let reason = failed["result"]["error"]["data"]["value"].as_str().expect("a reason");
    assert!(reason.contains("/x"), "{reason}");
    assert_eq!(all[all.len() - 2]["message"], "Finished pipeline tree");
    let document = run(osbuild(&place), common.into_iter().chain(["--json"])).document(1);
    assert_eq!(document["success"], false);
    assert_eq!(document["error"]["type"], "org.osbuild.error.stage");
    let stage = &document["error"]["details"]["stage"];
    assert_eq!(stage["type"], "org.osbuild.mkdir");
    assert!(stage["output"].as_str().is_some_and(|output| output.contains("/x")), "{document}");
    let log = document["log"]["tree"].as_array().expect("a log");
    assert_eq!((log.len(), &log[0]["success"], &log[1]["success"]), (2, &Value::Null, &json!(false)));
}

#[test]
fn a_failing_source_is_reported_under_its_name() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let (good, bad) = (item(), checksum(b"other"));
    place.manifest(&json!({
        "version": "2",
        "sources": {"org.example.text": {"items": {&good: {"text": "hello"}, &bad: {"text": "hello"}}}},
        "pipelines": [{"name": "tree", "stages": [{
            "type": "org.example.write",
            "inputs": files("org.osbuild.source", &json!({&good: {"name": "a"}, &bad: {"name": "b"}})),
        }]}],
    }));
    let common = ["--out", "o", "--export", "tree", "manifest.json"];
    let said = format!("source/org.example.text (org.example.text): wrote {}\n", &good[..20]);
    let log = run(installed(&place, &link(&place)), common).with(1);
    assert!(log.starts_with("starting manifest.jsonPipeline source org.example.text: "), "{log}");
    let end = format!("\nBuild\n  root: <host>\n{said}manifest manifest.json failed\nFailed\n");
    assert!(log.ends_with(&end), "{log}");

    std::fs::remove_dir_all(place.path(".osbuild")).expect("is there");
    let arguments = common.into_iter().chain(["-q", "--monitor=JSONSeqMonitor"]);
    let all = sequence(&run(installed(&place, &link(&place)), arguments).with(1));
    let output = all.iter().find(|entry| entry["message"] == json!(said)).expect("it is reported");
    assert_eq!(output["context"]["origin"], "org.osbuild");
    assert_eq!(output["context"]["pipeline"]["name"], "source org.example.text");
    let finished = all.iter().find(|entry| entry["result"]["success"] == false).expect("it is reported");
    let results = finished["result"]["results"].as_array().expect("a list");
    let of_bad = results.iter().find(|result| result["success"] == false).expect("it is reported");
    assert_eq!(of_bad["metadata"], json!({"checksum": bad, "cached": false}));

    std::fs::remove_dir_all(place.path(".osbuild")).expect("is there");
    let document = run(installed(&place, &link(&place)), common.into_iter().chain(["--json"])).document(1);
    let items = document["sources"]["org.example.text"].as_array().expect("a list");
    let error = format!("the text has another checksum than {bad}");
    assert!(items.contains(&json!({"cached": false, "checksum": good})), "{document}");
    assert!(items.contains(&json!({"cached": false, "checksum": bad, "error": error})), "{document}");
}

#[test]
fn a_module_that_says_no_more_than_its_exit_status_has_no_error() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    // A script that finds a directory where it writes its file.
    let directory = json!({"type": "org.example.write", "options": {"texts": {"/greeting/x": "text"}}});
    place.manifest(&json!({"version": "2", "pipelines": [{"name": "tree", "stages": [directory, greet()]}]}));
    let arguments = ["--out", "o", "--export", "tree", "--json", "manifest.json"];
    let document = run(installed(&place, &link(&place)), arguments).document(1);
    let entry = &document["log"]["tree"][1];
    assert_eq!((&entry["success"], entry.get("error")), (&json!(false), None), "{document}");
    assert_eq!(document["error"]["details"]["stage"].get("error"), Some(&Value::Null), "{document}");
}
