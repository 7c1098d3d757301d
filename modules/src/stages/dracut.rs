//! Creates initial RAM file systems.
//!
//! The tree's own `dracut`, or with `initoverlayfs` its `initoverlayfs-install`, is run for each kernel, in a chroot of
//! the tree. While it runs, the tree's `logger` does nothing: there is no system log to write to.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dracut",
//!   "options": { "kernel": ["6.12.0-55.el10.x86_64"], "compress": "xz", "add_modules": ["lvm", "crypt"] }
//! }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::{CapabilitySet, Program};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dracut",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"kernel": "6.12"}}"#,
        r#"{"options": {"kernel": ["6.12"], "compress": 1}}"#,
        r#"{"options": {"kernel": ["6.12"], "modules": [1]}}"#,
        r#"{"options": {"kernel": ["6.12"], "include": ["a"]}}"#,
        r#"{"options": {"kernel": ["6.12"], "reproducible": "yes"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The versions of the kernels
    kernel: Vec<String>,
    /// How the result is compressed
    #[serde(default)]
    compress: String,
    /// The only modules of dracut
    #[serde(default)]
    modules: Vec<String>,
    /// More modules of dracut
    #[serde(default)]
    add_modules: Vec<String>,
    /// Modules of dracut that are left out
    #[serde(default)]
    omit_modules: Vec<String>,
    /// The only modules of the kernel
    #[serde(default)]
    drivers: Vec<String>,
    /// More modules of the kernel
    #[serde(default)]
    add_drivers: Vec<String>,
    /// Modules of the kernel that are left out
    #[serde(default)]
    omit_drivers: Vec<String>,
    /// Modules of the kernel that are loaded early
    #[serde(default)]
    force_drivers: Vec<String>,
    /// The only modules of file systems
    #[serde(default)]
    filesystems: Vec<String>,
    /// Files and directories that are put in, with where they go
    #[serde(default)]
    include: Vec<Map<String, Value>>,
    /// Files that are put in with what they need
    #[serde(default)]
    install: Vec<String>,
    /// Files that are taken out
    #[serde(default)]
    remove: Vec<String>,
    /// Whether the processor's microcode is put in
    #[serde(default)]
    early_microcode: bool,
    /// Whether the same input gives the same result
    #[serde(default = "yes")]
    reproducible: bool,
    /// Whether it becomes an initoverlayfs
    #[serde(default)]
    initoverlayfs: bool,
    /// More arguments
    #[serde(default)]
    extra: Vec<String>,
}

fn yes() -> bool {
    true
}

const LOGGER: &str = "usr/bin/logger";

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let program = if options.initoverlayfs { "/usr/bin/initoverlayfs-install" } else { "/usr/bin/dracut" };
    let arguments = arguments(&options)?;
    for kernel in &options.kernel {
        // It puts /dev/console and others into the image; in the tree they do not work.
        let mut program = Program::find(&cx.tree, program)?.may(CapabilitySet::MKNOD);
        if cx.tree.exists(LOGGER)? {
            program = program.cover(LOGGER, "usr/bin/true");
        }
        program.args(["--no-hostonly", "--kver", kernel]).args(&arguments).run()?;
    }
    Ok(())
}

fn arguments(options: &Options) -> Result<Vec<String>, Error> {
    let switch = |name: &str, on: bool| format!("--{}{name}", if on { "" } else { "no-" });
    let mut arguments = ["--force", "-v", "--show-modules"].map(str::to_owned).to_vec();
    arguments.push(switch("early-microcode", options.early_microcode));
    arguments.push(switch("reproducible", options.reproducible));
    if !options.compress.is_empty() {
        arguments.push(format!("--compress={}", options.compress));
    }
    let lists = [
        ("--modules", &options.modules),
        ("--add", &options.add_modules),
        ("--omit", &options.omit_modules),
        ("--drivers", &options.drivers),
        ("--add-drivers", &options.add_drivers),
        ("--omit-drivers", &options.omit_drivers),
        ("--force-drivers", &options.force_drivers),
        ("--filesystems", &options.filesystems),
    ];
    for (option, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
        arguments.extend([option.to_owned(), items.join(" ")]);
    }
    for (from, to) in options.include.iter().flatten() {
        let to =
            to.as_str().ok_or_else(|| Error::failed(format!("`include` does not say as a text where {from} goes")))?;
        arguments.extend(["--include", from, to].map(str::to_owned));
    }
    for (option, items) in [("--remove", &options.remove), ("--install", &options.install)] {
        arguments.extend(items.iter().flat_map(|item| [option.to_owned(), item.clone()]));
    }
    arguments.extend(options.extra.iter().cloned());
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    fn said(options: Value) -> Option<String> {
        let mut options = options;
        options["kernel"] = json!(["6.1", "6.2"]);
        // The logger must do nothing, and the mount on it must be gone in the end.
        let script = "logger loud >>/etc/said\necho \"$@\" >>/etc/said";
        let case = with_script(&MODULE, "usr/bin/dracut", script)?;
        let case = case.file("usr/bin/logger", "#!/bin/sh\necho \"$@\"\n").mode("usr/bin/logger", 0o755);
        let done = case.link("usr/bin/true", "busybox").run(options).ok();
        assert!(done.text("usr/bin/logger").starts_with("#!"));
        Some(done.text("etc/said"))
    }

    #[test]
    fn each_kernel_is_asked_for() {
        let Some(text) = said(json!({})) else { return };
        let line = |kernel| {
            format!("--no-hostonly --kver {kernel} --force -v --show-modules --no-early-microcode --reproducible\n")
        };
        assert_eq!(text, line("6.1") + &line("6.2"));
    }

    #[test]
    fn all_options_reach_the_program() {
        let options = json!({
            "kernel": ["1"], "compress": "xz", "modules": ["a", "b"], "add_modules": ["c"], "omit_modules": ["d"],
            "drivers": ["e"], "add_drivers": ["f"], "omit_drivers": ["g"], "force_drivers": ["h"],
            "filesystems": ["ext4"], "include": [{"/x": "/y"}], "install": ["/bin/i"], "remove": ["/r"],
            "early_microcode": true, "reproducible": false, "extra": ["--zstd"], "unknown": 1,
        });
        let arguments = arguments(&Options::deserialize(options).unwrap()).unwrap().join("|");
        let expected = "--force|-v|--show-modules|--early-microcode|--no-reproducible|--compress=xz|--modules|a b|--add|c|\
            --omit|d|--drivers|e|--add-drivers|f|--omit-drivers|g|--force-drivers|h|--filesystems|ext4|--include|/x|/y|\
            --remove|/r|--install|/bin/i|--zstd";
        assert_eq!(arguments, expected);
    }

    #[test]
    fn a_tree_without_the_program_fails_with_the_package_that_has_it() {
        let done = Case::new(&MODULE).run(json!({"kernel": ["1"]}));
        assert_eq!(done.err(), "the tool `dracut` is not in the tree; install the package `dracut` there");
    }
}
