//! `osbc resolve debian` with an apt that knows one small repository on loopback, made by the test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osbc_fixtures::deb::{Deb, can_install};
use predicates::prelude::*;
use serde_json::Value;

use crate::harness::{Place, osbc, respond, serve, sha256};

/// What the profile asks for, and the essential packages.
const PACKAGES: [&str; 17] = [
    "apt",
    "dbus",
    "init",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-demo",
    "mount",
    "netbase",
    "passwd",
    "procps",
    "systemd",
    "tzdata",
    "udev",
    "usr-is-merged",
    "zstd",
    "needed",
];

const SPEC: &str =
    "name = \"demo\"\nrelease = \"demo\"\nkernel = \"linux-demo\"\nformats = [\"tar\"]\nbuild = \"host\"\n";

/// A repository in a directory, and apt's configuration to have nothing but that.
struct Repository<'a> {
    place: &'a Place,
    url: String,
}

impl<'a> Repository<'a> {
    fn new(place: &'a Place) -> Self {
        let directory = place.path("repository");
        let served = directory.clone();
        let url = serve(Arc::new(move |path, stream| match fs::read(served.join(path.trim_start_matches('/'))) {
            Ok(content) => respond(stream, "200 OK", &content),
            Err(_) => respond(stream, "404 Not Found", b""),
        }));
        for name in ["lists/partial", "parts", "cache/archives/partial"] {
            fs::create_dir_all(place.path(name)).expect("writable");
        }
        let shown = |name: &str| place.path(name).display().to_string();
        let settings = format!(
            "Dir::State::lists \"{}\";\nDir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"{}\";\nDir::Cache \"{}\";\n\
             APT::Sandbox::User \"root\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n",
            shown("lists"),
            shown("sources.list"),
            shown("parts"),
            shown("cache"),
        );
        place.file("apt.conf", settings.as_bytes());
        place.file("sources.list", format!("deb [trusted=yes] {url}/debian demo main\n").as_bytes());
        Self { place, url }
    }

    /// Publishes these packages and lets apt know.
    fn publish(&self, debs: &[Deb]) {
        let root = self.place.path("repository/debian");
        let pool = root.join("pool");
        fs::create_dir_all(&pool).expect("writable");
        let mut index = String::new();
        for deb in debs {
            let path = deb.write(&pool);
            let control = Command::new("dpkg-deb").arg("--field").arg(&path).output().expect("dpkg-deb starts").stdout;
            let (content, file) = (fs::read(&path).expect("it was made"), path.file_name().expect("it is a file"));
            index.push_str(&format!(
                "{}Filename: pool/{}\nSize: {}\nSHA256: {}\n\n",
                String::from_utf8(control).expect("control data is text"),
                file.to_string_lossy(),
                content.len(),
                sha256(&content)
            ));
        }
        let architecture = Command::new("dpkg").arg("--print-architecture").output().expect("dpkg starts").stdout;
        let architecture = String::from_utf8(architecture).expect("a word").trim().to_owned();
        let directory = root.join(format!("dists/demo/main/binary-{architecture}"));
        fs::create_dir_all(&directory).expect("writable");
        fs::write(directory.join("Packages"), &index).expect("writable");
        let release = format!(
            "Label: Demo Archive\nCodename: demo\nSuite: demo\nComponents: main\nArchitectures: {architecture} all\n\
             Date: Sun, 09 Sep 2001 01:46:40 UTC\nSHA256:\n {} {} main/binary-{architecture}/Packages\n",
            sha256(index.as_bytes()),
            index.len()
        );
        fs::write(root.join("dists/demo/Release"), release).expect("writable");
        let update = Command::new("apt-get").arg("update").env("APT_CONFIG", self.place.path("apt.conf")).output();
        let update = update.expect("apt-get starts");
        assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
    }

    fn resolve(&self, spec: &Path, more: &[&str]) -> assert_cmd::Command {
        let mut command = osbc();
        command.env("APT_CONFIG", self.place.path("apt.conf")).args(["resolve", "debian"]).arg(spec);
        command.arg("-o").arg(self.place.path("image.json")).args(more);
        command
    }
}

fn debs() -> Vec<Deb> {
    let small = |name: &&str| Deb::new(name).field("Depends", "base");
    let mut debs: Vec<Deb> = PACKAGES.iter().map(small).collect();
    debs.push(Deb::new("base").field("Essential", "yes"));
    debs.push(Deb::new("wanted").field("Depends", "base, needed"));
    debs
}

fn read(path: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it was written")).expect("it is JSON")
}

