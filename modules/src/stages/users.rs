//! Creates and changes users.
//!
//! `useradd` and `usermod` of the build root do it, in the manifest's order. A user that is there is changed and keeps its
//! number; its home folder is made by `mkhomedir_helper` of the tree if it is not there. Passwords are given as hashes.
//! The public keys are added to `~/.ssh/authorized_keys`. With `force_password_reset` the user must choose a new password at
//! the first login.
//!
//! An existing user's `gid` can be changed; osbuild fails there. Links in a home folder lead nowhere outside the tree.
//!
//! ```json
//! {
//!   "type": "org.osbuild.users",
//!   "options": {
//!     "users": {
//!       "web": {
//!         "uid": 1042,
//!         "groups": ["wheel"],
//!         "description": "The web server's keeper",
//!         "home": "/home/web",
//!         "shell": "/bin/bash",
//!         "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE web@example.com"]
//!       }
//!     }
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::chroot::Program;
use crate::options::{Entries, required};
use crate::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.users",
    revision: 1,
    capabilities: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"users": {"!a": {}}}}"#,
        r#"{"options": {"users": {"a": {"uid": "1"}}}}"#,
        r#"{"options": {"users": {"a": {"home": 0}}}}"#,
        r#"{"options": {"users": {"a": {"groups": "b"}}}}"#,
        r#"{"options": {"users": {"a": {"keys": [1]}}}}"#,
        r#"{"options": {"users": {"a": {"expiredate": 1.5}}}}"#,
        r#"{"options": {"users": {"a": {"force_password_reset": "yes"}}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The users, by name
    users: Option<Entries<Name, User>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct Name(#[schemars(regex(pattern = "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,255}$"))] String);

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
    /// The full name, or what the user is for
    description: Option<String>,
    /// The home folder; none if empty
    home: Option<String>,
    /// The login shell
    #[serde(default)]
    shell: String,
    /// The password's hash
    password: Option<String>,
    /// A public key
    #[serde(default)]
    key: String,
    /// Public keys
    #[serde(default)]
    keys: Vec<String>,
    /// When the account expires, in days since 1970
    #[schemars(with = "Option<i64>")]
    expiredate: Option<Number>,
    /// Whether the password must be changed at the first login
    #[serde(default)]
    force_password_reset: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { users } = cx.options()?;
    let Entries(users) = required(users, "users")?;
    for (Name(name), user) in users {
        match Account::find(&cx.tree, &name)? {
            Some(account) => change(cx, &name, &user, &account)?,
            None => create(cx, &name, &user)?,
        }
        if user.force_password_reset {
            in_tree(cx, "passwd")?.args(["--expire", &name]).run()?;
        }
        let keys: Vec<String> = user.keys.into_iter().chain(Some(user.key).filter(|key| !key.is_empty())).collect();
        if !keys.is_empty() {
            add_keys(&cx.tree, &name, &keys)?;
        }
    }
    Ok(())
}

/// A tool of the build root that works on the tree.
fn in_tree(cx: &StageContext, tool: &str) -> Result<Tool, Error> {
    Ok(cx.tool(tool)?.arg("--root").arg(cx.tree.path_for_tools("/")?))
}

fn create(cx: &StageContext, name: &str, user: &User) -> Result<(), Error> {
    let mut tool = in_tree(cx, "useradd")?;
    if let Some(uid) = &user.uid {
        tool = tool.args(["--uid", &uid.to_string(), "-o"]);
    }
    tool = match user.home.as_deref() {
        None => tool,
        Some("") => tool.arg("--no-create-home"),
        Some(home) => tool.args(["--home-dir", home, "--create-home"]),
    };
    tool.args(common(user)).arg(name).run()
}

fn change(cx: &StageContext, name: &str, user: &User, account: &Account) -> Result<(), Error> {
    if let Some(uid) = &user.uid
        && uid.to_string() != account.uid
    {
        let own = &account.uid;
        return Err(Error::failed(format!(
            "the user `{name}` is there and has the uid {own}, which cannot become {uid}"
        )));
    }
    let mut arguments = common(user);
    if let Some(home) = user.home.as_deref().filter(|home| !home.is_empty()) {
        arguments.extend(["--home".to_owned(), home.to_owned()]);
    }
    if !arguments.is_empty() {
        in_tree(cx, "usermod")?.args(arguments).arg(name).run()?;
    }
    let home = Account::find(&cx.tree, name)?.map(|account| account.home).unwrap_or_default();
    if home.is_empty() || cx.tree.exists(&home)? {
        return Ok(());
    }
    Program::find(&cx.tree, "mkhomedir_helper")?.arg(name).run()
}

/// The arguments that `useradd` and `usermod` share.
fn common(user: &User) -> Vec<String> {
    let User { gid, groups, description, shell, password, expiredate, .. } = user;
    let options = [
        ("--gid", gid.as_ref().map(ToString::to_string)),
        ("--groups", (!groups.is_empty()).then(|| groups.join(","))),
        ("--comment", description.clone()),
        ("--shell", (!shell.is_empty()).then(|| shell.clone())),
        ("--password", password.clone()),
        ("--expiredate", expiredate.as_ref().map(ToString::to_string)),
    ];
    options.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?])).flatten().collect()
}

