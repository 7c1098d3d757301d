//! Installs Debian packages.
//!
//! The packages are the files of the input `packages`; together with those that the tree has, they must have all that
//! they need. Nothing is downloaded and no tool of the build root is needed: osbc unpacks the packages itself, several
//! at a time, and writes dpkg's database; scripts and triggers are run by the tree's own dpkg. Essential packages, with
//! what they need, come first, and with them `/bin`, `/sbin`, `/lib` as links into `/usr` where they are not there yet.
//! A package that the tree has already is refused.
//!
//! Scripts find a `policy-rc.d` that starts no service, a debconf that asks nothing and takes its answers from
//! `debconf`, and nothing running. They run as in a container: with the capabilities, devices and system calls that
//! podman gives by default, the tree alone to write to, and in a pid namespace that ends with them. One that fails, is
//! not done within `timeout` or leaves a process behind fails the stage. An
//! initramfs that several packages have made by `update-initramfs` is made once, when all are configured.
//!
//! Paths that fit a pattern in `exclude` and none in `include` are left out, as by dpkg's `path-exclude` and
//! `path-include`; `*` stands for slashes too.
//!
//! What would differ between two runs goes: logs, backups, caches, locks, what is in `/run`; the machine id is emptied,
//! and D-Bus has the same. Host keys for SSH that a script made go too, since they would be those of every machine: a
//! unit that calls `ssh-keygen -A` at boot makes each its own. The metadata names the distribution and lists the
//! packages that the tree has, with version and architecture.
//!
//! ```json
//! {
//!   "type": "org.osbc.deb",
//!   "inputs": {
//!     "packages": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]
//!     }
//!   },
//!   "options": {
//!     "debconf": ["tzdata tzdata/Areas select Europe"],
//!     "exclude": ["/usr/share/doc/*"],
//!     "include": ["/usr/share/doc/*/copyright"]
//!   }
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use osbc_module_api::*;
use rayon::prelude::*;

use crate::debian::claims;
use crate::debian::control::Control;
use crate::debian::database;
use crate::debian::filter::Filter;
use crate::debian::initramfs::{self, Deferred};
use crate::debian::order::Needs;
use crate::debian::package::Package;
use crate::debian::triggers;
use crate::debian::unpack::{Target, Unpacked};
use crate::trees::chroot::{Limit, Program};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbc.deb",
    revision: 5,
    // Scripts end processes of other users, as in a container.
    capabilities: &["CAP_KILL"],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().inputs(&["packages"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {}}"#,
        r#"{"options": {"exclude": "/usr/share/doc/*"}}"#,
        r#"{"options": {"include": ["usr/share/doc/*"]}}"#,
        r#"{"options": {"debconf": ["one\ntwo"]}}"#,
        r#"{"options": {"timeout": 0}}"#,
        r#"{"options": {"packages": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Answers to debconf's questions, each a line as `debconf-set-selections` reads them
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[^\n]+$")))]
    debconf: Vec<String>,
    /// Patterns of absolute paths that are left out
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^/")))]
    exclude: Vec<String>,
    /// Patterns of what is kept of them
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^/")))]
    include: Vec<String>,
    /// How many seconds a package's script may take, or another program that dpkg or osbc starts
    #[serde(default = "half_an_hour")]
    #[schemars(range(min = 1))]
    timeout: u32,
}

fn half_an_hour() -> u32 {
    1800
}

/// The links that a tree with a merged `/usr` has.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];
/// Further ones, by what the libraries of some architectures need.
const MERGED_WHERE_USED: [&str; 3] = ["lib32", "lib64", "libx32"];
/// What all other packages' scripts build upon: users, and the directories of a system.
const FIRST: [&str; 2] = ["base-passwd", "base-files"];

const POLICY: &str = "usr/sbin/policy-rc.d";
const ANSWERS: &str = "var/lib/dpkg/osbc-debconf";
const MACHINE_ID: &str = "etc/machine-id";
const DBUS_MACHINE_ID: &str = "var/lib/dbus/machine-id";
const SSH: &str = "etc/ssh";

