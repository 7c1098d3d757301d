//! Makes a physical volume, a volume group and logical volumes on a device.
//!
//! Calls `pvcreate`, `vgcreate` and `lvcreate` of the build root on the device `device`. The group gets a random name,
//! so that it clashes with none of the host; `org.osbuild.lvm2.metadata` renames it. A volume's `extents` or `size` are
//! as `lvcreate` takes them.
//!
//! ```json
//! {
//!   "type": "org.osbuild.lvm2.create",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048 } }
//!   },
//!   "options": { "volumes": [{ "name": "boot", "size": "200M" }, { "name": "root", "extents": "100%FREE" }] }
//! }
//! ```

use osbc_module_api::*;
use uuid::Uuid;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.lvm2.create",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("pvcreate"), Requirement::Tool("vgcreate"), Requirement::MayCall("lvcreate")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"volumes": []}}"#,
        r#"{"options": {"volumes": [{"size": "1G"}]}}"#,
        r#"{"options": {"volumes": [{"name": "root"}]}}"#,
        r#"{"options": {"volumes": [{"name": "root", "size": "1G", "extents": "100%FREE"}]}}"#,
        r#"{"options": {"volumes": [{"name": "root", "size": "all"}]}}"#,
        r#"{"options": {"volumes": [{"name": "root", "size": "1G"}]}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// What there is besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The logical volumes, in the order in which they are made
    #[schemars(length(min = 1))]
    volumes: Vec<Volume>,
}

/// A logical volume; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["size"]}, {"required": ["extents"]}]))]
struct Volume {
    /// Its name
    #[schemars(regex(pattern = "[a-zA-Z09+_.][a-zA-Z0-9+_.-]*"))]
    name: String,
    /// How many extents it has, or what part of the extents that there are
    #[schemars(regex(pattern = "[1-9][0-9]*(%(VG|PVS|FREE|ORIGIN))?"))]
    extents: Option<String>,
    /// Its size, perhaps with a unit
    #[schemars(regex(pattern = "[1-9][0-9]*[bBsSkKmMgGtTpPeE]?"))]
    size: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let device = &cx.device("device")?.path;
    let group = Uuid::new_v4().to_string();
    cx.tool("pvcreate")?.arg(device).run()?;
    cx.tool("vgcreate")?.arg(&group).arg(device).run()?;
    options.volumes.iter().try_for_each(|volume| cx.tool("lvcreate")?.args(arguments(volume, &group)).run())
}

/// Returns the arguments of `lvcreate`.
fn arguments<'a>(volume: &'a Volume, group: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["-an"];
    for (option, value) in [("--extents", &volume.extents), ("--size", &volume.size)] {
        if let Some(value) = value {
            arguments.extend([option, value]);
        }
    }
    arguments.extend(["-n", &volume.name, group]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_by_size_or_extents_and_not_activated() {
        let arguments_of = |volume: Value| arguments(&Volume::deserialize(volume).unwrap(), "group").join(" ");
        assert_eq!(arguments_of(json!({"name": "boot", "size": "1G"})), "-an --size 1G -n boot group");
        let root = json!({"name": "root", "extents": "100%FREE", "note": "does not count"});
        assert_eq!(arguments_of(root), "-an --extents 100%FREE -n root group");
    }
}
