//! Writes the configuration of nginx.
//!
//! The file `path`, whose directory must be there, has one server that gives out the files below `root`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.nginx.conf",
//!   "options": { "path": "/etc/nginx.conf", "config": { "listen": "*:8080", "daemon": false } }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.nginx.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"path": "etc/nginx.conf"}}"#,
        r#"{"options": {"path": "/etc/../x"}}"#,
        r#"{"options": {"config": {"listen": 80}}}"#,
        r#"{"options": {"config": {"daemon": "no"}}}"#,
        r#"{"options": {"config": []}}"#,
        r#"{"options": {"listen": "*:80"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file.
    #[serde(default = "file")]
    #[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))]
    path: String,
    /// What it says.
    #[serde(default)]
    config: Config,
}

fn file() -> String {
    "/etc/nginx/nginx.conf".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
struct Config {
    /// Address and port of the server.
    listen: String,
    /// The directory that it gives out.
    root: String,
    /// The file for the id of its process.
    pid: String,
    /// Whether it goes to the background.
    daemon: bool,
}

impl Default for Config {
    fn default() -> Self {
        let [listen, root, pid] = ["*:80", "/usr/share/nginx/html", "/run/nginx.pid"].map(str::to_owned);
        Self { listen, root, pid, daemon: true }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { path, config: Config { listen, root, pid, daemon } } = cx.options()?;
    let meaning = |c: char| "\"'\\;{}".contains(c);
    one_line::refuse("config.listen", &listen, meaning, "what ends a command of nginx")?;
    let quoted = |value: &str| {
        let special = |c: char| c.is_whitespace() || c == '#' || meaning(c);
        let escaped = || value.replace('\\', r"\\").replace('"', "\\\"");
        if value.is_empty() || value.contains(special) { format!("\"{}\"", escaped()) } else { value.to_owned() }
    };
    let (root, pid) = (quoted(&root), quoted(&pid));
    let daemon = if daemon { "on" } else { "off" };
    let server = format!("  server {{\n    listen {listen};\n    root {root};\n  }}\n");
    cx.tree.write(&path, format!("events {{}}\nhttp {{\n{server}}}\n\npid {pid};\ndaemon {daemon};\n"))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn what_is_not_said_has_its_usual_value() {
        let done = Case::new(&MODULE).dir("etc/nginx").run(json!({})).ok();
        let expected = "events {}\nhttp {\n  server {\n    listen *:80;\n    root /usr/share/nginx/html;\n  }\n}\n\n\
                        pid /run/nginx.pid;\ndaemon on;\n";
        assert_eq!(done.text("etc/nginx/nginx.conf"), expected);
    }

    #[test]
    fn all_can_be_said() {
        let config = json!({"listen": "a", "root": "/b", "pid": "/c", "daemon": false, "other": "ignored"});
        let done = Case::new(&MODULE).run(json!({"path": "/x", "config": config})).ok();
        let expected = "events {}\nhttp {\n  server {\n    listen a;\n    root /b;\n  }\n}\n\npid /c;\ndaemon off;\n";
        assert_eq!(done.text("x"), expected);
        assert!(Case::new(&MODULE).run(json!({})).err().starts_with("cannot write /etc/nginx/nginx.conf"));
    }

    #[test]
    fn paths_are_quoted_where_they_must_be() {
        let config = json!({"root": "/srv/a \"b\";c", "pid": "/run/x"});
        let done = Case::new(&MODULE).run(json!({"path": "/x", "config": config})).ok();
        assert!(done.text("x").contains("    root \"/srv/a \\\"b\\\";c\";\n"), "{}", done.text("x"));
        let done = Case::new(&MODULE).run(json!({"path": "/x", "config": {"listen": "80; root /"}}));
        assert!(done.err().contains("`config.listen` has what ends a command"), "{}", done.err());
    }
}
