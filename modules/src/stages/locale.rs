//! Sets the language of the system.
//!
//! Replaces `/etc/locale.conf`. Where the build root is a Debian or Ubuntu that keeps the locale in
//! `/etc/default/locale`, that file is written instead, unless it is there, as osbuild does by the build root's
//! `systemd-firstboot`.
//!
//! ```json
//! { "type": "org.osbuild.locale", "options": { "language": "en_US.UTF-8" } }
//! ```

use osbc_module_api::*;

use crate::boot::firstboot::{self, BuildRoot};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.locale",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::File(firstboot::PROGRAM)],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"language": ["C"]}}"#,
        r#"{"options": {"language": "C", "a": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &BuildRoot::here())),
};

const FILE: &str = "etc/locale.conf";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The locale, e.g. `en_US.UTF-8`.
    language: String,
}

fn run(cx: &StageContext, build_root: &BuildRoot) -> Result<(), Error> {
    let Options { language } = cx.options()?;
    if !firstboot::is_name(&language) {
        return Err(Error::failed(format!("`{language}` is no valid locale")));
    }
    let file = build_root.locale_file();
    let content = firstboot::assignment("LANG", &language);
    if file == FILE {
        cx.tree.create_dir_all("etc", 0o755)?;
        return cx.tree.replace(FILE, content, 0o644);
    }
    cx.tree.remove_dir_all(FILE)?;
    if cx.tree.exists(file)? {
        return Ok(());
    }
    cx.tree.create_dir_all("etc/default", 0o755)?;
    cx.tree.replace(file, content, 0o644)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_module_api::testing::{Case, Done};

    use super::*;

    static PLAIN: ModuleDef =
        ModuleDef { entry: Entry::Stage(|cx| run(cx, &BuildRoot::at(tempfile::tempdir().unwrap().path()))), ..MODULE };

    static DEBIAN: ModuleDef = ModuleDef {
        entry: Entry::Stage(|cx| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("usr/bin")).unwrap();
            fs::write(root.path().join("usr/bin/systemd-firstboot"), "/etc/default/locale\0").unwrap();
            run(cx, &BuildRoot::at(root.path()))
        }),
        ..MODULE
    };

    fn set(case: Case) -> Done {
        case.run(json!({"language": "de_DE.UTF-8"}))
    }

    #[test]
    fn the_file_is_replaced_and_not_followed() {
        let case = || Case::new(&PLAIN).file("etc/other", "kept\n");
        for case in [case(), case().link(FILE, "other"), case().file(FILE, "old").mode(FILE, 0o600)] {
            let done = set(case).ok();
            assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), ("LANG=de_DE.UTF-8\n", 0o644));
            assert_eq!(done.text("etc/other"), "kept\n");
        }
    }

    #[test]
    fn debian_has_a_file_of_its_own_and_keeps_it() {
        let done = set(Case::new(&DEBIAN).file(FILE, "old")).ok();
        assert_eq!(done.text("etc/default/locale"), "LANG=de_DE.UTF-8\n");
        assert!(!done.tree.exists(FILE).unwrap());
        let done = set(Case::new(&DEBIAN).file("etc/default/locale", "LANG=C\n")).ok();
        assert_eq!(done.text("etc/default/locale"), "LANG=C\n");
    }

    #[test]
    fn a_path_is_no_locale() {
        let done = Case::new(&PLAIN).run(json!({"language": "a/b"}));
        assert_eq!(done.err(), "`a/b` is no valid locale");
    }
}
