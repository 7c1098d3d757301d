//! Writes a kickstart file, by which Anaconda installs a system without questions.
//!
//! Each option becomes a command or a section; none is checked by what Anaconda knows. A switch of `autopart` that is
//! false is left out; osbuild writes it as if it were true.
//!
//! ```json
//! {
//!   "type": "org.osbuild.kickstart",
//!   "options": {
//!     "path": "/osbuild.ks",
//!     "ostree": { "osname": "fedora", "url": "file:///ostree/repo", "ref": "fedora/x86_64/iot", "gpg": false },
//!     "users": { "admin": { "groups": ["wheel"], "password": "$6$…" } },
//!     "rootpw": { "lock": true },
//!     "clearpart": { "all": true, "initlabel": true },
//!     "autopart": { "type": "plain", "nohome": true },
//!     "network": [{ "device": "link", "bootproto": "dhcp", "activate": true }],
//!     "reboot": { "eject": true },
//!     "%post": [{ "erroronfail": true, "commands": ["touch /etc/installed"] }]
//!   }
//! }
//! ```

use std::path::Path;

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::{Entries, InOrder};
use crate::texts::python;
use crate::texts::shell;
use crate::trees::crypt;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.kickstart",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"path": "/a", "ostree": {"osname": "a", "url": "b"}}}"#,
        r#"{"options": {"path": "/a", "ostreecontainer": {"url": "a"}, "bootc": {"source-imgref": "b"}}}"#,
        r#"{"options": {"path": "/a", "ostreecontainer": {"url": "a", "transport": "docker"}}}"#,
        r#"{"options": {"path": "/a", "liveimg": {}}}"#,
        r#"{"options": {"path": "/a", "users": {"!": {}}}}"#,
        r#"{"options": {"path": "/a", "groups": {"a": {"gid": "1"}}}}"#,
        r#"{"options": {"path": "/a", "rootpw": {"password": "x"}}}"#,
        r#"{"options": {"path": "/a", "rootpw": {"lock": true, "allow_ssh": true}}}"#,
        r#"{"options": {"path": "/a", "clearpart": {"initlabel": true}}}"#,
        r#"{"options": {"path": "/a", "clearpart": {"drives": ["a b"]}}}"#,
        r#"{"options": {"path": "/a", "reboot": {}}}"#,
        r#"{"options": {"path": "/a", "display_mode": "none"}}"#,
        r#"{"options": {"path": "/a", "autopart": {"pbkdf-iterations": 1, "pbkdf-time": 1}}}"#,
        r#"{"options": {"path": "/a", "network": []}}"#,
        r#"{"options": {"path": "/a", "network": [{"device": "a"}]}}"#,
        r#"{"options": {"path": "/a", "network": [{"device": "eth0", "onboot": "maybe"}]}}"#,
        r#"{"options": {"path": "/a", "network": [{"device": "eth0", "ip": "1.2.3.256"}]}}"#,
        r#"{"options": {"path": "/a", "bootloader": {"timeout": 1}}}"#,
        r#"{"options": {"path": "/a", "%post": [{"commands": []}]}}"#,
        r#"{"options": {"path": "/a", "%pre": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {
        "required": ["path"],
        "not": {"anyOf": [{"required": ["ostree"]}, {"required": ["ostreecontainer"]}, {"required": ["bootc"]}]},
    },
    {"required": ["ostree", "path"]},
    {"required": ["ostreecontainer", "path"]},
    {"required": ["bootc", "path"]},
]))]
struct Options {
    /// The file
    path: String,
    /// The commit that is installed
    ostree: Option<Ostree>,
    /// The container with a commit that is installed
    ostreecontainer: Option<OstreeContainer>,
    /// The bootable container that is installed
    bootc: Option<Bootc>,
    /// The image that is installed
    liveimg: Option<LiveImage>,
    /// Groups that are made
    #[serde(default)]
    groups: Entries<GroupName, Group>,
    /// Users that are made
    #[serde(default)]
    users: Entries<UserName, User>,
    /// How root logs in
    rootpw: Option<RootPassword>,
    /// The language, such as `en_US.UTF-8`
    #[serde(default)]
    lang: String,
    /// The keyboard, such as `us`
    #[serde(default)]
    keyboard: String,
    /// The time zone, such as `UTC`
    #[serde(default)]
    timezone: String,
    /// Whether partition tables that are not understood are made anew
    #[serde(default)]
    zerombr: bool,
    /// Which partitions are removed first
    clearpart: Option<ClearPart>,
    /// Whether and how the machine starts anew in the end
    #[serde(default)]
    #[schemars(schema_with = "reboot_schema")]
    reboot: Value,
    /// How the installation shows itself
    #[serde(default)]
    #[schemars(schema_with = "display_mode_schema")]
    display_mode: String,
    /// How the disk is partitioned
    autopart: Option<InOrder<AutoPart>>,
    /// The networks
    #[serde(default)]
    #[schemars(length(min = 1))]
    network: Vec<InOrder<Network>>,
    /// The boot loader
    bootloader: Option<BootLoader>,
    /// What is run in the end
    #[serde(rename = "%post", default)]
    #[schemars(length(min = 1))]
    post: Vec<Post>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ostree {
    /// The name of the stateroot
    osname: String,
    /// The repository
    url: String,
    /// The commit
    #[serde(rename = "ref")]
    reference: String,
    /// What the repository will be called
    #[serde(default)]
    remote: String,
    /// Whether the commit's signature is checked
    #[serde(default = "yes")]
    gpg: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OstreeContainer {
    /// The name of the stateroot
    #[serde(default)]
    stateroot: String,
    /// The container
    url: String,
    /// How it is fetched
    transport: Option<Transport>,
    /// What its registry will be called
    #[serde(default)]
    remote: String,
    /// Without effect
    #[serde(default = "yes", rename = "signatureverification")]
    _signature_verification: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    Registry,
    Oci,
    OciArchive,
    Dir,
    ContainersStorage,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::Dir => "dir",
            Self::ContainersStorage => "containers-storage",
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bootc {
    /// The container
    source_imgref: String,
    /// Where updates come from
    #[serde(default)]
    target_imgref: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct LiveImage {
    /// Where it is
    url: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct GroupName(#[schemars(regex(pattern = "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
struct Group {
    /// The number
    #[schemars(with = "Option<f64>")]
    gid: Option<Number>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct UserName(#[schemars(regex(pattern = "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,255}$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
struct User {
    /// The number
    #[schemars(with = "Option<f64>")]
    uid: Option<Number>,
    /// The number of the first group
    #[schemars(with = "Option<f64>")]
    gid: Option<Number>,
    /// The other groups
    #[serde(default)]
    groups: Vec<String>,
    /// Without effect
    #[serde(default, rename = "description")]
    _description: String,
    /// The home directory
    #[serde(default)]
    home: String,
    /// The login shell
    #[serde(default)]
    shell: String,
    /// The password's hash
    password: Option<String>,
    /// A public key
    #[serde(default)]
    key: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [
    {"required": ["lock"], "not": {"required": ["allow_ssh"]}},
    {"required": ["iscrypted", "password"], "not": {"required": ["plaintext"]}},
    {"required": ["plaintext", "password"], "not": {"required": ["iscrypted"]}},
]))]
struct RootPassword {
    /// Whether root cannot log in by a password
    #[serde(default)]
    lock: bool,
    /// Whether the password is given as such
    #[serde(default)]
    plaintext: bool,
    /// Whether the password is given as its hash
    #[serde(default)]
    iscrypted: bool,
    /// Whether root may log in by SSH with it
    #[serde(default)]
    allow_ssh: bool,
    /// The password
    #[serde(default)]
    #[schemars(length(min = 1))]
    password: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [
    {"required": ["all"]}, {"required": ["drives"]}, {"required": ["list"]}, {"required": ["disklabel"]},
    {"required": ["linux"]},
]))]
struct ClearPart {
    /// All of them
    #[serde(default)]
    all: bool,
    /// Whether disks get a new partition table
    #[serde(default)]
    initlabel: bool,
    /// Those on these disks
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9/:\_|*-]+$")))]
    drives: Vec<String>,
    /// These
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^[A-Za-z0-9]+$")))]
    list: Vec<String>,
    /// The kind of the new partition table
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]+$"))]
    disklabel: String,
    /// Those of Linux
    #[serde(default)]
    linux: bool,
}

fn reboot_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "Whether the machine starts anew in the end",
        "oneOf": [
            {"type": "boolean"},
            {
                "type": "object",
                "additionalProperties": false,
                "anyOf": [{"required": ["eject"]}, {"required": ["kexec"]}],
                "properties": {
                    "eject": {"description": "Whether the medium is ejected", "type": "boolean"},
                    "kexec": {"description": "Whether the new system is started by kexec", "type": "boolean"}
                }
            }
        ]
    })
}

