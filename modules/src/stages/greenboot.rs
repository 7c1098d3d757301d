//! Configures greenboot, which checks whether a boot went well.
//!
//! Edits `/etc/greenboot/greenboot.conf`, which must be there. Services to monitor are put before those it has; without such a
//! line one is added at the end.
//!
//! ```json
//! { "type": "org.osbuild.greenboot", "options": { "config": { "monitor_services": ["sshd", "NetworkManager"] } } }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::shell;
use crate::texts::text;
use std::os::unix::fs::PermissionsExt;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.greenboot",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"monitor_services": "a"}}}"#,
        r#"{"options": {"config": {"services": []}}}"#,
        r#"{"options": {"config": {}, "path": "a"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/greenboot/greenboot.conf";
const SERVICES: &str = "GREENBOOT_MONITOR_SERVICES";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings.
    config: Config,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Services that must run.
    monitor_services: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config: Config { monitor_services } } = cx.options()?;
    let word = |service: String| Ok(shell::escaped(one_line::word("config.monitor_services", &service)?));
    let words = |services: Vec<String>| services.into_iter().map(word).collect::<Result<Vec<_>, Error>>();
    let monitor_services = monitor_services.map(words).transpose()?;
    let text = text::read(&cx.tree, FILE)?;
    let mode = cx.tree.metadata(FILE)?.permissions().mode();
    cx.tree.replace(FILE, with_services(&text, monitor_services), mode)
}

fn with_services(text: &str, mut services: Option<Vec<String>>) -> String {
    let mut edited = String::new();
    for line in text.split_inclusive('\n') {
        let value = line.split_once('=').filter(|(key, value)| *key == SERVICES && !value.contains('='));
        match (value, &mut services) {
            (Some((_, value)), wanted @ Some(_)) => {
                let there: Vec<&str> = value.trim_matches(['"', '\n']).split(' ').collect();
                let mut all = wanted.take().unwrap_or_default();
                all.retain(|service| !there.contains(&service.as_str()));
                all.extend(there.into_iter().map(str::to_owned));
                edited += &format!("{SERVICES}=\"{}\"\n", all.join(" "));
            }
            _ => edited += line,
        }
    }
    if let Some(services) = services {
        edited += &format!("{SERVICES}=\"{}\"\n", services.join(" "));
    }
    edited
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn services(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn services_are_put_before_those_that_are_there() {
        let text = "# GREENBOOT_MONITOR_SERVICES=\nGREENBOOT_MONITOR_SERVICES=\"a b\"\nX=1\n";
        let expected = "# GREENBOOT_MONITOR_SERVICES=\nGREENBOOT_MONITOR_SERVICES=\"c a b\"\nX=1\n";
        assert_eq!(with_services(text, services(&["a", "c"])), expected);
        assert_eq!(with_services(text, None), text);
    }

    #[test]
    fn without_a_line_one_is_added() {
        let added = "GREENBOOT_MONITOR_SERVICES=\"a\"\n";
        assert_eq!(with_services("X=1\n", services(&["a"])), format!("X=1\n{added}"));
        assert_eq!(with_services("X=1\nA=b=c\n", services(&["a"])), format!("X=1\nA=b=c\n{added}"));
    }

    #[test]
    fn the_file_keeps_its_mode_and_must_be_there() {
        let options = json!({"config": {"monitor_services": ["a"]}});
        let done = Case::new(&MODULE).file(FILE, "").mode(FILE, 0o600).run(options.clone()).ok();
        assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), ("GREENBOOT_MONITOR_SERVICES=\"a\"\n", 0o600));
        assert!(Case::new(&MODULE).run(options).err().starts_with("cannot read /etc/greenboot/greenboot.conf"));
    }
}