/// What goes in the end, where it is there: files, and what in a directory ends that way.
const TRACES: [&str; 14] = [
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/dpkg/triggers/Unincorp",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/dpkg.log",
];
const BACKUPS: [&str; 2] = ["var/lib/dpkg", "var/cache/debconf"];

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let packages = packages(cx.input("packages")?)?;
    let filter = Filter::new(&options.exclude, &options.include);
    let epoch = cx.meta.source_epoch.map(|epoch| epoch.to_string());
    let install = Install { tree: &cx.tree, options: &options, filter, epoch };
    install.run(&packages)?;
    let installed = database::packages(&cx.tree)?;
    let facts = installed.values().map(|control| {
        let value = |name: &str| control.value(name);
        json!({"name": value("Package"), "version": value("Version"), "arch": value("Architecture")})
    });
    let mut metadata = json!({"packages": facts.collect::<Vec<_>>()});
    if let Some(distribution) = distribution(&cx.tree)? {
        metadata["distribution"] = json!(distribution);
    }
    cx.set_metadata(metadata);
    Ok(())
}

/// Whose packages they are, where the tree says it.
fn distribution(tree: &Tree) -> Result<Option<String>, Error> {
    const FILE: &str = "etc/os-release";
    if !tree.is_file(FILE)? {
        return Ok(None);
    }
    let text = database::read_text(tree, FILE)?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    Ok(id.map(|id| id.trim_matches(['"', '\'']).to_owned()))
}

/// The host keys for SSH that a tree has, by the names of their files.
fn host_keys(tree: &Tree) -> Result<BTreeSet<String>, Error> {
    if !tree.is_dir(SSH)? {
        return Ok(BTreeSet::new());
    }
    let names = tree.read_dir(SSH)?.into_iter().filter_map(|name| name.into_string().ok());
    let is_key =
        |name: &String| name.starts_with("ssh_host_") && name.strip_suffix(".pub").unwrap_or(name).ends_with("_key");
    Ok(names.filter(is_key).collect())
}

/// The packages of an input, in the order of their names.
fn packages(input: &MappedInput) -> Result<Vec<Package>, Error> {
    let none = Map::new();
    let files: Vec<_> = input.data.get("files").and_then(Value::as_object).unwrap_or(&none).keys().collect();
    threads::start_pool().map_err(Error::NoThread)?;
    let opened: Result<Vec<Package>, Error> =
        files.par_iter().map(|name| Package::open(&input.path.join(name))).collect();
    let mut packages = opened?;
    packages.sort_by_cached_key(|package| (package.name().to_owned(), package.control.full_name()));
    for pair in packages.windows(2) {
        if pair[0].control.full_name() == pair[1].control.full_name() {
            let (name, one, other) = (pair[0].name(), pair[0].version(), pair[1].version());
            return Err(Error::failed(format!("the package {name} is given twice: {one} and {other}")));
        }
    }
    Ok(packages)
}

struct Install<'a> {
    tree: &'a Tree,
    options: &'a Options,
    filter: Filter,
    epoch: Option<String>,
}

