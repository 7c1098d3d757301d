//! Sets the state and the policy of SELinux.
//!
//! Changes `/etc/selinux/config`, which must be there; settings that it does not have are not added. All lines that are
//! not empty and do not begin with `#` must be settings `KEY=value`.
//!
//! Without `state` the state stays as it is; osbuild sets it to `None` then.
//!
//! ```json
//! { "type": "org.osbuild.selinux.config", "options": { "state": "permissive", "type": "targeted" } }
//! ```

use osbc_module_api::*;

use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.selinux.config",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"state": "on"}}"#, r#"{"options": {"type": "own"}}"#, r#"{"options": {"other": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/selinux/config";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the policy does
    #[schemars(extend("enum" = ["enforcing", "permissive", "disabled"]))]
    state: Option<String>,
    /// Which policy it is
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["targeted", "minimum", "mls"]))]
    policy: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { state, policy } = cx.options()?;
    let mut new = String::new();
    for (index, line) in text::read(&cx.tree, FILE)?.split_inclusive('\n').enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            new.push_str(line);
            continue;
        }
        let (key, _) = line
            .trim()
            .split_once('=')
            .ok_or_else(|| Error::failed(format!("/{FILE}:{}: `{}` is no setting", index + 1, line.trim_end())))?;
        match (key, &state, &policy) {
            ("SELINUX", Some(value), _) | ("SELINUXTYPE", _, Some(value)) => new += &format!("{key}={value}\n"),
            _ => new.push_str(line),
        }
    }
    cx.tree.write(FILE, new)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const OLD: &str = "# SELINUX=x\n\nSELINUX=enforcing\n SELINUXTYPE=mls\nOTHER=a=b\n";

    #[test]
    fn the_settings_that_are_there_are_changed() {
        let done = Case::new(&MODULE).file(FILE, OLD).run(json!({"state": "disabled", "type": "targeted"})).ok();
        assert_eq!(done.text(FILE), "# SELINUX=x\n\nSELINUX=disabled\nSELINUXTYPE=targeted\nOTHER=a=b\n");
        let done = Case::new(&MODULE).file(FILE, OLD).run(json!({"state": "permissive"})).ok();
        assert_eq!(done.text(FILE), "# SELINUX=x\n\nSELINUX=permissive\n SELINUXTYPE=mls\nOTHER=a=b\n");
        let done = Case::new(&MODULE).file(FILE, OLD).run(json!({})).ok();
        assert_eq!(done.text(FILE), OLD);
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let done = Case::new(&MODULE).file(FILE, "\nSELINUX\n").run(json!({"state": "disabled"}));
        assert_eq!(done.err(), "/etc/selinux/config:2: `SELINUX` is no setting");
        assert!(Case::new(&MODULE).run(json!({"state": "disabled"})).err().contains("No such file"));
    }
}
