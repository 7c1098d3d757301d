//! Makes the content of a Vagrant box of a disk image.
//!
//! The one file of the input `image` becomes `box.img`, for VirtualBox `box.vmdk`, with its owner, mode, times and
//! attributes, and gets a `Vagrantfile` and a `metadata.json` beside it. For libvirt the image is to be a qcow2.
//!
//! ```json
//! {
//!   "type": "org.osbuild.vagrant",
//!   "inputs": {
//!     "image": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:qcow2": { "file": "disk.qcow2" } }
//!     }
//!   },
//!   "options": { "provider": "libvirt" }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.vagrant",
//!   "inputs": {
//!     "image": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:vmdk": { "file": "disk.vmdk" } }
//!     }
//!   },
//!   "options": {
//!     "provider": "virtualbox",
//!     "virtualbox": { "mac_address": "000000000000" },
//!     "synced_folders": { "/vagrant": { "type": "rsync" } }
//!   }
//! }
//! ```

use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::archives::single_file;
use crate::disks::disk_image;
use crate::texts::options::required;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.vagrant",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("qemu-img")],
    schema: || Schema::stage::<Options>().inputs(&["image"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "vmware"}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "virtualbox"}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "virtualbox", "virtualbox": {"mac_address": "1"}}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "libvirt", "synced_folders": {}}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "virtualbox", "virtualbox": {"mac_address": "000000000000"},
            "synced_folders": {"/other": {"type": "rsync"}}}, "inputs": {"image": {}}}"#,
        r#"{"options": {"provider": "libvirt"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// One variant for each provider, as its own way to say what goes with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "provider", rename_all = "lowercase", deny_unknown_fields)]
enum Options {
    /// libvirt
    Libvirt {},
    /// VirtualBox
    Virtualbox {
        /// What VirtualBox has to know
        virtualbox: VirtualBox,
        /// Directories that host and guest share
        #[serde(default)]
        synced_folders: SyncedDirectories,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VirtualBox {
    /// The address of the network card
    #[schemars(regex(pattern = "^[a-fA-F0-9]{12}$"))]
    mac_address: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SyncedDirectories {
    /// The directory `/vagrant` of the guest
    #[serde(rename = "/vagrant")]
    vagrant: Option<SyncedDirectory>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SyncedDirectory {
    /// How it is shared
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["vboxfs", "rsync"]))]
    kind: Option<String>,
}

/// How many bytes the size in the metadata counts in.
const GIGABYTE: u64 = 1_000_000_000;

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let source = single_file::path(cx, "image")?;
    let target = match options {
        Options::Libvirt {} => "box.img",
        Options::Virtualbox { .. } => "box.vmdk",
    };
    let (directory, name) = (source.parent().unwrap_or(&source), source.file_name().unwrap_or_default());
    Copy::default().run(&Tree::open(directory)?, name, &cx.tree, target)?;
    let (content, metadata) = match options {
        Options::Libvirt {} => {
            let size = disk_image::virtual_size(cx, target)? / GIGABYTE;
            let content = "config.vm.provider :libvirt do |libvirt|\n  libvirt.driver = \"kvm\"\nend\n".to_owned();
            (content, json!({"provider": "libvirt", "format": "qcow2", "virtual_size": size}))
        }
        Options::Virtualbox { virtualbox: VirtualBox { mac_address }, synced_folders } => {
            let mut content = format!("config.vm.base_mac = \"{mac_address}\"\n");
            if let Some(SyncedDirectory { kind }) = synced_folders.vagrant {
                let kind = required(kind, "type")?;
                content += &format!("    config.vm.synced_folder \".\", \"/vagrant\", type: \"{kind}\"\n");
            }
            (content, json!({"provider": "virtualbox"}))
        }
    };
    cx.tree.write("Vagrantfile", format!("Vagrant.configure(\"2\") do |config|\n    {content}\nend\n"))?;
    cx.tree.write("metadata.json", osbc_pytext::json::to_string(&metadata))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn run_with(options: Value) -> Done {
        let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
        header.resize(24, 0);
        header.extend(10_737_418_240u64.to_be_bytes());
        let case = Case::new(&MODULE).input("image", json!({"files": {"a.img": {}}}), |tree| {
            tree.write("a.img", header).unwrap();
            tree.chmod("a.img", 0o640).unwrap();
        });
        case.run(options)
    }

    #[test]
    fn libvirt_gets_the_size() {
        let done = run_with(json!({"provider": "libvirt"})).ok();
        assert_eq!(done.text("metadata.json"), r#"{"provider": "libvirt", "format": "qcow2", "virtual_size": 10}"#);
        let file = "Vagrant.configure(\"2\") do |config|\n    config.vm.provider :libvirt do |libvirt|\n  \
            libvirt.driver = \"kvm\"\nend\n\nend\n";
        assert_eq!(done.text("Vagrantfile"), file);
        assert_eq!((done.tree.metadata("box.img").unwrap().len(), done.mode("box.img")), (32, 0o640));
    }

    #[test]
    fn virtualbox_gets_the_address_and_directories() {
        let directories = json!({"/vagrant": {"type": "rsync"}});
        let own = json!({"mac_address": "080027abcdef"});
        let done = run_with(json!({"provider": "virtualbox", "virtualbox": own, "synced_folders": directories})).ok();
        assert_eq!(done.text("metadata.json"), r#"{"provider": "virtualbox"}"#);
        let file = "Vagrant.configure(\"2\") do |config|\n    config.vm.base_mac = \"080027abcdef\"\n    \
            config.vm.synced_folder \".\", \"/vagrant\", type: \"rsync\"\n\nend\n";
        assert_eq!(done.text("Vagrantfile"), file);
        assert!(done.tree.is_file("box.vmdk").unwrap());
    }
}
