//! Writes `/etc/fstab`.
//!
//! The file has a line for each file system, in order, and nothing else. A file system is named by exactly one of
//! `uuid`, `label`, `partlabel` and `device`. With `ostree` it is the file of that deployment.
//!
//! ```json
//! {
//!   "type": "org.osbuild.fstab",
//!   "options": {
//!     "filesystems": [
//!       { "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "vfs_type": "ext4", "path": "/", "freq": 1, "passno": 1 },
//!       { "label": "boot", "vfs_type": "xfs", "path": "/boot", "options": "ro" }
//!     ]
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_ir::value::canonical_number;
use osbc_module_api::*;

use crate::ostrees::ostree::Deployment;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.fstab",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filesystems": {}}}"#,
        r#"{"options": {"filesystems": [{"path": "/"}]}}"#,
        r#"{"options": {"filesystems": [{"uuid": "a"}]}}"#,
        r#"{"options": {"filesystems": [{"uuid": "a", "label": "b", "path": "/"}]}}"#,
        r#"{"options": {"filesystems": [{"uuid": "a", "path": "/", "freq": "1"}]}}"#,
        r#"{"options": {"filesystems": [], "ostree": {}}}"#,
        r#"{"options": {"filesystems": [], "ostree": {"deployment": {"osname": "a"}}}}"#,
        r#"{"options": {"filesystems": [], "ostree": {"deployment": {"default": true, "osname": "a", "ref": "b"}}}}"#,
        r#"{"options": {"filesystems": [], "ostree": {"deployment": {"osname": "a", "ref": "b", "serial": "0"}}}}"#,
        r#"{"options": {"filesystems": [], "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// For a system deployed by OSTree.
    ostree: Option<Ostree>,
    /// The lines.
    filesystems: Vec<Filesystem>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ostree {
    /// The deployment that has the file.
    deployment: Deployment,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {"required": ["device", "path"]},
    {"required": ["uuid", "path"]},
    {"required": ["label", "path"]},
    {"required": ["partlabel", "path"]},
]))]
struct Filesystem {
    /// Its device node.
    device: Option<String>,
    /// Its UUID.
    uuid: Option<String>,
    /// Its label.
    label: Option<String>,
    /// The label of its partition.
    partlabel: Option<String>,
    /// Where it is mounted.
    path: String,
    /// Its type.
    #[serde(default = "no_type")]
    vfs_type: String,
    /// Mount options, separated by commas.
    #[serde(default = "defaults")]
    options: String,
    /// After how many days it is dumped.
    #[schemars(with = "Option<f64>")]
    freq: Option<Number>,
    /// When it is checked at boot.
    #[schemars(with = "Option<f64>")]
    passno: Option<Number>,
}

fn no_type() -> String {
    "none".to_owned()
}

fn defaults() -> String {
    "defaults".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { ostree, filesystems } = cx.options()?;
    let root = ostree.map(|ostree| ostree.deployment.path(&cx.tree)).transpose()?.unwrap_or_default();
    let lines = filesystems.iter().map(line).collect::<Result<String, _>>()?;
    cx.tree.write(format!("{root}/etc/fstab"), lines)
}

fn line(filesystem: &Filesystem) -> Result<String, Error> {
    let Filesystem { device, uuid, label, partlabel, path, vfs_type, options, freq, passno } = filesystem;
    let names = [("UUID=", uuid), ("LABEL=", label), ("PARTLABEL=", partlabel), ("", device)];
    let name = names.into_iter().find_map(|(tag, name)| match name.as_deref() {
        None | Some("") => None,
        Some(name) => Some(format!("{tag}{name}")),
    });
    let name = name.ok_or_else(|| Error::failed(format!("the file system at {path} has an empty name")))?;
    if let Some(label) = [label, partlabel].into_iter().flatten().find(|label| label.starts_with(['"', '\''])) {
        let reason = "begins with a quote, which mount(8) takes for more than a part of it; use the UUID";
        return Err(Error::failed(format!("the label of the file system at {path} {reason}: {label:?}")));
    }
    // Nothing said is what `defaults` says, and an empty field none.
    let options = if options.is_empty() { "defaults" } else { options };
    let (freq, passno) = (number(freq.as_ref())?, number(passno.as_ref())?);
    let name = field("device", &name)?;
    let name = name.strip_prefix('#').map_or_else(|| name.clone(), |rest| format!("\\043{rest}"));
    let (path, vfs_type, options) = (field("path", path)?, field("vfs_type", vfs_type)?, field("options", options)?);
    Ok(format!("{name}\t{path}\t{vfs_type}\t{options}\t{freq}\t{passno}\n"))
}

/// A field, with an escape for what would end it.
fn field(name: &str, value: &str) -> Result<String, Error> {
    if value.is_empty() {
        return Err(Error::failed(format!("the option `filesystems.{name}` is empty, which the file cannot say")));
    }
    let mut field = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' => field.push_str(&format!("\\{:03o}", u32::from(c))),
            '\r' | '\0' => {
                return Err(Error::failed(format!(
                    "the option `filesystems.{name}` has a control character: {value:?}"
                )));
            }
            c => field.push(c),
        }
    }
    Ok(field)
}

