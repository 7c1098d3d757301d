//! What a module declares to need of the machine, so that what is missing can be said before anything runs.

use osbc_ir::Value;

/// Something that a module needs.
///
/// Tools are those of the build root, which is the host's tree where a pipeline has none, unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    /// A tool that it calls whatever its options are.
    Tool(&'static str),
    /// A tool that it calls for options for which the function returns true.
    ToolFor(&'static str, fn(&Value) -> bool),
    /// A tool that it calls for what it finds in trees or inputs, which nobody knows before.
    MayCall(&'static str),
    /// A tool of the host, whatever the build root is.
    HostTool(&'static str),
    /// Loop devices, which only the machine's root has.
    LoopDevices,
    /// The kernel's device mapper.
    DeviceMapper,
    /// A file system that the kernel must know, e.g. `ext4`.
    FileSystem(&'static str),
}

impl Requirement {
    /// Returns the name of the tool that it is about; `None` if it is about something else.
    pub fn tool(&self) -> Option<&'static str> {
        match self {
            Requirement::Tool(name)
            | Requirement::ToolFor(name, _)
            | Requirement::MayCall(name)
            | Requirement::HostTool(name) => Some(name),
            Requirement::LoopDevices | Requirement::DeviceMapper | Requirement::FileSystem(_) => None,
        }
    }
}