impl Install<'_> {
    fn run(&self, packages: &[Package]) -> Result<(), Error> {
        let tree = self.tree;
        self.refuse_upgrades(packages)?;
        let own_keys = host_keys(tree)?;
        self.merge_usr()?;
        database::prepare(tree)?;
        let initramfs = Deferred::prepare(tree)?;
        let own_policy = !tree.exists(POLICY)?;
        if own_policy {
            tree.create_dir_all("usr/sbin", 0o755)?;
            tree.replace(POLICY, "#!/bin/sh\nexit 101\n", 0o755)?;
        }

        let controls: Vec<&Control> = packages.iter().map(|package| &package.control).collect();
        let needs = Needs::new(&controls);
        let order = needs.ordered();
        let essential = (0..packages.len()).filter(|index| controls[*index].says_yes("Essential"));
        let essential = needs.with_needs(essential);
        let pick = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
            order.iter().copied().filter(|index| wanted(*index)).collect()
        };

        let first = pick(&|index| essential.contains(&index));
        if !first.is_empty() {
            self.install_essential(&initramfs, &first.iter().map(|index| &packages[*index]).collect::<Vec<_>>())?;
        }
        self.answer_questions(packages)?;
        let rest = pick(&|index| !essential.contains(&index));
        let waves = Waves::of(&needs, &rest, |index| packages[index].file("preinst").is_some());
        for (members, before) in waves.all {
            let names: Vec<String> = before.iter().map(|index| controls[*index].full_name()).collect();
            self.configure(&initramfs, &names)?;
            self.unpack_with_scripts(&members.iter().map(|index| &packages[*index]).collect::<Vec<_>>())?;
        }
        self.dpkg(&initramfs, &["--configure".to_owned(), "--pending".to_owned()])?;
        self.all_installed()?;
        for arguments in initramfs.calls()? {
            let program = Program::find(tree, initramfs::PROGRAM)?.args(arguments).environment(&self.environment());
            program.attended(self.limit()).run()?;
        }
        if own_policy {
            tree.remove_file(POLICY)?;
        }
        self.unmerge_unused()?;
        for key in host_keys(tree)?.difference(&own_keys) {
            tree.remove_file(Path::new(SSH).join(key))?;
        }
        self.remove_traces()
    }

    fn refuse_upgrades(&self, packages: &[Package]) -> Result<(), Error> {
        let there = database::packages(self.tree)?;
        let both = packages.iter().find_map(|package| Some((package, there.get(&package.control.full_name())?)));
        match both {
            None => Ok(()),
            Some((package, old)) => {
                let (name, old, new) = (package.name(), old.value("Version"), package.version());
                Err(Error::failed(format!(
                    "the tree has the package {name} already, in version {old}; leave {new} out or build the tree with it"
                )))
            }
        }
    }

    /// Makes the links of a merged `/usr` in a tree that has none of these directories.
    fn merge_usr(&self) -> Result<(), Error> {
        for name in MERGED.iter().chain(&MERGED_WHERE_USED) {
            if self.tree.symlink_metadata(name).is_err() {
                self.tree.create_dir_all(format!("usr/{name}"), 0o755)?;
                self.tree.symlink(format!("usr/{name}"), name)?;
            }
        }
        Ok(())
    }

    /// Takes away the links that no package of this architecture has anything behind.
    fn unmerge_unused(&self) -> Result<(), Error> {
        for name in MERGED_WHERE_USED {
            let directory = format!("usr/{name}");
            if self.tree.is_dir(&directory)? && self.tree.read_dir(&directory)?.is_empty() {
                self.tree.remove_dir_all(&directory)?;
                if self.tree.symlink_metadata(name).is_ok_and(|metadata| metadata.is_symlink()) {
                    self.tree.remove_file(name)?;
                }
            }
        }
        Ok(())
    }

    /// Unpacks what scripts take for granted before any runs.
    fn install_essential(&self, initramfs: &Deferred, packages: &[&Package]) -> Result<(), Error> {
        self.unpack(packages)?;
        for package in packages {
            self.run_preinst(package)?;
        }
        let name = |package: &&Package| package.control.full_name();
        for first in FIRST {
            if let Some(package) = packages.iter().find(|package| package.name() == first) {
                // What they need themselves is unpacked, which does for their scripts.
                let arguments = ["--force-depends", "--no-triggers", "--configure", &name(package)];
                self.dpkg(initramfs, &arguments.map(str::to_owned))?;
            }
        }
        let others = packages.iter().filter(|package| !FIRST.contains(&package.name()));
        self.configure(initramfs, &others.map(name).collect::<Vec<_>>())
    }

    fn unpack_with_scripts(&self, packages: &[&Package]) -> Result<(), Error> {
        for package in packages.iter().filter(|package| package.file("preinst").is_some()) {
            database::write_info(self.tree, package)?;
            self.run_preinst(package)?;
        }
        self.unpack(packages)
    }

    /// Unpacks packages, the largest first since they take longest, and records them in the order given.
    fn unpack(&self, packages: &[&Package]) -> Result<(), Error> {
        let target = Target::new(self.tree, &self.filter)?;
        let mut by_size: Vec<(usize, &&Package)> = packages.iter().enumerate().collect();
        by_size.sort_by_key(|(_, package)| std::cmp::Reverse(package.packed_size()));
        let unpacked: Result<Vec<(usize, Unpacked)>, Error> =
            by_size.par_iter().with_max_len(1).map(|(index, package)| Ok((*index, target.unpack(package)?))).collect();
        let by_index: BTreeMap<usize, Unpacked> = unpacked?.into_iter().collect();
        let mut unpacked: Vec<(&Package, Unpacked)> = packages.iter().copied().zip(by_index.into_values()).collect();
        for index in claims::settle(&target, self.tree, &database::packages(self.tree)?, &mut unpacked)? {
            target.unpack(packages[index])?;
        }
        target.finish(unpacked.iter().map(|(_, unpacked)| unpacked))?;
        triggers::record(self.tree, &unpacked)?;
        database::record(self.tree, &unpacked)
    }

    fn run_preinst(&self, package: &Package) -> Result<(), Error> {
        if package.file("preinst").is_none() {
            return Ok(());
        }
        let name = package.name();
        let script = Path::new("/").join(database::info(&package.control.full_name(), "preinst"));
        let own = [
            ("DPKG_MAINTSCRIPT_PACKAGE", name),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_MAINTSCRIPT_ARCH", package.control.value("Architecture")),
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_DEBUG", "0"),
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_ROOT", ""),
        ];
        let environment = [&self.environment()[..], &own[..]].concat();
        let program = Program::find(self.tree, &script.to_string_lossy())?.arg("install").environment(&environment);
        let status = program.attended(self.limit()).status();
        let status = status.map_err(|error| match error {
            // What the machine lacks is no fault of the package.
            Error::WrongArchitecture { .. } => error,
            error => Error::failed(format!("preinst of the package {name}: {error}")),
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::failed(format!("preinst of the package {name} failed: {status}")))
        }
    }

    /// Hands answers to debconf, where it is there or comes: before anything asks.
    fn answer_questions(&self, packages: &[Package]) -> Result<(), Error> {
        if self.options.debconf.is_empty() {
            return Ok(());
        }
        if !self.tree.exists("usr/bin/debconf-set-selections")? {
            let known = packages.iter().find(|package| package.name() == "debconf");
            let Some(debconf) = known else {
                return Err(Error::failed("there are answers for debconf, but neither the tree nor the input has it"));
            };
            // It needs nothing but what is essential.
            self.unpack_with_scripts(&[debconf])?;
        }
        let answers: String = self.options.debconf.iter().map(|line| format!("{line}\n")).collect();
        self.tree.replace(ANSWERS, answers, 0o600)?;
        let program = Program::find(self.tree, "debconf-set-selections")?.arg(format!("/{ANSWERS}"));
        program.environment(&self.environment()).attended(self.limit()).run()?;
        self.tree.remove_file(ANSWERS)
    }

    /// Configures packages; triggers wait.
    fn configure(&self, initramfs: &Deferred, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        self.dpkg(initramfs, &[&["--no-triggers".to_owned(), "--configure".to_owned()], names].concat())
    }

    fn dpkg(&self, initramfs: &Deferred, arguments: &[String]) -> Result<(), Error> {
        let program = Program::find(self.tree, "dpkg")?.args(arguments).environment(&self.environment());
        let program = initramfs.cover(program)?;
        let status = program.attended_each(self.limit()).status()?;
        if status.success() {
            return Ok(());
        }
        let packages = database::packages(self.tree)?;
        let failed = packages.iter().filter(|(_, control)| database::state(control) == "half-configured");
        let failed: Vec<&str> = failed.map(|(name, _)| name.as_str()).collect();
        let whose = match failed.as_slice() {
            [] => "its output says why".to_owned(),
            names => format!("a script failed of {}; its output is above that of dpkg", names.join(", ")),
        };
        Err(Error::failed(format!("dpkg could not configure all packages ({status}): {whose}")))
    }

    fn all_installed(&self) -> Result<(), Error> {
        let packages = database::packages(self.tree)?;
        let wrong = packages.iter().filter(|(_, control)| control.value("Status") != "install ok installed");
        let wrong: Vec<String> =
            wrong.map(|(name, control)| format!("{name} ({})", database::state(control))).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::failed(format!("dpkg left packages that are not installed: {}", wrong.join(", "))))
    }

    fn remove_traces(&self) -> Result<(), Error> {
        let tree = self.tree;
        let mut gone: Vec<String> = TRACES.iter().map(|path| (*path).to_owned()).collect();
        for directory in BACKUPS {
            if tree.is_dir(directory)? {
                let names = tree.read_dir(directory)?.into_iter().filter_map(|name| name.into_string().ok());
                gone.extend(names.filter(|name| name.ends_with("-old")).map(|name| format!("{directory}/{name}")));
            }
        }
        for path in gone {
            if tree.symlink_metadata(&path).is_ok() {
                tree.remove_file(&path)?;
            }
        }
        if tree.is_dir("run")? {
            for name in tree.read_dir("run")? {
                tree.remove_dir_all(Path::new("run").join(name))?;
            }
        }
        if tree.exists(MACHINE_ID)? {
            tree.replace(MACHINE_ID, "", 0o444)?;
        }
        if tree.symlink_metadata(DBUS_MACHINE_ID).is_ok_and(|metadata| metadata.is_file()) {
            // As its package's tmpfiles.d would have it.
            tree.remove_file(DBUS_MACHINE_ID)?;
            tree.symlink("/etc/machine-id", DBUS_MACHINE_ID)?;
        }
        Ok(())
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let mut all = vec![
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("TERM", "dumb"),
        ];
        all.extend(self.epoch.as_deref().map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        all
    }

    fn limit(&self) -> Limit {
        Limit { time: Duration::from_secs(self.options.timeout.into()), option: Some("timeout") }
    }
}

