//! RPM packages from a repository on loopback: made by the tests with rpmbuild and createrepo_c, fetched by URL or from
//! a mirror, and installed with their scripts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use osbc_fixtures::{has_root, has_tool};
use serde_json::{Map, Value, json};

use crate::harness::{Place, checksum, leftovers, respond, serve};

/// Five packages, each of which needs the one before it, and says so in a log when it is installed.
const PACKAGES: [&str; 5] = ["one", "two", "three", "four", "five"];

fn spec(name: &str, needs: Option<&str>) -> String {
    let needs = needs.map_or_else(String::new, |needs| format!("Requires: {needs}\n"));
    format!(
        r#"Name: {name}
Version: 1.0
Release: 1
Summary: A package of the tests
License: Apache-2.0
BuildArch: noarch
{needs}%description
A package of the tests.
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo 'content of {name}' > %{{buildroot}}/usr/share/{name}/file
chmod 640 %{{buildroot}}/usr/share/{name}/file
%pre -p <lua>
posix.mkdir("/var")
posix.mkdir("/var/log")
%post -p <lua>
local log = io.open("/var/log/packages", "a")
log:write("{name} ", io.open("/etc/machine-id"):read("*l"), " ", posix.stat("/proc/self") and "alive" or "dead", "\n")
log:close()
%files
/usr/share/{name}
"#
    )
}

/// Builds the packages and the repository's metadata in a directory, and returns its packages by name.
fn make_repository(directory: &Path) -> Vec<(String, Vec<u8>)> {
    fs::create_dir_all(directory).expect("the directory is writable");
    let run = |command: &mut Command| {
        let output = command.output().expect("the tool starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for (index, name) in PACKAGES.iter().enumerate() {
        let path = directory.join(format!("{name}.spec"));
        fs::write(&path, spec(name, index.checked_sub(1).map(|before| PACKAGES[before]))).expect("writable");
        let place = |name: &str| format!("{name} {}", directory.display());
        let define = [place("_topdir"), place("_rpmdir"), "_rpmfilename %{NAME}.rpm".to_owned()];
        run(Command::new("rpmbuild").arg("-bb").args(define.iter().flat_map(|define| ["--define", define])).arg(path));
    }
    run(Command::new("createrepo_c").arg("--compress-type=gz").arg(directory));
    let read =
        |name: &&str| (format!("{name}.rpm"), fs::read(directory.join(format!("{name}.rpm"))).expect("it was built"));
    let packages: Vec<_> = PACKAGES.iter().map(read).collect();
    let index = fs::read_dir(directory.join("repodata")).expect("createrepo_c made it").flatten().count();
    assert!(index >= 4, "the repository has an index");
    packages
}

/// A manifest that installs packages which that source fetches.
fn installing(source: &str, description: Value, packages: &[(String, Vec<u8>)]) -> Value {
    let references: Vec<String> = packages.iter().map(|(_, package)| checksum(package)).collect();
    json!({
        "version": "2",
        "sources": {source: description},
        "pipelines": [{"name": "tree", "stages": [{
            "type": "org.osbuild.rpm",
            "inputs": {"packages": {
                "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references
            }},
            "options": {"dbpath": "/var/lib/rpm"}
        }]}]
    })
}

fn is_installed(place: &Place) {
    let tree = place.output().join("tree");
    for name in PACKAGES {
        let file = fs::read_to_string(tree.join(format!("usr/share/{name}/file"))).expect("it was installed");
        assert_eq!(file, format!("content of {name}\n"));
    }
    let expected: String = PACKAGES.iter().map(|name| format!("{name} {} alive\n", "f".repeat(32))).collect();
    assert_eq!(fs::read_to_string(tree.join("var/log/packages")).expect("the scripts wrote it"), expected);
    assert_eq!(fs::read_to_string(tree.join("etc/machine-id")).expect("it is kept"), "");
    assert_eq!(fs::read_dir(tree.join("proc")).expect("the directory is made").count(), 0, "nothing is left mounted");
    let database = format!("--dbpath={}", tree.join("var/lib/rpm").display());
    let query = Command::new("rpm").arg(database).args(["-qa", "--qf", "%{NAME}\\n"]).output().expect("rpm starts");
    let mut names: Vec<&str> = str::from_utf8(&query.stdout).expect("names are text").lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["five", "four", "one", "three", "two"]);
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_packages_of_a_repository_are_fetched_and_installed_with_their_scripts() {
    if !has_root() || !["rpm", "rpmbuild", "createrepo_c"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let directory = place.path("repository");
    let packages = make_repository(&directory);
    let url = serve(Arc::new(move |path, stream| match fs::read(directory.join(path.trim_start_matches('/'))) {
        Ok(content) => respond(stream, "200 OK", &content),
        Err(_) => respond(stream, "404 Not Found", b""),
    }));
    let items: Map<String, Value> =
        packages.iter().map(|(name, package)| (checksum(package), json!(format!("{url}/{name}")))).collect();
    let manifest = place.manifest(&installing("org.osbuild.curl", json!({"items": items}), &packages));
    let mut build = place.build(&manifest);
    build.arg("--json");
    let output = build.assert().success().get_output().stdout.clone();
    is_installed(&place);
    // Callers read which packages there are from what the build says.
    let said = String::from_utf8_lossy(&output);
    assert!(said.contains(r#""packages""#) && said.contains(r#""sigmd5""#), "{said}");

    let place = Place::new();
    let item = |(name, package): &(String, Vec<u8>)| (checksum(package), json!({"path": name, "mirror": "test"}));
    let items: Map<String, Value> = packages.iter().map(item).collect();
    let mirrors = json!({"mirrors": {"test": {"type": "baseurl", "url": url}}});
    let description = json!({"items": items, "options": mirrors});
    let manifest = place.manifest(&installing("org.osbuild.librepo", description, &packages));
    place.build(&manifest).assert().success();
    is_installed(&place);
}

#[test]
fn root_a_package_whose_needs_are_not_met_is_not_installed() {
    if !has_root() || !["rpm", "rpmbuild", "createrepo_c"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let packages = make_repository(&place.path("repository"));
    let last = &packages[4..];
    let items: Map<String, Value> = last
        .iter()
        .map(|(name, package)| {
            (checksum(package), json!(format!("file://{}", place.path("repository").join(name).display())))
        })
        .collect();
    let manifest = place.manifest(&installing("org.osbuild.curl", json!({"items": items}), last));
    let output = place.build(&manifest).assert().failure().get_output().clone();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("four is needed by five"), "{said}");
}
