//! Checks what no schema can express: that every name exists, and leads to something earlier. osbuild notices most of
//! this while loading.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use osbc_ir::{FormatVersion, InputOrigin, Kind, is_file_name};
use osbc_module_api::runner::choose;

use super::devices::{self, Fault};
use super::modules::Modules;
use super::suggest::{Suggestions, alternatives, did_you_mean};
use crate::description::{Description, Input, Mount, Pipeline, Stage};
use crate::format::v1::source_module;
use crate::place::{Key, Place};
use crate::problem::{Anchor, Code, Phase, Problem, Problems};

/// The input module to which a pipeline without stages is an empty tree.
const TREE_INPUT: &str = "org.osbuild.tree";

/// The mount module that mounts nothing.
const NO_MOUNT: &str = "org.osbuild.noop";

/// Checks every name of a manifest.
pub(crate) fn check(description: &Description, modules: &mut Modules<'_>, runners: &[String], problems: &mut Problems) {
    let mut pipelines = HashMap::new();
    for (index, pipeline) in description.pipelines.iter().enumerate() {
        if let Some(name) = &pipeline.name {
            pipelines.entry(name.as_str()).or_insert(index);
        }
    }
    let items = description.sources.iter().flat_map(|source| source.items.keys()).map(String::as_str).collect();
    let mut check = Check { description, pipelines, items, runners, problems, suggestions: Suggestions::default() };
    if description.version == FormatVersion::V1 {
        check.v1_sources();
        check.implied_modules(modules);
    }
    check.item_keys();
    for (index, pipeline) in description.pipelines.iter().enumerate() {
        if check.problems.is_full() {
            return;
        }
        check.pipeline(index, pipeline);
        for stage in &pipeline.stages {
            check.devices(stage);
            check.mounts(stage);
            for input in &stage.inputs {
                check.input(index, input);
            }
        }
    }
}

struct Check<'a> {
    description: &'a Description,
    /// The first pipeline of each name.
    pipelines: HashMap<&'a str, usize>,
    items: HashSet<&'a str>,
    runners: &'a [String],
    problems: &'a mut Problems,
    suggestions: Suggestions,
}

impl<'a> Check<'a> {
    fn load(&mut self, code: Code, place: Place, message: String, label: &str, help: Option<String>) {
        self.problems.push(Problem::new(code, Phase::Load, place, message).label(label).help(help));
    }

