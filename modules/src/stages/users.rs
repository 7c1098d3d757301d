//! Creates and changes users.
//!
//! `useradd` and `usermod` of the build root do it, in the manifest's order. A user that is there is changed and keeps
//! its number; its home directory is made by `mkhomedir_helper` of the tree if it is not there. Passwords are given as
//! hashes, for example those of `openssl passwd -6`; what is none is refused, where osbuild puts it into `/etc/shadow`
//! as it is. The public keys are added to `~/.ssh/authorized_keys`. With `force_password_reset` the user must choose a
//! new password at the first login.
//!
//! Beyond osbuild's there is `tools`: `tree` takes the tree's own programs, so that the build root needs none and what
//! comes out does not hang on it.
//!
//! An existing user's `gid` can be changed; osbuild fails there. Links in a home directory lead nowhere outside the
//! tree.
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

use crate::texts::options::{Entries, required};
use crate::texts::text;
use crate::trees::chroot::Program;
use crate::trees::crypt;
use crate::trees::rooted::Tools;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.users",
    revision: 2,
    capabilities: &[],
    requires: &[
        Requirement::MayCall("useradd"),
        Requirement::MayCall("usermod"),
        Requirement::MayCall("passwd"),
        Requirement::TreePrograms,
    ],
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
        r#"{"options": {"users": {}, "tools": "host"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The users, by name
    users: Option<Entries<Name, User>>,
    /// Whose `useradd`, `usermod` and `passwd` do it
    #[serde(default)]
    tools: Tools,
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
    /// The home directory; none if empty
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
    let Options { users, tools } = cx.options()?;
    let Entries(users) = required(users, "users")?;
    for (Name(name), user) in &users {
        crypt::check(&format!("users.{name}.password"), user.password.as_deref().unwrap_or_default())?;
    }
    for (Name(name), user) in users {
        match Account::find(&cx.tree, &name)? {
            Some(account) => change(cx, tools, &name, &user, &account)?,
            None => tools.run(cx, "useradd", &new(&name, &user)).map_err(|error| explain(error, &name, &user))?,
        }
        if user.force_password_reset {
            tools.run(cx, "passwd", &["--expire", &name])?;
        }
        let keys: Vec<String> = user.keys.into_iter().chain(Some(user.key).filter(|key| !key.is_empty())).collect();
        if !keys.is_empty() {
            add_keys(&cx.tree, &name, &keys)?;
        }
    }
    Ok(())
}

/// The failure to make a user, with the reason where files here cannot belong to them.
fn explain(error: Error, name: &str, user: &User) -> Error {
    let id = |number: &Option<Number>| number.as_ref().and_then(Number::as_u64).and_then(|id| u32::try_from(id).ok());
    match owners::unmapped(id(&user.uid), id(&user.gid)) {
        Some(reason) => Error::failed(format!("cannot make the user `{name}`: {reason}")),
        None => error,
    }
}

/// The arguments that `useradd` gets.
fn new(name: &str, user: &User) -> Vec<String> {
    let uid = user.uid.iter().flat_map(|uid| ["--uid".to_owned(), uid.to_string(), "-o".to_owned()]);
    let home = match user.home.as_deref() {
        None => Vec::new(),
        Some("") => vec!["--no-create-home".to_owned()],
        Some(home) => vec!["--home-dir".to_owned(), home.to_owned(), "--create-home".to_owned()],
    };
    uid.chain(home).chain(common(user)).chain([name.to_owned()]).collect()
}

fn change(cx: &StageContext, tools: Tools, name: &str, user: &User, account: &Account) -> Result<(), Error> {
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
        arguments.push(name.to_owned());
        tools.run(cx, "usermod", &arguments)?;
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
    let directory = format!("{}/.ssh", account.home);
    if !tree.exists(&directory)? {
        tree.create_dir(&directory, 0o700)?;
        tree.chown(&directory, user, group)?;
    }
    let file = format!("{directory}/authorized_keys");
    tree.append(&file, keys.join("\n") + "\n")?;
    tree.chown(&file, user, group)?;
    tree.chmod(&file, 0o600)
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};

    use super::*;
    use crate::trees::chroot::testing::with_script;

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
    fn the_trees_own_tools_are_taken_where_that_is_wanted() {
        let script = "echo \"$*\" >/etc/said";
        let Some(case) = with_script(&MODULE, "usr/sbin/useradd", script) else { return };
        let case = case.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        let done = case.run(json!({"users": {"web": {"uid": 7, "home": "/srv"}}, "tools": "tree"})).ok();
        assert_eq!(done.text("etc/said"), "--root / --uid 7 -o --home-dir /srv --create-home web\n");
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

    #[test]
    fn a_password_that_is_no_hash_is_refused_and_not_said() {
        let case = Case::new(&MODULE).file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        let error = case.run(json!({"users": {"web": {"password": "secret"}}})).err().to_owned();
        assert!(error.starts_with("the option `users.web.password` is no hash"), "{error}");
        assert!(error.contains("openssl passwd -6") && !error.contains("secret"), "{error}");
    }
}
