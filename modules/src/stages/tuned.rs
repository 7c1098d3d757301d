//! Chooses the profiles of TuneD.
//!
//! Writes them to `/etc/tuned/active_profile` and `manual` to `/etc/tuned/profile_mode`; the directory must be there.
//! Each profile must be one of the tree: a directory with a `tuned.conf` in `/usr/lib/tuned` or `/etc/tuned`, or in the
//! directory `profiles` in there.
//!
//! ```json
//! { "type": "org.osbuild.tuned", "options": { "profiles": ["sap-hana"] } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.tuned",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"profiles": []}}"#,
        r#"{"options": {"profiles": [""]}}"#,
        r#"{"options": {"profiles": "a"}}"#,
        r#"{"options": {"profiles": ["a"], "mode": "auto"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The profiles; later ones win
    #[schemars(length(min = 1), inner(length(min = 1)))]
    profiles: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { profiles } = cx.options()?;
    let available = available(&cx.tree)?;
    if let Some(missing) = profiles.iter().find(|profile| !available.contains(profile)) {
        return Err(Error::failed(format!("the tree has no TuneD profile `{missing}`")));
    }
    cx.tree.write("etc/tuned/active_profile", profiles.join(" ") + "\n")?;
    cx.tree.write("etc/tuned/profile_mode", "manual\n")
}

/// The names of the profiles that the tree has.
fn available(tree: &Tree) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for directory in ["usr/lib/tuned", "etc/tuned"] {
        let inner = format!("{directory}/profiles");
        let directory = if tree.is_dir(&inner)? { &inner } else { directory };
        if !tree.is_dir(directory)? {
            continue;
        }
        for name in tree.read_dir(directory)?.into_iter().filter_map(|name| name.into_string().ok()) {
            if tree.is_file(format!("{directory}/{name}/tuned.conf"))? {
                names.push(name);
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn profiles_of_the_tree_are_chosen() {
        let case =
            Case::new(&MODULE).file("usr/lib/tuned/profiles/a/tuned.conf", "").file("etc/tuned/b/tuned.conf", "");
        let done = case.run(json!({"profiles": ["b", "a"]})).ok();
        assert_eq!(done.text("etc/tuned/active_profile"), "b a\n");
        assert_eq!(done.text("etc/tuned/profile_mode"), "manual\n");
    }

    #[test]
    fn others_are_refused() {
        let case = || Case::new(&MODULE).dir("etc/tuned/empty").dir("usr/lib/tuned/profiles");
        for case in [case(), case().file("usr/lib/tuned/x/tuned.conf", ""), Case::new(&MODULE)] {
            assert_eq!(case.run(json!({"profiles": ["x"]})).err(), "the tree has no TuneD profile `x`");
        }
        let done = case().run(json!({"profiles": ["empty"]}));
        assert_eq!(done.err(), "the tree has no TuneD profile `empty`");
    }
}