fn display_mode_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "How the installation shows itself",
        "enum": ["text", "graphical", "cmdline"]
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("not" = {"required": ["pbkdf-iterations", "pbkdf-time"]}))]
#[expect(dead_code, reason = "the options are written as they come")]
struct AutoPart {
    /// The scheme
    r#type: Option<Scheme>,
    /// The file system
    fstype: Option<String>,
    /// Whether neither LVM nor Btrfs is used
    nolvm: Option<bool>,
    /// Whether everything is encrypted
    encrypted: Option<bool>,
    /// The passphrase
    passphrase: Option<String>,
    /// Where the certificate is that keys are kept for
    escrowcert: Option<String>,
    /// Whether there is a second passphrase, at random
    backuppassphrase: Option<bool>,
    /// The cipher
    cipher: Option<String>,
    /// The version of LUKS
    luks_version: Option<String>,
    /// How keys are derived from passphrases
    pbkdf: Option<String>,
    /// The memory for it
    #[schemars(with = "Option<i64>")]
    pbkdf_memory: Option<Number>,
    /// The milliseconds for it
    #[schemars(with = "Option<i64>")]
    pbkdf_time: Option<Number>,
    /// The rounds of it
    #[schemars(with = "Option<i64>")]
    pbkdf_iterations: Option<Number>,
    /// Whether `/home` has no partition
    nohome: Option<bool>,
    /// Whether there is no swap
    noswap: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Lvm,
    Btrfs,
    Plain,
    Thinp,
}

