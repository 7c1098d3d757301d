//! Configures repositories of yum and dnf.
//!
//! Writes a file of `/etc/yum.repos.d`, which must not be there yet, with a section for each repository. The directory
//! is made. Lists are joined by blanks, yes and no are `1` and `0`. The keys come in the order that such files have,
//! then all others in the manifest's.
//!
//! ```json
//! {
//!   "type": "org.osbuild.yum.repos",
//!   "options": {
//!     "filename": "own.repo",
//!     "repos": [
//!       { "id": "own", "name": "Own packages", "baseurl": ["https://example.com/own"], "gpgcheck": false, "priority": 10 }
//!     ]
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::ini::{self, Sections};
use crate::texts::options::{InOrder, required};
use osbc_pytext::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.yum.repos",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a", "repos": [{"id": "a", "mirrorlist": "b"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": []}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a", "metalink": "b", "mirrorlist": "c"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a b", "metalink": "b"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a", "baseurl": "b"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a", "baseurl": [""]}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a", "metalink": "b", "cost": "1"}]}}"#,
        r#"{"options": {"filename": "a.repo", "repos": [{"id": "a", "metalink": "b", "proxy": "c"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the file
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.repo$"))]
    filename: Option<String>,
    /// The repositories, in order
    #[schemars(length(min = 1))]
    repos: Option<Vec<InOrder<Repository>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["id", "baseurl"]},
    {"required": ["id", "metalink"]},
    {"required": ["id", "mirrorlist"]},
]))]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Repository {
    /// Its id
    #[schemars(regex(pattern = r"^[\w.\-:]+$"))]
    id: String,
    /// The URLs of its files
    #[schemars(length(min = 1), inner(length(min = 1)))]
    baseurl: Option<Vec<String>>,
    /// What it costs to use it
    #[schemars(with = "Option<i64>")]
    cost: Option<Number>,
    /// Whether it is used
    enabled: Option<bool>,
    /// The URLs of keys
    #[schemars(length(min = 1), inner(length(min = 1)))]
    gpgkey: Option<Vec<String>>,
    /// The URL of its metalink file
    #[schemars(length(min = 1))]
    metalink: Option<String>,
    /// The URL of its list of mirrors
    #[schemars(length(min = 1))]
    mirrorlist: Option<String>,
    /// Whether its packages are preferred to those of modules
    module_hotfixes: Option<bool>,
    /// Its name
    #[schemars(length(min = 1))]
    name: Option<String>,
    /// How much it is preferred, 1 the most
    #[schemars(with = "Option<i64>")]
    priority: Option<Number>,
    /// Whether packages must be signed
    gpgcheck: Option<bool>,
    /// Whether its metadata must be signed
    repo_gpgcheck: Option<bool>,
    /// Whether its server must have a valid certificate
    sslverify: Option<bool>,
}

/// The keys that come first.
const FIRST: [&str; 8] =
    ["name", "baseurl", "metalink", "mirrorlist", "enabled", "gpgcheck", "repo_gpgcheck", "gpgkey"];

const DIRECTORY: &str = "etc/yum.repos.d";

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, repos } = cx.options()?;
    let (filename, repos) = (required(filename, "filename")?, required(repos, "repos")?);
    let mut file = Sections::default();
    for repository in &repos {
        let settings = &repository.entries;
        let id = settings.get("id").and_then(Value::as_str).unwrap_or_default();
        if file.has(id) {
            return Err(Error::failed(format!("there are two repositories `{id}`")));
        }
        let section = file.section(id)?;
        let others = settings.keys().map(String::as_str).filter(|key| *key != "id" && !FIRST.contains(key));
        for key in FIRST.into_iter().chain(others) {
            if let Some(value) = settings.get(key) {
                section.set(key, ini::with_lines(key, &text(value))?)?;
            }
        }
    }
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write_new(format!("{DIRECTORY}/{filename}"), file.text("="))
}

fn text(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Value::Bool(yes) => if *yes { "1" } else { "0" }.to_owned(),
        value => text::str(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn write(repos: Value) -> Done {
        Case::new(&MODULE).run(json!({"filename": "a.repo", "repos": repos}))
    }

    #[test]
    fn keys_come_in_the_usual_order_then_in_the_manifests() {
        let done = write(json!([
            {"sslverify": true, "id": "a", "gpgkey": ["k", "l"], "cost": 5, "baseurl": ["u", "v"], "name": "A"},
            {"id": "b:1", "metalink": "m", "enabled": false},
        ]));
        let text = "[a]\nname=A\nbaseurl=u v\ngpgkey=k l\nsslverify=1\ncost=5\n\n[b:1]\nmetalink=m\nenabled=0\n\n";
        assert_eq!(done.ok().text("etc/yum.repos.d/a.repo"), text);
    }

    #[test]
    fn ids_are_used_once_and_no_file_is_overwritten() {
        let one = json!({"id": "a", "metalink": "m"});
        assert_eq!(write(json!([one, one])).err(), "there are two repositories `a`");
        assert!(write(json!([{"id": "DEFAULT", "metalink": "m"}])).err().contains("DEFAULT"));
        let case = Case::new(&MODULE).file("etc/yum.repos.d/a.repo", "old");
        assert!(case.run(json!({"filename": "a.repo", "repos": [one]})).err().contains("File exists"));
        assert_eq!(Case::new(&MODULE).run(json!({"repos": [one]})).err(), "the option `filename` is missing");
    }

    #[test]
    fn values_are_written_as_they_are() {
        let url = "https://x/a%20b/$basearch/?t=1&u=2";
        let done = write(json!([{"id": "a", "name": "50% off = x", "baseurl": [url]}])).ok();
        assert_eq!(done.text("etc/yum.repos.d/a.repo"), format!("[a]\nname=50% off = x\nbaseurl={url}\n\n"));
        let done = write(json!([{"id": "a", "metalink": "m", "name": "x\n"}]));
        assert!(done.err().starts_with("the option `name` has a line"), "{}", done.err());
        assert!(write(json!([{"id": "a]\n[b", "metalink": "m"}])).err().starts_with("a section cannot be called"));
    }
}
