//! Writes `/.discinfo`, which describes a disc.
//!
//! Its first line is the time, which is the source epoch where there is one; osbuild takes the clock of the machine.
//!
//! ```json
//! { "type": "org.osbuild.discinfo", "options": { "basearch": "x86_64", "release": "Fedora 42" } }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::trees::clock;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.discinfo",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"basearch": "x86_64"}}"#, r#"{"options": {"basearch": "x86_64", "release": 42}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The architecture.
    basearch: String,
    /// The product's name and version.
    release: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { basearch, release } = cx.options()?;
    let seconds = clock::seconds(&cx.meta);
    cx.tree.write(".discinfo", format!("{seconds}.0\n{release}\n{basearch}\n"))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn three_lines_describe_the_disc() {
        let options = json!({"basearch": "x86_64", "release": "Fedora 42"});
        let done = Case::new(&MODULE).source_epoch(1_700_000_000).run(options.clone()).ok();
        assert_eq!(done.text(".discinfo"), "1700000000.0\nFedora 42\nx86_64\n");
        let done = Case::new(&MODULE).run(options).ok();
        let text = done.text(".discinfo");
        let seconds: f64 = text.lines().next().unwrap().parse().unwrap();
        assert!(seconds > 1_700_000_000.0, "{text}");
    }
}
