//! Writes `/.buildstamp`, which describes the installer's image.
//!
//! The unique id has the date, which is the source epoch where there is one; osbuild takes the clock of the machine. As with
//! osbuild the keys are in lower case.
//!
//! ```json
//! {
//!   "type": "org.osbuild.buildstamp",
//!   "options": { "arch": "x86_64", "product": "Fedora", "version": "42", "final": true, "variant": "IoT" }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::{Sections, interpolated};
use crate::trees::clock;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.buildstamp",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"arch": "x", "product": "p", "version": "1"}}"#,
        r#"{"options": {"arch": "x", "product": "p", "version": 1, "final": true}}"#,
        r#"{"options": {"arch": "x", "product": "p", "version": "1", "final": "yes"}}"#,
        r#"{"options": {"arch": "x", "product": "p", "version": "1", "final": true, "variant": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The architecture.
    arch: String,
    /// The product's name.
    product: String,
    /// The product's version.
    version: String,
    /// Whether it is a release.
    #[serde(rename = "final")]
    is_final: bool,
    /// The product's variant.
    variant: Option<String>,
    /// Where to report bugs.
    bugurl: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { arch, product, version, is_final, variant, bugurl } = cx.options()?;
    let minute = clock::date(clock::seconds(&cx.meta))?.strftime("%Y%m%d%H%M").to_string();
    let mut stamp = Sections::default();
    let main = stamp.section("Main")?;
    main.set("product", interpolated("product", &product)?)?;
    main.set("version", interpolated("version", &version)?)?;
    main.set("isfinal", if is_final { "True" } else { "False" })?;
    main.set("uuid", interpolated("arch", &format!("{minute}.{arch}"))?)?;
    for (key, value) in [("bugurl", bugurl), ("variant", variant)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            main.set(key, interpolated(key, &value)?)?;
        }
    }
    stamp.section("Compose")?.set("osbuild", "devel")?;
    cx.tree.write(".buildstamp", stamp.text(" = "))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_date_is_the_source_epoch() {
        let options = json!({
            "arch": "x86_64", "product": "Fedora", "version": "42", "final": false, "variant": "IoT", "bugurl": "https://x",
        });
        let done = Case::new(&MODULE).source_epoch(1_700_000_000).run(options).ok();
        let main = "[Main]\nproduct = Fedora\nversion = 42\nisfinal = False\nuuid = 202311142213.x86_64\n";
        let rest = "bugurl = https://x\nvariant = IoT\n\n[Compose]\nosbuild = devel\n\n";
        assert_eq!(done.text(".buildstamp"), format!("{main}{rest}"));
    }

    #[test]
    fn percent_signs_are_doubled_for_anaconda() {
        let options = json!({"arch": "x", "product": "100%", "version": "1", "final": true, "bugurl": "a%20b"});
        let text = Case::new(&MODULE).run(options).ok().text(".buildstamp");
        assert!(text.contains("product = 100%%\n") && text.contains("bugurl = a%%20b\n"), "{text}");
    }
}
