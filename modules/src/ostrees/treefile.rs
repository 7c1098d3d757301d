//! The treefile: the input of `rpm-ostree compose` besides its command line.

use std::io::Write;
use std::path::Path;

use osbc_module_api::*;
use tempfile::NamedTempFile;

use crate::ostrees::ostree_tool::option;

/// What `rpm-ostree` needs: labels, and a sandbox of its own for scripts.
pub(crate) const CAPABILITIES: &[&str] = &["CAP_MAC_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"];

/// A treefile, in a temporary file of its own.
#[derive(Debug)]
pub(crate) struct Treefile(NamedTempFile);

impl Treefile {
    /// Writes one with these settings; the ref and the repositories, which must always be there, only count where they
    /// are given.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn new(settings: Value) -> Result<Self, Error> {
        let mut all = json!({"ref": "osbuild/devel", "repos": ["osbuild"]});
        if let (Some(all), Value::Object(settings)) = (all.as_object_mut(), settings) {
            all.extend(settings);
        }
        let mut file = tempfile::Builder::new()
            .suffix(".json")
            .tempfile()
            .map_err(Error::io("create a file in", std::env::temp_dir()))?;
        file.write_all(all.to_string().as_bytes()).map_err(Error::io("write", file.path()))?;
        Ok(Self(file))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// What the stages that finish a tree let `rpm-ostree` do.
#[derive(Debug, Default)]
pub(crate) struct Postprocess {
    /// The groups that stay in `/etc/group`.
    pub(crate) etc_group_members: Vec<String>,
    /// The arguments of dracut.
    pub(crate) initramfs_args: Vec<String>,
    /// Whether the tree has a machine id, which is then emptied instead of removed.
    pub(crate) machine_id: bool,
}

impl Postprocess {
    /// Lets `rpm-ostree` finish the tree.
    ///
    /// # Errors
    /// It is missing or fails.
    pub(crate) fn run(&self, cx: &StageContext) -> Result<(), Error> {
        let treefile = Treefile::new(self.settings())?;
        let root = cx.tree.path_for_tools("/")?;
        cx.tool("rpm-ostree")?.args(["compose", "postprocess"]).arg(root).arg(treefile.path()).run()
    }

    fn settings(&self) -> Value {
        json!({
            "boot-location": "new",
            "machineid-compat": self.machine_id,
            "etc-group-members": self.etc_group_members,
            "initramfs-args": self.initramfs_args,
        })
    }
}

/// A commit to be made of a tree.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    /// The directory that holds the tree; `rpm-ostree` has its way with it.
    pub(crate) root: &'a Path,
    /// The ref that it gets.
    pub(crate) reference: &'a str,
    /// The commit that it follows.
    pub(crate) parent: Option<&'a str>,
    /// The version of the system.
    pub(crate) version: Option<&'a str>,
    /// The version of its SELinux labels, where it is not the usual one.
    pub(crate) label_version: Option<i64>,
}

/// The repository of the stage's tree that commits go to.
pub(crate) const REPOSITORY: &str = "repo";
/// What is known of a commit, beside it.
pub(crate) const COMPOSE: &str = "compose.json";

impl Commit<'_> {
    /// Lets `rpm-ostree` make the commit in the stage's repository, and hands what it says of it to the caller of osbc.
    ///
    /// # Errors
    /// It is missing or fails, or says nothing.
    pub(crate) fn make(&self, cx: &StageContext) -> Result<(), Error> {
        let mut settings = json!({"ref": self.reference});
        if let Some(version) = self.label_version {
            settings["selinux-label-version"] = json!(version);
        }
        let treefile = Treefile::new(settings)?;
        let mut tool = cx.tool("rpm-ostree")?.args(["compose", "commit"]);
        tool = tool.arg(option("repo", cx.tree.path_for_tools(REPOSITORY)?)?);
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(parent) = given(self.parent) {
            tool = tool.arg(format!("--parent={parent}"));
        }
        if let Some(version) = given(self.version) {
            tool = tool.arg(format!("--add-metadata-string=version={version}"));
        }
        tool = tool.arg(format!("--add-metadata-string=rpmostree.inputhash={}", cx.own_id()));
        tool = tool.arg(option("write-composejson-to", cx.tree.path_for_tools(COMPOSE)?)?);
        tool.arg(treefile.path()).arg(self.root).run()?;
        let compose: Value = serde_json::from_slice(&cx.tree.read(COMPOSE)?)
            .map_err(|error| Error::failed(format!("rpm-ostree wrote a {COMPOSE} that is no JSON: {error}")))?;
        cx.set_metadata(json!({ "compose": compose }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_on_top_of_what_must_be_there() {
        let read = |settings| -> Value {
            serde_json::from_slice(&std::fs::read(Treefile::new(settings).unwrap().path()).unwrap()).unwrap()
        };
        assert_eq!(read(json!({})), json!({"ref": "osbuild/devel", "repos": ["osbuild"]}));
        assert_eq!(read(json!({"ref": "r"}))["ref"], "r");
        let finish = Postprocess { etc_group_members: vec!["wheel".into()], machine_id: true, ..Default::default() };
        let expected = json!({
            "ref": "osbuild/devel", "repos": ["osbuild"], "boot-location": "new", "machineid-compat": true,
            "etc-group-members": ["wheel"], "initramfs-args": [],
        });
        assert_eq!(read(finish.settings()), expected);
    }
}
