//! Makes the initial RAM file systems of a tree's kernels, as Debian has them.
//!
//! The tree's own `mkinitramfs` (initramfs-tools), or where that is not there its `dracut`, is run for each kernel, in
//! a chroot of the tree, and writes `/boot/initrd.img-VERSION`. With a source epoch the result is the same each time.
//!
//! Packages of kernels do this when they are installed; the stage does it again after what the initial RAM file system
//! is made of has changed, such as `/etc/initramfs-tools`.
//!
//! ```json
//! { "type": "org.osbc.initramfs", "options": { "kernel": ["6.1.0-40-amd64"], "compress": "zstd" } }
//! ```
//!
//! ```json
//! { "type": "org.osbc.initramfs", "options": {} }
//! ```

use std::time::Duration;

use osbc_module_api::*;

use crate::trees::chroot::{CapabilitySet, Limit, Program};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbc.initramfs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"kernel": "6.1"}}"#,
        r#"{"options": {"kernel": []}}"#,
        r#"{"options": {"kernel": ["../6.1"]}}"#,
        r#"{"options": {"compress": "arj"}}"#,
        r#"{"options": {"modules": ["a"]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The versions of the kernels; all that have modules unless given
    #[schemars(length(min = 1), inner(regex(pattern = r"^[A-Za-z0-9][^/\s]*$")))]
    kernel: Option<Vec<String>>,
    /// How the result is compressed; as the tree is set up unless given
    compress: Option<Compression>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Lz4 => "lz4",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        }
    }
}

const MODULES: &str = "usr/lib/modules";
/// Far more than any machine takes.
const LIMIT: Limit = Limit { time: Duration::from_secs(3600), option: None };

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let kernels = match options.kernel {
        Some(kernels) => kernels,
        None if cx.tree.is_dir(MODULES)? => {
            cx.tree.read_dir(MODULES)?.into_iter().filter_map(|name| name.into_string().ok()).collect()
        }
        None => Vec::new(),
    };
    if kernels.is_empty() {
        return Err(Error::failed(format!("the tree has no kernel: /{MODULES} has no directory")));
    }
    let with_tools = cx.tree.exists("usr/sbin/mkinitramfs")?;
    let epoch = cx.meta.source_epoch.map(|epoch| epoch.to_string());
    let mut environment = vec![("HOME", "/root"), ("LC_ALL", "C.UTF-8"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
    environment.extend(epoch.as_deref().map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
    for kernel in &kernels {
        if !cx.tree.is_dir(format!("{MODULES}/{kernel}"))? {
            return Err(Error::failed(format!("the tree has no modules of the kernel {kernel}")));
        }
        let target = format!("/boot/initrd.img-{kernel}");
        let program = if with_tools {
            let compress = options.compress.map(|compression| ["-c", compression.name()]);
            let program = Program::find(&cx.tree, "mkinitramfs")?.args(compress.into_iter().flatten());
            program.args(["-o", &target, kernel])
        } else {
            let compress = options.compress.map(|compression| format!("--compress={}", compression.name()));
            // It puts /dev/console and others into the image; in the tree they do not work.
            let program = Program::find(&cx.tree, "dracut")?.may(CapabilitySet::MKNOD);
            let program = program.args(["--force", "--no-hostonly", "--reproducible"]);
            program.args(compress).args(["--kver", kernel, &target])
        };
        program.environment(&environment).attended(LIMIT).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::chroot::testing::with_script;

    const SAYS: &str = "echo \"$SOURCE_DATE_EPOCH $*\" >>/boot/said";

    #[test]
    fn root_each_kernel_gets_its_own_by_what_the_tree_has() {
        for (program, expected) in [
            ("usr/sbin/mkinitramfs", "-c zstd -o /boot/initrd.img-KERNEL KERNEL"),
            (
                "usr/bin/dracut",
                "--force --no-hostonly --reproducible --compress=zstd --kver KERNEL /boot/initrd.img-KERNEL",
            ),
        ] {
            let Some(case) = with_script(&MODULE, program, SAYS) else { return };
            let case = case.dir("boot").dir("usr/lib/modules/6.1").dir("usr/lib/modules/6.2").source_epoch(7);
            let done = case.run(json!({"compress": "zstd"})).ok();
            let line = |kernel: &str| format!("7 {}\n", expected.replace("KERNEL", kernel));
            assert_eq!(done.text("boot/said"), line("6.1") + &line("6.2"));
        }
    }

    #[test]
    fn root_kernels_and_programs_must_be_there() {
        let case = || with_script(&MODULE, "usr/bin/other", SAYS);
        let Some(first) = case() else { return };
        assert!(first.run(json!({})).err().contains("the tree has no kernel"));
        let second = case().expect("as before").dir("usr/lib/modules/6.1");
        let done = second.run(json!({"kernel": ["6.2"]}));
        assert_eq!(done.err(), "the tree has no modules of the kernel 6.2");
        let third = case().expect("as before").dir("usr/lib/modules/6.1").run(json!({}));
        assert!(third.err().contains("the tool `dracut` is not in the tree"), "{}", third.err());
    }
}
