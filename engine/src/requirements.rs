//! Checks, before anything runs, what the stages and downloads of a plan need of this machine.
//!
//! The modules declare it ([`Requirement`]). The tools of a build root are in a tree that does not exist yet; only
//! their stage can check them.

use std::collections::{BTreeMap, BTreeSet};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{ModuleRef, Plan, Stage, Value};
use osbc_module_api::{Catalog, LibraryError, Requirement, Tool, packages_of};
use osbc_sandbox::probe;
use osbc_store::user_namespace::in_namespace;

/// So many stages are named of those that need the same.
const NAMED: usize = 3;

/// Something that a machine has or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    LoopDevices,
    DeviceMapper,
    FileSystem(&'static str),
    Tool(&'static str),
    HostTool(&'static str),
}

/// Something that stages or downloads need of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// What it is and who needs it, e.g. "the tool `mkswap`, for org.osbuild.mkswap of the pipeline `swap`".
    pub name: String,
    /// How to get it; `None` if it is here.
    pub remedy: Option<String>,
}

/// Returns everything that a plan needs of this machine, each with the stages and sources that need it.
///
/// # Errors
/// A module cannot be described.
pub(crate) fn needed(plan: &Plan, catalog: &Catalog, in_vm: &BTreeSet<NodeIndex>) -> Result<Vec<Needed>, LibraryError> {
    let mut all = Vec::new();
    if !plan.segments.is_empty() {
        let way_out = "mount one, such as the host's with `mount --rbind /dev` from outside of a chroot";
        all.push(Needed {
            name: "a /dev with the usual nodes".to_owned(),
            remedy: probe::node("/dev/null").err().map(|error| format!("/dev/null: {error}; {way_out}")),
        });
        let way_out = "in a container, start it with --privileged";
        all.push(Needed {
            name: "namespaces, which every stage gets".to_owned(),
            remedy: probe::namespaces().err().map(|error| format!("{error}; {way_out}")),
        });
    }
    let needs = needs(plan, catalog, in_vm)?;
    all.extend(needs.iter().map(|(need, users)| Needed { name: need.name(users), remedy: need.remedy() }));
    Ok(all)
}

/// Returns what this machine lacks for a plan, with who needs it and how to get it; `None` if it has everything.
///
/// # Errors
/// A module cannot be described.
pub(crate) fn missing(
    plan: &Plan,
    catalog: &Catalog,
    in_vm: &BTreeSet<NodeIndex>,
) -> Result<Option<String>, LibraryError> {
    let lacking = |needed: Needed| Some(format!("{}: {}", needed.name, needed.remedy?));
    let missing: Vec<String> = needed(plan, catalog, in_vm)?.into_iter().filter_map(lacking).collect();
    Ok(match missing.as_slice() {
        [] => None,
        [only] => Some(format!("this machine lacks what the build needs: {only}")),
        several => Some(format!("this machine lacks what the build needs:\n  {}", several.join("\n  "))),
    })
}

/// All needs of what a plan runs and fetches, each with the stages and sources that have it.
fn needs(
    plan: &Plan,
    catalog: &Catalog,
    in_vm: &BTreeSet<NodeIndex>,
) -> Result<BTreeMap<Need, Vec<String>>, LibraryError> {
    let graph = &plan.graph;
    let mut needs = Needs { catalog, found: BTreeMap::new() };
    for node in plan.segments.iter().flat_map(|segment| &segment.steps) {
        let Some(stage_node) = graph.stage_node(*node) else { continue };
        let (pipeline, stage) = graph.stage(stage_node);
        let of_host = pipeline.build.is_none_or(|build| graph.manifest.pipeline(build).stages.is_empty());
        let user = format!("{} of the pipeline `{}`", stage.module.name, pipeline.name);
        needs.add_stage(stage, of_host, in_vm.contains(node), &user)?;
    }
    for item in plan.fetches.iter().filter_map(|node| graph.item_node(*node)) {
        let module = &graph.item(item).0.module;
        needs.add(module, &Value::Null, Place::Host, &module.name)?;
    }
    Ok(needs.found)
}

/// Where a module works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the host's tree, with the host's kernel.
    Host,
    /// In a build root that is yet to be made.
    BuildRoot,
    /// In the host's tree, with a kernel of its own.
    Machine,
}

