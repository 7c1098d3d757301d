//! Finds the recorded build, and the stage of a build, that the user named.

use std::path::Path;

use osbc_engine::timeline::{BuildTimeline, TimelineNode};
use osbc_executor::event::line::{EventLine, NodeLine};
use osbc_executor::record::BuildRecord;
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Graph, PipelineIndex};
use osbc_store::Store;

use crate::exit::Failure;
use crate::wiring;

/// The name of the last build.
const LAST: &str = "last";

/// The recorded builds of a store, the newest first.
pub(crate) struct Builds {
    records: Vec<BuildRecord>,
}

impl Builds {
    /// Returns the builds of the named store, or of the default one.
    pub(crate) fn of(store: Option<&Path>) -> Result<Self, Failure> {
        let path = wiring::store_path(store)?;
        let records = match Store::open_existing(&path)? {
            Some(store) => BuildRecord::all(&store).map_err(|error| unreadable(&path.join("logs"), &error))?,
            None => Vec::new(),
        };
        Ok(Self { records })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[BuildRecord] {
        &self.records
    }

    /// The last one.
    pub(crate) fn last(&self) -> Result<&BuildRecord, Failure> {
        self.records
            .first()
            .ok_or_else(|| Failure::arguments("no build is recorded in this store; `--store` names another"))
    }

    /// Returns a build by name: `last`, or the beginning of its name or of the part after the time. `None` if there is
    /// none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&BuildRecord>, Failure> {
        if name == LAST {
            return self.last().map(Some);
        }
        let unique = |build: &str| build.split_once('-').is_some_and(|(_, unique)| unique.starts_with(name));
        let is_meant = |record: &&BuildRecord| {
            let build = &record.header.build;
            !name.is_empty() && (build.starts_with(name) || unique(build))
        };
        one_of(self.records.iter().filter(is_meant).collect(), "build", name, |record| record.header.build.clone())
    }
}

/// The events of a build.
pub(crate) fn events(record: &BuildRecord) -> Result<Vec<EventLine>, Failure> {
    record.events().map_err(|error| unreadable(&record.directory, &error))
}

/// What is kept of a build and cannot be read.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::environment(format!("cannot read the record in {}: {error}", path.display()))
}

/// The stage that is named: by the beginning of either id, by `PIPELINE`, `MODULE` or `PIPELINE/MODULE`, modules with
/// or without `org.osbuild.`, or by the number of its log.
///
/// `None` if there is none.
pub(crate) fn find_stage<'a>(past: &'a BuildTimeline, name: &str) -> Result<Option<&'a TimelineNode>, Failure> {
    let stages = past.nodes.values().filter(|node| node.is_stage());
    let stages = stages.map(|node| Named { about: &node.about, log: node.log.as_deref() });
    Ok(named(stages, name)?.and_then(|about| past.nodes.get(&about.node)))
}

/// The stage of a graph that is named, wherever it stands; by the same names.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn stage_of(graph: &Graph, name: &str) -> Result<(PipelineIndex, NodeIndex), Failure> {
    let mut places = Vec::new();
    for (index, (pipeline, nodes)) in graph.manifest.pipelines.iter().zip(&graph.pipelines).enumerate() {
        for node in &nodes.stages {
            let about = NodeLine { pipeline: Some(pipeline.name.clone()), ..NodeLine::new(graph, *node, Action::Run) };
            places.push((about, PipelineIndex(index), *node));
        }
    }
    let found = named(places.iter().map(|(about, ..)| Named { about, log: None }), name)?;
    let place = found.and_then(|found| places.iter().find(|(about, ..)| about == found));
    place.map(|(_, pipeline, node)| (*pipeline, *node)).ok_or_else(|| {
        Failure::arguments(format!(
            "the manifest has no stage `{name}`; name it by PIPELINE/MODULE or by its id: `osbc plan` shows them all"
        ))
    })
}

/// A stage and what it may be called.
#[derive(Clone, Copy)]
struct Named<'a> {
    about: &'a NodeLine,
    log: Option<&'a str>,
}

