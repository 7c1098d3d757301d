//! Creates a unit of podman for systemd (a quadlet).
//!
//! The file goes to `/usr/share/containers/systemd` or, with `"unit-path": "etc"`, to `/etc/containers/systemd`; the
//! directory must be there. Its name says which section it needs: `.container`, `.volume` or `.network`. Keys are
//! written in the manifest's order, those with a list once for each item, and yes and no as `True` and `False`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers.unit.create",
//!   "options": {
//!     "filename": "web.container",
//!     "config": {
//!       "Unit": { "Description": "Web server" },
//!       "Container": { "Image": "docker.io/library/nginx", "Environment": [{ "key": "PORT", "value": "80" }] },
//!       "Install": { "WantedBy": ["multi-user.target"] }
//!     }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::options::InOrder;
use crate::texts::systemd_unit::{self, Variable};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.containers.unit.create",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.container"}}"#,
        r#"{"options": {"filename": "a.service", "config": {"Volume": {}}}}"#,
        r#"{"options": {"filename": "a/b.volume", "config": {"Volume": {}}}}"#,
        r#"{"options": {"filename": "a.container", "config": {"Container": {"Image": "x"}}}}"#,
        r#"{"options": {"filename": "a.volume", "config": {"Volume": {}, "Network": {}}}}"#,
        r#"{"options": {"filename": "a.volume", "config": {"Volume": {"Size": "1"}}}}"#,
        r#"{"options": {"filename": "a.network", "config": {"Network": {"DNS": "1.1.1.1"}}}}"#,
        r#"{"options": {"filename": "a.volume", "unit-path": "run", "config": {"Volume": {}}}}"#,
        r#"{"options": {"filename": "a.volume", "config": {"Volume": {}, "Service": {"Restart": "never"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The file's name.
    #[schemars(regex(pattern = r"^[\w:.\\-]+[@]{0,1}[\w:.\\-]*\.(container|volume|network)$"))]
    filename: String,
    /// Below which directory it goes.
    #[serde(default)]
    unit_path: UnitPath,
    /// What is in it.
    config: InOrder<Config>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UnitPath {
    #[default]
    Usr,
    Etc,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {
        "required": ["Unit", "Container", "Install"],
        "not": {"anyOf": [{"required": ["Volume"]}, {"required": ["Network"]}]},
    },
    {"required": ["Volume"], "not": {"anyOf": [{"required": ["Container"]}, {"required": ["Network"]}]}},
    {"required": ["Network"], "not": {"anyOf": [{"required": ["Container"]}, {"required": ["Volume"]}]}},
]))]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Config {
    unit: Option<Unit>,
    service: Option<Service>,
    container: Option<Container>,
    volume: Option<Volume>,
    network: Option<Network>,
    install: Option<Install>,
}

/// What the unit is and needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Unit {
    description: Option<String>,
    wants: Option<Vec<String>>,
    after: Option<Vec<String>>,
    before: Option<Vec<String>>,
    requires: Option<Vec<String>>,
    condition_path_exists: Option<Vec<String>>,
    condition_path_is_directory: Option<Vec<String>>,
    default_dependencies: Option<bool>,
}

/// How its service behaves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Service {
    restart: Option<Restart>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Restart {
    No,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnWatchdog,
    OnAbort,
    Always,
}

/// A container.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Container {
    /// Variables of its environment.
    environment: Option<Vec<Variable>>,
    /// Its image.
    image: String,
    /// The command that it runs.
    exec: Option<String>,
    /// Its volumes.
    volume: Option<Vec<String>>,
    /// The user that it runs as.
    user: Option<String>,
    /// The group that it runs as.
    group: Option<String>,
    /// A device that it gets.
    add_device: Option<String>,
    /// Its network.
    network: Option<String>,
    /// Where its first process begins.
    working_dir: Option<String>,
    /// The SELinux label of its files.
    security_label_file_type: Option<String>,
    /// The SELinux label of its processes.
    security_label_type: Option<String>,
    /// Where it has a file system in memory.
    tmpfs: Option<String>,
}

/// A volume.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Volume {
    /// Its name, in place of the file's.
    volume_name: Option<String>,
    /// Its driver.
    driver: Option<String>,
    /// Its image, for the driver `image`.
    image: Option<String>,
    /// Its owner.
    user: Option<String>,
    /// Its group.
    group: Option<String>,
}

/// A network. osbuild takes nothing but yes and no for its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Network {
    gateway: Option<bool>,
    #[serde(rename = "DNS")]
    dns: Option<bool>,
    #[serde(rename = "IPRange")]
    ip_range: Option<bool>,
    subnet: Option<bool>,
    driver: Option<bool>,
    network_name: Option<bool>,
}

/// What starts it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the sections are written as they come")]
struct Install {
    wanted_by: Option<Vec<String>>,
    required_by: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, unit_path, config } = cx.options()?;
    if filename.chars().count() > 255 {
        return Err(Error::failed(format!("`{filename}` is longer than a file's name may be")));
    }
    for (suffix, section) in [(".container", "Container"), (".volume", "Volume"), (".network", "Network")] {
        if filename.ends_with(suffix) && !config.entries.contains_key(section) {
            return Err(Error::failed(format!("the unit `{filename}` needs a section `{section}`")));
        }
    }
    let mut ini = Sections::default();
    systemd_unit::fill(&mut ini, &config.entries)?;
    let directory = match unit_path {
        UnitPath::Usr => "usr/share/containers/systemd",
        UnitPath::Etc => "etc/containers/systemd",
    };
    cx.tree.write(format!("{directory}/{filename}"), ini.text("="))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn lists_are_written_once_an_item() {
        let config = json!({
            "Install": {"WantedBy": ["a", "b"]},
            "Unit": {"DefaultDependencies": false, "Description": "100%"},
            "Container": {"Image": "i", "Environment": [{"key": "K", "value": "v w"}, {"key": "L", "value": ""}]},
        });
        let options = json!({"filename": "x.container", "unit-path": "etc", "config": config});
        let done = Case::new(&MODULE).dir("etc/containers/systemd").run(options).ok();
        let sections = [
            "[Install]\nWantedBy=a\nWantedBy=b\n\n",
            "[Unit]\nDefaultDependencies=False\nDescription=100%\n\n",
            "[Container]\nImage=i\nEnvironment=\"K=v w\"\nEnvironment=\"L=\"\n\n",
        ];
        assert_eq!(done.text("etc/containers/systemd/x.container"), sections.concat());
    }

    #[test]
    fn the_name_must_fit_the_sections_and_the_directory_be_there() {
        let run = |filename: &str| Case::new(&MODULE).run(json!({"filename": filename, "config": {"Volume": {}}}));
        assert_eq!(run("a.network").err(), "the unit `a.network` needs a section `Network`");
        assert!(run("a.volume").err().starts_with("cannot write /usr/share/containers/systemd/a.volume"));
        assert!(run(&format!("{}.volume", "a".repeat(249))).err().ends_with("longer than a file's name may be"));
    }

    #[test]
    fn a_variable_needs_both_parts() {
        let container = json!({"Image": "i", "Environment": [{"key": "K"}]});
        let config = json!({"Unit": {}, "Container": container, "Install": {}});
        let done = Case::new(&MODULE).run(json!({"filename": "a.container", "config": config}));
        assert_eq!(done.err(), "a variable of the environment needs a `key` and a `value`");
    }
}
