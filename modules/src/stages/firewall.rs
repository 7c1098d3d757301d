//! Configures the firewall.
//!
//! The tree's own `firewall-offline-cmd` does it, in a chroot of the tree: the default zone is set, ports and services
//! are opened and services closed in it, and sources are bound to zones, which are made if they are not there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.firewall",
//!   "options": {
//!     "default_zone": "public",
//!     "ports": ["8080:tcp"],
//!     "enabled_services": ["https"],
//!     "disabled_services": ["telnet"],
//!     "zones": [{ "name": "trusted", "sources": ["192.0.2.0/24"] }]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::Program;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.firewall",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"ports": ["8080"]}}"#,
        r#"{"options": {"ports": [":icmp"]}}"#,
        r#"{"options": {"enabled_services": "https"}}"#,
        r#"{"options": {"zones": []}}"#,
        r#"{"options": {"zones": [{"name": "a"}]}}"#,
        r#"{"options": {"zones": [{"name": "a b", "sources": []}]}}"#,
        r#"{"options": {"zones": [{"name": "a", "sources": [], "target": "DROP"}]}}"#,
        r#"{"options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// What the program ends with if there is no such zone.
const INVALID_ZONE: i32 = 112;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The ports to open, as `PORT:PROTOCOL`
    #[serde(default)]
    #[schemars(inner(regex(pattern = ".:(tcp|udp|sctp|dccp)$")))]
    ports: Vec<String>,
    /// The services to open
    #[serde(default)]
    enabled_services: Vec<String>,
    /// The services to close
    #[serde(default)]
    disabled_services: Vec<String>,
    /// The zone of what is in no other
    #[serde(default)]
    default_zone: String,
    /// Sources by zone
    #[schemars(length(min = 1))]
    zones: Option<Vec<Zone>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Zone {
    /// Its name
    #[schemars(regex(pattern = "^[a-zA-Z0-9_-]+$"))]
    name: String,
    /// The addresses that belong to it
    sources: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { ports, enabled_services, disabled_services, default_zone, zones } = cx.options()?;
    let program = || Program::find(&cx.tree, "firewall-offline-cmd");
    if !default_zone.is_empty() {
        program()?.arg(format!("--set-default-zone={default_zone}")).run()?;
    }
    let options = [("port", ports), ("service", enabled_services), ("remove-service", disabled_services)];
    let arguments =
        options.iter().flat_map(|(option, values)| values.iter().map(move |value| format!("--{option}={value}")));
    let arguments: Vec<String> = arguments.collect();
    if !arguments.is_empty() {
        // In one call: these options cannot be used with others, nor again.
        program()?.args(arguments).run()?;
    }
    for Zone { name, sources } in zones.unwrap_or_default() {
        let status = program()?.arg(format!("--info-zone={name}")).status()?;
        match status.code() {
            Some(0) => {}
            Some(INVALID_ZONE) => program()?.arg(format!("--new-zone={name}")).run()?,
            _ => return Err(Error::failed(format!("the zone `{name}` cannot be inspected: {status}"))),
        }
        if !sources.is_empty() {
            let sources = sources.iter().map(|source| format!("--add-source={source}"));
            program()?.arg(format!("--zone={name}")).args(sources).run()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    const SCRIPT: &str =
        "echo \"$@\" >>/etc/said\ncase $1 in --info-zone=new) exit 112;; --info-zone=bad) exit 1;; esac";

    #[test]
    fn what_is_asked_for_is_said_in_order() {
        let Some(case) = with_script(&MODULE, "usr/bin/firewall-offline-cmd", SCRIPT) else { return };
        let done = case.run(json!({
            "zones": [{"name": "old", "sources": []}, {"name": "new", "sources": ["192.0.2.0/24", "2001:db8::/32"]}],
            "disabled_services": ["telnet"],
            "enabled_services": ["https", "ssh"],
            "ports": ["53:udp"],
            "default_zone": "public",
        }));
        let said = "--set-default-zone=public\n--port=53:udp --service=https --service=ssh --remove-service=telnet\n\
            --info-zone=old\n--info-zone=new\n--new-zone=new\n--zone=new --add-source=192.0.2.0/24 --add-source=2001:db8::/32\n";
        assert_eq!(done.ok().text("etc/said"), said);
    }

    #[test]
    fn failures_are_reported() {
        let Some(case) = with_script(&MODULE, "usr/bin/firewall-offline-cmd", SCRIPT) else { return };
        let done = case.run(json!({"zones": [{"name": "bad", "sources": []}]}));
        assert!(done.err().starts_with("the zone `bad` cannot be inspected"), "{}", done.err());
        let done = Case::new(&MODULE).run(json!({"default_zone": "public"}));
        assert!(done.err().contains("install the package `firewalld` there"), "{}", done.err());
        Case::new(&MODULE).run(json!({})).ok();
    }
}
