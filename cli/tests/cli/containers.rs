//! Container images: an archive made by osbc, served by a registry of the tests' own, fetched by skopeo, and put into a
//! tree.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use osbc_fixtures::{has_root, has_tool};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers, serve};

/// A directory in the OCI image layout as a registry: what is asked for by digest is a blob.
fn registry(layout: &Path, list: Vec<u8>) -> String {
    let (blobs, list_digest) = (layout.join("blobs/sha256"), checksum(&list));
    let url = serve(Arc::new(move |path, stream| {
        let digest = path.rsplit('/').next().unwrap_or_default();
        let (kind, content) = if path.contains("/manifests/") && digest == list_digest {
            ("application/vnd.oci.image.index.v1+json", Some(list.clone()))
        } else if path.contains("/manifests/") {
            (
                "application/vnd.oci.image.manifest.v1+json",
                fs::read(blobs.join(digest.trim_start_matches("sha256:"))).ok(),
            )
        } else if path == "/v2/" {
            ("application/json", Some(b"{}".to_vec()))
        } else {
            ("application/octet-stream", fs::read(blobs.join(digest.trim_start_matches("sha256:"))).ok())
        };
        let (status, content) = content.map_or(("404 Not Found", Vec::new()), |content| ("200 OK", content));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            content.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content)).ok();
    }));
    url.trim_start_matches("http://").to_owned()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("it is JSON")
}

fn archiving() -> Value {
    let tree = |pipeline: &str| {
        json!({
            "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [format!("name:{pipeline}")]
        })
    };
    json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {
            checksum(b"hello\n"): {"encoding": "base64", "data": "aGVsbG8K"}
        }}},
        "pipelines": [
            {"name": "content", "stages": [
                {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/srv"}]}},
                {
                    "type": "org.osbuild.copy",
                    "inputs": {"files": {
                        "type": "org.osbuild.files", "origin": "org.osbuild.source",
                        "references": [checksum(b"hello\n")]
                    }},
                    "options": {"paths": [{
                        "from": format!("input://files/{}", checksum(b"hello\n")), "to": "tree:///srv/hello"
                    }]}
                }
            ]},
            {"name": "more", "stages": [
                {"type": "org.osbuild.mkdir", "options": {"paths": [
                    {"path": "/etc/left", "parents": true}, {"path": "/etc/out", "mode": 0o700}
                ]}},
                {"type": "org.osbuild.ln", "options": {"paths": [
                    {"target": "../srv/hello", "link_name": "tree:///etc/link", "symbolic": true}
                ]}}
            ]},
            {"name": "archive", "source-epoch": 1_700_000_000, "stages": [{
                "type": "org.osbuild.oci-archive",
                "inputs": {"base": tree("content"), "layer.1": tree("more")},
                "options": {"filename": "image.oci", "architecture": "amd64"}
            }]},
            {"name": "unpacked", "stages": [{
                "type": "org.osbuild.skopeo",
                "inputs": {"images": {
                    "type": "org.osbuild.containers", "origin": "org.osbuild.pipeline",
                    "references": {"name:archive": {"name": "app"}}
                }},
                "options": {"destination": {"type": "oci", "path": "/layout"}}
            }]}
        ]
    })
}

#[test]
fn root_an_image_goes_through_a_registry_into_a_tree() {
    if !has_root() || !has_tool("skopeo") {
        return;
    }
    let maker = Place::new();
    let manifest = maker.manifest(&archiving());
    maker.build(&manifest).args(["--export", "unpacked"]).assert().success();
    let layout = maker.output().join("unpacked/layout");
    let digest = read(&layout.join("index.json"))["manifests"][0]["digest"].clone();
    let blob = |digest: &Value| layout.join("blobs/sha256").join(&digest.as_str().expect("a digest")[7..]);
    let id = read(&blob(&digest))["config"]["digest"].clone();
    let size = fs::metadata(blob(&digest)).expect("it is there").len();
    let list = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"architecture": "amd64", "os": "linux"}
        }]
    });
    let list = list.to_string().into_bytes();
    let list_digest = checksum(&list);
    let name = format!("{}/app", registry(&layout, list));

    let image = |id: &str| {
        json!({
            "type": "org.osbuild.containers", "origin": "org.osbuild.source",
            "references": {id: {"name": "registry.example.com/app"}}
        })
    };
    let fetching = |id: &str| {
        json!({
            "version": "2",
            "sources": {
                "org.osbuild.skopeo": {"items": {id: {"image": {"name": name, "digest": digest, "tls-verify": false}}}},
                "org.osbuild.skopeo-index": {"items": {
                    list_digest.clone(): {"image": {"name": name, "tls-verify": false}}
                }}
            },
            "pipelines": [
                {"name": "tree", "stages": [{
                    "type": "org.osbuild.skopeo",
                    "inputs": {
                        "images": image(id),
                        "manifest-lists": {
                            "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [list_digest]
                        }
                    },
                    "options": {"destination": {"type": "dir", "path": "/srv/image"}}
                }]},
                {"name": "deployed", "stages": [{
                    "type": "org.osbuild.container-deploy",
                    "inputs": {"images": image(id)},
                    "options": {"exclude": ["/etc/out"]}
                }]}
            ]
        })
    };
    let place = Place::new();
    let manifest = place.manifest(&fetching(id.as_str().expect("an id")));
    place.build(&manifest).args(["--export", "tree", "--export", "deployed"]).assert().success();
    let image = format!("dir:{}", place.output().join("tree/srv/image").display());
    let inspected = Command::new("skopeo").args(["inspect", "--config", "--raw", &image]).output().expect("it starts");
    assert_eq!(checksum(&inspected.stdout), id, "{}", String::from_utf8_lossy(&inspected.stderr));
    let deployed = place.output().join("deployed");
    assert_eq!(fs::read_to_string(deployed.join("etc/link")).expect("it leads to the file"), "hello\n");
    let names = fs::read_dir(deployed.join("etc")).expect("it is there").flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["left", "link"], "what is excluded is not there");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());

    let other = Place::new();
    let wrong = checksum(b"another image");
    let manifest = other.manifest(&fetching(&wrong));
    let output = other.build(&manifest).assert().failure().get_output().clone();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&wrong) && said.contains("instead of"), "{said}");
}
