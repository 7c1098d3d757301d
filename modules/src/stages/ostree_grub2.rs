//! Puts the path of an OSTree deployment into a template of a GRUB configuration.
//!
//! Replaces `@OSTREE@` in the file by the boot path of the one deployment that the input `tree`, or else `source`, has, such
//! as `/ostree/boot.1/default/CHECKSUM/0`. The file is replaced by a new one, a link too.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.grub2",
//!   "options": { "filename": "/boot/grub2/grub.cfg" },
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:image-tree"] }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree;
use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.grub2",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": 1}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "source": "tree:///"}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "source": "input://tree"}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a"}, "inputs": {}}"#,
        r#"{"options": {"filename": "a", "other": 1}, "inputs": {"tree": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The template
    filename: String,
    /// Where the deployment is, if not in the input `tree`
    #[schemars(extend("oneOf" = [{"pattern": "^mount://"}, {"pattern": "^input://[^/]+/"}]))]
    source: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, source } = cx.options()?;
    let Location { tree, path, .. } = cx.location(source.as_deref().unwrap_or("input://tree/"))?;
    let boot_path = ostree::boot_path(&tree.subtree(path)?)?;
    let template = text::read(&cx.tree, &filename)?;
    cx.tree.replace(&filename, template.replace("@OSTREE@", &boot_path), 0o644)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn fill(tree: &Tree) {
        tree.create_dir_all("ostree/boot.1.1/default/abc/0", 0o755).unwrap();
        tree.symlink("boot.1.1", "ostree/boot.1").unwrap();
    }

    fn case() -> Case {
        Case::new(&MODULE).input("tree", json!({}), fill).file("grub.cfg", "a ostree=@OSTREE@ b @OSTREE@\nc\n")
    }

    #[test]
    fn the_path_takes_the_place_of_the_mark() {
        let done = case().mode("grub.cfg", 0o600).run(json!({"filename": "/grub.cfg"})).ok();
        let path = "/ostree/boot.1/default/abc/0";
        assert_eq!(done.text("grub.cfg"), format!("a ostree={path} b {path}\nc\n"));
        assert_eq!(done.mode("grub.cfg"), 0o644);
        let empty = Case::new(&MODULE).input("tree", json!({}), |_| ()).file("grub.cfg", "@OSTREE@");
        let done = empty.mount("root", fill).run(json!({"filename": "/grub.cfg", "source": "mount://root/"})).ok();
        assert_eq!(done.text("grub.cfg"), path);
    }

    #[test]
    fn one_deployment_is_wanted() {
        let empty = Case::new(&MODULE).input("tree", json!({}), |_| ()).file("grub.cfg", "@OSTREE@");
        assert_eq!(empty.run(json!({"filename": "/grub.cfg"})).err(), "there is no OSTree boot path");
        let two = Case::new(&MODULE).file("grub.cfg", "").input("tree", json!({}), |tree| {
            tree.create_dir_all("ostree/boot.0/default/abc/0", 0o755).unwrap();
            tree.create_dir_all("ostree/boot.0/default/abc/1", 0o755).unwrap();
        });
        assert!(two.run(json!({"filename": "/grub.cfg"})).err().contains("more than one"));
        assert!(case().run(json!({"filename": "/missing"})).err().contains("missing"));
    }
}