/// Packages that are unpacked together, and what must be configured before for the sake of their scripts.
struct Waves {
    all: Vec<(Vec<usize>, BTreeSet<usize>)>,
}

impl Waves {
    fn of(needs: &Needs, packages: &[usize], has_script: impl Fn(usize) -> bool) -> Self {
        let before = |index: usize| -> BTreeSet<usize> {
            let all = if has_script(index) { needs.before_unpacking(index) } else { BTreeSet::new() };
            all.into_iter().filter(|needed| packages.contains(needed)).collect()
        };
        let mut levels: BTreeMap<usize, usize> = BTreeMap::new();
        let mut all: Vec<(Vec<usize>, BTreeSet<usize>)> = Vec::new();
        // What a package needs comes before it, except in circles, which cannot be kept anyway.
        for &index in packages {
            let needed = before(index);
            let level = needed.iter().map(|one| levels.get(one).map_or(0, |level| level + 1)).max().unwrap_or(0);
            levels.insert(index, level);
            if all.len() <= level {
                all.resize(level + 1, Default::default());
            }
            all[level].0.push(index);
            all[level].1.extend(needed);
        }
        Self { all }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::deb::{Deb, base, can_install};
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    /// Runs the stage with these packages on the tree of a case.
    fn installed(case: Case, debs: &[&Deb], options: Value) -> Done {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..debs.len()).map(|index| format!("sha256:{index}")).collect();
        let files: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
        let case = case.input("packages", json!({ "files": files }), |tree| {
            for (name, deb) in names.iter().zip(debs) {
                tree.write(name, fs::read(deb.write(directory.path())).unwrap()).unwrap();
            }
        });
        case.source_epoch(1_700_000_000).run(options)
    }