    fn suggest<'n>(&mut self, written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
        self.suggestions.look(|| did_you_mean(written, names))
    }

    /// Version 1 knows three kinds of sources.
    fn v1_sources(&mut self) {
        for source in &self.description.sources {
            let (name, items) = source_module(&source.module);
            let help = "format 1 has the sources org.osbuild.files, org.osbuild.ostree and org.osbuild.librepo";
            let (message, help) = match items {
                None => (format!("format 1 has no source `{name}`"), Some(help.to_owned())),
                Some(key) if source.options.get(key).is_none() => (format!("the source `{name}` has no `{key}`"), None),
                Some(_) => continue,
            };
            let problem = Problem::new(Code::UnknownSource, Phase::Load, source.place.clone(), message);
            self.problems.push(problem.at(Anchor::Key(source.place.clone())).label("here").help(help));
        }
    }

    /// Stores name files by the keys of items.
    fn item_keys(&mut self) {
        for source in &self.description.sources {
            let items = match self.description.version {
                FormatVersion::V1 => source_module(&source.module).1.unwrap_or_default(),
                FormatVersion::V2 => "items",
            };
            for key in source.items.keys().filter(|key| !is_file_name(key)) {
                let place = source.place.with(items.to_owned()).with(key.clone());
                let message = format!("`{key}` cannot be the key of an item: it is not the name of a file");
                let problem = Problem::new(Code::ItemKey, Phase::Load, place.clone(), message);
                let help = "name the item by the checksum of its content, `ALGORITHM:HEX`".to_owned();
                self.problems.push(problem.at(Anchor::Key(place)).label("not a checksum").help(Some(help)));
            }
        }
    }

    /// Version 1 adds inputs without naming their modules.
    fn implied_modules(&mut self, modules: &mut Modules<'_>) {
        for stage in self.description.pipelines.iter().flat_map(|pipeline| &pipeline.stages) {
            for input in &stage.inputs {
                self.problems.extend(modules.require(Kind::Input, &input.module, &stage.place));
            }
        }
    }

    fn pipeline(&mut self, index: usize, pipeline: &Pipeline) {
        let place = &pipeline.place;
        match &pipeline.name {
            None if pipeline.unnamed => {
                let message = "a pipeline has no name".to_owned();
                let help = Some("give it a `name`, by which others and exports refer to it".to_owned());
                self.load(Code::UnnamedPipeline, place.clone(), message, "`name` is missing", help);
            }
            Some(name) if self.pipelines.get(name.as_str()).is_some_and(|first| *first != index) => {
                let message = format!("there are two pipelines `{name}`");
                let first = &self.description.pipelines[self.pipelines[name.as_str()]].place;
                let help = Some(format!("the first one is `{first}`"));
                self.load(Code::DuplicatePipeline, place.with("name"), message, "this name is taken", help);
            }
            None => {
                let message = "the name of a pipeline is a string".to_owned();
                self.load(Code::UnnamedPipeline, place.with("name"), message, "expected string", None);
            }
            Some(_) => {}
        }
        if let Some(build) = pipeline.build.as_ref().filter(|build| !build.is_empty()) {
            let place = place.with("build");
            if build.starts_with("name:") {
                self.reference(index, build, place);
            } else {
                let message = format!("`{build}` does not name a build pipeline");
                let help = match self.pipelines.contains_key(build.as_str()) {
                    true => format!("write \"name:{build}\""),
                    false => "write \"name:\" and the name of an earlier pipeline".to_owned(),
                };
                self.load(Code::InvalidBuild, place, message, "has no `name:` in front", Some(help));
            }
        }
        if let Some((runner, place)) = &pipeline.runner
            && choose(runner, self.runners.iter().map(String::as_str)).is_none()
        {
            let message = format!("there is no runner for `{runner}`");
            let help = self.runner_help(runner);
            self.load(Code::UnknownRunner, place.clone(), message, "no runner fits", Some(help));
        }
        if let Some(epoch) = &pipeline.source_epoch
            && !epoch.as_str().contains(['.', 'e'])
            && epoch.as_i64().is_none()
        {
            let message = format!("source-epoch {} is out of range", osbc_pytext::repr::repr(&epoch.clone().into()));
            let help = Some("seconds since 1970".to_owned());
            self.load(Code::SourceEpoch, place.with("source-epoch"), message, "more than 64 bits", help);
        }
    }

    /// What to write instead of a runner that there is none for: one of its distribution, or of one that is called
    /// almost alike.
    fn runner_help(&mut self, wanted: &str) -> String {
        fn distribution(name: &str) -> &str {
            name.trim_end_matches(|char: char| char.is_ascii_digit())
        }
        let known = self.runners.iter().map(String::as_str);
        let same = known.clone().filter(|name| distribution(name) == distribution(wanted));
        if let Some(help) = alternatives("only for later versions there are", same) {
            return help;
        }
        self.suggest(distribution(wanted), known.map(distribution)).unwrap_or_else(|| {
            "a runner fits if the distribution is the same and its version not above the wanted one".to_owned()
        })
    }

    /// An earlier pipeline by `name:`.
    fn reference(&mut self, from: usize, reference: &str, place: Place) -> Option<&'a Pipeline> {
        let description = self.description;
        let name = reference.strip_prefix("name:")?;
        match self.pipelines.get(name).copied() {
            Some(index) if index < from => return Some(&description.pipelines[index]),
            Some(index) => {
                let message = if index == from {
                    format!("the pipeline `{name}` refers to itself")
                } else {
                    format!("the pipeline `{name}` comes later")
                };
                let help = "references only reach back; move the pipeline that is referred to before this one";
                self.load(Code::ForwardReference, place, message, "not an earlier pipeline", Some(help.to_owned()));
            }
            None => {
                let earlier = description.pipelines[..from].iter().filter_map(|pipeline| pipeline.name.as_deref());
                let help = self.suggest(name, earlier.clone()).or_else(|| alternatives("earlier pipelines", earlier));
                let message = format!("there is no pipeline `{name}`");
                self.load(Code::UnknownPipeline, place, message, "no pipeline has this name", help);
            }
        }
        None
    }

    /// What names a pipeline but for the `name:` in front; osbuild drops it, so that the input has nothing. Anything else
    /// without `name:` is dropped here too.
    fn no_reference(&mut self, written: &str, place: Place) {
        if self.pipelines.contains_key(written) {
            let message = format!("`{written}` does not name a pipeline");
            let help = Some(format!("write \"name:{written}\""));
            self.load(Code::UnknownPipeline, place, message, "has no `name:` in front", help);
        }
    }

    fn input(&mut self, from: usize, input: &Input) {
        for reference in &input.references {
            let place = || input.place.with(reference.key.clone());
            match input.origin {
                InputOrigin::Pipeline => {
                    let Some(name) = reference.id.strip_prefix("name:") else {
                        self.no_reference(&reference.id, place());
                        continue;
                    };
                    let target = self.reference(from, &reference.id, place());
                    if target.is_some_and(|target| target.stages.is_empty()) && input.module != TREE_INPUT {
                        let message = format!("the pipeline `{name}` has no stages, so there is no tree to read");
                        let help = format!("only inputs of type {TREE_INPUT} take it for an empty tree");
                        self.load(Code::EmptyPipeline, place(), message, "an empty pipeline", Some(help));
                    }
                }
                InputOrigin::Source => {
                    if self.items.contains(reference.id.as_str()) {
                        continue;
                    }
                    if self.problems.is_full() {
                        continue;
                    }
                    let items = self.description.sources.iter().flat_map(|one| one.items.keys()).map(String::as_str);
                    let help = self.suggest(&reference.id, items).or_else(|| Some("add it to a source".to_owned()));
                    let message = format!("no source has the item `{}`", reference.id);
                    let anchor = match reference.key {
                        Key::Name(_) if input.ordered => Anchor::Value(place()),
                        Key::Name(_) => Anchor::Key(place()),
                        Key::Index(_) => Anchor::Value(place()),
                    };
                    let problem = Problem::new(Code::UnknownItem, Phase::Load, place(), message);
                    self.problems.push(problem.at(anchor).label("not in any source").help(help));
                }
            }
        }
    }

    fn devices(&mut self, stage: &Stage) {
        for fault in devices::order(&stage.devices).err().unwrap_or_default() {
            let (Fault::MissingParent(position) | Fault::Cycle(position)) = fault;
            let device = &stage.devices[position];
            let parent = device.parent.as_deref().unwrap_or_default();
            let place = stage.place.with("devices").with(device.name.clone()).with("parent");
            match fault {
                Fault::MissingParent(_) => {
                    let help = self.suggest(parent, stage.devices.iter().map(|device| device.name.as_str()));
                    let message = format!("the device `{}` lies on `{parent}`, which is not there", device.name);
                    self.load(Code::UnknownDevice, place, message, "the stage has no such device", help);
                }
                Fault::Cycle(_) => {
                    let message = format!("the device `{}` is its own parent", device.name);
                    let help = "one of the devices in the cycle must do without a parent".to_owned();
                    self.load(Code::DeviceCycle, place, message, "a cycle of devices", Some(help));
                }
            }
        }
    }

    fn mounts(&mut self, stage: &Stage) {
        let mut names = HashSet::new();
        self.hidden_mounts(stage);
        for mount in &stage.mounts {
            let place = stage.place.with("mounts").with(mount.index);
            if !names.insert(mount.name.as_str()) {
                let message = format!("there are two mounts `{}`", mount.name);
                let help = "the names of a stage's mounts have to differ".to_owned();
                self.load(Code::DuplicateMount, place.with("name"), message, "this name is taken", Some(help));
            }
            if let Some(source) = &mount.source
                && !stage.devices.iter().any(|device| device.name == *source)
            {
                let help = self.suggest(source, stage.devices.iter().map(|device| device.name.as_str()));
                let message = format!("the mount `{}` is of `{source}`, which is no device of the stage", mount.name);
                self.load(Code::UnknownDevice, place.with("source"), message, "the stage has no such device", help);
            }
        }
    }

    /// A mount at or above where an earlier one is: what is written there no longer reaches the earlier one's
    /// partition.
    fn hidden_mounts(&mut self, stage: &Stage) {
        let mut there: Vec<(&str, PathBuf)> = Vec::new();
        for mount in &stage.mounts {
            let Some(target) =
                mount.target.as_deref().filter(|target| mounts_a_device(mount) && !target.contains("://"))
            else {
                continue;
            };
            let names = Path::new(target).components().filter(|part| matches!(part, Component::Normal(_)));
            let path: PathBuf = Path::new("/").join(names.collect::<PathBuf>());
            if let Some((hidden, below)) = there.iter().find(|(_, below)| below.starts_with(&path)) {
                let place = stage.place.with("mounts").with(mount.index).with("target");
                let message = format!("the mount `{}` hides the mount `{hidden}`", mount.name);
                let help = match *below == path {
                    true => format!("both are at {}; give one of them another target", path.display()),
                    false => format!("put it before `{hidden}`, which is at {}", below.display()),
                };
                self.load(Code::HiddenMount, place, message, "an earlier mount is here or below", Some(help));
            }
            there.push((&mount.name, path));
        }
    }
}

/// Whether a mount lays the file system of a device over what is at its target.
fn mounts_a_device(mount: &Mount) -> bool {
    mount.source.is_some() && mount.module != NO_MOUNT
}