/// The only stage that is called so; those that are called exactly so come first.
fn named<'a>(stages: impl Iterator<Item = Named<'a>>, name: &str) -> Result<Option<&'a NodeLine>, Failure> {
    let stages: Vec<Named> = stages.collect();
    let mut found: Vec<Named> = stages.iter().copied().filter(|stage| is_called(stage, name)).collect();
    if found.is_empty() {
        found.extend(stages.iter().copied().filter(|stage| may_be_called(stage, name)));
    }
    // The same stage may stand in several pipelines.
    found.dedup_by_key(|stage| stage.about.node);
    let show = |stage: &Named| format!("{} {}", short(&stage.about.id), stage.about.name());
    Ok(one_of(found, "stage", name, show)?.map(|stage| stage.about))
}

/// An id, for people.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn one_of<T>(found: Vec<T>, what: &str, name: &str, show: impl Fn(&T) -> String) -> Result<Option<T>, Failure> {
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(show).collect();
        return Err(Failure::arguments(format!("more than one {what} is called `{name}`:\n  {}", names.join("\n  "))));
    }
    Ok(found.into_iter().next())
}

fn is_called(node: &Named<'_>, name: &str) -> bool {
    let short = |module: &str| module.strip_prefix("org.osbuild.").unwrap_or(module).to_owned();
    let is_module = |name: &str| name == node.about.module || name == short(&node.about.module);
    let pipeline = node.about.pipeline.as_deref();
    let both = |(of, module): (&str, &str)| Some(of) == pipeline && is_module(module);
    pipeline == Some(name) || is_module(name) || name.rsplit_once('/').is_some_and(both)
}

fn may_be_called(node: &Named<'_>, name: &str) -> bool {
    let is_id = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begins = |id: &str| is_id && id.starts_with(&name.to_ascii_lowercase());
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let number = node.log.and_then(|log| log.split('-').next());
    begins(&node.about.id)
        || node.about.osbuild_id.as_deref().is_some_and(begins)
        || (is_number && number.is_some_and(|number| number.trim_start_matches('0') == name.trim_start_matches('0')))
}

#[cfg(test)]
mod tests {
    use osbc_executor::event::line::Happened;

    use super::*;

    fn past() -> BuildTimeline {
        let node = |node: usize, id: &str, pipeline: &str, module: &str| EventLine {
            at: 0,
            event: Happened::Node(NodeLine {
                node,
                id: id.to_owned(),
                osbuild_id: Some(format!("0{id}")),
                pipeline: Some(pipeline.to_owned()),
                module: module.to_owned(),
                checksum: None,
                action: Action::Run,
            }),
        };
        let mut past = BuildTimeline::new(&[
            node(0, "abcdef12", "tree", "org.osbuild.mkdir"),
            node(1, "abcdff12", "tree", "org.osbuild.copy"),
            node(2, "123456ab", "disk", "org.osbuild.copy"),
        ]);
        past.nodes.get_mut(&2).expect("the third").log = Some("012-disk-copy.log".to_owned());
        past
    }

    #[test]
    fn stages_are_found_by_id_module_and_pipeline() {
        let past = past();
        let found = |name: &str| find_stage(&past, name).expect("one at most").map(|node| node.about.node);
        for (name, node) in [
            ("mkdir", 0),
            ("org.osbuild.mkdir", 0),
            ("abcde", 0),
            ("0ABCDFF", 1),
            ("tree/copy", 1),
            ("disk", 2),
            ("disk/org.osbuild.copy", 2),
            ("12", 2),
            ("012", 2),
        ] {
            assert_eq!(found(name), Some(node), "{name}");
        }
        for name in ["", "abc", "cop", "3", "tree/tar"] {
            assert_eq!(found(name), None, "{name}");
        }
        for name in ["tree", "copy", "abcd"] {
            let error = find_stage(&past, name).expect_err("two of them").to_string();
            assert!(error.contains("more than one stage") && error.contains("abcdff12"), "{error}");
        }
    }
}
