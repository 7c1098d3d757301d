//! Writes keyed checksums of files, as systems in FIPS mode check their kernels by.
//!
//! For each path the file `.NAME.hmac` beside it gets a line of the checksum and the name, as `sha512hmac` and its like
//! of hmaccalc and libkcapi write it, with their default key. No tool is needed.
//!
//! ```json
//! { "type": "org.osbuild.hmac", "options": { "paths": ["/boot/vmlinuz"], "algorithm": "sha512" } }
//! ```

use std::io::{self, Read};

use hmac::{Hmac, KeyInit, Mac};
use osbc_ir::hex;
use osbc_module_api::*;
use rustix::fs::OFlags;
use sha2::digest::block_api::EagerHash;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.hmac",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"paths": ["/a"]}}"#,
        r#"{"options": {"algorithm": "sha1"}}"#,
        r#"{"options": {"paths": [], "algorithm": "sha1"}}"#,
        r#"{"options": {"paths": ["/a"], "algorithm": "md5"}}"#,
        r#"{"options": {"paths": ["/a"], "algorithm": "sha1", "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The key that the tools take by default.
const KEY: &[u8] = b"FIPS-FTW-RHT2009";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The files
    #[schemars(length(min = 1))]
    paths: Vec<String>,
    /// The hash
    algorithm: Algorithm,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { paths, algorithm } = cx.options()?;
    for path in paths {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let mut file = cx.tree.open_file(&path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let sum = match algorithm {
            Algorithm::Sha1 => sum::<sha1::Sha1>(&mut file),
            Algorithm::Sha224 => sum::<sha2::Sha224>(&mut file),
            Algorithm::Sha256 => sum::<sha2::Sha256>(&mut file),
            Algorithm::Sha384 => sum::<sha2::Sha384>(&mut file),
            Algorithm::Sha512 => sum::<sha2::Sha512>(&mut file),
        };
        let sum = sum.map_err(Error::io("read", &path))?;
        cx.tree.write(format!("{directory}/.{name}.hmac"), format!("{sum}  {name}\n"))?;
    }
    Ok(())
}

fn sum<H: EagerHash>(source: &mut impl Read) -> io::Result<String> {
    let mut state = Hmac::<H>::new_from_slice(KEY).map_err(io::Error::other)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            count => state.update(&buffer[..count]),
        }
    }
    Ok(hex(&state.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn sums_are_those_of_openssl_with_the_tools_key() {
        if !has_tool("openssl") {
            return;
        }
        for algorithm in ["sha1", "sha224", "sha256", "sha384", "sha512"] {
            let case = Case::new(&MODULE).file("boot/vmlinuz", "kernel").file("own", "");
            let done = case.run(json!({"paths": ["/boot/vmlinuz", "own"], "algorithm": algorithm})).ok();
            for (path, sums) in [("boot/vmlinuz", "boot/.vmlinuz.hmac"), ("own", ".own.hmac")] {
                let key = std::str::from_utf8(KEY).unwrap();
                let arguments = ["dgst", &format!("-{algorithm}"), "-r", "-hmac", key];
                let file = done.tree.path_for_tools(path).unwrap();
                let output = Command::new("openssl").args(arguments).arg(file).output().unwrap().stdout;
                let sum = String::from_utf8(output).unwrap().split(' ').next().unwrap().to_owned();
                let name = path.rsplit('/').next().unwrap();
                assert_eq!(done.text(sums), format!("{sum}  {name}\n"), "{algorithm}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let done = Case::new(&MODULE).run(json!({"paths": ["/boot/vmlinuz"], "algorithm": "sha1"}));
        assert_eq!(done.err(), "cannot open /boot/vmlinuz: No such file or directory (os error 2)");
    }
}