fn number(number: Option<&Number>) -> Result<String, Error> {
    let Some(number) = number else { return Ok("0".to_owned()) };
    Ok(canonical_number(number).map_err(|error| Error::failed(error.to_string()))?.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn each_file_system_has_a_line() {
        let filesystems = json!([
            {"uuid": "1-2", "path": "/", "vfs_type": "ext4", "options": "ro,noatime", "freq": 1, "passno": 2},
            {"label": "boot", "path": "/boot"},
            {"partlabel": "EFI", "path": "/efi", "freq": 1.0},
            {"device": "/dev/vda4", "path": "none", "vfs_type": "swap", "comment": "ignored"},
        ]);
        let done = Case::new(&MODULE).file("etc/fstab", "old\n").run(json!({ "filesystems": filesystems })).ok();
        let lines = [
            "UUID=1-2\t/\text4\tro,noatime\t1\t2\n",
            "LABEL=boot\t/boot\tnone\tdefaults\t0\t0\n",
            "PARTLABEL=EFI\t/efi\tnone\tdefaults\t1.0\t0\n",
            "/dev/vda4\tnone\tswap\tdefaults\t0\t0\n",
        ];
        assert_eq!(done.text("etc/fstab"), lines.concat());
    }

    #[test]
    fn an_empty_name_is_refused() {
        let done = Case::new(&MODULE).dir("etc").run(json!({"filesystems": [{"uuid": "", "path": "/"}]}));
        assert_eq!(done.err(), "the file system at / has an empty name");
        assert!(!done.tree.exists("etc/fstab").unwrap());
    }

    #[test]
    fn an_ostree_deployment_has_its_own_file() {
        let etc = format!("ostree/deploy/fedora/deploy/{COMMIT}.0/etc");
        let case = || Case::new(&MODULE).dir(&etc).file("ostree/repo/refs/heads/fedora/x86_64", format!("{COMMIT}\n"));
        let named = |reference: &str| json!({"osname": "fedora", "ref": reference});
        for deployment in [json!({"default": true}), named("fedora/x86_64"), named(COMMIT)] {
            let done = case().run(json!({"filesystems": [], "ostree": {"deployment": deployment}})).ok();
            assert_eq!(done.text(&format!("{etc}/fstab")), "");
            assert!(!done.tree.exists("etc").unwrap());
        }
        let done = case().run(json!({"filesystems": [], "ostree": {"deployment": named("other")}}));
        assert_eq!(done.err(), "the tree's OSTree repository has no ref `other`");
        let second = case().dir("ostree/deploy/other/deploy/abc.0");
        let done = second.run(json!({"filesystems": [], "ostree": {"deployment": {"default": true}}}));
        assert!(done.err().starts_with("the tree has more than one OSTree deployment"));
    }

    fn written(entry: &Value) -> Result<String, String> {
        let done = Case::new(&MODULE).dir("etc").run(json!({"filesystems": [entry]}));
        match &done.result {
            Ok(()) => Ok(done.text("etc/fstab")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_would_end_a_field_has_an_escape() {
        let entry = json!({"label": "my disk", "path": "/srv/a\tb\nc\\d", "vfs_type": "ext4", "options": ""});
        let line = "LABEL=my\\040disk\t/srv/a\\011b\\012c\\134d\text4\tdefaults\t0\t0\n";
        assert_eq!(written(&entry).unwrap(), line);
        assert!(written(&json!({"device": "#a", "path": "/b"})).unwrap().starts_with("\\043a\t/b\t"));
        for (entry, word) in [
            (json!({"device": "a", "path": ""}), "`filesystems.path` is empty"),
            (json!({"device": "a", "path": "/b", "vfs_type": ""}), "`filesystems.vfs_type` is empty"),
            (json!({"device": "a", "path": "/b\r"}), "`filesystems.path` has a control character"),
            (json!({"label": "\"a\"", "path": "/b"}), "begins with a quote"),
        ] {
            let error = written(&entry).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn mount_reads_back_what_was_written(name in "([ -~]|[\n\té€]|\\\\040){1,20}") {
            if !has_tool("findmnt") {
                return Ok(());
            }
            let (device, path) = (format!("/dev/{name}x"), format!("/srv/{name}x"));
            let line = written(&json!({"device": device, "path": path, "vfs_type": "ext4"})).unwrap();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(line.as_bytes()).unwrap();
            let mut tool = Command::new("findmnt");
            let tool = tool.args(["--json", "--list", "--output", "SOURCE,TARGET", "--tab-file"]).arg(file.path());
            let output = tool.output().unwrap();
            let read: Value = serde_json::from_slice(&output.stdout).unwrap();
            prop_assert_eq!(&read["filesystems"], &json!([{"source": device, "target": path}]));
        }
    }
}
