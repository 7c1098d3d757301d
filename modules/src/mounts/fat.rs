//! Mounts a FAT file system.
//!
//! It appears at `target` below the root of all mounts; the directory is made when it is not there. A device that
//! cannot be written is mounted read-only.
//!
//! ```json
//! {
//!   "name": "efi",
//!   "type": "org.osbuild.fat",
//!   "source": "disk",
//!   "partition": 1,
//!   "target": "/boot/efi",
//!   "options": { "uid": 0, "gid": 0, "umask": "077", "shortname": "winnt" }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::filesystem_mount::{FileSystem, mount, schema};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.fat",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::FileSystem("vfat")],
    schema: || Schema::version_2(schema(options_schema::<Options>())),
    rejects: &[
        r#"{"name": "efi", "source": "disk"}"#,
        r#"{"name": "efi", "target": "/"}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "partition": "2"}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "options": {"umask": "0077"}}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "options": {"umask": "088"}}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "options": {"uid": "root"}}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "options": {"shortname": "upper"}}"#,
        r#"{"name": "efi", "source": "disk", "target": "/", "options": {"norecovery": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        let given = options.of_kernel();
        let given: Vec<_> = given.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
        mount(context, &FileSystem { kind: "vfat", read_only: options.readonly, options: &given })
    }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether to mount it read-only.
    #[serde(default)]
    readonly: bool,
    /// Who owns all files.
    uid: Option<i64>,
    /// The group of all files.
    gid: Option<i64>,
    /// The mode bits that all files lack, in octal.
    #[schemars(regex(pattern = "^[0-7][0-7][0-7]$"))]
    umask: Option<String>,
    /// How short names are made and shown.
    shortname: Option<ShortNames>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ShortNames {
    Lower,
    Win95,
    Winnt,
    Mixed,
}

impl Options {
    /// The kernel's options for it.
    fn of_kernel(&self) -> Vec<(&'static str, String)> {
        let names = self.shortname.map(|names| match names {
            ShortNames::Lower => "lower",
            ShortNames::Win95 => "win95",
            ShortNames::Winnt => "winnt",
            ShortNames::Mixed => "mixed",
        });
        let all = [
            ("uid", self.uid.map(|user| user.to_string())),
            ("gid", self.gid.map(|group| group.to_string())),
            ("umask", self.umask.clone()),
            ("shortname", names.map(str::to_owned)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gets_the_options() {
        let options = |value| Options::deserialize(value).unwrap().of_kernel();
        assert!(options(json!({"readonly": true})).is_empty());
        let given = options(json!({"uid": 0, "gid": 5, "umask": "077", "shortname": "winnt"}));
        let text: Vec<_> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text.join(","), "uid=0,gid=5,umask=077,shortname=winnt");
    }
}
