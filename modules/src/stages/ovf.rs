//! Describes a VMDK image as a virtual machine.
//!
//! Writes an OVF descriptor for VMware and VirtualBox and a manifest of SHA-256 sums beside the image, under its name
//! with the endings `.ovf` and `.mf`.
//!
//! The UUIDs, and the address of the network card unless given, are derived from the stage's id, so that the same stage
//! gives the same files; osbuild draws them at random.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ovf",
//!   "options": { "vmdk": "image.vmdk", "vmware": { "os_type": "rhel9_64Guest" } }
//! }
//! ```

use osbc_module_api::*;
use rustix::fs::OFlags;
use uuid::Uuid;

use crate::disks::disk_image;
use crate::downloads::checksum;
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ovf",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::MayCall("qemu-img"), Requirement::OwnId],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"vmdk": "image"}}"#,
        r#"{"options": {"vmdk": "a.vmdk", "vmware": {"virtual_hardware_version": "21"}}}"#,
        r#"{"options": {"vmdk": "a.vmdk", "vmware": {"os_type": 1}}}"#,
        r#"{"options": {"vmdk": "a.vmdk", "virtualbox": {"mac_address": "1"}}}"#,
        r#"{"options": {"vmdk": "a.vmdk", "virtualbox": {"other": 1}}}"#,
        r#"{"options": {"vmdk": "a.vmdk", "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    #[schemars(regex(pattern = "[a-zA-Z0-9+_.-]+.vmdk"))]
    vmdk: String,
    /// What VMware has to know
    #[serde(default)]
    vmware: VmWare,
    /// What VirtualBox has to know
    #[serde(default)]
    virtualbox: VirtualBox,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VmWare {
    /// The operating system; `other26xLinux64Guest` unless given
    os_type: Option<String>,
    /// The version of the hardware; `vmx-15` unless given
    #[schemars(regex(pattern = "^vmx-[0-9]+$"))]
    virtual_hardware_version: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VirtualBox {
    /// The operating system; `OtherLinux_64` unless given
    os_type: Option<String>,
    /// The address of the network card
    #[schemars(regex(pattern = "^[a-fA-F0-9]{12}$"))]
    mac_address: Option<String>,
}

/// The first half of the network cards' addresses that VirtualBox gives.
const VIRTUALBOX: &str = "080027";

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { vmdk, vmware, virtualbox } = cx.options()?;
    let (directory, name) = vmdk.rsplit_once('/').map_or(("", vmdk.as_str()), |(directory, name)| (directory, name));
    let stem = match name.trim_start_matches('.').rfind('.') {
        Some(at) => &name[..name.len() - name.trim_start_matches('.').len() + at],
        None => name,
    };
    let id = |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{} {what}", cx.own_id()).as_bytes());
    let machine = Machine {
        image: name,
        size: cx.tree.metadata(&vmdk)?.len(),
        capacity: disk_image::virtual_size(cx, &vmdk)?,
        vmware_system: vmware.os_type.as_deref().unwrap_or("other26xLinux64Guest"),
        vmware_hardware: vmware.virtual_hardware_version.as_deref().unwrap_or("vmx-15"),
        virtualbox_system: virtualbox.os_type.as_deref().unwrap_or("OtherLinux_64"),
        address: virtualbox.mac_address.filter(|address| !address.is_empty()).unwrap_or_else(|| {
            let digits = id("address").simple().to_string();
            format!("{VIRTUALBOX}{}", &digits[..12 - VIRTUALBOX.len()])
        }),
        machine: id("machine"),
        disk: id("disk"),
    };
    let place = |ending: &str| format!("{directory}/{stem}.{ending}");
    cx.tree.write(place("ovf"), machine.descriptor())?;
    let sum = |path: &str| {
        let mut file = cx.tree.open_file(path, OFlags::RDONLY, 0)?;
        checksum::sha256(&mut file).map_err(Error::io("read", path))
    };
    let sums = format!("SHA256({stem}.ovf)= {}\nSHA256({name})= {}\n", sum(&place("ovf"))?, sum(&vmdk)?);
    cx.tree.write(place("mf"), sums)
}

/// What a descriptor says.
struct Machine<'a> {
    image: &'a str,
    size: u64,
    capacity: u64,
    vmware_system: &'a str,
    vmware_hardware: &'a str,
    virtualbox_system: &'a str,
    address: String,
    machine: Uuid,
    disk: Uuid,
}

impl Machine<'_> {
    /// The OVF descriptor: one disk at a SCSI controller, two processors, 4 GiB, and for VirtualBox its own
    /// description.
    fn descriptor(&self) -> String {
        format!(
            include_str!("../ovf.xml"),
            image = self.image,
            size = self.size,
            capacity = self.capacity,
            vmware_system = self.vmware_system,
            vmware_hardware = self.vmware_hardware,
            virtualbox_system = self.virtualbox_system,
            address = self.address,
            machine = self.machine,
            disk = self.disk,
        )
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};
    use sha2::{Digest, Sha256};

    use super::*;

    fn run_with(options: Value) -> Done {
        let mut header = b"KDMV\x01\0\0\0\0\0\0\0".to_vec();
        header.extend(20_480u64.to_le_bytes());
        header.resize(512, 0);
        Case::new(&MODULE).file("out/my.image.vmdk", header).run(options)
    }

    #[test]
    fn the_descriptor_says_what_the_options_and_the_image_say() {
        let done = run_with(json!({
            "vmdk": "out/my.image.vmdk",
            "vmware": {"os_type": "rhel9_64Guest", "virtual_hardware_version": "vmx-21"},
            "virtualbox": {"os_type": "RedHat_64", "mac_address": "0123456789ab"},
        }));
        let text = done.ok().text("out/my.image.ovf");
        for part in [
            "<File ovf:href=\"my.image.vmdk\" ovf:id=\"file1\" ovf:size=\"512\"/>",
            "ovf:capacity=\"10485760\" ovf:capacityAllocationUnits=\"byte\"",
            "vmw:osType=\"rhel9_64Guest\"",
            "<vssd:VirtualSystemType>vmx-21</vssd:VirtualSystemType>",
            "OSType=\"RedHat_64\"",
            "MACAddress=\"0123456789ab\"",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn the_sums_are_those_of_both_files() {
        let done = run_with(json!({"vmdk": "/out/my.image.vmdk"})).ok();
        let sum = |path: &str| {
            let digest = Sha256::digest(done.tree.read(path).unwrap());
            osbc_ir::hex(&digest)
        };
        let (descriptor, image) = (sum("out/my.image.ovf"), sum("out/my.image.vmdk"));
        let sums = format!("SHA256(my.image.ovf)= {descriptor}\nSHA256(my.image.vmdk)= {image}\n");
        assert_eq!(done.text("out/my.image.mf"), sums);
    }

    #[test]
    fn what_is_not_given_is_derived_and_the_same_each_time() {
        let text = || run_with(json!({"vmdk": "out/my.image.vmdk"})).ok().text("out/my.image.ovf");
        let first = text();
        assert_eq!(first, text());
        assert!(first.contains("MACAddress=\"080027"), "{first}");
        assert!(run_with(json!({"vmdk": "missing.vmdk"})).err().contains("missing.vmdk"));
    }
}
