//! Deployments of OSTree systems in a tree, as stages name them in their options.

use osbc_module_api::*;

/// Which deployment: the default one, or by names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"properties": {"default": {"enum": [false]}}, "required": ["osname", "ref"]},
    {
        "properties": {"default": {"enum": [true]}},
        "not": {"anyOf": [{"required": ["osname"]}, {"required": ["ref"]}, {"required": ["serial"]}]},
    },
]))]
pub(crate) struct Deployment {
    /// Name of the stateroot.
    osname: Option<String>,
    /// The ref or commit that is deployed.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// Which deployment of that commit, usually 0.
    #[serde(default)]
    #[schemars(with = "f64")]
    serial: i64,
    /// Whether it is the only deployment with the serial 0.
    #[serde(default)]
    default: bool,
}

impl Deployment {
    /// Its schema where osbuild's lets it be anything: what is no object fails in the stage.
    pub(crate) fn schema_of_any_type(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = options_schema::<Self>();
        if let Some(schema) = schema.as_object_mut() {
            schema.shift_remove("type");
        }
        schemars::Schema::try_from(schema).unwrap_or_default()
    }
}

/// A deployment that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Name of the stateroot.
    pub(crate) osname: String,
    /// The commit.
    pub(crate) commit: String,
    /// Which deployment of that commit.
    serial: i64,
}

impl Found {
    /// Its directory in the tree.
    pub(crate) fn path(&self) -> String {
        format!("{DEPLOY}/{}/deploy/{}.{}", self.osname, self.commit, self.serial)
    }

    /// The directory in the tree that holds the variable data of its system.
    pub(crate) fn var(&self) -> String {
        format!("{DEPLOY}/{}/var", self.osname)
    }
}

/// The directory in a tree that holds the stateroots.
const DEPLOY: &str = "ostree/deploy";

impl Deployment {
    /// Its directory in the tree.
    ///
    /// # Errors
    /// There is none or more than one, or the repository does not know the ref.
    pub(crate) fn path(&self, tree: &Tree) -> Result<String, Error> {
        self.find(tree).map(|found| found.path())
    }

    /// Looks for it in the tree.
    ///
    /// # Errors
    /// There is none or more than one, or the repository does not know the ref.
    pub(crate) fn find(&self, tree: &Tree) -> Result<Found, Error> {
        let Self { osname, reference, serial, default } = self;
        if !default {
            let (Some(osname), Some(reference)) = (osname, reference) else {
                return Err(Error::failed("`deployment` needs `osname` and `ref`, or `default`"));
            };
            let commit = resolve(tree, reference)?;
            return Ok(Found { osname: osname.clone(), commit, serial: *serial });
        }
        let mut found = Vec::new();
        for osname in visible(tree, DEPLOY)? {
            for name in visible(tree, &format!("{DEPLOY}/{osname}/deploy"))? {
                if let Some(commit) = name.strip_suffix(".0") {
                    found.push(Found { osname: osname.clone(), commit: commit.to_owned(), serial: 0 });
                }
            }
        }
        match found.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Error::failed("the tree has no OSTree deployment")),
            more => {
                let paths: Vec<String> = more.iter().map(Found::path).collect();
                Err(Error::failed(format!("the tree has more than one OSTree deployment: {}", paths.join(", "))))
            }
        }
    }
}

/// The path by which the boot loader finds the one deployment of a tree, e.g. `/ostree/boot.1/default/CHECKSUM/0`.
///
/// # Errors
/// There is none or more than one.
pub(crate) fn boot_path(tree: &Tree) -> Result<String, Error> {
    let is_boot = |name: &String| name.strip_prefix("boot.").is_some_and(|rest| rest.chars().count() == 1);
    let mut paths: Vec<String> =
        visible(tree, "ostree")?.into_iter().filter(is_boot).map(|name| format!("ostree/{name}")).collect();
    for _ in ["osname", "checksum", "serial"] {
        let mut inner = Vec::new();
        for path in &paths {
            inner.extend(visible(tree, path)?.into_iter().map(|name| format!("{path}/{name}")));
        }
        paths = inner;
    }
    match paths.as_slice() {
        [only] => Ok(format!("/{only}")),
        [] => Err(Error::failed("there is no OSTree boot path")),
        more => Err(Error::failed(format!("there is more than one OSTree boot path: {}", more.join(", ")))),
    }
}

/// The names in a directory that do not begin with a dot; none if it is not there.
fn visible(tree: &Tree, directory: &str) -> Result<Vec<String>, Error> {
    if !tree.is_dir(directory)? {
        return Ok(Vec::new());
    }
    let names = tree.read_dir(directory)?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

/// The commit that a ref of the tree's repository (`name` or `remote:name`) is at; a commit is its own.
pub(crate) fn resolve(tree: &Tree, reference: &str) -> Result<String, Error> {
    if reference.len() == 64 && reference.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(reference.to_owned());
    }
    let refs = "ostree/repo/refs";
    let mut places = match reference.split_once(':') {
        Some((remote, name)) => vec![format!("{refs}/remotes/{remote}/{name}")],
        None => vec![format!("{refs}/heads/{reference}"), format!("{refs}/mirrors/{reference}")],
    };
    if !reference.contains(':') {
        let remotes = visible(tree, &format!("{refs}/remotes"))?;
        places.extend(remotes.iter().map(|remote| format!("{refs}/remotes/{remote}/{reference}")));
    }
    for place in places {
        if tree.is_file(&place)? {
            return Ok(tree.read_to_string(place)?.trim().to_owned());
        }
    }
    Err(Error::failed(format!("the tree's OSTree repository has no ref `{reference}`")))
}
