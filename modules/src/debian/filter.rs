//! Which paths of packages are left out of a tree, as dpkg's `path-exclude` and `path-include` say it.

use osbc_pytext::fnmatch::Pattern;

/// What is left out, and what of that is kept nevertheless.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    exclude: Vec<Pattern>,
    include: Vec<Pattern>,
    /// What the patterns in `include` begin with before the first character that stands for others.
    beginnings: Vec<String>,
}

impl Filter {
    /// Takes patterns of absolute paths in which `*` stands for slashes too.
    pub(crate) fn new(exclude: &[String], include: &[String]) -> Self {
        let all = |patterns: &[String]| patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
        let plain = |pattern: &String| pattern.split(['*', '?', '[', '\\']).next().unwrap_or_default().to_owned();
        Self { exclude: all(exclude), include: all(include), beginnings: include.iter().map(plain).collect() }
    }

    /// Whether what is at an absolute path is left out. A directory or link in which something may be that is kept
    /// stays.
    pub(crate) fn leaves_out(&self, path: &str, leads_on: bool) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.is_match(path));
        if !fits(&self.exclude) || fits(&self.include) {
            return false;
        }
        let below = format!("{path}/");
        let may_hold = |beginning: &String| beginning.starts_with(&below) || below.starts_with(beginning.as_str());
        !(leads_on && self.beginnings.iter().any(may_hold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_is_left_out_unless_it_is_included() {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filter =
            Filter::new(&text(&["/usr/share/doc/*", "/usr/share/man/*"]), &text(&["/usr/share/doc/*/copyright"]));
        assert!(filter.leaves_out("/usr/share/doc/one/changelog.gz", false));
        assert!(filter.leaves_out("/usr/share/man/man1/one.1.gz", false));
        assert!(filter.leaves_out("/usr/share/man/man1", true));
        assert!(!filter.leaves_out("/usr/share/doc/one/copyright", false));
        assert!(!filter.leaves_out("/usr/share/doc", true) && !filter.leaves_out("/usr/bin/one", false));
        // What is kept needs its directory.
        assert!(!filter.leaves_out("/usr/share/doc/one", true));
        assert!(filter.leaves_out("/usr/share/doc/one", false));
        assert!(!Filter::default().leaves_out("/usr/share/doc/one", false));
    }
}