/// In the order in which they are written.
const AUTOPART: [&str; 15] = [
    "type",
    "fstype",
    "nolvm",
    "encrypted",
    "passphrase",
    "escrowcert",
    "backuppassphrase",
    "cipher",
    "luks-version",
    "pbkdf",
    "pbkdf-memory",
    "pbkdf-time",
    "pbkdf-iterations",
    "nohome",
    "noswap",
];

const ADDRESS: &str = r"^((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}$";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the options are written as they come")]
struct Network {
    /// Whether it is activated during the installation
    activate: Option<bool>,
    /// How it gets its address
    #[serde(default)]
    #[schemars(schema_with = "bootproto_schema")]
    bootproto: Option<String>,
    /// The interface, by name or address
    #[schemars(regex(pattern = "^([a-zA-Z0-9]{2,16}|(([a-fA-F0-9]{2}:){5}[a-fA-F0-9A]{2}))$"))]
    device: String,
    /// Whether it is activated when the system starts
    #[serde(default)]
    #[schemars(schema_with = "onboot_schema")]
    onboot: Option<Value>,
    /// The address
    #[schemars(regex(pattern = r"^(((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}|auto)$"))]
    ip: Option<String>,
    /// The address of IPv6, maybe with the length of its prefix
    ipv6: Option<String>,
    /// The gateway
    #[schemars(regex(pattern = ADDRESS))]
    gateway: Option<String>,
    /// The gateway of IPv6
    ipv6gateway: Option<String>,
    /// The name servers
    #[schemars(inner(regex(pattern = ADDRESS)))]
    nameservers: Option<Vec<String>>,
    /// The mask of the network
    netmask: Option<String>,
    /// The host name
    #[schemars(regex(
        pattern = r"(?=^.{1,253}$)^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}((\.[a-zA-Z0-9][a-zA-Z0-9-]{0,62})+)?$"
    ))]
    hostname: Option<String>,
    /// The name of the wireless network
    essid: Option<String>,
    /// The key of the wireless network
    wpakey: Option<String>,
}