/// A line of the tree's `/etc/passwd`.
#[derive(Debug)]
struct Account {
    uid: String,
    gid: String,
    home: String,
}

impl Account {
    fn find(tree: &Tree, name: &str) -> Result<Option<Self>, Error> {
        let table = text::read(tree, "etc/passwd")?;
        let rows = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let Some(row) = rows.into_iter().find(|row| row[0] == name) else { return Ok(None) };
        match row.as_slice() {
            [_, _, uid, gid, _, home, _] => {
                Ok(Some(Self { uid: (*uid).to_owned(), gid: (*gid).to_owned(), home: (*home).to_owned() }))
            }
            _ => Err(Error::failed(format!("the line of `{name}` in /etc/passwd has not seven fields"))),
        }
    }
}

fn add_keys(tree: &Tree, name: &str, keys: &[String]) -> Result<(), Error> {
    let account = Account::find(tree, name)?.ok_or_else(|| Error::failed(format!("there is no user `{name}`")))?;
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| Error::failed(format!("/etc/passwd gives `{name}` the id `{text}`")))
    };
    let (user, group) = (Some(number(&account.uid)?), Some(number(&account.gid)?));
    let folder = format!("{}/.ssh", account.home);
    if !tree.exists(&folder)? {
        tree.create_dir(&folder, 0o700)?;
        tree.chown(&folder, user, group)?;
    }
    let file = format!("{folder}/authorized_keys");
    tree.append(&file, keys.join("\n") + "\n")?;
    tree.chown(&file, user, group)?;
    tree.chmod(&file, 0o600)
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    /// A tree that the tools can work on.
    fn case() -> Option<Case> {
        let tools = ["useradd", "usermod", "passwd"];
        if !has_root() || !tools.iter().all(|tool| has_tool(tool)) {
            return None;
        }
        let case = Case::new(&MODULE)
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nold:x:1000:1000::/home/old:/bin/sh\n")
            .file("etc/group", "root:x:0:\nold:x:1000:\nwheel:x:10:\n")
            .file("etc/shadow", "root:*:19000::::::\nold:!:19000:0:99999:7:::\n")
            .file("etc/gshadow", "root:*::\nold:!::\nwheel:*::\n")
            .file("etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n")
            .file("etc/skel/.profile", "# profile\n")
            .dir("home/old");
        Some(case)
    }

    fn run_with(users: Value) -> Option<Done> {
        Some(case()?.run(json!({ "users": users })))
    }

    fn line(done: &Done, file: &str, name: &str) -> String {
        let text = done.text(file);
        text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default().to_owned()
    }

    #[test]
    fn new_users_get_a_home_groups_and_keys() {
        let Some(done) = run_with(json!({
            "web": {
                "uid": 1042, "groups": ["wheel"], "description": "Web", "home": "/home/web", "shell": "/bin/bash",
                "password": "$6$x", "keys": ["key one"], "key": "key two", "expiredate": 20000,
            },
            "daemon": {"home": ""},
        })) else {
            return;
        };
        let done = done.ok();
        assert_eq!(line(&done, "etc/passwd", "web"), "web:x:1042:1042:Web:/home/web:/bin/bash");
        assert!(line(&done, "etc/shadow", "web").starts_with("web:$6$x:"));
        assert_eq!(line(&done, "etc/group", "wheel"), "wheel:x:10:web");
        assert_eq!(done.text("home/web/.profile"), "# profile\n");
        let keys = "home/web/.ssh/authorized_keys";
        assert_eq!(
            (done.text(keys).as_str(), done.mode(keys), done.owner(keys)),
            ("key one\nkey two\n", 0o600, (1042, 1042))
        );
        assert_eq!((done.mode("home/web/.ssh"), done.owner("home/web/.ssh")), (0o700, (1042, 1042)));
        assert!(!done.tree.exists("home/daemon").unwrap());
    }

    #[test]
    fn users_that_are_there_are_changed_and_keep_their_number() {
        let change =
            json!({"old": {"uid": 1000, "gid": 10, "groups": ["wheel"], "description": "Old", "shell": "/bin/ksh"}});
        let Some(done) = run_with(change) else { return };
        assert_eq!(line(&done.ok(), "etc/passwd", "old"), "old:x:1000:10:Old:/home/old:/bin/ksh");
        let Some(done) = run_with(json!({"old": {"uid": 7}})) else { return };
        assert!(done.err().contains("has the uid 1000"), "{}", done.err());
    }

    #[test]
    fn a_password_can_be_made_to_expire() {
        let Some(done) = run_with(json!({"old": {"force_password_reset": true}})) else { return };
        assert!(line(&done.ok(), "etc/shadow", "old").starts_with("old:!:0:"));
    }

    #[test]
    fn a_home_that_is_a_link_leads_nowhere_outside() {
        let Some(case) = case() else { return };
        let outside = tempfile::tempdir().unwrap();
        case.tree().remove_dir_all("home/old").unwrap();
        let case = case.link("home/old", outside.path());
        let done = case.run(json!({"users": {"old": {"key": "secret"}}}));
        assert!(done.result.is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
