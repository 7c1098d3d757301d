//! Mounts a discoverable disk image: all its partitions, where their types say.
//!
//! Calls `systemd-dissect` of the host, which needs udev there. The root partition appears at `target` below the root
//! of all mounts, the others below it.
//!
//! ```json
//! {
//!   "name": "image",
//!   "type": "org.osbuild.ddi",
//!   "source": "disk",
//!   "target": "/",
//!   "options": { "read-only": true, "fsck": false, "image-policy": "root=unprotected:=ignore" }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::filesystem_mount::{make_mountpoint, on_host};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.ddi",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("systemd-dissect")],
    schema: || {
        Schema::version_2(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "type", "source", "target"],
            "properties": {
                "name": {"description": "The name by which the stage finds the mount.", "type": "string"},
                "source": {"description": "The name of the device.", "type": "string"},
                "target": {"description": "Where it appears below the root of all mounts.", "type": "string"},
                "options": options_schema::<Options>()
            }
        }))
    },
    rejects: &[
        r#"{"name": "image", "source": "disk"}"#,
        r#"{"name": "image", "target": "/"}"#,
        r#"{"name": "image", "source": "disk", "target": "/", "partition": 1}"#,
        r#"{"name": "image", "source": "disk", "target": "/", "options": {"read-only": "yes"}}"#,
        r#"{"name": "image", "source": "disk", "target": "/", "options": {"discard": "never"}}"#,
        r#"{"name": "image", "source": "disk", "target": "/", "options": {"readonly": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        let source = context.source.as_deref().ok_or_else(|| Error::failed("the mount needs a source"))?;
        let (_, path) = make_mountpoint(context)?;
        let tool = Tool::of_host("systemd-dissect")?.arg("--mount").args(arguments(&options));
        tool.arg(on_host(source)?).arg(&path).quiet_output()?;
        Ok(Some(path))
    }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// Whether file systems are grown to their partitions.
    #[serde(default = "yes")]
    growfs: bool,
    /// Whether to mount all read-only.
    #[serde(default)]
    read_only: bool,
    /// Whether file systems are checked first.
    #[serde(default = "yes")]
    fsck: bool,
    /// On what unused blocks are given back.
    discard: Option<Discard>,
    /// Which partitions must be there and how they must be protected, as systemd.image-policy(7) says.
    image_policy: Option<String>,
    /// Which partitions count, by the globs of systemd.image-filter(7).
    image_filter: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Discard {
    Disabled,
    Loop,
    All,
    Crypto,
}

/// Returns the arguments of `systemd-dissect` other than the command, source and target.
fn arguments(options: &Options) -> Vec<&str> {
    let mut arguments = Vec::new();
    if !options.growfs {
        arguments.extend(["--growfs", "no"]);
    }
    if options.read_only {
        arguments.push("--read-only");
    }
    if !options.fsck {
        arguments.extend(["--fsck", "no"]);
    }
    let discard = options.discard.map(|discard| match discard {
        Discard::Disabled => "disabled",
        Discard::Loop => "loop",
        Discard::All => "all",
        Discard::Crypto => "crypto",
    });
    let texts = [
        ("--discard", discard),
        ("--image-policy", options.image_policy.as_deref()),
        ("--image-filter", options.image_filter.as_deref()),
    ];
    for (option, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            arguments.extend([option, text]);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_usual_is_said() {
        let said = |value| arguments(&Options::deserialize(value).unwrap()).join(" ");
        assert_eq!(said(json!({})), "");
        assert_eq!(said(json!({"growfs": true, "fsck": true, "read-only": false, "image-policy": ""})), "");
        let all = json!({
            "growfs": false, "read-only": true, "fsck": false, "discard": "loop", "image-policy": "p",
            "image-filter": "f",
        });
        assert_eq!(said(all), "--growfs no --read-only --fsck no --discard loop --image-policy p --image-filter f");
    }
}
