//! What an id covers: the one list of it, walked by hashing and by explaining alike.
//!
//! | in | out |
//! |---|---|
//! | every module's kind, name and revision | pipelines' names; order of pipelines, of keys, of inputs, of devices |
//! | options of stage, inputs, references, devices, mounts | positions in the manifest, its version and metadata |
//! | inputs by name: origin, references with resolved ids or checksums | sources: how an item is fetched, its size |
//! | order of references where the manifest gave a list | order of references where it gave an object |
//! | devices by name, with the name of their parent | the runner's executable that was chosen for a name |
//! | mounts in order: name, device, partition, target | |
//! | the build tree's id and its runner's name | the host's runner, without a build tree; an empty `build` |
//! | without a build tree, the tools and files of the host that the module declares, by content | the rest of the host's tree |
//! | the base's id | whether the module makes its own id part of the result (see [`crate::content`]) |
//! | the source epoch | |
//!
//! Everything is taken apart without `..`, so that a new field does not compile until it is placed in this table. Raise
//! the number in the context strings when the meaning of the list changes.

use std::fmt::Display;

use crate::id::{ItemId, StageId};
use crate::item::ItemKey;
use crate::manifest::{Manifest, Pipeline, PipelineIndex, Runner};
use crate::module::{Kind, ModuleRef, Revision};
use crate::sink::{HashSink, Sink};
use crate::stage::{Device, HostFile, Input, InputOrigin, Mount, Reference, References, Stage, Target};

const STAGE_CONTEXT: &str = "osbc stage id 1";
const ITEM_CONTEXT: &str = "osbc source item id 1";

/// What an explanation gives for the digest of a file that the host does not have.
pub const ABSENT: &str = "absent";

/// What stands for a tree among the facts of a stage: its id, its content, or its name.
pub trait TreeName: Copy + Ord {
    /// Writes the tree to a sink, as the fact `name`.
    fn write(self, name: &dyn Display, sink: &mut impl Sink);
}

impl TreeName for StageId {
    fn write(self, name: &dyn Display, sink: &mut impl Sink) {
        sink.digest(name, self.as_bytes());
    }
}

/// A stage with all that its id depends on, in ids of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a, Id> {
    /// The manifest that it stands in.
    pub manifest: &'a Manifest,
    /// Its pipeline.
    pub pipeline: &'a Pipeline,
    /// The stage itself.
    pub stage: &'a Stage,
    /// The id of the stage before it.
    pub base: Option<Id>,
    /// For every pipeline before its own, in the manifest's order, the id of the last stage; `None` without stages.
    pub trees: &'a [Option<Id>],
}

impl<Id: Copy> Facts<'_, Id> {
    /// Returns the id of an earlier pipeline's tree; `None` if it has no stages.
    pub fn tree(&self, pipeline: PipelineIndex) -> Option<Id> {
        self.trees[pipeline.0]
    }

    /// Returns the id of the build tree; `None` if the stage runs in the host's tree, as it does when the build
    /// pipeline has no stages.
    pub fn build(&self) -> Option<Id> {
        self.pipeline.build.and_then(|build| self.tree(build))
    }
}

/// The id of a stage.
pub fn stage_id(facts: &Facts<'_, StageId>) -> StageId {
    let mut sink = HashSink::new(STAGE_CONTEXT);
    identify(facts, &mut sink);
    StageId::from_bytes(sink.finish())
}

/// The id of a source item.
pub fn item_id(key: &ItemKey) -> ItemId {
    let mut sink = HashSink::new(ITEM_CONTEXT);
    sink.text(&"content type", &key.content_type);
    sink.text(&"checksum", &key.checksum);
    ItemId::from_bytes(sink.finish())
}

/// Writes all that the id of a stage covers to a sink, with trees named as the facts name them.
pub fn identify<Tree: TreeName>(facts: &Facts<'_, Tree>, sink: &mut impl Sink) {
    let Pipeline { name: _, build, empty_build: _, runner: _, source_epoch, stages: _ } = facts.pipeline;
    let Stage { module: stage_module, options, inputs, devices, mounts, host, writes_id: _ } = facts.stage;

    module(stage_module, sink);
    optional_tree("base", facts.base, sink);
    let build_tree = facts.build();
    optional_tree("build", build_tree, sink);
    if let (Some(build), Some(_)) = (build, build_tree) {
        let Runner { name, exec: _ } = &facts.manifest.pipeline(*build).runner;
        sink.text(&"runner", name);
    }
    match source_epoch {
        Some(epoch) => sink.number(&"source-epoch", *epoch),
        None => sink.absent(&"source-epoch"),
    }
    sink.value(&"options", options);

    sink.open(&"inputs");
    sink.list(inputs.len());
    for one in sorted_by_name(inputs, |input| &input.name) {
        input(one, facts, sink);
    }
    sink.close();

    sink.open(&"devices");
    sink.list(devices.len());
    for one in sorted_by_name(devices, |device| &device.name) {
        device(one, devices, sink);
    }
    sink.close();

    sink.open(&"mounts");
    sink.list(mounts.len());
    for one in mounts {
        mount(one, devices, sink);
    }
    sink.close();

    // Nothing follows, so that the ids of stages that need nothing of the host are as without this list.
    if !host.is_empty() {
        sink.open(&"host");
        sink.list(host.len());
        host.iter().for_each(|file| host_file(file, sink));
        sink.close();
    }
}