#[test]
fn root_a_description_becomes_a_manifest_and_its_lock_makes_the_same_again() {
    if !can_install() || !osbc_fixtures::has_tool("apt-get") {
        return;
    }
    let place = Place::new();
    let repository = Repository::new(&place);
    repository.publish(&debs());
    let spec = place.file("spec.toml", format!("packages = [\"wanted\"]\n{SPEC}").as_bytes());
    let (lock, image) = (place.path("image.lock"), place.path("image.json"));
    let with_lock = ["--lock", lock.to_str().expect("a plain path")];

    let said = predicate::str::contains("demo").and(predicate::str::contains("19 packages in the system"));
    repository.resolve(&spec, &with_lock).assert().success().stdout(said);
    let (first, locked) = (read(&image), fs::read_to_string(&lock).expect("it was written"));
    let items = first["sources"]["org.osbuild.curl"]["items"].as_object().expect("it fetches").clone();
    let wanted = format!("{}/debian/pool/wanted.deb", repository.url);
    assert!(items.len() == 19 && items.values().any(|url| *url == wanted), "{items:?}");
    assert!(!locked.contains("127.0.0.1") && locked.contains("\"demo-archive\""), "{locked}");
    assert_eq!(first["pipelines"][0]["source-epoch"], 1_000_000_000);
    let stages = first["pipelines"][0]["stages"].as_array().expect("it has stages");
    let counts = [0, 1].map(|stage| stages[stage]["inputs"]["packages"]["references"].as_array().expect("files").len());
    // apt takes itself for essential too.
    assert_eq!(counts, [3, 16], "the essential set comes by itself");
    osbc().arg("plan").arg(&image).arg("--store").arg(place.store()).assert().success();

    // A newer package changes nothing until that is wanted.
    let mut newer = debs();
    newer.retain(|deb| deb.name() != "needed");
    newer.push(Deb::new("needed").version("2.0-1").field("Depends", "base"));
    repository.publish(&newer);
    repository.resolve(&spec, &with_lock).assert().success();
    assert_eq!((read(&image), fs::read_to_string(&lock).expect("as before")), (first, locked));
    let changed = predicate::str::contains("~ needed 1.0-1 -> 2.0-1\n");
    repository.resolve(&spec, &[&with_lock[..], &["--update"]].concat()).assert().success().stdout(changed);

    // Another place for the packages, without any apt.
    let mirror = [&with_lock[..], &["--mirror", "demo-archive=http://mirror.example/x/"]].concat();
    repository.resolve(&spec, &mirror).env("PATH", "/nowhere").assert().success();
    let items = read(&image)["sources"]["org.osbuild.curl"]["items"].clone();
    let items = items.as_object().expect("it fetches");
    assert!(
        items.values().all(|url| url.as_str().expect("a URL").starts_with("http://mirror.example/x/pool/")),
        "{items:?}"
    );
}

#[test]
fn root_variants_share_all_but_what_they_have_of_their_own() {
    if !can_install() || !osbc_fixtures::has_tool("apt-get") {
        return;
    }
    let place = Place::new();
    let repository = Repository::new(&place);
    repository.publish(&debs());
    let variants = "[[variants]]\nname = \"a\"\n[[variants]]\nname = \"b\"\nhostname = \"other\"\n\
                    [[variants]]\nname = \"c\"\npackages = [\"wanted\"]\n";
    let spec = SPEC.replace("tar", "raw") + "firmware = [\"uefi\"]\n" + variants;
    let spec = place.file("spec.toml", spec.as_bytes());
    repository.resolve(&spec, &[]).assert().success();
    let manifest = read(&place.path("image.json"));
    let names = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let pipelines: Vec<String> = manifest["pipelines"].as_array().expect("some").iter().map(names).collect();
    let expected = ["system", "uki", "os-a", "image-a", "os-b", "image-b", "system-c", "uki-c", "os-c", "image-c"];
    assert_eq!(pipelines, expected);
    let exports: Vec<String> = manifest["metadata"]["exports"].as_array().expect("some").iter().map(names).collect();
    assert_eq!(exports, ["image-a", "image-b", "image-c"]);
    let plan = place.plan(&place.path("image.json"));
    let actions = plan["pipelines"].as_array().expect("some");
    let shared = |name: &str| {
        let pipeline = actions.iter().find(|one| one["name"] == name).expect("it is planned");
        let stages = pipeline["stages"].as_array().expect("some");
        (stages.iter().filter(|stage| stage["action"] == "shared").count(), stages.len())
    };
    let (of_b, all) = shared("os-b");
    assert_eq!(of_b, all - 1, "all but the host name");
    assert_eq!(shared("os-c").0, 3, "the packages, its own from its own system");
}

