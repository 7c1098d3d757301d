//! A LUKS container, opened.
//!
//! Calls `cryptsetup` and `dmsetup` of the host on the parent device. The name that the opened device gets is random and
//! is found nowhere in the container. It goes away with its last user.
//!
//! ```json
//! {
//!   "type": "org.osbuild.luks2",
//!   "parent": "disk",
//!   "options": { "passphrase": "osbuild" }
//! }
//! ```

use osbc_module_api::*;
use uuid::Uuid;

use crate::disks::device_mapper::{Number, open, parent, remove_with_last_user};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Device,
    name: "org.osbuild.luks2",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::DeviceMapper, Requirement::HostTool("cryptsetup"), Requirement::HostTool("dmsetup")],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"passphrase": 1}}"#,
        r#"{"options": {"passphrase": "p", "name": "n"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Device(run),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The passphrase that opens the container.
    passphrase: String,
}

fn run(context: &DeviceContext) -> Result<OpenDevice, Error> {
    let options: Options = context.options()?;
    let below = parent(context, None)?;
    let dmsetup = Tool::of_host("dmsetup")?;
    let name = format!("osbuild-luks-{}", Uuid::new_v4());
    let cryptsetup = Tool::of_host("cryptsetup")?.args(["-q", "open"]).arg(below).arg(&name);
    cryptsetup.stdin(options.passphrase).quiet_output()?;
    let opened = || {
        let arguments = ["info", "-c", "-o", "major,minor", "--noheadings", "--separator", ":", &name];
        let number = Number::parse(&dmsetup.args(arguments).quiet_output()?, ':')?;
        let path = format!("mapper/{name}");
        let handle = open(context.dev, &[&path], number)?;
        let node = json!({"major": number.major, "minor": number.minor});
        Ok(OpenDevice { path: path.into(), data: json!({"name": name, "node": node}), keep: vec![handle] })
    };
    let device = opened();
    // Also where it could not be shown: then it goes at once.
    remove_with_last_user(&name)?;
    device
}
