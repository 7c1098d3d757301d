//! Verifies and installs RPM packages.
//!
//! Calls `rpm` and `rpmkeys` of the build root on the files of the input `packages`; the signature of a package is
//! checked where its `rpm.check_gpg` is true. Scripts run in the tree, with `/dev`, `/proc` and `/sys` there, and find
//! a machine id; afterwards that is empty. The metadata lists the packages that the tree has.
//!
//! With `disable_dracut`, `/etc/kernel` is removed afterwards unless a package owns it; osbuild means to do the same,
//! but looks for it in the wrong place.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rpm",
//!   "inputs": {
//!     "packages": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": {
//!         "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": { "metadata": { "rpm.check_gpg": true } }
//!       }
//!     }
//!   },
//!   "options": {
//!     "gpgkeys": ["-----BEGIN PGP PUBLIC KEY BLOCK-----\n…"],
//!     "dbpath": "/usr/lib/sysimage/rpm",
//!     "exclude": { "docs": true },
//!     "disable_dracut": true
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use osbc_module_api::*;
use tempfile::NamedTempFile;

use crate::trees::bound::Bound;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rpm",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::Tool("rpm"),
        Requirement::MayCall("rpmkeys"),
        Requirement::Named(|options| {
            let tool = options["rpmkeys"]["bin_path"].as_str();
            tool.map(str::to_owned).into_iter().collect()
        }),
    ],
    schema,
    rejects: &[
        r#"{"options": {"dbpath": 1}}"#,
        r#"{"options": {"gpgkeys": "key"}}"#,
        r#"{"options": {"packages": ["sha256:0"]}}"#,
        r#"{"options": {"exclude": {"docs": "yes"}}}"#,
        r#"{"options": {"install_langs": []}}"#,
        r#"{"options": {"install_langs": ["de", "de"]}}"#,
        r#"{"options": {"generic_env": {"A": 1}}}"#,
        r#"{"options": {"kernel_install_env": {"boot_root": "/../boot"}}}"#,
        r#"{"options": {"kernel_install_env": {"machine_id": "ff"}}}"#,
        r#"{"options": {"rpmkeys": {"path": "/usr/bin/rpmkeys"}}}"#,
        r#"{"options": {}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// What version 1 does not have.
const NEW: [&str; 5] = ["rpmkeys", "install_langs", "ignorearch", "generic_env", "kernel_install_env"];
/// What version 2 has as an input instead.
const OLD: [&str; 1] = ["packages"];

fn schema() -> Schema {
    let without = |names: &[&str]| {
        let mut options = options_schema::<Options>();
        if let Some(Value::Object(properties)) = options.get_mut("properties") {
            names.iter().for_each(|name| drop(properties.shift_remove(*name)));
        }
        options
    };
    let mut both = Schema::stage::<Options>().inputs(&["packages"]).done();
    both.schema = Some(without(&NEW));
    if let Some(Value::Object(properties)) = &mut both.schema_2 {
        properties.insert("options".to_owned(), without(&OLD));
    }
    both
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Path of the RPM database in the tree; the build root's usual one unless given
    dbpath: Option<String>,
    /// Keys to import, each the text of a file
    #[serde(default)]
    gpgkeys: Vec<String>,
    /// Keys to import when the packages are installed, each the path of a file of the tree
    #[serde(rename = "gpgkeys.fromtree", default)]
    gpgkeys_fromtree: Vec<String>,
    /// The tool that imports keys and checks signatures
    #[serde(default)]
    rpmkeys: RpmKeys,
    /// Whether dracut is kept from making initrds
    #[serde(default)]
    disable_dracut: bool,
    /// What is not installed
    #[serde(default)]
    exclude: Exclude,
    /// The languages whose files are installed; all unless given
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    install_langs: Vec<String>,
    /// Whether dependencies do not count
    #[serde(default)]
    nodeps: bool,
    /// Whether packages may be for another architecture
    #[serde(default)]
    ignorearch: bool,
    /// Whether scripts find a system that was booted by OSTree
    #[serde(default)]
    ostree_booted: bool,
    /// Variables of the scripts' environment
    #[serde(default)]
    generic_env: BTreeMap<String, String>,
    /// Variables that kernel-install and its plugins know
    #[serde(default)]
    kernel_install_env: KernelInstall,
    /// The packages, by their checksums
    #[serde(rename = "packages", default)]
    #[schemars(schema_with = "packages_schema")]
    _packages: Vec<Value>,
}

fn packages_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "The packages, by their checksums",
        "type": "array",
        "items": {"oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["checksum"],
                "properties": {
                    "checksum": {"type": "string"},
                    "check_gpg": {"description": "Whether its signature is checked", "type": "boolean", "default": false}
                }
            }
        ]}
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RpmKeys {
    /// Its name or path
    bin_path: String,
    /// Whether keys that it does not understand are left out
    ignore_import_failures: bool,
}