    fn fresh(debs: &[&Deb]) -> Done {
        installed(Case::new(&MODULE), debs, json!({}))
    }

    fn leftovers(place: &str) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let of_tree =
            |entry: &fs::DirEntry| fs::read_link(entry.path().join("root")).is_ok_and(|root| root.starts_with(place));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(place)).map(str::to_owned).collect::<Vec<_>>();
        processes.filter(of_tree).map(|entry| format!("{entry:?}")).chain(mounts).collect()
    }

    /// Two packages that use most of what dpkg has: a configuration file, dependencies, scripts, a diversion, triggers.
    fn pair() -> [Deb; 2] {
        let log = "echo \"$DPKG_MAINTSCRIPT_PACKAGE $DPKG_MAINTSCRIPT_NAME $*\" >>/var/log/scripts";
        let one = Deb::new("one")
            .field("Depends", "two (>= 1.0)")
            .field("Source", "ones (2.0)")
            .field("Homepage", "https://example.org")
            .file("etc/one/one.conf", "one\n")
            .file("usr/share/one/data", "data")
            .file("usr/share/divert/file", "of one")
            .control("conffiles", "/etc/one/one.conf\n")
            .control("triggers", "interest-noawait /usr/share/two\nactivate-noawait named\n")
            .script("postinst", log);
        let two = Deb::new("two")
            .field("Pre-Depends", "base")
            .file("usr/share/two/data", "data")
            .link("usr/share/two/link", "data")
            .control("triggers", "interest named\n")
            .script("preinst", &format!("{log}\ndpkg-divert --package two --divert /usr/share/divert/file.one --rename /usr/share/divert/file"))
            .script("postinst", log);
        [one, two]
    }

    /// All of a tree but its logs and backups, with modes, owners and contents.
    fn facts(tree: &Tree) -> BTreeMap<String, String> {
        use std::os::unix::fs::MetadataExt;
        let mut facts = BTreeMap::new();
        let skipped = ["/var/log", "/run", "/dev", "/proc", "/sys", "/usr/bin", "/usr/lib"];
        tree.walk("/", |path, metadata| {
            let name = Path::new("/").join(path).to_string_lossy().into_owned();
            let left_out = skipped.iter().any(|prefix| name.starts_with(prefix));
            if left_out || name.ends_with("-old") || name.ends_with("/Unincorp") || TRACES.contains(&&name[1..]) {
                return Ok(());
            }
            let content = if metadata.is_file() { tree.read(&name)? } else { Vec::new() };
            let content = String::from_utf8_lossy(&content).into_owned();
            let link = if metadata.is_symlink() { tree.read_link(&name)? } else { Default::default() };
            let (mode, user, group) = (metadata.mode(), metadata.uid(), metadata.gid());
            facts.insert(name, format!("{mode:o} {user} {group} {link:?}\n{content}"));
            Ok(())
        })
        .unwrap();
        facts
    }

    #[test]
    fn root_packages_are_installed_as_dpkg_installs_them() {
        if !can_install() {
            return;
        }
        let [one, two] = pair();
        let done = fresh(&[&one, &base(), &two]).ok();
        assert_eq!(done.text("etc/one/one.conf"), "one\n");
        assert_eq!(done.text("usr/share/divert/file.one"), "of one");
        assert_eq!(
            done.text("var/log/scripts"),
            "two preinst install\ntwo postinst configure \none postinst configure \ntwo postinst triggered named\n"
        );
        let packages = json!([
            {"name": "base", "version": "1.0-1", "arch": "all"},
            {"name": "one", "version": "1.0-1", "arch": "all"},
            {"name": "two", "version": "1.0-1", "arch": "all"},
        ]);
        assert_eq!(done.metadata, json!({ "packages": packages }));
        let root = done.tree.path_for_tools("/").unwrap();
        let ask = |action: &str| {
            let output = Command::new("dpkg").arg("--root").arg(&root).arg(action).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!((ask("--audit"), ask("--verify")), (String::new(), String::new()));

        // The same by dpkg alone.
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("tree");
        fs::create_dir_all(&other).unwrap();
        let tree = Tree::open(&other).unwrap();
        let options = Options::deserialize(json!({})).unwrap();
        let install = Install { tree: &tree, options: &options, filter: Filter::default(), epoch: None };
        install.merge_usr().unwrap();
        database::prepare(&tree).unwrap();
        for debs in
            [vec![base().write(directory.path())], vec![two.write(directory.path()), one.write(directory.path())]]
        {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("--root").arg(&other).arg("--log=/dev/null").arg("--install").args(debs);
            let output = dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        install.unmerge_unused().unwrap();
        let (ours, dpkgs) = (facts(&done.tree), facts(&tree));
        for (path, fact) in &dpkgs {
            assert_eq!(ours.get(path), Some(fact), "{path}");
        }
        let more: Vec<&String> = ours.keys().filter(|path| !dpkgs.contains_key(*path)).collect();
        assert!(more.is_empty(), "{more:?}");
    }

    #[test]
    fn root_scripts_that_fail_linger_or_hang_fail_the_stage_and_leave_nothing() {
        if !can_install() {
            return;
        }
        let daemon = "busybox setsid sleep 1000 >/dev/null 2>&1 </dev/null &";
        for (script, commands, reason) in [
            ("postinst", "echo said; exit 7", "a script failed of one; its output is above that of dpkg"),
            ("preinst", "exit 7", "preinst of the package one failed: exit status: 7"),
            ("postinst", daemon, "dpkg left processes running, which it may not: `sleep 1000`"),
            ("preinst", daemon, "left processes running, which it may not: `sleep 1000`"),
            (
                "postinst",
                "sleep 1000",
                "/one.postinst configure` was not done after 1 s (`timeout` says how long it may take)",
            ),
        ] {
            let deb = Deb::new("one").script(script, commands);
            let timeout = if reason.contains("1 s") { 1 } else { 100 };
            let done = installed(Case::new(&MODULE), &[&base(), &deb], json!({ "timeout": timeout }));
            assert!(done.err().contains(reason), "{commands}: {}", done.err());
            let place = done.tree.path_for_tools("/").unwrap();
            assert_eq!(leftovers(&place.to_string_lossy()), Vec::<String>::new(), "{commands}");
        }
    }

    #[test]
    fn root_more_packages_come_upon_a_tree_that_has_some() {
        if !can_install() {
            return;
        }
        let watcher = Deb::new("watcher").control("triggers", "interest /usr/share/watched\n");
        let watcher = watcher.script("postinst", "test \"$1\" != triggered || echo \"$2\" >>/etc/seen");
        let first = fresh(&[&base(), &watcher]).ok();
        let from = first.tree.path_for_tools("/").unwrap();
        let case = || {
            let case = Case::new(&MODULE);
            let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(case.path()).status().unwrap();
            assert!(copied.success());
            case
        };
        let plain = Deb::new("plain").field("Depends", "base").file("usr/share/plain", "");
        let done = installed(case(), &[&plain.clone().file("usr/share/watched/file", "")], json!({})).ok();
        assert_eq!(done.metadata["packages"].as_array().unwrap().len(), 3);
        assert_eq!(done.text("etc/seen"), "/usr/share/watched\n");

        let again = installed(case(), &[&base()], json!({}));
        assert!(again.err().starts_with("the tree has the package base already, in version 1.0-1"), "{}", again.err());
        let needy = installed(case(), &[&Deb::new("needy").field("Depends", "missing")], json!({}));
        assert!(needy.err().contains("dpkg could not configure all packages"), "{}", needy.err());
        let twice = installed(case(), &[&plain, &plain], json!({}));
        assert_eq!(twice.err(), "the package plain is given twice: 1.0-1 and 1.0-1");
        let answers = installed(case(), &[&plain], json!({"debconf": ["a a/b string c"]}));
        assert!(answers.err().contains("neither the tree nor the input has it"), "{}", answers.err());

        // Of a path in two packages the one that replaces the other has it, here and there.
        let grabs = |name: &str| Deb::new(name).file("etc/passwd", name).file("usr/share/both", name);
        let done = installed(case(), &[&grabs("grab")], json!({}));
        assert!(done.err().contains("the packages grab and base both have /etc/passwd"), "{}", done.err());
        let first = grabs("first").field("Replaces", "base (<< 2), second");
        let second = Deb::new("second").file("usr/share/both", "second");
        let done = installed(case(), &[&first, &second], json!({})).ok();
        assert_eq!((done.text("etc/passwd"), done.text("usr/share/both")), ("first".to_owned(), "first".to_owned()));
        let list = |name: &str| done.text(&format!("var/lib/dpkg/info/{name}.list"));
        assert!(!list("base").contains("/etc/passwd") && list("first").contains("/etc/passwd"));
        assert!(!list("second").contains("both") && list("first").contains("both"));
        let neither = installed(case(), &[&second, &Deb::new("third").file("usr/share/both", "")], json!({}));
        assert!(neither.err().contains("the packages third and second both have /usr/share/both"), "{}", neither.err());
    }

    #[test]
    fn root_patterns_leave_paths_out_and_scripts_find_no_services_and_no_stale_identity() {
        if !can_install() {
            return;
        }
        let commands = "if /usr/sbin/policy-rc.d; then exit 1; else test $? = 101; fi
            echo 0123 >/etc/machine-id; mkdir /var/lib/dbus; echo 4567 >/var/lib/dbus/machine-id; echo x >/run/left; echo \"$DEBIAN_FRONTEND $SOURCE_DATE_EPOCH\" >/etc/said
            test -z \"$PYTHONPATH\"";
        let deb = Deb::new("one")
            .file("usr/share/doc/one/copyright", "")
            .file("usr/share/doc/one/changelog", "")
            .file("usr/share/man/man1/one.1", "")
            .script("postinst", commands);
        let options =
            json!({"exclude": ["/usr/share/doc/*", "/usr/share/man/*"], "include": ["/usr/share/doc/*/copyright"]});
        let done = installed(Case::new(&MODULE), &[&base(), &deb], options).ok();
        assert_eq!(done.tree.read_dir("usr/share/doc/one").unwrap(), ["copyright"]);
        assert!(!done.tree.exists("usr/share/man/man1").unwrap());
        assert_eq!(done.text("etc/said"), "noninteractive 1700000000\n");
        assert_eq!((done.text("etc/machine-id"), done.mode("etc/machine-id")), (String::new(), 0o444));
        assert!(done.tree.read_dir("run").unwrap().is_empty() && !done.tree.exists(POLICY).unwrap());
        assert_eq!(
            (done.link("bin"), done.link("var/lib/dbus/machine-id")),
            ("usr/bin".into(), "/etc/machine-id".into())
        );
    }

    #[test]
    fn root_host_keys_that_scripts_make_do_not_stay_but_those_of_the_tree_do() {
        if !can_install() {
            return;
        }
        let makes = "mkdir -p /etc/ssh; for kind in rsa ed25519; do test -e /etc/ssh/ssh_host_${kind}_key || {
            echo made >/etc/ssh/ssh_host_${kind}_key; echo made >/etc/ssh/ssh_host_${kind}_key.pub; }; done
            echo x >/etc/ssh/sshd_config";
        let deb = Deb::new("openssh-server").script("postinst", makes);
        let done = fresh(&[&base(), &deb]).ok();
        assert_eq!(done.tree.read_dir("etc/ssh").unwrap(), ["sshd_config"]);
        let case = Case::new(&MODULE).file("etc/ssh/ssh_host_rsa_key", "own");
        let done = installed(case, &[&base(), &deb], json!({})).ok();
        let mut names = done.tree.read_dir("etc/ssh").unwrap();
        names.sort();
        assert_eq!(names, ["ssh_host_rsa_key", "sshd_config"]);
        assert_eq!(done.text("etc/ssh/ssh_host_rsa_key"), "own");
    }

    #[test]
    fn root_an_initramfs_is_made_once_and_when_all_are_configured() {
        if !can_install() {
            return;
        }
        let program =
            |body: &str| Deb::new("tools").program("usr/sbin/update-initramfs", format!("#!/bin/sh\n{body}\n"));
        let tools = program("echo \"$*: $(busybox ls /etc/done)\" >>/etc/calls; echo image >/boot/initrd.img-1.0");
        let marks = "busybox mkdir -p /etc/done; : >/etc/done/$DPKG_MAINTSCRIPT_PACKAGE";
        let kernel = Deb::new("kernel")
            .field("Depends", "tools")
            .directory("boot")
            .script("postinst", &format!("update-initramfs -c -k 1.0 -b /boot; test -e /boot/initrd.img-1.0; {marks}"));
        let part = |name: &str| {
            Deb::new(name).field("Depends", "kernel").script("postinst", &format!("update-initramfs -u; {marks}"))
        };
        let first = fresh(&[&base(), &tools, &kernel, &part("one")]).ok();
        assert_eq!(first.text("etc/calls"), "-c -k 1.0 -b /boot: kernel\none\n");
        assert_eq!(first.text("boot/initrd.img-1.0"), "image\n");
        let left = |name: &str| first.tree.exists(format!("var/lib/dpkg/{name}")).unwrap();
        assert!(!left("osbc-initramfs") && !left("osbc-update-initramfs"));

        let from = first.tree.path_for_tools("/").unwrap();
        let case = Case::new(&MODULE);
        assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(case.path()).status().unwrap().success());
        let done = installed(case, &[&part("two"), &part("three")], json!({})).ok();
        let calls = done.text("etc/calls");
        assert_eq!(calls.strip_prefix("-c -k 1.0 -b /boot: kernel\none\n"), Some("-u: kernel\none\nthree\ntwo\n"));

        let done = fresh(&[&base(), &program("exit 3"), &kernel]);
        assert!(done.err().contains("update-initramfs -c -k 1.0 -b /boot` failed: exit status: 3"), "{}", done.err());
    }

    #[test]
    fn waves_configure_what_scripts_need_first() {
        let all =
            ["Package: a\nPre-Depends: b", "Package: b\nDepends: c", "Package: c", "Package: d"].map(Control::new);
        let all: Vec<&Control> = all.iter().collect();
        let needs = Needs::new(&all);
        let waves = Waves::of(&needs, &needs.ordered(), |index| index == 0).all;
        assert_eq!(waves, [(vec![2, 1, 3], BTreeSet::new()), (vec![0], BTreeSet::from([1, 2]))]);
        assert_eq!(Waves::of(&needs, &needs.ordered(), |_| false).all.len(), 1);
    }
}
