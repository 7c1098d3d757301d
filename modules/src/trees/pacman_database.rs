//! What pacman's local database says of a package that is installed. Knows nothing of where the database is.

/// What osbuild records of a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) release: String,
    /// None where the version has none.
    pub(crate) epoch: Option<String>,
    pub(crate) architecture: String,
}

/// The package of a file `desc`, whose values stand on the lines below names like `%NAME%`.
///
/// # Errors
/// A value is missing, or the version has no release: then what is wrong.
pub(crate) fn package(text: &str) -> Result<Package, String> {
    let value = |name: &str| {
        let marker = format!("%{name}%");
        let below = text.lines().skip_while(|line| *line != marker).nth(1).filter(|value| !value.is_empty());
        below.map(str::to_owned).ok_or_else(|| format!("it has no %{name}%"))
    };
    let full = value("VERSION")?;
    let (version, release) = full.rsplit_once('-').ok_or_else(|| format!("the version {full} has no release"))?;
    let (epoch, version) = match version.split_once(':') {
        Some((epoch, version)) => (Some(epoch.to_owned()), version),
        None => (None, version),
    };
    Ok(Package {
        name: value("NAME")?,
        version: version.to_owned(),
        release: release.to_owned(),
        epoch,
        architecture: value("ARCH")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_their_names() {
        let text = "%NAME%\nlinux\n\n%VERSION%\n6.12.1.arch1-1\n\n%ARCH%\nx86_64\n";
        let linux = package(text).unwrap();
        assert_eq!(
            (linux.name.as_str(), linux.version.as_str(), linux.release.as_str()),
            ("linux", "6.12.1.arch1", "1")
        );
        assert_eq!((linux.epoch, linux.architecture.as_str()), (None, "x86_64"));
        let epoch = package("%NAME%\na\n%VERSION%\n1:2-3\n%ARCH%\nany\n").unwrap();
        assert_eq!((epoch.epoch.as_deref(), epoch.version.as_str()), (Some("1"), "2"));
        assert_eq!(package("%NAME%\na\n%VERSION%\n2\n").unwrap_err(), "the version 2 has no release");
        assert_eq!(package("").unwrap_err(), "it has no %VERSION%");
    }
}