fn bootproto_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "How it gets its address",
        "enum": ["dhcp", "bootp", "ibft", "static"]
    })
}

fn onboot_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "Whether it is activated when the system starts",
        "enum": ["yes", "on", "true", "1", 1, "off", "no", "false", "0", 0]
    })
}

/// In the order in which they are written.
const NETWORK: [&str; 11] =
    ["device", "bootproto", "onboot", "ip", "ipv6", "gateway", "ipv6gateway", "netmask", "hostname", "essid", "wpakey"];

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BootLoader {
    /// More arguments of the kernel
    #[serde(default)]
    append: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Post {
    /// Whether a failure ends the installation
    #[serde(default)]
    erroronfail: bool,
    /// What reads the commands
    #[serde(default)]
    interpreter: String,
    /// Where what they print goes
    #[serde(default)]
    log: String,
    /// Whether they run outside of the new system
    #[serde(default)]
    nochroot: bool,
    /// The lines
    #[schemars(length(min = 1))]
    commands: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let path = Path::new(options.path.trim_start_matches('/'));
    check(&cx.options)?;
    for (UserName(name), user) in &options.users.0 {
        crypt::check(&format!("users.{name}.password"), user.password.as_deref().unwrap_or_default())?;
    }
    if let Some(root) = options.rootpw.as_ref().filter(|root| root.iscrypted) {
        crypt::check("rootpw.password", &root.password)?;
    }
    let lines = lines(&options)?;
    if let Some(directory) = path.parent() {
        cx.tree.create_dir_all(directory, 0o777)?;
    }
    cx.tree.write(path, lines.join("\n") + "\n")
}

/// Checks that all but the commands, which are lines as they come, stand in a line each.
fn check(options: &Value) -> Result<(), Error> {
    let mut options = options.clone();
    for post in options.get_mut("%post").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(post) = post {
            post.remove("commands");
        }
    }
    one_line::check(&options)
}

/// A value as one word of a line, which is cut as a shell would cut it.
fn word(value: &str) -> String {
    let special = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '#');
    if value.contains(special) { shell::single_quoted(value) } else { value.to_owned() }
}

/// A value between double quotes, or single ones where these do not do.
fn quoted(value: &str) -> String {
    if value.contains(['"', '\\']) { shell::single_quoted(value) } else { format!("\"{value}\"") }
}

