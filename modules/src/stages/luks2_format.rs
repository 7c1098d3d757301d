//! Makes a LUKS 2 container of a device.
//!
//! Calls `cryptsetup` of the build root on the device `device`. Unless given, the key derivation has 32 KiB of memory
//! and one thread: cheap, for a passphrase that only holds until the system gets its own.
//!
//! ```json
//! {
//!   "type": "org.osbuild.luks2.format",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048 } }
//!   },
//!   "options": {
//!     "passphrase": "osbuild",
//!     "uuid": "aedd4bd7-1b8b-4c2e-8a1c-3d7a4e6c7b10",
//!     "label": "luks-root",
//!     "pbkdf": { "method": "argon2id", "memory": 32, "iterations": 4, "parallelism": 1 }
//!   }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.luks2.format",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("cryptsetup")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"passphrase": "p", "uuid": "u"}}"#,
        r#"{"options": {"uuid": "u", "pbkdf": {"method": "pbkdf2", "iterations": 1000}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "pbkdf2", "iterations": 999}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "pbkdf2", "iterations": 1000, "memory": 32}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "scrypt", "iterations": 1000}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "argon2i", "iterations": 3}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "argon2id", "iterations": 4, "parallelism": 5}}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "argon2id", "iterations": 4}, "integrity": "crc"}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "argon2id", "iterations": 4}, "extra": 1}}"#,
        r#"{"options": {"passphrase": "p", "uuid": "u", "pbkdf": {"method": "argon2id", "iterations": 4}}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The passphrase that opens the container
    passphrase: String,
    /// Identifier of the container
    uuid: String,
    /// The cipher
    cipher: Option<String>,
    /// How the key is derived from the passphrase
    pbkdf: Derivation,
    /// Label of the container
    label: Option<String>,
    /// Second label of the container, which needs the first
    #[serde(default)]
    subsystem: String,
    /// Bytes in a sector
    sector_size: Option<i64>,
    /// How the integrity of the data is protected
    integrity: Option<Integrity>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
enum Derivation {
    /// PBKDF2
    Pbkdf2 {
        /// How often the function is applied
        #[schemars(range(min = 1000, max = 4_294_967_295_u32))]
        iterations: i64,
    },
    /// Argon2i
    Argon2i(Argon2),
    /// Argon2id
    Argon2id(Argon2),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Argon2 {
    /// How much memory it takes, in KiB
    #[serde(default = "little_memory")]
    #[schemars(range(min = 32, max = 4_194_304))]
    memory: i64,
    /// How often the function is applied
    #[schemars(range(min = 4, max = 4_294_967_295_u32))]
    iterations: i64,
    /// How many threads it takes
    #[serde(default = "one_thread")]
    #[schemars(range(min = 1, max = 4))]
    parallelism: i64,
}

const MEMORY: i64 = 32;

fn little_memory() -> i64 {
    MEMORY
}

fn one_thread() -> i64 {
    1
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Integrity {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// Returns the arguments of `cryptsetup` other than the device.
fn arguments(options: &Options) -> Vec<String> {
    let words = ["-q", "--uuid", &options.uuid, "luksFormat", "--type", "luks2", "--force-password"];
    let mut arguments = words.map(str::to_owned).to_vec();
    let mut say = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(cipher) = given(&options.cipher) {
        say(&["--cipher", &cipher]);
    }
    if let Some(label) = given(&options.label) {
        say(&["--label", &label, "--subsystem", &options.subsystem]);
    }
    if let Some(size) = options.sector_size.filter(|size| *size != 0) {
        say(&["--sector-size", &size.to_string()]);
    }
    if let Some(Integrity::HmacSha256) = options.integrity {
        say(&["--integrity", "hmac-sha256"]);
    }
    let (method, iterations, memory, threads) = match &options.pbkdf {
        Derivation::Pbkdf2 { iterations } => ("pbkdf2", iterations, MEMORY, 1),
        Derivation::Argon2i(cost) => ("argon2i", &cost.iterations, cost.memory, cost.parallelism),
        Derivation::Argon2id(cost) => ("argon2id", &cost.iterations, cost.memory, cost.parallelism),
    };
    say(&["--pbkdf", method, "--pbkdf-force-iterations", &iterations.to_string()]);
    say(&["--pbkdf-memory", &memory.to_string(), "--pbkdf-parallel", &threads.to_string()]);
    arguments
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let device = &cx.device("device")?.path;
    cx.tool("cryptsetup")?.args(arguments(&options)).arg(device).stdin(options.passphrase).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments_of(options: Value) -> String {
        arguments(&Options::deserialize(options).expect("valid options")).join(" ")
    }

    #[test]
    fn the_cost_of_the_key_is_low_by_default() {
        let options = json!({"passphrase": "p", "uuid": "u", "pbkdf": {"method": "pbkdf2", "iterations": 1000}});
        assert_eq!(
            arguments_of(options),
            "-q --uuid u luksFormat --type luks2 --force-password \
             --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --pbkdf-memory 32 --pbkdf-parallel 1"
        );
    }

    #[test]
    fn all_that_is_given_is_said() {
        let options = json!({
            "passphrase": "p", "uuid": "u", "cipher": "aes-xts-plain64", "label": "root", "subsystem": "os",
            "sector-size": 512, "integrity": "hmac-sha256",
            "pbkdf": {"method": "argon2i", "iterations": 4, "memory": 64, "parallelism": 2},
        });
        assert_eq!(
            arguments_of(options),
            "-q --uuid u luksFormat --type luks2 --force-password --cipher aes-xts-plain64 --label root --subsystem os \
             --sector-size 512 --integrity hmac-sha256 \
             --pbkdf argon2i --pbkdf-force-iterations 4 --pbkdf-memory 64 --pbkdf-parallel 2"
        );
    }
}