impl Default for RpmKeys {
    fn default() -> Self {
        Self { bin_path: "rpmkeys".to_owned(), ignore_import_failures: false }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Exclude {
    /// Documentation
    #[serde(default)]
    docs: bool,
}

/// A path without `..`.
const PATH: &str = r"^\/?(?!\.\.)((?!\/\.\.\/).)+$";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KernelInstall {
    /// Where boot entries go
    #[schemars(regex(pattern = PATH))]
    boot_root: Option<String>,
    /// Where its configuration is
    #[schemars(regex(pattern = PATH))]
    conf_root: Option<String>,
    /// The plugins
    plugins: Option<String>,
    /// The machine id
    #[schemars(regex(pattern = "^[a-f0-9]{32}$"))]
    machine_id: Option<String>,
}

impl Options {
    /// The variables of the scripts' environment.
    fn environment(&self) -> Result<BTreeMap<&str, &str>, Error> {
        let known = [
            ("BOOT_ROOT", &self.kernel_install_env.boot_root),
            ("KERNEL_INSTALL_CONF_ROOT", &self.kernel_install_env.conf_root),
            ("KERNEL_INSTALL_PLUGINS", &self.kernel_install_env.plugins),
            ("MACHINE_ID", &self.kernel_install_env.machine_id),
        ];
        let mut all: BTreeMap<&str, &str> =
            self.generic_env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (name, value) in known {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
            if all.insert(name, value).is_some() {
                let reason = format!("the variable {name} is in both `generic_env` and `kernel_install_env`");
                return Err(Error::failed(reason));
            }
        }
        Ok(all)
    }

    /// How the packages are installed.
    fn arguments(&self) -> Vec<String> {
        let flags = [(self.exclude.docs, "--excludedocs"), (self.nodeps, "--nodeps")];
        let mut arguments: Vec<String> =
            flags.iter().filter(|(given, _)| *given).map(|(_, flag)| (*flag).to_owned()).collect();
        if !self.install_langs.is_empty() {
            arguments.extend(["--define".to_owned(), format!("%_install_langs {}", self.install_langs.join(":"))]);
        }
        if self.ignorearch {
            arguments.push("--ignorearch".to_owned());
        }
        arguments
    }
}

/// The tools of RPM, on the tree and its database.
struct Rpm<'a> {
    cx: &'a StageContext,
    options: &'a Options,
}

impl Rpm<'_> {
    fn tool(&self, name: &str) -> Result<Tool, Error> {
        let mut tool = self.cx.tool(name)?;
        if let Some(path) = self.options.dbpath.as_deref().filter(|path| !path.is_empty()) {
            tool = tool.args(["--dbpath", path]);
        }
        Ok(tool.arg("--root").arg(self.cx.tree.path_for_tools("/")?))
    }

    fn rpmkeys(&self) -> Result<Tool, Error> {
        self.tool(&self.options.rpmkeys.bin_path)
    }

