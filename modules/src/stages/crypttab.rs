//! Writes `/etc/crypttab`.
//!
//! The file has a line for each encrypted block device, in order, and nothing else. A device is named by exactly one of
//! `uuid` and `path`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.crypttab",
//!   "options": {
//!     "volumes": [{ "volume": "luks-root", "uuid": "2c1a4b3e-5d6f-47a8-9b0c-1d2e3f405162", "options": "discard" }]
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.crypttab",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"volumes": [{"volume": "a"}]}}"#,
        r#"{"options": {"volumes": [{"uuid": "a"}]}}"#,
        r#"{"options": {"volumes": [{"volume": "a", "uuid": "b", "path": "/c"}]}}"#,
        r#"{"options": {"volumes": [{"volume": "a", "uuid": "b", "keyfile": 1}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The lines.
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["uuid", "volume"]}, {"required": ["path", "volume"]}]))]
struct Volume {
    /// The name below `/dev/mapper`.
    volume: String,
    /// The device's UUID.
    uuid: Option<String>,
    /// The device's node.
    path: Option<String>,
    /// The file that holds the key.
    #[serde(default = "no_file")]
    keyfile: String,
    /// Options, separated by commas.
    #[serde(default)]
    options: String,
}

fn no_file() -> String {
    "none".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { volumes } = cx.options()?;
    let lines = volumes.iter().map(Volume::line).collect::<Result<String, _>>()?;
    cx.tree.write("etc/crypttab", lines)
}

impl Volume {
    fn line(&self) -> Result<String, Error> {
        let Self { volume, uuid, path, keyfile, options } = self;
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let device = named(uuid).map(|uuid| format!("UUID={uuid}")).or_else(|| named(path));
        let device = device.ok_or_else(|| Error::failed(format!("the device of `{volume}` has an empty name")))?;
        for (name, field) in [("volume", volume), ("path", &device), ("keyfile", keyfile)] {
            one_line::word(name, field)?;
        }
        one_line::refuse("options", options, char::is_whitespace, "a blank")?;
        if volume.starts_with('#') {
            return Err(Error::failed(format!("the option `volume` makes a comment of its line: {volume:?}")));
        }
        Ok(format!("{volume}\t{device}\t{keyfile}\t{options}\n"))
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_device_has_a_line() {
        let volumes = json!([
            {"volume": "a", "uuid": "1-2", "keyfile": "/etc/key", "options": "discard,luks"},
            {"volume": "b", "path": "/dev/vda2", "comment": "ignored"},
        ]);
        let done = Case::new(&MODULE).file("etc/crypttab", "old\n").run(json!({ "volumes": volumes })).ok();
        let lines = "a\tUUID=1-2\t/etc/key\tdiscard,luks\nb\t/dev/vda2\tnone\t\n";
        assert_eq!(done.text("etc/crypttab"), lines);
    }

    #[test]
    fn an_empty_name_is_refused() {
        let done = Case::new(&MODULE).dir("etc").run(json!({"volumes": [{"volume": "a", "uuid": ""}]}));
        assert_eq!(done.err(), "the device of `a` has an empty name");
    }

    #[test]
    fn fields_are_words() {
        let refused = |volume: Value| Case::new(&MODULE).dir("etc").run(json!({"volumes": [volume]})).err().to_owned();
        let error = refused(json!({"volume": "a", "path": "/dev/my disk"}));
        assert!(error.contains("`path` has a blank"), "{error}");
        let error = refused(json!({"volume": "a", "path": "/dev/b", "options": "luks, discard"}));
        assert!(error.contains("`options` has a blank"), "{error}");
        assert!(refused(json!({"volume": "#a", "path": "/dev/b"})).contains("makes a comment"));
    }
}