fn host_file(file: &HostFile, sink: &mut impl Sink) {
    let HostFile { name, digest } = file;
    sink.open(name);
    sink.text(&"name", name);
    match digest {
        Some(digest) => sink.digest(&"content", digest.as_bytes()),
        None => sink.variant(&"content", 0, ABSENT),
    }
    sink.close();
}

fn module(module: &ModuleRef, sink: &mut impl Sink) {
    let ModuleRef { kind, name, revision } = module;
    let number = match kind {
        Kind::Source => 0,
        Kind::Input => 1,
        Kind::Device => 2,
        Kind::Mount => 3,
        Kind::Stage => 4,
        Kind::Assembler => 5,
        Kind::Runner => 6,
    };
    sink.variant(&"kind", number, kind.directory());
    sink.text(&"type", name);
    match revision {
        Revision::BuiltIn(number) => {
            sink.variant(&"provider", 0, "built-in");
            sink.number(&"revision", i64::from(*number));
        }
        Revision::Digest(digest) => {
            sink.variant(&"provider", 1, "on disk");
            sink.digest(&"revision", digest);
        }
    }
}

fn input<Tree: TreeName>(input: &Input, facts: &Facts<'_, Tree>, sink: &mut impl Sink) {
    let Input { name, module: input_module, origin, references, options } = input;
    sink.open(name);
    sink.text(&"name", name);
    module(input_module, sink);
    let number = match origin {
        InputOrigin::Source => 0,
        InputOrigin::Pipeline => 1,
    };
    sink.variant(&"origin", number, origin.as_str());

    let References { ordered, entries } = references;
    sink.open(&"references");
    sink.variant(&"form", u8::from(*ordered), if *ordered { "list" } else { "object" });
    sink.list(entries.len());
    let mut sorted: Vec<&Reference> = entries.iter().collect();
    if !ordered {
        sorted.sort_by_key(|reference| match &reference.target {
            Target::Pipeline(index) => (facts.tree(*index), Some(*index), None),
            Target::Item(checksum) => (None, None, Some(checksum)),
        });
    }
    for (position, reference) in sorted.into_iter().enumerate() {
        let Reference { target, options } = reference;
        sink.open(&position);
        match target {
            Target::Pipeline(index) => {
                sink.variant(&"target", 0, "pipeline");
                optional_tree("id", facts.tree(*index), sink);
            }
            Target::Item(checksum) => {
                sink.variant(&"target", 1, "item");
                sink.text(&"checksum", checksum);
            }
        }
        sink.value(&"options", options);
        sink.close();
    }
    sink.close();
    sink.value(&"options", options);
    sink.close();
}

fn device(device: &Device, all: &[Device], sink: &mut impl Sink) {
    let Device { name, module: device_module, parent, options } = device;
    sink.open(name);
    sink.text(&"name", name);
    module(device_module, sink);
    optional_text("parent", parent.map(|index| all[index].name.as_str()), sink);
    sink.value(&"options", options);
    sink.close();
}

fn mount(mount: &Mount, devices: &[Device], sink: &mut impl Sink) {
    let Mount { name, module: mount_module, source, partition, target, options } = mount;
    sink.open(name);
    sink.text(&"name", name);
    module(mount_module, sink);
    optional_text("source", source.map(|index| devices[index].name.as_str()), sink);
    optional_text("partition", partition.as_ref().map(|number| number.as_str()), sink);
    optional_text("target", target.as_deref(), sink);
    sink.value(&"options", options);
    sink.close();
}

fn optional_tree(name: &str, tree: Option<impl TreeName>, sink: &mut impl Sink) {
    match tree {
        Some(tree) => tree.write(&name, sink),
        None => sink.absent(&name),
    }
}

fn optional_text(name: &str, text: Option<&str>, sink: &mut impl Sink) {
    match text {
        Some(text) => sink.text(&name, text),
        None => sink.absent(&name),
    }
}

fn sorted_by_name<T>(items: &[T], name: impl Fn(&T) -> &String) -> Vec<&T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_unstable_by(|one, other| name(one).cmp(name(other)));
    sorted
}
