//! Labels of SELinux, set by `setfiles` of the build root.

use std::path::Path;

use osbc_module_api::*;

/// Labels all below `path` of `tree` as the file `contexts` says for the paths that it has in there.
///
/// What lies below the paths `exclude`, which start at `path`, keeps its labels.
///
/// # Errors
/// `path` is not there, or `setfiles` is missing or fails.
pub(crate) fn set_files(
    cx: &StageContext,
    contexts: &Path,
    tree: &Tree,
    path: impl AsRef<Path>,
    exclude: &[String],
) -> Result<(), Error> {
    let place = tree.path_for_tools(path)?;
    let mut setfiles = cx.tool("setfiles")?.arg("-F").arg("-r").arg(tree.path_for_tools("/")?);
    for path in exclude {
        // Names alone, so that what is left out lies below the place.
        let names = path.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
        setfiles = setfiles.arg("-e").arg(names.fold(place.clone(), |path, name| path.join(name)));
    }
    setfiles.arg(contexts).arg(place).run()
}

/// The policy that a configuration of SELinux names, unless SELinux is switched off there.
pub(crate) fn policy(config: &str) -> Option<&str> {
    let value = |key: &str| {
        let lines = config.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let mut settings = lines.filter_map(|line| line.split_once('='));
        settings.rfind(|(own, _)| own.trim() == key).map(|(_, value)| value.trim())
    };
    matches!(value("SELINUX"), Some("enforcing" | "permissive")).then(|| value("SELINUXTYPE")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_counts_unless_it_is_switched_off() {
        for (config, name) in [
            ("# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", Some("targeted")),
            ("SELINUX = permissive\n SELINUXTYPE = mls ", Some("mls")),
            ("SELINUX=disabled\nSELINUXTYPE=targeted\n", None),
            ("SELINUXTYPE=targeted\n", None),
            ("SELINUX=enforcing\n", None),
        ] {
            assert_eq!(policy(config), name);
        }
    }
}