struct Needs<'a> {
    catalog: &'a Catalog,
    found: BTreeMap<Need, Vec<String>>,
}

impl Needs<'_> {
    fn add_stage(&mut self, stage: &Stage, of_host: bool, in_vm: bool, user: &str) -> Result<(), LibraryError> {
        let around = if in_vm { Place::Machine } else { Place::Host };
        let own = if of_host { around } else { Place::BuildRoot };
        self.add(&stage.module, &stage.options, own, user)?;
        for input in &stage.inputs {
            self.add(&input.module, &input.options, around, user)?;
        }
        for device in &stage.devices {
            self.add(&device.module, &device.options, around, user)?;
        }
        for mount in &stage.mounts {
            self.add(&mount.module, &mount.options, around, user)?;
        }
        Ok(())
    }

    fn add(&mut self, module: &ModuleRef, options: &Value, place: Place, user: &str) -> Result<(), LibraryError> {
        let Some(found) = self.catalog.module(module.kind, &module.name)? else { return Ok(()) };
        for requirement in &found.requires {
            let need = match requirement {
                Requirement::LoopDevices(count) if count(options) == 0 => continue,
                Requirement::LoopDevices(_) => Need::LoopDevices,
                Requirement::DeviceMapper => Need::DeviceMapper,
                Requirement::FileSystem(name) => Need::FileSystem(name),
                Requirement::HostTool(name) => Need::HostTool(name),
                Requirement::ToolFor(_, calls) if !calls(options) => continue,
                Requirement::Tool(_) | Requirement::ToolFor(..) if place == Place::BuildRoot => continue,
                Requirement::Tool(name) | Requirement::ToolFor(name, _) => Need::Tool(name),
                Requirement::MayCall(_)
                | Requirement::File(_)
                | Requirement::Named(_)
                | Requirement::TreePrograms
                | Requirement::PlainTree(_)
                | Requirement::OwnId => continue,
            };
            if requirement.is_of_kernel() && place == Place::Machine {
                continue;
            }
            let users = self.found.entry(need).or_default();
            if users.last().is_none_or(|last| last != user) {
                users.push(user.to_owned());
            }
        }
        Ok(())
    }
}

impl Need {
    /// What it is and who needs it.
    fn name(self, users: &[String]) -> String {
        let mut named: Vec<String> = users.iter().take(NAMED).cloned().collect();
        let more = users.len() - named.len();
        if more > 0 {
            named.push(format!("{more} other stage{}", if more == 1 { "" } else { "s" }));
        }
        let named = named.join(", ");
        match self {
            Need::LoopDevices => format!("loop devices, for {named}"),
            Need::DeviceMapper => format!("the device mapper, for {named}"),
            Need::FileSystem(name) => format!("the file system {name} in the kernel, for {named}"),
            Need::Tool(name) | Need::HostTool(name) => format!("the tool `{name}`, for {named}"),
        }
    }

    /// Returns how to get it; `None` if it is here.
    fn remedy(self) -> Option<String> {
        match self {
            Need::LoopDevices | Need::DeviceMapper if !rustix::process::geteuid().is_root() || in_namespace() => Some(
                "devices are root's alone; run osbc as root, or use org.osbc.disk, which writes a whole disk with its \
                 file systems without devices (and org.osbc.fat.populate for a FAT file system by itself)"
                    .to_owned(),
            ),
            Need::LoopDevices => probe::node("/dev/loop-control")
                .err()
                .map(|error| format!("/dev/loop-control: {error}; `modprobe loop`, and in a container --privileged")),
            Need::DeviceMapper => probe::node("/dev/mapper/control").err().map(|error| {
                format!("/dev/mapper/control: {error}; `modprobe dm_mod`, and in a container --privileged")
            }),
            Need::FileSystem(name) => matches!(probe::file_system(name), Ok(false))
                .then(|| format!("`modprobe {name}`; the module is in the kernel's package")),
            Need::Tool(name) => Tool::find(name).err().map(|_| format!("install {}", packages_of(name))),
            Need::HostTool(name) => Tool::of_host(name).err().map(|_| format!("install {}", packages_of(name))),
        }
    }
}

#[cfg(test)]
mod tests;
