//! Renames a volume group of LVM on a device, and says who created it, when and why.
//!
//! The metadata is changed on the device itself, in all places where it has it, without the kernel: so a group can be renamed
//! while the machine has one of the same name. The device is called `device`. As with osbuild, comments are lost, as are commas
//! and equals signs in texts, and spaces that follow another.
//!
//! ```json
//! {
//!   "type": "org.osbuild.lvm2.metadata",
//!   "options": { "vg_name": "rootvg", "creation_host": "localhost", "creation_time": "1700000000" },
//!   "devices": { "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048 } } }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::lvm2::{Disk, Item};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.lvm2.metadata",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "devices": {"device": {}}}"#,
        r#"{"options": {"vg_name": "a"}, "devices": {}}"#,
        r#"{"options": {"vg_name": ""}, "devices": {"device": {}}}"#,
        r#"{"options": {"vg_name": "a", "creation_time": 5}, "devices": {"device": {}}}"#,
        r#"{"options": {"vg_name": "a", "creation_host": ""}, "devices": {"device": {}}}"#,
        r#"{"options": {"vg_name": "a", "description": ""}, "devices": {"device": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options. Others are ignored.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The host that created the group.
    #[schemars(length(min = 1, max = 255))]
    creation_host: Option<String>,
    /// When it was created, in seconds since 1970.
    #[schemars(regex(pattern = "[0-9]+"))]
    creation_time: Option<String>,
    /// Why it was created.
    #[schemars(length(min = 1))]
    description: Option<String>,
    /// The group's new name.
    #[schemars(regex(pattern = "[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*"))]
    vg_name: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { creation_host, creation_time, description, vg_name } = cx.options()?;
    let mut disk = Disk::open(&cx.device("device")?.path)?;
    disk.metadata.rename_group(&vg_name);
    if let Some(host) = creation_host {
        disk.metadata.set("creation_host", Item::Text(host));
    }
    if let Some(time) = creation_time {
        let time = time.trim().parse().map_err(|_| Error::failed(format!("`{time}` is no time")))?;
        disk.metadata.set("creation_time", Item::Number(time));
    }
    if let Some(description) = description {
        disk.metadata.set("description", Item::Text(description));
    }
    disk.write()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    use crate::disks::lvm2::test_disk;

    #[test]
    fn the_group_is_renamed_on_the_device() {
        let disk = test_disk("old {\nid = \"x\"\n}\ndescription = \"d\"\n");
        let case = Case::new(&MODULE).device("device", disk.path(), json!({}));
        let done = case.run(json!({"vg_name": "new", "creation_host": "h", "creation_time": "5", "description": "e"}));
        done.ok();
        let expected = "new {\nid = \"x\"\n}\n\ndescription = \"e\"\ncreation_host = \"h\"\ncreation_time = 5\n\0";
        assert_eq!(Disk::open(disk.path()).unwrap().metadata.text(), expected);
    }

    #[test]
    fn a_time_is_a_number() {
        let disk = test_disk("old {\n}\n");
        let case = Case::new(&MODULE).device("device", disk.path(), json!({}));
        assert_eq!(case.run(json!({"vg_name": "new", "creation_time": "a5"})).err(), "`a5` is no time");
    }
}