fn lines(options: &Options) -> Result<Vec<String>, Error> {
    let mut lines: Vec<String> = source(options);
    for (GroupName(name), group) in &options.groups.0 {
        let number = group.gid.as_ref().map(ToString::to_string).filter(|gid| gid != "0");
        lines.push(format!("group --name {name}{}", number.map_or(String::new(), |gid| format!(" --gid {gid}"))));
    }
    lines.extend(options.users.0.iter().flat_map(|(UserName(name), user)| user.lines(name)));
    lines.extend(options.rootpw.as_ref().and_then(RootPassword::line));
    let texts = [("lang", &options.lang), ("keyboard", &options.keyboard), ("timezone", &options.timezone)];
    lines.extend(texts.iter().filter(|(_, text)| !text.is_empty()).map(|(command, text)| format!("{command} {text}")));
    if options.zerombr {
        lines.push("zerombr".to_owned());
    }
    lines.extend(options.clearpart.as_ref().map(ClearPart::line));
    if !options.display_mode.is_empty() {
        lines.push(options.display_mode.clone());
    }
    if let Some(autopart) = &options.autopart {
        lines.push(with_values("autopart", &AUTOPART, &autopart.entries)?);
    }
    lines.extend(reboot(&options.reboot));
    for network in &options.network {
        lines.push(network_line(&network.entries)?);
    }
    if let Some(BootLoader { append }) = options.bootloader.as_ref().filter(|loader| !loader.append.is_empty()) {
        lines.push(format!("bootloader --append={}", shell::single_quoted(append)));
    }
    for post in &options.post {
        lines.push(post.start());
        lines.extend(post.commands.iter().cloned());
        lines.push("%end".to_owned());
    }
    Ok(lines)
}

/// Where the system comes from.
fn source(options: &Options) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Ostree { osname, url, reference, remote, gpg }) = &options.ostree {
        let remote = if remote.is_empty() { String::new() } else { format!(" --remote={}", word(remote)) };
        let (osname, url, reference) = (word(osname), word(url), word(reference));
        let gpg = if *gpg { "" } else { " --nogpg" };
        lines.push(format!("ostreesetup --osname={osname} --url={url} --ref={reference}{remote}{gpg}"));
    }
    if let Some(OstreeContainer { stateroot, url, transport, remote, .. }) = &options.ostreecontainer {
        let mut line = format!("ostreecontainer --url={}", word(url));
        let transport = transport.map_or("", Transport::name);
        for (name, value) in [("stateroot", stateroot.as_str()), ("transport", transport), ("remote", remote)] {
            if !value.is_empty() {
                line += &format!(" --{name}={}", word(value));
            }
        }
        lines.push(line);
    }
    if let Some(Bootc { source_imgref, target_imgref }) = &options.bootc {
        let target =
            if target_imgref.is_empty() { String::new() } else { format!(" --target-imgref {}", word(target_imgref)) };
        lines.push(format!("bootc --source-imgref {}{target}", word(source_imgref)));
    }
    lines.extend(options.liveimg.as_ref().map(|LiveImage { url }| format!("liveimg --url {}", word(url))));
    lines
}

impl User {
    fn lines(&self, name: &str) -> Vec<String> {
        let mut line = format!("user --name {name}");
        if let Some(password) = &self.password {
            let password = if password.is_empty() { r#""""#.to_owned() } else { word(password) };
            line += &format!(" --password {password} --iscrypted");
        }
        let groups = self.groups.join(",");
        let number = |number: &Option<Number>| number.as_ref().map(ToString::to_string).unwrap_or_default();
        let values = [
            ("shell", self.shell.clone()),
            ("uid", number(&self.uid)),
            ("gid", number(&self.gid)),
            ("groups", groups),
            ("homedir", self.home.clone()),
        ];
        for (option, value) in values {
            if !value.is_empty() {
                line += &format!(" --{option} {}", word(&value));
            }
        }
        let key = (!self.key.is_empty()).then(|| format!("sshkey --username {name} {}", quoted(&self.key)));
        std::iter::once(line).chain(key).collect()
    }
}

impl RootPassword {
    fn line(&self) -> Option<String> {
        let password = word(&self.password);
        let switches = [
            (self.lock, "--lock"),
            (self.plaintext, "--plaintext"),
            (self.iscrypted, "--iscrypted"),
            (self.allow_ssh, "--allow-ssh"),
            (!self.password.is_empty(), password.as_str()),
        ];
        let words: Vec<&str> = switches.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        (!words.is_empty()).then(|| format!("rootpw {}", words.join(" ")))
    }
}

impl ClearPart {
    fn line(&self) -> String {
        let mut line = "clearpart".to_owned();
        if self.all {
            line += " --all";
        }
        let values =
            [("drives", self.drives.join(",")), ("list", self.list.join(",")), ("disklabel", self.disklabel.clone())];
        for (option, value) in values {
            if !value.is_empty() {
                line += &format!(" --{option}={value}");
            }
        }
        for (on, option) in [(self.linux, " --linux"), (self.initlabel, " --initlabel")] {
            line += if on { option } else { "" };
        }
        line
    }
}

fn reboot(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("reboot".to_owned()),
        Value::Object(switches) => {
            let on = |name: &str| switches.get(name) == Some(&Value::Bool(true));
            let words = ["eject", "kexec"].into_iter().filter(|name| on(name)).map(|name| format!(" --{name}"));
            Some(format!("reboot{}", words.collect::<String>()))
        }
        _ => None,
    }
}

