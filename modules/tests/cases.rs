//! That enough cases compare each stage and assembler with osbuild's: `tools/compare-osbuild` runs them.

use std::fs;
use std::path::Path;

use osbc_module_api::{Kind, Value};
use osbc_modules::builtin::MODULES;

/// Those that ten or more of osbuild's samples use, which need a case more.
const OFTEN_USED: [&str; 18] = [
    "org.osbuild.copy",
    "org.osbuild.fstab",
    "org.osbuild.grub2.inst",
    "org.osbuild.locale",
    "org.osbuild.mkfs.ext4",
    "org.osbuild.mkfs.fat",
    "org.osbuild.mkfs.xfs",
    "org.osbuild.ostree.commit",
    "org.osbuild.ostree.init",
    "org.osbuild.ostree.preptree",
    "org.osbuild.qemu",
    "org.osbuild.rpm",
    "org.osbuild.selinux",
    "org.osbuild.sfdisk",
    "org.osbuild.systemd",
    "org.osbuild.tar",
    "org.osbuild.truncate",
    "org.osbuild.users",
];

/// Those that can do nothing but fail, or nothing but succeed, whatever their options.
const ONE_SIDED: [(Kind, &str); 2] = [(Kind::Assembler, "org.osbuild.error"), (Kind::Stage, "org.osbuild.error")];

/// The names of the cases in the module's directory whose manifests use it.
fn cases(kind: Kind, name: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/modules").join(name);
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let uses = |path: &Path| {
        let text = fs::read_to_string(path).expect("a case can be read");
        let manifest: Value = serde_json::from_str(&text).expect("a case is JSON");
        let mut used = Vec::new();
        collect(kind, &manifest, &mut used);
        used.iter().any(|used| used == name)
    };
    let paths = entries.map(|entry| entry.expect("the directory can be listed").path());
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "json") && uses(path));
    paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
}

/// Collects what a manifest has of a kind, of either version.
fn collect(kind: Kind, manifest: &Value, used: &mut Vec<String>) {
    let mut add = |value: &Value| used.extend(value.as_str().map(str::to_owned));
    match manifest {
        Value::Object(object) => {
            if kind == Kind::Assembler {
                object.get("assembler").iter().for_each(|assembler| add(&assembler["name"]));
            } else {
                let stages = object.get("stages").and_then(Value::as_array);
                stages.into_iter().flatten().for_each(|stage| {
                    add(&stage["type"]);
                    add(&stage["name"]);
                });
            }
            object.values().for_each(|value| collect(kind, value, used));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(kind, value, used)),
        _ => {}
    }
}

#[test]
fn each_stage_and_assembler_has_enough_cases_and_one_that_fails() {
    let mut lacking = Vec::new();
    for module in MODULES {
        let (kind, name) = (module.def.kind, module.def.name);
        if !matches!(kind, Kind::Stage | Kind::Assembler) || !name.starts_with("org.osbuild.") {
            continue;
        }
        let wanted = if kind == Kind::Stage && OFTEN_USED.contains(&name) { 3 } else { 2 };
        let cases = cases(kind, name);
        let failing = cases.iter().filter(|case| case.starts_with("error")).count();
        let one_sided = ONE_SIDED.contains(&(kind, name));
        if cases.len() < wanted || !one_sided && (failing == 0 || failing == cases.len()) {
            lacking.push(format!("{kind:?} {name}: {wanted} are wanted, of them one that fails; there are {cases:?}"));
        }
    }
    assert!(lacking.is_empty(), "\n{}", lacking.join("\n"));
}
