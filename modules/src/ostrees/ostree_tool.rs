//! What the stages that call `ostree` share: repositories in the tree, commits of inputs, remotes, and the directories
//! that a deployment is made below.
//!
//! Where deployments lie is known to [`crate::ostrees::ostree`].

use std::path::PathBuf;

use osbc_module_api::*;

use crate::trees::bound::Bound;

/// What stages that write labels and attributes of files ask for.
pub(crate) const CAPABILITIES: &[&str] = &["CAP_MAC_ADMIN"];

/// Calls `ostree` of the build root.
///
/// # Errors
/// It is missing or fails.
pub(crate) fn ostree(cx: &StageContext, words: &[&str]) -> Result<(), Error> {
    cx.tool("ostree")?.args(words).run()
}

/// `--repo=` with a repository of the tree, which must be there.
///
/// # Errors
/// It is not there.
pub(crate) fn repository(tree: &Tree, path: &str) -> Result<String, Error> {
    option("repo", tree.subtree(path)?.path_for_tools("/")?)
}

/// Sets options of a repository of the tree, one after the other.
///
/// # Errors
/// The repository is not there, or `ostree` is missing or fails.
pub(crate) fn configure(cx: &StageContext, path: &str, settings: &[(&str, String)]) -> Result<(), Error> {
    let repository = repository(&cx.tree, path)?;
    settings.iter().try_for_each(|(key, value)| ostree(cx, &["config", "set", key, value, &repository]))
}

/// `--sysroot=` with a tree.
///
/// # Errors
/// Its path cannot be found out.
pub(crate) fn sysroot(tree: &Tree) -> Result<String, Error> {
    option("sysroot", tree.path_for_tools("/")?)
}

/// `--NAME=` with a path.
///
/// # Errors
/// The path is not UTF-8.
pub(crate) fn option(name: &str, path: PathBuf) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| Error::failed(format!("the path {} is not UTF-8", path.display())))?;
    Ok(format!("--{name}={text}"))
}

/// The commits that an input hands over.
#[derive(Debug)]
pub(crate) struct Commits {
    /// The repository that has them.
    pub(crate) repository: PathBuf,
    /// Each commit's id, and the ref that it has there or the id again.
    pub(crate) commits: Vec<(String, String)>,
}

impl Commits {
    /// Those of the input `name`, at least one.
    ///
    /// # Errors
    /// There is no such input, or it has none.
    pub(crate) fn of_input(cx: &StageContext, name: &str) -> Result<Self, Error> {
        let input = cx.input(name)?;
        let refs = input.data.get("refs").and_then(Value::as_object);
        let named = |(id, options): (&String, &Value)| {
            let reference = options.get("ref").and_then(Value::as_str).unwrap_or(id);
            (id.clone(), reference.to_owned())
        };
        let commits: Vec<_> = refs.into_iter().flatten().map(named).collect();
        if commits.is_empty() {
            return Err(Error::failed(format!("the input `{name}` needs at least one commit")));
        }
        Ok(Self { repository: input.path.clone(), commits })
    }

    /// The only one.
    ///
    /// # Errors
    /// There are several.
    pub(crate) fn only(&self) -> Result<&(String, String), Error> {
        match self.commits.as_slice() {
            [only] => Ok(only),
            more => Err(Error::failed(format!("the input must have exactly one commit, but has {}", more.len()))),
        }
    }

    /// Copies them to a repository of the tree, given as `--repo=`, as if they came from `remote` where there is one.
    ///
    /// # Errors
    /// `ostree` fails.
    pub(crate) fn pull(&self, cx: &StageContext, repository: &str, remote: Option<&str>) -> Result<(), Error> {
        for (_, reference) in &self.commits {
            let mut tool = cx.tool("ostree")?.arg("pull-local").arg(&self.repository).arg(reference);
            if let Some(remote) = remote.filter(|remote| !remote.is_empty()) {
                tool = tool.arg(format!("--remote={remote}"));
            }
            tool.arg(repository).run()?;
        }
        Ok(())
    }
}

/// A place that commits come from.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    /// Its name.
    pub(crate) name: String,
    /// Its URL.
    pub(crate) url: String,
    /// The URL of its content, where that is elsewhere.
    pub(crate) contenturl: Option<String>,
    /// The branches to follow.
    pub(crate) branches: Vec<String>,
    /// The keys that sign its commits.
    pub(crate) gpgkeys: Vec<String>,
    /// Where keys that sign its commits lie: files or directories of the system.
    pub(crate) gpgkeypaths: Vec<String>,
}

