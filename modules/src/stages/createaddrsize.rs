//! Writes the file from which an s390x firmware learns where the initrd lies and how large it is.
//!
//! The file has four big-endian numbers of 32 bits: 0, the address 0x02000000, 0, and the size of `initrd`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.createaddrsize",
//!   "options": { "initrd": "/etc/hosts", "addrsize": "/boot/initrd.addrsize" }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.createaddrsize",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"initrd": "/a"}}"#,
        r#"{"options": {"initrd": "/a", "addrsize": "/../b"}}"#,
        r#"{"options": {"initrd": "/a", "addrsize": "/b", "x": 1}}"#,
        r#"{"options": {"initrd": "", "addrsize": "/b"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const ADDRESS: u32 = 0x0200_0000;

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The initrd, which must be there.
    #[schemars(regex(pattern = r"^\/?(?!\.\.)((?!\/\.\.\/).)+$"))]
    initrd: String,
    /// The file to write.
    #[schemars(regex(pattern = r"^\/?(?!\.\.)((?!\/\.\.\/).)+$"))]
    addrsize: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { initrd, addrsize } = cx.options()?;
    let size = cx.tree.metadata(&initrd)?.len();
    let size = i32::try_from(size).map_err(|_| Error::failed(format!("{initrd} is too large: {size} bytes")))?;
    let numbers = [0, ADDRESS, 0, size.unsigned_abs()].map(u32::to_be_bytes);
    cx.tree.write(&addrsize, numbers.concat())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_size_is_the_last_number() {
        let case = Case::new(&MODULE).file("boot/initrd.img", vec![0; 0x1234]);
        let done = case.run(json!({"initrd": "boot/initrd.img", "addrsize": "/boot/initrd.addrsize"})).ok();
        assert_eq!(done.tree.read("boot/initrd.addrsize").unwrap(), b"\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\x12\x34");
    }

    #[test]
    fn the_initrd_must_be_there_and_not_too_large() {
        let done = Case::new(&MODULE).run(json!({"initrd": "/a", "addrsize": "/b"}));
        assert!(done.err().starts_with("cannot inspect /a"));
        let case = Case::new(&MODULE).file("a", "");
        case.tree().open_file("a", rustix::fs::OFlags::WRONLY, 0).unwrap().set_len(1 << 31).unwrap();
        assert_eq!(case.run(json!({"initrd": "/a", "addrsize": "/b"})).err(), "/a is too large: 2147483648 bytes");
    }
}
