//! Configures the client of Red Hat Insights.
//!
//! Edits `/etc/insights-client/insights-client.conf` or the file `path`, which is created where it is not there, but
//! not its directory. Of a setting the first line `name=value` is changed; where there is none it is added at the end.
//!
//! ```json
//! {
//!   "type": "org.osbuild.insights-client.config",
//!   "options": { "config": { "proxy": "http://proxy.example.com:3128" }, "path": "/etc/insights-client.conf" }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.insights-client.config",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"proxy": 1}}}"#,
        r#"{"options": {"config": {"user": "a"}}}"#,
        r#"{"options": {"config": {}, "path": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings.
    config: Config,
    /// The file.
    #[serde(default = "file")]
    path: String,
}

fn file() -> String {
    "/etc/insights-client/insights-client.conf".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The address of the proxy.
    proxy: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config: Config { proxy }, path } = cx.options()?;
    let text = text::read_if_there(&cx.tree, &path)?.unwrap_or_default();
    cx.tree.write(&path, with_proxy(&text, proxy.as_deref()))
}

fn with_proxy(text: &str, mut proxy: Option<&str>) -> String {
    let mut edited = String::new();
    for line in text.split_inclusive('\n') {
        let there = line.split_once('=').filter(|(key, value)| *key == "proxy" && !value.contains('='));
        match there.and_then(|(_, value)| proxy.take().filter(|wanted| *wanted != value)) {
            Some(wanted) => edited += &format!("proxy={wanted}\n"),
            None => edited += line,
        }
    }
    edited + &proxy.map(|wanted| format!("proxy={wanted}\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_first_line_is_changed() {
        let text = "#proxy=x\n[insights-client]\nproxy=old\nproxy=older\n";
        assert_eq!(with_proxy(text, Some("new")), "#proxy=x\n[insights-client]\nproxy=new\nproxy=older\n");
        assert_eq!(with_proxy("a=b\n", Some("new")), "a=b\nproxy=new\n");
        assert_eq!(with_proxy("proxy=new", Some("new")), "proxy=new");
        assert_eq!(with_proxy(text, None), text);
    }

    #[test]
    fn the_file_is_created_but_not_its_directory() {
        let options = json!({"config": {"proxy": "x"}});
        let done = Case::new(&MODULE).dir("etc/insights-client").run(options.clone()).ok();
        assert_eq!(done.text("etc/insights-client/insights-client.conf"), "proxy=x\n");
        assert!(Case::new(&MODULE).run(options).err().starts_with("cannot write /etc/insights-client/"));
    }
}
