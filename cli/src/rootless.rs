//! Who builds: root, or a user who is root in a namespace of their own; and which stages only the former can run.

use std::sync::OnceLock;

use osbc_executor::rootless::{Ids, Obstacle, enter, in_namespace};
use osbc_ir::{Kind, Plan, Stage};

use crate::exit::Failure;
use crate::render;

/// Modules that make loop devices of their own, without any in the manifest.
const WITH_LOOP_DEVICES: [(Kind, &str); 3] = [
    (Kind::Assembler, "org.osbuild.qemu"),
    (Kind::Assembler, "org.osbuild.rawfs"),
    (Kind::Stage, "org.osbuild.coreos.live-artifacts.mono"),
];

/// So many stages are named that cannot run.
const NAMED: usize = 3;

/// Who started this process, as far as building goes.
#[derive(Debug)]
pub(crate) enum User {
    /// Root, of the machine or of a container.
    Root,
    /// Another user, who is root in a namespace by now.
    Mapped(Ids),
    /// Another user, and why they cannot be root in a namespace.
    Unmapped(Obstacle),
}

static USER: OnceLock<User> = OnceLock::new();

/// Makes an ordinary user root in a namespace of their own, for good, and says who they are. The first call must be made
/// before any thread is started.
pub(crate) fn become_root() -> &'static User {
    USER.get_or_init(|| {
        if rustix::process::geteuid().is_root() {
            return User::Root;
        }
        match enter() {
            Ok(()) => User::Mapped(Ids::current()),
            Err(obstacle) => User::Unmapped(obstacle),
        }
    })
}

/// Whether root started this process: of the machine, or of a container.
pub(crate) fn is_root() -> bool {
    USER.get().map_or_else(|| rustix::process::geteuid().is_root(), |user| matches!(user, User::Root))
}

/// Makes sure that this process may do what building takes.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(crate) fn require_root() -> Result<(), Failure> {
    match become_root() {
        User::Root | User::Mapped(_) => Ok(()),
        User::Unmapped(obstacle) => Err(Failure::environment(format!(
            "building takes root, or a user namespace with ids put aside for you: {obstacle}; {}; or run osbc as root. `osbc \
             plan` needs neither",
            obstacle.remedy()
        ))),
    }
}

/// Finds out before anything starts whether this user can do what a plan says.
///
/// # Errors
/// Which stages cannot run, and what to use instead.
pub(crate) fn check(plan: &Plan) -> Result<(), Failure> {
    out_of_reach(plan).map_or(Ok(()), |reason| Err(Failure::environment(reason)))
}

/// Why a plan cannot be run by this user, where it needs devices: no user but the machine's root has any.
pub(crate) fn out_of_reach(plan: &Plan) -> Option<String> {
    if is_root() && !in_namespace() {
        return None;
    }
    let steps = plan.segments.iter().flat_map(|segment| &segment.steps);
    let mut stages: Vec<String> = steps
        .filter_map(|node| Some(plan.graph.stage(plan.graph.stage_node(*node)?)))
        .filter(|(_, stage)| needs_devices(stage))
        .map(|(pipeline, stage)| format!("{} of the pipeline `{}`", stage.module.name, pipeline.name))
        .collect();
    stages.dedup();
    let more = stages.len().saturating_sub(NAMED);
    stages.truncate(NAMED);
    if more > 0 {
        stages.push(render::count(more, "other stage"));
    }
    (!stages.is_empty()).then(|| {
        format!(
            "loop devices and what lies on them are root's alone, and these stages need them: {}; run osbc as root, or use \
             org.osbc.disk, which writes a whole disk with its file systems without devices (and org.osbc.fat.populate for \
             a FAT file system by itself)",
            stages.join(", ")
        )
    })
}

fn needs_devices(stage: &Stage) -> bool {
    !stage.devices.is_empty() || WITH_LOOP_DEVICES.contains(&(stage.module.kind, stage.module.name.as_str()))
}
