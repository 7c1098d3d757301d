//! Creates a connection of NetworkManager.
//!
//! Writes the file `path`, or `filename` below `/usr/lib/NetworkManager/system-connections`, anew and for its owner
//! alone. The sections stand in the manifest's order.
//!
//! ```json
//! {
//!   "type": "org.osbuild.nm.conn",
//!   "options": {
//!     "path": "/etc/NetworkManager/system-connections/lan.nmconnection",
//!     "settings": {
//!       "connection": { "id": "lan", "uuid": "1d0b4c7e-3a5f-4f0e-9c0c-5f3f5d7f3a10", "type": "ethernet" },
//!       "ipv4": { "method": "auto" }
//!     }
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::options::InOrder;
use crate::trees::network_manager;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.nm.conn",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}}}}"#,
        r#"{"options": {"path": "/a", "settings": {}}}"#,
        r#"{"options": {"path": "/a", "filename": "a.nmconnection", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}}}}"#,
        r#"{"options": {"filename": "a.conf", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"connection": {"id": "a", "uuid": "b", "type": "wifi"}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet", "x": 1}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}, "ipv4": {"method": "link-local"}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}, "ipv4": {"method": "ignore", "address": []}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"connection": {"id": "a", "uuid": "b", "type": "ethernet"}, "ipv6": {"method": "auto"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const DIRECTORY: &str = "usr/lib/NetworkManager/system-connections";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["filename"]}, {"required": ["path"]}]))]
struct Options {
    /// The file's name in the usual directory.
    #[schemars(regex(pattern = r"^[\w.-]{1,242}.nmconnection$"))]
    filename: Option<String>,
    /// The file.
    path: Option<String>,
    /// Its sections.
    settings: InOrder<Settings>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Settings {
    connection: Connection,
    ipv4: Option<Ipv4>,
    ipv6: Option<Ipv6>,
    ethernet: Option<Ethernet>,
}

/// What it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Connection {
    /// Its name.
    id: String,
    /// Its id.
    uuid: String,
    /// Its kind.
    r#type: ConnectionType,
    /// Whether it is made of its own accord.
    autoconnect: Option<bool>,
    /// The interface that it is for.
    interface_name: Option<String>,
    /// Of several, the one with the highest number is made.
    #[schemars(with = "Option<f64>")]
    autoconnect_priority: Option<Number>,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum ConnectionType {
    #[serde(rename = "802-3-ethernet")]
    Standard,
    #[serde(rename = "ethernet")]
    Ethernet,
}

/// How it gets IPv4 addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
enum Ipv4 {
    /// Not at all.
    Ignore {},
    /// By DHCP.
    Auto {
        /// Domains to look for names in.
        #[serde(rename = "dns-search")]
        dns_search: Option<String>,
    },
    /// By hand.
    Manual {
        /// The addresses.
        address: Option<Vec<String>>,
    },
}

/// How it gets IPv6 addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
enum Ipv6 {
    /// Not at all.
    Ignore {},
}

/// What is special about Ethernet; any setting is taken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Ethernet {
    /// The address of the card.
    mac_address: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, path, settings } = cx.options()?;
    let path = match (path.filter(|path| !path.is_empty()), filename) {
        (Some(path), _) => path,
        (None, Some(filename)) => format!("{DIRECTORY}/{filename}"),
        (None, None) => return Err(Error::failed("the connection's `path` is empty")),
    };
    let mut ini = Sections::default();
    for (name, settings) in &settings.entries {
        network_manager::set(ini.section(name)?, settings)?;
    }
    network_manager::write(&cx.tree, &path, &ini)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn connection() -> Value {
        json!({"uuid": "u", "id": "i", "type": "802-3-ethernet", "autoconnect": true, "autoconnect-priority": -1.0})
    }

    #[test]
    fn settings_keep_their_order() {
        let settings = json!({
            "ipv4": {"method": "manual", "address": ["1/8", "2/8"]},
            "ethernet": {"mac-address": "a:b", "mtu": 1500},
            "connection": connection(),
            "ipv6": {"method": "ignore"},
        });
        let done = Case::new(&MODULE).run(json!({"filename": "x.nmconnection", "settings": settings})).ok();
        let file = "usr/lib/NetworkManager/system-connections/x.nmconnection";
        let sections = [
            "[ipv4]\nmethod=manual\naddress=1/8,2/8\n\n",
            "[ethernet]\nmac-address=a:b\nmtu=1500\n\n",
            "[connection]\nuuid=u\nid=i\ntype=802-3-ethernet\nautoconnect=true\nautoconnect-priority=-1.0\n\n",
            "[ipv6]\nmethod=ignore\n\n",
        ];
        assert_eq!(done.text(file), sections.concat());
        assert_eq!(done.mode(file), 0o600);
    }

    #[test]
    fn an_empty_path_is_refused() {
        let done = Case::new(&MODULE).run(json!({"path": "", "settings": {"connection": connection()}}));
        assert_eq!(done.err(), "the connection's `path` is empty");
    }
}
