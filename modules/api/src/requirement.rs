//! What a module needs of the machine, declared so that missing things can be reported before anything runs.

use osbc_ir::Value;

/// Something that a module needs.
///
/// Tools are those of the build root, which is the host's tree if a pipeline has none, unless said otherwise. What a
/// stage takes from the host's tree is part of its id ([`crate::host`]).
#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    /// A tool that it calls whatever its options are.
    Tool(&'static str),
    /// A tool that it calls for options for which the function returns true.
    ToolFor(&'static str, fn(&Value) -> bool),
    /// A tool that it calls for what it finds in trees or inputs, which nobody knows before.
    MayCall(&'static str),
    /// A file or directory of the build root that it reads if it is there, by its absolute path.
    File(&'static str),
    /// Tools that its options name, and files and directories of the build root, by their absolute paths, that it reads
    /// for these options if they are there.
    Named(fn(&Value) -> Vec<String>),
    /// Programs of the tree, which run as in a container.
    TreePrograms,
    /// A tool of the host, whatever the build root is.
    HostTool(&'static str),
    /// So many loop devices for these options, which only the machine's root has.
    LoopDevices(fn(&Value) -> u64),
    /// The kernel's device mapper.
    DeviceMapper,
    /// A file system that the kernel must know, e.g. `ext4`.
    FileSystem(&'static str),
    /// A tree that is a plain directory for these options: the module makes overlayfs layers of its own in it, or what no
    /// layer can hold.
    PlainTree(fn(&Value) -> bool),
    /// The stage's own id, which becomes part of its result: so the result of an equal stage with another id is no
    /// substitute for it.
    OwnId,
}

impl Requirement {
    /// Returns the name of the tool that it is about; `None` if it is about something else.
    pub fn tool(&self) -> Option<&'static str> {
        match self {
            Requirement::Tool(name)
            | Requirement::ToolFor(name, _)
            | Requirement::MayCall(name)
            | Requirement::HostTool(name) => Some(name),
            Requirement::File(_)
            | Requirement::Named(_)
            | Requirement::TreePrograms
            | Requirement::LoopDevices(_)
            | Requirement::DeviceMapper
            | Requirement::FileSystem(_)
            | Requirement::PlainTree(_)
            | Requirement::OwnId => None,
        }
    }

    /// Returns whether it is about the kernel, and so the same for every program that does what the module does.
    pub fn is_of_kernel(&self) -> bool {
        matches!(
            self,
            Requirement::LoopDevices(_)
                | Requirement::DeviceMapper
                | Requirement::FileSystem(_)
                | Requirement::PlainTree(_)
        )
    }

    /// Returns how many loop devices a module with these options opens.
    pub fn loop_devices(&self, options: &Value) -> u64 {
        match self {
            Requirement::LoopDevices(count) => count(options),
            _ => 0,
        }
    }

    /// Returns whether a module with these options needs a tree that is a plain directory.
    pub fn plain_tree(&self, options: &Value) -> bool {
        matches!(self, Requirement::PlainTree(needs) if needs(options))
    }

    /// Returns what a module with these options takes from the tree that it runs in: names of tools, and absolute
    /// paths.
    pub fn takes(&self, options: &Value) -> Vec<String> {
        match self {
            Requirement::Tool(name) | Requirement::MayCall(name) | Requirement::File(name) => vec![(*name).to_owned()],
            Requirement::ToolFor(name, calls) if calls(options) => vec![(*name).to_owned()],
            Requirement::Named(names) => names(options),
            Requirement::ToolFor(..)
            | Requirement::TreePrograms
            | Requirement::HostTool(_)
            | Requirement::LoopDevices(_)
            | Requirement::DeviceMapper
            | Requirement::FileSystem(_)
            | Requirement::PlainTree(_)
            | Requirement::OwnId => Vec::new(),
        }
    }
}
