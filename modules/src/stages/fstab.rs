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

use crate::ostree::Deployment;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.fstab",
    revision: 1,
    capabilities: &[],
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
    let (freq, passno) = (number(freq.as_ref())?, number(passno.as_ref())?);
    Ok(format!("{name}\t{path}\t{vfs_type}\t{options}\t{freq}\t{passno}\n"))
}

fn number(number: Option<&Number>) -> Result<String, Error> {
    let Some(number) = number else { return Ok("0".to_owned()) };
    Ok(canonical_number(number).map_err(|error| Error::failed(error.to_string()))?.to_string())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

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
}
