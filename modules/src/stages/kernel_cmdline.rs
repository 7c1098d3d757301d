//! Sets the command line of the kernel.
//!
//! Writes `/etc/kernel/cmdline`, which the tools that install kernels read, anew where it is there. It may be as long as the
//! kernels of the build machine's architecture take, or `kernel_cmdline_size`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.kernel-cmdline",
//!   "options": { "root_fs_uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d", "kernel_opts": "ro quiet" }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.kernel-cmdline",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"root_fs_uuid": "x"}}"#,
        r#"{"options": {"kernel_opts": ["a"]}}"#,
        r#"{"options": {"kernel_cmdline_size": 255}}"#,
        r#"{"options": {"kernel_cmdline_size": 4097}}"#,
        r#"{"options": {"kernel_cmdline_size": 512.5}}"#,
        r#"{"options": {"root": "a"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// UUID of the root file system.
    #[serde(default)]
    #[schemars(extend("oneOf" = [
        {"pattern": "^[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}$"},
        {"pattern": "^[0-9A-Za-z]{4}-[0-9A-Za-z]{4}$"},
    ]))]
    root_fs_uuid: String,
    /// Further options.
    #[serde(default)]
    kernel_opts: String,
    /// How long the command line may be.
    #[schemars(range(min = 256, max = 4096))]
    kernel_cmdline_size: Option<i64>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { root_fs_uuid, kernel_opts, kernel_cmdline_size } = cx.options()?;
    let root = if root_fs_uuid.is_empty() { String::new() } else { format!("root=UUID={root_fs_uuid}") };
    let words: Vec<String> = [root, kernel_opts].into_iter().filter(|words| !words.is_empty()).collect();
    let line = words.join(" ");
    let machine = rustix::system::uname().machine().to_string_lossy().to_lowercase();
    let most = kernel_cmdline_size.and_then(|size| usize::try_from(size).ok()).unwrap_or_else(|| most_on(&machine));
    let length = line.chars().count();
    if length > most {
        return Err(Error::failed(format!(
            "the kernel's command line has {length} characters, but {most} is the most"
        )));
    }
    cx.tree.create_dir_all("etc/kernel", 0o777)?;
    cx.tree.write("etc/kernel/cmdline", line)
}

/// The kernel's `COMMAND_LINE_SIZE` on an architecture.
fn most_on(machine: &str) -> usize {
    match machine {
        "arm" | "riscv" => 1024,
        "x86_64" | "i386" | "aarch64" | "powerpc" | "ppc64" => 2048,
        _ => 4096,
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/kernel/cmdline";

    #[test]
    fn the_root_comes_first() {
        let uuid = "9c6ae55b-cf88-45b8-84e8-64990759f39d";
        let done = Case::new(&MODULE).run(json!({"root_fs_uuid": uuid, "kernel_opts": "ro quiet"})).ok();
        assert_eq!(done.text(FILE), format!("root=UUID={uuid} ro quiet"));
        let done = Case::new(&MODULE).file(FILE, "old").run(json!({})).ok();
        assert_eq!(done.text(FILE), "");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let options = |length: usize| json!({"kernel_opts": "ä".repeat(length), "kernel_cmdline_size": 256});
        assert_eq!(Case::new(&MODULE).run(options(256)).ok().text(FILE).chars().count(), 256);
        let reason = "the kernel's command line has 257 characters, but 256 is the most";
        assert_eq!(Case::new(&MODULE).run(options(257)).err(), reason);
        assert_eq!((most_on("x86_64"), most_on("riscv"), most_on("s390x")), (2048, 1024, 4096));
    }
}
