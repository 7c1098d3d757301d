//! Sets options of an OSTree repository in the tree.
//!
//! Calls `ostree` of the build root.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.config",
//!   "options": { "repo": "/ostree/repo", "config": { "sysroot": { "readonly": true, "bootloader": "none" } } }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::configure;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.config",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"config": {}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"core": {}}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"sysroot": {"bootloader": "lilo"}}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"sysroot": {"readonly": "true"}}}}"#,
        r#"{"options": {"repo": "/repo", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The repository
    repo: String,
    /// The options, by group
    config: Option<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Those of the system
    #[serde(default)]
    sysroot: Sysroot,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sysroot {
    /// The boot loader that is kept up to date; `none` for boot entries alone
    bootloader: Option<BootLoader>,
    /// Whether paths in boot entries begin with `/boot`
    bootprefix: Option<bool>,
    /// Whether the system's root is read-only
    readonly: Option<bool>,
    /// What is added to boot entries except the default one
    #[serde(rename = "bls-append-except-default")]
    bls_append: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BootLoader {
    None,
    Auto,
    Grub2,
    Syslinux,
    Uboot,
    Zipl,
    Aboot,
}

impl Sysroot {
    /// What is given, in the order in which it is set.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let loader = self.bootloader.map(|loader| match loader {
            BootLoader::None => "none",
            BootLoader::Auto => "auto",
            BootLoader::Grub2 => "grub2",
            BootLoader::Syslinux => "syslinux",
            BootLoader::Uboot => "uboot",
            BootLoader::Zipl => "zipl",
            BootLoader::Aboot => "aboot",
        });
        let all = [
            ("sysroot.bootloader", loader.map(str::to_owned)),
            ("sysroot.bootprefix", self.bootprefix.map(|yes| yes.to_string())),
            ("sysroot.readonly", self.readonly.map(|yes| yes.to_string())),
            ("sysroot.bls-append-except-default", self.bls_append.clone().filter(|text| !text.is_empty())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let config = options.config.ok_or_else(|| Error::failed("`config` must be given"))?;
    configure(cx, &options.repo, &config.sysroot.settings())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn what_is_given_is_set_even_if_it_is_false() {
        let settings = |value| Sysroot::deserialize(value).unwrap().settings();
        assert!(settings(json!({"bls-append-except-default": ""})).is_empty());
        let all = json!({
            "bootloader": "none", "bootprefix": false, "readonly": true, "bls-append-except-default": "debug",
        });
        let texts: Vec<_> = settings(all).iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            texts,
            [
                "sysroot.bootloader=none",
                "sysroot.bootprefix=false",
                "sysroot.readonly=true",
                "sysroot.bls-append-except-default=debug"
            ]
        );
    }

    #[test]
    fn options_and_repository_are_wanted() {
        assert_eq!(Case::new(&MODULE).run(json!({"repo": "repo"})).err(), "`config` must be given");
        let missing = Case::new(&MODULE).run(json!({"repo": "repo", "config": {}}));
        assert!(missing.err().starts_with("cannot open the directory /repo"), "{}", missing.err());
    }
}