impl Remote {
    /// Adds it to a repository, given as `--repo=`, unless that has one of its name.
    ///
    /// # Errors
    /// `ostree` fails, or a key is none.
    pub(crate) fn add(&self, cx: &StageContext, repository: &str) -> Result<(), Error> {
        let mut tool = cx.tool("ostree")?.args(["remote", "add", "--if-not-exists"]);
        if !self.gpgkeypaths.is_empty() {
            tool = tool.arg(format!("--set=gpgkeypath={}", self.gpgkeypaths.join(",")));
            tool = tool.arg("--set=gpg-verify=true");
        } else if self.gpgkeys.is_empty() {
            tool = tool.arg("--no-gpg-verify");
        }
        if let Some(url) = self.contenturl.as_deref().filter(|url| !url.is_empty()) {
            tool = tool.arg(format!("--set=contenturl={url}"));
        }
        tool.args([&self.name, &self.url]).args(&self.branches).arg(repository).run()?;
        for key in &self.gpgkeys {
            let tool = cx.tool("ostree")?.args(["remote", "gpg-import", "--stdin", &self.name]);
            tool.arg(repository).stdin(key.as_bytes()).run()?;
        }
        Ok(())
    }
}

/// How the kernel finds the root file system.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["uuid"]}, {"required": ["label"]}]))]
pub(crate) struct RootFileSystem {
    /// By its label
    label: Option<String>,
    /// By its identifier
    uuid: Option<String>,
}

impl RootFileSystem {
    /// As the kernel's `root=` takes it.
    ///
    /// # Errors
    /// It has neither.
    pub(crate) fn identifier(&self) -> Result<String, Error> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (given(&self.uuid), given(&self.label)) {
            (Some(uuid), _) => Ok(format!("UUID={uuid}")),
            (None, Some(label)) => Ok(format!("LABEL={label}")),
            (None, None) => Err(Error::failed("`rootfs` needs a `uuid` or a `label` that is not empty")),
        }
    }
}

/// The options of the kernel, with the root file system last.
///
/// # Errors
/// That has no identifier.
pub(crate) fn kernel_options(mut options: Vec<String>, root: Option<&RootFileSystem>) -> Result<Vec<String>, Error> {
    if let Some(root) = root {
        options.push(format!("root={}", root.identifier()?));
    }
    Ok(options)
}

/// Makes mount points of directories of the tree: `ostree` looks at where file systems begin.
///
/// # Errors
/// One is not there, or the kernel refuses.
pub(crate) fn mount_points(tree: &Tree, paths: &[String]) -> Result<Bound, Error> {
    let mut bound = Bound::default();
    for path in paths {
        bound.bind(tree, path, tree, path)?;
    }
    Ok(bound)
}

/// The directories of `/var` that a system expects, besides `lib` and `log`.
const VARIABLE: [&str; 10] =
    ["home", "roothome", "lib/rpm", "opt", "srv", "usrlocal", "mnt", "media", "spool", "spool/mail"];

/// `systemd-tmpfiles` had to leave out some lines.
const LINES_LEFT_OUT: i32 = 65;

/// Makes the directories of `/var` in a tree that are not there, as its own rules for `systemd-tmpfiles` say.
///
/// # Errors
/// The tool is missing or fails, or a directory cannot be made.
pub(crate) fn populate_var(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    for directory in ["var/lib", "var/log"] {
        root.create_dir_all(directory, 0o777)?;
    }
    for directory in VARIABLE {
        if root.exists(format!("var/{directory}"))? {
            continue;
        }
        let tool = cx.tool("systemd-tmpfiles")?.args(["--create", "--boot"]);
        let result =
            tool.arg(option("root", root.path_for_tools("/")?)?).arg(format!("--prefix=/var/{directory}")).run();
        match result {
            Err(Error::ToolFailed { status, .. }) if status.code() == Some(LINES_LEFT_OUT) => {}
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_comes_last_and_its_uuid_first() {
        let root = |value| RootFileSystem::deserialize(value).unwrap();
        let options = || vec!["ro".to_owned()];
        assert_eq!(kernel_options(options(), None).unwrap(), ["ro"]);
        let both = root(json!({"uuid": "u", "label": "l"}));
        assert_eq!(kernel_options(options(), Some(&both)).unwrap(), ["ro", "root=UUID=u"]);
        let label = root(json!({"uuid": "", "label": "l"}));
        assert_eq!(kernel_options(options(), Some(&label)).unwrap(), ["ro", "root=LABEL=l"]);
        assert!(kernel_options(options(), Some(&root(json!({"label": ""})))).is_err());
    }
}
