//! A logical volume of LVM, activated.
//!
//! Calls `pvdisplay`, `lvchange`, `lvdisplay` and `dmsetup` of the host. The parent device, or its partition
//! `vg_partnum`, is a physical volume of the group that has the volume. The volume is active until its last user is
//! gone. Hosts that list the devices that LVM may use get the parent for the moment.
//!
//! ```json
//! {
//!   "type": "org.osbuild.lvm2.lv",
//!   "parent": "disk",
//!   "options": { "volume": "root", "vg_partnum": 4 }
//! }
//! ```

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use osbc_module_api::*;

use crate::disks::device_mapper::{Number, open, parent, remove_with_last_user};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Device,
    name: "org.osbuild.lvm2.lv",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::DeviceMapper,
        Requirement::HostTool("pvdisplay"),
        Requirement::HostTool("lvchange"),
        Requirement::HostTool("lvdisplay"),
        Requirement::HostTool("dmsetup"),
    ],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"volume": 1}}"#,
        r#"{"options": {"volume": "root", "vg_partnum": "4"}}"#,
        r#"{"options": {"volume": "root", "group": "g"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Device(run),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The volume.
    volume: String,
    /// The number of the parent's partition that is the physical volume.
    #[schemars(with = "Option<f64>")]
    vg_partnum: Option<u64>,
}

/// Where a host lists the devices that LVM may use.
const LISTED_DEVICES: &str = "/etc/lvm/devices/system.devices";

/// How often to look for a physical volume that has just appeared.
const TRIES: u32 = 10;
/// How the tools say that they do not find it.
const NOT_FOUND: i32 = 5;

/// The tools of LVM, as far as one physical volume is concerned.
struct Lvm<'a> {
    physical: &'a Path,
}

impl Lvm<'_> {
    fn call(&self, name: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut tool = Tool::of_host(name)?.args(arguments);
        if Path::new(LISTED_DEVICES).exists() {
            tool = tool.arg("--devices").arg(self.physical);
        }
        Ok(String::from_utf8_lossy(&tool.quiet_output()?).trim().to_owned())
    }

    /// The group that the physical volume belongs to.
    fn group(&self) -> Result<String, Error> {
        let physical = self.physical.to_string_lossy();
        let mut tries = 1;
        loop {
            match self.call("pvdisplay", &["-C", "--noheadings", "-o", "vg_name", &physical]) {
                Err(Error::ToolRefused { status, .. }) if status.code() == Some(NOT_FOUND) && tries < TRIES => {
                    sleep(Duration::from_millis(100) * tries);
                    tries += 1;
                }
                Ok(group) if group.is_empty() => {
                    return Err(Error::failed(format!("{physical} belongs to no volume group")));
                }
                result => return result,
            }
        }
    }
}

/// What the device mapper calls a volume.
fn mapped_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

fn run(context: &DeviceContext) -> Result<OpenDevice, Error> {
    let Options { volume, vg_partnum } = context.options()?;
    let physical = parent(context, vg_partnum.filter(|number| *number != 0))?;
    let lvm = Lvm { physical: &physical };
    let group = lvm.group()?;
    Tool::of_host("dmsetup")?;
    lvm.call("lvchange", &["--activate", "y", &format!("{group}/{volume}")])?;
    let mapped = mapped_name(&group, &volume);
    let activated = || {
        let columns = ["-C", "--noheadings", "-o", "lv_kernel_major,lv_kernel_minor", "--separator", ";"];
        let volume_alone = format!("lv_name={volume}");
        let numbers = lvm.call("lvdisplay", &[&columns[..], &["-S", &volume_alone, &group]].concat())?;
        let number = Number::parse(numbers.as_bytes(), ';')?;
        let path = format!("{group}/{volume}");
        // By the second one, tools find out what a file system lies on.
        let handle = open(context.dev, &[&path, &format!("mapper/{mapped}")], number)?;
        let data = json!({
            "node": {"major": number.major, "minor": number.minor},
            "lvm": {"vg_name": group, "lv_name": volume},
        });
        Ok(OpenDevice { path: path.into(), data, keep: vec![handle] })
    };
    let device = activated();
    // Also where it could not be shown: then it goes at once.
    remove_with_last_user(&mapped)?;
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_are_doubled_in_mapped_names() {
        assert_eq!(mapped_name("a", "root"), "a-root");
        assert_eq!(mapped_name("1f-2e", "my-lv"), "1f--2e-my--lv");
    }
}