/// A command with those of its options that are given; a switch has no value.
fn with_values(command: &str, names: &[&str], entries: &Map<String, Value>) -> Result<String, Error> {
    let mut line = command.to_owned();
    for name in names {
        match entries.get(*name) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => line += &format!(" --{name}"),
            Some(value) => line += &format!(" --{name}={}", word(&python::scalar(value)?)),
        }
    }
    Ok(line)
}

fn network_line(entries: &Map<String, Value>) -> Result<String, Error> {
    let mut line = with_values("network", &NETWORK, entries)?;
    for server in entries.get("nameservers").and_then(Value::as_array).into_iter().flatten() {
        line += &format!(" --nameserver={}", word(&python::scalar(server)?));
    }
    match entries.get("activate") {
        Some(Value::Bool(true)) => line += " --activate",
        Some(Value::Bool(false)) => line += " --no-activate",
        _ => {}
    }
    Ok(line)
}

impl Post {
    fn start(&self) -> String {
        let mut line = "%post".to_owned();
        for (on, option) in [(self.erroronfail, " --erroronfail"), (self.nochroot, " --nochroot")] {
            line += if on { option } else { "" };
        }
        for (option, value) in [("log", &self.log), ("interpreter", &self.interpreter)] {
            if !value.is_empty() {
                line += &format!(" --{option} {}", quoted(value));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;
    use proptest::prelude::*;

    use super::*;

    fn written(mut options: Value) -> String {
        options["path"] = json!("/a/b.ks");
        Case::new(&MODULE).run(options).ok().text("a/b.ks")
    }

    #[test]
    fn nothing_asked_for_is_an_empty_line() {
        assert_eq!(written(json!({})), "\n");
        assert_eq!(written(json!({"reboot": false, "zerombr": false, "lang": "", "rootpw": {"lock": false}})), "\n");
    }

    #[test]
    fn the_source_is_one_of_four() {
        let ostree = json!({"osname": "a", "url": "b", "ref": "c", "remote": "d", "gpg": false});
        let text = written(json!({"ostree": ostree, "liveimg": {"url": "f"}}));
        assert_eq!(text, "ostreesetup --osname=a --url=b --ref=c --remote=d --nogpg\nliveimg --url f\n");
        let container = json!({"url": "a", "stateroot": "b", "transport": "oci-archive", "remote": "c"});
        let text = written(json!({ "ostreecontainer": container }));
        assert_eq!(text, "ostreecontainer --url=a --stateroot=b --transport=oci-archive --remote=c\n");
        let text = written(json!({"bootc": {"source-imgref": "a", "target-imgref": "b"}}));
        assert_eq!(text, "bootc --source-imgref a --target-imgref b\n");
    }

    #[test]
    fn users_and_groups_come_in_the_manifests_order() {
        let users = json!({
            "b": {"password": "", "uid": 0, "gid": 10, "groups": ["x", "y"], "home": "/b", "shell": "/bin/sh", "key": "k"},
            "a": {"password": "$6$"},
        });
        let text = written(json!({"groups": {"z": {"gid": 0}, "y": {"gid": 7}}, "users": users}));
        let expected = "group --name z\ngroup --name y --gid 7\n\
            user --name b --password \"\" --iscrypted --shell /bin/sh --uid 0 --gid 10 --groups x,y --homedir /b\n\
            sshkey --username b \"k\"\nuser --name a --password $6$ --iscrypted\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn disks_and_networks() {
        let text = written(json!({
            "zerombr": true,
            "clearpart": {"all": true, "drives": ["a", "b"], "list": ["c"], "disklabel": "gpt", "linux": true, "initlabel": true},
            "autopart": {"noswap": true, "nohome": false, "pbkdf-memory": 5, "type": "lvm", "passphrase": "p"},
            "network": [{"device": "eth0", "onboot": 1, "nameservers": ["1.1.1.1", "2.2.2.2"], "activate": false}],
            "reboot": {"eject": true, "kexec": true},
            "display_mode": "text",
        }));
        let expected = "zerombr\nclearpart --all --drives=a,b --list=c --disklabel=gpt --linux --initlabel\ntext\n\
            autopart --type=lvm --passphrase=p --pbkdf-memory=5 --noswap\nreboot --eject --kexec\n\
            network --device=eth0 --onboot=1 --nameserver=1.1.1.1 --nameserver=2.2.2.2 --no-activate\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn passwords_and_what_runs_in_the_end() {
        let text = written(json!({
            "rootpw": {"iscrypted": true, "allow_ssh": true, "password": "$6$h"},
            "bootloader": {"append": "a=b"},
            "%post": [{"commands": ["x", "y"], "log": "/l", "interpreter": "/i", "nochroot": true, "erroronfail": true}],
        }));
        let expected = "rootpw --iscrypted --allow-ssh $6$h\nbootloader --append='a=b'\n\
            %post --erroronfail --nochroot --log \"/l\" --interpreter \"/i\"\nx\ny\n%end\n";
        assert_eq!(text, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn lines_are_cut_into_the_words_that_were_given(value in "([ -~]|[\té€]|'){1,20}") {
            if !has_tool("python3") {
                return Ok(());
            }
            let line = format!("{} {} {}", word(&value), quoted(&value), shell::single_quoted(&value));
            // As pykickstart does it.
            let script = "import json, shlex, sys; print(json.dumps(shlex.split(sys.argv[1], comments=True)))";
            let output = Command::new("python3").args(["-c", script, &line]).output().unwrap();
            let read: Option<Vec<String>> = serde_json::from_slice(&output.stdout).ok();
            prop_assert_eq!(read, Some(vec![value; 3]), "{}", line);
        }
    }

    #[test]
    fn values_are_words_of_their_lines() {
        let options = json!({
            "path": "/a.ks",
            "liveimg": {"url": "https://x/a b"},
            "users": {"u": {"password": "$6$x", "home": "/home/it's", "key": "ssh-rsa A \"b\""}},
            "rootpw": {"plaintext": true, "password": "a #b"},
            "bootloader": {"append": "a='b' c"},
            "%post": [{"log": "/a \"b\"", "commands": ["one\ntwo"]}],
        });
        let done = Case::new(&MODULE).run(options).ok();
        let lines = [
            "liveimg --url 'https://x/a b'\n",
            "user --name u --password $6$x --iscrypted --homedir '/home/it'\\''s'\n",
            "sshkey --username u 'ssh-rsa A \"b\"'\n",
            "rootpw --plaintext 'a #b'\n",
            "bootloader --append='a='\\''b'\\'' c'\n",
            "%post --log '/a \"b\"'\none\ntwo\n%end\n",
        ];
        assert_eq!(done.text("a.ks"), lines.concat());
        let done = Case::new(&MODULE).run(json!({"path": "/a.ks", "lang": "C\nreboot"}));
        assert!(done.err().starts_with("the option `lang` has a line break"), "{}", done.err());
    }
}
