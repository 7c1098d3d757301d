//! Settings and modules for this crate's tests, without the compiler and the built-in modules.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use osbc_ir::{Kind, Revision, Value};
use osbc_module_api::{
    Catalog, Entry, Error, Library, LibraryError, Module, ModuleDef, Provider, Requirement, Schema, SourceContext,
    SourceEntry,
};
use osbc_sandbox::request::StageRequest;
use osbc_store::testing::runner;

use crate::build::Settings;
use crate::record::{About, ManifestName};

pub(crate) fn settings(jobs: usize) -> Settings {
    Settings {
        jobs: NonZeroUsize::new(jobs).expect("some"),
        keep_going: false,
        jobserver: None,
        stage_timeout: None,
        in_vm: BTreeSet::new(),
        always_run: None,
        host_runner: runner(),
        environment: BTreeMap::new(),
        host_environment: BTreeMap::new(),
    }
}

/// What a build of a test says about itself.
pub(crate) fn about() -> About {
    let manifest = ManifestName { path: "/test.json".to_owned(), pipelines: None };
    About { manifest, arguments: vec!["osbc".to_owned(), "build".to_owned()] }
}

/// The label of the stage that a request is for.
pub(crate) fn label_of(request: &StageRequest) -> &str {
    request.options["label"].as_str().expect("a label")
}

/// Does something in the tree of a request, as a stage would.
pub(crate) fn in_tree(request: &StageRequest, change: impl FnOnce(PathBuf)) {
    let root = osbc_store::fs::overlay::open(&request.tree).expect("the tree opens");
    change(PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())));
}

/// A catalog in which every name is a module; sources fetch as their items say, and of runners only `test.preparing` is
/// there.
pub(crate) fn catalog() -> Catalog {
    Catalog::new(vec![Box::new(Everything)])
}

#[derive(Debug)]
struct Everything;

impl Library for Everything {
    fn label(&self) -> String {
        "test".to_owned()
    }

    fn module(&self, kind: Kind, name: &str) -> Result<Option<Module>, LibraryError> {
        if kind == Kind::Runner && name != "test.preparing" {
            return Ok(None);
        }
        Ok(Some(Module {
            kind,
            name: name.to_owned(),
            revision: Revision::BuiltIn(1),
            summary: String::new(),
            description: String::new(),
            schema: None,
            schema_2: None,
            capabilities: vec!["CAP_TEST".to_owned()],
            requires: match name {
                "test.loop" => vec![Requirement::LoopDevices(|options| options["count"].as_u64().unwrap_or(1))],
                _ => Vec::new(),
            },
            content_type: "test.files".to_owned(),
            provider: Provider::BuiltIn(if kind == Kind::Source { &SOURCE } else { &OTHER }),
        }))
    }

    fn names(&self, _kind: Kind) -> Result<Vec<String>, LibraryError> {
        Ok(Vec::new())
    }
}

static SOURCE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    entry: Entry::Source(SourceEntry { content_type: "test.files", size: |_| None, fetch }),
    ..OTHER
};

static OTHER: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "test.stage",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: Schema::default,
    rejects: &[],
    parse: |_| Ok(()),
    entry: Entry::Stage(|_| Ok(())),
};

/// `{"data": TEXT}` adds it to what is there; `{"url": …}` fails; `{"stall": true}` waits for the end of the build.
fn fetch(context: &SourceContext<'_>, _checksum: &str, description: &Value) -> Result<(), Error> {
    if description.get("stall").is_some() {
        std::fs::write(context.target, "a part").map_err(Error::io("write", context.target))?;
        while !(context.interrupted)() {
            std::thread::sleep(Duration::from_millis(1));
        }
        return Err(Error::Interrupted);
    }
    let Some(data) = description.get("data").and_then(Value::as_str) else {
        return Err(Error::failed("the server said 404"));
    };
    let there = std::fs::read_to_string(context.target).unwrap_or_default();
    (context.progress)(data.len() as u64, Some(data.len() as u64));
    std::fs::write(context.target, there + data).map_err(Error::io("write", context.target))
}
