//! Creates a unit of systemd.
//!
//! Writes a service, mount, socket or swap below `/usr/lib/systemd` or `/etc/systemd`, in the manifest's order; the
//! directory must be there, and the unit must have the section of its kind. Lists have a line for each item, yes and no
//! are `True` and `False`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd.unit.create",
//!   "options": {
//!     "filename": "app.service",
//!     "config": {
//!       "Unit": { "Description": "The app", "After": ["network.target"] },
//!       "Service": { "Type": "oneshot", "ExecStart": ["/usr/bin/app"] },
//!       "Install": { "WantedBy": ["multi-user.target"] }
//!     }
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::options::InOrder;
use crate::texts::systemd_unit::{self, Directory, Variable};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd.unit.create",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.service"}}"#,
        r#"{"options": {"filename": "a.service", "config": {}}}"#,
        r#"{"options": {"filename": "a.service", "config": {"Unit": {}, "Service": {}}}}"#,
        r#"{"options": {"filename": "a.timer", "config": {"Unit": {}, "Service": {}, "Install": {}}}}"#,
        r#"{"options": {"filename": "a.mount", "config": {"Mount": {"What": "/a"}}}}"#,
        r#"{"options": {"filename": "a.mount", "config": {"Mount": {"What": "/a", "Where": "/b"}, "Swap": {"What": "/c"}}}}"#,
        r#"{"options": {"filename": "a.swap", "config": {"Swap": {"What": "/a", "Priority": "1"}}}}"#,
        r#"{"options": {"filename": "a.service", "config": {"Unit": {}, "Service": {"StandardOutput": "file"}, "Install": {}}}}"#,
        r#"{"options": {"filename": "a.socket", "config": {"Socket": {"Accept": "no"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The name of the unit
    #[schemars(regex(pattern = r"^[\w:.\\-]+[@]{0,1}[\w:.\\-]*\.(service|mount|socket|swap)$"))]
    filename: String,
    /// Whether it is a unit of the system or of all users
    #[serde(default)]
    unit_type: Directory,
    /// Whether it lies below `/usr/lib` or `/etc`
    #[serde(default)]
    unit_path: Place,
    /// The settings, by section
    config: InOrder<Config>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Usr,
    Etc,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[schemars(transform = one_kind)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Config {
    /// The section `[Unit]`
    unit: Option<Unit>,
    /// The section `[Service]`
    service: Option<Service>,
    /// The section `[Mount]`
    mount: Option<Mount>,
    /// The section `[Socket]`
    socket: Option<Socket>,
    /// The section `[Swap]`
    swap: Option<Swap>,
    /// The section `[Install]`
    install: Option<Install>,
}

/// The sections that make a unit one of a kind.
const KINDS: [&str; 4] = ["Service", "Socket", "Mount", "Swap"];

/// A unit has the section of one kind; a service has `[Unit]` and `[Install]` too.
fn one_kind(schema: &mut schemars::Schema) {
    let variant = |kind: &&str| {
        let required = if *kind == "Service" { json!(["Unit", "Service", "Install"]) } else { json!([kind]) };
        let others: Vec<Value> =
            KINDS.iter().filter(|own| *own != kind).map(|own| json!({"required": [own]})).collect();
        json!({"required": required, "not": {"anyOf": others}})
    };
    schema.insert("oneOf".into(), KINDS.iter().map(variant).collect());
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Unit {
    /// What it is
    description: Option<String>,
    /// Units that it wants
    wants: Option<Vec<String>>,
    /// Units that it comes after
    after: Option<Vec<String>>,
    /// Units that it comes before
    before: Option<Vec<String>>,
    /// Units that it cannot do without
    requires: Option<Vec<String>>,
    /// Paths without which it is not started
    condition_path_exists: Option<Vec<String>>,
    /// Directories without which it is not started
    condition_path_is_directory: Option<Vec<String>>,
    /// Whether it depends on what most units do
    default_dependencies: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Service {
    /// When it counts as started
    #[serde(rename = "Type")]
    #[schemars(extend("enum" = [
        "simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle",
    ]))]
    kind: Option<String>,
    /// Whether it counts as running when its processes have ended
    remain_after_exit: Option<bool>,
    /// Commands before it
    exec_start_pre: Option<Vec<String>>,
    /// Commands after it
    exec_stop_post: Option<Vec<String>>,
    /// Its commands
    exec_start: Option<Vec<String>>,
    /// Variables of its environment
    environment: Option<Vec<Variable>>,
    /// Files of such variables
    environment_file: Option<Vec<String>>,
    /// Where its output goes
    #[schemars(regex(pattern = concat!(
        r"^(inherit|null|tty|journal|kmsg|journal\+console|kmsg\+console|file:\/(?!\.\.)((?!\/\.\.\/).)+",
        r"|append:\/(?!\.\.)((?!\/\.\.\/).)+|truncate:\/(?!\.\.)((?!\/\.\.\/).)+|socket|fd:.+)$",
    )))]
    standard_output: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Mount {
    /// What is mounted
    what: String,
    /// The mount point
    #[serde(rename = "Where")]
    place: String,
    /// The type of the file system
    #[serde(rename = "Type")]
    kind: Option<String>,
    /// Mount options
    options: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Socket {
    /// The service that it starts
    service: Option<String>,
    /// Where it listens for streams
    listen_stream: Option<String>,
    /// Where it listens for datagrams
    listen_datagram: Option<String>,
    /// Where it listens for sequenced packets
    listen_sequential_packet: Option<String>,
    /// The pipe that it listens at
    listen_fifo: Option<String>,
    /// The owner of its node
    socket_user: Option<String>,
    /// The group of its node
    socket_group: Option<String>,
    /// The mode of its node
    socket_mode: Option<String>,
    /// The mode of the directories above
    directory_mode: Option<String>,
    /// Whether each connection gets a service of its own
    accept: Option<bool>,
    /// Directories below `/run`
    runtime_directory: Option<String>,
    /// Whether its node is removed in the end
    remove_on_stop: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Swap {
    /// The device or file
    what: String,
    /// Its priority among others
    #[schemars(with = "Option<i64>")]
    priority: Option<Number>,
    /// Options of the device
    options: Option<String>,
    /// How long swapon may take
    timeout_sec: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Install {
    /// Units that want it when it is enabled
    wanted_by: Option<Vec<String>>,
    /// Units that require it when it is enabled
    required_by: Option<Vec<String>>,
}

/// The longest name that a file system takes.
const LONGEST: usize = 255;

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, unit_type, unit_path, config } = cx.options()?;
    if filename.chars().count() > LONGEST {
        return Err(Error::failed(format!("the name of the unit `{filename}` is too long for a file")));
    }
    let is_of = |kind: &&&str| filename.ends_with(&format!(".{}", kind.to_lowercase()));
    if let Some(kind) = KINDS.iter().find(is_of)
        && !config.entries.contains_key(*kind)
    {
        return Err(Error::failed(format!("the unit {filename} needs a section `{kind}`")));
    }
    let mut file = Sections::default();
    systemd_unit::fill(&mut file, &config.entries)?;
    let place = match unit_path {
        Place::Usr => "usr/lib/systemd",
        Place::Etc => "etc/systemd",
    };
    cx.tree.write(format!("{place}/{}/{filename}", unit_type.name()), file.text("="))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn create(filename: &str, config: Value) -> Done {
        let case = Case::new(&MODULE).dir("usr/lib/systemd/system");
        case.run(json!({"filename": filename, "config": config}))
    }

    #[test]
    fn lists_have_a_line_an_item_and_the_order_is_kept() {
        let done = create(
            "a.service",
            json!({
                "Unit": {"Description": "An app", "After": ["b.service", "a.target"], "DefaultDependencies": false},
                "Service": {
                    "ExecStart": ["/bin/a -x=1", "/bin/b"],
                    "Environment": [{"key": "A", "value": "%h"}],
                    "RemainAfterExit": true,
                    "Type": "oneshot",
                },
                "Install": {"WantedBy": [], "RequiredBy": ["x.target"]},
            }),
        );
        let text = "[Unit]\nDescription=An app\nAfter=b.service\nAfter=a.target\nDefaultDependencies=False\n\n\
            [Service]\nExecStart=/bin/a -x=1\nExecStart=/bin/b\nEnvironment=\"A=%h\"\nRemainAfterExit=True\n\
            Type=oneshot\n\n[Install]\nRequiredBy=x.target\n\n";
        assert_eq!(done.ok().text("usr/lib/systemd/system/a.service"), text);
    }

    #[test]
    fn the_directory_is_chosen_and_must_be_there() {
        let config = json!({"Swap": {"What": "/dev/vda2", "Priority": 5}});
        let mut options = json!({"filename": "a.swap", "config": config, "unit-path": "etc", "unit-type": "global"});
        let done = Case::new(&MODULE).dir("etc/systemd/user").run(options.clone()).ok();
        assert_eq!(done.text("etc/systemd/user/a.swap"), "[Swap]\nWhat=/dev/vda2\nPriority=5\n\n");
        options["unit-path"] = json!("usr");
        assert!(Case::new(&MODULE).run(options).err().contains("No such file"));
    }

    #[test]
    fn a_unit_has_the_section_of_its_kind() {
        let done = create("a.socket", json!({"Mount": {"What": "/a", "Where": "/b"}}));
        assert_eq!(done.err(), "the unit a.socket needs a section `Socket`");
        let done = create(&format!("{}.mount", "a".repeat(250)), json!({"Mount": {"What": "/a", "Where": "/b"}}));
        assert!(done.err().contains("too long"));
    }
}