    fn import_keys(&self) -> Result<(), Error> {
        for key in &self.options.gpgkeys {
            let file = temporary(key)?;
            match self.rpmkeys()?.arg("--import").arg(file.path()).run() {
                Err(Error::ToolFailed { .. }) if self.options.rpmkeys.ignore_import_failures => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn check_signatures(&self, packages: &MappedInput, files: &Map<String, Value>) -> Result<(), Error> {
        for (name, metadata) in files {
            if metadata.get("rpm.check_gpg") == Some(&Value::Bool(true)) {
                let tool = self.rpmkeys()?.arg("--checksig").arg(name).current_dir(&packages.path);
                let refused = |error| match error {
                    Error::ToolFailed { .. } => Error::failed(format!("the signature of {name} is missing or wrong")),
                    error => error,
                };
                tool.output().map_err(refused)?;
            }
        }
        Ok(())
    }

    fn install(&self, packages: &MappedInput, files: &Map<String, Value>) -> Result<(), Error> {
        let environment = self.options.environment()?;
        let list: String = files.keys().map(|name| format!("{name}\n")).collect();
        let list = temporary(&list)?;
        let mut tool = self.tool("rpm")?.arg("--verbose").args(self.options.arguments());
        // Their signatures are checked where it was asked for.
        tool = tool.arg("--nosignature").arg("--install").arg(list.path()).current_dir(&packages.path);
        for (name, value) in environment {
            tool = tool.env(name, value);
        }
        tool.run()
    }

    /// The packages that the tree has now, by name.
    fn installed(&self) -> Result<Value, Error> {
        let tags = self.cx.tool("rpm")?.arg("--querytags").output()?;
        let tags = String::from_utf8_lossy(&tags);
        let known = |tag: &str| tags.split_whitespace().any(|known| known == tag);
        let output = self.tool("rpm")?.arg("-qa").arg(format!("--qf={}", query_format(known))).output()?;
        Ok(packages_of(&String::from_utf8_lossy(&output)))
    }
}

/// What the metadata has of each package: the name in the metadata and RPM's own. The first three always have a value.
const FACTS: [(&str, &str); 11] = [
    ("name", "NAME"),
    ("version", "VERSION"),
    ("release", "RELEASE"),
    ("epoch", "EPOCH"),
    ("arch", "ARCH"),
    ("sigmd5", "SIGMD5"),
    ("sha1header", "SHA1HEADER"),
    ("sha256header", "SHA256HEADER"),
    ("sha3_256header", "SHA3_256HEADER"),
    ("sigpgp", "SIGPGP"),
    ("siggpg", "SIGGPG"),
];
const ALWAYS: usize = 3;

/// Between two facts of a package.
const BETWEEN: char = '\x1f';
/// Behind the facts of a package.
const BEHIND: char = '\x1e';
/// Before a value that is there.
const THERE: char = '=';

/// The format in which RPM prints the facts that it knows.
fn query_format(known: impl Fn(&str) -> bool) -> String {
    let mut format = String::new();
    for (index, (_, tag)) in FACTS.iter().enumerate() {
        if index < ALWAYS {
            format.push_str(&format!("{THERE}%{{{tag}}}"));
        } else if known(tag) {
            format.push_str(&format!("%|{tag}?{{{THERE}%{{{tag}}}}}:{{}}|"));
        }
        format.push(BETWEEN);
    }
    format.push(BEHIND);
    format
}

fn packages_of(output: &str) -> Value {
    let facts = |package: &str| {
        let values = package.split(BETWEEN).map(|value| value.strip_prefix(THERE));
        FACTS.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>()
    };
    let mut packages: Vec<Map<String, Value>> =
        output.split(BEHIND).filter(|package| !package.is_empty()).map(facts).collect();
    let name = |package: &Map<String, Value>| package["name"].as_str().unwrap_or_default().to_owned();
    packages.sort_by_key(name);
    json!({ "packages": packages })
}

fn temporary(text: &str) -> Result<NamedTempFile, Error> {
    let create = Error::io("create a file in", std::env::temp_dir());
    let mut file = NamedTempFile::new().map_err(create)?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", file.path()))?;
    Ok(file)
}

const MACHINE_ID: &str = "etc/machine-id";
/// The marker of systems that were booted by OSTree.
const OSTREE_BOOTED: &str = "run/ostree-booted";
const RANDOM_SEED: &str = "var/lib/systemd/random-seed";
const KERNEL_DIRECTORY: &str = "etc/kernel";
const KERNEL_PLUGINS: &str = "etc/kernel/install.d";
/// What would call dracut.
const DRACUT: [&str; 2] = ["50-dracut.install", "51-dracut-rescue.install"];

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    options.environment()?;
    let rpm = Rpm { cx, options: &options };
    let packages = cx.input("packages")?;
    let none = Map::new();
    let files = packages.data.get("files").and_then(Value::as_object).unwrap_or(&none);
    rpm.import_keys()?;
    rpm.check_signatures(packages, files)?;

    let tree = &cx.tree;
    let mut bound = Bound::default();
    bound.show_kernel(tree)?;
    if !tree.exists(MACHINE_ID)? {
        tree.create_dir_all("etc", 0o755)?;
        // Always the same one, for what scripts make of it.
        tree.replace(MACHINE_ID, format!("{}\n", "f".repeat(32)), 0o444)?;
    }
    if options.ostree_booted {
        tree.create_dir_all("run", 0o777)?;
        tree.write(OSTREE_BOOTED, "")?;
    }
    if options.disable_dracut {
        tree.create_dir_all(KERNEL_PLUGINS, 0o777)?;
        DRACUT.iter().try_for_each(|name| tree.symlink("/dev/null", Path::new(KERNEL_PLUGINS).join(name)))?;
    }
    rpm.install(packages, files)?;
    for key in &options.gpgkeys_fromtree {
        rpm.rpmkeys()?.arg("--import").arg(tree.path_for_tools(key)?).run()?;
    }
    if options.disable_dracut {
        DRACUT.iter().try_for_each(|name| tree.remove_file(Path::new(KERNEL_PLUGINS).join(name)))?;
        remove_unowned(&rpm, tree)?;
    }
    tree.replace(MACHINE_ID, "", 0o444)?;
    if options.ostree_booted {
        tree.remove_file(OSTREE_BOOTED)?;
    }
    if tree.exists(RANDOM_SEED)? {
        tree.remove_file(RANDOM_SEED)?;
    }
    cx.set_metadata(rpm.installed()?);
    Ok(())
}

/// Removes the directories of kernel-install where they are empty and no package's.
fn remove_unowned(rpm: &Rpm, tree: &Tree) -> Result<(), Error> {
    for directory in [KERNEL_PLUGINS, KERNEL_DIRECTORY] {
        let empty = tree.read_dir(directory)?.is_empty();
        let owned = || rpm.tool("rpm")?.arg("-qf").arg(format!("/{directory}")).output();
        match (empty, if empty { owned() } else { Ok(Vec::new()) }) {
            (true, Err(Error::ToolFailed { .. })) => tree.remove_dir_all(directory)?,
            (_, result) => drop(result?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn options(value: Value) -> Options {
        Options::deserialize(value).expect("valid options")
    }

    #[test]
    fn only_what_is_given_is_said() {
        assert!(options(json!({"exclude": {}, "nodeps": false})).arguments().is_empty());
        let all = json!({"exclude": {"docs": true}, "nodeps": true, "install_langs": ["de", "en"], "ignorearch": true});
        assert_eq!(
            options(all).arguments().join(" "),
            "--excludedocs --nodeps --define %_install_langs de:en --ignorearch"
        );
    }

    #[test]
    fn variables_come_from_two_places_and_never_from_both() {
        let both =
            options(json!({"generic_env": {"A": "1"}, "kernel_install_env": {"boot_root": "/b", "plugins": ""}}));
        let environment: Vec<_> = both.environment().unwrap().into_iter().collect();
        assert_eq!(environment, [("A", "1"), ("BOOT_ROOT", "/b")]);
        let machine = "0123456789abcdef0123456789abcdef";
        let clash = json!({"generic_env": {"MACHINE_ID": "x"}, "kernel_install_env": {"machine_id": machine}});
        let case = Case::new(&MODULE).input("packages", json!({"files": {}}), |_| {});
        assert_eq!(case.run(clash).err(), "the variable MACHINE_ID is in both `generic_env` and `kernel_install_env`");
    }

    #[test]
    fn facts_that_a_package_or_rpm_lacks_are_null() {
        let format = query_format(|tag| tag == "EPOCH");
        assert!(format.starts_with("=%{NAME}\x1f=%{VERSION}\x1f=%{RELEASE}\x1f%|EPOCH?{=%{EPOCH}}:{}|\x1f\x1f"));
        let output = "=b\x1f=1\x1f=2\x1f=0\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1e=a\x1f=1\x1f=\"\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1e";
        let packages = packages_of(output);
        let (first, second) = (&packages["packages"][0], &packages["packages"][1]);
        assert_eq!((&first["name"], &first["release"], &first["epoch"]), (&json!("a"), &json!("\""), &json!(null)));
        assert_eq!((&second["name"], &second["epoch"], &second["siggpg"]), (&json!("b"), &json!("0"), &json!(null)));
        assert_eq!(packages_of(""), json!({"packages": []}));
    }

    #[test]
    fn version_1_has_its_own_options() {
        let Schema { schema, schema_2 } = schema();
        let names = |options: &Value| {
            let properties = options["properties"].as_object().unwrap();
            (properties.contains_key("packages"), properties.contains_key("install_langs"))
        };
        assert_eq!(names(&schema.unwrap()), (true, false));
        assert_eq!(names(&schema_2.unwrap()["options"]), (false, true));
    }
}
