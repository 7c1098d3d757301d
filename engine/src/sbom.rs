//! What an exported result is made of, as a software bill of materials in SPDX 2.3: the packages that the stages of its
//! pipeline and of those that it is made from say they have installed.
//!
//! Build roots leave nothing in it and are not in it.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use osbc_ir::graph::Graph;
use osbc_ir::{Export, PipelineIndex, Value};
use osbc_store::Transaction;
use serde_json::json;
use uuid::Uuid;

use crate::{Error, attest};

/// A package by what it is called and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// Its package URL.
    url: String,
}

/// The document of an exported result; `artifact` is where it lies.
///
/// # Errors
/// The artifact cannot be read.
pub(crate) fn spdx(graph: &Graph, transaction: &Transaction, export: &Export, artifact: &Path) -> Result<Value, Error> {
    let mut packages = BTreeSet::new();
    for pipeline in attest::made_from(graph, export.pipeline) {
        packages.extend(packages_of(graph, transaction, pipeline));
    }
    let epoch = graph.manifest.pipelines[export.pipeline.0].source_epoch;
    let created = epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()).unwrap_or_else(Timestamp::now);
    let digests = attest::digest(artifact)?;
    Ok(document(&export.name, &created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), digests.as_deref(), &packages))
}

fn document(name: &str, created: &str, sha256: Option<&str>, packages: &BTreeSet<Package>) -> Value {
    const IMAGE: &str = "SPDXRef-Image";
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut image = json!({
        "SPDXID": IMAGE, "name": name, "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM"
    });
    if let Some(sum) = sha256 {
        image["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": sum}]);
    }
    let (mut entries, mut relations) = (vec![image], vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)]);
    for (index, package) in packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}", index + 1);
        relations.push(relation(IMAGE, "CONTAINS", &id));
        entries.push(json!({
            "SPDXID": id, "name": package.name, "versionInfo": package.version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.url
            }]
        }));
    }
    // Another name where anything else is in it.
    let content = json!([name, created, entries, relations]).to_string();
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, content.as_bytes());
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:uuid:{namespace}"),
        "creationInfo": {"created": created, "creators": [concat!("Tool: osbc-", env!("CARGO_PKG_VERSION"))]},
        "packages": entries,
        "relationships": relations
    })
}

/// The packages that a pipeline's tree has: of each module the last stage lists all.
fn packages_of(graph: &Graph, transaction: &Transaction, pipeline: PipelineIndex) -> Vec<Package> {
    let Some(last) = graph.pipelines[pipeline.0].last() else { return Vec::new() };
    let (mut packages, mut seen) = (Vec::new(), BTreeSet::new());
    for (node, metadata) in transaction.metadata(graph, last) {
        let Some(stage) = graph.stage_node(node) else { continue };
        let module = &graph.stage(stage).1.module.name;
        let package = match module.as_str() {
            "org.osbc.deb" => deb,
            "org.osbuild.rpm" => rpm,
            _ => continue,
        };
        if seen.insert(module) {
            let listed = metadata["packages"].as_array().into_iter().flatten();
            packages.extend(listed.filter_map(|one| package(one, metadata["distribution"].as_str())));
        }
    }
    packages
}

fn deb(package: &Value, distribution: Option<&str>) -> Option<Package> {
    let text = |key: &str| package[key].as_str();
    let (name, version, arch) = (text("name")?, text("version")?, text("arch")?);
    let vendor = distribution.map(|name| format!("{}/", quoted(name))).unwrap_or_default();
    let url = format!("pkg:deb/{vendor}{}@{}?arch={}", quoted(name), quoted(version), quoted(arch));
    Some(Package { name: name.to_owned(), version: version.to_owned(), url })
}

fn rpm(package: &Value, _: Option<&str>) -> Option<Package> {
    let text = |key: &str| package[key].as_str();
    let (name, version) = (text("name")?, format!("{}-{}", text("version")?, text("release")?));
    let arch = text("arch").map(|arch| format!("arch={}", quoted(arch)));
    let epoch = text("epoch").map(|epoch| format!("epoch={}", quoted(epoch)));
    let qualifiers: Vec<String> = [arch, epoch].into_iter().flatten().collect();
    let mark = if qualifiers.is_empty() { "" } else { "?" };
    let url = format!("pkg:rpm/{}@{}{mark}{}", quoted(name), quoted(&version), qualifiers.join("&"));
    Some(Package { name: name.to_owned(), version, url })
}

/// Text as a part of a package URL.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_urls_with_all_that_identifies_them() {
        let one = json!({"name": "libstdc++6", "version": "1:12.2-3+b1~deb12", "arch": "amd64"});
        let package = deb(&one, Some("debian")).expect("it is whole");
        assert_eq!(package.url, "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2-3%2Bb1~deb12?arch=amd64");
        assert_eq!(deb(&one, None).expect("as before").url, "pkg:deb/libstdc%2B%2B6@1%3A12.2-3%2Bb1~deb12?arch=amd64");
        let one = json!({"name": "bash", "version": "5.2", "release": "1.fc40", "epoch": "1", "arch": "x86_64"});
        assert_eq!(rpm(&one, None).expect("it is whole").url, "pkg:rpm/bash@5.2-1.fc40?arch=x86_64&epoch=1");
        let key = json!({"name": "gpg-pubkey", "version": "1", "release": "2", "epoch": null, "arch": null});
        assert_eq!(rpm(&key, None).expect("it is whole").url, "pkg:rpm/gpg-pubkey@1-2");
        assert!(deb(&json!({"name": "half"}), None).is_none());
    }

    #[test]
    fn a_document_has_a_name_of_its_own_and_the_same_again() {
        let packages = |version: &str| {
            BTreeSet::from([Package { name: "a".into(), version: version.into(), url: format!("pkg:deb/a@{version}") }])
        };
        let made = |version: &str| document("os", "2023-11-14T22:13:20Z", Some("ab"), &packages(version));
        assert_eq!(made("1"), made("1"));
        assert_ne!(made("1")["documentNamespace"], made("2")["documentNamespace"]);
        assert_eq!(made("1")["packages"][1]["SPDXID"], "SPDXRef-Package-1");
        assert_eq!(made("1")["relationships"].as_array().map(Vec::len), Some(2));
    }
}