#[test]
fn root_a_mirror_that_is_dead_or_has_something_else_is_reported_at_once() {
    if !can_install() || !osbc_fixtures::has_tool("apt-get") {
        return;
    }
    let place = Place::new();
    let repository = Repository::new(&place);
    repository.publish(&debs());
    let spec = place.file("spec.toml", SPEC.as_bytes());
    // A port that nobody listens at any more.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port on loopback");
    let begin = Instant::now();
    let refused = |mirror: &str, reason: &str| {
        let said = predicate::str::contains("the repository demo-archive does not give the package ")
            .and(predicate::str::contains(reason))
            .and(predicate::str::contains("`--mirror demo-archive=URL` names another place"));
        repository.resolve(&spec, &["--mirror", mirror]).assert().code(3).stderr(said);
        assert!(!place.path("image.json").exists());
    };
    refused(&format!("demo-archive=http://{dead}/debian"), &format!("cannot download http://{dead}/debian/pool/"));
    refused("demo-archive=http://nowhere.invalid/debian", "cannot download http://nowhere.invalid/debian/pool/");
    refused(&format!("demo-archive={}/elsewhere", repository.url), "404");
    refused("demo-archive=file:///nowhere", "cannot open /nowhere/pool/");
    assert!(begin.elapsed() < Duration::from_secs(60), "it does not take long");
    // Where apt knows of packages that are not there any more.
    for deb in fs::read_dir(place.path("repository/debian/pool")).expect("it was published").flatten() {
        fs::write(deb.path(), "another").expect("writable");
    }
    refused(&format!("demo-archive={}/debian", repository.url), "the file has the checksum sha256:");
    let served = format!("demo-archive=file://{}", place.path("repository/debian").display());
    repository.resolve(&spec, &["--mirror", &served]).assert().success();
}

#[test]
fn root_a_server_for_ssh_makes_its_keys_and_what_is_set_up_needs_nothing_of_the_host() {
    if !can_install() || !osbc_fixtures::has_tool("apt-get") {
        return;
    }
    let place = Place::new();
    let repository = Repository::new(&place);
    let mut all = debs();
    all.push(Deb::new("openssh-server").field("Depends", "base"));
    repository.publish(&all);
    let of = |more: &str| {
        let spec = place.file("spec.toml", format!("{more}\n{SPEC}").as_bytes());
        repository.resolve(&spec, &[]).assert().success();
        read(&place.path("image.json"))["pipelines"][0]["stages"].to_string()
    };
    let (plain, server) =
        (of(""), of("packages = [\"openssh-server\"]\nenable = [\"ssh\"]\nusers.web.keys = [\"key\"]"));
    assert!(!plain.contains("ssh-keys") && plain.contains("/etc/default/locale"), "{plain}");
    assert!(server.contains("multi-user.target.wants/osbc-ssh-keys.service"), "{server}");
    let stages: Value = serde_json::from_str(&server).expect("it is JSON");
    for name in ["org.osbuild.users", "org.osbuild.systemd"] {
        let stage = stages.as_array().expect("some").iter().find(|stage| stage["type"] == name).expect("it is set up");
        assert_eq!(stage["options"]["tools"], "tree", "{name}");
    }
}

#[test]
fn root_what_apt_does_not_know_is_reported_with_a_way_out() {
    if !can_install() || !osbc_fixtures::has_tool("apt-get") {
        return;
    }
    let place = Place::new();
    let repository = Repository::new(&place);
    let release = predicate::str::contains("apt knows no packages of the release demo")
        .and(predicate::str::contains("apt-get update"));
    let spec = |more: &str| place.file("spec.toml", format!("{more}\n{SPEC}").as_bytes());
    repository.resolve(&spec(""), &[]).assert().code(3).stderr(release);
    repository.publish(&debs());
    let unknown = predicate::str::contains("there is no package wnated; did you mean wanted?");
    repository.resolve(&spec("packages = [\"wnated\"]"), &[]).assert().code(2).stderr(unknown);
    let other = place.path("other.lock");
    let with_lock = ["--lock", other.to_str().expect("a plain path")];
    repository.resolve(&spec(""), &with_lock).assert().success();
    let stale = predicate::str::contains("`--update` resolves them anew");
    repository.resolve(&spec("packages = [\"wanted\"]"), &with_lock).assert().code(2).stderr(stale);
    let field = predicate::str::contains("spec.toml").and(predicate::str::contains("unknown field `colour`"));
    repository.resolve(&spec("colour = \"red\""), &[]).assert().code(2).stderr(field);
    assert!(!place.path("image.json").exists() || other.exists());
}
